"""The engine: many requests of different lengths share each step of one model.

A step, in order: new weights go in; cancelled requests leave; waiting requests take free slots, reusing what a slot
has already computed of their prompt; up to `prefill_chunk` prompt tokens are computed; every running request decodes
one token, which its reader sees at once. A request never waits for another to end, only for a slot.

Decisions: a long prompt is computed in chunks between decode steps, so running streams go on; a request whose
prompt begins like one that is being computed waits for that one and copies; running rows are kept dense by moving
the last into a gap. One thread at a time steps the model; everything else may be called from any thread.

Limits: one model on one device; what is sampled is bound by the context, prompt and completion together.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from melete.errors import ConfigError, MeleteError
from melete.llm.engine.api import Completion, EngineFull, EngineStats, Generation, Sampling, Scored, Token
from melete.llm.engine.cache import DecodePass, PrefillPass, Segment
from melete.llm.engine.graphs import GraphedDecode
from melete.llm.engine.request import GenerationRequest, Request, ScoreRequest
from melete.llm.engine.runner import make_runner
from melete.llm.engine.sampling import BatchSampler, RowSampler
from melete.llm.engine.slots import SHORTEST_REUSE, SlotTable, common_prefix
from melete.llm.engine.text import TextSource

if TYPE_CHECKING:
    from melete.llm.lm import LM

log = logging.getLogger(__name__)

PREFILL_CHUNK = {"cpu": 256, "cuda": 2048}
"""Prompt tokens computed between two decode steps: about the time of a few of those."""


class Engine:
    """Runs one model for many requests at once.

    Use it in one of two ways: `generate` for a list of prompts, or `start()`, then `submit` from any thread.

    Args:
        lm: what `melete.llm.lm.load` returns (`model`, `tokenizer`, `chat`, `context`, `kind`).
        slots: most requests that run at once (rows of the KV cache).
        context: most tokens of prompt and completion together; None takes the model's.
        device: where to run; None takes the model's.
        dtype: dtype of the weights; None takes the fastest sound one for the device.
        waiting: most requests that may wait for a slot before `submit` raises `EngineFull`.
        prefill_chunk: most prompt tokens computed between two decode steps; None takes the device's default.

    Raises:
        ConfigError: a context longer than the model's, or no slots.
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
        self.context = lm.context if context is None else context
        if not 2 <= self.context <= lm.context or slots < 1:
            raise ConfigError(
                f"An engine with a context of {self.context:,} and {slots} slots cannot be made.",
                allowed=f"The model's context is {lm.context:,}; at least one slot.",
            )
        self.device = torch.device(device) if device is not None else next(lm.model.parameters()).device
        self.runner = make_runner(lm, slots, self.context, self.device, dtype)
        self.waiting_limit = waiting
        self.prefill_chunk = prefill_chunk or PREFILL_CHUNK.get(self.device.type, 512)
        self._stop_ids = frozenset(getattr(lm.chat, "stop_ids", ()) or ())
        self._texts = TextSource(lm)
        self._table = SlotTable(slots)
        self._graphs = GraphedDecode(self.runner) if self.device.type == "cuda" else None
        self._waiting: deque[Request] = deque()
        self._prefilling: list[Request] = []
        self._running: dict[int, GenerationRequest] = {}
        self._sampler: BatchSampler | None = None
        self._swaps: deque[tuple[Any, threading.Event]] = deque()
        self._wake = threading.Condition()  # guards the line and the swaps
        self._stepping = threading.Lock()  # held by whoever steps the model
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._mean_duration_s = 1.0
        self._counts = {"steps": 0, "prompt": 0, "cached": 0, "generated": 0, "swaps": 0}

    def start(self) -> None:
        """Starts the thread that steps the model."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._loop, name="melete-engine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread; requests that have not ended do so as `cancelled`."""
        if self._thread is not None:
            with self._wake:
                self._stopping = True
                self._wake.notify_all()
            self._thread.join()
            self._thread = None
        with self._stepping:
            self._apply_swaps()
            for request in [*self._running.values(), *self._prefilling, *self._waiting]:
                self._drop(request)
            self._waiting.clear()

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
        with self._wake:
            if len(self._waiting) >= self.waiting_limit:
                rounds = len(self._waiting) / len(self._table.slots)
                raise EngineFull(len(self._waiting), max(1.0, rounds * self._mean_duration_s))
            self._waiting.append(request)
            self._wake.notify_all()
        return request.generation

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
        done = threading.Event()
        with self._wake:
            self._swaps.append((self.runner.prepare(state_dict), done))
            self._wake.notify_all()
        while not done.wait(0.0 if self._thread is None else 0.05):
            if self._thread is None and self._stepping.acquire(timeout=0.05):
                self._apply_swaps()
                self._stepping.release()

    def stats(self) -> EngineStats:
        """Counters since the start."""
        counts = self._counts
        return EngineStats(
            running=len(self._running) + len(self._prefilling),
            waiting=len(self._waiting),
            slots=len(self._table.slots),
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
        with self._wake:
            self._waiting.extend(requests)
            self._wake.notify_all()
        threaded = self._thread is not None
        try:
            for request in requests:
                while not request.finished:
                    if threaded:
                        request.wait()
                    else:
                        with self._stepping:
                            self._step()
        finally:
            for request in requests:
                request.abandoned = True  # an interrupt from the keyboard leaves nothing running behind

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not (
                    self._stopping or self._waiting or self._swaps or self._prefilling or self._running
                ):
                    self._wake.wait()
                if self._stopping:
                    return
            with self._stepping:
                try:
                    self._step()
                except (
                    Exception
                ) as error:  # a fault of the engine itself must not leave readers waiting for ever
                    log.exception("The engine failed.")
                    for request in [*self._running.values(), *self._prefilling]:
                        self._fail(request, f"The engine failed: {type(error).__name__}: {error}")

    @torch.inference_mode()
    def _step(self) -> None:
        self._apply_swaps()
        self._drop_cancelled()
        self._admit()
        self._counts["steps"] += 1
        if plan := self._plan_prefill():
            with self._failing([request for request, _ in plan]):
                self._prefill(plan)
        if self._running:
            if not self._waiting and not self._prefilling:
                self._close_gaps()
            with self._failing(self._running.values()):
                self._decode()

    @contextmanager
    def _failing(self, requests: Collection[Request]) -> Iterator[None]:
        """Around a part of a step: if the model fails, its requests end with an error and the engine goes on."""
        try:
            yield
        except Exception as error:  # the boundary between the model and everybody's requests
            log.exception("A step of the model failed.")
            for request in list(requests):
                self._fail(request, f"The model failed: {type(error).__name__}: {error}")

    def _apply_swaps(self) -> None:
        while self._swaps:
            with self._wake:
                weights, done = self._swaps.popleft()
            self.runner.use(weights)
            self._table.forget()
            if self._graphs is not None:
                self._graphs.drop()
            self._counts["swaps"] += 1
            done.set()

    def _drop_cancelled(self) -> None:
        with self._wake:
            given_up = [request for request in self._waiting if request.cancelled]
            for request in given_up:
                self._waiting.remove(request)
        given_up += [r for r in (*self._running.values(), *self._prefilling) if r.cancelled]
        for request in given_up:
            self._drop(request)

    def _admit(self) -> None:
        """Gives waiting requests free slots, in order, passing over those that should wait for a shared beginning."""
        later: list[Request] = []
        while self._waiting and self._table.any_free:
            with self._wake:
                request = self._waiting.popleft()
            source, shared = self._table.find(request.prompt, request.first_logit)
            coming = max(
                (common_prefix(other.prompt, request.prompt) for other in self._prefilling), default=0
            )
            if min(coming, request.first_logit) >= shared + SHORTEST_REUSE:
                later.append(request)
                continue
            slot = self._table.take(source, shared)
            if shared and slot != source:
                self.runner.cache.copy(source, slot, shared)
            request.slot, request.done = slot, shared
            request.reused(shared)
            self._counts["cached"] += shared
            self._prefilling.append(request)
        with self._wake:
            self._waiting.extendleft(reversed(later))

    def _plan_prefill(self) -> list[tuple[Request, int]]:
        """The requests whose prompts the next prefill works on, with the tokens that each gets, oldest first."""
        plan, left = [], self.prefill_chunk
        for request in self._prefilling:
            count = min(len(request.prompt) - request.done, left)
            if count > 0:
                plan.append((request, count))
                left -= count
        return plan

    def _prefill(self, plan: list[tuple[Request, int]]) -> None:
        """Computes prompt tokens; requests whose prompt is then whole sample their first token."""
        tokens: list[int] = []
        positions: list[int] = []
        segments: list[Segment] = []
        select: list[int] = []
        for request, count in plan:
            begin, end = len(tokens), request.done + count
            tokens += request.prompt[request.done : end]
            positions += range(request.done, end)
            segments.append(Segment(request.slot, request.done, begin, begin + count))
            select += range(begin + max(request.first_logit - request.done, 0), begin + count)
        cache = self.runner.cache
        cache.clean(max(positions) + 1)
        raw = self.runner.forward(
            self._tensor(tokens), self._tensor(positions), PrefillPass(cache, segments), self._tensor(select)
        )
        self._counts["prompt"] += len(tokens)
        row = 0
        first_tokens: list[tuple[GenerationRequest, int]] = []
        for request, count in plan:
            begin, request.done = request.done, request.done + count
            self._table[request.slot].ids += request.prompt[begin : request.done]
            wanted = max(0, request.done - max(request.first_logit, begin))
            if isinstance(request, ScoreRequest) and wanted:
                self._score_rows(request, raw[row : row + wanted])
            elif isinstance(request, GenerationRequest) and wanted:
                first_tokens.append((request, row))
            row += wanted
        if first_tokens:
            self._begin_decoding(
                [request for request, _ in first_tokens], raw[[row for _, row in first_tokens]]
            )

    def _score_rows(self, request: ScoreRequest, raw: torch.Tensor) -> None:
        logits = self.runner.finish(raw.clone())
        begin = len(request.logprobs)
        targets = self._tensor(request.targets[begin : begin + logits.size(0)])[:, None]
        chosen = logits.gather(1, targets)
        logprobs = chosen - logits.logsumexp(-1, keepdim=True)
        greedy = logits.argmax(-1, keepdim=True) == targets  # of equal ones the first, as in sampling
        try:
            whole = request.take(logprobs[:, 0].tolist(), greedy[:, 0].tolist())
        except ValueError as problem:
            self._fail(request, str(problem))
        else:
            if whole:
                self._leave(request)
                request.end("stop")

    def _begin_decoding(self, requests: list[GenerationRequest], raw: torch.Tensor) -> None:
        for request in requests:
            self.runner.cache.fill_rings(request.slot, len(request.prompt))
            self._prefilling.remove(request)
            self._running[request.slot] = request
        self._sampler = None
        self._sample(requests, raw, BatchSampler([request.sampler for request in requests], self.device))

    def _decode(self) -> None:
        """One token for every running request."""
        cache, context = self.runner.cache, self.context
        rows = max(self._running) + 1
        tokens, positions = [0] * rows, [context] * rows
        for slot, request in self._running.items():
            tokens[slot], positions[slot] = request.last_token, len(self._table[slot].ids)
        lengths = [0 if position == context else position + 1 for position in positions]
        cache.clean(max(lengths))
        raw = self._graphs(tokens, positions, max(lengths)) if self._graphs is not None else None
        if raw is None:
            at = self._tensor(positions)
            step = DecodePass(cache, at, cache.spans(lengths))
            raw = self.runner.forward(self._tensor(tokens), at, step, None)
        for slot in self._running:
            self._table[slot].ids.append(tokens[slot])
        requests = list(self._running.values())
        if self._sampler is None:
            self._sampler = BatchSampler([request.sampler for request in requests], self.device)
        if list(self._running) != list(range(rows)):
            raw = raw.index_select(0, self._tensor(list(self._running)))
        self._sample(requests, raw, self._sampler)

    def _sample(self, requests: list[GenerationRequest], raw: torch.Tensor, sampler: BatchSampler) -> None:
        """Chooses a token for each request and hands it over; rows of `raw` are the requests in order."""
        choice = sampler.choose(raw, self.runner.finish)
        for i, request in enumerate(requests):
            error = choice.errors[i]
            if error is not None:
                self._fail(request, error)
                continue
            wanted = request.sampler.sampling.logprobs is not None
            try:
                reason = request.accept(
                    choice.ids[i],
                    choice.logprobs[i] if wanted else float("nan"),
                    choice.top[i] if wanted else (),
                )
            except Exception as problem:  # the caller's `on_token` or constraint: only its own request ends
                self._fail(request, f"{type(problem).__name__}: {problem}")
                continue
            self._counts["generated"] += 1
            if reason is not None:
                took = time.monotonic() - request.started
                self._mean_duration_s += 0.1 * (took - self._mean_duration_s)
                self._leave(request)
                request.end(reason)

    def _close_gaps(self) -> None:
        """Moves the last running rows into gaps before them, so that a step computes no empty rows."""
        while self._running and (last := max(self._running)) >= (count := len(self._running)):
            gap = next(slot for slot in range(count) if slot not in self._running)
            length = max(len(self._table[last].ids), len(self._table[gap].ids))
            self.runner.cache.exchange(last, gap, length)
            self._table.exchange(last, gap)
            request = self._running.pop(last)
            request.slot = gap
            self._running[gap] = request
            self._sampler = None

    def _leave(self, request: Request) -> None:
        """Takes a request out of the step and frees its slot."""
        if self._running.pop(request.slot, None) is not None:
            self._sampler = None
        elif request in self._prefilling:
            self._prefilling.remove(request)
        if request.slot >= 0:
            self._table.release(request.slot)
            request.slot = -1

    def _drop(self, request: Request) -> None:
        self._leave(request)
        request.end("cancelled")

    def _fail(self, request: Request, error: str) -> None:
        """Ends a request with an error; what its slot holds may be anything, so it is wiped."""
        if request.slot >= 0:
            self.runner.cache.wipe(request.slot)
            self._table[request.slot].ids = []
        self._leave(request)
        request.end("error", error)

    def _tensor(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.device)


def score(lm: LM, sequences: Sequence[tuple[list[int], list[int]]], *, slots: int = 16) -> list[Scored]:
    """`Engine.score` for a single call; for several on the same weights keep one `Engine`."""
    return Engine(lm, slots=slots).score(sequences)
