"""What an evaluation asks of a model: continue a text, answer a conversation, score a given continuation.

Tasks see only this protocol. `melete.llm.evaluator` implements it over our engine, `echo.py` without any network.
All three calls take many inputs at once, so that a model can batch them and compute shared beginnings once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from melete.records import Conversation, Turn


@dataclass(frozen=True)
class Generate:
    """How answers are written; temperature 0 takes the most probable token."""

    max_tokens: int
    temperature: float = 0.0
    seed: int = 1337
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreRequest:
    """A continuation whose probability after a context is asked for; spaces between the two stand in the context."""

    context: str
    continuation: str


@dataclass(frozen=True)
class ScoreResult:
    """The score of a continuation.

    Attributes:
        logprob: natural-log probability of all its tokens.
        greedy: whether each of its tokens was the most probable one.
        tokens: number of tokens.
        bytes: length of the continuation in UTF-8.
        cut: whether the context was too long for the model and lost its beginning.
    """

    logprob: float
    greedy: bool
    tokens: int
    bytes: int
    cut: bool = False


class LanguageModel(Protocol):
    """Something that can generate and score."""

    @property
    def name(self) -> str:
        """What to call it in a report."""
        ...

    def generate(self, prompts: Sequence[str], how: Generate) -> list[str]:
        """Continues plain texts; one continuation each, without the stop text."""
        ...

    def chat(self, conversations: Sequence[Conversation], how: Generate) -> list[Turn]:
        """The assistant's next turn in each conversation, with the tool calls it proposes."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """Scores continuations, in the order of the requests."""
        ...
