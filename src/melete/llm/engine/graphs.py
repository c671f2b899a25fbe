"""CUDA graphs of the decode step: one recording per batch size and length, both rounded up, replayed without launches.

A step of a small model is bound by the time the CPU takes to launch some hundred kernels; a replay launches one. The
positions and tokens are written into fixed tensors before. Rows without a request write into the cache's bin. A
model whose forward cannot be recorded (it synchronises, or allocates on the CPU) runs without, after one try.

Limit: written for CUDA only; swapped weights drop every recording, since these hold the addresses of the old ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from melete.llm.engine.cache import DecodePass, Span
from melete.llm.engine.runner import Runner

SHORTEST = 128
"""Lengths are rounded up to powers of two from here on."""


@dataclass(slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    tokens: Tensor
    positions: Tensor
    logits: Tensor


class GraphedDecode:
    """Decode steps of one runner on CUDA."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.usable = True
        self._recordings: dict[tuple[int, int], _Recording] = {}

    def drop(self) -> None:
        """Forgets the recordings."""
        self._recordings.clear()

    def __call__(self, tokens: list[int], positions: list[int], length: int) -> Tensor | None:
        """Logits (B, V) of one decode step, or None if the model cannot be recorded."""
        shape = self.runner.cache.shape
        rows = min(shape.slots, 1 << (len(tokens) - 1).bit_length())
        span = min(shape.context, max(SHORTEST, 1 << (length - 1).bit_length()))
        recording = self._recordings.get((rows, span)) or self._record(rows, span)
        if recording is None:
            return None
        idle = rows - len(tokens)
        recording.tokens.copy_(torch.tensor([*tokens, *[0] * idle]).pin_memory(), non_blocking=True)
        bins = [shape.context] * idle
        recording.positions.copy_(torch.tensor([*positions, *bins]).pin_memory(), non_blocking=True)
        recording.graph.replay()
        return recording.logits[: len(tokens)].clone()

    def _record(self, rows: int, span: int) -> _Recording | None:
        if not self.usable:
            return None
        cache = self.runner.cache
        tokens = torch.zeros(rows, dtype=torch.long, device=cache.device)
        positions = torch.full((rows,), cache.shape.context, dtype=torch.long, device=cache.device)

        def step() -> Tensor:
            return self.runner.forward(
                tokens, positions, DecodePass(cache, positions, [Span(0, rows, span, False)]), None
            )

        try:
            side = torch.cuda.Stream(cache.device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(cache.device))
            with torch.cuda.stream(side):
                for _ in range(2):  # libraries allocate their workspaces in the first calls
                    step()
            torch.cuda.current_stream(cache.device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = step()
        except RuntimeError:
            self.usable = False
            return None
        recording = _Recording(graph, tokens, positions, logits)
        self._recordings[rows, span] = recording
        return recording
