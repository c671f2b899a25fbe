"""The life of a gateway with the real LiteLLM: crashes, changes, a database that is away, its end, and whom it calls.

Each test starts LiteLLM in a home of its own, at some ten CPU seconds a start.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway_at_hand import BODIES, MODELS, SAID, ask, lend, need_litellm, providers, rows, said, settings_in
from melete.errors import GatewayError
from melete.gateway import process, program, state
from melete.gateway.echo.script import Script
from melete.gateway.echo.server import Echo
from melete.gateway.provider import Provider
from melete.settings import Settings
from postgres_at_hand import server

pytestmark = pytest.mark.slow


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


def test_secrets_reach_the_provider_and_no_file_and_a_timeout_is_no_retry(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", "sk-canary-0123456789")
    monkeypatch.setenv("CANARY_TEAM", "sk-canary-team")
    with Echo(keep=20) as upstream:
        keyed = Provider.model_validate(
            {
                "name": "one",
                "kind": "echo",
                "base_url": f"{upstream.url}/v1",
                "api_key": "${CANARY_KEY}",
                "headers": {"X-Team": "${CANARY_TEAM}"},
                "models": {"echo": {}},
                "timeout_s": 1.0,
            }
        )
        gateway = process.up(own, [keyed])
        lent = lend(own, ("echo",))
        ask(gateway.url, lent, "echo", "/v1/chat/completions")
        (seen,) = [one for one in upstream.seen if one["path"] == "/v1/chat/completions"]
        assert seen["headers"]["authorization"] == "Bearer sk-canary-0123456789"
        assert seen["headers"]["x-team"] == "sk-canary-team"

        upstream.seen.clear()
        upstream.play(Script.model_validate({"turns": [{"hang_s": 30}]}))
        began_s = time.monotonic()
        with pytest.raises(urllib.error.HTTPError):
            ask(gateway.url, lent, "echo", "/v1/chat/completions")
        assert time.monotonic() - began_s < 15
        assert len(upstream.seen) == 1
        assert [row["error_class"] for row in rows(own, lent.id, 2)] == [None, "timeout"]

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
            with pytest.raises(GatewayError, match="in use by a run"):
                process.up(own, providers("http://127.0.0.1:9"))
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


def test_lent_gateway_ends_with_the_last_that_needs_it_even_if_that_is_killed(own: Settings) -> None:
    code = (
        "import sys; from melete import settings; from melete.gateway import process, provider; "
        "home = settings.load(); held = process.here(home, [provider.load(home, 'echo')]); "
        "print(held.__enter__().pid, flush=True); sys.stdin.read(); held.__exit__(None, None, None)"
    )
    environ = {**os.environ, "MELETE_HOME": str(own.home)}
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ,
        )
        for _ in range(2)
    )  # fmt: skip
    assert first.stdout is not None
    assert second.stdout is not None
    assert first.stdout.readline() == second.stdout.readline()
    first.communicate(timeout=60)
    assert first.returncode == 0
    account = state.alive(own)
    assert account is not None
    assert account.state == "up", "the second still needs it"
    second.kill()
    second.communicate()
    wait_until(lambda: state.alive(own) is None)
    ended = state.read(own)
    assert ended is not None
    assert ended.state == "down"


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
