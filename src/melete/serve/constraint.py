"""JSON schemas and forced tool calls as limits on what a request may sample, with llguidance.

`Grammars` belongs to one model: it holds the tokenizer as a trie of token bytes, built at the first use, and makes a
`GrammarConstraint` for one request. JSON is written compactly (no spaces between tokens), as our models are trained
to write it, so that a weak model cannot fill its answer with spaces.

A call is forced by a grammar `call+` from the first token. Tools with `strict: true` that the model is free to call
cost nothing until it begins a call; from there its name and arguments follow the schema. Limit: the latter needs a
chat format whose calls begin with a special token, as ours do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import llguidance
import numpy as np

from melete.serve.problems import Problem

if TYPE_CHECKING:
    import torch

    from melete.llm.lm import LM
    from melete.serve.schema import ChatRequest, Tool

COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}


class GrammarConstraint:
    """One request's place in a grammar; see `melete.llm.engine.Constraint`.

    Args:
        matcher: a fresh matcher of the grammar.
        vocab_size: V.
        start: None to follow the grammar from the first token, or the token at which it begins.
    """

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int, start: int | None = None) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._start = start

    def mask(self) -> torch.Tensor | None:
        """Allowed tokens, `(V,)` bool, or None while anything is allowed."""
        import torch

        if self._start is not None:
            return None
        words = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(words, bitorder="little")[: self._vocab_size].view(np.bool_))

    def accept(self, token: int) -> None:
        """Advances by one token.

        Raises:
            ValueError: the grammar does not allow it.
        """
        if self._start is not None and token != self._start:
            return
        self._start = None
        if not self._matcher.consume_token(token):
            raise ValueError(self._matcher.get_error() or f"token {token} is outside the grammar")


class Grammars:
    """Makes the constraints of one model."""

    def __init__(self, lm: LM) -> None:
        self._lm = lm
        self.vocab_size = vocab_size(lm)

    def for_request(self, request: ChatRequest) -> GrammarConstraint | None:
        """The constraint that a chat request asks for, or None.

        Raises:
            Problem: a schema that cannot be compiled, with the field that holds it.
        """
        shape = request.response_format
        schema: dict[str, Any] | None = None
        if shape is not None and shape.type == "json_object":
            schema = {"type": "object"}
        elif shape is not None and shape.json_schema is not None:
            schema = shape.json_schema.schema_
        forced = request.forced_tools
        once = request.parallel_tool_calls is False
        if forced:
            return self._constraint(self._calls_grammar("start", forced, once), "tools")
        if schema is not None:
            grammar = f"answer: {_json(schema)}\n"
            self._check(f"start: answer\n{grammar}", "response_format")
            tools = [] if request.tool_choice == "none" else request.tools or []
            if not tools:
                return self._constraint(f"start: answer\n{grammar}", "response_format")
            calls = self._calls_grammar("calls", tools, once)
            return self._constraint(f"start: answer | calls\n{grammar}{calls}", "tools")
        if request.tool_choice != "none" and any(tool.function.strict for tool in request.tools or ()):
            start = self._lm.chat.call_start
            if len(start) == 1 and self.tokenizer.is_special_token(start[0]):
                grammar = self._calls_grammar("start", request.tools or [], once)
                return self._constraint(grammar, "tools", start[0])
        return None

    @cached_property
    def tokenizer(self) -> llguidance.LLTokenizer:
        """The model's tokenizer as llguidance holds it."""
        end = self._lm.chat.stop_ids[0]
        if self._lm.kind == "melete":
            wrapper = llguidance.TokenizerWrapper(_Vocabulary(self._lm.tokenizer))
            return llguidance.LLTokenizer(wrapper, n_vocab=self.vocab_size, eos_token=end)
        from llguidance import hf

        return hf.from_tokenizer(self._lm.tokenizer, n_vocab=self.vocab_size, eos_token=end)

    def token_bytes(self, token: int) -> bytes:
        """Bytes of one token; a special token's are its name."""
        if self._lm.kind == "melete":
            named: bytes = self._lm.tokenizer.decode_bytes([token])
            return named
        return self.tokenizer.decode_bytes([token])

    def _calls_grammar(self, rule: str, tools: Sequence[Tool], once: bool) -> str:
        """Lark rules under the name `rule`: one call, or one after the other, of any of the tools."""
        chat = self._lm.chat
        key = "arguments" if chat.call_start else "parameters"
        lines = [f"{rule}: call" if once or not chat.call_start else f"{rule}: call+"]
        names = [f"tool{i}" for i in range(len(tools))]
        lines.append(
            f"call: {self._literal(chat.call_start)} ({' | '.join(names)}) {self._literal(chat.call_end)}"
        )
        for i, (name, tool) in enumerate(zip(names, tools, strict=True)):
            schema = tool.function.parameters or {"type": "object", "properties": {}}
            self._check(f"start: {_json(schema)}\n", f"tools[{i}].function.parameters")
            opening = f'{{"name":{json.dumps(tool.function.name)},"{key}":'
            lines.append(f'{name}: {json.dumps(opening)} args{i} "}}"')
            lines.append(f"args{i}: {_json(schema)}")
        return "\n".join(lines) + "\n"

    def _literal(self, ids: Sequence[int]) -> str:
        """Token ids as Lark: special tokens by id, runs of the others as text."""
        parts: list[str] = []
        text = b""
        for token in ids:
            if self.tokenizer.is_special_token(token):
                parts += [_quoted(text)] if text else []
                parts.append(f"<[{token}]>")
                text = b""
            else:
                text += self.tokenizer.decode_bytes([token])
        parts += [_quoted(text)] if text else []
        return " ".join(parts)

    def _check(self, lark: str, param: str) -> None:
        failed, messages = llguidance.LLMatcher.validate_grammar_with_warnings(
            llguidance.LLMatcher.grammar_from_lark(lark), self.tokenizer
        )
        if failed:
            reason = messages[0].strip().split("\n")[0]
            raise Problem(400, f"{param}: this JSON schema cannot be enforced: {reason}", param=param)

    def _constraint(self, lark: str, param: str, start: int | None = None) -> GrammarConstraint:
        self._check(lark, param)
        matcher = llguidance.LLMatcher(
            self.tokenizer, llguidance.LLMatcher.grammar_from_lark(lark), log_level=0
        )
        return GrammarConstraint(matcher, self.vocab_size, start)


class _Vocabulary:
    """Our tokenizer with the attributes that llguidance reads."""

    def __init__(self, tokenizer: Any) -> None:
        special = set(tokenizer.special.values())
        self.eos_token_id = tokenizer.end
        self.bos_token_id = tokenizer.bos
        self.special_token_ids = sorted(special)
        self._encode = tokenizer.encode
        # A leading 0xff, which no UTF-8 text holds, keeps a special token apart from text that spells its name.
        self.tokens = [
            (b"\xff" if token in special else b"") + tokenizer.decode_bytes([token])
            for token in range(tokenizer.vocab_size)
        ]

    def __call__(self, text: bytes | str) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self._encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
        return ids


def vocab_size(lm: LM) -> int:
    """Width of the model's logits."""
    if lm.kind == "melete":
        return int(lm.tokenizer.vocab_size)
    return int(lm.model.config.get_text_config().vocab_size)


def _json(schema: dict[str, Any]) -> str:
    return "%json " + json.dumps({**schema, "x-guidance": COMPACT})


def _quoted(text: bytes) -> str:
    return json.dumps(text.decode("utf-8", "replace"))
