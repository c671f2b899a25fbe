"""The same requests seen by our hook and by LiteLLM's own tracker, through a real proxy: counted once, and equal."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from spend_log_table import insert, litellm_database
from sqlalchemy import Engine, func, select

from gateway_at_hand import MODELS, Lent, lend, need_litellm, providers, settings_in
from melete.gateway import config, environment, launch, program, supervise
from melete.gateway.collectors import spend_logs
from melete.gateway.collectors.prometheus import Reading, keep, read
from melete.gateway.collectors.spool import collect
from melete.gateway.echo.script import Script
from melete.gateway.echo.server import Echo
from melete.gateway.events import parse
from melete.gateway.reconcile import reconcile
from melete.settings import Settings
from melete.store import database
from melete.store.models import RequestRow
from prometheus_at_hand import prometheus

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

REQUESTS = RequestRow.__table__
SCRIPT = {
    "rules": [
        {"when": {"last": "limit"}, "error": {"status": 429, "message": "slow down"}},
        {"when": {"last": "break"}, "text": "one two three four five six", "cut_after": 3},
        {
            "usage": {"input": 120, "cached": 64, "output": 20, "reasoning": 5},
            "text": "an answer of some words",
        },
    ]
}


@pytest.fixture
def litellm() -> Iterator[Engine]:
    """A PostgreSQL database with LiteLLM's tables."""
    with litellm_database() as found:
        yield found


@dataclass(frozen=True)
class Seen:
    """What all saw: the home whose spool the hook wrote, the rows of LiteLLM's tracker, what Prometheus scraped."""

    settings: Settings
    logs: list[dict[str, Any]]
    scraped: list[Reading]
    since_s: float
    first: Lent
    second: Lent
    answered: int
    failed: int


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Plays some requests of two sessions through a LiteLLM that runs our hook and its own tracker."""
    folder = tmp_path_factory.mktemp("home")
    settings = settings_in(folder)
    need_litellm(settings)
    settings.gateway.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("spend_log_tap.py"), settings.gateway / "spend_log_tap.py")
    tapped = settings.gateway / "tapped.jsonl"
    with database.opened(settings.database):
        pass
    first, second = lend(settings, MODELS), lend(settings, MODELS)
    with Echo(Script.model_validate(SCRIPT)) as upstream, socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = proxy(settings, upstream.url, listener, tapped)
        try:
            with prometheus({"litellm": (f"{url}/metrics/", "scrape")}) as server:
                server.wait_for("up", 1, wait_s=180)
                since_s = time.time()
                answered, failed = play(url, first, second)
                wait_for_rows(tapped, answered + failed)
                server.wait_for("sum(litellm_proxy_total_requests_metric_total)", answered + failed)
                scraped = read(server.url, since_s)
        finally:
            process.terminate()
            process.wait(60)
    logs = [json.loads(line) for line in tapped.open()]
    return Seen(settings, logs, scraped, since_s, first, second, answered, failed)


def proxy(
    settings: Settings, upstream: str, listener: socket.socket, tapped: Path
) -> subprocess.Popen[bytes]:
    """LiteLLM as the gateway starts it, with its tracker of spending besides our hook."""
    document = config.document(providers(upstream), f"{upstream}/v1")
    document["litellm_settings"]["callbacks"].append("spend_log_tap.tap")
    document["general_settings"] |= {"disable_error_logs": False, "disable_spend_logs": False}
    (settings.gateway / "config.yaml").write_text(config.text(document), encoding="utf-8")
    environ = {
        **{name: os.environ[name] for name in supervise.PASSED_ON if name in os.environ},
        **supervise.QUIET,
        "NO_PROXY": "127.0.0.1,localhost",
        "AIOHTTP_KEEPALIVE_TIMEOUT": "4",
        "SPEND_LOG_TAP": str(tapped),
        environment.DATABASE: settings.database,
        environment.SPOOL: str(settings.gateway / "spool"),
        environment.CONTENT: str(settings.gateway / "content"),
        environment.SCRAPE_KEY_HASH: sha256(b"scrape").hexdigest(),
        environment.WARM_KEY_HASH: sha256(b"warm").hexdigest(),
        environment.MASTER_KEY: f"sk-{secrets.token_urlsafe(16)}",
        environment.LISTEN_FD: str(listener.fileno()),
    }
    command = [program.find(settings).python, "-I", launch.__file__, str(settings.gateway / "config.yaml")]
    return subprocess.Popen(
        [str(part) for part in command],
        env=environ,
        cwd=settings.gateway,
        stdin=subprocess.PIPE,
        stdout=(settings.gateway / "log").open("wb"),
        stderr=subprocess.STDOUT,
        pass_fds=[listener.fileno()],
    )


def play(url: str, first: Lent, second: Lent) -> tuple[int, int]:
    """Requests of every endpoint, streamed and not, some of which fail; returns how many were answered and failed."""
    answered = failed = 0
    with httpx.Client(base_url=url, timeout=180) as client:
        for lent in (first, second):
            for stream in (False, True):
                say = [{"role": "user", "content": "hello"}]
                bodies = [
                    ("/v1/chat/completions", {"model": "echo", "messages": say}),
                    ("/v1/responses", {"model": "echo", "input": "hello"}),
                    ("/v1/messages", {"model": "echo-messages", "messages": say, "max_tokens": 50}),
                ]
                for path, body in bodies:
                    response = client.post(path, json={**body, "stream": stream}, headers=lent.headers)
                    response.raise_for_status()
                    answered += 1
            # A client may send the call id of another request; it must not join what does not belong together.
            for _ in range(2):
                same = {**lent.headers, "x-litellm-call-id": "11111111-1111-1111-1111-111111111111"}
                body = {"model": "echo-chat", "messages": [{"role": "user", "content": "hi"}]}
                client.post("/v1/chat/completions", json=body, headers=same).raise_for_status()
                answered += 1
            broken = {"model": "echo", "messages": [{"role": "user", "content": "break"}], "stream": True}
            client.post("/v1/chat/completions", json=broken, headers=lent.headers)
            limited = {"model": "echo", "messages": [{"role": "user", "content": "limit"}]}
            assert client.post("/v1/chat/completions", json=limited, headers=lent.headers).status_code == 429
            failed += 2
    return answered, failed


def wait_for_rows(tapped: Path, count: int) -> None:
    """Waits until LiteLLM's tracker, which works after the answer, has told of every request."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if tapped.exists() and tapped.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.1)


def test_tracker_told_of_every_request(seen: Seen) -> None:
    hashes = {sha256(lent.key.encode()).hexdigest() for lent in (seen.first, seen.second)}
    assert len([row for row in seen.logs if row["api_key"] in hashes]) == seen.answered + seen.failed


def test_hook_tells_nothing_that_the_list_does_not_allow(seen: Seen) -> None:
    lines = [line for path in (seen.settings.gateway / "spool").glob("*.jsonl") for line in path.open("rb")]
    events = [parse(line) for line in lines]
    assert len(events) >= 3 * seen.answered
    assert [
        line for line, event in zip(lines, events, strict=True) if not event or "dropped" in event.fields
    ] == []


@pytest.mark.parametrize("log_first", [False, True])
def test_requests_that_both_saw_are_counted_once_and_agree(
    seen: Seen,
    litellm: Engine,
    tmp_path: Path,
    log_first: bool,
) -> None:
    for row in seen.logs:
        insert(litellm, row)
    with database.opened(f"sqlite:///{tmp_path}/melete.db") as engine:
        copy_credentials(seen, engine)
        found = Settings(seen.settings.home, None, f"sqlite:///{tmp_path}/melete.db")
        for step in (1, 0) if log_first else (0, 1):
            if step:
                spend_logs.collect_into(engine, litellm)
            else:
                collect(found)
        with engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(select(REQUESTS)).mappings()]
    of_sessions = [row for row in rows if row["session_id"] in (seen.first.id, seen.second.id)]
    assert len(of_sessions) == seen.answered + seen.failed
    assert {row["source"] for row in of_sessions} == {"hook,spend_logs"}


def test_prometheus_agrees_as_a_third_witness_and_adds_nothing(
    seen: Seen, litellm: Engine, tmp_path: Path
) -> None:
    for row in seen.logs:
        insert(litellm, row)
    with database.opened(f"sqlite:///{tmp_path}/melete.db") as engine:
        copy_credentials(seen, engine)
        collect(Settings(seen.settings.home, None, f"sqlite:///{tmp_path}/melete.db"))
        spend_logs.collect_into(engine, litellm)
        with engine.begin() as connection:
            keep(connection, seen.scraped)
            lines = reconcile(connection, seen.scraped, seen.since_s, time.time())
            count = connection.scalar(select(func.count()).select_from(REQUESTS))
    assert count == seen.answered + seen.failed
    assert {line.source for line in lines} == {"hook", "spend_logs", "litellm"}
    assert [line.sentence for line in lines if line.difference] == []


def test_figures_of_both_witnesses_agree(seen: Seen, litellm: Engine, tmp_path: Path) -> None:
    for row in seen.logs:
        insert(litellm, row)
    with database.opened(f"sqlite:///{tmp_path}/log.db") as engine:
        copy_credentials(seen, engine)
        spend_logs.collect_into(engine, litellm)
        log = totals(engine)
    with database.opened(f"sqlite:///{tmp_path}/hook.db") as engine:
        copy_credentials(seen, engine)
        collect(Settings(seen.settings.home, None, f"sqlite:///{tmp_path}/hook.db"))
        hook = totals(engine)
    assert hook == log


def totals(engine: Engine) -> dict[Any, Any]:
    """Session, endpoint, status and error class to the figures that both witnesses tell, summed."""
    found: dict[Any, Any] = {}
    with engine.connect() as connection:
        counted = REQUESTS.c.error_class.is_distinct_from(
            "connection"
        )  # of a stream that was cut both estimate
        query = select(REQUESTS).where(REQUESTS.c.session_id.is_not(None), counted)
        for row in connection.execute(query).mappings():
            key = (row["session_id"], row["endpoint"], row["status"], row["error_class"])
            count, tokens_in, tokens_out, cached, cost = found.get(key, (0, 0, 0, 0, 0.0))
            found[key] = (
                count + 1,
                tokens_in + (row["tokens_in"] or 0),
                tokens_out + (row["tokens_out"] or 0),
                cached + (row["tokens_cached"] or 0),
                round(cost + (row["cost_usd"] or 0), 9),
            )
    return found


def copy_credentials(seen: Seen, engine: Engine) -> None:
    """Puts the credentials and sessions of the home into another store."""
    from melete.store.models import CredentialRow, SessionRow

    with database.connect(seen.settings.database) as source, engine.begin() as connection:
        for table in (CredentialRow.__table__, SessionRow.__table__):
            for row in source.execute(select(table)).mappings():
                connection.execute(
                    table.insert().values({column.name: row[column.name] for column in table.columns})
                )
