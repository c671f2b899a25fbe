"""The engine: many requests of different lengths share each step of one model.

`Engine` is what callers hold: it checks requests, runs the thread that steps the model or steps it in place, and
carries new weights to it. What a step computes is decided in `scheduler.py`, how in the model's runner.

Limits: one model on one device; prompt and completion together are bound by the context.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from melete.errors import ConfigError, EngineFull, MeleteError
from melete.llm.engine.api import Completion, EngineStats, Generation, Sampling, Scored, Token
from melete.llm.engine.request import GenerationRequest, Request, ScoreRequest
from melete.llm.engine.runner import make_runner
from melete.llm.engine.sampling import RowSampler
from melete.llm.engine.scheduler import Scheduler
from melete.llm.engine.text import TextSource

if TYPE_CHECKING:
    from melete.llm.lm import LM

log = logging.getLogger(__name__)

PREFILL_CHUNK = {"cpu": 256, "cuda": 2048}
"""Prompt tokens computed between two decode steps: about the time of a few of those."""


class Engine:
    """Runs one model for many requests at once.

    Use it in one of three ways: `generate` for a list of prompts; `start()`, then `submit` from any thread; or `submit`
    and `step` in turns from one thread.

    Args:
        lm: what `melete.llm.lm.load` returns (`model`, `tokenizer`, `chat`, `context`, `kind`).
        slots: most requests that run at once (rows of the KV cache).
        context: most tokens of prompt and completion together; None takes the model's, or as much of it as half of
            the free memory holds for every slot (`Engine.context` says what it became).
        device: where to run; None takes the model's.
        dtype: dtype of the weights; None takes the fastest sound one for the device.
        waiting: most requests that may wait for a slot before `submit` raises `EngineFull`.
        prefill_chunk: most prompt tokens computed between two decode steps; None takes the device's default.

    Raises:
        ConfigError: a context longer than the model's, no slots, a model that cannot be run, or a cache that does
            not fit into memory.
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
        prefill_chunk: int | None = None,
    ) -> None:
        if not 2 <= (lm.context if context is None else context) <= lm.context or slots < 1:
            raise ConfigError(
                f"An engine with a context of {context or lm.context:,} and {slots} slots cannot be made.",
                allowed=f"The model's context is {lm.context:,}; at least one slot.",
            )
        self.device = torch.device(device) if device is not None else next(lm.model.parameters()).device
        self.runner = make_runner(lm, slots, context, self.device, dtype)
        self.context = self.runner.cache.shape.context
        self.waiting_limit = waiting
        self._stop_ids = frozenset(getattr(lm.chat, "stop_ids", ()) or ())
        self._texts = TextSource(lm)
        self._slots = slots
        self._scheduler = Scheduler(self.runner, prefill_chunk or PREFILL_CHUNK.get(self.device.type, 512))
        self._stepping = threading.Lock()  # held by whoever steps the model
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        """Starts the thread that steps the model."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._loop, name="melete-engine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread; requests that have not ended do so as `cancelled`."""
        if self._thread is not None:
            with self._scheduler.changed:
                self._stopping = True
                self._scheduler.changed.notify_all()
            self._thread.join()
            self._thread = None
        with self._stepping:
            self._scheduler.cancel_all()

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
        request = self._request(prompt_ids, sampling or Sampling(), on_token)
        scheduler = self._scheduler
        with scheduler.changed:
            waiting = len(scheduler.waiting)
            if waiting >= self.waiting_limit:
                raise EngineFull(waiting, max(1.0, waiting / self._slots * scheduler.mean_duration_s))
            scheduler.add([request])
        return request.generation

    def step(self) -> bool:
        """Makes one step in place, for a caller who drives the engine himself; False if there is nothing to do.

        The same requests added between the same steps give the same tokens, whatever the time.
        """
        with self._stepping:
            if self._scheduler.idle:
                return False
            self._scheduler.step()
            return True

    def generate(
        self, prompts: Sequence[list[int]], sampling: Sampling | Sequence[Sampling] | None = None
    ) -> list[Completion]:
        """Completes a list of prompts of any lengths and returns when all are done, in the order given.

        The line's limit does not apply here. One `Sampling` serves all prompts; its seed is then increased by the
        prompt's place in the list, so that equal prompts get different samples.

        Raises:
            ConfigError: a prompt that `submit` would refuse; nothing is run then.
        """
        if sampling is None or isinstance(sampling, Sampling):
            one = sampling or Sampling()
            each = [one if one.seed is None else replace(one, seed=one.seed + i) for i in range(len(prompts))]
        else:
            each = list(sampling)
        requests = [self._request(p, s, None) for p, s in zip(prompts, each, strict=True)]
        # Rows of like length side by side read less, and the longest first leaves the least for the end.
        self._complete(sorted(requests, key=lambda request: -len(request.prompt)))
        return [request.generation.completion() for request in requests]

    def score(self, sequences: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
        """Log-probs of continuations: `sequences` holds pairs of context ids and continuation ids, neither empty.

        Contexts that begin alike share that part's computation, and only the continuation's positions go through
        the output head.

        Raises:
            ConfigError: an empty part, ids outside the vocabulary, or more tokens than the context.
            MeleteError: the model failed.
        """
        requests = [self._score_request(context, continuation) for context, continuation in sequences]
        # Neighbours in sorted order share the most, and shared slots are still there when it is their turn.
        self._complete(sorted(requests, key=lambda request: request.prompt))
        for request in requests:
            if request.error is not None:
                raise MeleteError(f"A sequence could not be scored: {request.error}.")
        return [request.result() for request in requests]

    def swap(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Replaces the weights between two steps: running requests go on with what they have computed.

        Nothing computed with the old weights is reused by later requests. Safe from any thread; returns when the
        new weights are in use.

        Raises:
            CheckpointError: the state dict does not fit the model; nothing changes then.
        """
        done = self._scheduler.offer(self.runner.prepare(state_dict))
        while not done.wait(0.0 if self._thread is None else 0.05):
            if self._thread is None and self._stepping.acquire(timeout=0.05):
                self._scheduler.take_weights()
                self._stepping.release()

    def stats(self) -> EngineStats:
        """Counters since the start."""
        scheduler, counts = self._scheduler, self._scheduler.counts
        return EngineStats(
            running=scheduler.active,
            waiting=len(scheduler.waiting),
            slots=self._slots,
            steps=counts["steps"],
            prompt_tokens=counts["prompt"],
            cached_tokens=counts["cached"],
            generated_tokens=counts["generated"],
            swaps=counts["swaps"],
        )

    def _request(
        self, prompt: list[int], sampling: Sampling, on_token: Callable[[Token | None], None] | None
    ) -> GenerationRequest:
        self._check(prompt, self.context - 1)
        room = self.context - len(prompt)
        return GenerationRequest(
            list(prompt),
            len(prompt) - 1,
            generation=Generation(list(prompt), sampling, on_token),
            sampler=RowSampler(sampling),
            text=self._texts.stream(sampling.stop),
            stop_ids=self._stop_ids if sampling.stop_ids is None else frozenset(sampling.stop_ids),
            budget=room if sampling.max_tokens is None else min(room, sampling.max_tokens),
        )

    def _score_request(self, context: list[int], continuation: list[int]) -> ScoreRequest:
        if not context or not continuation:
            raise ConfigError(
                "A context and a continuation to score must hold at least one token each.",
                next_step="Put the beginning-of-text token before a text that is scored from its start.",
            )
        ids = [*context, *continuation]
        self._check(ids, self.context + 1)
        return ScoreRequest(ids[:-1], len(context) - 1, targets=list(continuation))

    def _check(self, ids: list[int], most: int) -> None:
        if not 1 <= len(ids) <= most:
            raise ConfigError(
                f"The prompt has {len(ids):,} tokens.",
                allowed=f"From 1 to {most:,}: the context holds {self.context:,}, the answer included.",
                next_step="Shorten the prompt.",
            )
        if min(ids) < 0 or max(ids) >= self.runner.vocab_size:
            raise ConfigError(
                f"The prompt holds the token id {min(ids) if min(ids) < 0 else max(ids)}.",
                allowed=f"Ids of this model are 0 to {self.runner.vocab_size - 1:,}.",
            )

    def _complete(self, requests: Sequence[Request]) -> None:
        """Runs requests to their ends: by the engine's thread if it runs, else by stepping here."""
        self._scheduler.add(requests)
        threaded = self._thread is not None
        try:
            for request in requests:
                while not request.finished:
                    if threaded:
                        request.wait()
                    else:
                        with self._stepping:
                            self._scheduler.step()
        finally:
            for request in requests:
                request.abandoned = True  # an interrupt from the keyboard leaves nothing running behind

    def _loop(self) -> None:
        scheduler = self._scheduler
        while True:
            with scheduler.changed:
                scheduler.changed.wait_for(lambda: self._stopping or not scheduler.idle)
            if self._stopping:
                return
            with self._stepping:
                try:
                    scheduler.step()
                except (
                    Exception
                ) as error:  # a fault of the engine itself must not leave readers waiting for ever
                    log.exception("The engine failed.")
                    scheduler.fail_all(f"The engine failed: {type(error).__name__}: {error}")


def score(lm: LM, sequences: Sequence[tuple[list[int], list[int]]], *, slots: int = 16) -> list[Scored]:
    """`Engine.score` for a single call; for several on the same weights keep one `Engine`."""
    return Engine(lm, slots=slots).score(sequences)
