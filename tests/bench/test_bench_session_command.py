"""`melete bench session` and `exec` where no gateway is needed: listing, showing, ending, and clear refusals."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import own_bench
import pytest

from gateway_at_hand import need_litellm
from melete.bench import session
from melete.bench.outcome import Outcome
from melete.settings import Settings

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings(home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MELETE_BENCH", str(tmp_path / "bench"))
    monkeypatch.delenv("MELETE_SESSION", raising=False)
    return own_bench.settings_with(home, tmp_path)


@pytest.mark.parametrize("how", [("session", "start"), ("exec",)])
def test_start_without_a_gateway_says_how_to_start_it_and_prints_no_snippet(
    settings: Settings, call: Call, how: tuple[str, ...]
) -> None:
    code, out, err = call("bench", *how, "--variant", "one", "--task", "say")

    assert (code, out) == (8, "")
    assert "The gateway is not up" in err
    assert "melete gateway up" in err


def test_start_with_up_and_a_provider_without_its_key_names_the_variable_and_opens_nothing(
    home: Settings, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_litellm(home)
    monkeypatch.setenv("MELETE_BENCH", str(tmp_path / "bench"))
    monkeypatch.delenv("THE_KEY", raising=False)
    provider = "kind: openai\napi_key: ${THE_KEY}\nmodels: {small: {}, large: {}}\n"
    own_bench.write(tmp_path / "bench", providers_here=provider)

    code, out, err = call("bench", "session", "start", "--variant", "one", "--task", "say", "--up")

    assert (code, out) == (2, "")
    assert "here needs THE_KEY" in err
    assert json.loads(call("bench", "session", "list", "--json")[1]) == []


def test_start_of_an_unknown_variant_names_the_known(settings: Settings, call: Call) -> None:
    code, out, err = call("bench", "session", "start", "--variant", "oen", "--task", "say")

    assert (code, out) == (2, "")
    assert "Did you mean 'one'?" in err


def test_list_shows_sessions_newest_first_and_filters_them(settings: Settings, call: Call) -> None:
    ids = [own_bench.start(settings, variant).session.id for variant in ("one", "two")]
    session.finalize(settings, ids[0], Outcome("manual", solved=True))

    _, out, _ = call("bench", "session", "list", "--json")
    _, live, _ = call("bench", "session", "list", "--state", "live")

    assert {row["id"]: row["state"] for row in json.loads(out)} == {ids[1]: "live", ids[0]: "finalised"}
    assert ids[1] in live
    assert ids[0] not in live


def test_show_takes_the_session_of_this_shell(
    settings: Settings, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = own_bench.start(settings)
    own_bench.start(settings, "two")
    monkeypatch.setenv("MELETE_SESSION", opened.session.id)

    code, out, _ = call("bench", "session", "show")

    assert code == 0
    assert out.startswith(f"{opened.session.id}  live  no outcome")
    assert opened.credential.key not in out


def test_finalize_without_an_outcome_asks_for_one_and_changes_nothing(settings: Settings, call: Call) -> None:
    own_bench.start(settings)

    code, _, err = call("bench", "session", "finalize")

    assert code == 2
    assert "--solved, --failed, --check or --score" in err
    assert call("bench", "session", "finalize", "--failed", "--score", "0.25", "--note", "half")[0] == 0


def test_finalize_twice_exits_with_6_and_says_when_it_was_done(settings: Settings, call: Call) -> None:
    id = own_bench.start(settings).session.id
    assert call("bench", "session", "finalize", id, "--solved")[0] == 0

    code, _, err = call("bench", "session", "finalize", id, "--failed")

    assert code == 6
    assert "was finalised already, on 20" in err
    assert '"solved": true' in call("bench", "session", "show", id, "--json")[1]


def test_finalize_by_the_checker_of_what_lies_in_the_working_copy(settings: Settings, call: Call) -> None:
    opened = own_bench.start(settings)
    opened.workdir.mkdir()
    (opened.workdir / "answer.txt").write_text("forty-two")

    code, _, err = call("bench", "session", "finalize", opened.session.id[:-2], "--check", "--keep")

    assert code == 0
    assert "is finalised: solved; 0 requests" in err
    assert (opened.workdir / "answer.txt").exists()


def test_finalize_by_a_checker_that_is_not_there_exits_with_6(settings: Settings, call: Call) -> None:
    own_bench.start(settings, task="open")

    code, _, err = call("bench", "session", "finalize", "--check")

    assert code == 6
    assert "--solved or --failed" in err


def test_abort_ends_the_session_with_its_note(settings: Settings, call: Call) -> None:
    id = own_bench.start(settings).session.id

    code, _, err = call("bench", "session", "abort", id, "--note", "wrong\x1b[31m model")

    assert code == 0
    assert f"Session {id} is aborted" in err
    shown = json.loads(call("bench", "session", "show", id, "--json")[1])
    assert shown["session"]["outcome_note"] == "wrong [31m model"


def test_watch_tells_each_change_and_ends_with_the_session(settings: Settings, call: Call) -> None:
    id = own_bench.start(settings).session.id
    end = threading.Timer(0.5, lambda: session.finalize(settings, id, Outcome("manual", solved=True)))
    end.start()

    code, out, _ = call("bench", "session", "watch", id)

    end.join()
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()] == ["live", "finalised"]


def test_session_of_an_empty_store_says_how_to_start_one(settings: Settings, call: Call) -> None:
    code, _, err = call("bench", "session", "show")

    assert code == 2
    assert "melete bench session start" in err


def test_help_of_session_and_exec_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    program = (
        "import sys\nfrom melete.cli._root import run\n"
        "run(['bench', 'session', 'start', '--help']); run(['bench', 'exec', '--help']); run(['bench', 'init', '-h'])\n"
        "print([name for name in ('sqlalchemy', 'pydantic', 'yaml', 'torch', 'httpx') if name in sys.modules])\n"
    )

    seen = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ)
    )

    assert seen.stdout.splitlines()[-1] == "[]"
