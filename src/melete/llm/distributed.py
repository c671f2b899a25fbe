"""Ranks that train one model together: `torchrun` starts them, this file says who they are and moves tensors.

The optimizer owns its parts by rank (see `optim.py`), so the model needs no wrapper: gradients are summed and split
by `reduce_scatter`, new weights come back by `gather`. NCCL on CUDA, gloo on the CPU; gloo has no reduce-scatter of
its own, so there it is an all-reduce of which each rank keeps its part. One process without `torchrun` is `SINGLE`,
for which every call is the identity.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """The ranks of a job.

    Attributes:
        rank: this process, 0 … size - 1.
        size: how many there are.
        local_rank: this process among those of its machine: its CUDA device.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def _part(self, rows: int) -> int:
        return -(-rows // self.size)

    def own(self, whole: Tensor) -> Tensor:
        """This rank's part of the first dimension, a copy; the last part is padded with zeros."""
        if self.size == 1:
            return whole.clone()
        return self._padded(whole).chunk(self.size)[self.rank].clone()

    def _padded(self, whole: Tensor) -> Tensor:
        missing = self._part(whole.size(0)) * self.size - whole.size(0)
        return torch.cat((whole, whole.new_zeros(missing, *whole.shape[1:]))) if missing else whole

    def reduce_scatter(self, whole: Tensor) -> Tensor:
        """This rank's part of the mean over ranks."""
        if self.size == 1:
            return whole
        padded = self._padded(whole)
        if dist.get_backend() == "nccl":
            part = padded.new_empty(padded.size(0) // self.size, *padded.shape[1:])
            dist.reduce_scatter_tensor(part, padded.contiguous(), op=dist.ReduceOp.AVG)
            return part
        summed = padded.float().contiguous()
        dist.all_reduce(summed)
        return summed.chunk(self.size)[self.rank] / self.size

    def gather(self, part: Tensor, rows: int) -> Tensor:
        """The whole of which each rank gives its part; padding beyond `rows` is dropped."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)[:rows]

    def sum(self, value: Tensor) -> Tensor:
        """Sum over ranks of a small tensor."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leaves the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


SINGLE = World()
"""One process."""


def join(device: torch.device) -> tuple[World, torch.device]:
    """Joins the ranks that `torchrun` started.

    Args:
        device: what the user asked for; a CUDA device becomes the one of the local rank.

    Returns:
        The world and this rank's device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return SINGLE, device
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        device = torch.device("cuda", world.local_rank)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return world, device
