"""Tool calls and response formats: free, forced and streamed; a random model shows that a schema is enforced."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import openai
import pytest

from .conftest import CALCULATOR

ASK: list[Any] = [{"role": "user", "content": "What is 2 + 3?"}]
CALL: list[Any] = [{"role": "user", "content": 'call calculator {"expression": "2 + 3"}'}]
TWO_CALLS: list[Any] = [
    {"role": "user", "content": 'call calculator {"expression": "1"}\ncall other {"a": "}"}'}
]
PERSON = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["kind", "age", "tags"],
    "additionalProperties": False,
}


def test_tool_choice_required_makes_random_model_call_with_valid_arguments(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, tools=[CALCULATOR], tool_choice="required", parallel_tool_calls=False,
        temperature=1.0, seed=1, max_tokens=120,
    )  # fmt: skip
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    call: Any = (choice.message.tool_calls or [])[0]
    assert call.function.name == "calculator"
    jsonschema.validate(json.loads(call.function.arguments), CALCULATOR["function"]["parameters"])  # type: ignore[index]


def test_tool_choice_named_calls_that_function(client: openai.OpenAI) -> None:
    other: Any = {
        "type": "function",
        "function": {"name": "other", "parameters": {"type": "object", "maxProperties": 0}},
    }
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, tools=[CALCULATOR, other], parallel_tool_calls=False, max_tokens=120, seed=2,
        tool_choice={"type": "function", "function": {"name": "other"}},
    )  # fmt: skip
    calls: Any = answer.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["other"]


def test_tool_choice_none_hides_the_tools(client: openai.OpenAI) -> None:
    def prompt_tokens(**fields: Any) -> int:
        made = client.chat.completions.create(model="tiny", messages=ASK, max_tokens=1, **fields)
        assert made.usage is not None
        return made.usage.prompt_tokens

    assert prompt_tokens(tools=[CALCULATOR], tool_choice="none") == prompt_tokens()
    assert prompt_tokens(tools=[CALCULATOR]) > prompt_tokens()


def test_parallel_calls_are_separate_with_their_own_ids(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=TWO_CALLS, tools=[CALCULATOR])
    calls: Any = answer.choices[0].message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("calculator", {"expression": "1"}),
        ("other", {"a": "}"}),
    ]
    assert len({call.id for call in calls}) == 2


def test_streamed_calls_add_up_to_the_whole_ones(client: openai.OpenAI) -> None:
    calls: dict[int, dict[str, str]] = {}
    reasons = []
    for chunk in client.chat.completions.create(
        model="echo", messages=TWO_CALLS, tools=[CALCULATOR], stream=True
    ):
        reasons.append(chunk.choices[0].finish_reason)
        for part in chunk.choices[0].delta.tool_calls or []:
            call = calls.setdefault(part.index, {"id": part.id or "", "name": "", "arguments": ""})
            assert part.function is not None
            call["name"] += part.function.name or ""
            call["arguments"] += part.function.arguments or ""
    assert reasons[-1] == "tool_calls"
    assert [(call["name"], json.loads(call["arguments"])) for call in calls.values()] == [
        ("calculator", {"expression": "1"}),
        ("other", {"a": "}"}),
    ]
    assert all(call["id"].startswith("call_") for call in calls.values())


def test_tool_result_goes_back_to_the_model(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="echo", messages=CALL, tools=[CALCULATOR])
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": (message.tool_calls or [])[0].id, "content": "5"}
    messages: Any = [*CALL, message.model_dump(), result]
    second = client.chat.completions.create(model="echo", messages=messages, tools=[CALCULATOR])
    assert second.choices[0].message.content == "The tool answered: 5"


@pytest.mark.parametrize("seed", range(3))
def test_json_schema_holds_for_random_model(client: openai.OpenAI, seed: int) -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, response_format=shape, temperature=1.0, seed=seed, max_tokens=120
    )
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), PERSON)


def test_json_schema_with_definitions_is_followed(client: openai.OpenAI) -> None:
    schema = {"$defs": {"yes": {"const": "yes"}}, "type": "object", "properties": {"a": {"$ref": "#/$defs/yes"}},
              "required": ["a"], "additionalProperties": False}  # fmt: skip
    shape: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = client.chat.completions.create(model="tiny", messages=ASK, response_format=shape, max_tokens=60)
    assert answer.choices[0].message.content == '{"a":"yes"}'


def test_json_object_begins_as_an_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, response_format={"type": "json_object"}, max_tokens=20, seed=1
    )
    assert (answer.choices[0].message.content or "").startswith("{")


def test_schema_that_cannot_be_enforced_is_refused_with_its_field(client: openai.OpenAI) -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}
    with pytest.raises(openai.BadRequestError, match="objekt") as caught:
        client.chat.completions.create(model="tiny", messages=ASK, response_format=shape)
    assert caught.value.param == "response_format"


def test_choices_under_a_constraint_do_not_share_it(client: openai.OpenAI) -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, response_format=shape, n=3, temperature=1.0, seed=9, max_tokens=120
    )
    assert len(answer.choices) == 3
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content or ""), PERSON)


def test_strict_tool_called_freely_gets_arguments_of_its_schema(client: openai.OpenAI) -> None:
    strict: Any = {"type": "function", "function": {**CALCULATOR["function"], "strict": True}}  # type: ignore[dict-item]
    wrong: Any = [{"role": "user", "content": 'call calculator {"nonsense": [1, 2]}'}]
    answer = client.chat.completions.create(model="echo", messages=wrong, tools=[strict])
    call: Any = (answer.choices[0].message.tool_calls or [])[0]
    jsonschema.validate(json.loads(call.function.arguments), CALCULATOR["function"]["parameters"])  # type: ignore[index]
    words = client.chat.completions.create(model="echo", messages=ASK, tools=[strict])
    assert words.choices[0].message.content == ASK[0]["content"]


@pytest.mark.parametrize(
    ("arguments", "same"), [('{"expression": "2 + 3"}', True), ('{ "expression":"2 + 3" }', False)]
)
def test_call_that_a_client_put_through_json_is_read_as_the_model_wrote_it(
    client: openai.OpenAI, arguments: str, same: bool
) -> None:
    def prompt(written: str) -> Any:
        call = {"id": "c", "type": "function", "function": {"name": "calculator", "arguments": written}}
        history: list[Any] = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "5"},
        ]
        answer: Any = client.chat.completions.create(
            model="tiny", messages=ASK + history, max_tokens=1, extra_body={"return_token_ids": True}
        )
        return answer.prompt_token_ids

    assert (prompt(arguments) == prompt('{"expression":"2 + 3"}')) is same
