"""The exam of a scenario through the URL of a real server: rows, tokens, and what is said when it cannot be sat."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agents import desk
from melete.errors import ConfigError, ServerError
from melete.jobs.execute import Options, execute
from melete.serve import models
from melete.serve.server import Server
from melete.settings import Settings

Call = Callable[..., tuple[int, str, str]]
SMALL = {"scenario": "desk", "held_out": 5, "max_tokens": 64, "workers": 3, "timeout_s": 30}


@pytest.fixture
def at_desk(home: Settings) -> Settings:
    """A home in which the desk is a scenario of the user's own."""
    folder = home.home / "scenarios"
    folder.mkdir(parents=True)
    text = Path(desk.__file__).read_text(encoding="utf-8")
    (folder / "desk.py").write_text(f"{text}\n\nSCENARIO = Desk\n")
    return home


@pytest.fixture
def url(at_desk: Settings) -> Iterator[str]:
    """Address of the echo model, which makes the calls that the person at the desk dictates."""
    with Server(models.load_all(["echo"], at_desk), replace(at_desk, token=None)) as server:
        yield server.url


CALL = {"id": "call_0", "type": "function", "function": {"name": "close", "arguments": '{"ticket": "T1"}'}}


class Foreign(BaseHTTPRequestHandler):
    """A server that counts no tokens: it closes the ticket and says so, and refuses some of its requests."""

    refused: Container[int] = ()
    number = 0

    def do_GET(self) -> None:
        self._answer(200, {"object": "list", "data": [{"id": "foreign", "object": "model"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).number += 1
        if self.number in self.refused:
            self._answer(400, {"error": {"message": "this model has no tools"}})
            return
        closed = asked["messages"][-1]["role"] == "tool"
        message = {"content": "It is closed."} if closed else {"content": None, "tool_calls": [CALL]}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
        self._answer(200, {"id": "c", "object": "chat.completion", "created": 1, "choices": [choice]})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        payload = json.dumps({"model": "foreign", **body}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def listening(refused: Container[int] = ()) -> Iterator[str]:
    handler = type("Handler", (Foreign,), {"refused": refused})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def evaluate(settings: Settings, **values: Any) -> dict[str, Any]:
    return execute("agents.evaluate", {**SMALL, **values}, Options(settings=settings)).result


def test_evaluate_url_has_a_row_for_each_split_and_decoding(at_desk: Settings, url: str) -> None:
    result = evaluate(at_desk, url=url, greedy=True)
    rows = result["measured"]
    assert [(row["split"], row["decoding"]) for row in rows] == [
        ("held_out", "free"), ("unseen", "free"), ("held_out", "greedy"), ("unseen", "greedy"),
    ]  # fmt: skip
    assert {(row["tasks"], row["tool_calls"], row["tool_calls_ok"], row["failed"]) for row in rows} == {
        (5, 10, 10, 0)
    }
    assert all(row["success"][0] == 1.0 and row["success"][1] < 1.0 for row in rows)
    assert result["model"] == "echo"


def test_evaluate_url_tokens_are_those_that_the_server_counted(at_desk: Settings, url: str) -> None:
    one, _ = evaluate(at_desk, url=url, held_out=1)["measured"]
    five, _ = evaluate(at_desk, url=f"{url}/v1", model="echo")["measured"]
    assert one["tokens"] > 0
    assert one["prompt_tokens"] > one["tokens"]
    assert (five["tokens"], five["prompt_tokens"]) == (5 * one["tokens"], 5 * one["prompt_tokens"])
    assert five["tokens_per_solved"] == one["tokens"]


def test_evaluate_url_keeps_no_sessions(at_desk: Settings, url: str) -> None:
    evaluate(at_desk, url=url, held_out=1)
    assert not (at_desk.gateway / "spool").exists()


def test_evaluate_url_of_a_server_that_counts_no_tokens_says_unknown(at_desk: Settings) -> None:
    with listening() as url:
        record = execute("agents.evaluate", {**SMALL, "url": url}, Options(settings=at_desk))
    row, _ = record.result["measured"]
    assert (row["tool_calls_ok"], row["tokens"], row["tokens_per_solved"]) == (5, None, None)
    assert "unknown" in (at_desk.runs / record.id / "log.txt").read_text()


def test_evaluate_url_where_no_task_can_be_played_says_what_the_server_said(at_desk: Settings) -> None:
    with (
        listening(range(1000)) as url,
        pytest.raises(ServerError, match=r"None of the 5.*this model has no tools"),
    ):
        evaluate(at_desk, url=url)


def test_evaluate_url_where_a_task_fails_says_why_and_the_others_go_on(at_desk: Settings) -> None:
    with listening({3}) as url:
        values = {**SMALL, "url": url, "held_out": 2, "workers": 1}
        record = execute("agents.evaluate", values, Options(settings=at_desk))
    assert [row["failed"] for row in record.result["measured"]] == [1, 0]
    log = (at_desk.runs / record.id / "log.txt").read_text()
    assert "1 of 2 tasks failed; the first one: failed, BadRequestError" in log


def test_evaluate_url_where_nobody_listens_is_one_message(call: Call, at_desk: Settings) -> None:
    code, _, err = call("agents", "evaluate", "--url", "http://127.0.0.1:9", "--scenario", "desk")
    assert code == 8
    assert "127.0.0.1:9" in err


def test_evaluate_url_with_an_unknown_model_names_the_known_ones(call: Call, url: str) -> None:
    code, _, err = call("agents", "evaluate", "--url", url, "--model", "ecko", "--scenario", "desk")
    assert code == 2
    assert "'echo'" in err


def test_evaluate_url_with_an_unset_key_variable_names_it(call: Call, url: str) -> None:
    code, _, err = call("agents", "evaluate", "--url", url, "--key-env", "NO_SUCH_KEY", "--scenario", "desk")
    assert code == 2
    assert "NO_SUCH_KEY is not set" in err


def test_evaluate_of_a_run_and_a_url_is_refused(call: Call) -> None:
    code, _, err = call("agents", "evaluate", "--url", "http://127.0.0.1:9", "--base", "latest")
    assert code == 2
    assert "give one of them" in err


def test_evaluate_url_dry_run_asks_for_no_run(call: Call) -> None:
    code, out, _ = call("agents", "evaluate", "--url", "http://127.0.0.1:9", "--dry-run")
    assert code == 0
    assert "http://127.0.0.1:9" in out


@pytest.mark.parametrize("process", ["train", "evaluate", "demonstrate"])
def test_process_under_torchrun_is_refused(
    process: str, at_desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    values = {"base": ""} if process != "demonstrate" else {}
    with pytest.raises(ConfigError, match="in one process, and torchrun started 2"):
        execute(f"agents.{process}", {"scenario": "desk", **values}, Options(settings=at_desk))
