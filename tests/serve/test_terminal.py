"""The chat in the terminal: over a model in this process and over a URL, with the calculator really run."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from melete.errors import ConfigError, MeleteError, ServerError, UnknownNameError
from melete.serve.backends import Backend, LocalBackend, RemoteBackend
from melete.serve.server import Server
from melete.serve.terminal import Chat, run_tool

from .conftest import echo_model

CALL = 'call calculator {"expression": "6 * 7"}'


@pytest.fixture(params=["local", "remote"])
def backend(request: pytest.FixtureRequest, server: Server) -> Iterator[Backend]:
    """The echo model here and behind a URL."""
    if request.param == "remote":
        yield RemoteBackend(server.url, "echo")
        return
    model = echo_model()
    model.engine.start()
    yield LocalBackend(model)
    model.engine.stop()


def chat_with(backend: Backend, **sampling: object) -> tuple[Chat, io.StringIO, io.StringIO]:
    """A chat with what it writes."""
    out, aside = io.StringIO(), io.StringIO()
    consoles = Console(file=out, width=80), Console(file=aside, width=80)
    return Chat(backend, dict(sampling), "", True, *consoles), out, aside


def test_chat_prints_the_answer_and_keeps_the_history(backend: Backend) -> None:
    chat, out, _ = chat_with(backend)
    chat.say("héllo [bold]🌍")
    chat.say("again")
    assert out.getvalue() == "héllo [bold]🌍\nagain\n"
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2


def test_chat_runs_the_calculator_and_shows_the_call(backend: Backend) -> None:
    chat, out, aside = chat_with(backend)
    chat.say(CALL)
    assert "calculator 6 * 7 → 42" in aside.getvalue()
    assert out.getvalue() == "The tool answered: 42\n"
    assert [message["role"] for message in chat.messages] == ["user", "assistant", "tool", "assistant"]


def test_chat_regenerates_the_last_answer(backend: Backend) -> None:
    chat, out, _ = chat_with(backend)
    chat.say(CALL)
    chat.command("/regenerate")
    assert len(chat.messages) == 4
    assert out.getvalue() == "The tool answered: 42\n" * 2


def test_chat_saves_a_row_that_training_reads(backend: Backend, tmp_path: Path) -> None:
    from melete.records import Conversation

    chat, _, _ = chat_with(backend)
    chat.command("/system Be brief.")
    chat.say(CALL)
    chat.command(f"/save {tmp_path / 'talks.jsonl'}")
    row = json.loads((tmp_path / "talks.jsonl").read_text(encoding="utf-8"))
    turns = Conversation.from_openai(row).turns
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert turns[2].tool_calls[0].name == "calculator"


def test_chat_refused_request_takes_the_message_back(backend: Backend) -> None:
    chat, _, _ = chat_with(backend, max_tokens=5000)
    with pytest.raises(MeleteError, match="maximum context length"):
        chat.say("hello")
    assert chat.messages == []


@pytest.mark.parametrize("line", ["/nonsense", "/save", "/regenerate"])
def test_chat_command_that_cannot_be_done_says_so(backend: Backend, line: str) -> None:
    with pytest.raises(ConfigError):
        chat_with(backend)[0].command(line)


def test_chat_quit_ends_and_new_forgets(backend: Backend) -> None:
    chat, _, _ = chat_with(backend)
    chat.say("hello")
    assert chat.command("/new")
    assert chat.messages == []
    assert not chat.command("/quit")


def test_remote_unknown_model_names_the_known(server: Server) -> None:
    with pytest.raises(UnknownNameError, match="echo, tiny"):
        RemoteBackend(server.url, "ecko")


def test_remote_without_server_is_a_server_error() -> None:
    with pytest.raises(ServerError, match="melete serve"):
        RemoteBackend("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("calculator", '{"expression": "2 + 3"}', "5"),
        ("calculator", "nonsense", "error: the arguments are not JSON"),
        ("calculator", "[]", "error: the argument 'expression' is missing"),
        ("", "{}", "error: there is no tool named (none)"),
    ],
)
def test_run_tool_answers_every_call(name: str, arguments: str, result: str) -> None:
    assert run_tool(name, arguments) == result


MELETE = [sys.executable, "-m", "melete"]


@pytest.mark.slow
def test_command_from_a_pipe_prints_only_the_answer() -> None:
    done = subprocess.run(
        [*MELETE, "chat", "echo"], input=CALL, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "The tool answered: 42\n"
    assert "6 * 7 → 42" in done.stderr


def test_command_on_a_terminal_talks_until_quit(server: Server) -> None:
    inside, outside = pty.openpty()
    command = [*MELETE, "chat", "--url", server.url, "--model", "echo"]
    talk = subprocess.Popen(
        command,
        stdin=outside,
        stdout=outside,
        stderr=outside,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "100"},
    )
    os.close(outside)
    seen = ""
    for wait_for, line in [("> ", "good day\n"), ("> ", "/help\n"), ("> ", "/nonsense\n"), ("> ", "/quit\n")]:
        before = len(seen)
        while not seen[before:].endswith(wait_for):
            seen += os.read(inside, 4096).decode()
        os.write(inside, line.encode())
    assert talk.wait(timeout=30) == 0
    os.close(inside)
    assert "Talking to echo" in seen
    assert seen.count("good day") == 2
    assert "/regenerate" in seen
    assert "/nonsense is not a command" in seen


def test_chat_says_when_the_context_is_full(backend: Backend) -> None:
    chat, _, aside = chat_with(backend)
    for i in range(3):
        chat.say(f"{i} " + "x" * 900)
    assert "the first 2 messages were left out" in aside.getvalue()
    assert len(chat.messages) == 6
