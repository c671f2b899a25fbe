"""The JSON schema of a function's arguments, from its type hints and its Google-style docstring.

Types are those that JSON has, because arguments reach the function just as the model wrote them and are not converted:
str, int, float, bool, None, list, dict, Literal, Optional and other unions, TypedDict, and each of them in
`Annotated[int, Field(ge=1)]`. Anything else is a `ScenarioError` at definition.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from typing_extensions import is_typeddict

from melete.errors import ScenarioError

INJECTED = "idempotency_key"
"""A parameter of this name is filled in by the caller of the tool and never shown to the model."""
_SECTION = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Examples?|Notes?|Attributes):\s*$")
_ARGUMENT = re.compile(r"^\s*\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def schema_of(function: Callable[..., Any]) -> tuple[str, dict[str, Any]]:
    """Description and argument schema of a function or method (`self` is left out).

    Raises:
        ScenarioError: no docstring, a parameter without a type or with one that JSON lacks, `*args` or `**kwargs`, or
            a docstring that describes a parameter which does not exist.
    """
    name = getattr(function, "__name__", repr(function))
    description, documented = read_docstring(inspect.getdoc(function) or "")
    if not description:
        raise ScenarioError(
            f"The tool {name} has no docstring.",
            next_step="Write what it does in its first lines, and each argument under 'Args:'.",
        )
    hints = _hints(function, name)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in ("self", INJECTED):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ScenarioError(f"The tool {name} takes {parameter}; allowed: parameters with a name.")
        if parameter.name not in hints:
            raise ScenarioError(f"The parameter {parameter.name} of the tool {name} has no type.")
        _check_type(hints[parameter.name], f"The parameter {parameter.name} of the tool {name}")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    unknown = sorted(set(documented) - set(fields) - {INJECTED})
    if unknown:
        raise ScenarioError(
            f"The docstring of the tool {name} describes {unknown[0]}, which is no parameter of it."
        )
    return description, _schema(name, fields, documented)


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """Types of the parameters; that of the result may be one that exists for the type checker alone."""
    holder = types.SimpleNamespace(__annotations__={**function.__annotations__})
    holder.__annotations__.pop("return", None)
    try:
        return typing.get_type_hints(holder, function.__globals__, include_extras=True)
    except NameError as error:
        raise ScenarioError(
            f"The tool {name} has a type that is not known where it is defined: {error}."
        ) from error


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The text before the first section, and the text of each argument under `Args:`."""
    summary: list[str] = []
    arguments: dict[str, list[str]] = {}
    section, current, indent = "", "", 0
    for line in text.splitlines():
        heading = _SECTION.match(line)
        if heading:
            section, current, indent = heading[1], "", 0
        elif not section:
            summary.append(line.strip())
        elif section in ("Args", "Arguments") and line.strip():
            depth = len(line) - len(line.lstrip())
            indent = indent or depth
            found = _ARGUMENT.match(line) if depth == indent else None
            if found:
                current = found[1]
                arguments[current] = [found[2].strip()]
            elif current:
                arguments[current].append(line.strip())
    described = {name: " ".join(part for part in parts if part) for name, parts in arguments.items()}
    return " ".join(part for part in summary if part), described


def _schema(name: str, fields: dict[str, Any], documented: Mapping[str, str]) -> dict[str, Any]:
    from pydantic import PydanticUserError, TypeAdapter

    properties: dict[str, Any] = {}
    for key, (hint, default) in fields.items():
        try:
            made = TypeAdapter(hint).json_schema()
        except (PydanticUserError, NameError, ValueError) as error:
            raise ScenarioError(
                f"The argument {key} of the tool {name} has no JSON schema: {error}"
            ) from error
        one = _plain(made, made.pop("$defs", {}), name)
        if documented.get(key):
            one["description"] = documented[key]
        if default is not ... and default is not None:
            one["default"] = default
        properties[key] = one
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    required = [key for key, (_, default) in fields.items() if default is ...]
    return {**schema, "required": required} if required else schema


def _plain(value: Any, definitions: Mapping[str, Any], tool: str, inside: tuple[str, ...] = ()) -> Any:
    """The schema with references resolved and without titles, which only repeat the names."""
    if isinstance(value, list):
        return [_plain(item, definitions, tool, inside) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        name = str(value["$ref"]).rpartition("/")[2]
        if name in inside:
            raise ScenarioError(
                f"The type {name} in the tool {tool} contains itself; allowed: types of fixed depth."
            )
        return _plain(
            {**definitions[name], **{k: v for k, v in value.items() if k != "$ref"}},
            definitions,
            tool,
            (*inside, name),
        )
    kept = {}
    for key, item in value.items():
        if key == "properties":
            kept[key] = {name: _plain(one, definitions, tool, inside) for name, one in item.items()}
        elif key == "default" and item is None:
            continue
        elif key in ("default", "enum", "const", "examples"):
            kept[key] = item
        elif key != "title":
            kept[key] = _plain(item, definitions, tool, inside)
    return kept


def _check_type(hint: Any, what: str) -> None:
    origin = get_origin(hint)
    if hint in (str, int, float, bool, type(None), Any, list, dict) or origin is Literal:
        return
    if is_typeddict(hint):
        for inner in typing.get_type_hints(hint, include_extras=True).values():
            _check_type(inner, what)
        return
    if origin in (typing.Required, typing.NotRequired, Annotated):
        _check_type(get_args(hint)[0], what)
        return
    if origin in (Union, types.UnionType, list, dict):
        for inner in get_args(hint):
            _check_type(inner, what)
        return
    raise ScenarioError(
        f"{what} has the type {getattr(hint, '__name__', hint)}, which JSON does not have.",
        allowed="Allowed: str, int, float, bool, None, list, dict, Literal, unions and TypedDict.",
    )
