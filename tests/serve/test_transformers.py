"""A transformers folder behind the API: chat, schema and forced calls with a tiny random Qwen3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from llm.tiny import transformers_folder
from melete.serve import models
from melete.serve.server import Server
from melete.settings import Settings

PICK: Any = {
    "type": "function",
    "function": {
        "name": "pick",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": ["x", "y"]}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}
ASK: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client on a server with the model `qwen`."""
    folder = transformers_folder(tmp_path_factory.mktemp("hf") / "qwen")
    settings = Settings.of(tmp_path_factory.mktemp("home"))
    served = models.load_all([f"qwen={folder}"], settings, device="cpu", slots=4)
    with (
        Server(served, settings) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="x") as client,
    ):
        yield client


def test_transformers_model_answers_and_streams_the_same(qwen: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "qwen", "messages": ASK, "max_tokens": 10, "seed": 1}
    whole = qwen.chat.completions.create(**fields).choices[0].message.content
    chunks = list(qwen.chat.completions.create(**fields, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


def test_transformers_model_follows_a_schema(qwen: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["yes", "no"]}}, "required": ["a"],
              "additionalProperties": False}  # fmt: skip
    shape: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = qwen.chat.completions.create(
        model="qwen", messages=ASK, response_format=shape, max_tokens=40, temperature=1.0, seed=4
    )
    assert json.loads(answer.choices[0].message.content or "")["a"] in ("yes", "no")


@pytest.mark.parametrize("stream", [False, True])
def test_transformers_model_is_forced_to_call(qwen: openai.OpenAI, stream: bool) -> None:
    fields: dict[str, Any] = {"model": "qwen", "messages": ASK, "tools": [PICK], "tool_choice": "required",
                              "parallel_tool_calls": False, "max_tokens": 42, "seed": 2}  # fmt: skip
    if stream:
        parts = [
            part.function
            for chunk in qwen.chat.completions.create(**fields, stream=True)
            for part in chunk.choices[0].delta.tool_calls or []
        ]
        name, arguments = parts[0].name, "".join(part.arguments or "" for part in parts)
    else:
        call: Any = (qwen.chat.completions.create(**fields).choices[0].message.tool_calls or [])[0]
        name, arguments = call.function.name, call.function.arguments
    assert name == "pick"
    assert set(json.loads(arguments)) == {"a"}


def test_transformers_token_probabilities_have_text_and_bytes(qwen: openai.OpenAI) -> None:
    answer = qwen.chat.completions.create(
        model="qwen", messages=ASK, max_tokens=3, logprobs=True, top_logprobs=2, temperature=0
    )
    assert answer.choices[0].logprobs is not None
    for token in answer.choices[0].logprobs.content or []:
        assert token.bytes is not None
        assert bytes(token.bytes).decode("utf-8", "replace") == token.token
