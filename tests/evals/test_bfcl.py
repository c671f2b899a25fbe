"""BFCL: over all items of the data, calls made of the possible answers are right and mutated ones are wrong."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from melete import settings
from melete.errors import ConfigError, DatasetError
from melete.evals.bfcl import literals, match, tools
from melete.evals.task import Row
from melete.evals.tasks import bfcl
from melete.records import ToolCall

Calls = list[dict[str, Any]]


@pytest.fixture(scope="module")
def task() -> bfcl.Task:
    try:
        return bfcl.Task(bfcl.Config(), settings.load(), 0)
    except DatasetError as error:
        pytest.skip(str(error))


def due(task: bfcl.Task) -> Iterator[tuple[Row, Calls]]:
    """Each question that asks for calls, with the first possible ones."""
    for row in task.rows:
        if row.group in bfcl.CALLS:
            yield row, [bfcl.first_call(answer, row.data["function"]) for answer in row.data["answers"]]


def is_right(row: Row, calls: Calls) -> bool:
    made = [ToolCall(str(i), call["name"], json.dumps(call["arguments"])) for i, call in enumerate(calls)]
    return bfcl.right(row, made)


def with_arguments(calls: Calls, i: int, arguments: dict[str, Any]) -> Calls:
    return [*calls[:i], {**calls[i], "arguments": arguments}, *calls[i + 1 :]]


def other(value: Any) -> Any:
    """A value of the same type that no question asks for."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 98765
    if isinstance(value, str):
        return value + " qqq"
    if isinstance(value, list):
        return [*value, value[0] if value else "qqq"]
    return "qqq" if value is None else {**value, "qqq": 1}


def test_first_possible_answers_of_all_items_are_right_in_any_order(task: bfcl.Task) -> None:
    draw = random.Random(0)
    wrong = []
    for row, calls in due(task):
        shuffled = draw.sample(calls, len(calls))
        if not (is_right(row, calls) and is_right(row, shuffled)):
            wrong.append(row.id)
    assert wrong == []


def test_every_allowed_value_of_all_items_is_right(task: bfcl.Task) -> None:
    wrong = []
    for row, calls in due(task):
        for i, answer in enumerate(row.data["answers"]):
            ((_, allowed),) = answer.items()
            for key, some in allowed.items():
                if key in calls[i]["arguments"]:
                    for value in (value for value in some if value != ""):
                        changed = {**calls[i]["arguments"], key: bfcl._plain_value(value)}
                        wrong += [] if is_right(row, with_arguments(calls, i, changed)) else [(row.id, key)]
    assert wrong == []


def test_arguments_that_may_be_left_out_are_right_without_and_the_others_wrong(task: bfcl.Task) -> None:
    wrong = []
    for row, calls in due(task):
        functions = {match.offered_name(f["name"]): f for f in row.data["function"]}
        for i, answer in enumerate(row.data["answers"]):
            ((_, allowed),) = answer.items()
            required = functions[calls[i]["name"]]["parameters"].get("required", ())
            for key in calls[i]["arguments"]:
                rest = {name: value for name, value in calls[i]["arguments"].items() if name != key}
                optional = "" in allowed[key] and key not in required
                if is_right(row, with_arguments(calls, i, rest)) != optional:
                    wrong.append((row.id, key))
    assert wrong == []


def test_changed_value_of_any_argument_of_all_items_is_wrong(task: bfcl.Task) -> None:
    passed, tried = [], 0
    for row, calls in due(task):
        for i, call in enumerate(calls):
            for key, value in call["arguments"].items():
                changed = with_arguments(calls, i, {**call["arguments"], key: other(value)})
                tried += 1
                both = isinstance(value, bool) and {True, False} <= set(allowed_of(row, i, key))
                if is_right(row, changed) and not both:
                    passed.append((row.id, key, value))
    assert tried > 3000
    assert passed == []


def allowed_of(row: Row, i: int, key: str) -> list[Any]:
    ((_, allowed),) = row.data["answers"][i].items()
    return [value for value in allowed[key] if isinstance(value, bool)]


def test_missing_extra_and_misnamed_calls_of_all_items_are_wrong(task: bfcl.Task) -> None:
    for row, calls in due(task):
        assert not is_right(row, calls[1:]), row.id
        assert not is_right(row, [*calls, calls[0]]), row.id
        assert not is_right(row, [{**calls[0], "name": "other"}, *calls[1:]]), row.id
        assert not is_right(row, with_arguments(calls, 0, {**calls[0]["arguments"], "qqq": 1})), row.id


def test_dotted_name_is_the_same_as_the_offered_one(task: bfcl.Task) -> None:
    row, calls = next((row, calls) for row, calls in due(task) if "." in row.data["function"][0]["name"])
    dotted = row.data["function"][0]["name"]
    assert calls[0]["name"] == dotted.replace(".", "_")
    assert is_right(row, [{**calls[0], "name": dotted}])


def test_offered_tools_are_json_schema_with_names_that_openai_takes(task: bfcl.Task) -> None:
    import re

    import jsonschema

    for row in task.rows[::20]:
        for tool in bfcl.conversation(row).tools:
            jsonschema.Draft202012Validator.check_schema(tool["function"]["parameters"])
            assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool["function"]["name"])


def test_row_without_calls_is_right_only_where_none_fits(task: bfcl.Task) -> None:
    first = {row.group: row for row in reversed(task.rows)}
    call = ToolCall("0", first["live_relevance"].data["function"][0]["name"], "{}")
    assert bfcl.right(first["irrelevance"], [])
    assert not bfcl.right(first["irrelevance"], [call])
    assert bfcl.right(first["live_relevance"], [call])
    assert not bfcl.right(first["live_relevance"], [])
    assert not bfcl.right(first["live_relevance"], [ToolCall("0", "made_up", "{}")])
    assert not bfcl.right(first["simple_python"], [])


def test_categories_without_questions_are_named_as_missing(task: bfcl.Task) -> None:
    items = task.evaluate(Silent(), task.rows[:1])
    head = task.scores(items)[0]
    assert set(task.missing) == set(bfcl.CATEGORIES) - {row.group for row in task.rows}
    assert all(name in head.note for name in task.missing)


class Silent:
    """A model that says nothing."""

    name = "silent"

    def chat(self, conversations: Any, how: Any) -> Any:
        from melete.records import Turn

        return [Turn("assistant") for _ in conversations]

    generate = score = chat


def test_unknown_category_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(
        ConfigError, match=r"'multi_turn_base' is not a single-turn category.*\n.*live_simple"
    ):
        bfcl.Task(bfcl.Config(categories=["multi_turn_base"]), settings.load(), 0)


def write(value: Any, language: str) -> str:
    """A value as a literal of Java or JavaScript."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        inner = ", ".join(write(part, language) for part in value)
        return f"new Object[]{{{inner}}}" if language == "Java" else f"[{inner}]"
    if isinstance(value, dict) and language == "Java":
        return f"Map.of({', '.join(f'{write(k, language)}, {write(v, language)}' for k, v in value.items())})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {write(part, language)}" for key, part in value.items()) + "}"
    return str(value)


def test_literals_of_all_java_and_javascript_answers_are_right_and_changed_ones_wrong(
    task: bfcl.Task,
) -> None:
    tried = 0
    for row, calls in due(task):
        if row.group not in bfcl.LANGUAGES:
            continue
        language = bfcl.LANGUAGES[row.group]
        written = {key: write(value, language) for key, value in calls[0]["arguments"].items()}
        bare = {
            key: value if isinstance(value, str) else written[key]
            for key, value in calls[0]["arguments"].items()
        }
        for arguments in (written, bare):
            assert is_right(row, with_arguments(calls, 0, arguments)), (row.id, arguments)
        for key, value in calls[0]["arguments"].items():
            tried += 1
            changed = {**written, key: write(other(value), language)}
            assert not is_right(row, with_arguments(calls, 0, changed)), (row.id, key)
    assert tried > 300


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("42L", 42), ("-3", -3), ("0.5f", 0.5), ("1e3", 1000.0), ("true", True), ("null", None),
        ('"a, b"', "a, b"), ("'it\\'s'", "it's"), ("myVariable", "myVariable"),
        ("new int[]{1, 2}", [1, 2]), ("new ArrayList<>(Arrays.asList(\"a\", 2))", ["a", 2]),
        ("List.of(101L, 202L)", [101, 202]), ("[[1, 2], [3]]", [[1, 2], [3]]), ("[]", []), ("{}", {}),
        ("{limit: 50, 'of': {a: [1]}}", {"limit": 50, "of": {"a": [1]}}),
        ("new HashMap<String, Object>() {{ put(\"a\", 1); put(\"b\", \"x, y\"); }}", {"a": 1, "b": "x, y"}),
        ("new HashMap<>(Map.of(\"a\", 1))", {"a": 1}), ("new HashMap<>()", {}),
        ("new Path('/backup/data.txt')", "new Path('/backup/data.txt')"),
    ],
)  # fmt: skip
def test_literal_is_read_as_its_value(literal: str, value: Any) -> None:
    assert literals.read(literal) == value


@pytest.mark.parametrize(
    ("value", "allowed", "kind", "fits"),
    [
        (5, 5.0, "float", True), (5.0, 5, "integer", False), (5.0, 5, "float", True), (True, 1, "integer", False),
        ("San-Francisco, CA", "san francisco CA", "string", True), ("it's", 'it"s', "string", True),
        ([1, 2], [2, 1], "array", False), ([1, 2.0], [1.0, 2.0], "array", True), (None, None, "float", True),
        ("1", 1, "integer", False), ({"a": 1}, {"a": [1], "b": ["", 2]}, "dict", True),
        ({"a": 1, "b": 3}, {"a": [1], "b": ["", 2]}, "dict", False), ({}, {"a": [1]}, "dict", False),
    ],
)  # fmt: skip
def test_value_matches_by_the_rules(value: Any, allowed: Any, kind: str, fits: bool) -> None:
    assert match.value_matches(value, allowed, {"type": kind}) is fits


@pytest.mark.parametrize(
    "literal",
    [
        "new " + " " * 3000 + "x", "new " + "a " * 3000, "{" * 3000, "[" * 900 + "]" * 900, '"' * 3001, "9" * 5000,
        "new X" + "[ ]" * 2000, "{a:" * 400 + "}" * 400, "new List(" * 500 + ")" * 500, "\x27\"" * 2000,
        "new HashMap<>()  {{" + "put(1," * 1000, "new List" + " " * 3000, "new HashMap<" + "<" * 3000,
    ],
    ids=range(13),
)  # fmt: skip
def test_odd_text_as_a_literal_is_read_quickly(literal: str) -> None:
    started_s = time.process_time()
    literals.read(literal)
    assert time.process_time() - started_s < 1


def test_calls_that_are_all_alike_are_matched_quickly() -> None:
    function = {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}, "required": []}}
    calls = [ToolCall(str(i), "f", '{"a": 1}') for i in range(40)]
    answers: list[match.Answer] = [*[{"f": {"a": [1]}}] * 39, {"f": {"a": [2]}}]
    assert not match.calls_match(calls, answers, [function])


def test_calls_are_assigned_where_the_first_that_fits_would_lose() -> None:
    function = {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}, "required": []}}
    calls = [ToolCall("0", "f", '{"a": 1}'), ToolCall("1", "f", '{"a": 2}')]
    either, one = {"f": {"a": [1, 2]}}, {"f": {"a": [1]}}
    assert match.calls_match(calls, [either, one], [function])
    assert not match.calls_match(calls, [one, one], [function])


@pytest.mark.parametrize("arguments", ["", "[1]", "{", "null", '{"a": 1e999}'])
def test_call_whose_arguments_are_no_object_or_no_answer_is_wrong(arguments: str) -> None:
    function = {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}, "required": ["a"]}}
    assert not match.calls_match([ToolCall("0", "f", arguments)], [{"f": {"a": [1]}}], [function])


def test_java_function_is_offered_with_literals_as_text() -> None:
    java = {
        "name": "A.b",
        "parameters": {
            "properties": {"ids": {"type": "ArrayList", "items": {"type": "long"}}},
            "required": ["ids"],
        },
    }
    offered = tools.tool(java, "Java")["function"]
    assert offered["name"] == "A_b"
    assert offered["parameters"]["properties"]["ids"]["type"] == "string"
    assert "Java value of type ArrayList of long" in offered["parameters"]["properties"]["ids"]["description"]
