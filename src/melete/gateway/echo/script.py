"""A script of the scripted upstream: which reply follows which request, as a YAML file.

    rules:                                    # the first rule that fits a request replies to it
      - when: {tool: bash, role: user}        # the harness offers a tool `bash`, and a person spoke last
        text: I write the file.
        tool_calls: [{name: bash, arguments: {command: echo hello > hello.txt}}]
      - when: {last: "(?i)slow"}              # a regular expression looked for in the last message
        delay: {first_s: 0.3, token_s: 0.01}
        usage: {cached: 64, reasoning: 5}
      - when: {model: flaky}
        times: 2                              # this rule fits two requests, then never again
        error: {status: 500, message: try again}
    turns:                                    # where no rule fits: the n-th turn of a conversation; the last repeats
      - {text: First answer.}
      - {text: Second answer.}

Where nothing fits, or a reply says nothing, the last message is repeated. A turn is counted from the messages that the
request carries (what the model has said in it), so conversations do not disturb each other and nothing is remembered;
only `times` counts across requests.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from melete import documents, find
from melete.gateway.echo.asked import Asked

SCRIPTS = "melete.gateway.echo.scripts"


class Part(BaseModel):
    """What all parts of a script share: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class When(Part):
    """Conditions on a request; all that are given have to hold."""

    model: str | None = Field(default=None, description="The upstream's name of the model, exactly.")
    wire: Literal["chat", "responses", "messages"] | None = Field(
        default=None, description="The API that was used."
    )
    stream: bool | None = Field(default=None, description="Whether the reply is streamed.")
    role: Literal["user", "tool"] | None = Field(default=None, description="Who spoke last.")
    last: str | None = Field(default=None, description="Regular expression, looked for in the last message.")
    system: str | None = Field(
        default=None, description="Regular expression, looked for in the instructions."
    )
    tool: str | None = Field(default=None, description="A tool that the harness offers.")
    turn: int | None = Field(
        default=None, ge=0, description="How often the model has spoken in the conversation."
    )

    @field_validator("last", "system")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    def fits(self, asked: Asked) -> bool:
        """Whether a request meets every condition."""
        exact = {"model": asked.model, "wire": asked.wire, "stream": asked.stream, "role": asked.role}
        exact["turn"] = asked.turn
        return (
            all(getattr(self, key) in (None, value) for key, value in exact.items())
            and (self.tool is None or self.tool in asked.tools)
            and (self.last is None or re.search(self.last, asked.last) is not None)
            and (self.system is None or re.search(self.system, asked.system) is not None)
        )


class ToolCall(Part):
    """A call that the model proposes."""

    name: str = Field(min_length=1, description="The tool's name.")
    arguments: dict[str, Any] = Field(default={}, description="Its arguments.")
    input: str | None = Field(
        default=None, description="Free text instead of arguments, for tools of that kind."
    )


class Usage(Part):
    """Token counts that replace the counted ones."""

    input: int | None = Field(default=None, ge=0, description="All tokens read, cached ones among them.")
    cached: int = Field(default=0, ge=0, description="Of these, read from the provider's cache.")
    cache_write: int = Field(default=0, ge=0, description="Of these, written to it.")
    output: int | None = Field(default=None, ge=0, description="Tokens written, reasoning among them.")
    reasoning: int = Field(default=0, ge=0, description="Of these, spent on reasoning.")


class Delay(Part):
    """Seconds that pass, without using the processor."""

    head_s: float = Field(default=0, ge=0, description="Before the status line.")
    first_s: float = Field(default=0, ge=0, description="Before the first content token.")
    token_s: float = Field(default=0, ge=0, description="Between tokens.")


class Failure(Part):
    """An HTTP error in the API's own words."""

    status: int = Field(ge=400, le=599, description="HTTP status.")
    type: str | None = Field(
        None, description="The error's type; by default what the API says for the status."
    )
    code: str | None = Field(default=None, description="The error's code, such as context_length_exceeded.")
    message: str = Field(default="scripted failure", description="The error's text.")
    headers: dict[str, str] = Field(default={}, description="Further headers, such as retry-after.")


class Reply(Part):
    """What the model answers: nothing at all repeats the last message."""

    text: str | None = Field(default=None, description="What it says.")
    thinking: str | None = Field(default=None, description="What it thinks first, where the API shows that.")
    tool_calls: list[ToolCall] = Field(default=[], description="Calls that it proposes after its text.")
    usage: Usage | Literal[False] = Field(default=Usage(), description="Token counts; false: none are told.")
    finish: Literal["stop", "length", "content_filter"] = Field(default="stop", description="Why it ends.")
    delay: Delay = Field(default=Delay(), description="How slow it is.")
    error: Failure | None = Field(default=None, description="An HTTP error instead of an answer.")
    raw: str | None = Field(
        default=None, description="A body, as it stands, instead of an answer: for garbage."
    )
    cut_after: int | None = Field(
        default=None, ge=0, description="The connection is cut after so many tokens."
    )
    hang_s: float = Field(
        default=0, ge=0, description="Nothing happens for so long, then the connection is cut."
    )


class Rule(Reply):
    """A reply and when it is given."""

    when: When = Field(default=When(), description="Conditions; none fits every request.")
    times: int | None = Field(default=None, ge=1, description="How many requests it fits; none: any number.")


class Script(Part):
    """All replies of the upstream."""

    models: list[str] = Field(
        default=["echo"], min_length=1, description="What it says it offers; it answers any name."
    )
    rules: list[Rule] = Field(default=[], description="Replies by condition; the first that fits counts.")
    turns: list[Reply] = Field(default=[], description="Replies in order, where no rule fits.")


class Play:
    """A script being played: picks replies and counts how often a rule was used."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._used: Counter[int] = Counter()

    def reply(self, asked: Asked) -> Reply:
        """The reply to a request."""
        for number, rule in enumerate(self.script.rules):
            left = rule.times is None or self._used[number] < rule.times
            if left and rule.when.fits(asked):
                self._used[number] += 1
                return rule
        turns = self.script.turns
        return turns[min(asked.turn, len(turns) - 1)] if turns else Reply()


def read(reference: str) -> Script:
    """Reads a script: a path, or the name of one that is shipped.

    Raises:
        UnknownNameError: neither a file nor a shipped script.
        ConfigError: the file is wrong; the message names file, line and key.
    """
    path = Path(reference)
    if not path.is_file():
        path = find.path(SCRIPTS, reference, "script of the scripted upstream, and no file,")
    return documents.read(path, Script, "script").record
