"""Forms from JSON schemas: every kind of option becomes a field, and what is typed is read back as it was meant."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from melete.ui import form


class Lora(BaseModel):
    """A small change of weights."""

    method: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, le=64, description="Of the matrices.")


class Full(BaseModel):
    """All weights."""

    method: Literal["full"] = "full"
    layers: int | None = Field(None, description="The last ones; none is all.")


class Pause(BaseModel):
    """When to stop."""

    after_s: float = Field(0.5, gt=0, description="Time.")
    kind: Literal["soft", "hard"] = "soft"


class Odd(BaseModel):
    """One option of each kind that a schema may have."""

    steps: int = Field(description="Needed.")
    how: Annotated[Lora | Full, Field(discriminator="method")] = Lora()
    pause: Pause = Pause()
    dtype: str = Field("auto", pattern="^(auto|bf16|fp32)$")
    sizes: list[int] = [1, 2]
    words: list[str] = []
    table: dict[str, float] = {"a": 0.5}
    shapes: list[Pause] = []
    maybe: bool | None = None
    mixed: int | str = "auto"
    limit: int | None = Field(None, ge=1)
    on: bool = True


SCHEMA = Odd.model_json_schema()
DEFAULTS = Odd(steps=1).model_dump(mode="json", exclude={"steps"})


def fields(values: dict[str, Any], problems: list[dict[str, Any]] | None = None) -> dict[str, form.Field]:
    """The fields of the odd object, by key."""
    made = form.make(SCHEMA, DEFAULTS, values, ("config",), problems=problems or [])
    return {one.key: one for one in made}


def test_every_option_is_a_field_of_its_kind() -> None:
    kinds = {key: (one.widget, one.reads) for key, one in fields({}).items()}
    assert kinds == {
        "steps": ("line", "integer"), "how": ("union", "json"), "pause": ("group", "text"), "dtype": ("choice", "text"),
        "sizes": ("lines", "list of integer"), "words": ("lines", "list of text"), "table": ("lines", "json"),
        "shapes": ("lines", "json"), "maybe": ("choice", "boolean"), "mixed": ("line", "scalar"),
        "limit": ("line", "integer"), "on": ("switch", "boolean"),
    }  # fmt: skip


def test_union_shows_the_fields_of_the_variant_that_is_chosen() -> None:
    how = fields({})["how"]
    assert [word for _, word in how.choices] == ["lora", "full"]
    assert [(one.key, one.bounds, one.place) for one in how.fields] == [
        ("rank", "1 to 64", ("config", "how", "rank"))
    ]
    other = fields({"how": {"method": "full", "layers": 3}})["how"]
    assert [(one.key, one.raw, one.nullable) for one in other.fields] == [("layers", "3", True)]
    assert form.read(how.choices[1][0], how.reads) == {"method": "full"}


def test_group_holds_its_fields_with_bounds_units_and_defaults() -> None:
    after, kind = fields({"pause": {"after_s": 2}})["pause"].fields
    assert (after.raw, after.default, after.bounds, after.unit, after.changed) == (
        "2",
        "0.5",
        "over 0",
        "seconds",
        True,
    )
    assert (kind.choices, kind.changed) == ([("soft", "soft"), ("hard", "hard")], False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 65_536), ("sizes", [3, 4]), ("words", ["a b", "c: d"]), ("table", {"a": 1.5}), ("maybe", False),
        ("mixed", 3), ("mixed", "three"), ("limit", 7), ("on", False), ("dtype", "bf16"),
        ("shapes", [{"kind": "hard"}]),
    ],
)  # fmt: skip
def test_value_that_is_shown_is_read_back_as_it_was(key: str, value: Any) -> None:
    one = fields({key: value})[key]
    assert form.read(one.raw, one.reads, one.nullable) == value


@pytest.mark.parametrize(
    ("raw", "reads", "value"),
    [
        ("1,000", "integer", 1000), ("many", "integer", "many"), ("1e-3", "number", 0.001), ("-1", "number", -1),
        ("", "integer", form.REMOVE), ("", "text", ""), ("{broken", "json", "{broken"), ("nan", "integer", "nan"),
    ],
)  # fmt: skip
def test_what_is_typed_is_read_and_never_judged(raw: str, reads: str, value: Any) -> None:
    assert form.read(raw, reads) == value


def test_problem_stands_at_the_field_it_belongs_to() -> None:
    place = ["config", "how", "lora", "rank"]
    shown = fields(
        {}, [{"place": ["config", "sizes", 1], "message": "no number"}, {"place": place, "message": "x"}]
    )
    assert shown["sizes"].problem == "no number"
    assert shown["how"].fields[0].problem == "x"


def test_value_that_is_no_choice_is_kept_among_them() -> None:
    assert fields({"dtype": "fp7"})["dtype"].choices[0] == ("fp7", "fp7")
