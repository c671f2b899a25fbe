"""How long the gateway takes to start: LiteLLM's own command line and ours, in turns, in CPU seconds of its process.

    python benchmarks/gateway_start.py [--rounds 3] [--results FILE]

- plain: `litellm --config`, with the same settings against calls to the outside;
- ours: the same config through `gateway/launch.py`, where the garbage collector rests during the imports;
- up: all of `melete gateway up`: hook, metrics, database, and a warm-up of each endpoint, whose time is in it.

CPU is that of LiteLLM's process when it first answers `/health/liveliness` (for `up`: when it is ready for sessions).
The first call is timed on the client's side: what a warm-up saves the first session.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from melete import settings as configured
from melete import supervision
from melete.gateway import environment, process, program, provider, state, supervise
from melete.gateway.echo.server import Echo
from melete.settings import Settings

ASKED = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


def plain_config(folder: Path, upstream: Echo) -> Path:
    """A config without anything of ours."""
    one = {
        "model_name": "echo",
        "litellm_params": {"model": "openai/echo", "api_base": f"{upstream.url}/v1", "api_key": "none"},
    }
    file = folder / "plain.yaml"
    file.write_text(json.dumps({"model_list": [one], "general_settings": {"master_key": "sk-plain"}}))
    return file


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def first_call_ms(url: str, key: str) -> float:
    """Wall time of one call."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(ASKED).encode(), headers)
    began_s = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as response:
        response.read()
    return (time.perf_counter() - began_s) * 1000


def alone(found: program.Program, file: Path, *, ours: bool) -> tuple[float, float, float]:
    """Starts LiteLLM without a supervisor; wall seconds, CPU seconds and milliseconds of the first call."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not ours:
            listener.close()
        environ = {**supervise.QUIET, "PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
        launch = Path(supervise.__file__).with_name("launch.py")
        handed = [listener.fileno()] if ours else []
        command = (
            [found.python, "-I", launch, file]
            if ours
            else [
                found.python.with_name("litellm"),
                "--config",
                file,
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ]
        )
        environ |= {environment.LISTEN_FD: str(handed[0])} if ours else {}
        began_s = time.perf_counter()
        child = subprocess.Popen(
            command, env=environ, pass_fds=handed, stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not supervision.answers(f"http://127.0.0.1:{port}/{supervise.HEALTH}", timeout_s=1):
            time.sleep(0.05)
        told = (
            time.perf_counter() - began_s,
            cpu_s(child.pid),
            first_call_ms(f"http://127.0.0.1:{port}", "sk-plain"),
        )
        child.terminate()
        child.wait()
        return told


def whole(settings: Settings, upstream: Echo) -> tuple[float, float, float]:
    """The same of all of `melete gateway up`."""
    from melete.gateway import sessions
    from melete.gateway.issuers.embedded import EmbeddedIssuer
    from melete.store import database

    one = provider.Provider(name="echo", kind="echo", base_url=f"{upstream.url}/v1", models={"echo": {}})
    began_s = time.perf_counter()
    gateway = process.up(settings, [one])
    wall_s = time.perf_counter() - began_s
    account = state.alive(settings)
    assert account is not None
    assert account.litellm_pid is not None
    used_s = cpu_s(account.litellm_pid)
    expires_s = time.time() + 60
    with database.opened(settings.database) as engine:
        with engine.begin() as connection:
            opened = sessions.open_session(connection, model="echo", expires_s=expires_s)
        key = EmbeddedIssuer(engine).issue(opened.id, ["echo"], expires_s).key
    called_ms = first_call_ms(gateway.url, key)
    process.down(settings)
    return wall_s, used_s, called_ms


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="starts of each kind")
    parser.add_argument("--results", type=Path, help="file for the figures, as JSON")
    chosen = parser.parse_args()
    rounds = chosen.rounds
    times: dict[str, list[tuple[float, float, float]]] = {"plain": [], "ours": [], "up": []}
    with tempfile.TemporaryDirectory() as home, Echo() as upstream:
        settings = configured.load({**os.environ, "MELETE_HOME": home})
        found = program.find(settings)
        file = plain_config(Path(home), upstream)
        for _ in range(rounds):
            times["plain"].append(alone(found, file, ours=False))
            times["ours"].append(alone(found, file, ours=True))
            times["up"].append(whole(settings, upstream))
    print(
        f"LiteLLM {found.version}, median of {rounds}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n"
    )
    print(f"{'start':<8} {'wall s':>8} {'CPU s':>8} {'first call ms':>14}")
    figures = {}
    for name, measured in times.items():
        wall_s, used_s, called_ms = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:<8} {wall_s:8.1f} {used_s:8.2f} {called_ms:14.0f}")
        figures[name] = {"wall_s": wall_s, "cpu_s": used_s, "first_call_ms": called_ms}
    if chosen.results:
        told = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "litellm": found.version,
            "rounds": rounds,
        }
        chosen.results.write_text(
            json.dumps({"gateway_start": figures | told}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
