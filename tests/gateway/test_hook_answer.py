"""Answers are read the same however their bytes are cut, and anything at all can be fed without an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melete.gateway.hook_answer import Answer, Tokens, anthropic_tokens, openai_tokens


def frames(*documents: dict[str, Any], end: bytes = b"") -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(document).encode() for document in documents) + end


def chat(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, **more}]}


CALL = {"index": 0, "id": "c", "function": {"name": "bash", "arguments": ""}}
STREAMS = {
    "chat": frames(
        chat({"role": "assistant", "content": ""}),
        chat({"content": "Hello "}),
        chat({"tool_calls": [CALL]}),
        chat({"tool_calls": [{"index": 0, "function": {"arguments": '{"x":1}'}}]}),
        chat({}, finish_reason="tool_calls"),
        {"model": "m", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}},
        end=b"data: [DONE]\n\n",
    ),
    "responses": frames(
        {"type": "response.created", "response": {"status": "in_progress", "model": "m"}},
        {"type": "response.output_text.delta", "delta": "Hello "},
        {"type": "response.output_item.added", "output_index": 1,
         "item": {"type": "function_call", "id": "c", "name": "bash"}},
        {"type": "response.function_call_arguments.delta", "delta": '{"x":1}'},
        {"type": "response.completed",
         "response": {"status": "completed", "model": "m", "usage": {"input_tokens": 9, "output_tokens": 4}}},
    ),
    "messages": frames(
        {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello "}},
        {"type": "content_block_start", "index": 1,
         "content_block": {"type": "tool_use", "id": "c", "name": "bash", "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"x":1}'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
        {"type": "message_stop"},
    ),
}  # fmt: skip


def read(endpoint: str, parts: list[bytes]) -> Answer:
    answer = Answer(endpoint, keep_text=True)
    for number, part in enumerate(parts):
        answer.feed(part, float(number))
    return answer


@pytest.mark.parametrize("endpoint", STREAMS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_stream_says_the_same_however_it_is_cut(endpoint: str, data: st.DataObject) -> None:
    whole = STREAMS[endpoint]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    parts = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    answer = read(endpoint, parts)
    assert (answer.done, answer.error, answer.model, answer.tool_calls) == (True, None, "m", 1)
    assert answer.tokens == Tokens(9, 4)
    assert "".join(answer.texts) == 'Hello {"x":1}'
    assert answer.finish in ("tool_calls", "completed", "tool_use")


@pytest.mark.parametrize("endpoint", STREAMS)
def test_first_content_is_not_the_first_chunk(endpoint: str) -> None:
    parts = [frame + b"\n\n" for frame in STREAMS[endpoint].split(b"\n\n") if frame]
    answer = read(endpoint, parts)
    assert answer.first_chunk_s == 0.0
    assert answer.content_s[0] == (2.0 if endpoint == "messages" else 1.0)


@pytest.mark.parametrize("endpoint", STREAMS)
@settings(max_examples=50, deadline=None)
@given(parts=st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_are_read_without_an_error(endpoint: str, parts: list[bytes]) -> None:
    answer = read(endpoint, [b"data: ", *parts, b"\n\n"])
    answer.read(b"".join(parts), 1.0)
    assert answer.characters >= 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["type", "choices", "delta", "usage", "error", "response", "output", "content", "message"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("endpoint", STREAMS)
@settings(max_examples=50, deadline=None)
@given(document=st.dictionaries(st.sampled_from(["type", "choices", "usage", "error", "response"]), JSON))
def test_any_document_is_read_without_an_error(endpoint: str, document: dict[str, Any]) -> None:
    answer = read(endpoint, [frames(document)])
    answer.read(json.dumps(document).encode(), 1.0)
    assert answer.tool_calls >= 0


@pytest.mark.parametrize(
    ("endpoint", "frame"),
    [
        ("chat", {"error": {"message": "Connection reset", "code": "500"}}),
        ("responses", {"type": "response.failed", "response": {"status": "failed", "error": {"code": 500}}}),
        ("messages", {"type": "error", "error": {"type": "api_error", "code": 500}}),
    ],
)
def test_error_inside_a_stream_is_an_error_with_its_status(endpoint: str, frame: dict[str, Any]) -> None:
    answer = read(endpoint, [frames(frame)])
    assert answer.error is not None
    assert answer.error[1] == 500


def test_tokens_of_anthropic_count_what_a_cache_had_into_the_input() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 80,
        "cache_creation_input_tokens": 5,
        "output_tokens": 7,
    }
    assert anthropic_tokens(usage, None) == Tokens(95, 7, cached=80, cache_write=5)


def test_tokens_of_openai_tell_cached_and_reasoning_ones_apart() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert openai_tokens(usage) == Tokens(100, 20, cached=64, reasoning=5)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": "7"}, 7, []])
def test_counts_that_are_none_are_none(usage: Any) -> None:
    assert openai_tokens(usage) is None
