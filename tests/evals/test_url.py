"""Evaluation over a URL: our own server, a scripted one that misbehaves, and each error a user can cause."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from melete.errors import ConfigError, NotOfferedError, ServerError, UnknownNameError
from melete.evals import run as evaluation
from melete.evals.model import Generate, ScoreRequest
from melete.evals.url import UrlModel, key
from melete.records import Conversation, Turn
from melete.serve.server import Server
from melete.settings import Settings

Handle = Callable[[str, dict[str, Any], int], tuple[int, Any]]
TOOL = {"type": "function", "function": {"name": "look", "description": "", "parameters": {"type": "object"}}}
HOW = Generate(64)


def say(text: str, tools: bool = False) -> Conversation:
    return Conversation((Turn("user", text),), (TOOL,) if tools else ())


@pytest.fixture
def echo_server(home: Settings) -> Iterator[Server]:
    """Our server with the echo model."""
    from serve.conftest import echo_model

    other = echo_model()
    other.id = "other"
    with Server({"echo": echo_model(), "other": other}, home) as server:
        yield server


@pytest.fixture
def scripted() -> Iterator[Callable[[Handle], str]]:
    """A server whose answers a test decides: `handle(path, body, count)` gives status and JSON."""
    servers: list[ThreadingHTTPServer] = []

    def serve(handle: Handle) -> str:
        counts: dict[str, int] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                counts[self.path] = counts.get(self.path, 0) + 1
                body = json.loads(self.rfile.read(size)) if size else {}
                status, value = handle(self.path, body, counts[self.path])
                data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST

            def log_message(self, *args: Any) -> None:
                """Silent."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def listing(path: str) -> tuple[int, Any] | None:
    return (200, {"data": [{"id": "m"}]}) if path == "/v1/models" else None


def chatting(message: dict[str, Any]) -> Handle:
    def handle(path: str, body: dict[str, Any], count: int) -> tuple[int, Any]:
        return listing(path) or (200, {"choices": [{"message": message}]})

    return handle


def test_chat_over_our_server_gives_turns_in_order_with_tool_calls(echo_server: Server) -> None:
    model = UrlModel(echo_server.url, "echo")
    asked = [say(f"hello {i}") for i in range(12)] + [say('call look {"at": 1}', tools=True)]
    turns = model.chat(asked, HOW)
    assert [turn.content for turn in turns[:12]] == [f"hello {i}" for i in range(12)]
    assert [(call.name, json.loads(call.arguments)) for call in turns[12].tool_calls] == [("look", {"at": 1})]


def test_generate_over_our_server_continues_texts(echo_server: Server) -> None:
    assert UrlModel(echo_server.url + "/v1/", "echo").generate(["abc"], HOW) == ["abc"]


def test_bfcl_over_our_server_scores_all_items(echo_server: Server, home: Settings) -> None:
    (result,) = evaluation.evaluate(
        UrlModel(echo_server.url, "echo"), ["bfcl"], settings=home_with_data(home), limit=2
    )
    if result.skipped:
        pytest.skip(result.skipped)
    scores = {score.name: score.value for score in result.scores}
    # The echo model repeats the question and calls nothing.
    assert scores["bfcl/restraint"] == 1.0
    assert scores["bfcl/calls"] == 0.0


def home_with_data(home: Settings) -> Settings:
    from dataclasses import replace

    from melete import settings

    return replace(home, data=settings.load({"MELETE_HOME": str(home.home)}).data)


def test_task_that_scores_is_skipped_with_the_reason_where_the_server_cannot(
    echo_server: Server, home: Settings
) -> None:
    model = UrlModel(echo_server.url, "echo")
    results = evaluation.evaluate(model, ["bits_per_byte", "toolcalls"], settings=home, limit=1)
    assert "does not offer log-probabilities of a prompt" in results[0].skipped
    assert "bfcl, toolcalls" in results[0].skipped
    assert results[1].complete


def test_score_sums_the_log_probabilities_of_the_continuation(scripted: Any) -> None:
    def handle(path: str, body: dict[str, Any], count: int) -> tuple[int, Any]:
        if found := listing(path):
            return found
        assert body["echo"]
        assert body["prompt"] == "Sky is blue"
        logprobs = {
            "tokens": ["Sky", " is", " bl", "ue", "."], "text_offset": [0, 3, 6, 9, 11],
            "token_logprobs": [None, -1.0, -0.5, -0.25, -9.0],
            "top_logprobs": [None, {" is": -1.0}, {" bl": -0.5}, {"ue": -0.25}, {".": -9.0}],
        }  # fmt: skip
        return 200, {"choices": [{"text": "Sky is blue.", "logprobs": logprobs}]}

    (result,) = UrlModel(scripted(handle)).score([ScoreRequest("Sky is ", "blue")])
    assert (result.logprob, result.greedy, result.tokens, result.bytes) == (-0.75, True, 2, 4)


def test_score_without_prompt_log_probabilities_is_said(scripted: Any) -> None:
    url = scripted(lambda path, body, count: listing(path) or (200, {"choices": [{"text": "x"}]}))
    with pytest.raises(NotOfferedError, match="sends no log-probabilities of a prompt"):
        UrlModel(url).score([ScoreRequest("a", "b")])


def test_url_where_nothing_answers_says_so() -> None:
    with pytest.raises(ServerError, match=r"No server answers at http://127\.0\.0\.1:9 "):
        UrlModel("http://127.0.0.1:9", "m")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8675", "ftp://host", "http://"])
def test_text_that_is_no_url_says_what_one_looks_like(url: str) -> None:
    with pytest.raises(ConfigError, match="Such as http://"):
        UrlModel(url, "m")


def test_unknown_model_lists_the_known(echo_server: Server) -> None:
    with pytest.raises(UnknownNameError, match=r"named 'ecko'. Did you mean 'echo'\?\nKnown: echo, other"):
        UrlModel(echo_server.url, "ecko")


def test_model_left_out_where_there_are_several_lists_them(echo_server: Server) -> None:
    with pytest.raises(ConfigError, match=r"Known: echo, other"):
        UrlModel(echo_server.url)


def test_wrong_key_names_the_option_and_never_the_key(tmp_path: Path) -> None:
    from serve.conftest import echo_model

    with Server({"echo": echo_model()}, Settings.of(tmp_path, token="right-token")) as server:
        with pytest.raises(ServerError, match=r"refuses the key \(401\)[\s\S]*--key-env") as caught:
            UrlModel(server.url, "echo", "wrong-token")
        assert "wrong-token" not in str(caught.value)
        assert UrlModel(server.url, "echo", "right-token").chat([say("hi")], HOW)[0].content == "hi"


def test_tools_that_a_server_does_not_take_are_said(scripted: Any) -> None:
    def handle(path: str, body: dict[str, Any], count: int) -> tuple[int, Any]:
        return listing(path) or (400, {"error": {"message": "m does not support tools", "param": None}})

    with pytest.raises(NotOfferedError, match=r"m at .* does not take tools"):
        UrlModel(scripted(handle)).chat([say("x", tools=True)], HOW)


def test_busy_server_is_asked_again_and_a_broken_one_only_so_often(scripted: Any) -> None:
    asked: list[int] = []

    def handle(path: str, body: dict[str, Any], count: int) -> tuple[int, Any]:
        if found := listing(path):
            return found
        asked.append(count)
        busy = body["messages"][0]["content"] == "never" or count < 3
        return (503, "busy") if busy else (200, {"choices": [{"message": {"content": "ok"}}]})

    model = UrlModel(scripted(handle), pause_s=0.001, tries=3, concurrency=1)
    assert model.chat([say("x")], HOW)[0].content == "ok"
    assert asked == [1, 2, 3]
    with pytest.raises(ServerError, match="answered 503: busy"):
        model.chat([say("never")], HOW)
    assert len(asked) == 6


def test_refused_sampling_fields_are_left_out_once_and_noted(scripted: Any) -> None:
    bodies = []

    def handle(path: str, body: dict[str, Any], count: int) -> tuple[int, Any]:
        if found := listing(path):
            return found
        bodies.append(body)
        for field in ("max_tokens", "temperature"):
            if field in body:
                return 400, {"error": {"message": f"Unsupported parameter: '{field}'.", "param": field}}
        return 200, {"choices": [{"message": {"content": "ok"}}]}

    model = UrlModel(scripted(handle), concurrency=1)
    assert [turn.content for turn in model.chat([say("a"), say("b")], HOW)] == ["ok", "ok"]
    assert len(bodies) == 4
    assert bodies[-1]["max_completion_tokens"] == 64
    assert "temperature" not in bodies[-1]
    assert len(model.notes) == 2


def test_prompt_beyond_the_context_is_an_empty_turn_and_counted(scripted: Any) -> None:
    error = {"message": "too long", "code": "context_length_exceeded"}
    model = UrlModel(scripted(lambda path, body, count: listing(path) or (400, {"error": error})))
    assert model.chat([say("x"), say("y")], HOW) == [Turn("assistant"), Turn("assistant")]
    assert model.notes == ["2 prompts did not fit the model's context and count as wrong"]


@pytest.mark.parametrize("answer", ["<html>", [], {}, {"choices": []}, {"choices": [{"text": "x"}]}])
def test_answer_that_is_no_completion_says_what_was_found(scripted: Any, answer: Any) -> None:
    model = UrlModel(scripted(lambda path, body, count: listing(path) or (200, answer)))
    with pytest.raises(ServerError, match="no completion"):
        model.chat([say("x")], HOW)


@pytest.mark.parametrize(
    "calls", [[{"function": None}], [{"function": {"name": "f", "arguments": 3}}], "f()", [None]]
)
def test_malformed_tool_calls_of_a_server_keep_the_text(scripted: Any, calls: Any) -> None:
    model = UrlModel(scripted(chatting({"content": "text", "tool_calls": calls})))
    assert model.chat([say("x")], HOW) == [Turn("assistant", "text")]


def test_command_writes_scores_and_items_and_the_key_nowhere(
    call: Any, tmp_path: Path, home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve.conftest import echo_model

    secret = secrets.token_hex(16)
    monkeypatch.setenv("THE_KEY", secret)
    with Server({"echo": echo_model()}, Settings.of(tmp_path, token=secret)) as server:
        options = ("--url", server.url, "--model", "echo", "--tasks", "toolcalls", "--limit", "2")
        code, out, err = call("evals", "run", *options, "--key-env", "THE_KEY")
    assert code == 0, err
    assert "toolcalls/restraint" in out
    (run,) = home.runs.iterdir()
    assert json.loads((run / "evaluation" / "scores.json").read_text())[0]["task"] == "toolcalls"
    assert json.loads((run / "run.json").read_text())["result"]["url"] == server.url
    assert [p for p in run.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()] == []


def test_command_with_an_unset_key_variable_names_it(call: Any) -> None:
    code, _, err = call("evals", "run", "--url", "http://127.0.0.1:9", "--key-env", "NO_SUCH_KEY")
    assert code == 2
    assert "NO_SUCH_KEY is not set" in err


def test_own_token_is_sent_to_this_machine_only() -> None:
    assert key("http://127.0.0.1:8675", "", "token") == "token"
    assert key("https://api.example.com/v1", "", "token") is None
