"""A request inside the engine: what it still has to compute, and what its next token means for it.

Both kinds go through the same prefill: a generation needs the logits of its prompt's last position and then decodes;
a scoring request needs those of every position of its continuation and is done.
"""

from __future__ import annotations

import logging
import math
import threading
import time

from melete.llm.engine.api import FinishReason, Generation, Scored, Token
from melete.llm.engine.sampling import RowSampler
from melete.llm.engine.text import TextStream

log = logging.getLogger(__name__)


class Request:
    """What both kinds share.

    Args:
        prompt: tokens to prefill.
        first_logit: position of the prompt from which on logits are needed; nothing from there on is reused.

    Attributes:
        slot: its slot, -1 while it has none.
        done: prompt tokens computed or reused so far.
        finished: it has ended.
        abandoned: whoever waited for it stopped waiting.
    """

    def __init__(self, prompt: list[int], first_logit: int) -> None:
        self.prompt = prompt
        self.first_logit = first_logit
        self.slot = -1
        self.done = 0
        self.finished = False
        self.abandoned = False
        self._ended = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether its caller gave it up."""
        return self.abandoned

    def reused(self, tokens: int) -> None:
        """Told how many prompt tokens were already computed."""

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        """Ends it."""
        self.finished = True
        self._ended.set()

    def wait(self) -> None:
        """Waits for its end."""
        self._ended.wait()


class GenerationRequest(Request):
    """Samples new tokens after its prompt.

    Args:
        prompt: tokens to prefill.
        first_logit: the last position of the prompt.
        generation: the caller's side.
        sampler: options and random numbers.
        text: decodes its tokens; None without a tokenizer.
        stop_ids: tokens that end it.
        budget: most new tokens.
    """

    def __init__(
        self,
        prompt: list[int],
        first_logit: int,
        *,
        generation: Generation,
        sampler: RowSampler,
        text: TextStream | None,
        stop_ids: frozenset[int],
        budget: int,
    ) -> None:
        super().__init__(prompt, first_logit)
        self.generation = generation
        self.sampler = sampler
        self.text = text
        self.stop_ids = stop_ids
        self.budget = budget
        self.started = time.monotonic()

    @property
    def cancelled(self) -> bool:
        """Whether its caller gave it up."""
        return self.abandoned or self.generation.cancelled

    def reused(self, tokens: int) -> None:
        """Told how many prompt tokens were already computed."""
        self.generation.cached_tokens = tokens
        self.started = time.monotonic()

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        """Ends it and tells the caller."""
        if self.finished:
            return
        try:
            self.generation.finish(reason, error)
        except Exception:  # the caller's `on_token`: nobody is left to tell
            log.exception("The reader of a request failed at its end.")
        super().end(reason, error)

    @property
    def last_token(self) -> int:
        """The token that the next step feeds."""
        return self.generation.token_ids[-1]

    def accept(self, token: int, logprob: float, top: tuple[tuple[int, float], ...]) -> FinishReason | None:
        """Takes a sampled token; returns why the request ends with it, or None."""
        reason: FinishReason | None = None
        if token in self.stop_ids:
            reason = "stop"
        elif len(self.generation.token_ids) + 1 >= self.budget:
            reason = "length"
        piece = ""
        if self.text is not None:
            visible = None if reason == "stop" else token
            piece, stopped = self.text.add(visible, last=reason is not None)
            if stopped:
                reason = "stop"
        constraint = self.sampler.sampling.constraint
        if constraint is not None:
            constraint.accept(token)
        self.generation.push(Token(token, logprob, top, piece))
        return reason


class ScoreRequest(Request):
    """Collects log-probs of the tokens `targets` that follow `first_logit`."""

    def __init__(self, prompt: list[int], first_logit: int, *, targets: list[int]) -> None:
        super().__init__(prompt, first_logit)
        self.targets = targets
        self.logprobs: list[float] = []
        self.greedy = True
        self.error: str | None = None

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        """Ends it; any end but its own is an error."""
        if not self.finished:
            self.error = error or ("the engine was stopped" if reason == "cancelled" else None)
            super().end(reason, error)

    def take(self, logprobs: list[float], greedy: list[bool]) -> bool:
        """Takes the results of the next positions; returns whether these were the last.

        Raises:
            ValueError: they are not numbers.
        """
        if not all(map(math.isfinite, logprobs)):
            raise ValueError("the model's logits are not numbers")
        self.logprobs.extend(logprobs)
        self.greedy = self.greedy and all(greedy)
        return len(self.logprobs) == len(self.targets)

    def result(self) -> Scored:
        """The scores."""
        return Scored(self.logprobs, self.greedy)
