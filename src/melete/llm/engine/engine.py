"""The engine: many requests of different lengths share each step of one model.

Signatures first; the loop behind them follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from melete.llm.engine.api import Completion, EngineStats, Generation, Sampling, Scored, Token

if TYPE_CHECKING:
    import torch

    from melete.llm.lm import LM


class Engine:
    """Runs one model for many requests at once.

    Use it in one of two ways: `generate` for a list of prompts, or `start()`, then `submit` from any thread.

    Args:
        lm: what `melete.llm.lm.load` returns (`model`, `tokenizer`, `chat`, `context`, `kind`).
        slots: most requests that run at once (rows of the KV cache).
        context: most tokens of prompt and completion together; None takes the model's.
        device: where to run; None takes the model's.
        dtype: dtype of the weights and cache; None takes the fastest sound one for the device.
        waiting: most requests that may wait for a slot before `submit` raises `EngineFull`.
        prefill_chunk: most prompt tokens computed between two decode steps, so that a long prompt does not stall
            running streams.
        compile: "auto" compiles the decode step where that pays; "off" never does.
    """

    def __init__(
        self,
        lm: LM,
        *,
        slots: int = 32,
        context: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        waiting: int = 128,
        prefill_chunk: int = 512,
        compile: str = "auto",
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Starts the thread that steps the model."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends the thread; requests that still run end as `cancelled`."""
        raise NotImplementedError

    def submit(
        self,
        prompt_ids: list[int],
        sampling: Sampling | None = None,
        on_token: Callable[[Token | None], None] | None = None,
    ) -> Generation:
        """Queues a request; safe from any thread, before or after `start`.

        Args:
            prompt_ids: at least one token.
            sampling: how to sample.
            on_token: called in the engine's thread with each token, then once with None; it must return at once.

        Raises:
            ConfigError: the prompt is empty, does not fit the context, or has ids outside the vocabulary.
            EngineFull: too many requests wait already.
        """
        raise NotImplementedError

    def generate(
        self, prompts: Sequence[list[int]], sampling: Sampling | Sequence[Sampling] | None = None
    ) -> list[Completion]:
        """Completes a list of prompts of any lengths and returns when all are done, in the order given.

        The line's limit does not apply here. One `Sampling` serves all prompts, but a seed is then varied by the
        prompt's place in the list, so that equal prompts get different samples.
        """
        raise NotImplementedError

    def score(self, sequences: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
        """Log-probabilities of given continuations after given contexts; shared prefixes are computed once."""
        raise NotImplementedError

    def swap(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Replaces the weights between two steps; running requests go on with their cache, the prefix store is emptied.

        Safe from any thread; returns when the new weights are in use. Missing or misshapen tensors change nothing.

        Raises:
            CheckpointError: the state dict does not fit the model.
        """
        raise NotImplementedError

    def stats(self) -> EngineStats:
        """Counters since the start."""
        raise NotImplementedError


def score(lm: LM, sequences: Sequence[tuple[list[int], list[int]]], *, slots: int = 16) -> list[Scored]:
    """Log-probabilities of continuations: `sequences` holds `(context ids, continuation ids)` pairs.

    Contexts that begin alike share that part's computation, and only continuation positions go through the output
    head. For several calls on the same weights keep one `Engine` and call its `score`.
    """
    raise NotImplementedError
