"""The policy gradient that all practice shares: groups of tries, clipped ratios, one loss over the tokens of a step.

The tries of a group are compared with each other: advantage = reward - mean of the group, not divided by its spread,
so that nearly solved and nearly hopeless problems are not blown up (GRPO, arXiv:2402.03300; Dr. GRPO,
arXiv:2503.20783). The loss is averaged over the drawn tokens of the step (DAPO, arXiv:2503.14476), and its ratio to the
log-probs that the tokens were drawn with is clipped, upwards a little later than downwards (the same); so tries of a
policy that is a few updates old count with their importance. A KL penalty to the starting model is an option (k3,
Schulman 2020). A group whose rewards are all equal has no advantage and should be left out.

What all rows of a batch begin with, such as a system prompt and tools, is computed once for the batch, with its
gradient; of a transformers model also what the tries of each group begin with. Limit: rows are whole in memory, in
micro-batches of like lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from melete.llm.distributed import SINGLE, World
from melete.llm.learner import Beginnings, Learner, Prefix
from melete.llm.loss import IGNORE
from melete.llm.merge import Row

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
"""Bounds of the ratio, 1 - low and 1 + high, as in DAPO."""
MICRO_TOKENS = {"cpu": 8192, "cuda": 65536}
"""Tokens of one forward pass, padding included."""
MOST_PADDING = 384
"""Padding of a forward pass, in tokens, beyond which one pass more is cheaper."""
WORTH_SHARING = 16
"""Tokens of a common beginning below which a pass of its own does not pay."""
Losses = Callable[[Tensor, Tensor], Tensor]
Weighted = tuple[Row, float]
"""A row and the advantage of its try."""


@dataclass(frozen=True)
class Batch:
    """Rows side by side (B, T): inputs, targets (-1 where nothing was drawn), the log-probs drawn with, the advantages
    (B, 1), and what stands before the rows, None if nothing is shared."""

    tokens: Tensor
    targets: Tensor
    drawn: Tensor
    advantages: Tensor
    prefix: Prefix | None = None


def improve(
    learner: Learner,
    groups: Sequence[Sequence[Weighted]],
    scale: float,
    *,
    updates: int = 1,
    kl: float = 0.0,
    world: World = SINGLE,
    reference: Losses | None = None,
) -> dict[str, float]:
    """Moves the weights along the advantages; nothing moves where there is no row.

    Args:
        learner: the policy.
        groups: of this rank; the rows of a group stay in one optimizer step.
        scale: the schedule's factor of the learning rates.
        updates: optimizer steps that the groups are split over.
        kl: weight of the KL penalty.
        world: the ranks that train together.
        reference: token losses of the starting model, for the KL penalty.

    Returns:
        Gradient norm, share of clipped tokens, mean gap between the log-probs drawn with and the learner's, and KL.
    """
    device = learner.lm.device
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    norm = 0.0
    for part in range(updates):
        own = groups[part::updates]
        count = torch.tensor(sum(row.drawn for group in own for row, _ in group), device=device)
        total = int(world.sum(count).item())
        if total == 0:
            continue
        for batch in batches_of(own, device, "none" if reference is not None else learner.beginnings):
            loss, parts = policy_loss(learner, batch, kl, reference)
            (loss * (world.size / total)).backward()  # type: ignore[no-untyped-call]
            sums += parts
        norm = max(norm, learner.step(scale))
    clipped, gap, divergence, tokens = (float(value) for value in world.sum(sums))
    tokens = max(1.0, tokens)
    figures = {"gradient_norm": norm, "clipped": clipped / tokens, "engine_gap": gap / tokens}
    return {**figures, "kl": divergence / tokens} if kl else figures


def policy_loss(learner: Learner, batch: Batch, kl: float, reference: Losses | None) -> tuple[Tensor, Tensor]:
    """Clipped surrogate summed over drawn tokens, and (4,) sums of clipped tokens, gap, KL and tokens."""
    mask = batch.targets != IGNORE
    logprobs = -learner.token_losses(batch.tokens, batch.targets, batch.prefix)
    ratio = torch.where(mask, logprobs - batch.drawn, 0.0).exp()
    bounded = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    losses = -torch.minimum(ratio * batch.advantages, bounded * batch.advantages) * mask
    divergence = torch.zeros_like(losses)
    if reference is not None:
        with torch.no_grad():
            other = -reference(batch.tokens, batch.targets)
        difference = torch.where(mask, other - logprobs, 0.0)
        divergence = difference.exp() - 1 - difference
        losses = losses + kl * divergence
    gap = (logprobs.detach() - batch.drawn).abs() * mask
    clipped = (ratio * batch.advantages > bounded * batch.advantages) & mask
    figures = torch.stack([clipped.sum(), gap.sum(), divergence.detach().sum(), mask.sum()])
    return losses.sum(), figures.double()


def batches_of(
    groups: Sequence[Sequence[Weighted]], device: torch.device, beginnings: Beginnings
) -> list[Batch]:
    """Micro-batches of all rows; what they begin with in common is computed once, per group if the model can."""
    flat = [entry for group in groups for entry in group]
    shared = min((_common([row for row, _ in group]) for group in groups), default=0)
    if beginnings != "many" or not shared:
        return micro_batches(flat, device, share=beginnings != "none")
    most = MICRO_TOKENS.get(device.type, 8192)
    parts: list[list[Sequence[Weighted]]] = []
    for group in sorted(groups, key=lambda group: -max(len(row) for row, _ in group)):
        # Sorted from the longest: the first group of a part sets its width.
        width = max(len(row) for row, _ in (parts[-1][0] if parts else group)) - 1 - shared
        if parts and (sum(map(len, parts[-1])) + len(group)) * width <= most:
            parts[-1].append(group)
        else:
            parts.append([group])
    return [_batch(part, shared, device) for part in parts]


def micro_batches(rows: Sequence[Weighted], device: torch.device, share: bool = False) -> list[Batch]:
    """Rows of like lengths together, padded on the right; their common beginning apart if `share`."""
    if not rows:
        return []
    shared = _common([row for row, _ in rows]) if share else 0
    most = MICRO_TOKENS.get(device.type, 8192)
    batches: list[list[Weighted]] = []
    padding = 0
    for entry in sorted(rows, key=lambda entry: -len(entry[0])):
        # Sorted from the longest: the first of a batch sets its width.
        padding += len(batches[-1][0][0]) - len(entry[0]) if batches else 0
        if (
            batches
            and padding <= MOST_PADDING
            and (len(batches[-1]) + 1) * (len(batches[-1][0][0]) - 1 - shared) <= most
        ):
            batches[-1].append(entry)
        else:
            batches.append([entry])
            padding = 0
    return [_batch([batch], shared, device) for batch in batches]


def _common(rows: Sequence[Row]) -> int:
    """Tokens that all rows begin with and none of which was drawn; a row keeps at least one of its own before those."""
    first = rows[0].tokens
    length = min(int((~np.isnan(row.logprobs)).argmax()) for row in rows) - 1
    for row in rows:
        different = np.flatnonzero(row.tokens[:length] != first[:length])
        length = int(different[0]) if len(different) else length
    return length if length >= WORTH_SHARING else 0


def _batch(groups: Sequence[Sequence[Weighted]], shared: int, device: torch.device) -> Batch:
    """Rows side by side; each group's first `shared` tokens, the same in all its rows, are kept once."""
    rows = [entry for group in groups for entry in group]
    shape = (len(rows), max(len(row) for row, _ in rows) - 1 - shared)
    tokens, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORE, dtype=np.int64)
    drawn = np.zeros(shape, dtype=np.float32)
    for i, (row, _) in enumerate(rows):
        n = len(row) - 1 - shared
        own = ~np.isnan(row.logprobs[1 + shared :])
        tokens[i, :n] = row.tokens[shared:-1]
        targets[i, :n] = np.where(own, row.tokens[1 + shared :], IGNORE)
        drawn[i, :n] = np.where(own, row.logprobs[1 + shared :], 0.0)
    advantages = np.array([[advantage] for _, advantage in rows], dtype=np.float32)

    def put(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    prefix = None
    if shared:
        ids = np.stack([group[0][0].tokens[:shared] for group in groups]).astype(np.int64)
        of = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        prefix = Prefix(put(ids), put(of))
    return Batch(put(tokens), put(targets), put(drawn), put(advantages), prefix)


class Draws:
    """Which problems to try: those whose success is uncertain come more often, and none is ever given up.

    The chance of a problem is p(1 - p) of its estimated success rate p, with one success and one failure assumed.
    """

    def __init__(self, count: int, seed: int, position: dict[str, list[int]] | None = None) -> None:
        self.seed = seed
        self.tries, self.solved = np.zeros(count), np.zeros(count)
        for index, (tries, solved) in (position or {}).items():
            self.tries[int(index)], self.solved[int(index)] = tries, solved

    @property
    def position(self) -> dict[str, list[int]]:
        """Tries and solutions by problem; plain JSON."""
        return {str(i): [int(self.tries[i]), int(self.solved[i])] for i in np.flatnonzero(self.tries)}

    def choose(self, step: int, count: int) -> list[int]:
        """Different problems for a step; a function of the seed, the step and what was learned."""
        rate = (self.solved + 1) / (self.tries + 2)
        chance = rate * (1 - rate)
        generator = np.random.default_rng([self.seed, step])
        size = min(count, len(chance))
        return [int(i) for i in generator.choice(len(chance), size, replace=False, p=chance / chance.sum())]

    def learn(self, outcomes: Sequence[tuple[int, Sequence[float]]]) -> None:
        """Takes the results of a step by problem; 1 or more is a success."""
        for index, results in outcomes:
            self.tries[index] += len(results)
            self.solved[index] += sum(result >= 1.0 for result in results)
