"""The gateway with the real LiteLLM: every endpoint to every kind of upstream, crashes, changes, and whom it calls."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from gateway_at_hand import MODELS, Lent, at_hand, lend, need_litellm, providers, rows, settings_in
from melete.errors import GatewayError
from melete.gateway import process, program, state, supervise
from melete.gateway.echo.script import Script
from melete.gateway.echo.server import Echo
from melete.gateway.environment import WARM_MODEL
from melete.gateway.provider import Provider
from melete.settings import Settings
from melete.store import database
from postgres_at_hand import server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]

SAID = "hello gateway"
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": SAID}]},
    "/v1/responses": {"input": SAID},
    "/v1/messages": {"messages": [{"role": "user", "content": SAID}], "max_tokens": 64},
}
NATIVE = {
    ("echo", "/v1/chat/completions"): "/v1/chat/completions",
    ("echo", "/v1/responses"): "/v1/responses",
    ("echo-messages", "/v1/messages"): "/v1/messages",
}
"""Model and endpoint to the endpoint of the upstream, where it is the same."""


def ask(
    url: str, lent: Lent, model: str, path: str, *, stream: bool = False, timeout_s: float = 60.0, **more: Any
) -> str:
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


def wait_until(what: Any, wait_s: float = 60.0) -> None:
    deadline = time.monotonic() + wait_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Settings]:
    """A home of its own, whose gateway is down at the end."""
    settings = settings_in(tmp_path / "home")
    need_litellm(settings)
    yield settings
    process.down(settings)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("model", MODELS)
def test_every_endpoint_reaches_every_kind_of_upstream(model: str, path: str, stream: bool) -> None:
    hand = at_hand()
    lent = hand.session((model,))
    hand.upstream.seen.clear()
    answer = ask(hand.url, lent, model, path, stream=stream)
    assert said(path, answer, stream) == SAID
    reached = {seen["path"] for seen in hand.upstream.seen}
    assert len(reached) == 1
    if model == "echo-chat":
        assert reached == {"/v1/chat/completions"}
    if (model, path) in NATIVE:
        assert reached == {NATIVE[model, path]}
    (row,) = hand.requests(lent.id, 1)
    assert (row["status"], row["stream"], row["deployment"]) == ("ok", stream, f"{model}/{model}")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("model", MODELS)
def test_tool_call_comes_through_every_translation(model: str, path: str) -> None:
    hand = at_hand()
    lent = hand.session((model,))
    parameters = {"type": "object", "properties": {"path": {"type": "string"}}}
    tool: dict[str, Any] = {
        "/v1/chat/completions": {"type": "function", "function": {"name": "look", "parameters": parameters}},
        "/v1/responses": {"type": "function", "name": "look", "parameters": parameters},
        "/v1/messages": {"name": "look", "input_schema": parameters},
    }[path]
    called = {"path": "notes.txt"}
    hand.upstream.play(
        Script.model_validate({"turns": [{"tool_calls": [{"name": "look", "arguments": called}]}]})
    )
    try:
        told = json.loads(ask(hand.url, lent, model, path, tools=[tool]))
    finally:
        hand.upstream.play(Script())
    if path == "/v1/chat/completions":
        function = told["choices"][0]["message"]["tool_calls"][0]["function"]
        found = function["name"], json.loads(function["arguments"])
    elif path == "/v1/responses":
        item = next(item for item in told["output"] if item["type"] == "function_call")
        found = item["name"], json.loads(item["arguments"])
    else:
        block = next(block for block in told["content"] if block["type"] == "tool_use")
        found = block["name"], block["input"]
    assert found == ("look", called)
    (row,) = hand.requests(lent.id, 1)
    assert (row["status"], row["tool_calls"]) == ("ok", 1)


def test_warm_up_is_no_request_of_anybody() -> None:
    hand = at_hand()
    with database.connect(hand.settings.database) as connection:
        query = text(
            "SELECT count(*) FROM request WHERE model_asked = :model OR session_id IS NULL AND source = 'warm'"
        )
        assert connection.scalar(query, {"model": WARM_MODEL}) == 0
    assert WARM_MODEL not in hand.gateway.models


def test_no_route_but_those_of_sessions_exists() -> None:
    hand = at_hand()
    lent = hand.session()
    for path in (
        "/key/generate",
        "/config/yaml",
        "/ui",
        "/docs",
        "/openapi.json",
        "/health",
        "/model/info",
        "/",
    ):
        request = urllib.request.Request(hand.url + path, headers=lent.headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        assert caught.value.code == 404, path


def test_metrics_of_litellm_have_their_names_and_no_key_or_session_on_them() -> None:
    hand = at_hand()
    lent = hand.session()
    ask(hand.url, lent, "echo", "/v1/chat/completions")
    key = supervise.scrape_key(hand.settings)
    request = urllib.request.Request(f"{hand.url}/metrics", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=20) as response:
        page = response.read().decode()
    for name in ("litellm_proxy_total_requests_metric_total", "litellm_llm_api_latency_metric_bucket"):
        assert f"{name}{{" in page
    assert lent.id not in page
    assert lent.key not in page
    series = re.findall(r"^litellm_\w+\{([^}]*)\}", page, re.MULTILINE)
    closed = {
        "requested_model", "status_code", "exception_status", "exception_class", "model_group", "le",
    }  # fmt: skip
    assert {label for labels in series for label in re.findall(r"(\w+)=", labels)} <= closed


def test_config_and_state_hold_no_secret(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", "sk-canary-0123456789")
    with Echo(keep=5) as upstream:
        keyed = Provider.model_validate(
            {
                "name": "one",
                "kind": "echo",
                "base_url": f"{upstream.url}/v1",
                "api_key": "${CANARY_KEY}",
                "models": {"echo": {}},
            }
        )
        gateway = process.up(own, [keyed])
        lent = lend(own, ("echo",))
        ask(gateway.url, lent, "echo", "/v1/chat/completions")
        rows(own, lent.id, 1)
        monkeypatch.setenv("CANARY_KEY", "sk-canary-another-one")
        changed = process.up(own, [keyed])
        assert (changed.pid == gateway.pid, changed.port == gateway.port) == (False, True)
        process.down(own)
    found = [file for file in own.home.rglob("*") if file.is_file() and b"sk-canary" in file.read_bytes()]
    assert found == []
    for name in ("config.yaml", "scrape.key"):
        assert (own.gateway / name).stat().st_mode & 0o077 == 0


def test_gateway_through_crashes_changes_and_its_end(own: Settings) -> None:
    """One start is ten CPU seconds, so one gateway lives through it all."""
    with Echo() as upstream:
        first = process.up(own, providers(upstream.url))
        assert process.up(own, providers(upstream.url)) == first

        # A crash of LiteLLM: it comes back on the same port, and a call that comes meanwhile waits and is answered.
        litellm = state.alive(own)
        assert litellm is not None
        assert litellm.litellm_pid is not None
        lent = lend(own, ("echo",))
        os.kill(litellm.litellm_pid, signal.SIGKILL)
        answer = ask(first.url, lent, "echo", "/v1/chat/completions", timeout_s=120)
        assert said("/v1/chat/completions", answer, False) == SAID
        wait_until(lambda: process.status(own).state == "up")
        told = process.status(own).account
        assert told is not None
        assert (told.restarts, told.last_exit) == (1, "was killed by SIGKILL")

        # `here` takes what is up if it offers what is asked for, and refuses to go behind another's back.
        with process.here(own, providers(upstream.url)[:1]) as lent_gateway:
            assert lent_gateway.pid == first.pid
        other = providers("http://127.0.0.1:9")[:1]
        with pytest.raises(GatewayError, match="Another gateway is up"), process.here(own, other):
            pass
        assert process.running(own) == first

        # Killing the supervisor ends LiteLLM too; nothing stale is taken for a gateway.
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: process.running(own) is None)
        assert told.litellm_pid is not None
        wait_until(lambda: not psutil.pid_exists(told.litellm_pid or 0))
        assert process.status(own).state == "down"

    # Another provider, our own server: it has chat completions only, and all three endpoints reach it.
    served = subprocess.Popen(
        [sys.executable, "-m", "melete", "serve", "--model", "echo", "--port", "0"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "MELETE_HOME": str(own.home)},
    )  # fmt: skip
    try:
        assert served.stdout is not None
        line = next(line for line in served.stdout if "API" in line)
        ours = Provider.model_validate(
            {"name": "ours", "kind": "melete", "base_url": line.split()[1], "models": {"echo": {}}}
        )
        second = process.up(own, [ours])
        assert second.port == first.port
        lent = lend(own, ("echo",))
        for path in BODIES:
            for stream in (False, True):
                assert said(path, ask(second.url, lent, "echo", path, stream=stream), stream)
        found = rows(own, lent.id, 6)
        assert [row["status"] for row in found] == ["ok"] * 6
        assert all(row["tokens_out"] for row in found)
    finally:
        served.terminate()
        served.wait(20)

    # The end: LiteLLM is gone, the port is free, and a second `down` finds nothing.
    account = state.alive(own)
    assert account is not None
    assert process.down(own) is True
    assert process.down(own) is False
    assert not psutil.pid_exists(account.litellm_pid or 0)
    process.bind(own, "127.0.0.1", account.port).close()


def test_tied_gateway_ends_with_the_process_that_started_it(own: Settings) -> None:
    code = (
        "import os; from melete import settings; from melete.gateway import process, provider; "
        "home = settings.load(); process.up(home, [provider.load(home, 'echo')], tied=True); os._exit(9)"
    )
    environ = {**os.environ, "MELETE_HOME": str(own.home)}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 9
    wait_until(lambda: state.alive(own) is None)
    account = state.read(own)
    assert account is not None
    assert account.state == "down"


def test_command_starts_one_gateway_that_lives_on_and_lets_answers_finish(own: Settings) -> None:
    bench = own.home / "bench"
    (bench / "providers").mkdir(parents=True)
    (bench / "providers" / "slow.yaml").write_text(
        "kind: echo\nscript: slow-script.yaml\nmodels: {echo: {}}\n"
    )
    (bench / "slow-script.yaml").write_text(
        "turns:\n  - {text: one two three four five six, delay: {token_s: 0.3}}\n"
    )
    environ = {**os.environ, "MELETE_HOME": str(own.home), "MELETE_BENCH": str(bench)}
    command = [sys.executable, "-m", "melete", "gateway"]
    both = [
        subprocess.Popen(
            [*command, "up", "--provider", "slow", "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        for _ in range(2)
    ]
    told = {one.communicate(timeout=180)[0].splitlines()[0] for one in both}
    assert [one.returncode for one in both] == [0, 0]
    gateway = process.running(own)
    assert gateway is not None
    assert told == {f"The gateway is up at {gateway.url}"}
    assert os.getsid(gateway.pid) == gateway.pid, "a terminal that closes would take it along"

    # `down` while an answer is under way: it comes to its end.
    lent = lend(own, ("echo",))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, gateway.url, lent, "echo", "/v1/chat/completions", stream=True)
        wait_until(lambda: rows(own, lent.id), 20)
        done = subprocess.run([*command, "down"], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "The gateway is down.\n")
    assert said("/v1/chat/completions", answer.result(), True) == "one two three four five six"
    (row,) = rows(own, lent.id, 1)
    assert row["status"] == "ok"
    assert process.running(own) is None


@pytest.mark.postgres
def test_gateway_on_postgresql_goes_on_while_the_database_is_away(own: Settings) -> None:
    with server() as running, Echo() as upstream:
        settings = dataclasses.replace(own, database=running.url)
        gateway = process.up(settings, providers(upstream.url))
        lent = lend(settings, ("echo",))
        ask(gateway.url, lent, "echo", "/v1/chat/completions")
        running.stop()
        for path in BODIES:
            answer = ask(gateway.url, lent, "echo", path)
            assert said(path, answer, False) == SAID
        assert process.status(settings).state == "up"
        running.start()
        ask(gateway.url, lent, "echo", "/v1/messages", stream=True)
        found = rows(settings, lent.id, 5)
        assert [row["status"] for row in found] == ["ok"] * 5
        process.down(settings)


def test_litellm_calls_nobody_but_its_providers(own: Settings, tmp_path: Path) -> None:
    """Its system calls are watched from the first instruction to the last."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    real = program.find(own)
    watched, seen = tmp_path / "watched", tmp_path / "seen"
    (watched / "bin").mkdir(parents=True)
    (watched / "lib").symlink_to(real.python.parent.parent / "lib")
    (watched / "bin/python").write_text(
        f'#!/bin/sh\nexec {strace} -f -qq -e trace=connect,sendto,sendmmsg -o {seen} {real.python} "$@"\n'
    )
    (watched / "bin/python").chmod(0o755)
    (watched / "bin/litellm").touch()
    settings = settings_in(own.home, MELETE_LITELLM=str(watched / "bin/litellm"))
    with Echo() as upstream:
        gateway = process.up(settings, providers(upstream.url))
        lent = lend(settings, MODELS)
        for model in MODELS:
            for path in BODIES:
                ask(gateway.url, lent, model, path, stream=True)
        process.down(settings)
        lines = seen.read_text().splitlines()
        to_upstream = f"htons({upstream.port})"
    assert any(to_upstream in line for line in lines)
    abroad = [
        line
        for line in lines
        if ("AF_INET" in line and not re.search(r'inet_addr\("127\.|"::1"|inet_addr\("0\.0\.0\.0"\)', line))
        or "htons(53)" in line
    ]
    assert abroad == []
