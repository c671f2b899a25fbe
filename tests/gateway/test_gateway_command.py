"""`melete gateway`: what it says where nothing is up, and where what it is asked for cannot be."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from melete import settings as configured
from melete.gateway import logs, state
from melete.settings import Settings

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's provider files, empty."""
    folder = home.home / "bench"
    (folder / "providers").mkdir(parents=True)
    monkeypatch.setenv("MELETE_BENCH", str(folder))
    return folder / "providers"


def test_help_lists_the_commands(call: Call) -> None:
    code, out, _ = call("gateway", "--help")
    assert code == 0
    assert all(name in out for name in ("up", "down", "status", "logs", "install", "models", "echo"))


def test_status_where_nothing_is_up_says_how_to_start(call: Call) -> None:
    code, out, _ = call("gateway", "status")
    assert (code, "The gateway is down." in out, "melete gateway up" in out) == (0, True, True)


def test_status_as_json_reads_back(call: Call) -> None:
    code, out, _ = call("gateway", "status", "--json")
    assert code == 0
    assert json.loads(out) == {"state": "down", "gateway": None, "account": None}


def test_status_of_a_gateway_that_died_is_down(call: Call, home: Settings) -> None:
    told = state.State("up", 1, "127.0.0.1", 4000, "d", 0.0, "1")
    state.write(home, told)
    assert "The gateway is down." in call("gateway", "status")[1]


def test_status_of_a_gateway_that_did_not_start_says_why(call: Call, home: Settings) -> None:
    trouble = "ended with exit code 3"
    state.write(home, state.State("failed", 1, "127.0.0.1", 4000, "d", 0.0, "1", trouble=trouble))
    out = call("gateway", "status")[1]
    assert "The gateway did not start." in out
    assert trouble in out


def test_down_where_nothing_is_up_is_no_error(call: Call) -> None:
    assert call("gateway", "down")[:2] == (0, "No gateway was up.\n")


def test_logs_shows_the_last_lines(call: Call, home: Settings) -> None:
    log = logs.Log(home.gateway / "logs")
    for number in range(5):
        log.say(f"line {number}")
    code, out, _ = call("gateway", "logs", "-n", "2")
    assert code == 0
    assert [line[20:] for line in out.splitlines()] == ["line 3", "line 4"]


def test_models_without_a_file_names_what_ships(call: Call, bench: Path) -> None:
    code, out, _ = call("gateway", "models")
    assert code == 0
    assert "No provider file" in out
    assert "echo" in out


def test_models_shows_prices_and_missing_keys(
    call: Call, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    (bench / "mine.yaml").write_text(
        "kind: openai\napi_key: ${A_KEY}\nmodels:\n"
        "  small: {model: gpt-5-mini, input_cost_per_token: 2.5e-7, output_cost_per_token: 2.0e-6}\n"
    )
    (row,) = json.loads(call("gateway", "models", "--json")[1])
    assert row["missing"] == ["A_KEY"]
    assert (row["usd_per_million_in"], row["usd_per_million_out"]) == (0.25, 2.0)
    assert "missing" in call("gateway", "models")[1]


def test_up_without_a_provider_is_one_message(call: Call, bench: Path) -> None:
    code, _, err = call("gateway", "up")
    assert code == 2
    assert "There is no provider" in err
    assert "--provider echo" in err


def test_up_with_an_unknown_provider_names_the_known_ones(call: Call, bench: Path) -> None:
    code, _, err = call("gateway", "up", "--provider", "ech")
    assert code == 2
    assert "Did you mean 'echo'" in err


def test_up_with_a_wrong_file_names_file_line_and_key(call: Call, bench: Path) -> None:
    (bench / "mine.yaml").write_text("kind: openai\nmodels:\n  small: {modell: x}\n")
    code, _, err = call("gateway", "up")
    assert code == 2
    assert f"{bench / 'mine.yaml'}:3: models.small.modell" in err


def test_up_without_a_key_names_the_variable_and_how_to_do_without(
    call: Call, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    (bench / "mine.yaml").write_text("kind: openai\napi_key: ${A_KEY}\nmodels:\n  small: {}\n")
    code, _, err = call("gateway", "up")
    assert code == 2
    assert "mine needs A_KEY" in err
    assert "--without mine" in err


def test_up_of_runs_leaves_their_provider_to_bench_and_says_so(call: Call, bench: Path) -> None:
    (bench / "local.yaml").write_text("kind: melete\nmodels:\n  before: {serve: latest}\n")
    code, _, err = call("gateway", "up")
    assert code == 2
    assert "Left out local" in err


def test_up_on_a_port_in_use_is_one_message(call: Call, home: Settings, bench: Path) -> None:
    from gateway_at_hand import need_litellm

    need_litellm(configured.load())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = call("gateway", "up", "--provider", "echo", "--port", str(taken.getsockname()[1]))
    assert code == 8
    assert "is already in use" in err


def test_up_in_the_foreground_beside_another_gateway_is_refused(
    call: Call, home: Settings, bench: Path
) -> None:
    from gateway_at_hand import need_litellm

    need_litellm(configured.load())
    state.write(home, state.State("up", 1, "127.0.0.1", 4000, "d", 0.0, "1"))
    lock = state.claim(home)
    assert lock is not None
    with lock:
        code, _, err = call("gateway", "up", "--provider", "echo", "--foreground")
    assert code == 8
    assert "melete gateway down" in err
