"""Serves the runs behind a provider of kind `melete` for as long as an experiment is played.

`melete serve` runs as a child process, which dies with this one, on a port of this machine that only the gateway is
told. It loads its models while the gateway starts; `Served.wait` returns when it answers. Limits: the port is chosen
before the child binds it, so another program could take it in between; the child then says so and ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from melete.bench.exec import end_group
from melete.errors import ServerError
from melete.gateway.provider import Provider
from melete.settings import Settings
from melete.supervision import answers, end_with_parent

HOST = "127.0.0.1"
WAIT_S = 300.0
PAUSE_S = 0.1


@dataclass(frozen=True)
class _Child:
    """A server: where it answers, its process, and what it printed."""

    url: str
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def last_line(self) -> str:
        """Its error, or the last thing that it said."""
        self.said.seek(0)
        lines = self.said.read().decode("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it said nothing"])[-1]


@dataclass(frozen=True)
class Served:
    """Providers with an address each, and the children that answer there."""

    providers: list[Provider]
    children: list[_Child]

    def wait(self, wait_s: float = WAIT_S) -> None:
        """Waits until every child answers.

        Raises:
            ServerError: one ended or did not answer in time; the message holds its last line.
        """
        deadline = time.monotonic() + wait_s
        for child in self.children:
            while not answers(f"{child.url}/models", timeout_s=5):
                if child.process.poll() is not None or time.monotonic() > deadline:
                    raise ServerError(
                        f"melete serve did not come up at {child.url}: {child.last_line()}",
                        next_step="Try it by hand with: melete serve --model NAME=RUN",
                    )
                time.sleep(PAUSE_S)


@contextmanager
def serve(settings: Settings, providers: Sequence[Provider], *, device: str, slots: int) -> Iterator[Served]:
    """Starts a server for each provider of kind `melete` without an address; the others stay as they are.

    Args:
        settings: home folder with the runs.
        providers: each model of a served one names its run.
        device: where the models run.
        slots: answers that one model writes at once.
    """
    with contextlib.ExitStack() as stack:
        known, children = [], []
        for provider in providers:
            if provider.kind != "melete" or provider.base_url is not None:
                known.append(provider)
                continue
            child = stack.enter_context(_start(settings, provider, device, slots))
            known.append(provider.model_copy(update={"base_url": child.url}))
            children.append(child)
        yield Served(known, children)


@contextmanager
def _start(settings: Settings, provider: Provider, device: str, slots: int) -> Iterator[_Child]:
    models = [f"--model={model.model or name}={model.serve}" for name, model in provider.models.items()]
    port = str(_free_port())
    command = [
        sys.executable, "-m", "melete", "serve", *models, "--host", HOST, "--port", port, "--device", device,
        "--slots", str(slots), "--bare",
    ]  # fmt: skip
    # On loopback, and known to the gateway alone: without the token that the settings may hold.
    environ = {**os.environ, "MELETE_HOME": str(settings.home), "MELETE_TOKEN": ""}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            process_group=0,
            preexec_fn=end_with_parent,
        )
        try:
            yield _Child(f"http://{HOST}:{port}/v1", process, said)
        finally:
            end_group(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
