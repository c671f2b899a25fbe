"""What a caller of the engine holds: a request's `Sampling`, its `Generation` while it runs, its `Completion` after.

Token ids go in and come out; the text beside them (`Token.text`, `Completion.text`) is decoded here so that a stop
string can end a request in the middle of a token and a half-finished character is never shown. Special tokens have
no text. A stop token id is kept in the ids (a policy chose it, training needs it) and has no text; of a stop string
the ids keep the tokens it was made of, while the text ends before it.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from melete.errors import ConfigError

if TYPE_CHECKING:
    import torch

FinishReason = Literal["stop", "length", "cancelled", "error"]


class Constraint(Protocol):
    """Limits what one request may sample next, token by token (a JSON schema, a tool's grammar)."""

    def mask(self) -> torch.Tensor | None:
        """Allowed tokens of the next step, `(V,)` bool on the CPU, True = allowed; None allows everything."""

    def accept(self, token: int) -> None:
        """Told each sampled token, before the next `mask`. An exception ends the request with `error`."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request is sampled; a batch may mix any of these.

    Attributes:
        max_tokens: most new tokens; None means up to the end of the context.
        temperature: 0 takes the most probable token.
        top_k: sample among the k most probable tokens; 0 is off.
        top_p: sample among the most probable tokens whose probabilities reach this sum; 1 is off.
        seed: the same seed, prompt and weights give the same tokens whatever else is in the batch (as far as
            floating point allows); None draws a fresh one.
        stop_ids: tokens that end the request; None takes those of the model's chat format.
        stop: texts that end the request.
        logprobs: None for none, 0 for the chosen token's, n for those of the n most probable tokens too. They
            are of the model's own distribution: before temperature, top-k, top-p and constraint.
        constraint: see `Constraint`; it belongs to this one request.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: tuple[int, ...] | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        checks = (
            ("max_tokens", self.max_tokens is None or self.max_tokens >= 1, "at least 1, or none"),
            ("temperature", self.temperature >= 0.0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0.0 < self.top_p <= 1.0, "above 0, at most 1"),
            ("logprobs", self.logprobs is None or 0 <= self.logprobs <= 100, "none, or 0 to 100"),
            ("stop", "" not in self.stop, "no empty text"),
        )
        for name, good, allowed in checks:
            if not good:
                raise ConfigError(
                    f"Sampling option {name} is {getattr(self, name)!r}.", allowed=f"Allowed: {allowed}."
                )


class Token(NamedTuple):
    """One sampled token.

    Attributes:
        id: its id.
        logprob: its natural-log probability, nan unless `Sampling.logprobs` is set.
        top: the most probable tokens with theirs, as many as `Sampling.logprobs` asks for, best first.
        text: the text that this token made certain: may be empty (half a character, the possible beginning of a
            stop string) or hold what earlier tokens held back.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished request: ids and log-probs of the new tokens, the text, why it ended, prompt tokens not recomputed.

    `logprobs` and `top` are empty unless `Sampling.logprobs` is set.
    """

    token_ids: list[int]
    logprobs: list[float]
    top: list[tuple[tuple[int, float], ...]]
    text: str
    finish_reason: FinishReason
    cached_tokens: int
    prompt_tokens: int
    error: str | None = None


class Generation:
    """A request in the engine: iterate over its `Token`s as they come, from any one thread; or wait for `result`.

    `begun_s`, `first_s` and `ended_s` are when it was made, when its first token came and when it ended, in seconds
    since the epoch; 0 is not yet.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        on_token: Callable[[Token | None], None] | None = None,
    ) -> None:
        self.prompt_ids = prompt_ids
        self.sampling = sampling
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.top: list[tuple[tuple[int, float], ...]] = []
        self.finish_reason: FinishReason | None = None
        self.error: str | None = None
        self.cached_tokens = 0
        self.cancelled = False
        self.begun_s, self.first_s, self.ended_s = time.time(), 0.0, 0.0
        self._pieces: list[str] = []
        self._on_token = on_token
        self._stream: queue.SimpleQueue[Token | None] = queue.SimpleQueue()

    @property
    def text(self) -> str:
        """The text so far, without what is held back."""
        return "".join(self._pieces)

    def cancel(self) -> None:
        """Asks the engine to drop the request at its next step; its tokens so far stay. Safe from any thread."""
        self.cancelled = True

    def __iter__(self) -> Iterator[Token]:
        """Yields tokens as they are sampled and ends when the request does (look at `finish_reason` then)."""
        while (token := self._stream.get()) is not None:
            yield token
        self._stream.put(None)

    def result(self, timeout_s: float | None = None) -> Completion:
        """Waits for the end, dropping what was not iterated, and returns the whole completion.

        Raises:
            TimeoutError: it did not end in time; the request goes on.
        """
        try:
            while self._stream.get(timeout=timeout_s) is not None:
                pass
        except queue.Empty:
            raise TimeoutError(f"no end after {timeout_s} s") from None
        self._stream.put(None)
        return self.completion()

    def completion(self) -> Completion:
        """The completion of a request that has ended."""
        assert self.finish_reason is not None, "the request has not ended"
        return Completion(
            self.token_ids,
            self.logprobs,
            self.top,
            self.text,
            self.finish_reason,
            self.cached_tokens,
            len(self.prompt_ids),
            self.error,
        )

    def push(self, token: Token) -> None:
        """The engine's side: one more token."""
        if not self.token_ids:
            self.first_s = time.time()
        self.token_ids.append(token.id)
        if self.sampling.logprobs is not None:
            self.logprobs.append(token.logprob)
            self.top.append(token.top)
        if token.text:
            self._pieces.append(token.text)
        self._stream.put(token)
        if self._on_token is not None:
            self._on_token(token)

    def finish(self, reason: FinishReason, error: str | None = None) -> None:
        """The engine's side: the end; `on_token` is called with None."""
        self.error = error
        self.ended_s = time.time()
        self.finish_reason = reason
        self._stream.put(None)
        if self._on_token is not None:
            self._on_token(None)


class Scored(NamedTuple):
    """Log-probs of a given continuation, one per token, and whether every one was the greedy choice."""

    logprobs: list[float]
    greedy: bool


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine is doing, for a health page and metrics."""

    running: int
    waiting: int
    slots: int
    steps: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    swaps: int
