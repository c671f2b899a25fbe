"""Data cards without waiting: what a manifest says at once, what the files say as soon as they were looked into.

Looking compares checksums and counts items, which takes seconds the first time and as long as a disk takes for large
sets. It is done for one set at a time, in a thread that does not outlive the server; a card that was made is kept until
its content changes.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from threading import Lock, Thread

from melete.datasets import card, registry
from melete.errors import DatasetError
from melete.settings import Settings

PATIENCE_S = 0.1
"""How long one request waits for a card that is being made."""
KEPT = 64


class Cards:
    """The cards of a home's datasets.

    Args:
        settings: where the datasets are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: OrderedDict[tuple[str, str], Future[str]] = OrderedDict()
        self._lock, self._one_at_a_time = Lock(), Lock()

    def get(self, name: str) -> tuple[str, bool]:
        """A card as Markdown, and whether what the files say is in it.

        Raises:
            DatasetError: a file is missing or corrupt.
        """
        try:
            fingerprint = registry.open(name, self._settings).fingerprint
        except DatasetError:  # it is not at hand, and its card says so
            return card.render(name, self._settings), True
        key = (name, fingerprint)
        with self._lock:
            if key not in self._made:
                made = self._made[key] = Future()
                Thread(target=self._look, args=(name, made), name="data-card", daemon=True).start()
                while len(self._made) > KEPT:
                    self._made.popitem(last=False)
            made = self._made[key]
        try:
            return made.result(PATIENCE_S), True
        except NotYet:
            return card.render(name, self._settings, look=False), False
        except DatasetError:
            with self._lock:
                self._made.pop(key, None)  # the file may be put right
            raise

    def _look(self, name: str, made: Future[str]) -> None:
        with self._one_at_a_time:
            try:
                made.set_result(card.render(name, self._settings))
            except Exception as error:  # whoever waits for it is told
                made.set_exception(error)
