"""A chat in the terminal: streamed answers, history, tool calls shown and the calculator really run.

On a terminal it asks for one message after the other; from a pipe it answers once and prints nothing but the answer,
so that `echo hi | melete chat` can stand in a script. Ctrl-C stops an answer and keeps what was said of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from melete.errors import ConfigError, MeleteError
from melete.llm.calculator import TOOL, calculate
from melete.serve.backends import Backend

MOST_ROUNDS = 6


class Chat:
    """One conversation.

    Args:
        backend: what answers.
        sampling: fields of the request such as `temperature` and `max_tokens`.
        system: system prompt, empty for none.
        tools: whether the model may call the calculator.
        out: where answers are written; everything else goes to `aside`.
        aside: where tool calls and notes are written.
    """

    def __init__(
        self,
        backend: Backend,
        sampling: dict[str, Any],
        system: str,
        tools: bool,
        out: Console,
        aside: Console,
    ) -> None:
        self._backend = backend
        self._sampling = sampling
        self._system = system
        self._tools = [TOOL] if tools else []
        self._out = out
        self._aside = aside
        self.messages: list[dict[str, Any]] = []

    def say(self, text: str) -> None:
        """Adds a message of the user and answers it.

        Raises:
            MeleteError: the request was refused or the model failed; the message is taken back.
        """
        self.messages.append({"role": "user", "content": text})
        try:
            self.answer()
        except MeleteError:
            self.messages.pop()
            raise

    def answer(self) -> None:
        """Answers the conversation as it stands; runs the tools that are called and goes on until none is."""
        before = len(self.messages)
        try:
            for _ in range(MOST_ROUNDS):
                message = self._stream()
                self.messages.append(message)
                if not message.get("tool_calls"):
                    return
                for call in message["tool_calls"]:
                    self._run(call)
        except MeleteError:
            del self.messages[before:]
            raise
        except KeyboardInterrupt:
            self._aside.print("\nstopped", style="dim")

    def command(self, line: str) -> bool:
        """Runs a `/command`; returns whether the chat goes on.

        Raises:
            ConfigError: an unknown command, or one that lacks its argument.
        """
        name, _, argument = line[1:].partition(" ")
        known: dict[str, Callable[[str], None]] = {
            "help": self._help, "new": self._new, "system": self._set_system, "save": self._save,
            "regenerate": self._regenerate,
        }  # fmt: skip
        if name in ("quit", "exit", "q"):
            return False
        if name not in known:
            raise ConfigError(f"/{name} is not a command.", allowed=f"Known: /{', /'.join(known)}, /quit.")
        known[name](argument.strip())
        return True

    def _stream(self) -> dict[str, Any]:
        """Streams one answer to the screen; returns it as a message, cut where Ctrl-C stopped it."""
        system = [{"role": "system", "content": self._system}] if self._system else []
        fields = {**self._sampling, "messages": [*system, *self.messages]}
        if self._tools:
            fields["tools"] = self._tools
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        calls: list[dict[str, Any]] = []
        try:
            with closing(self._backend.stream(fields)) as deltas:
                for delta in deltas:
                    if delta.call is None:
                        message["content"] += delta.text
                        self._out.print(delta.text, end="", markup=False, highlight=False, soft_wrap=True)
                    else:
                        if delta.name is not None:
                            function = {"name": delta.name, "arguments": ""}
                            calls.append({"id": delta.id, "type": "function", "function": function})
                        calls[delta.call]["function"]["arguments"] += delta.text
        except KeyboardInterrupt:
            self._aside.print(" (stopped)", style="dim")
            calls = []
        if message["content"]:
            self._out.print()
        if self._backend.dropped:
            self._aside.print(
                f"(the context is full: the first {self._backend.dropped} messages were left out)",
                style="dim",
            )
        return {**message, "tool_calls": calls} if calls else message

    def _run(self, call: dict[str, Any]) -> None:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        result = run_tool(name, arguments)
        style = "red" if result.startswith("error:") else "cyan"
        self._aside.print(f"  {name or '(a call that cannot be read)'} ", style="dim", end="", markup=False)
        self._aside.print(f"{short(arguments)} ", end="", markup=False, highlight=False)
        self._aside.print(f"→ {result}", style=style, markup=False, highlight=False)
        self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})

    def _help(self, _: str) -> None:
        self._aside.print(
            "/new              forget the conversation\n"
            "/system TEXT      set the system prompt (without TEXT: none)\n"
            "/regenerate       answer the last message again\n"
            "/save FILE        append the conversation to a JSONL file that SFT can train on\n"
            "/quit             leave (or Ctrl-D)\n"
            "Ctrl-C stops an answer.",
            markup=False, highlight=False, style="dim",
        )  # fmt: skip

    def _new(self, _: str) -> None:
        self.messages = []
        self._aside.print("a new conversation", style="dim")

    def _set_system(self, text: str) -> None:
        self._system = text
        self._aside.print("system prompt set" if text else "no system prompt", style="dim")

    def _save(self, name: str) -> None:
        if not name:
            raise ConfigError("/save needs the name of a file.", allowed="Such as: /save talks.jsonl")
        system = [{"role": "system", "content": self._system}] if self._system else []
        row: dict[str, Any] = {"messages": [*system, *self.messages]}
        if self._tools:
            row["tools"] = self._tools
        try:
            with Path(name).expanduser().open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ConfigError(f"{name} cannot be written ({error.strerror}).") from error
        self._aside.print(f"{len(self.messages)} messages appended to {name}", style="dim", markup=False)

    def _regenerate(self, _: str) -> None:
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            raise ConfigError("There is no message to answer again.")
        kept = self.messages[asked[-1] + 1 :]
        del self.messages[asked[-1] + 1 :]
        try:
            self.answer()
        except MeleteError:
            self.messages += kept
            raise


def talk(chat: Chat, model: str, aside: Console) -> None:
    """Reads messages from the terminal until the user leaves."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  line editing and history for input()

    aside.print(f"Talking to [bold]{model}[/bold]. /help lists the commands, /quit leaves.", style="dim")
    while True:
        try:
            line = input("\n> ").strip()
        except (EOFError, KeyboardInterrupt):
            aside.print()
            return
        try:
            if line.startswith("/"):
                if not chat.command(line):
                    return
            elif line:
                chat.say(line)
        except MeleteError as error:
            aside.print(f"error: {error}", style="red", markup=False, highlight=False)


def answer_once(chat: Chat) -> None:
    """Answers what comes from the pipe.

    Raises:
        ConfigError: nothing came.
        MeleteError: the model did not answer.
    """
    text = sys.stdin.read().strip()
    if not text:
        raise ConfigError("Standard input is empty.", next_step="Try: echo 'Hello' | melete chat")
    chat.say(text)


def run_tool(name: str, arguments: str) -> str:
    """What a call gives back; what is wrong with it is said to the model, as a result that begins with `error:`."""
    if name != "calculator":
        return f"error: there is no tool named {name or '(none)'}"
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return "error: the arguments are not JSON"
    if not isinstance(given, dict) or not isinstance(given.get("expression"), str):
        return "error: the argument 'expression' is missing"
    return calculate(given["expression"])


def short(arguments: str) -> str:
    """Arguments for one line: the value alone if there is only one."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    only = list(given.values()) if isinstance(given, dict) else []
    return str(only[0]) if len(only) == 1 else arguments
