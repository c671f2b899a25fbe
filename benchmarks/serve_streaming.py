"""What the server costs: 32 clients streaming over HTTP beside the same requests on the bare engine.

One process holds the engine and the server; this one plays the clients. In each round the bare engine completes 32
chat prompts of different lengths (`Engine.generate`), then 32 clients ask the server for as many at once and read
their streams. Both sample at temperature 1 with the same seeds, so both write the same number of tokens. Speed is
new tokens per CPU second of the process that serves, all its threads together; the clients' own CPU is not counted.
The time to the first token is wall time as a client sees it, from connecting to the first chunk with text.

    python benchmarks/serve_streaming.py [--rounds 5]

Limits: a random model of 7 million parameters, for which a step is short and the server's share therefore large; wall
times are those of this machine, whatever else it is doing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from peer import save_result, system

CLIENTS = 32
NEW_TOKENS = 128
SHAPE = {"context": 512, "depth": 4, "width": 256, "heads": 4}
VOCAB_SIZE = 4096
CHARS = [60 + 25 * i for i in range(CLIENTS)]
"""Lengths of the messages: 60 to 835 characters of Python's own documentation and sources."""
GOAL = 0.85


def requests(round_: int, side: str) -> list[dict[str, Any]]:
    """The chat requests of one round; other texts for each side, so that no prompt is reused from a cache."""
    from melete import datasets

    draw = random.Random(f"{round_} {side}")
    texts: list[str] = []
    for document in datasets.open("stdlib").documents("val"):
        texts += [document] if len(document) > 4 * max(CHARS) else []
        if len(texts) == 200:
            break
    made = []
    for i, chars in enumerate(CHARS):
        text = draw.choice(texts)
        start = draw.randrange(len(text) - chars)
        made.append(
            {
                "model": "random",
                "messages": [{"role": "user", "content": text[start : start + chars]}],
                "max_tokens": NEW_TOKENS,
                "temperature": 1.0,
                "seed": round_ * CLIENTS + i,
            }
        )
    return made


def serve() -> None:
    """The child: builds the model, then obeys one word a line: `bare ROUND`, `cpu`; prints JSON."""
    from itertools import islice

    import torch

    from melete import datasets, settings
    from melete.llm.chat import MeleteChat
    from melete.llm.config import GPTConfig
    from melete.llm.engine import Engine
    from melete.llm.lm import LM
    from melete.llm.model import GPT
    from melete.llm.tokenizer import Tokenizer
    from melete.serve.models import ServedModel
    from melete.serve.plan import plan_chat
    from melete.serve.schema import ChatRequest
    from melete.serve.server import Server

    torch.set_num_threads(1)
    texts = islice(datasets.open("stdlib").documents("train"), 300)
    tokenizer = Tokenizer.train(texts, VOCAB_SIZE)
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **SHAPE)).initialize(0)
    lm = LM(model, tokenizer, MeleteChat(tokenizer), SHAPE["context"], "melete", "random", source="random")
    served = ServedModel("random", lm, Engine(lm, slots=CLIENTS))
    with Server({"random": served}, settings.load()) as server:
        about = {"parameters": sum(p.numel() for p in model.parameters()), "url": server.url}
        print(json.dumps(about), flush=True)
        for line in sys.stdin:
            word, _, round_ = line.strip().partition(" ")
            if word == "cpu":
                print(json.dumps(time.process_time()), flush=True)
                continue
            plans = [plan_chat(served, ChatRequest(**body)) for body in requests(int(round_), "bare")]
            choices = [plan.choices[0] for plan in plans]
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            done = served.engine.generate([c.prompt_ids for c in choices], [c.sampling for c in choices])
            tokens = sum(len(one.token_ids) for one in done)
            cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
            print(json.dumps({"tokens": tokens, "cpu_s": cpu_s, "wall_s": wall_s}), flush=True)


async def stream(url: str, body: dict[str, Any]) -> tuple[float, int]:
    """One client: seconds to its first text, and the tokens that the server counted."""
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    first_s, last = 0.0, b""
    while part := await reader.read(65_536):
        if not first_s and b'"content":"' in part.replace(b'"content":""', b""):
            first_s = time.perf_counter() - began
        last = (last + part)[-2000:]
    writer.close()
    usage = json.loads(last[last.rindex(b'"usage":') + 8 :].split(b"}\n\n")[0])
    return first_s, int(usage["completion_tokens"])


class Child:
    """The serving process."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.about = self._read()

    def ask(self, line: str) -> Any:
        """What the child answers to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("The serving process failed; its error is above.")
        return json.loads(line)


async def clients(url: str, round_: int) -> list[tuple[float, int]]:
    """All clients of one round at once."""
    return await asyncio.gather(*(stream(url, body) for body in requests(round_, "served")))


def measure(child: Child, round_: int) -> dict[str, Any]:
    """One round: the bare engine, then the server."""
    bare = child.ask(f"bare {round_}")
    cpu_s, wall_s = child.ask("cpu"), time.perf_counter()
    results = asyncio.run(clients(child.about["url"], round_))
    wall_s = time.perf_counter() - wall_s
    cpu_s = child.ask("cpu") - cpu_s
    tokens = sum(count for _, count in results)
    return {
        "bare": {"per_cpu_s": bare["tokens"] / bare["cpu_s"], "per_s": bare["tokens"] / bare["wall_s"]},
        "served": {"per_cpu_s": tokens / cpu_s, "per_s": tokens / wall_s},
        "first_token_s": [first_s for first_s, _ in results],
        "tokens": tokens,
    }


def main() -> None:
    """Runs the rounds and keeps the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the warm-up")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    child = Child()
    measure(child, 0)
    rounds = [measure(child, i + 1) for i in range(options.rounds)]
    child.close()
    firsts_ms = sorted(1000 * first_s for one in rounds for first_s in one["first_token_s"])

    def median(side: str, unit: str) -> float:
        return round(statistics.median(one[side][unit] for one in rounds), 1)

    def ratio(unit: str) -> float:
        return round(statistics.median(one["served"][unit] / one["bare"][unit] for one in rounds), 3)

    result = {
        **system(),
        "parameters": child.about["parameters"],
        "clients": CLIENTS,
        "new_tokens_a_client": NEW_TOKENS,
        "rounds": options.rounds,
        "threads": 1,
        "tokens_a_round": round(statistics.median(one["tokens"] for one in rounds)),
        "tokens_per_cpu_s": {side: median(side, "per_cpu_s") for side in ("bare", "served")},
        "tokens_per_s_wall": {side: median(side, "per_s") for side in ("bare", "served")},
        "served_to_bare": {"cpu": ratio("per_cpu_s"), "wall": ratio("per_s"), "goal": GOAL},
        "first_token_ms": {
            "p50": round(statistics.median(firsts_ms), 1),
            "p95": round(firsts_ms[int(0.95 * (len(firsts_ms) - 1))], 1),
        },
    }
    save_result(Path(__file__).stem, result)


if __name__ == "__main__":
    main()
