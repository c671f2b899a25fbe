"""Prompts as versioned files: a template with its purpose, the schema of its inputs and output, and examples.

A prompt is a Markdown file `<name>@<version>.md` whose front matter says everything but the text:

    ---
    name: tool_agent
    version: "1"
    purpose: …
    inputs: {type: object, properties: {role: {type: string}}, required: [role]}
    output: {type: string}                    # JSON schema of the answer, where there is one
    examples:
      - inputs: {role: a clerk}
        rendered: "You are a clerk."
    ---
    You are {{ role }}.

The text is a Jinja template, rendered in Jinja's sandbox; inputs are put in as they are and never rendered themselves.
A changed text is a new version, and `rendered` in the examples makes each file its own golden test.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melete import find
from melete.actions.schema import check_schema, compile_schema
from melete.errors import ConfigError, UnknownNameError

FOLDER = "melete.actions.prompts"
KEYS = {"name": str, "version": str, "purpose": str, "inputs": dict, "output": dict, "examples": list}
_FRONT = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.S)


@dataclass(frozen=True)
class Example:
    """Inputs and the text that they give."""

    inputs: dict[str, Any]
    rendered: str


@dataclass(frozen=True)
class Prompt:
    """A prompt file; made by `load` or `read`.

    Attributes:
        text: the template.
        inputs: JSON schema of what `render` takes; other inputs are refused.
        output: JSON schema of the model's answer; empty is any.
    """

    name: str
    version: str
    purpose: str
    text: str
    inputs: dict[str, Any]
    output: dict[str, Any]
    examples: tuple[Example, ...]
    _problems: Callable[[Any], list[str]] = field(repr=False, compare=False)
    _render: Callable[..., str] = field(repr=False, compare=False)

    @property
    def id(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def digest(self) -> str:
        """SHA-256 of the template, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def render(self, **inputs: Any) -> str:
        """The text for some inputs.

        Raises:
            ConfigError: an input is missing, unknown or of a wrong type.
        """
        problems = self._problems(inputs)
        if problems:
            raise ConfigError(f"The prompt {self.id} cannot be rendered: {problems[0]}")
        return self._render(**inputs).rstrip("\n")

    def output_problems(self, answer: Any) -> list[str]:
        """What is wrong with a model's answer, by the output schema; empty if nothing is."""
        return compile_schema(self.output)(answer) if self.output else []


def load(name: str, folder: Path | None = None) -> Prompt:
    """Loads a prompt by name, the newest version, or by `name@version`.

    Args:
        name: such as `tool_agent` or `tool_agent@1`.
        folder: where to look; the prompts that come with Melete by default.

    Raises:
        UnknownNameError: no such prompt or version.
        ConfigError: the file is wrong.
    """
    place = folder or find.folder_of(FOLDER)
    known = sorted((path.stem for path in place.glob("*@*.md")), key=_order)
    fitting = [one for one in known if name in (one, one.partition("@")[0])]
    if not fitting:
        raise UnknownNameError("prompt", name, known)
    return read(place / f"{fitting[-1]}.md")


@functools.cache
def read(path: Path) -> Prompt:
    """Reads a prompt file.

    Raises:
        ConfigError: a key is missing, unknown or wrong, or the template is.
    """
    import yaml
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        parts = _FRONT.match(path.read_text(encoding="utf-8"))
        front = yaml.safe_load(parts[1]) if parts else None
    except OSError as error:
        raise ConfigError(f"The prompt {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: the front matter is no YAML: {str(error)[:200]}") from error
    if parts is None or not isinstance(front, dict):
        raise ConfigError(
            f"{path}: no front matter.", allowed="A prompt begins with --- and YAML, then --- and the text."
        )
    _check(path, front)
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False
    )
    text = parts[2].strip("\n")
    try:
        template = environment.from_string(text)
    except TemplateError as error:
        raise ConfigError(f"{path}: the text is no template: {error}.") from error
    examples = tuple(
        Example(dict(one["inputs"]), str(one["rendered"]).rstrip("\n")) for one in front["examples"]
    )
    problems = compile_schema(front["inputs"], closed=True)
    return Prompt(
        front["name"], front["version"], front["purpose"], text, front["inputs"], front.get("output") or {},
        examples, problems, template.render,
    )  # fmt: skip


def _check(path: Path, front: dict[str, Any]) -> None:
    for key in front:
        if key not in KEYS:
            raise ConfigError(f"{path}: {key}: unknown key.", allowed=f"Known: {', '.join(KEYS)}.")
    for key, kind in KEYS.items():
        if key != "output" and not isinstance(front.get(key), kind):
            raise ConfigError(f"{path}: {key}: found {front.get(key)!r:.60}; allowed: a {kind.__name__}.")
    if path.stem != f"{front['name']}@{front['version']}":
        raise ConfigError(f"{path}: it says that it is {front['name']}@{front['version']}.")
    check_schema(front["inputs"], f"The inputs of the prompt {path.stem}")
    for i, one in enumerate(front["examples"]):
        if not isinstance(one, dict) or not isinstance(one.get("inputs"), dict) or "rendered" not in one:
            raise ConfigError(f"{path}: examples[{i}]: an example has 'inputs' and 'rendered'.")


def _order(stem: str) -> tuple[str, list[int | str]]:
    name, _, version = stem.partition("@")
    return name, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", version)]
