"""Sessions at a LiteLLM that somebody else runs: a virtual key is made at the start and deleted at the end."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import own_bench
import pytest

from gateway_at_hand import need_litellm
from melete.gateway import program
from melete.settings import Settings

CONTRACT = Path(__file__).parents[1] / "gateway" / "key_contract.py"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings(home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MELETE_BENCH", str(tmp_path / "bench"))
    monkeypatch.delenv("MELETE_SESSION", raising=False)
    monkeypatch.delenv("LITELLM_ADMIN_KEY", raising=False)
    return own_bench.settings_with(home, tmp_path)


@pytest.fixture
def contract(settings: Settings) -> Iterator[str]:
    """A server that answers with LiteLLM's own classes."""
    need_litellm(settings)
    with subprocess.Popen(
        [program.find(settings).python, "-I", CONTRACT],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        yield f"http://127.0.0.1:{child.stdout.readline().strip()}"
        child.kill()


def keys(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/keys", timeout=10) as answer:
        return dict(json.load(answer))


def start(call: Call, url: str, *more: str) -> tuple[int, str, str]:
    return call("bench", "session", "start", "--variant", "one", "--task", "open", "--format", "json",
                "--litellm", url, *more)  # fmt: skip


@pytest.mark.slow
def test_session_elsewhere_has_a_virtual_key_until_it_is_finalized(
    settings: Settings, call: Call, contract: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_ADMIN_KEY", "sk-admin-of-the-contract")

    code, out, err = start(call, f"{contract}/")

    given = json.loads(out)["environment"]
    assert code == 0, err
    assert given["OPENAI_BASE_URL"] == f"{contract}/v1"
    assert [held["models"] for held in keys(contract).values()] == [["small"]]
    assert call("bench", "session", "finalize", given["MELETE_SESSION"], "--solved")[0] == 0
    assert keys(contract) == {}


def test_session_elsewhere_without_the_admin_key_names_the_variable_and_opens_nothing(
    settings: Settings, call: Call
) -> None:
    code, out, err = start(call, "http://127.0.0.1:9")

    assert (code, out) == (2, "")
    assert "LITELLM_ADMIN_KEY is not set" in err
    assert json.loads(call("bench", "session", "list", "--json")[1]) == []


def test_session_elsewhere_that_does_not_answer_leaves_no_live_session(
    settings: Settings, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_ADMIN_KEY", "sk-admin-of-the-contract")

    code, out, err = start(call, "http://127.0.0.1:9")

    assert (code, out) == (8, "")
    assert "does not answer" in err
    assert [row["state"] for row in json.loads(call("bench", "session", "list", "--json")[1])] == ["aborted"]
