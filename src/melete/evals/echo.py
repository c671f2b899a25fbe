"""Models without a network: one that knows the answers and one that guesses, to try tasks, suites and reports.

An `Oracle` is given a task's `Solution` and scores full marks wherever the task is sound; a `Guesser` lands within the
interval of chance. The conformance test puts every task file between the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from melete.evals.model import Generate, ScoreRequest, ScoreResult
from melete.evals.task import Solution, key
from melete.records import Conversation, Turn


class Oracle:
    """Answers from a `Solution`; what it was not told is answered with silence and held to be impossible."""

    name = "oracle"

    def __init__(self, solution: Solution) -> None:
        self.solution = solution

    def generate(self, prompts: Sequence[str], how: Generate) -> list[str]:
        """The text it was told, or none."""
        return [self.solution.texts.get(prompt, "") for prompt in prompts]

    def chat(self, conversations: Sequence[Conversation], how: Generate) -> list[Turn]:
        """The turn it was told, or an empty one."""
        return [self.solution.turns.get(key(c), Turn("assistant")) for c in conversations]

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """Certain of the continuations it was told; any other costs 10 nats a byte."""
        results = []
        for request in requests:
            known, size = request in self.solution.continuations, len(request.continuation.encode())
            results.append(ScoreResult(0.0 if known else -10.0 * size, known, size, size))
        return results


class Guesser:
    """Knows nothing: scores are drawn from a hash of the request, texts are a number, turns are empty."""

    name = "guesser"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def generate(self, prompts: Sequence[str], how: Generate) -> list[str]:
        """A number below 100."""
        return [str(int(100 * self._draw(prompt))) for prompt in prompts]

    def chat(self, conversations: Sequence[Conversation], how: Generate) -> list[Turn]:
        """A turn with a number below 100."""
        return [Turn("assistant", str(int(100 * self._draw(key(c))))) for c in conversations]

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """About one nat a byte."""
        results = []
        for request in requests:
            size = len(request.continuation.encode())
            mean = 0.5 + self._draw(f"{request.context}\0{request.continuation}")
            results.append(ScoreResult(-mean * size, False, size, size))
        return results

    def _draw(self, text: str) -> float:
        digest = hashlib.blake2b(f"{self.seed}\0{text}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2.0**64
