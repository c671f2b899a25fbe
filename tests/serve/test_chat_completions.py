"""Chat completions over HTTP with the official client: whole, streamed, several, with probabilities and token ids."""

from __future__ import annotations

import math
from typing import Any

import openai
import pytest

from melete.serve import echo
from melete.serve.server import Server

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def test_chat_of_real_model_reports_length_and_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=5, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_same_seed_gives_same_answer(client: openai.OpenAI) -> None:
    def ask() -> str | None:
        made = client.chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=12, temperature=1.0, seed=7
        )
        return made.choices[0].message.content

    assert ask() == ask()


def test_chat_streamed_equals_whole(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {
        "model": "tiny",
        "messages": HELLO,
        "max_tokens": 24,
        "temperature": 1.0,
        "seed": 3,
    }
    whole = client.chat.completions.create(**fields)
    chunks = list(
        client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == (whole.choices[0].message.content or "")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens  # type: ignore[union-attr]
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_chat_second_request_with_same_beginning_reports_cached_tokens(client: openai.OpenAI) -> None:
    long = [{"role": "system", "content": "You practise patiently. " * 8}, *HELLO]
    fields: dict[str, Any] = {"model": "tiny", "messages": long, "max_tokens": 2}
    client.chat.completions.create(**fields)
    again = client.chat.completions.create(**fields)
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert (again.usage.prompt_tokens_details.cached_tokens or 0) > 20


def test_chat_several_choices_have_their_own_index_and_seed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, n=3, max_tokens=12, temperature=1.0, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3


def test_chat_logprobs_have_alternatives_that_are_probabilities(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    assert answer.choices[0].logprobs is not None
    for token in answer.choices[0].logprobs.content or []:
        assert len(token.top_logprobs) == 3
        assert math.isclose(token.logprob, token.top_logprobs[0].logprob)
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1.0001


def test_chat_return_token_ids_whole_and_streamed_agree(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 9, "seed": 5}
    fields["extra_body"] = {"return_token_ids": True}
    whole = client.chat.completions.create(**fields).model_dump()
    chunks = [chunk.model_dump() for chunk in client.chat.completions.create(**fields, stream=True)]
    streamed = [i for chunk in chunks for choice in chunk["choices"] for i in choice.get("token_ids") or []]
    assert len(whole["choices"][0]["token_ids"]) == whole["usage"]["completion_tokens"]
    assert streamed == whole["choices"][0]["token_ids"]
    assert chunks[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    assert len(whole["prompt_token_ids"]) == whole["usage"]["prompt_tokens"]


def test_chat_stop_string_ends_before_it(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "one two three"}], stop=["two"]
    )
    assert answer.choices[0].message.content == "one "
    assert answer.choices[0].finish_reason == "stop"


def test_chat_streamed_characters_of_many_bytes_are_never_cut(client: openai.OpenAI) -> None:
    text = "naïve 🌍🎉 日本語"
    stream = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": text}], stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_chat_content_parts_are_joined(client: openai.OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    answer = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "ab"


def test_completion_of_text_and_of_ids_agree(client: openai.OpenAI, server: Server) -> None:
    lm = server.models["tiny"].lm
    fields: dict[str, Any] = {"model": "tiny", "max_tokens": 8, "temperature": 0}
    of_text = client.completions.create(prompt="two three", **fields)
    of_ids = client.completions.create(prompt=[lm.bos, *lm.encode("two three")], **fields)
    assert of_text.choices[0].text == of_ids.choices[0].text


def test_completion_of_two_prompts_streams_both(client: openai.OpenAI) -> None:
    texts = ["", ""]
    for chunk in client.completions.create(model="echo", prompt=["left", "right"], stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == ["left", "right"]


def test_completion_echo_comes_before_the_answer(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt="abc", echo=True)
    assert answer.choices[0].text == "abcabc"


def test_completion_logprobs_have_offsets_into_the_text(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt="abc", logprobs=1)
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.tokens == ["a", "b", "c"]
    assert found.text_offset == [0, 1, 2]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_chat_limit_by_either_name_is_kept(client: openai.OpenAI, limit: str) -> None:
    answer = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "abcdef"}], extra_body={limit: 3}
    )
    assert answer.choices[0].message.content == "abc"
    assert answer.choices[0].finish_reason == "length"


def test_models_list_names_what_is_served(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"tiny", "echo"}
    assert client.models.retrieve("tiny").id == "tiny"


def test_chat_truncation_auto_leaves_out_the_oldest_messages(client: openai.OpenAI) -> None:
    turns = [
        {"role": role, "content": f"{role} {i} " + "x" * 1000}
        for i in range(3)
        for role in ("user", "assistant")
    ]
    messages: Any = [{"role": "system", "content": "Be brief."}, *turns, {"role": "user", "content": "last"}]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="echo", messages=messages)
    answer = client.chat.completions.create(
        model="echo", messages=messages, extra_body={"truncation": "auto"}
    )
    assert answer.choices[0].message.content == "last"
    assert answer.model_dump()["dropped_messages"] == 4
    assert answer.usage is not None
    assert 2000 < answer.usage.prompt_tokens < 3072


def test_chat_truncation_fold_makes_a_note_of_the_oldest_messages(client: openai.OpenAI) -> None:
    turns = [
        {"role": role, "content": f"{role} of O-{i} " + "x" * 1000}
        for i in range(3)
        for role in ("user", "assistant")
    ]
    messages: Any = [{"role": "system", "content": "Be brief."}, *turns, {"role": "user", "content": "last"}]
    answer = client.chat.completions.create(
        model="echo", messages=messages, extra_body={"truncation": "fold", "return_token_ids": True}
    )
    assert answer.choices[0].message.content == "last"
    told = answer.model_dump()
    prompt = echo.load().decode(told["prompt_token_ids"])
    assert len(told["prompt_token_ids"]) <= 4096 - 256
    assert told["folded_messages"] == 6 - prompt.count("x" * 1000)
    assert prompt.startswith("<|bos|><|system|>Be brief.\nSo far:\nRequest: user of O-0 xxx")
    assert "Ids: O-0" in prompt


def test_chat_truncation_never_drops_the_last_question(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": "x" * 5000}],
            extra_body={"truncation": "auto"},
        )
