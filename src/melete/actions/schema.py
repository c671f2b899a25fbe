"""A JSON schema compiled to a function that says what is wrong with a value, in sentences that a model can act on.

The keywords that tools use (type, enum, const, limits, pattern, items, properties, required, additionalProperties,
anyOf) are compiled to closures, which takes microseconds a call where a general validator takes a hundred; a schema
with any other keyword is checked by the library `jsonschema` instead. `format` is an annotation and is not checked.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from melete.actions.action import compact_json
from melete.errors import MissingExtraError, ScenarioError

Check = Callable[[Any, str, list[str]], None]
"""Called with a value, its path (empty at the top) and a list to which it appends what is wrong."""
Test = Callable[[Any], bool]

ANNOTATIONS = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
    "$schema", "$id", "$comment", "format",
}  # fmt: skip
COMPILED = {
    "type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "pattern", "items", "minItems", "maxItems", "properties", "required",
    "additionalProperties", "anyOf",
}  # fmt: skip
WORDS = {
    "string": "a string", "integer": "an integer", "number": "a number", "boolean": "true or false",
    "null": "null", "array": "an array", "object": "an object",
}  # fmt: skip


def check_schema(schema: Any, what: str) -> None:
    """Checks a hand-written schema of arguments.

    Raises:
        ScenarioError: it is no JSON schema, or not one of an object; the message says what is wrong and where.
        MissingExtraError: the library `jsonschema` is not installed.
    """
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        found = schema.get("type") if isinstance(schema, Mapping) else type(schema).__name__
        raise ScenarioError(
            f"{what}: the parameters are no schema of an object; found type {found!r}.",
            allowed='Allowed: {"type": "object", "properties": {…}}.',
        )
    library = _library()
    try:
        library.Draft202012Validator.check_schema(schema)
    except library.SchemaError as error:
        place = ".".join(str(part) for part in error.absolute_path) or "the top"
        raise ScenarioError(
            f"{what}: the parameters are no JSON schema; at {place}: {error.message[:300]}.",
            allowed="Allowed: JSON schema, draft 2020-12.",
        ) from error


def compile_schema(schema: Mapping[str, Any], *, closed: bool = False) -> Callable[[Any], list[str]]:
    """A function that lists what is wrong with a value; an empty list is a valid value.

    Args:
        schema: JSON schema, draft 2020-12.
        closed: whether an object at the top that says nothing of `additionalProperties` has none.
    """
    if closed and "additionalProperties" not in schema:
        schema = {**schema, "additionalProperties": False}
    if not _compilable(schema):
        return _by_library(schema)
    check = _compile(schema)

    def problems(value: Any) -> list[str]:
        found: list[str] = []
        check(value, "", found)
        return found

    return problems


def describe(schema: Mapping[str, Any]) -> str:
    """What a schema allows, in words, such as `an integer from 1 to 5`."""
    if "const" in schema:
        return compact_json(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(compact_json(option) for option in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(describe(option) for option in schema["anyOf"])
    types = _types(schema)
    words = " or ".join(WORDS[name] for name in types) if types else "any value"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        words += f" from {low} to {high}"
    else:
        words += (
            f" of at least {low}" if low is not None else f" of at most {high}" if high is not None else ""
        )
    for key, text in (
        ("exclusiveMinimum", "above"),
        ("exclusiveMaximum", "below"),
        ("multipleOf", "that is a multiple of"),
    ):
        words += f" {text} {schema[key]}" if key in schema else ""
    for key, text in (
        ("minLength", "at least {} characters"),
        ("maxLength", "at most {} characters"),
        ("minItems", "at least {} items"),
        ("maxItems", "at most {} items"),
        ("pattern", "matching {}"),
    ):
        words += f", {text.format(schema[key])}" if key in schema else ""
    if isinstance(schema.get("items"), Mapping) and "array" in types:
        words += f" ({describe(schema['items'])} each)"
    return words


def shown(value: Any) -> str:
    """A value and its JSON type, cut to one short line."""
    try:
        text = compact_json(value)
    except (TypeError, ValueError):
        text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return f"{text}, {WORDS[_type_of(value)]}"
    return text


def _library() -> Any:
    try:
        import jsonschema  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise MissingExtraError("jsonschema", "agents") from error
    return jsonschema


def _compilable(schema: Any) -> bool:
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, Mapping) or not set(schema) <= COMPILED | ANNOTATIONS:
        return False
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    inner += [schema[key] for key in ("items", "additionalProperties") if key in schema]
    return all(_compilable(one) for one in inner)


def _compile(schema: Mapping[str, Any] | bool) -> Check:
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    allowed = f"; allowed: {describe(schema)}."
    tests = _tests(schema)
    inner = [make(schema) for make, keys in _INNER if any(key in schema for key in keys)]

    def check(value: Any, path: str, found: list[str]) -> None:
        for test in tests:
            if not test(value):
                found.append(f"{path or 'the arguments'}: found {shown(value)}{allowed}")
                return
        for one in inner:
            one(value, path, found)

    return check


def _tests(schema: Mapping[str, Any]) -> tuple[Test, ...]:
    """Tests of a value as a whole; one message says all that is allowed."""
    tests: list[Test] = []
    types = _types(schema)
    if types:
        tests.append(_IS[types[0]] if len(types) == 1 else _any_of(tuple(_IS[name] for name in types)))
    if "enum" in schema or "const" in schema:
        tests.append(_one_of(schema["enum"] if "enum" in schema else [schema["const"]]))
        if "enum" in schema and "const" in schema:
            tests.append(_one_of([schema["const"]]))
    for key, make in _LIMITS.items():
        if key in schema:
            tests.append(make(schema[key]))
    return tuple(tests)


def _one_of(options: list[Any]) -> Test:
    if all(isinstance(option, str) for option in options):
        texts = frozenset(options)
        return lambda value: isinstance(value, str) and value in texts
    return lambda value: any(_same(value, option) for option in options)


def _any_of(tests: tuple[Test, ...]) -> Test:
    return lambda value: any(test(value) for test in tests)


def _object(schema: Mapping[str, Any]) -> Check:
    properties = {name: _compile(one) for name, one in schema.get("properties", {}).items()}
    required = tuple(schema.get("required", ()))
    needed = {name: describe(schema.get("properties", {}).get(name, {})) for name in required}
    rest = schema.get("additionalProperties", True)
    others = None if rest is True else _compile(rest)

    def check(value: Any, path: str, found: list[str]) -> None:
        if not isinstance(value, dict):
            return
        for name in required:
            if name not in value:
                found.append(f"{_join(path, name)} is missing; needed: {needed[name]}.")
        for name, item in value.items():
            one = properties.get(name)
            if one is not None:
                one(item, f"{path}.{name}" if path else name, found)
            elif rest is False:
                found.append(_unknown(path, str(name), list(properties)))
            elif others is not None:
                others(item, _join(path, name), found)

    return check


def _array(schema: Mapping[str, Any]) -> Check:
    one = _compile(schema["items"])

    def check(value: Any, path: str, found: list[str]) -> None:
        if isinstance(value, list):
            for i, item in enumerate(value):
                one(item, f"{path}[{i}]", found)

    return check


def _alternatives(schema: Mapping[str, Any]) -> Check:
    options = [_compile(one) for one in schema["anyOf"]]
    telling = [o for o, one in zip(options, schema["anyOf"], strict=True) if one != {"type": "null"}]
    allowed = describe({"anyOf": schema["anyOf"]})

    def check(value: Any, path: str, found: list[str]) -> None:
        for option in options:
            problems: list[str] = []
            option(value, path, problems)
            if not problems:
                return
        if len(telling) == 1 and isinstance(value, (dict, list)):
            telling[0](value, path, found)
        else:
            found.append(f"{path or 'the arguments'}: found {shown(value)}; allowed: {allowed}.")

    return check


_INNER: tuple[tuple[Callable[[Mapping[str, Any]], Check], tuple[str, ...]], ...] = (
    (_object, ("properties", "required", "additionalProperties")),
    (_array, ("items",)),
    (_alternatives, ("anyOf",)),
)


def _by_library(schema: Mapping[str, Any]) -> Callable[[Any], list[str]]:
    validator = _library().Draft202012Validator(schema)

    def problems(value: Any) -> list[str]:
        return [f"{_place(e.absolute_path)}: {e.message[:300]}." for e in validator.iter_errors(value)]

    return problems


def _place(path: Iterable[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the arguments"


def _unknown(path: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{_join(path, name)} is no argument of this tool; allowed: {', '.join(known) or 'no arguments'}.{hint}"


def _join(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    types = schema.get("type", ())
    return (types,) if isinstance(types, str) else tuple(types)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _integer(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )


_IS: dict[str, Test] = {
    "string": lambda value: isinstance(value, str),
    "integer": _integer,
    "number": _number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _type_of(value: Any) -> str:
    return next(name for name, test in _IS.items() if test(value))


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0, and true equals neither."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def _multiple(limit: float) -> Test:
    if isinstance(limit, int):
        return lambda value: not _number(value) or value % limit == 0
    return lambda value: not _number(value) or float(value / limit).is_integer()


def _matches(pattern: str) -> Test:
    search = re.compile(pattern).search
    return lambda value: not isinstance(value, str) or search(value) is not None


_LIMITS: dict[str, Callable[[Any], Test]] = {
    "minimum": lambda limit: lambda value: not _number(value) or value >= limit,
    "maximum": lambda limit: lambda value: not _number(value) or value <= limit,
    "exclusiveMinimum": lambda limit: lambda value: not _number(value) or value > limit,
    "exclusiveMaximum": lambda limit: lambda value: not _number(value) or value < limit,
    "multipleOf": _multiple,
    "minLength": lambda limit: lambda value: not isinstance(value, str) or len(value) >= limit,
    "maxLength": lambda limit: lambda value: not isinstance(value, str) or len(value) <= limit,
    "pattern": _matches,
    "minItems": lambda limit: lambda value: not isinstance(value, list) or len(value) >= limit,
    "maxItems": lambda limit: lambda value: not isinstance(value, list) or len(value) <= limit,
}
