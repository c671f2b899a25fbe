"""The text of a job file, changed at one place: comments, order and quotes of all the rest stay as they were written.

    text = change(text, [Edit(("processes", 0, "config", "depth"), value=6)])

An edit replaces a value, adds a line or takes lines out. The text is then read again, and if it does not say what was
wanted (an alias, an unusual layout, JSON), all of it is written anew; of its comments those at the top are kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

from melete import documents
from melete.documents import Key, Place
from melete.errors import ConfigError, JobFileError

LONGEST_LINE = 100
Lines: TypeAlias = list[str]


@dataclass(frozen=True)
class Edit:
    """One change.

    Args:
        place: keys and list indices from the top; the index after the last one of a list appends.
        act: `set` a value, `remove` what is there, or move an item of a list `up` or `down`.
        value: for `set`; as JSON has it.
    """

    place: Place
    act: Literal["set", "remove", "up", "down"] = "set"
    value: Any = None


class _Unusual(Exception):
    """The layout is one that is not changed line by line."""


def parse(text: str) -> Any:
    """What a text says, before anything is checked.

    Raises:
        JobFileError: it is not YAML.
    """
    if not text.strip():
        return {}
    _, values, problems = documents.parse(Path("job.yaml"), text, "job file")
    if problems:
        raise documents.failure(problems, JobFileError)
    return values


def change(text: str, edits: Sequence[Edit]) -> str:
    """The text after some edits, one after the other.

    Raises:
        JobFileError: it is not YAML.
        ConfigError: an edit names a place that cannot be.
    """
    values = parse(text) if edits else None
    try:
        for edit in edits:
            text, values = _after(text, values, edit)
    except RecursionError as error:
        raise ConfigError("A value is nested too deeply.") from error
    return text


def _after(text: str, values: Any, edit: Edit) -> tuple[str, Any]:
    """The text and what it says after an edit."""
    wanted = _applied(values, edit)
    if wanted == values:
        return text, values
    try:
        changed = _changed(text, edit)
        if parse(changed) == wanted:
            return changed, wanted
    except (_Unusual, JobFileError):
        pass  # it is written anew
    changed = _anew(text, wanted)
    return changed, parse(changed)


def _applied(values: Any, edit: Edit) -> Any:
    """The values after an edit; what lies on the way is made."""
    top = _copy(values) if isinstance(values, dict) else {}
    node: Any = top
    for number, part in enumerate(edit.place[:-1]):
        following = edit.place[number + 1]
        inner = _get(node, part)
        if not isinstance(inner, list if isinstance(following, int) else dict):
            if edit.act != "set":
                return top
            inner = [] if isinstance(following, int) else {}
            _put(node, part, inner, edit)
        node = inner
    last = edit.place[-1]
    if edit.act == "set":
        _put(node, last, edit.value, edit)
    elif edit.act == "remove":
        if _get(node, last, missing := object()) is not missing:
            del node[last]
            if not node and len(edit.place) > 1 and isinstance(last, str) and isinstance(edit.place[-2], str):
                return _applied(top, Edit(edit.place[:-1], "remove"))
    elif isinstance(node, list) and isinstance(last, int):
        other = last + (1 if edit.act == "down" else -1)
        if 0 <= last < len(node) and 0 <= other < len(node):
            node[last], node[other] = node[other], node[last]
    return top


def _copy(value: Any) -> Any:
    """A copy in which nothing is held twice, as aliases do."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _get(node: Any, part: Key, missing: Any = None) -> Any:
    if isinstance(node, dict):
        return node.get(part, missing)
    if isinstance(node, list) and isinstance(part, int) and 0 <= part < len(node):
        return node[part]
    return missing


def _put(node: Any, part: Key, value: Any, edit: Edit) -> None:
    if isinstance(node, list) and isinstance(part, int) and 0 <= part <= len(node):
        node[part : part + 1] = [value]
    elif isinstance(node, dict) and isinstance(part, str):
        node[part] = value
    else:
        place = ".".join(map(str, edit.place))
        raise ConfigError(
            f"There is no place {place!r} in this job.", allowed="A key, or an index of a list."
        )


def _changed(text: str, edit: Edit) -> str:
    """The text after an edit of its lines."""
    if text.lstrip().startswith("{") or "\t" in text or "\r" in text:
        raise _Unusual
    node, _, _ = documents.parse(Path("job.yaml"), text, "job file")
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        raise _Unusual
    if edit.act == "set":
        return _set(text, node, edit.place, edit.value)
    if edit.act == "remove":
        return _remove(text, node, edit.place)
    return _move(text, node, edit)


def _set(text: str, root: yaml.Node, place: Place, value: Any) -> str:
    found = _node(root, place)
    if found is not None:
        if _is_block(found) or (isinstance(value, dict | list) and value and not _is_flow(found)):
            return _lines(text, root, place, value)
        return text[: found.start_mark.index] + _inline(value) + text[found.end_mark.index :]
    parent = _node(root, place[:-1])
    if parent is None or (isinstance(parent, yaml.ScalarNode) and not parent.value):
        inner: Any = [value] if isinstance(place[-1], int) else {place[-1]: value}
        return (
            _set(text, root, place[:-1], inner) if parent is None else _under(text, root, place[:-1], inner)
        )
    if not isinstance(parent, yaml.MappingNode | yaml.SequenceNode):
        raise _Unusual
    if parent.flow_style:
        return _into_flow(text, root, parent, place, value)
    item = [value] if isinstance(place[-1], int) else {place[-1]: value}
    lines = text.split("\n")
    at, indent = _last_line(parent) + 1, parent.start_mark.column
    if isinstance(parent, yaml.MappingNode):
        indent = parent.value[0][0].start_mark.column
    added = _block(item, indent)
    if isinstance(parent, yaml.SequenceNode) and len(parent.value) > 1:
        before = lines[parent.value[-1].start_mark.line - 1].strip()
        added = added if before else ["", *added]
    return "\n".join([*lines[:at], *added, *lines[at:]])


def _lines(text: str, root: yaml.Node, place: Place, value: Any) -> str:
    """Replaces the lines of a key and its value."""
    found, parent = _node(root, place), _node(root, place[:-1])
    assert found is not None
    if not isinstance(parent, yaml.MappingNode) or parent.flow_style:
        raise _Unusual
    key = next(key for key, inner in parent.value if inner is found)
    lines = text.split("\n")
    at, indent = key.start_mark.line, key.start_mark.column
    if lines[at][:indent].strip():
        raise _Unusual  # it stands behind a dash
    added = _block({place[-1]: value}, indent)
    return "\n".join([*lines[:at], *added, *lines[max(at, _last_line(found)) + 1 :]])


def _into_flow(text: str, root: yaml.Node, parent: yaml.Node, place: Place, value: Any) -> str:
    """Adds to `{…}` or `[…]`; to one that would become too long, line by line."""
    assert isinstance(parent, yaml.CollectionNode)
    if not parent.value and not isinstance(place[-1], int) and isinstance(value, dict):
        raise _Unusual
    item = _inline(value) if isinstance(place[-1], int) else f"{place[-1]}: {_inline(value)}"
    last = parent.value[-1] if parent.value else None
    if last is None:
        if isinstance(place[-1], int) and isinstance(value, dict):
            return _under(text, root, place[:-1], [value])
        return text[: parent.start_mark.index + 1] + item + text[parent.end_mark.index - 1 :]
    end = (last[1] if isinstance(last, tuple) else last).end_mark.index
    changed = f"{text[:end]}, {item}{text[end:]}"
    line = changed.split("\n")[parent.end_mark.line]
    if len(line) > LONGEST_LINE and isinstance(parent, yaml.MappingNode) and isinstance(place[-1], str):
        inner = _get_at(parse(text), place[:-1])
        return _under(text, root, place[:-1], {**inner, place[-1]: value})
    return changed


def _under(text: str, root: yaml.Node, place: Place, value: Any) -> str:
    """Writes a value in lines of its own below its key."""
    found, parent = _node(root, place), _node(root, place[:-1])
    if found is None or not isinstance(parent, yaml.MappingNode) or parent.flow_style:
        raise _Unusual
    indent = parent.value[0][0].start_mark.column + 2
    rest = text[found.end_mark.index :]
    if rest.split("\n", 1)[0].strip():
        raise _Unusual  # a comment behind it
    return text[: found.start_mark.index].rstrip(" ") + "\n" + "\n".join(_block(value, indent)) + rest


def _remove(text: str, root: yaml.Node, place: Place) -> str:
    parent, last = _node(root, place[:-1]), place[-1]
    if not isinstance(parent, yaml.CollectionNode) or _node(root, place) is None:
        raise _Unusual
    if len(parent.value) == 1 and isinstance(last, str):
        if len(place) == 1 or isinstance(place[-2], int):
            raise _Unusual
        return _remove(text, root, place[:-1])
    number = last if isinstance(last, int) else [key.value for key, _ in parent.value].index(last)
    first, end = _ends(parent.value[number])
    if parent.flow_style:
        if number:
            return text[: _ends(parent.value[number - 1])[1].end_mark.index] + text[end.end_mark.index :]
        return text[: first.start_mark.index] + text[_ends(parent.value[1])[0].start_mark.index :]
    lines = text.split("\n")
    at, until = first.start_mark.line, _last_line(end) + 1
    if isinstance(last, int):
        if len(parent.value) == 1:
            raise _Unusual
        while number and at > 0 and not lines[at - 1].strip():
            at -= 1
    elif lines[at][: first.start_mark.column].strip():
        raise _Unusual  # it stands behind a dash
    return "\n".join([*lines[:at], *lines[until:]])


def _move(text: str, root: yaml.Node, edit: Edit) -> str:
    parent, last = _node(root, edit.place[:-1]), edit.place[-1]
    if not isinstance(parent, yaml.SequenceNode) or parent.flow_style or not isinstance(last, int):
        raise _Unusual
    upper = last if edit.act == "down" else last - 1
    one, other = parent.value[upper], parent.value[upper + 1]
    lines = text.split("\n")
    a, b = one.start_mark.line, _last_line(one) + 1
    c, d = other.start_mark.line, _last_line(other) + 1
    return "\n".join([*lines[:a], *lines[c:d], *lines[b:c], *lines[a:b], *lines[d:]])


def _node(root: yaml.Node, place: Place) -> yaml.Node | None:
    """The node at a place; None where there is none."""
    node: Any = root
    for part in place:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and 0 <= part < len(node.value):
            node = node.value[part]
        else:
            return None
    return node if isinstance(node, yaml.Node) else None


def _ends(entry: Any) -> tuple[yaml.Node, yaml.Node]:
    """First and last node of an entry: key and value of a mapping, twice the item of a list."""
    return entry if isinstance(entry, tuple) else (entry, entry)


def _last_line(node: yaml.Node) -> int:
    """Number of the last line, from 0, on which a node stands; the end of a block includes what follows it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        return _last_line(_ends(node.value[-1])[1])
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return int(node.end_mark.line) - (node.end_mark.column == 0)
    return int(node.end_mark.line)


def _is_block(node: yaml.Node) -> bool:
    if isinstance(node, yaml.ScalarNode):
        return node.style in ("|", ">") or (not node.value and node.style is None)
    return not getattr(node, "flow_style", False)


def _is_flow(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and bool(node.flow_style)


def _inline(value: Any) -> str:
    """A value on one line."""
    said = yaml.safe_dump(
        value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return str(said).removesuffix("\n").removesuffix("\n...").removesuffix("...").strip()


def _block(value: Any, indent: int) -> Lines:
    """A value in lines of its own; what is small inside it stays on one line."""
    said = yaml.safe_dump(
        value, default_flow_style=None, width=LONGEST_LINE, allow_unicode=True, sort_keys=False
    )
    if isinstance(value, dict) and len(value) and not str(said).startswith(f"{next(iter(value))}:"):
        said = yaml.safe_dump(value, default_flow_style=False, allow_unicode=True, sort_keys=False)
    if isinstance(value, list) and str(said).startswith("["):
        said = yaml.safe_dump(value, default_flow_style=False, allow_unicode=True, sort_keys=False)
    if isinstance(value, list) and str(said).startswith("- {"):
        inner = [
            yaml.safe_dump(one, default_flow_style=False, allow_unicode=True, sort_keys=False)
            for one in value
        ]
        said = "".join("- " + one.replace("\n", "\n  ").rstrip(" ") for one in inner)
    return [" " * indent + line if line else "" for line in str(said).rstrip("\n").split("\n")]


def _get_at(values: Any, place: Place) -> Any:
    for part in place:
        values = values[part]
    return values


def _anew(text: str, values: Any) -> str:
    """The whole text written anew, below the comments at its top."""
    if text.lstrip().startswith("{"):
        return json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n"
    top = []
    for line in text.split("\n"):
        if line.strip() and not line.startswith("#"):
            break
        top.append(line)
    comments = "\n".join(top).strip("\n")
    body = "\n".join(_block(values, 0)) if values else "{}"
    return f"{comments}\n{body}\n" if comments else f"{body}\n"
