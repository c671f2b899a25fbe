"""The gateway as a process, without LiteLLM: what is said before anything starts, the lock, the log, the search."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_at_hand import settings_in
from melete.errors import ConfigError, GatewayError, UnknownNameError
from melete.gateway import logs, process, program, state, supervise
from melete.gateway import plan as plans
from melete.gateway.provider import Provider
from melete.gateway.state import State
from melete.settings import Settings


def made(name: str = "one", **fields: Any) -> Provider:
    return Provider.model_validate({"name": name, "kind": "echo", "models": {"small": {}}, **fields})


def account(**fields: Any) -> State:
    told: dict[str, Any] = {
        "state": "up", "pid": 1, "host": "127.0.0.1", "port": 4000, "digest": "d", "started_s": 0.0, "version": "1",
        "models": ("small",), "providers": {"one": "d"},
    }  # fmt: skip
    return State(**{**told, **fields})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture
def told_litellm(tmp_path: Path) -> Path:
    """A program `litellm` whose environment looks whole: version 9.9.9, knowing two kinds of provider."""
    bin, packages = tmp_path / "env" / "bin", tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    bin.mkdir(parents=True)
    (bin / "python").symlink_to(sys.executable)
    (bin / "litellm").write_text(f"#!{bin / 'python'}\n")
    for name in (*program.NEEDED, "litellm-9.9.9.dist-info", "litellm/types"):
        (packages / name).mkdir(parents=True, exist_ok=True)
    (packages / "litellm/types/utils.py").write_text(
        'class LlmProviders(str, Enum):\n    OPENAI = "openai"\n    AZURE = "azure"\n\n\nclass Next:\n    A = "aaa"\n'
    )
    return bin / "litellm"


def test_find_with_a_program_in_the_settings_takes_its_python(tmp_path: Path, told_litellm: Path) -> None:
    found = program.find(settings_in(tmp_path, MELETE_LITELLM=str(told_litellm)))
    assert (found.version, found.python, found.place) == (
        "9.9.9",
        told_litellm.with_name("python"),
        "MELETE_LITELLM",
    )


def test_find_with_a_program_elsewhere_follows_its_first_line(tmp_path: Path, told_litellm: Path) -> None:
    script = tmp_path / "litellm"
    script.write_text(told_litellm.read_text())
    assert program.find(settings_in(tmp_path, MELETE_LITELLM=str(script))).version == "9.9.9"


def test_find_with_a_program_that_is_no_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="which is no file"):
        program.find(settings_in(tmp_path, MELETE_LITELLM=str(tmp_path / "none")))


def test_find_with_half_a_proxy_names_what_is_needed(tmp_path: Path, told_litellm: Path) -> None:
    (told_litellm.parents[1] / "lib/python3.11/site-packages/prisma").rmdir()
    with pytest.raises(GatewayError, match="prisma"):
        program.find(settings_in(tmp_path, MELETE_LITELLM=str(told_litellm)))


def test_pinned_version_is_that_of_the_lock_file() -> None:
    assert f"litellm=={program.pinned_version()}\n" in program.LOCK.read_text()
    assert "://" not in program.LOCK.read_text()


def test_check_kinds_with_an_unknown_kind_names_the_closest(told_litellm: Path) -> None:
    python = told_litellm.with_name("python")
    plans.check_kinds([made(kind="openai"), made(kind="melete"), made(kind="echo")], python)
    with pytest.raises(UnknownNameError, match="Did you mean 'openai'"):
        plans.check_kinds([made(kind="opena1")], python)


def test_up_without_a_provider_says_how_to_get_one(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="melete bench init"):
        process.up(settings, [])


def test_up_with_a_provider_without_its_key_starts_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="one needs NO_SUCH_KEY"):
        process.up(settings, [made(kind="openai", api_key="${NO_SUCH_KEY}")])
    assert not (settings.gateway / "state.json").exists()


def test_up_with_a_model_of_two_providers_starts_nothing(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="both offer"):
        process.up(settings, [made("one"), made("two")])


def test_up_with_runs_that_nobody_serves_says_who_would(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="melete bench run"):
        process.up(settings, [made(kind="melete", models={"small": {"serve": "run"}})])


def test_up_on_a_port_in_use_is_one_error_before_anything_starts(tmp_path: Path, told_litellm: Path) -> None:
    settings = settings_in(tmp_path, MELETE_LITELLM=str(told_litellm))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GatewayError, match=f"Port {port} on 127.0.0.1 is already in use") as caught:
            process.up(settings, [made()], port=port)
    assert "--port" in str(caught.value)
    assert state.read(settings) is None


@pytest.mark.slow
def test_up_with_a_litellm_that_cannot_start_tells_its_last_words(tmp_path: Path, told_litellm: Path) -> None:
    settings = settings_in(tmp_path, MELETE_LITELLM=str(told_litellm))
    with pytest.raises(GatewayError, match="ended with exit code 1") as caught:
        process.up(settings, [made()])
    assert "No module named" in str(caught.value)
    assert process.status(settings).state == "failed"
    assert process.running(settings) is None


def test_prepare_makes_paths_absolute_because_the_supervisor_works_elsewhere(
    tmp_path: Path, told_litellm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.yaml").write_text("turns: []\n")
    settings = settings_in(tmp_path, MELETE_LITELLM=str(told_litellm), MELETE_DATABASE="sqlite:///here.db")
    plan, environ = plans.prepare(settings, [made(script="script.yaml")], "127.0.0.1")
    assert environ["MELETE_DATABASE"] == f"sqlite:///{tmp_path / 'here.db'}"
    assert plan.providers[0].script == str(tmp_path / "script.yaml")
    assert plans.Plan.from_json(plan.to_json()) == plan


def test_plan_digest_changes_with_a_key_but_does_not_hold_it(
    tmp_path: Path, told_litellm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path, MELETE_LITELLM=str(told_litellm))
    digests = []
    for key in ("sk-canary-one", "sk-canary-two", "sk-canary-two"):
        monkeypatch.setenv("A_KEY", key)
        plan, _ = plans.prepare(settings, [made(api_key="${A_KEY}")], "127.0.0.1")
        assert "canary" not in plan.to_json()
        digests.append(plan.digest)
    assert digests[0] != digests[1] == digests[2]


def test_bind_without_a_port_takes_that_of_the_last_time_if_it_is_free(settings: Settings) -> None:
    with process.bind(settings, "127.0.0.1", 0) as first:
        port = first.getsockname()[1]
    state.write(settings, account(port=port))
    with process.bind(settings, "127.0.0.1", 0) as again:
        assert again.getsockname()[1] == port
        with process.bind(settings, "127.0.0.1", 0) as other:
            assert other.getsockname()[1] != port


def test_alive_with_a_stale_file_and_a_reused_pid_is_none(settings: Settings) -> None:
    state.write(settings, account(pid=os.getpid()))
    assert state.alive(settings) is None
    (settings.gateway / "lock").touch()
    assert state.alive(settings) is None
    assert process.status(settings).state == "down"
    assert process.down(settings) is False


def test_alive_while_the_lock_is_held_tells_what_the_file_says(settings: Settings) -> None:
    state.write(settings, account())
    lock = state.claim(settings)
    assert lock is not None
    with lock:
        assert state.alive(settings) == account()
        assert process.running(settings) is not None
    assert state.alive(settings) is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:4000"),
        ("0.0.0.0", "http://127.0.0.1:4000"),
        ("::", "http://[::1]:4000"),
        ("::1", "http://[::1]:4000"),
    ],
)
def test_url_is_one_that_clients_of_this_machine_can_use(host: str, url: str) -> None:
    assert account(host=host).url == url


def test_claim_by_a_second_supervisor_is_refused(settings: Settings) -> None:
    held = state.claim(settings)
    assert held is not None
    code = (
        "from pathlib import Path; from melete import settings, supervision; from melete.gateway import state; "
        "supervision.HELD_S = 0.1; raise SystemExit(0 if state.claim(settings.load()) is None else 3)"
    )
    with held:
        environ = {**os.environ, "MELETE_HOME": str(settings.home)}
        assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0


def test_needed_by_whoever_holds_a_lease_or_started_it_for_good(settings: Settings) -> None:
    assert not state.needed(settings)
    with state.lease(settings) as mine, state.lease(settings):
        assert state.needed(settings)
        assert state.needed(settings, besides=mine)
    assert not state.needed(settings)
    state.stay(settings, True)
    assert state.needed(settings)
    state.stay(settings, False)
    assert not state.needed(settings)


def test_needed_by_a_process_that_was_killed_is_over(settings: Settings) -> None:
    code = (
        "from melete import settings; from melete.gateway import state; import os, signal; "
        "held = state.lease(settings.load()); held.__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environ = {**os.environ, "MELETE_HOME": str(settings.home)}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == -9
    assert len(list((settings.gateway / "leases").iterdir())) == 1
    assert not state.needed(settings)
    assert list((settings.gateway / "leases").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"state": 1, "pid": "x"}', "\x00"])
def test_read_of_a_torn_state_file_is_none_or_a_record(settings: Settings, text: str) -> None:
    state.folder(settings)
    (settings.gateway / "state.json").write_text(text)
    assert state.read(settings) is None


def test_read_of_a_newer_state_file_ignores_what_it_does_not_know(settings: Settings) -> None:
    state.write(settings, account())
    file = settings.gateway / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "new": 1}))
    assert state.read(settings) == account()


def test_one_at_a_time_lets_a_second_command_wait(settings: Settings) -> None:
    file = state.folder(settings) / "command.lock"
    with state.one_at_a_time(settings), file.open("ab") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n"), max_size=200))
def test_known_of_any_line_keeps_nothing_that_somebody_said(said: str) -> None:
    canary = f"CANARY{said}"
    line = f"12:00:00 - LiteLLM Proxy:ERROR: common.py:12 - BadRequestError: {canary}"
    assert logs.known(canary) is None
    assert logs.known(line) == "LiteLLM Proxy:ERROR: common.py:12 BadRequestError"


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        '  File "x.py", line 3, in f',
        "12:00:00 - LiteLLM:ERROR: a prompt that looks like a place.py - x",
        "12:00:00 - Other:ERROR: common.py:12 - x",
        "a prompt of somebody",
    ],
)
def test_known_of_other_lines_is_nothing(line: str) -> None:
    assert logs.known(line) is None


def test_log_of_a_child_that_serves_drops_its_start_and_sifts_the_rest(tmp_path: Path) -> None:
    child = logs.ChildLog(logs.Log(tmp_path))
    child.read([b"a prompt that came early"])
    child.serves()
    child.read([b"a prompt", b"\xff another", b"12:00:00 - LiteLLM:ERROR: a.py:1 - Timeout: a prompt"])
    text = (tmp_path / logs.FILE).read_text()
    assert "LiteLLM:ERROR: a.py:1 Timeout (+2 lines withheld)" in text
    assert "prompt" not in text


def test_log_of_a_child_that_never_served_is_whole_but_for_secrets(tmp_path: Path) -> None:
    child = logs.ChildLog(logs.Log(tmp_path, ["topsecretvalue"]))
    child.read([b"key topsecretvalue and sk-0123456789abcdef", "█ banner".encode(), b"\x1b[31mred\x1b[0m"])
    child.failed()
    text = (tmp_path / logs.FILE).read_text()
    assert "key *** and sk-***" in text
    assert "litellm: red\n" in text
    assert "banner" not in text


def test_log_that_grows_is_rotated_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LARGEST_BYTES", 1000)
    log = logs.Log(tmp_path)
    for number in range(400):
        log.say(f"line {number}")
    files = list(tmp_path.iterdir())
    assert len(files) == logs.KEPT_FILES + 1
    assert all(file.stat().st_size <= 1100 for file in files)


def test_log_and_state_on_a_full_disk_end_nothing(small_disk: Callable[[int], Path]) -> None:
    place = small_disk(64 * 1024)
    settings = settings_in(place)
    log = logs.Log(settings.gateway / "logs")
    supervisor = supervise.Supervisor(
        settings,
        plans.Plan("python", "1", "127.0.0.1", "d", (made(),), {}),
        socket.create_server(("", 0)),
    )
    (place / "filler").write_bytes(b"x" * (os.statvfs(place).f_bavail * os.statvfs(place).f_frsize))
    log.say("x" * 100_000)
    supervisor._say(state="up")
    assert state.read(settings) is None


def test_follow_goes_on_through_a_rotation(tmp_path: Path) -> None:
    file = tmp_path / logs.FILE
    file.write_text("one\ntwo\nthree\n")
    lines: Iterator[str] = logs.follow(file, 2, on=True, pause_s=0.001)
    assert [next(lines), next(lines)] == ["two", "three"]
    with file.open("a") as more:
        more.write("four\nfi")
    assert next(lines) == "four"
    with file.open("a") as more:
        more.write("ve\n")
    assert next(lines) == "five"
    file.rename(tmp_path / "old")
    file.write_text("six\n")
    assert next(lines) == "six"


def test_follow_of_no_file_ends_without_a_line(tmp_path: Path) -> None:
    assert list(logs.follow(tmp_path / "none", 5, on=False)) == []
