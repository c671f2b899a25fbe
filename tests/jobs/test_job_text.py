"""A job file's text after a change: what was written stays, and what it says is what was wanted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from melete.errors import ConfigError, JobFileError
from melete.jobs.text import Edit, change, parse

TEXT = """\
# What it is for.
name: tiny   # short
processes:
  - process: llm.tokenizer
    config: {data: stdlib, vocab_size: 2_048}   # small

  # the model
  - process: llm.pretrain
    name: base
    config:
      tokenizer: "@tokenizer"
      depth: 2        # layers
      note: |
        two
        lines
    after: [tokenizer]
next:
  - "melete chat base"
"""


def config(number: int, key: str, **of: Any) -> Edit:
    """A change of an option."""
    return Edit(("processes", number, "config", key), **of)


def lines(text: str, *edits: Edit) -> list[str]:
    """The lines that are new after some changes."""
    before = text.split("\n")
    return [line for line in change(text, edits).split("\n") if line not in before]


def test_value_in_braces_is_replaced_where_it_stands() -> None:
    assert lines(TEXT, config(0, "vocab_size", value=300)) == [
        "    config: {data: stdlib, vocab_size: 300}   # small"
    ]


def test_value_in_a_block_keeps_its_comment() -> None:
    assert lines(TEXT, config(1, "depth", value=6)) == ["      depth: 6        # layers"]


def test_option_that_was_not_there_comes_last_in_its_block() -> None:
    changed = change(TEXT, [config(1, "rate", value=0.5)])
    assert "        lines\n      rate: 0.5\n    after:" in changed


def test_option_of_a_process_without_config_makes_one() -> None:
    text = "name: a\nprocesses:\n  - process: llm.tokenizer\n"
    assert change(text, [config(0, "digits", value=1)]) == text + "    config: {digits: 1}\n"


def test_braces_that_would_become_too_long_become_lines() -> None:
    changed = change(TEXT.replace("   # small", ""), [config(0, "conversations", value="x" * 70)])
    assert (
        f"    config:\n      data: stdlib\n      vocab_size: 2048\n      conversations: {'x' * 70}\n"
        in changed
    )


def test_last_option_that_is_removed_takes_its_config_along() -> None:
    text = "name: a\nprocesses:\n  - process: llm.tokenizer\n    config: {digits: 1}\n"
    assert change(text, [config(0, "digits", act="remove")]) == text.replace("    config: {digits: 1}\n", "")


def test_process_is_appended_with_the_space_that_others_have() -> None:
    changed = change(
        TEXT, [Edit(("processes", 2), value={"process": "llm.sample", "config": {"run": "@base"}})]
    )
    assert "  - process: llm.sample\n    config: {run: '@base'}\nnext:" in changed
    assert "# What it is for." in changed


def test_process_moves_with_its_comments_inside() -> None:
    changed = change(TEXT, [Edit(("processes", 0), "down")])
    assert [one["process"] for one in parse(changed)["processes"]] == ["llm.pretrain", "llm.tokenizer"]
    assert "depth: 2        # layers" in changed


def test_json_stays_json() -> None:
    changed = change('{"name": "a", "processes": []}', [Edit(("processes", 0), value={"process": "llm.sft"})])
    assert changed.startswith("{")
    assert parse(changed) == {"name": "a", "processes": [{"process": "llm.sft"}]}


def test_alias_is_not_changed_behind_its_back() -> None:
    text = "name: a\nprocesses:\n- process: x\n  config: &c {steps: 1}\n- process: y\n  config: *c\n"
    after = parse(change(text, [config(1, "steps", value=2)]))["processes"]
    assert [one["config"]["steps"] for one in after] == [1, 2]


def test_text_that_is_no_yaml_is_named_with_its_line() -> None:
    with pytest.raises(JobFileError, match=r"job\.yaml:2: not YAML"):
        change("name: [\n", [Edit(("name",), value="a")])


def test_place_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no place 'processes\.7'"):
        change(TEXT, [Edit(("processes", 7), value={})])


WORDS = st.sampled_from(
    ["a", "b: c", "- d", "@base", "1e-3", "null", "", "ü#", "long " * 12, "yes", "{", "'\""]
)
SCALARS = st.one_of(
    WORDS, st.integers(-(10**6), 10**6), st.booleans(), st.none(), st.sampled_from([0.5, 1e-05])
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(WORDS.filter(bool), SCALARS, max_size=2)
)
KEYS = st.sampled_from(["name", "config", "steps", "data", "needs"])
STEPS = st.dictionaries(
    KEYS, st.one_of(SCALARS, st.dictionaries(KEYS, VALUES, max_size=3)), min_size=1, max_size=4
)
EDITS = st.tuples(st.integers(0, 2), st.lists(KEYS, min_size=1, max_size=2), VALUES, st.booleans())


@limits(deadline=None)
@given(st.lists(STEPS, min_size=3, max_size=4), EDITS, st.sampled_from([None, False]))
def test_any_change_says_what_was_wanted_and_nothing_else(
    steps: list[dict[str, Any]], edit: tuple[int, list[str], Any, bool], flow: bool | None
) -> None:
    number, keys, value, removes = edit
    values = {"name": "a", "processes": steps}
    text = yaml.safe_dump(values, default_flow_style=flow, sort_keys=False, allow_unicode=True)
    place = ("processes", number, *keys)
    changed = parse(change(text, [Edit(place, "remove") if removes else Edit(place, value=value)]))

    wanted = copy.deepcopy(values)
    node: Any = wanted["processes"][number]  # type: ignore[index]
    for key in keys[:-1]:
        if not isinstance(node.get(key), dict):
            if removes:
                break
            node[key] = {}
        node = node[key]
    else:
        if not removes:
            node[keys[-1]] = value
            assert changed == wanted
        else:
            found: Any = changed["processes"][number]
            for key in keys[:-1]:
                found = found.get(key, {})
            assert keys[-1] not in found
    others = [one for at, one in enumerate(steps) if at != number]
    assert [one for at, one in enumerate(changed["processes"]) if at != number] == others


def test_value_that_is_nested_too_deeply_is_refused() -> None:
    value: Any = 1
    for _ in range(3_000):
        value = [value]
    with pytest.raises(ConfigError, match="nested too deeply"):
        change(TEXT, [Edit(("name",), value=value)])
