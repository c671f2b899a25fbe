"""One real gateway and one scripted upstream for all tests of a worker: LiteLLM takes some ten CPU seconds to start.

A file that uses it says `pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]`, so that its tests share
one worker. The gateway lives in a home of its own until the worker ends:

    from gateway_at_hand import at_hand

    def test_...() -> None:
        hand = at_hand()                       # skips where LiteLLM is not there
        lent = hand.session()                  # a live session with a key: lent.id, lent.key
        httpx.post(f"{hand.url}/v1/chat/completions", headers=lent.headers, json={"model": "echo", ...})
        row = hand.requests(lent.id)[0]        # rows of the session, after the spool was read

Models: `echo` (the scripted upstream as an OpenAI server), `echo-chat` (the same, but only its chat completions are
used), `echo-messages` (the same as an Anthropic server). `hand.upstream.play(Script(...))` changes what it answers,
`hand.upstream.seen` holds the newest requests that reached it; whoever plays a script puts `Script()` back.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from melete import settings as configured
from melete.errors import GatewayError
from melete.gateway import process, program
from melete.gateway.echo.server import Echo
from melete.gateway.process import Gateway
from melete.gateway.provider import Provider
from melete.settings import Settings

MODELS = ("echo", "echo-chat", "echo-messages")
KEPT_REQUESTS = 200
SAID = "hello gateway"
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": SAID}]},
    "/v1/responses": {"input": SAID},
    "/v1/messages": {"messages": [{"role": "user", "content": SAID}], "max_tokens": 64},
}
"""Endpoint to the body of a question that the upstream repeats."""


_LENT = ExitStack()


@dataclass(frozen=True)
class Lent:
    """A session that is open, and its key."""

    id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@dataclass(frozen=True)
class AtHand:
    """A gateway that is up, and the upstream behind it."""

    settings: Settings
    gateway: Gateway
    upstream: Echo

    @property
    def url(self) -> str:
        return self.gateway.url

    def session(
        self, models: tuple[str, ...] = MODELS, *, expires_in_s: float = 600.0, policy: Any = None
    ) -> Lent:
        """Opens a session and issues its key."""
        return lend(self.settings, models, expires_in_s=expires_in_s, policy=policy)

    def requests(self, session: str, count: int = 0, wait_s: float = 20.0) -> list[dict[str, Any]]:
        """Rows of a session's requests in the order of their start, once there are `count` that have ended."""
        return rows(self.settings, session, count, wait_s)


def lend(
    settings: Settings, models: tuple[str, ...], *, expires_in_s: float = 600.0, policy: Any = None
) -> Lent:
    """Opens a session in a home and issues its key."""
    from melete.gateway import sessions
    from melete.gateway.issuers.embedded import EmbeddedIssuer
    from melete.store import database

    expires_s = time.time() + expires_in_s
    with database.opened(settings.database) as engine:
        with engine.begin() as connection:
            opened = sessions.open_session(connection, model=models[0], expires_s=expires_s)
        return Lent(opened.id, EmbeddedIssuer(engine).issue(opened.id, models, expires_s, policy).key)


def rows(settings: Settings, session: str, count: int = 0, wait_s: float = 20.0) -> list[dict[str, Any]]:
    """Rows of a session's requests; see `AtHand.requests`."""
    from sqlalchemy import select

    from melete.gateway.collectors import spool
    from melete.store import database
    from melete.store.models import RequestRow

    table = RequestRow.__table__
    deadline = time.monotonic() + wait_s
    while True:
        spool.collect(settings)
        with database.connect(settings.database) as connection:
            query = select(table).where(table.c.session_id == session).order_by(table.c.started_s)
            found = [dict(row) for row in connection.execute(query).mappings()]
        if sum(row["ended_s"] is not None for row in found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def ask(
    url: str, lent: Lent, model: str, path: str, *, stream: bool = False, timeout_s: float = 60.0, **more: Any
) -> str:
    """Asks an endpoint for a repetition of `SAID`; the body of the answer. `more` goes into the request."""
    body = {"model": model, "stream": stream, **BODIES[path], **more}
    headers = {"Content-Type": "application/json", **lent.headers}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        return str(response.read().decode())


def said(path: str, answer: str, stream: bool) -> str:
    """The text of an answer, of any endpoint, streamed or not."""
    if not stream:
        told = json.loads(answer)
        if path == "/v1/chat/completions":
            return str(told["choices"][0]["message"]["content"])
        parts = told["content"] if path == "/v1/messages" else told["output"][0]["content"]
        return "".join(part["text"] for part in parts)
    events = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
    if path == "/v1/chat/completions":
        deltas = [event["choices"][0]["delta"].get("content") for event in events if event["choices"]]
    elif path == "/v1/messages":
        deltas = [event["delta"].get("text") for event in events if event["type"] == "content_block_delta"]
    else:
        deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    return "".join(delta or "" for delta in deltas)


def providers(url: str) -> list[Provider]:
    """Three providers whose upstream is one scripted one at a URL."""
    price = {"model": "echo", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    return [
        Provider.model_validate({"name": name, "models": {name: price}, **how})
        for name, how in {
            "echo": {"kind": "echo", "base_url": f"{url}/v1"},
            "echo-chat": {"kind": "openai", "base_url": f"{url}/v1", "speaks": ["chat"]},
            "echo-messages": {"kind": "anthropic", "base_url": url},
        }.items()
    ]


def settings_in(folder: Path, **variables: str) -> Settings:
    """Settings of a home in a folder, whatever the environment says."""
    environ = {"MELETE_HOME": str(folder), **variables}
    if "MELETE_LITELLM" in os.environ:
        environ["MELETE_LITELLM"] = os.environ["MELETE_LITELLM"]
    return configured.load(environ, folder)


def need_litellm(settings: Settings) -> None:
    """Skips a test where LiteLLM is not installed."""
    try:
        program.find(settings)
    except GatewayError:
        pytest.skip("python tools/envs.py litellm has not been run")


def at_hand() -> AtHand:
    """The gateway of this worker, started by whoever asks first; skips where LiteLLM is not installed."""
    need_litellm(settings_in(Path.cwd()))
    started = _started()
    if isinstance(started, GatewayError):
        pytest.fail(str(started), pytrace=False)
    return started


def end() -> None:
    """Ends what this worker's tests have shared; `conftest` calls it when the last test has run."""
    _LENT.close()


@cache
def _started() -> AtHand | GatewayError:
    """The gateway, or why it did not start: that is not tried again for every test."""
    home = Path(tempfile.mkdtemp(prefix="melete-gateway-"))
    settings = settings_in(home)
    upstream = Echo(keep=KEPT_REQUESTS).__enter__()

    _LENT.callback(shutil.rmtree, home, ignore_errors=True)
    _LENT.callback(upstream.__exit__)
    try:
        gateway = _LENT.enter_context(process.here(settings, providers(upstream.url)))
    except GatewayError as error:
        return error
    return AtHand(settings, gateway, upstream)
