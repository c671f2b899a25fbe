"""Decides what each step of the model computes, and hands every request its tokens.

A step, in order: new weights go in; cancelled requests leave; waiting requests take free slots, reusing what a slot
has already computed of their prompt; up to `prefill_chunk` prompt tokens are computed; every running request decodes
one token, which its reader sees at once. A request never waits for another to end, only for a slot.

Decisions: a long prompt is computed in chunks between decode steps, so running streams go on; a request whose
prompt begins like one that is being computed waits for that one and copies; running rows are kept dense by moving
the last into a gap. One thread at a time calls `step`; `add`, `offer` and cancelling are safe from any.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from melete.llm.engine.cache import DecodePass, PrefillPass, Segment
from melete.llm.engine.graphs import GraphedDecode
from melete.llm.engine.request import GenerationRequest, Request, ScoreRequest
from melete.llm.engine.runner import Runner
from melete.llm.engine.sampling import BatchSampler
from melete.llm.engine.slots import SHORTEST_REUSE, SlotTable, common_prefix

log = logging.getLogger(__name__)


class Scheduler:
    """The requests of one runner.

    Args:
        runner: the model with its cache.
        prefill_chunk: most prompt tokens of a step.

    Attributes:
        changed: notified when there is something to do; guards `waiting` and offered weights.
        waiting: requests without a slot, in order.
        mean_duration_s: moving average of the time from slot to end.
        counts: steps, prompt, cached and generated tokens, swaps.
    """

    def __init__(self, runner: Runner, prefill_chunk: int) -> None:
        self.runner = runner
        self.prefill_chunk = prefill_chunk
        self.changed = threading.Condition()
        self.waiting: deque[Request] = deque()
        self.mean_duration_s = 1.0
        self.counts: Counter[str] = Counter()
        self._device = runner.cache.device
        self._table = SlotTable(runner.cache.shape.slots)
        self._graphs = GraphedDecode(runner) if self._device.type == "cuda" else None
        self._prefilling: list[Request] = []
        self._running: dict[int, GenerationRequest] = {}
        self._sampler: BatchSampler | None = None
        self._offered: deque[tuple[Any, threading.Event]] = deque()

    @property
    def active(self) -> int:
        """Requests that have a slot."""
        return len(self._running) + len(self._prefilling)

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return not (self.waiting or self._offered or self._prefilling or self._running)

    def add(self, requests: Iterable[Request]) -> None:
        """Puts requests at the end of the line."""
        with self.changed:
            self.waiting.extend(requests)
            self.changed.notify_all()

    def offer(self, weights: Any) -> threading.Event:
        """Weights that `Runner.prepare` made, for the next step; the event is set once they are in use."""
        done = threading.Event()
        with self.changed:
            self._offered.append((weights, done))
            self.changed.notify_all()
        return done

    def cancel_all(self) -> None:
        """Ends every request as cancelled."""
        self.take_weights()
        with self.changed:
            waiting = list(self.waiting)
            self.waiting.clear()
        for request in [*self._running.values(), *self._prefilling, *waiting]:
            self._drop(request)

    def fail_all(self, error: str) -> None:
        """Ends every request that has a slot with an error."""
        for request in [*self._running.values(), *self._prefilling]:
            self._fail(request, error)

    def take_weights(self) -> None:
        """Puts offered weights in use."""
        while self._offered:
            with self.changed:
                weights, done = self._offered.popleft()
            self.runner.use(weights)
            self._table.forget()
            if self._graphs is not None:
                self._graphs.drop()
            self.counts["swaps"] += 1
            done.set()

    @torch.inference_mode()
    def step(self) -> None:
        """See the head of this file."""
        self.take_weights()
        self._drop_cancelled()
        self._admit()
        self.counts["steps"] += 1
        if plan := self._plan_prefill():
            with self._failing([request for request, _ in plan]):
                self._prefill(plan)
        if self._running:
            if not self.waiting and not self._prefilling:
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

    def _drop_cancelled(self) -> None:
        with self.changed:
            given_up = [request for request in self.waiting if request.cancelled]
            for request in given_up:
                self.waiting.remove(request)
        given_up += [r for r in (*self._running.values(), *self._prefilling) if r.cancelled]
        for request in given_up:
            self._drop(request)

    def _admit(self) -> None:
        """Gives waiting requests free slots, in order, passing over those that should wait for a shared beginning."""
        later: list[Request] = []
        while self.waiting and self._table.any_free:
            with self.changed:
                request = self.waiting.popleft()
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
            self.counts["cached"] += shared
            self._prefilling.append(request)
        with self.changed:
            self.waiting.extendleft(reversed(later))

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
        logits = self.runner.forward(
            self._tensor(tokens), self._tensor(positions), PrefillPass(cache, segments), self._tensor(select)
        )
        self.counts["prompt"] += len(tokens)
        row = 0
        first_tokens: list[tuple[GenerationRequest, int]] = []
        for request, count in plan:
            begin, request.done = request.done, request.done + count
            self._table[request.slot].ids += request.prompt[begin : request.done]
            wanted = max(0, request.done - max(request.first_logit, begin))
            if isinstance(request, ScoreRequest) and wanted:
                self._score_rows(request, logits[row : row + wanted])
            elif isinstance(request, GenerationRequest) and wanted:
                first_tokens.append((request, row))
            row += wanted
        if first_tokens:
            self._begin_decoding(
                [request for request, _ in first_tokens], logits[[row for _, row in first_tokens]]
            )

    def _score_rows(self, request: ScoreRequest, logits: torch.Tensor) -> None:
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

    def _begin_decoding(self, requests: list[GenerationRequest], logits: torch.Tensor) -> None:
        for request in requests:
            self.runner.cache.fill_rings(request.slot, len(request.prompt))
            self._prefilling.remove(request)
            self._running[request.slot] = request
        self._sampler = None
        self._sample(requests, logits, BatchSampler([request.sampler for request in requests], self._device))

    def _decode(self) -> None:
        """One token for every running request."""
        cache, context = self.runner.cache, self.runner.cache.shape.context
        if self._sampler is None:
            self._running = dict(sorted(self._running.items()))
            samplers = [request.sampler for request in self._running.values()]
            self._sampler = BatchSampler(samplers, self._device)
        rows = max(self._running) + 1
        tokens, positions = [0] * rows, [context] * rows
        for slot, request in self._running.items():
            tokens[slot], positions[slot] = request.last_token, len(self._table[slot].ids)
        lengths = [0 if position == context else position + 1 for position in positions]
        cache.clean(max(lengths))
        logits = self._graphs(tokens, positions, max(lengths)) if self._graphs is not None else None
        if logits is None:
            at = self._tensor(positions)
            step = DecodePass(cache, at, cache.spans(lengths))
            logits = self.runner.forward(self._tensor(tokens), at, step, None)
        for slot in self._running:
            self._table[slot].ids.append(tokens[slot])
        requests = list(self._running.values())
        if len(requests) < rows:
            logits = logits.index_select(0, self._tensor(list(self._running)))
        self._sample(requests, logits, self._sampler)

    def _sample(self, requests: list[GenerationRequest], logits: torch.Tensor, sampler: BatchSampler) -> None:
        """Chooses a token for each request and hands it over; rows of `logits` are the requests in order."""
        choice = sampler.choose(logits)
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
            self.counts["generated"] += 1
            if reason is not None:
                took = time.monotonic() - request.started
                self.mean_duration_s += 0.1 * (took - self.mean_duration_s)
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
        return torch.tensor(numbers, dtype=torch.long, device=self._device)
