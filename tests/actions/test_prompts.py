"""Prompt files: golden by their own examples, versioned, and strict about inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from melete import find
from melete.actions import prompts
from melete.agents import scenario
from melete.agents.scenarios._tau import data
from melete.errors import ConfigError, ScenarioError, UnknownNameError

FILES = sorted(find.folder_of("melete").rglob("*@*.md"))

FILE = """---
name: {name}
version: "{version}"
purpose: A test.
inputs:
  type: object
  properties: {{who: {{type: string}}, times: {{type: integer}}}}
  required: [who]
output: {{type: object, required: [answer]}}
examples:
  - inputs: {{who: you}}
    rendered: Hello you.
---
Hello {{{{ who }}}}.
"""


def write(folder: Path, name: str = "greet", version: str = "1", text: str = FILE) -> Path:
    path = folder / f"{name}@{version}.md"
    path.write_text(text.format(name=name, version=version))
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_prompt_file_renders_its_examples_as_written(path: Path) -> None:
    prompt = prompts.read(path)
    assert prompt.examples
    for example in prompt.examples:
        assert prompt.render(**example.inputs) == example.rendered


@pytest.mark.parametrize("name", ["code_review", "customer_support", "qa_testing", "star", "tau_retail"])
def test_scenario_says_which_prompt_file_its_system_prompt_is(name: str) -> None:
    played = scenario.load(name)
    assert played.prompt is not None
    if played.unavailable():
        pytest.skip(str(played.unavailable()))
    inputs = {"policy": data.policy("retail")} if name == "tau_retail" else {}
    assert played.system_prompt == prompts.read(_file(played.prompt_id)).render(**inputs)


def test_turns_of_the_expert_are_what_the_output_schema_says() -> None:
    played = scenario.load("customer_support")
    assert played.prompt is not None
    for conversation in played.demonstrations("train", 3):
        turns = [turn.to_openai() for turn in conversation.turns if turn.role == "assistant"]
        assert [played.prompt.output_problems(turn) for turn in turns] == [[]] * len(turns)
    assert played.prompt.output_problems({"role": "assistant", "tool_calls": []})


def _file(prompt_id: str) -> Path:
    return next(path for path in FILES if path.stem == prompt_id)


def test_prompt_that_comes_with_melete_is_found_by_name_and_version() -> None:
    assert prompts.load("tool_agent@1").id == "tool_agent@1"
    assert prompts.load("tool_agent").purpose.startswith("System prompt")


def test_name_alone_is_the_newest_version(tmp_path: Path) -> None:
    for version in ("2", "10", "1"):
        write(tmp_path, version=version)
    assert prompts.load("greet", tmp_path).version == "10"
    assert prompts.load("greet@2", tmp_path).version == "2"


def test_text_of_an_input_is_put_in_and_never_rendered(tmp_path: Path) -> None:
    prompt = prompts.read(write(tmp_path))
    assert prompt.render(who="{{ 7 * 7 }} {% raw %}") == "Hello {{ 7 * 7 }} {% raw %}."


@pytest.mark.parametrize(
    ("inputs", "words"),
    [({}, "who is missing"), ({"who": 1}, "found 1"), ({"who": "a", "whom": "b"}, "Did you mean who")],
)
def test_wrong_inputs_are_named(tmp_path: Path, inputs: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        prompts.read(write(tmp_path)).render(**inputs)


def test_answer_is_checked_by_the_output_schema(tmp_path: Path) -> None:
    prompt = prompts.read(write(tmp_path))
    assert prompt.output_problems({"answer": 1}) == []
    assert prompt.output_problems({}) == ["answer is missing; needed: any value."]


def test_changed_text_has_another_digest(tmp_path: Path) -> None:
    first = prompts.read(write(tmp_path))
    second = prompts.read(write(tmp_path, version="2", text=FILE.replace("Hello {{{{", "Hi {{{{")))
    assert first.digest != second.digest


def test_unknown_prompt_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UnknownNameError, match="greet@1"):
        prompts.load("great", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("purpose: A test.\n", "", "purpose: found None"),
        ("purpose:", "porpoise:", "porpoise: unknown key"),
        ('version: "{version}"', 'version: "9"', "it says that it is greet@9"),
        ("{{{{ who }}}}", "{{{{ who", "no template"),
        ("rendered:", "result:", "examples"),
        ("inputs:\n  type: object", "inputs:\n  type: text", "schema of an object"),
        ("---\n", "", "no front matter"),
    ],
)
def test_prompt_file_that_is_wrong_names_the_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises((ConfigError, ScenarioError), match=words):
        prompts.read(write(tmp_path, text=FILE.replace(old, new)))
