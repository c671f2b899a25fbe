"""The leaderboard's functions as JSON schema, the way every OpenAI-compatible API takes them.

Python's types become JSON's (`dict` is `object`, `float` is `number`, `tuple` is `array`, `any` is anything). An
argument of a Java or JavaScript function becomes a string that holds a literal of that language, and its description
says of which type, because its value may be the name of a variable that no JSON type has room for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melete.evals.bfcl.match import offered_name

JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array"}
KEPT = ("description", "enum", "default", "format", "maximum", "minItems", "maxItems")


def tool(function: Mapping[str, Any], language: str = "") -> dict[str, Any]:
    """A function in OpenAI's form; `language` is `Java` or `JavaScript` where its values are literals."""
    parameters = function["parameters"]
    convert = _literal if language else _schema
    properties = {key: convert(part, language) for key, part in parameters.get("properties", {}).items()}
    return {
        "type": "function",
        "function": {
            "name": offered_name(function["name"]),
            "description": function.get("description", ""),
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": [key for key in parameters.get("required", ()) if key in properties],
            },
        },
    }


def _schema(part: Mapping[str, Any], language: str = "") -> dict[str, Any]:
    kind = part.get("type")
    schema: dict[str, Any] = {} if kind in ("any", "", None) else {"type": JSON_TYPES.get(kind, kind)}
    schema |= {key: part[key] for key in KEPT if key in part}
    if isinstance(part.get("properties"), dict):
        schema["properties"] = {key: _schema(inner) for key, inner in part["properties"].items()}
    if isinstance(part.get("required"), list) and "properties" in schema:
        schema["required"] = [key for key in part["required"] if key in schema["properties"]]
    if isinstance(part.get("items"), dict):
        schema["items"] = _schema(part["items"])
    return schema


def _literal(part: Mapping[str, Any], language: str) -> dict[str, Any]:
    kind = part.get("type") or "any"
    of = part["items"].get("type") if isinstance(part.get("items"), dict) else None
    described = f"{kind} of {of}" if of else kind
    if kind == "any":
        note = f"Any {language} expression, written as text."
    else:
        note = f"A {language} value of type {described}, written as text."
    return {"type": "string", "description": f"{part.get('description', '')} {note}".strip()}
