"""A hub's child process, which runs in an environment of its own because its pins cannot be met beside Melete's.

The child is one file beside this one that imports nothing of Melete. It reads JSON lines from its standard input and
writes JSON lines to its standard output; what its libraries print goes to a log. It ends when its input ends, so it
never outlives the process that started it, however that one ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import melete
from melete.errors import HubError

LOG_LINES = 5
END_S = 5.0


class Child:
    """A running child process.

    Args:
        environment: its name in `envs/`.
        script: file name in this folder.
        variables: further environment variables.

    Raises:
        HubError: the environment has not been made.
    """

    def __init__(self, environment: str, script: str, variables: Mapping[str, str] | None = None) -> None:
        self.environment = environment
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [str(python_of(environment)), "-P", str(Path(__file__).with_name(script))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **(variables or {})},
            start_new_session=True,  # an interrupt from the keyboard is for the process that started it
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ended(self, wait_s: float) -> bool:
        """Whether it has ended, or does within some seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_s)
        return self._process.returncode is not None

    def send(self, message: dict[str, Any]) -> None:
        """Writes one line to it; safe from any thread.

        Raises:
            HubError: it has ended.
        """
        line = json.dumps(message) + "\n"
        assert self._process.stdin is not None
        try:
            with self._lock:
                self._process.stdin.write(line)
                self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self.died() from error

    def receive(self) -> dict[str, Any]:
        """Waits for one line from it; for one thread.

        Raises:
            HubError: it has ended.
        """
        assert self._process.stdout is not None
        line = ""
        with contextlib.suppress(ValueError):  # closed meanwhile
            line = self._process.stdout.readline()
        if not line:
            raise self.died()
        message: dict[str, Any] = json.loads(line)
        return message

    def died(self) -> HubError:
        """What to raise once it has ended: its exit code and the last lines of its log."""
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            code = None
        with self._lock:
            lines = [] if self._log.closed else _last_lines(self._log)
        ended = f"ended with exit code {code}" if code is not None else "closed its connection"
        return HubError(
            f"Agent Lightning, in .envs/{self.environment}, {ended}."
            + "".join(f"\n  {line}" for line in lines),
            next_step="Episodes that were not collected can be submitted again to a new hub.",
        )

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._lock:
            self._log.close()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _last_lines(log: IO[bytes]) -> list[str]:
    log.seek(0)
    return log.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]


def python_of(environment: str) -> Path:
    """Interpreter of an environment of its own, in `.envs` here or beside Melete's source.

    Raises:
        HubError: it has not been made; the message names the command.
    """
    roots = (Path.cwd(), Path(melete.__file__).parents[2])
    for root in roots:
        python = root / ".envs" / environment / "bin" / "python"
        if python.is_file():
            return python
    raise HubError(
        f"This hub needs Agent Lightning in an environment of its own, and .envs/{environment} is not there.",
        allowed="Its pins cannot be met beside Melete's. The hub `local` needs nothing.",
        next_step=f"Make it, in Melete's source folder, with: python tools/envs.py {environment}",
    )
