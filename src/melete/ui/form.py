"""A form from a JSON schema: every option as a field, with its value, default, bounds, help and what is wrong with it.

    fields = make(schema, defaults, values, ("processes", 0, "config"), problems=draft["problems"])

Nothing here knows a process: kinds come from the schema (text, number, switch, choice, list, nested object, union by a
discriminator); what has no shape of its own is written as JSON. What a visitor types is read by `read`, which never
judges it: a value that does not fit is passed on as it stands, and the API says what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Part = str | int
SHOWN = 8
"""Options of a process that stand open; the others are folded."""
LATER = ("seed", "device")
"""Options that every process has; they come after its own."""
CHOICES = re.compile(r"\^\(?([\w.-]+(?:\|[\w.-]+)+)\)?\$")
UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "minutes": "minutes",
    "usd": "USD",
    "bytes": "bytes",
    "tokens": "tokens",
}
REMOVE: Final = object()
"""What `read` says where a field was emptied: the default holds again."""


@dataclass
class Field:
    """One field of a form.

    Args:
        place: keys and indices from the top of the job file.
        widget: `line`, `lines`, `switch`, `choice`, `group` or `union`.
        reads: how what is typed is read: `text`, `integer`, `number`, `boolean`, `scalar`, `json`, or `list of …`.
        raw: the value as it is typed.
        default: the default as it would be typed.
    """

    place: tuple[Part, ...]
    key: str
    widget: str
    reads: str = "text"
    raw: str = ""
    default: str = ""
    help: str = ""
    unit: str = ""
    bounds: str = ""
    nullable: bool = False
    required: bool = False
    given: bool = False
    folded: bool = False
    choices: list[tuple[str, str]] = field(default_factory=list)
    offers: str = ""
    fields: list[Field] = field(default_factory=list)
    problem: str = ""

    @property
    def changed(self) -> bool:
        """Whether it differs from its default."""
        if self.fields:
            return any(one.changed for one in self.fields) or (
                self.widget == "union" and self.raw != self.default
            )
        return self.given and not self.required and self.raw != self.default

    @property
    def id(self) -> str:
        """Of its element in the page."""
        return "f-" + "-".join(re.sub(r"[^A-Za-z0-9_]", "_", str(part)) for part in self.place)


def make(
    schema: Mapping[str, Any],
    defaults: Mapping[str, Any],
    values: Mapping[str, Any],
    place: tuple[Part, ...],
    *,
    problems: Sequence[Mapping[str, Any]] = (),
    inputs: Mapping[str, str] | None = None,
    defs: Mapping[str, Any] | None = None,
) -> list[Field]:
    """The fields of an object, its own options first.

    Args:
        schema: of the object, with `properties`.
        defaults: value of each option that has one.
        values: what is given.
        place: of the object.
        problems: each with `place` and `message`.
        inputs: options that name an input, and what: `checkpoint`, `model` or `dataset`.
        defs: where `$ref` leads; the schema's own `$defs` by default.
    """
    defs = schema.get("$defs", {}) if defs is None else defs
    properties: Mapping[str, Any] = schema.get("properties", {})
    keys = [*(key for key in properties if key not in LATER), *(key for key in properties if key in LATER)]
    made = []
    for number, key in enumerate(keys):
        one = _field(properties[key], defaults, values, (*place, key), defs, problems)
        one.required = key in schema.get("required", ())
        one.offers = (inputs or {}).get(key, "")
        plain = properties[key].get("advanced")
        one.folded = not one.required and (
            (number >= SHOWN or key in LATER) if plain is None else bool(plain)
        )
        made.append(one)
    if sum(one.folded for one in made) <= 2 and not any("advanced" in one for one in properties.values()):
        for one in made:
            one.folded = False
    return made


def read(raw: str, reads: str, nullable: bool = False) -> Any:
    """What was typed, as a value; what does not read that way stays a text.

    Args:
        raw: what was typed.
        reads: see `Field`.
        nullable: whether nothing is null.

    Returns:
        `REMOVE` for an emptied field that is not a text.
    """
    if reads == "text":
        return None if nullable and not raw else raw
    if reads.startswith("list of "):
        lines = [line.strip() for line in raw.splitlines() if line.strip()]
        items = [read(line, reads.removeprefix("list of ")) for line in lines]
        return None if nullable and not items else items
    typed = raw.strip()
    if not typed:
        return REMOVE
    if reads == "boolean":
        return {"true": True, "false": False}.get(typed, raw)
    try:
        if reads == "integer":
            return int(typed.replace(",", ""))
        if reads == "number":
            value = float(typed)
            return int(value) if value.is_integer() and abs(value) < 1e15 and "." not in typed else value
        return json.loads(typed)
    except ValueError:
        return raw


def said(value: Any, reads: str) -> str:
    """A value as it would be typed."""
    if reads.startswith("list of ") and isinstance(value, list):
        return "\n".join(said(item, reads.removeprefix("list of ")) for item in value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if reads == "json" else value
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, indent=1 if len(str(value)) > 60 else None)
    return str(value)


def _field(
    schema: Mapping[str, Any],
    defaults: Mapping[str, Any],
    values: Mapping[str, Any],
    place: tuple[Part, ...],
    defs: Mapping[str, Any],
    problems: Sequence[Mapping[str, Any]],
) -> Field:
    key = str(place[-1])
    nullable, inner = _resolved(schema, defs)
    default = defaults.get(key, inner.get("default"))
    value = values.get(key, default)
    made = Field(
        place, key, "line", nullable=nullable, given=key in values,
        help=str(schema.get("description") or inner.get("description") or ""),
        unit=_unit(key, inner), bounds=_bounds(inner),
    )  # fmt: skip
    below: dict[str, Any] = {"defs": defs, "problems": problems}
    if "discriminator" in inner:
        _union(made, inner, default, value, below)
    elif "properties" in inner:
        made.widget = "group"
        made.fields = make(inner, _object(default), _object(value), place, **below)
    else:
        made.widget, made.reads, made.choices = _scalar(inner)
        if made.widget == "switch" and (nullable or (value is not None and not isinstance(value, bool))):
            made.widget, made.choices = "choice", [("true", "true"), ("false", "false")]
        made.raw, made.default = said(value, made.reads), said(default, made.reads)
        if made.widget == "choice":
            known = [typed for typed, _ in made.choices]
            more = [made.raw] if made.raw not in known else []
            more += [""] if nullable and "" not in known and made.raw else []
            made.choices = [*((typed, typed or "(none)") for typed in more), *made.choices]
    leaf = not made.fields
    made.problem = " ".join(
        str(one["message"])
        for one in problems
        if tuple(one["place"]) == place or (leaf and tuple(one["place"][: len(place)]) == place)
    )
    return made


def _union(made: Field, schema: Mapping[str, Any], default: Any, value: Any, below: dict[str, Any]) -> None:
    """A choice of a variant, and the fields of the chosen one."""
    tag = schema["discriminator"]["propertyName"]
    order = [one.get("$ref") for one in schema.get("oneOf", ())]
    mapping: dict[str, str] = schema["discriminator"].get("mapping", {})
    variants = dict(sorted(mapping.items(), key=lambda pair: order.index(pair[1]) if pair[1] in order else 0))
    given = _object(value)
    chosen = str(given.get(tag, next(iter(variants), "")))
    made.widget, made.reads = "union", "json"
    made.choices = [(json.dumps({tag: name}), name) for name in variants]
    made.raw = json.dumps({tag: chosen})
    made.default = json.dumps({tag: str(_object(default).get(tag, ""))})
    if chosen in variants:
        _, variant = _resolved({"$ref": variants[chosen]}, below["defs"])
        own = {key: one for key, one in variant.get("properties", {}).items() if key != tag}
        same = _object(default) if _object(default).get(tag) == chosen else {}
        at = len(made.place)
        within = [  # a problem's place names the variant too
            {
                **one,
                "place": [*one["place"][:at], *one["place"][at + (one["place"][at : at + 1] == [chosen]) :]],
            }
            for one in below["problems"]
        ]
        made.fields = make(
            {**variant, "properties": own}, same, given, made.place, **{**below, "problems": within}
        )


def _resolved(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> tuple[bool, Mapping[str, Any]]:
    """Whether null is allowed, and the schema behind references, `allOf` of one and `anyOf` with null."""
    nullable = False
    while True:
        if "$ref" in schema:
            schema = {**defs.get(str(schema["$ref"]).rpartition("/")[2], {}), **_without(schema, "$ref")}
        elif len(schema.get("allOf", ())) == 1:
            schema = {**schema["allOf"][0], **_without(schema, "allOf")}
        elif "anyOf" in schema:
            kinds = [one for one in schema["anyOf"] if one.get("type") != "null"]
            nullable = nullable or len(kinds) < len(schema["anyOf"])
            if len(kinds) != 1:
                return nullable, {
                    **_without(schema, "anyOf"),
                    "any": [_resolved(one, defs)[1] for one in kinds],
                }
            schema = {**kinds[0], **_without(schema, "anyOf")}
        else:
            return nullable, schema


def _scalar(schema: Mapping[str, Any]) -> tuple[str, str, list[tuple[str, str]]]:
    """Widget, how it is read, and its choices."""
    words = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if words:
        reads = "text" if all(isinstance(word, str) for word in words) else "scalar"
        return "choice", reads, [(said(word, reads), said(word, reads)) for word in words]
    kind = schema.get("type")
    if kind == "string" and (found := CHOICES.fullmatch(schema.get("pattern", ""))):
        return "choice", "text", [(word, word) for word in found[1].split("|")]
    if kind == "string":
        return "line", "text", []
    if kind in ("integer", "number"):
        return "line", str(kind), []
    if kind == "boolean":
        return "switch", "boolean", []
    if kind == "array":
        items = schema.get("items", {})
        plain = items.get("type") in ("string", "integer", "number") and "enum" not in items
        reads = {"string": "text"}.get(items.get("type", ""), items.get("type", "")) if plain else ""
        return ("lines", f"list of {reads}", []) if plain else ("lines", "json", [])
    if "any" in schema and all(one.get("type") in ("string", "integer", "number") for one in schema["any"]):
        return "line", "scalar", []
    return "lines", "json", []


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    over, under = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    words = []
    if low is not None and high is not None:
        return f"{said(low, '')} to {said(high, '')}"
    words += [f"from {said(low, '')}"] if low is not None else []
    words += [f"over {said(over, '')}"] if over is not None else []
    words += [f"up to {said(high, '')}"] if high is not None else []
    words += [f"below {said(under, '')}"] if under is not None and abs(under) < 2**31 else []
    return ", ".join(words)


def _unit(key: str, schema: Mapping[str, Any]) -> str:
    if schema.get("type") not in ("integer", "number"):
        return ""
    return UNITS.get(key.rpartition("_")[2] if key not in UNITS else key, "")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _without(schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != key}
