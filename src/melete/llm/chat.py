"""Conversations to token ids and back: the layout of our own models, and any transformers chat template.

    <|bos|> [<|system|>text<|end|>] [<|tools|>one signature a line<|end|>]
    <|user|>text<|end|>
    <|assistant|>text{<|tool_call|>{"name":…,"arguments":{…}}}*<|end|>
    <|tool_result|>text<|end|>

A tool is shown as `name(city: string, unit?: celsius|fahrenheit)`: see `tools_text`.

A model is trained on what it has to write itself: everything after `<|assistant|>` up to and including its `<|end|>`,
and nothing else. Text never becomes a special token, whoever wrote it: our tokenizer encodes text apart from special
tokens, and `TemplateChat` cuts every special token that stands in a text into plain characters. What a model wrote
is always parsed to a turn: a tool call that is not valid JSON is kept with its raw text and never raises.

Limits: ids of tool calls are not written into the prompt (calls and results are matched by order), and
`TemplateChat` knows the call forms of the Qwen (`<tool_call>`) and Llama 3 (bare JSON) families only.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from melete.errors import ConfigError, TokenizerError
from melete.records import Conversation, ToolCall, Turn

if TYPE_CHECKING:
    from melete.llm.tokenizer import Tokenizer

CALL = re.compile(
    r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(.*)\}\s*', re.S
)


class ChatFormat(Protocol):
    """How a model reads and writes conversations.

    Attributes:
        stop_ids: tokens at which a turn of the assistant ends; the first is the regular one.
        call_start: tokens that begin a tool call, before its JSON.
        call_end: tokens that close a tool call, after its JSON.
    """

    stop_ids: tuple[int, ...]
    call_start: tuple[int, ...]
    call_end: tuple[int, ...]

    def render(self, conversation: Conversation, generation_prompt: bool) -> tuple[list[int], list[bool]]:
        """Token ids of a conversation, and for each whether it is trained.

        Args:
            conversation: turns and tools.
            generation_prompt: whether to end with the tokens after which the assistant writes.

        Raises:
            ConfigError: the conversation cannot be written in this format.
        """
        ...

    def parse(self, ids: Sequence[int]) -> Turn:
        """The assistant's turn that `ids` hold (what follows the generation prompt); never raises."""
        ...

    def follow(self, turns: Sequence[Turn]) -> list[int] | None:
        """Token ids of what comes after a closed turn of the assistant, up to where it writes again.

        None if that cannot be told without the whole conversation.
        """
        ...


class MeleteChat:
    """The layout in the head of this file, over our own tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        special = tokenizer.special
        needed = ("bos", "system", "tools", "user", "assistant", "tool_call", "tool_result", "end")
        missing = [name for name in needed if f"<|{name}|>" not in special]
        if missing:
            raise TokenizerError(
                f"The tokenizer has no special token for {', '.join(missing)}.",
                next_step="Train one with: melete llm tokenizer",
            )
        self._id = {name: special[f"<|{name}|>"] for name in needed}
        # A model that starts another role's turn has left its own: that ends the turn as well.
        others = ("bos", "system", "tools", "user", "assistant", "tool_result")
        self.stop_ids: tuple[int, ...] = (self._id["end"], *(self._id[name] for name in others))
        self.call_start: tuple[int, ...] = (self._id["tool_call"],)
        self.call_end: tuple[int, ...] = ()

    def render(self, conversation: Conversation, generation_prompt: bool) -> tuple[list[int], list[bool]]:
        """See `ChatFormat.render`; nothing is refused."""
        ids = [self._id["bos"]]
        trained = [False]

        def add(role: str, body: list[int], train: bool = False) -> None:
            ids.extend((self._id[role], *body, self._id["end"]))
            trained.extend((False, *[train] * (len(body) + 1)))

        turns = list(conversation.turns)
        while turns and turns[0].role == "system":
            add("system", self.tokenizer.encode(turns.pop(0).content))
        if conversation.tools:
            add("tools", self.tokenizer.encode(tools_text(conversation.tools)))
        for turn in turns:
            if turn.role == "assistant":
                add("assistant", self._assistant(turn), train=True)
            else:
                add("tool_result" if turn.role == "tool" else turn.role, self.tokenizer.encode(turn.content))
        if generation_prompt:
            ids.append(self._id["assistant"])
            trained.append(False)
        return ids, trained

    def parse(self, ids: Sequence[int]) -> Turn:
        """See `ChatFormat.parse`."""
        stop = set(self.stop_ids)
        body = list(itertools.takewhile(lambda token: token not in stop, ids))
        pieces: list[list[int]] = [[]]
        for token in body:
            if token == self._id["tool_call"]:
                pieces.append([])
            else:
                pieces[-1].append(token)
        text, *calls = [self.tokenizer.decode(piece) for piece in pieces]
        return Turn("assistant", text, tuple(parse_call(call, f"call_{i}") for i, call in enumerate(calls)))

    def follow(self, turns: Sequence[Turn]) -> list[int]:
        """See `ChatFormat.follow`."""
        return [*self.render(Conversation(tuple(turns)), generation_prompt=True)[0][1:]]

    def _assistant(self, turn: Turn) -> list[int]:
        body = self.tokenizer.encode(turn.content)
        for call in turn.tool_calls:
            body.append(self._id["tool_call"])
            body.extend(self.tokenizer.encode(call_text(call)))
        return body


class TemplateChat:
    """The chat template of a transformers tokenizer.

    Trained spans are found by the template's own generation prompt (such as `<|im_start|>assistant\\n`): it holds a
    special token, so no text can forge it.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        stop_ids: further tokens that end a turn, such as those of the model's generation config.

    Raises:
        TokenizerError: it has no chat template, or one without a generation prompt.
    """

    def __init__(self, tokenizer: Any, stop_ids: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise TokenizerError(
                "This model has no chat template, so it cannot read conversations.",
                next_step="Use the instruction-tuned model of the family, or put a chat_template.jinja in its folder.",
            )
        self._added: dict[str, int] = dict(tokenizer.get_added_vocab())
        self._special = {text for text in self._added if self._added[text] in set(tokenizer.all_special_ids)}
        probe = [{"role": "user", "content": "u"}]
        asked = self._template(probe, None, generation_prompt=False)
        self._header = self._template(probe, None, generation_prompt=True).removeprefix(asked)
        if not any(text in self._header for text in self._special):
            raise TokenizerError(
                "The chat template has no generation prompt with a special token, so the assistant's turns "
                "cannot be told from the user's.",
                next_step="Use a model whose template knows add_generation_prompt (Qwen and Llama 3 do).",
            )
        self._end = self._end_token(probe)
        eos = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([self._added[self._end], *eos, *stop_ids]))
        tagged = "<tool_call>" in tokenizer.chat_template
        self.call_start: tuple[int, ...] = tuple(self._encode("<tool_call>\n")) if tagged else ()
        self.call_end: tuple[int, ...] = tuple(self._encode("\n</tool_call>")) if tagged else ()

    def render(self, conversation: Conversation, generation_prompt: bool) -> tuple[list[int], list[bool]]:
        """See `ChatFormat.render`."""
        marks = _Marks(conversation, self._added, self._special)
        messages = [_template_message(turn) for turn in marks.conversation.turns]
        tools = list(marks.conversation.tools) or None
        text = self._template(messages, tools, generation_prompt)
        ids: list[int] = []
        trained: list[bool] = []
        for piece, train in self._spans(text):
            tokens = self._encode(piece, marks)
            ids.extend(tokens)
            trained.extend([train] * len(tokens))
        return ids, trained

    def parse(self, ids: Sequence[int]) -> Turn:
        """See `ChatFormat.parse`."""
        stop = set(self.stop_ids)
        body = list(itertools.takewhile(lambda token: token not in stop, ids))
        text: str = self.tokenizer.decode(body, skip_special_tokens=False)
        head, *blocks = text.split("<tool_call>")
        if blocks:
            calls = [block.split("</tool_call>")[0] for block in blocks]
            return Turn("assistant", head.removesuffix("\n"), _numbered(calls))
        bare = text.removeprefix("<|python_tag|>")
        if CALL.fullmatch(bare) and parse_call(bare, "call_0").name:
            return Turn("assistant", "", _numbered([bare]))
        return Turn("assistant", text)

    def follow(self, turns: Sequence[Turn]) -> None:
        """See `ChatFormat.follow`: a template may rewrite earlier turns."""

    def _spans(self, text: str) -> Iterable[tuple[str, bool]]:
        head, *rest = text.split(self._header)
        yield head, False
        for piece in rest:
            yield self._header, False
            written, end, after = piece.partition(self._end)
            yield written + end, bool(end)
            yield after, False

    def _encode(self, text: str, marks: _Marks | None = None) -> list[int]:
        if marks is None or marks.character not in text:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
        ids: list[int] = []
        for i, piece in enumerate(text.split(marks.character)):
            # Odd pieces are indices into the marks: special tokens inside a text, written character by character.
            parts = [piece] if i % 2 == 0 else list(marks.replaced[int(piece)])
            ids.extend(token for part in parts for token in self._encode(part))
        return ids

    def _template(self, messages: list[dict[str, Any]], tools: Any, generation_prompt: bool) -> str:
        import jinja2

        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tools=tools, add_generation_prompt=generation_prompt, tokenize=False
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise ConfigError(
                f"The model's chat template refused a conversation: {error}.",
                next_step="Check the order of roles and the number of tool calls in a turn.",
            ) from error
        return text

    def _end_token(self, probe: list[dict[str, Any]]) -> str:
        answered = self._template(
            [*probe, {"role": "assistant", "content": "a"}], None, generation_prompt=False
        )
        tail = answered[answered.rindex(self._header) + len(self._header) :]
        found = [(tail.index(text), text) for text in self._special if text in tail]
        if not found:
            raise TokenizerError("The chat template does not end the assistant's turn with a special token.")
        return min(found)[1]


class _Marks:
    """A conversation with the special tokens that stand in its texts replaced by marks."""

    def __init__(self, conversation: Conversation, added: dict[str, int], special: set[str]) -> None:
        text = json.dumps(conversation.to_openai(), ensure_ascii=False)
        self.character = next(c for c in map(chr, range(0xE000, 0xF8FF)) if c not in text)
        self.replaced: list[str] = []
        longest_first = sorted((t for t in added if t.strip()), key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # What an assistant wrote may hold added tokens that are its own, such as <think>; only true special ones go.
        own = [text for text in longest_first if text in special]
        self._own = re.compile("|".join(map(re.escape, own)) or r"(?!)")
        self.conversation = Conversation(
            tuple(self._turn(turn) for turn in conversation.turns),
            tuple(
                json.loads(self._mark(json.dumps(t, ensure_ascii=False), self._any))
                for t in conversation.tools
            ),
        )

    def _turn(self, turn: Turn) -> Turn:
        pattern = self._own if turn.role == "assistant" else self._any
        calls = tuple(replace(c, arguments=self._mark(c.arguments, self._any)) for c in turn.tool_calls)
        return replace(turn, content=self._mark(turn.content, pattern), tool_calls=calls)

    def _mark(self, text: str, pattern: re.Pattern[str]) -> str:
        def mark(match: re.Match[str]) -> str:
            self.replaced.append(match.group())
            return f"{self.character}{len(self.replaced) - 1}{self.character}"

        return pattern.sub(mark, text)


def tools_text(tools: Iterable[dict[str, Any]]) -> str:
    """The tools as our own models see them, one signature a line: `cancel(order: string, reason?: late|broken)`.

    Names, arguments, types, allowed values and which arguments may be left out (`?`) stay; descriptions and limits
    go, since a small model learns tools from use and JSON schemas of ten tools fill its context (decision 0005).
    """
    return "\n".join(map(_signature, tools))


def _signature(tool: dict[str, Any]) -> str:
    function = tool.get("function", tool)
    return f"{function.get('name', '')}({_arguments(function.get('parameters') or {})})"


def _arguments(schema: dict[str, Any]) -> str:
    required = schema.get("required") or ()
    properties = (schema.get("properties") or {}).items()
    return ", ".join(f"{name}{'' if name in required else '?'}: {_type(part)}" for name, part in properties)


def _type(schema: Any) -> str:
    """A JSON schema in short; what has no short form is `any`."""
    if not isinstance(schema, dict):
        return "any"
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        return "|".join(map(_literal, schema["enum"]))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return "|".join(dict.fromkeys(map(_type, schema[key])))
    kind = schema.get("type", "object" if "properties" in schema else "any")
    if isinstance(kind, list):
        return "|".join(_type({**schema, "type": one}) for one in kind)
    if kind == "array":
        return f"[{_type(schema.get('items', {}))}]"
    if kind == "object" and schema.get("properties"):
        return f"{{{_arguments(schema)}}}"
    return str(kind)


def _literal(value: Any) -> str:
    """An allowed value; text that reads like a signature's own signs is quoted."""
    if isinstance(value, str) and re.fullmatch(r"[^|,(){}\[\]:\"\n]+", value) and _json(value) is None:
        return value
    return json.dumps(value, ensure_ascii=False)


def plain_text(conversation: Conversation) -> str:
    """A conversation without special tokens, one line a turn: what a tokenizer learns the words of tool use from."""
    turns = [turn.content + "".join(map(call_text, turn.tool_calls)) for turn in conversation.turns]
    return "\n".join([tools_text(conversation.tools), *turns])


def call_text(call: ToolCall) -> str:
    """A tool call as the model writes it; a call without a name is raw text that could not be read."""
    if not call.name:
        return call.arguments
    return f'{{"name":{json.dumps(call.name, ensure_ascii=False)},"arguments":{call.arguments}}}'


def parse_call(text: str, call_id: str) -> ToolCall:
    """The call in `text`; what cannot be read is kept raw: `arguments` always, and the name is empty if it has none."""
    value = _json(text)
    match = CALL.fullmatch(text)
    # The raw text of the arguments is kept where it can be cut out, even if it is broken.
    if match and (name := _json(match[1])) and (value is None or _json(match[2]) is not None):
        return ToolCall(call_id, name, match[2].strip())
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        arguments = value.get("arguments", value.get("parameters", {}))
        return ToolCall(call_id, value["name"], json.dumps(arguments, ensure_ascii=False))
    return ToolCall(call_id, "", text)


def call_arguments(call: ToolCall) -> dict[str, Any] | None:
    """The arguments as a JSON object, or None if they are not one."""
    value = _json(call.arguments)
    return value if isinstance(value, dict) else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _numbered(calls: list[str]) -> tuple[ToolCall, ...]:
    return tuple(parse_call(call, f"call_{i}") for i, call in enumerate(calls))


def _template_message(turn: Turn) -> dict[str, Any]:
    message = turn.to_openai()
    for call in message.get("tool_calls", ()):
        # Templates write the arguments with `tojson`, so they must be an object where they can be one.
        arguments = _json(call["function"]["arguments"])
        if isinstance(arguments, dict):
            call["function"]["arguments"] = arguments
    return message
