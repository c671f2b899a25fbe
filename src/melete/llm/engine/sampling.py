"""Chooses the next token of every row of a batch at once, each row by its own options and its own random numbers.

A row draws one uniform number per token from its own generator and looks it up in its cumulative distribution, so
what a seed gives does not depend on the rest of the batch. Rows with top-k or top-p search only their most probable
tokens; unrestricted rows walk the whole vocabulary in order of id. Log-probs are of the untouched distribution.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from melete.llm.engine.api import Sampling

NUCLEUS = 256
"""Most probable tokens that top-p looks at first; a flatter distribution falls back to a full sort."""


class RowSampler:
    """The sampling state of one request: its options and its random numbers."""

    __slots__ = ("random", "sampling")

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.random = random.Random(sampling.seed)


@dataclass(slots=True)
class Choice:
    """What a step chose for each row.

    Attributes:
        ids: the tokens.
        errors: per row what went wrong, or None: logits that are not numbers, a constraint that failed.
        logprobs: per row the chosen token's log-prob; empty if no row asked.
        top: per row the most probable tokens; empty if no row asked.
    """

    ids: list[int]
    errors: list[str | None]
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple[tuple[int, float], ...]] = field(default_factory=list)


class BatchSampler:
    """Samples one fixed set of rows; built anew only when the set changes."""

    def __init__(self, rows: Sequence[RowSampler], device: torch.device) -> None:
        options = [row.sampling for row in rows]
        self.rows = list(rows)
        self.device = device
        self.any_logprobs = any(o.logprobs is not None for o in options)
        self.most_top = max((o.logprobs or 0 for o in options), default=0)
        self.constrained = [i for i, o in enumerate(options) if o.constraint is not None]
        self.drawn = [i for i, o in enumerate(options) if o.temperature > 0]
        limited = {i for i in self.drawn if options[i].top_k > 0 or options[i].top_p < 1}
        self._plain = [i for i in self.drawn if i not in limited]
        self._limited = sorted(limited)
        self._all_greedy = not self.drawn and not self.any_logprobs and not self.constrained
        self._temperature = self._column([o.temperature or 1.0 for o in options])
        self._top_k = [options[i].top_k for i in self._limited]
        self._top_k_column = self._column([float(k or 1 << 30) for k in self._top_k])
        self._top_p = self._column([options[i].top_p for i in self._limited])

    def choose(self, logits: Tensor) -> Choice:
        """Chooses a token per row of logits (B, V)."""
        if self._all_greedy:
            ids, values = _greedy(logits)
            return Choice(ids, [None if _finite(value) else _NOT_FINITE for value in values])
        errors: list[str | None] = [None] * len(self.rows)
        allowed = self._constrain(logits, errors) if self.constrained else logits
        if len(self.drawn) == len(self.rows):
            ids = [0] * len(self.rows)
        else:
            ids, values = _greedy(allowed)
            errors = [e or (None if _finite(v) else _NOT_FINITE) for e, v in zip(errors, values, strict=True)]
        self._draw(allowed, self._plain, self._plain_tokens, ids, errors)
        self._draw(allowed, self._limited, self._limited_tokens, ids, errors)
        choice = Choice(ids, errors)
        if self.any_logprobs:
            self._add_logprobs(choice, logits)
        return choice

    def _draw(
        self,
        logits: Tensor,
        rows: list[int],
        tokens_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        ids: list[int],
        errors: list[str | None],
    ) -> None:
        if not rows:
            return
        uniform = self._column([self.rows[i].random.random() for i in rows])
        if len(rows) < len(self.rows):
            index = torch.tensor(rows, device=self.device)
            logits, temperature = logits.index_select(0, index), self._temperature.index_select(0, index)
        else:
            temperature = self._temperature
        tokens, total = tokens_of(logits / temperature, uniform)
        for i, token, mass in zip(rows, tokens.tolist(), total.tolist(), strict=True):
            if _finite(mass):
                ids[i] = token
            else:
                errors[i] = errors[i] or _NOT_FINITE

    @staticmethod
    def _plain_tokens(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (n,) and total mass (n,) of logits (n, V) that are already divided by the temperature."""
        place, total = _look_up(logits.softmax(-1), uniform)
        return place[:, 0], total

    def _limited_tokens(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The same among each row's most probable tokens, in order of probability."""
        V = logits.size(-1)
        need = max(k or NUCLEUS for k in self._top_k)
        log_mass = logits.logsumexp(-1, keepdim=True)
        values, order = logits.topk(min(need, V), -1)
        probs = (values - log_mass).exp()
        if min(need, V) < V and 0 in self._top_k:
            short = (probs.sum(-1, keepdim=True) < self._top_p) & (self._top_k_column > V)
            if bool(short.any()):
                values, order = logits.sort(-1, descending=True)
                probs = (values - log_mass).exp()
        probs.masked_fill_(torch.arange(probs.size(-1), device=self.device) >= self._top_k_column, 0.0)
        # top-p counts within what top-k left, as the usual chain of filters does.
        probs /= probs.sum(-1, keepdim=True).where(self._top_k_column <= V, 1.0)
        before = probs.cumsum(-1) - probs
        probs.masked_fill_((before >= self._top_p) & (before > 0), 0.0)
        place, total = _look_up(probs, uniform)
        return order.gather(1, place)[:, 0], total

    def _constrain(self, logits: Tensor, errors: list[str | None]) -> Tensor:
        allowed = logits.clone()
        for i in self.constrained:
            constraint = self.rows[i].sampling.constraint
            assert constraint is not None
            try:
                mask = constraint.mask()
                if mask is not None:
                    fit = torch.zeros(logits.size(-1), dtype=torch.bool)
                    fit[: mask.numel()] = mask[: fit.numel()]
                    allowed[i].masked_fill_(~fit.to(self.device), -torch.inf)
            except Exception as error:  # a caller's code: its failure ends that request only
                errors[i] = f"The constraint failed: {error}"
        return allowed

    def _add_logprobs(self, choice: Choice, logits: Tensor) -> None:
        log_mass = logits.logsumexp(-1, keepdim=True)
        chosen = torch.tensor(choice.ids, device=self.device)[:, None]
        choice.logprobs = (logits.gather(1, chosen) - log_mass)[:, 0].tolist()
        choice.top = [()] * len(self.rows)
        if self.most_top:
            values, tokens = logits.topk(min(self.most_top, logits.size(-1)), -1)
            pairs = zip(tokens.tolist(), (values - log_mass).tolist(), strict=True)
            for i, (row_tokens, row_values) in enumerate(pairs):
                n = self.rows[i].sampling.logprobs or 0
                choice.top[i] = tuple(zip(row_tokens[:n], row_values[:n], strict=True))

    def _column(self, numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=self.device)[:, None]


_NOT_FINITE = "The model's logits are not numbers, or nothing was allowed."


def _look_up(probs: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Places (n, 1) of uniform numbers (n, 1) in the cumulative sums of probs (n, K), and the whole sums (n,)."""
    cumulative = probs.cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    place = torch.searchsorted(cumulative, uniform * total, right=True)
    # A draw that falls on the very end by rounding takes the last place that has any mass.
    last = torch.searchsorted(cumulative, total).clamp_max_(probs.size(-1) - 1)
    return torch.minimum(place, last), total[:, 0]


def _finite(value: float) -> bool:
    return -torch.inf < value < torch.inf


def _greedy(logits: Tensor) -> tuple[list[int], list[float]]:
    """The most probable token of each row and its logit; a row with a NaN answers with it."""
    if logits.device.type == "cpu":
        array = logits.numpy()  # numpy's argmax takes a fifteenth of torch's time on the CPU
        ids = array.argmax(-1)
        return ids.tolist(), array[range(len(ids)), ids].tolist()
    values, best = logits.max(-1)
    return best.tolist(), values.tolist()
