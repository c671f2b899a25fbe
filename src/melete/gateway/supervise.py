"""The supervisor: starts LiteLLM on a socket of its own, watches it, restarts it, and keeps house every second.

    python -m melete.gateway.supervise < plan.json        # what `melete gateway up` does

It holds the listening socket, so a restart keeps the port and calls that come meanwhile wait. After a crash LiteLLM is
started again at once, then after growing pauses; one that no longer answers is ended and started again. Housekeeping
(reading the spool into the store, ending sessions whose time is over, deleting what is past its retention) goes on in a
thread of its own while LiteLLM is away. Limit: one LiteLLM, one worker; its ceiling is some 50 calls a second and core.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from melete import settings as configured
from melete.errors import GatewayError, MeleteError, StorageError
from melete.gateway import config, environment, logs, state, warm
from melete.gateway.housekeeping import Housekeeping
from melete.gateway.issuers import key_hash, new_key
from melete.gateway.plan import Plan
from melete.gateway.provider import Provider
from melete.gateway.state import State
from melete.runs.folder import replace_file
from melete.settings import Settings
from melete.supervision import StopRequest, answers, how_ended

READY_S = 240.0
"""Seconds that LiteLLM may take to answer for the first time."""
HEALTH = "health/liveliness"
PULSE_S = 0.25
CHECK_S = 10.0
DEAF_CHECKS = 6
"""Checks in a row without an answer after which LiteLLM is ended and started again."""
STOP_S = 15.0
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A LiteLLM that lived this long starts the pauses anew."""
PASSED_ON = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
)  # fmt: skip
"""Variables that LiteLLM inherits; of the others it gets only those that a provider in use names."""
QUIET = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_DONT_SHOW_FEEDBACK_BOX": "true",
    "LITELLM_LOG": "ERROR",
    "DISABLE_ADMIN_UI": "True",
    "NO_DOCS": "True",
    "NO_REDOC": "True",
    "NO_OPENAPI": "True",
    "PRISMA_OFFLINE_MODE": "true",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
}
"""With these LiteLLM calls nobody but the providers; a test watches its system calls."""


class Supervisor:
    """One LiteLLM and its housekeeping, until it is told to stop.

    Args:
        settings: home folder and database, whose schema is the newest one.
        plan: what to start.
        listener: the socket that clients connect to.
        shown: whether the log is printed too.
    """

    def __init__(
        self, settings: Settings, plan: Plan, listener: socket.socket, *, shown: bool = False
    ) -> None:
        self._settings, self._plan, self._listener = settings, plan, listener
        needed = [name for provider in plan.providers for name in provider.variables]
        self._secrets = {name: os.environ.get(name, "") for name in needed}
        self._log = logs.Log(settings.gateway / "logs", self._secrets.values(), shown=shown)
        self._stop = StopRequest()
        self._child: subprocess.Popen[bytes] | None = None
        self._scrape_key = config.scrape_key(settings)
        self._state = State(
            state="starting",
            pid=os.getpid(),
            host=plan.host,
            port=listener.getsockname()[1],
            digest=plan.digest,
            started_s=time.time(),
            version=plan.version,
            models=tuple(sorted(name for provider in plan.providers for name in provider.models)),
            providers=dict(plan.digests),
        )

    def stop(self, *_: object) -> None:
        """Asks it to stop; running answers get some seconds."""
        self._stop.set()

    def run(self) -> int:
        """Supervises until `stop`; returns 0, or 1 if LiteLLM never came up.

        Raises:
            GatewayError: another supervisor has this home.
        """
        lock = state.claim(self._settings)
        if lock is None:
            raise GatewayError(
                "Another gateway is up in this home.", next_step="Stop it first with: melete gateway down"
            )
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        with lock, ExitStack() as stack:
            self._say(state="starting")
            house = Housekeeping(self._settings, self._log)
            stack.enter_context(house)
            self._say(metrics_url=house.metrics_url)
            providers = [_with_echo(provider, stack) for provider in self._plan.providers]
            try:
                return self._keep_up(providers)
            finally:
                self._end_child()
                house.close()
                if self._state.state != "failed":
                    self._say(state="down", litellm_pid=None)

    def _keep_up(self, providers: Sequence[Provider]) -> int:
        pause_s = 0.0
        while not self._stop.is_set():
            began_s = time.monotonic()
            trouble = self._start(providers)
            if trouble is None:
                trouble = self._watch()
            elif self._state.restarts == 0 and self._state.start_s is None:
                self._say(state="failed", trouble=trouble, litellm_pid=None)
                return 1
            if self._stop.is_set():
                break
            self._end_child()
            pause_s = (
                0.0 if time.monotonic() - began_s > STEADY_S else min(LONGEST_PAUSE_S, pause_s * 2 or 0.5)
            )
            self._log.say(f"LiteLLM {trouble}; it is started again in {pause_s:.1f} s")
            self._say(
                state="restarting", last_exit=trouble, restarts=self._state.restarts + 1, litellm_pid=None
            )
            self._stop.wait(pause_s)
        self._say(state="stopping")
        return 0

    def _start(self, providers: Sequence[Provider]) -> str | None:
        """Starts LiteLLM and warms it up; what went wrong, or None."""
        from melete.gateway.echo.server import Echo

        began_s, warm_key = time.monotonic(), new_key()
        folder = self._settings.gateway
        with Echo() as upstream:
            written = config.text(config.document(providers, f"{upstream.url}/v1"))
            replace_file(folder / "config.yaml", written, mode=0o600)
            self._child = self._spawn(folder / "config.yaml", self._environment(providers, warm_key))
            said = self._log.of_child(self._child.stdout)
            self._say(litellm_pid=self._child.pid)
            trouble = self._first_answer()
            if trouble is not None or self._stop.is_set():
                said.failed()
                return trouble or "was stopped while it started"
            said.serves()
            failed: list[str] = []
            warming = threading.Thread(
                target=lambda: failed.extend(warm.warm_up(self._state.url, warm_key)), daemon=True
            )
            warming.start()
            while warming.is_alive() and not self._stop.is_set():
                warming.join(PULSE_S)
                if self._child.poll() is not None:  # its calls would wait at a socket that nobody serves
                    return self._exit()
            for one in failed:
                self._log.say(f"warm-up: {one}")
            if len(failed) == warm.COUNT:
                return f"serves no endpoint: {failed[0]}"
        taken_s = time.monotonic() - began_s
        self._log.say(
            f"LiteLLM {self._plan.version} serves {self._state.url}, {taken_s:.1f} s after its start"
        )
        self._say(state="up", start_s=round(taken_s, 2), trouble=None)
        return None

    def _spawn(self, file: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        launch = Path(__file__).with_name("launch.py")
        return subprocess.Popen(
            [self._plan.python, "-I", "-u", str(launch), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            cwd=self._settings.gateway,
            pass_fds=[self._listener.fileno()],
            start_new_session=True,
        )

    def _environment(self, providers: Sequence[Provider], warm_key: str) -> dict[str, str]:
        no_proxy = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost,::1")))
        return {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            **QUIET,
            **{name: value for name, value in self._secrets.items() if value},
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
            "AIOHTTP_KEEPALIVE_TIMEOUT": str(config.keepalive_s(providers)),
            environment.DATABASE: self._settings.database,
            environment.SPOOL: str(self._settings.gateway / "spool"),
            environment.CONTENT: str(self._settings.gateway / "content"),
            environment.SCRAPE_KEY_HASH: key_hash(self._scrape_key),
            environment.WARM_KEY_HASH: key_hash(warm_key),
            environment.MASTER_KEY: new_key(),
            environment.LISTEN_FD: str(self._listener.fileno()),
        }

    def _first_answer(self) -> str | None:
        assert self._child is not None
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and not self._stop.wait(PULSE_S):
            self._stop_if_unneeded()
            if self._child.poll() is not None:
                return self._exit()
            if answers(f"{self._state.url}/{HEALTH}", timeout_s=PULSE_S * 2):
                return None
        return f"gave no answer within {READY_S:.0f} s"

    def _watch(self) -> str:
        """Returns when LiteLLM has ended, has become deaf, or the supervisor is to stop."""
        assert self._child is not None
        deaf, checked_s = 0, time.monotonic()
        while not self._stop.wait(PULSE_S):
            self._stop_if_unneeded()
            if self._child.poll() is not None:
                return self._exit()
            if time.monotonic() - checked_s > CHECK_S:
                checked_s = time.monotonic()
                deaf = 0 if answers(f"{self._state.url}/{HEALTH}", timeout_s=CHECK_S / 2) else deaf + 1
                if deaf >= DEAF_CHECKS:
                    self._child.kill()
                    return f"gave no answer for {DEAF_CHECKS * CHECK_S:.0f} s"
        return "was stopped"

    def _stop_if_unneeded(self) -> None:
        if state.needed(self._settings):
            return
        # Whoever takes a lease holds the same lock, so nobody is lent a gateway that has decided to stop.
        with state.one_at_a_time(self._settings, wait=False) as alone:
            if alone and not state.needed(self._settings):
                self._log.say("whoever needed the gateway has ended")
                self._say(state="stopping")
                self._stop.set()

    def _exit(self) -> str:
        assert self._child is not None
        return how_ended(self._child.wait())

    def _end_child(self) -> None:
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._child = None

    def _say(self, **news: Any) -> None:
        self._state = replace(self._state, **news)
        try:
            state.write(self._settings, self._state)
        except StorageError as error:  # a full disk is no reason to drop the calls that are under way
            self._log.say(error.found)


def _with_echo(provider: Provider, stack: ExitStack) -> Provider:
    """A provider of kind echo without an address gets a scripted upstream of this process."""
    if provider.kind != "echo" or provider.base_url:
        return provider
    from melete.gateway.echo import script
    from melete.gateway.echo.server import Echo

    played = script.read(provider.script) if provider.script else script.Script()
    echo = stack.enter_context(Echo(played))
    return provider.model_copy(update={"base_url": f"{echo.url}/v1"})


def main() -> int:
    """Reads a plan from stdin and supervises; the listening socket is the inherited descriptor of `LISTEN_FD`."""
    plan = Plan.from_json(sys.stdin.read())
    listener = socket.socket(fileno=int(os.environ[environment.LISTEN_FD]))
    settings = configured.load()
    try:
        return Supervisor(settings, plan, listener).run()
    except MeleteError as error:
        print(f"error: {error.found}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
