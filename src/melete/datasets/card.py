"""The data card of a dataset, as Markdown: what it is, what its licence asks, where it came from, how it looks.

Counts are exact; lengths and samples come from the beginning of each split, and the card says from how much of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import numpy as np

from melete.datasets import registry, verified
from melete.datasets.dataset import Dataset
from melete.datasets.manifest import Manifest
from melete.errors import DatasetError
from melete.records import Conversation
from melete.settings import Settings

LOOKED_AT = 1_000
SHOWN_CHARS = 500
SHOWN_FILES = 20


def render(name: str, settings: Settings, *, look: bool = True) -> str:
    """The card of a dataset by name or path; of a set that is not at hand, what its manifest says.

    Args:
        name: name or path.
        settings: where datasets are, and where what was counted is remembered.
        look: whether to look into the files, which compares their checksums and counts; without it the card lacks
            lengths, counts and samples.
    """
    try:
        dataset = registry.open(name, settings)
    except DatasetError as error:
        if name.partition("@")[0] not in registry.names(settings):
            raise
        manifest = registry.describe(name, settings)
        parts = [*_head(manifest, manifest.fingerprint), f"## Data\n\n{error}", *_files(manifest)]
        return "\n\n".join(parts) + "\n"
    parts = [
        *_head(dataset.manifest, dataset.fingerprint),
        *([_splits(dataset, settings), *_samples(dataset)] if look else [_names(dataset)]),
        *_files(dataset.manifest),
    ]
    return "\n\n".join(parts) + "\n"


def obligations(manifest: Manifest) -> list[str]:
    """What the licence asks of someone who uses the data, in plain words."""
    licence = manifest.licence.upper()
    asked = []
    if manifest.share_alike:
        asked.append("Share-alike: what is derived from the data and passed on keeps its licence.")
    if licence.startswith(("CC-BY", "CC BY")):
        asked.append("Attribution: name the source and say what was changed.")
    if licence.startswith(("MIT", "APACHE", "BSD", "PSF")):
        asked.append("Keep the copyright and licence notice when the data is passed on.")
    if "NOT STATED" in licence:
        asked.append("No licence is stated: find out before you pass on the data or a model trained on it.")
    return asked


def _head(manifest: Manifest, fingerprint: str) -> list[str]:
    licence = [f"**{manifest.licence}.** {manifest.licence_notes}".strip(), *obligations(manifest)]
    parts = [
        f"# {manifest.id}\n\n{manifest.description}",
        f"- kind: {manifest.kind}\n- size: {_size(manifest)}\n- fingerprint: `{fingerprint[:16]}`"
        + (f"\n- good for: {manifest.use}" if manifest.use else ""),
        "## Licence\n\n" + "\n\n".join(licence),
    ]
    if manifest.sources:
        lines = [
            f"- {source.repository}"
            + (f" `{source.path}`" if source.path else "")
            + (f" at `{source.commit}`" if source.commit else "")
            + (f" ({source.date})" if source.date else "")
            + (f": {source.note}" if source.note else "")
            for source in manifest.sources
        ]
        parts.append("## Source\n\n" + "\n".join(lines) + f"\n\n{manifest.how_to_get}".rstrip())
    if manifest.changes:
        parts.append(f"## Changes\n\n{manifest.changes}")
    if manifest.known_issues:
        parts.append("## Known issues\n\n" + "\n".join(f"- {issue}" for issue in manifest.known_issues))
    return parts


def _names(dataset: Dataset) -> str:
    listed = ", ".join(f"`{split}`" for split in dataset.splits) or "None"
    return f"## Splits\n\n{listed}. Their items are being counted."


def _count(dataset: Dataset, split: str, settings: Settings) -> int:
    """Items of a split; what is counted once is remembered for just this content."""
    key = f"{dataset.fingerprint} {split}"
    known = verified.recall(settings, "counted").get(key)
    if isinstance(known, int):
        return known
    count = dataset.count(split)
    verified.remember(settings, "counted", {key: count})
    return count


def _splits(dataset: Dataset, settings: Settings) -> str:
    if not dataset.splits:
        return "## Splits\n\nNone: the files are read by the systems that use them."
    unit = {"text": "documents", "conversations": "conversations"}.get(dataset.manifest.kind, "rows")
    lines = [
        f"| split | {unit} | length p10 | p50 | p90 | longest |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for split in dataset.splits:
        lengths = [len(text) for text in islice(_texts(dataset, split), LOOKED_AT)]
        figures = np.percentile(lengths, [10, 50, 90, 100]) if lengths else np.zeros(4)
        lines.append(
            f"| {split} | {_count(dataset, split, settings):,} | "
            + " | ".join(f"{x:,.0f}" for x in figures)
            + " |"
        )
    note = f"Lengths are in characters, of the first {LOOKED_AT:,} {unit} of a split."
    drawn = " `val` is drawn from `train` by a hash of each item." if dataset.manifest.drawn_val else ""
    turns = f"\n\n{_turns(dataset)}" if dataset.manifest.kind == "conversations" else ""
    return "## Splits\n\n" + "\n".join(lines) + f"\n\n{note}{drawn}{turns}"


def _turns(dataset: Dataset) -> str:
    looked = list(islice(dataset.conversations(dataset.splits[0]), LOOKED_AT))
    turns = np.mean([len(c.turns) for c in looked])
    calls = sum(len(turn.tool_calls) for c in looked for turn in c.turns)
    with_calls = sum(any(turn.tool_calls for turn in c.turns) for c in looked)
    names = {call.name for c in looked for turn in c.turns for call in turn.tool_calls}
    return (
        f"In the first {len(looked):,} conversations of `{dataset.splits[0]}`: {turns:.1f} turns each, {calls:,} tool "
        f"calls to {len(names)} functions, {with_calls / len(looked):.0%} of them with a call."
    )


def _samples(dataset: Dataset) -> list[str]:
    if not dataset.splits:
        return []
    shown = [
        f"```\n{text[:SHOWN_CHARS].rstrip().replace('```', '` ` `')}{' …' if len(text) > SHOWN_CHARS else ''}\n```"
        for text in islice(_texts(dataset, dataset.splits[0]), 2)
    ]
    return [f"## Samples of `{dataset.splits[0]}`", *shown]


def _files(manifest: Manifest) -> list[str]:
    if not manifest.files:
        return []
    lines = ["| file | bytes | rows | sha256 |", "| --- | ---: | ---: | --- |"]
    for entry in manifest.files[:SHOWN_FILES]:
        rows = f"{entry.rows:,}" if entry.rows is not None else ""
        lines.append(f"| `{entry.path}` | {entry.bytes:,} | {rows} | `{entry.sha256[:16]}…` |")
    more = len(manifest.files) - SHOWN_FILES
    return ["## Files\n\n" + "\n".join(lines) + (f"\n\nand {more} more." if more > 0 else "")]


def _texts(dataset: Dataset, split: str) -> Iterator[str]:
    match dataset.manifest.kind:
        case "text":
            yield from dataset.documents(split)
        case "conversations":
            yield from (_conversation(c) for c in dataset.conversations(split))
        case _:
            yield from (json.dumps(row, ensure_ascii=False) for row in dataset.rows(split))


def _conversation(conversation: Conversation) -> str:
    tools = ", ".join(tool["function"]["name"] for tool in conversation.tools)
    lines = [f"tools: {tools}"] if tools else []
    for turn in conversation.turns:
        calls = " ".join(f"{call.name}({call.arguments})" for call in turn.tool_calls)
        lines.append(f"{turn.role}: {' '.join(part for part in (turn.content, calls) if part)}")
    return "\n".join(lines)


def _size(manifest: Manifest) -> str:
    if not manifest.files:
        return "generated"
    return f"{manifest.bytes / 1e6:,.2f} MB in {len(manifest.files)} file{'s' if len(manifest.files) > 1 else ''}"
