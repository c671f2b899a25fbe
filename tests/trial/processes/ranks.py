"""Walks its steps on several ranks under torchrun, and says at which step each of them stopped."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from melete.runs.process import ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """Options of walking."""

    steps: int = Field(5, ge=1, description="Steps to walk.")
    stop_rank: int = Field(-1, description="Rank that is asked to stop; -1 is none.")
    out: str = Field("", description="Folder in which each rank writes the steps it walked.")


EXAMPLE = {"steps": 2}


def main(config: Config, run: Run) -> None:
    """Walks."""
    walked = []
    if "RANK" in os.environ:
        import torch.distributed

        torch.distributed.init_process_group("gloo")
    rank = int(os.environ.get("RANK", "0"))
    for step in run.steps(config.steps):
        walked.append(step)
        if rank == config.stop_rank and step == 3:
            run.stop()
    run.result["walked"] = len(walked)
    if config.out:
        (Path(config.out) / str(rank)).write_text(str(len(walked)))
    if "RANK" in os.environ:
        torch.distributed.destroy_process_group()
