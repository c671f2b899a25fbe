"""Muon for the matrices and AdamW for everything else, over fp32 masters, with the state sharded over ranks.

The model's parameters are in the compute dtype; each group here keeps fp32 masters of what it owns, updates them, and
writes them back, so weights are cast once a step. A group is one stacked tensor (K, …): matrices of one shape for
Muon, the rows of one table for AdamW. Rank r owns the r-th part of K: it receives that part of the gradient's sum,
holds optimizer state for that part alone, and sends the new weights to the others (ZeRO-2). One rank owns all.

Muon (Jordan 2024) orthogonalises the momentum of each matrix; here by Polar Express (Amsel et al. 2025,
arXiv:2505.16932) in bf16, with q, k and v of the fused matrix taken one by one. Weight decay is cautious: it acts
only where it has the sign of the update (arXiv:2510.12402).

A step whose gradient is zero everywhere moves nothing, neither weights nor momentum: a batch without signal (an RL
group without advantage) must not replay an old direction at full size. A gradient that is not finite moves nothing
either; `step` returns its norm and the caller stops the run.

    optimizer = build_optimizer(model, rates)
    loss.backward()
    norm = optimizer.step(scale)      # scale: the schedule's factor of every rate
    tensors = optimizer.state_tensors(); optimizer.load_state_tensors(tensors)
    weights = optimizer.master_weights()
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from melete.llm.config import Rates as Rates
from melete.llm.distributed import SINGLE, World
from melete.llm.model import GPT

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413581996377, -1.7097828382687081, 0.42323551169305323),
)
"""Coefficients of the five iterations, from the paper (its safety factor and cushion)."""


@dataclass(frozen=True)
class Piece:
    """Rows of a parameter that are one matrix; `flip` when it has more rows than columns."""

    name: str
    parameter: nn.Parameter
    start: int
    end: int
    flip: bool

    def of(self, tensor: Tensor) -> Tensor:
        """The matrix in a tensor of the parameter's shape, with no more rows than columns."""
        rows = tensor[self.start : self.end]
        return rows.T if self.flip else rows


class MuonGroup:
    """Matrices of one shape, updated together."""

    def __init__(self, name: str, pieces: list[Piece], rates: Rates, world: World) -> None:
        self.name, self.pieces, self.rates, self.world = name, pieces, rates, world
        first = pieces[0]
        tall = max(1.0, (first.end - first.start) / first.parameter.size(1))
        self.rate = rates.matrix * tall**0.5
        self.master = world.own(torch.stack([p.of(p.parameter.detach()).float() for p in pieces]))
        self.momentum = torch.zeros_like(self.master)
        self.gradient = torch.zeros(0)

    def reduce(self) -> Tensor:
        """Takes this rank's part of the gradient's sum; returns its squared norm."""
        stacked = torch.stack([p.of(_gradient(p.parameter)) for p in self.pieces])
        self.gradient = self.world.reduce_scatter(stacked).float()
        return self.gradient.square().sum()

    def update(self, scale: float) -> None:
        """Moves the owned matrices and shares the result."""
        rate, beta = self.rate * scale, self.rates.momentum
        self.momentum.lerp_(self.gradient, 1 - beta)
        change = orthogonalize(self.gradient.lerp_(self.momentum, beta)).float()
        decay = rate * self.rates.weight_decay
        if decay:
            self.master.mul_(1 - decay * (change * self.master > 0))
        self.master.sub_(change, alpha=rate)
        self.gradient = torch.zeros(0)
        self.write_back()

    def write_back(self) -> None:
        """Casts the masters into the model's parameters on every rank."""
        dtype = self.pieces[0].parameter.dtype
        for piece, matrix in zip(
            self.pieces, self.world.gather(self.master.to(dtype), len(self.pieces)), strict=True
        ):
            piece.of(piece.parameter.detach()).copy_(matrix)

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs, whole, on every rank."""
        return {f"{self.name}.momentum": self.world.gather(self.momentum, len(self.pieces))}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes the own part of what `tensors` gave, at any world size."""
        self.momentum.copy_(self.world.own(tensors[f"{self.name}.momentum"].to(self.momentum)))

    def masters(self, weights: dict[str, Tensor]) -> None:
        """Writes the fp32 masters into whole tensors by parameter name."""
        for piece, matrix in zip(self.pieces, self.world.gather(self.master, len(self.pieces)), strict=True):
            piece.of(weights[piece.name]).copy_(matrix)

    def load_masters(self, weights: dict[str, Tensor]) -> None:
        """Takes the own part of fp32 weights."""
        self.master.copy_(self.world.own(torch.stack([p.of(weights[p.name]) for p in self.pieces]).float()))
        self.write_back()


class AdamGroup:
    """The rows of one parameter under AdamW (arXiv:1711.05101), in torch's fused kernel."""

    def __init__(self, name: str, parameter: nn.Parameter, rate: float, rates: Rates, world: World) -> None:
        self.name, self.parameter, self.rate, self.world = name, parameter, rate, world
        self.master = world.own(parameter.detach().float().reshape(self._rows()))
        self.first, self.second = torch.zeros_like(self.master), torch.zeros_like(self.master)
        self.count = torch.zeros((), device=parameter.device)
        self.betas = (rates.beta1, rates.beta2)
        self.gradient = torch.zeros(0)

    def _rows(self) -> tuple[int, int]:
        rows = self.parameter.size(0) if self.parameter.ndim else 1
        return rows, self.parameter.numel() // rows

    def reduce(self) -> Tensor:
        """Takes this rank's part of the gradient's sum; returns its squared norm."""
        self.gradient = self.world.reduce_scatter(_gradient(self.parameter).reshape(self._rows())).float()
        return self.gradient.square().sum()

    def update(self, scale: float) -> None:
        """Moves the owned rows and shares the result."""
        torch._fused_adamw_(
            [self.master], [self.gradient], [self.first], [self.second], [], [self.count.add_(1)],
            lr=self.rate * scale, beta1=self.betas[0], beta2=self.betas[1], weight_decay=0.0, eps=1e-10,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        self.gradient = torch.zeros(0)
        self.write_back()

    def write_back(self) -> None:
        """Casts the master into the model's parameter on every rank."""
        whole = self.world.gather(self.master.to(self.parameter.dtype), self._rows()[0])
        self.parameter.detach().copy_(whole.view_as(self.parameter))

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs, whole, on every rank."""
        rows = self._rows()[0]
        return {
            f"{self.name}.first": self.world.gather(self.first, rows),
            f"{self.name}.second": self.world.gather(self.second, rows),
            f"{self.name}.count": self.count.clone(),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes the own part of what `tensors` gave, at any world size."""
        self.first.copy_(self.world.own(tensors[f"{self.name}.first"].to(self.first)))
        self.second.copy_(self.world.own(tensors[f"{self.name}.second"].to(self.second)))
        self.count.copy_(tensors[f"{self.name}.count"])

    def masters(self, weights: dict[str, Tensor]) -> None:
        """Writes the fp32 master into the whole tensor by parameter name."""
        weights[self.name].copy_(self.world.gather(self.master, self._rows()[0]).view_as(self.parameter))

    def load_masters(self, weights: dict[str, Tensor]) -> None:
        """Takes the own part of fp32 weights."""
        self.master.copy_(self.world.own(weights[self.name].float().reshape(self._rows()).to(self.master)))
        self.write_back()


class Optimizer:
    """All groups of a model; see the head of this file."""

    def __init__(self, model: nn.Module, groups: list[MuonGroup | AdamGroup], world: World) -> None:
        self.model, self.groups, self.world = model, groups, world

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> float:
        """Moves the weights along `.grad`, then clears it.

        Args:
            scale: the schedule's factor of every learning rate.

        Returns:
            The gradient's norm; at 0, or when it is not finite, nothing was moved.
        """
        total = torch.stack([group.reduce() for group in self.groups]).sum()
        norm = math.sqrt(self.world.sum(total).item())
        if norm > 0 and math.isfinite(norm):
            for group in self.groups:
                group.update(scale)
        self.zero_grad()
        return norm

    def zero_grad(self) -> None:
        """Drops the gradients."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """Momenta and counts under names that do not depend on the world size; every rank must call it."""
        return {name: tensor for group in self.groups for name, tensor in group.tensors().items()}

    @torch.no_grad()
    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Takes what `state_tensors` gave."""
        for group in self.groups:
            group.load(tensors)

    @torch.no_grad()
    def master_weights(self) -> dict[str, Tensor]:
        """fp32 weights with the names of the model's `state_dict`; every rank must call it."""
        weights = {
            name: torch.empty(p.shape, dtype=torch.float32, device=p.device)
            for name, p in self.model.named_parameters()
        }
        for group in self.groups:
            group.masters(weights)
        return weights

    @torch.no_grad()
    def load_master_weights(self, weights: dict[str, Tensor]) -> None:
        """Takes fp32 weights as masters and casts them into the model."""
        for group in self.groups:
            group.load_masters(weights)


def build_optimizer(model: GPT, rates: Rates, world: World = SINGLE) -> Optimizer:
    """Sorts a model's parameters into groups.

    Args:
        model: on its device and in its compute dtype; its present weights become the masters.
        rates: learning rates.
        world: the ranks that train together.
    """
    matrices: dict[tuple[int, int, bool], list[Piece]] = defaultdict(list)
    groups: list[MuonGroup | AdamGroup] = []
    for name, parameter in model.named_parameters():
        kind = name.split(".")[-2] if name.endswith(".weight") else "scalar"
        if kind in ("qkv", "out", "up", "down"):
            for start, end in _matrices_of(model, kind, parameter):
                rows, columns = end - start, parameter.size(1)
                flip = rows > columns
                shape = (min(rows, columns), max(rows, columns), flip)
                matrices[shape].append(Piece(name, parameter, start, end, flip))
        else:
            rate = {
                "embed": rates.embed,
                "value_embed": rates.value_embed,
                "head": rates.head,
                "scalar": rates.scalar,
            }[kind]
            groups.append(AdamGroup(name, parameter, rate, rates, world))
    for (rows, columns, flip), pieces in matrices.items():
        groups.append(MuonGroup(f"muon.{rows}x{columns}{'.flip' if flip else ''}", pieces, rates, world))
    return Optimizer(model, groups, world)


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix of each, by Polar Express (arXiv:2505.16932), bf16 where it is native.

    Args:
        matrices: (K, R, C) with R ≤ C.

    Returns:
        (K, R, C) with singular values near 1, zero where the input is zero.
    """
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.01 + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _matrices_of(model: GPT, kind: str, parameter: nn.Parameter) -> list[tuple[int, int]]:
    """Row ranges of the matrices that a parameter is made of: three for the fused q, k, v."""
    if kind != "qkv":
        return [(0, parameter.size(0))]
    q = model.config.heads * model.config.head_dim
    k = model.config.kv_heads * model.config.head_dim
    return [(0, q), (q, q + k), (q + k, q + 2 * k)]


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
