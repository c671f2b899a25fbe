"""Which sequence each slot of the cache holds, who uses it, and where a prompt's beginning is already computed.

A finished request leaves its keys and values behind; a new prompt that begins like any slot's tokens, of a finished
or a running request, takes over that part. The least recently used free slot is overwritten first. Weights that were
swapped make everything computed before them unfit for reuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SHORTEST_REUSE = 8
"""Shared beginnings below this many tokens are computed again."""


@dataclass(slots=True)
class Slot:
    """One row of the cache.

    Attributes:
        ids: tokens whose keys and values it holds, in order.
        busy: a request runs in it.
        current: what it holds was computed with the present weights, so others may reuse it.
        last_used: tick of the last time a request ended in it.
    """

    ids: list[int] = field(default_factory=list)
    busy: bool = False
    current: bool = True
    last_used: int = 0


class SlotTable:
    """All slots of a cache."""

    def __init__(self, count: int) -> None:
        self.slots = [Slot() for _ in range(count)]
        self._tick = 0

    def __getitem__(self, index: int) -> Slot:
        return self.slots[index]

    @property
    def any_free(self) -> bool:
        """Whether a request can be taken in."""
        return any(not slot.busy for slot in self.slots)

    def find(self, prompt: Sequence[int], most: int) -> tuple[int, int]:
        """The slot that shares the longest beginning with a prompt, and its length (0: none is worth it).

        Args:
            prompt: token ids.
            most: longest beginning that may be reused.
        """
        best, length = -1, 0
        for index, slot in enumerate(self.slots):
            # Only a slot that agrees in the last place of the best beginning can share as much.
            if slot.current and (
                not length or (len(slot.ids) >= length and slot.ids[length - 1] == prompt[length - 1])
            ):
                shared = min(common_prefix(slot.ids, prompt), most)
                # Among equals a free slot is better: it may be taken over without a copy.
                if shared > length or (shared == length > 0 and not slot.busy):
                    best, length = index, shared
        return (best, length) if length >= SHORTEST_REUSE else (-1, 0)

    def take(self, source: int, shared: int) -> int:
        """Takes a free slot for a request that reuses `shared` tokens of slot `source` (-1: none), and returns it.

        The source itself is taken if it is free and most of what it holds is reused; else the least recently used
        one, whose contents are given up.
        """
        free = [i for i, slot in enumerate(self.slots) if not slot.busy]
        if source in free and (2 * shared >= len(self.slots[source].ids) or len(free) == 1):
            chosen = source
        else:
            chosen = min(
                (i for i in free if i != source),
                key=lambda i: (bool(self.slots[i].ids), self.slots[i].last_used, i),
            )
        slot = self.slots[chosen]
        slot.ids = list(self.slots[source].ids[:shared]) if shared else []
        slot.busy, slot.current = True, True
        return chosen

    def release(self, index: int) -> None:
        """Frees a slot; its contents stay for reuse."""
        self._tick += 1
        slot = self.slots[index]
        slot.busy, slot.last_used = False, self._tick
        if not slot.current:
            slot.ids = []

    def forget(self) -> None:
        """The weights changed: nothing computed before may be reused; running requests keep their own."""
        for slot in self.slots:
            slot.current = not slot.busy
            if not slot.busy:
                slot.ids = []

    def exchange(self, a: int, b: int) -> None:
        """Exchanges the records of two slots."""
        self.slots[a], self.slots[b] = self.slots[b], self.slots[a]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning of two lists."""
    low, high = 0, min(len(a), len(b))
    if a[:SHORTEST_REUSE] != b[:SHORTEST_REUSE]:
        high = min(high, SHORTEST_REUSE - 1)
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
