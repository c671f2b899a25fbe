"""Seeded conversations with tool calls: made on the fly, the same row for the same index on every machine.

A conversation is drawn from `melete.datasets.toolcalls`: some domains, ten shapes, many phrasings. What the user
says, numbers aside, decides the split: validation asks for nothing in words that training has seen. It is
synthetic: good for the form of tool use and for measuring it, no substitute for real conversations.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from melete.datasets.dataset import Dataset, Shard
from melete.datasets.manifest import Manifest
from melete.datasets.readers import Item
from melete.datasets.toolcalls import shapes
from melete.datasets.toolcalls.drawing import Draw
from melete.errors import DatasetError
from melete.records import Conversation

VERSION = "1"
VAL_PARTS = 20  # what one wording in twenty asks belongs to validation
ROWS_PER_SHARD = 5_000


def open(train: int = 20_000, val: int = 500, seed: int = 0) -> Dataset:
    """The generated set with this many conversations in each split."""
    counts = {"train": train, "val": val}
    manifest = Manifest(
        name="toolcalls",
        version=VERSION,
        kind="conversations",
        description="Generated conversations: tool calls, several steps, questions back, errors, refusals, small talk.",
        licence="MIT",
        licence_notes="Made by Melete's own generator.",
        how_to_get="It is generated.",
        use="Teaching a small model the form of tool use; measuring tool calls on combinations it never saw.",
        known_issues=["Synthetic: the phrasing is varied but plain, the facts in tool results are invented."],
        splits={"train": [], "val": []},
    )
    identity = f"toolcalls {VERSION} train={train} val={val} seed={seed}"
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    make = {split: partial(_shards, split, count, seed) for split, count in counts.items()}
    return Dataset(manifest, fingerprint, make, _no_files, counts.get)


def row(split: str, index: int, seed: int = 0) -> Conversation:
    """The conversation at an index of a split."""
    attempt = 0
    while True:
        draw = Draw(f"{seed}/{split}/{index}/{attempt}")
        conversation = shapes.conversation(draw)
        if _side(conversation) == split:
            return shapes.casual(draw, conversation)
        attempt += 1


def _side(conversation: Conversation) -> str:
    said = " ".join(turn.content for turn in conversation.turns if turn.role == "user")
    digest = hashlib.blake2b(re.sub(r"\d+", "0", said).encode(), digest_size=4).digest()
    return "val" if int.from_bytes(digest, "big") % VAL_PARTS == 0 else "train"


def _shards(split: str, count: int, seed: int) -> list[Shard]:
    ranges = [range(a, min(a + ROWS_PER_SHARD, count)) for a in range(0, count, ROWS_PER_SHARD)]
    return [
        Shard(f"toolcalls@{VERSION}/{split}-{i}", "conversations", partial(_read, split, rows, seed))
        for i, rows in enumerate(ranges)
    ]


def _read(split: str, rows: range, seed: int, start: int) -> Iterator[Item]:
    for index in rows[start:]:
        yield Item(f"toolcalls/{split}", index + 1, row(split, index, seed).to_openai())


def _no_files(file: str) -> Path:
    raise DatasetError(f"toolcalls is generated and has no file {file!r}.")
