"""Request bodies of the OpenAI-compatible API, checked by pydantic, and what each field means here.

Fields that have no effect on a local model (`user`, `metadata`, `store`, …) are accepted and ignored. Fields that
would change the answer and are not supported (`logit_bias`, penalties other than 0, `functions`) are refused, because
an answer that silently ignored them would be wrong. Unknown fields are refused with the closest known name.

Extensions: `top_k`, `stop_token_ids` and `return_token_ids` mean what they mean in vLLM, `truncation` what it means in
OpenAI's Responses API: `auto` leaves out the oldest messages of a conversation that has outgrown the context; `fold`
is ours and folds them into a note.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from melete.records import Conversation, ToolCall, Turn


class Loose(BaseModel):
    """Part of a request in which further keys are ignored."""

    model_config = ConfigDict(extra="ignore")


class CalledFunction(Loose):
    """Name and arguments (JSON as text) of an earlier call."""

    name: str
    arguments: str = "{}"


class Call(Loose):
    """A tool call in an assistant message of the history."""

    id: str = "call_0"
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Loose):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, content: Any) -> Any:
        """Text parts become one text."""
        if not isinstance(content, list):
            return content
        for i, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
                raise ValueError(
                    f"part {i} is of type {kind!r}; only parts of type 'text' with a 'text' are supported"
                )
        return "".join(part[part["type"]] for part in content)

    def turn(self) -> Turn:
        """The message as a record."""
        calls = tuple(
            ToolCall(c.id, c.function.name, as_written(c.function.arguments)) for c in self.tool_calls or ()
        )
        role = "system" if self.role == "developer" else self.role
        return Turn(role, self.content or "", calls, self.tool_call_id)


class Function(Loose):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Loose):
    """A tool; only functions exist."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(Loose):
    """The name in a `tool_choice` that forces one function."""

    name: str


class NamedChoice(Loose):
    """A `tool_choice` that forces one function."""

    type: Literal["function"]
    function: NamedFunction


class Schema(Loose):
    """The `json_schema` of a response format."""

    name: str = "answer"
    schema_: dict[str, Any] = Field(alias="schema", default_factory=lambda: {"type": "object"})
    strict: bool | None = None


class ResponseFormat(Loose):
    """`text`, `json_object`, or `json_schema` with a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    @model_validator(mode="after")
    def _schema_given(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("type 'json_schema' needs the key 'json_schema' with 'name' and 'schema'")
        return self


class StreamOptions(Loose):
    """What a stream carries besides the text."""

    include_usage: bool | None = None


Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Unsupported = "is not supported by this server; leave it out"


class GenerationRequest(BaseModel):
    """Fields that both endpoints have."""

    model_config = ConfigDict(extra="forbid")

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, description="Sample among the k likeliest tokens; 0 or -1 is all.")
    seed: Seed | None = None
    n: int | None = Field(None, ge=1, le=128)
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    return_token_ids: bool | None = None

    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None

    @field_validator("frequency_penalty", "presence_penalty", "logit_bias")
    @classmethod
    def _without_effect(cls, value: Any) -> Any:
        if value:
            raise ValueError(Unsupported)
        return value

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value or []
        if len(texts) > 16:
            raise ValueError("at most 16 stop strings are allowed")
        return value

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer carries log-probabilities."""
        raise NotImplementedError

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings; an empty one would stop at once and is dropped."""
        texts = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return tuple(text for text in texts if text)


class ChatRequest(GenerationRequest):
    """Body of `POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    truncation: Literal["auto", "fold", "disabled"] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    reasoning_effort: Any = None
    verbosity: Any = None

    @field_validator("functions", "function_call")
    @classmethod
    def _deprecated(cls, value: Any) -> Any:
        if value:
            raise ValueError("is deprecated; use 'tools' and 'tool_choice'")
        return value

    @field_validator("modalities")
    @classmethod
    def _text_only(cls, value: list[str] | None) -> list[str] | None:
        if value and value != ["text"]:
            raise ValueError("only ['text'] is supported")
        return value

    @model_validator(mode="after")
    def _tools_fit_choice(self) -> ChatRequest:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("two tools have the same name")
        if self.tool_choice in (None, "none", "auto"):
            return self
        if not names:
            raise ValueError("'tool_choice' needs 'tools'")
        if isinstance(self.tool_choice, NamedChoice) and self.tool_choice.function.name not in names:
            found = self.tool_choice.function.name
            raise ValueError(
                f"'tool_choice' names {found!r}, which is not among the tools: {', '.join(names)}"
            )
        return self

    @property
    def forced_tools(self) -> list[Tool]:
        """Tools of which the model must call one; empty if it is free."""
        if isinstance(self.tool_choice, NamedChoice):
            return [t for t in self.tools or () if t.function.name == self.tool_choice.function.name]
        return list(self.tools or ()) if self.tool_choice == "required" else []

    @property
    def wanted_tokens(self) -> int | None:
        """The most tokens of the answer, or None for as many as the context holds."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_logprobs(self) -> bool:
        """See `GenerationRequest.wants_logprobs`."""
        return bool(self.logprobs)

    def conversation(self) -> Conversation:
        """Messages and tools as a record; with `tool_choice: none` the model is not shown the tools."""
        tools = () if self.tool_choice == "none" else tuple(self.tools or ())
        return Conversation(
            tuple(message.turn() for message in self.messages),
            tuple(tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in tools),
        )


class CompletionRequest(GenerationRequest):
    """Body of `POST /v1/completions`; the prompt is text or token ids, or a list of either."""

    prompt: str | list[int] | list[str] | list[list[int]] = Field(min_length=1)
    max_tokens: int | None = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None

    suffix: str | None = None
    best_of: int | None = Field(None, ge=1)

    @field_validator("suffix")
    @classmethod
    def _no_infill(cls, value: str | None) -> str | None:
        if value:
            raise ValueError(Unsupported)
        return value

    @model_validator(mode="after")
    def _echo_without_logprobs(self) -> CompletionRequest:
        if self.echo and self.logprobs is not None:
            raise ValueError("'echo' together with 'logprobs' is not supported; leave one out")
        return self

    @model_validator(mode="after")
    def _best_of_is_n(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("'best_of' must equal 'n'")
        return self

    @property
    def wants_logprobs(self) -> bool:
        """See `GenerationRequest.wants_logprobs`."""
        return self.logprobs is not None

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt


def as_written(arguments: str) -> str:
    """A call's arguments as our models write them, without spaces, where a client has put them into `json.dumps`."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return (
        compact(value)
        if arguments in (json.dumps(value), json.dumps(value, ensure_ascii=False))
        else arguments
    )


def compact(value: Any) -> str:
    """JSON text without spaces, as sent in streams."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
