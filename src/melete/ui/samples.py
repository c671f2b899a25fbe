"""Samples of runs for their pages: texts by step with what changed since the step before, images beside each other."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from melete.ui.app import Ui

MOST_PAGES = 5
"""Pages of 200 samples that are looked at."""
MOST_DIFF_LINES = 400


@dataclass(frozen=True)
class Shown:
    """What the page shows of the texts of one name.

    Attributes:
        names: of texts that the run has.
        name: the chosen one.
        steps: at which there is one, rising.
        at: place of the chosen step among them.
        sample: the chosen one.
        lines: (mark, text): what it changed since the step before, or all of it without marks.
    """

    names: list[str]
    name: str
    steps: list[int]
    at: int
    sample: dict[str, Any]
    lines: list[tuple[str, str]]


async def of_run(ui: Ui, request: Request, run: str) -> list[dict[str, Any]]:
    """Samples of a run, the oldest step first; of a run with very many the newest thousand.

    Raises:
        Refusal: the API answers with an error.
    """
    found: list[dict[str, Any]] = []
    cursor = None
    for _ in range(MOST_PAGES):
        page = await ui.get(request, f"/runs/{run}/samples", limit=200, cursor=cursor)
        found += page["data"]
        if (cursor := page["next_cursor"]) is None:
            break
    return found[::-1]


def texts(
    samples: list[dict[str, Any]], name: str | None, at: int | None, step: int | None, diff: bool
) -> Shown | None:
    """The chosen text; None where the run has none.

    Args:
        samples: see `of_run`.
        name: of the text; the first one if it is unknown.
        at: place among the steps; the last one if it is None.
        step: instead of `at`, the last one that is not later.
        diff: whether to show what changed since the step before.
    """
    written = [one for one in samples if one["text"] is not None]
    names = list(dict.fromkeys(one["name"] for one in written))
    if not names:
        return None
    name = name if name is not None and name in names else names[0]
    own = [one for one in written if one["name"] == name]
    steps = [one["step"] for one in own]
    if at is None and step is not None:
        at = max((place for place, one in enumerate(steps) if one <= step), default=0)
    at = len(own) - 1 if at is None else min(max(at, 0), len(own) - 1)
    before = own[at - 1]["text"] if at and diff else None
    return Shown(names, name, steps, at, own[at], _lines(own[at]["text"], before))


def images(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The images, the newest step first, each with a caption where a text of its name was kept at its step."""
    captions = {(one["step"], one["name"]): one["text"] for one in samples if one["text"]}
    found = [one for one in samples if one["media_type"].startswith("image/")]
    return [{**one, "caption": captions.get((one["step"], one["name"]), "")} for one in reversed(found)]


def _lines(text: str, before: str | None) -> list[tuple[str, str]]:
    if before is None:
        return [("", line) for line in text.splitlines()]
    old, new = before.splitlines()[:MOST_DIFF_LINES], text.splitlines()[:MOST_DIFF_LINES]
    return [(line[0].strip(), line[2:]) for line in difflib.ndiff(old, new) if line[0] != "?"]
