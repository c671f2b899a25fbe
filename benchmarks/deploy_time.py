"""How long a running server takes to put a deployed agent into use, and how much another model's stream waits for it.

    python benchmarks/deploy_time.py [--depth 4] [--repeat 15]

Real models of ours with random weights on a real server. Each round loads a version with weights that the server does
not have yet, loads one whose weights it has, and rolls back; meanwhile the echo model streams, and the longest pause
between two of its chunks is kept. Wall time is what the server says (`loaded_ms`), CPU that of the whole process.
Goal: under 500 ms.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx

from melete.agents import scenario as scenarios
from melete.llm.checkpoint import save_model
from melete.llm.config import GPTConfig
from melete.llm.model import GPT
from melete.llm.tokenizer import Tokenizer
from melete.runs.run import Run
from melete.serve import deployment, echo, models
from melete.serve.agents import Agents
from melete.serve.deployment import Deployment
from melete.serve.models import ServedModel
from melete.serve.server import Server
from melete.settings import Settings
from peer import save_result, system


def checkpoint(folder: Path, tokenizer: Tokenizer, depth: int, seed: int) -> tuple[Path, int]:
    """A checkpoint with random weights, and its number of parameters."""
    width = 64 * depth
    shape = GPTConfig(tokenizer.vocab_size, 1024, depth, width, width // 64, width // 64)
    model = GPT(shape).initialize(seed)
    folder.mkdir(parents=True)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    made = save_model(
        Run(folder), stage="rl", step=1, model_config=shape, weights=weights, tokenizer=tokenizer
    )
    assert made is not None
    return made, sum(p.numel() for p in model.parameters())


def deploy(settings: Settings, version: str, weights: Path) -> None:
    """Writes a version of the support desk over some weights."""
    played = scenarios.load("customer_support")
    made = Deployment(
        "desk", version, str(weights), deployment.digest_of(weights), played.system_prompt,
        tuple(played.toolset.schemas), played.guard.to_dict(),
    )  # fmt: skip
    deployment.write(settings, made)
    deployment.activate(settings, "desk", version)


def longest_pause_ms(url: str, stop: threading.Event, pauses: list[float]) -> None:
    """Streams from the echo model until told to stop; keeps the pauses between chunks."""
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "word " * 600}]}
    while not stop.is_set():
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
            before_s = time.perf_counter()
            for _ in response.iter_raw():
                now_s = time.perf_counter()
                pauses.append((now_s - before_s) * 1000)
                before_s = now_s
                if stop.is_set():
                    return


def main() -> None:
    """Measures, prints, keeps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=4, help="depth of the model")
    parser.add_argument("--repeat", type=int, default=15, help="rounds")
    given = parser.parse_args()
    tokenizer = Tokenizer.train(["tool call order refund customer " * 200], 300)
    times: dict[str, list[tuple[float, float]]] = {"new weights": [], "weights at hand": [], "rollback": []}
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        settings = Settings.of(home)
        lm = echo.load()
        slow = ServedModel("echo", lm, echo.EchoEngine(lm, interval_s=0.002), models.ECHO)
        served = {"echo": slow}
        agents = Agents(served, settings, device="cpu", slots=8)
        with Server(served, settings, agents=agents) as server, httpx.Client(timeout=60) as client:
            stop, pauses = threading.Event(), list[float]()
            stream = threading.Thread(target=longest_pause_ms, args=(server.url, stop, pauses))
            stream.start()

            def timed(name: str, path: str, body: dict[str, str]) -> None:
                began_s = time.process_time()
                said = client.post(server.url + path, json=body).raise_for_status().json()
                times[name].append((said["loaded_ms"], (time.process_time() - began_s) * 1000))

            for i in range(given.repeat):
                weights, parameters = checkpoint(home / f"run{i}", tokenizer, given.depth, i)
                deploy(settings, f"1.{2 * i}", weights)
                timed("new weights", "/v1/agents", {"name": "desk"})
                deploy(settings, f"1.{2 * i + 1}", weights)
                timed("weights at hand", "/v1/agents", {"name": "desk"})
                timed("rollback", "/v1/agents/desk/rollback", {})
            stop.set()
            stream.join()
    print(f"{parameters:,} parameters, median of {given.repeat}, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'':<16} {'wall ms':>8} {'slowest':>8} {'CPU ms':>8}")
    for name, rows in times.items():
        wall, cpu = ([row[i] for row in rows] for i in range(2))
        print(f"{name:<16} {statistics.median(wall):8.1f} {max(wall):8.1f} {statistics.median(cpu):8.1f}")
    print(f"\nlongest pause of the other model's stream: {max(pauses):.0f} ms")
    figures = {
        "system": system(),
        "parameters": parameters,
        "repeat": given.repeat,
        "wall_ms": {name: statistics.median(row[0] for row in rows) for name, rows in times.items()},
        "slowest_ms": {name: max(row[0] for row in rows) for name, rows in times.items()},
        "cpu_ms": {name: statistics.median(row[1] for row in rows) for name, rows in times.items()},
        "longest_pause_ms": max(pauses),
    }
    save_result("deploy_time", figures)


if __name__ == "__main__":
    main()
