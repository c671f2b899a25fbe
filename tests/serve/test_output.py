"""Reading an answer: however its text is cut into tokens, the deltas add up to what the chat format parses."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melete.llm.engine import Token
from melete.serve import echo
from melete.serve.output import Delta, OutputParser

LM = echo.load()
CALL_TOKEN = LM.chat.call_start[0]
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NAME = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
ARGUMENTS = st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.lists(TEXT, max_size=2)), max_size=3)


def read(parser: OutputParser, tokens: list[Token], cuts: list[int]) -> list[Delta]:
    """Feeds tokens in the stretches between the cuts."""
    places = [0, *sorted(cut % (len(tokens) + 1) for cut in cuts), len(tokens)]
    deltas = [delta for a, b in pairwise(places) for delta in parser.feed(tokens[a:b])]
    return deltas + parser.finish()


def joined(deltas: list[Delta]) -> tuple[str, list[tuple[str, str]]]:
    """Content, and name and arguments of each call, as a client adds them up."""
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        if delta.call is not None:
            call = calls.setdefault(delta.call, ["", ""])
            call[0] += delta.name or ""
            call[1] += delta.text
    return "".join(d.text for d in deltas if d.call is None), [(name, text) for name, text in calls.values()]


def as_tokens(content: str, calls: list[str]) -> list[Token]:
    """Tokens of one character each, with the token that begins a call before each call."""
    tokens = [Token(0, 0.0, (), character) for character in content]
    for call in calls:
        tokens.append(Token(CALL_TOKEN, 0.0, (), ""))
        tokens += [Token(0, 0.0, (), character) for character in call]
    return tokens


@settings(max_examples=60, deadline=None)
@given(TEXT, st.lists(st.tuples(NAME, ARGUMENTS), max_size=3), st.lists(st.integers(0, 400), max_size=6))
def test_output_of_our_models_cut_anywhere_adds_up(
    content: str, calls: list[tuple[str, dict[str, object]]], cuts: list[int]
) -> None:
    texts = [
        json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False) for name, arguments in calls
    ]
    parser = OutputParser(call_token=CALL_TOKEN)
    said, called = joined(read(parser, as_tokens(content, texts), cuts))
    assert said == parser.content == content
    assert [(name, json.loads(text)) for name, text in called] == calls
    assert [(call.name, call.arguments) for call in parser.calls] == called


@settings(max_examples=60, deadline=None)
@given(st.text("ab<tool_c\n>", max_size=12), ARGUMENTS, st.lists(st.integers(0, 400), max_size=6))
def test_output_with_tags_cut_anywhere_adds_up(
    content: str, arguments: dict[str, object], cuts: list[int]
) -> None:
    call = json.dumps({"name": "f", "arguments": arguments}, ensure_ascii=False)
    if "<tool_call>" in content or "</tool_call>" in call:
        return
    tokens = as_tokens(f"{content}\n<tool_call>\n{call}\n</tool_call>", [])
    said, called = joined(read(OutputParser(tagged=True), tokens, cuts))
    assert said == content
    assert [(name, json.loads(text)) for name, text in called] == [("f", arguments)]


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "{",
        "nonsense",
        '{"name": "f"',
        '{"name": 3, "arguments": {}}',
        '{"name":"f","arguments":{"a":',
        "[1]",
        '"x"',
    ],
)
def test_output_of_broken_call_is_kept_as_the_chat_format_keeps_it(raw: str) -> None:
    parser = OutputParser(call_token=CALL_TOKEN)
    _, called = joined(read(parser, as_tokens("so", [raw]), []))
    parsed = LM.chat.parse([*LM.tokenizer.encode("so"), CALL_TOKEN, *LM.tokenizer.encode(raw)])
    assert parsed.content == "so"
    name, arguments = called[0]
    if name:
        assert raw.endswith(arguments)
    else:
        assert (parsed.tool_calls[0].name, parsed.tool_calls[0].arguments) == ("", raw)


def test_output_of_bare_call_is_a_call_and_other_text_streams_at_once() -> None:
    bare = '{"name": "f", "parameters": {"a": 1}}'
    _, called = joined(read(OutputParser(bare=True), as_tokens(bare, []), [3]))
    assert called == [("f", '{"a": 1}')]
    parser = OutputParser(bare=True)
    assert parser.feed(as_tokens("Hi", [])) == [Delta("Hi")]


def test_output_passes_arguments_on_as_they_come() -> None:
    parser = OutputParser(call_token=CALL_TOKEN)
    tokens = as_tokens("", ['{"name":"f","arguments":{"a":1}}'])
    first = [delta for token in tokens[:-3] for delta in parser.feed([token])]
    assert first[0].name == "f"
    assert "".join(delta.text for delta in first) == '{"a":'
