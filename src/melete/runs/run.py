"""The run that a process's `main(config, run)` is given: its folder, metrics, log, progress and checkpoints.

The folder is the truth: `run.json` (record), `config.yaml` (resolved), `provenance.json`, `metrics.jsonl`, `log.txt`,
`samples/`, `checkpoints/`, `report.html`. A silent run (ranks above 0 of a distributed job) has the same methods and
writes nothing.

A loop that takes its steps from `run.steps(...)` has progress, `--limit-batches` and a graceful stop without a
further line; one that asks `run.should_save(step)` saves on schedule, on a stop and at the end.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from melete.errors import TrainingError
from melete.runs import checkpoints


class Run:
    """One execution of a process; see the head of this file.

    Args:
        folder: the run's folder; None makes the run silent.
        limit_batches: `--limit-batches`: the most steps each `steps` loop takes; None is no limit.
        resuming: whether the run continues from its latest checkpoint.
    """

    def __init__(
        self, folder: Path | None, *, limit_batches: int | None = None, resuming: bool = False
    ) -> None:
        self.folder = folder
        self.limit_batches = limit_batches
        self.resuming = resuming
        self.stopping = False
        self.result: dict[str, Any] = {}
        self.datasets: dict[str, str] = {}
        self._last_step: int | None = None
        self._metrics: TextIO | None = None
        self._log: TextIO | None = None

    @property
    def id(self) -> str:
        """The run's id: the name of its folder."""
        return self.folder.name if self.folder else "silent"

    @property
    def silent(self) -> bool:
        """Whether this run writes nothing (a rank above 0)."""
        return self.folder is None

    # -- words and figures ------------------------------------------------------------------------------------------

    def say(self, text: str = "") -> None:
        """Prints a line and keeps it in `log.txt`."""
        if self.folder is None:
            return
        print(text, flush=True)
        if self._log is None:
            self._log = (self.folder / "log.txt").open("a", encoding="utf-8", buffering=1)
        self._log.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Appends one line to `metrics.jsonl`: `{"step": …, "time_s": …, …}`."""
        if self.folder is None:
            return
        if self._metrics is None:
            self._metrics = (self.folder / "metrics.jsonl").open("a", encoding="utf-8", buffering=1)
        self._metrics.write(json.dumps({"step": step, "time_s": round(time.time(), 3), **values}) + "\n")

    def rewind(self, step: int) -> None:
        """Drops the metrics after `step`, so that a resumed run's curve has each step once."""
        if self.folder is None or not (self.folder / "metrics.jsonl").exists():
            return
        path = self.folder / "metrics.jsonl"
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:
                continue  # the line that a kill cut short
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, path)

    def sample(self, step: int, name: str, text: str) -> None:
        """Keeps a text sample in `samples/`, shown in the report."""
        if self.folder is None:
            return
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        (folder / f"{step:08d}_{name}.txt").write_text(text, encoding="utf-8")

    def check_finite(self, step: int, loss: float, what: str = "loss") -> None:
        """Ends the run if a loss is not a number.

        Raises:
            TrainingError: names the step and the last good checkpoint.
        """
        if math.isfinite(loss):
            return
        kept = self.latest_checkpoint()
        raise TrainingError(
            f"The {what} became {loss} at step {step}; training stopped before the weights were changed.",
            allowed=f"The last good checkpoint is {kept.name}."
            if kept
            else "No checkpoint was saved before it.",
            next_step="Lower the learning rate, or look at the data around this step.",
        )

    # -- the loop ---------------------------------------------------------------------------------------------------

    def steps(self, total: int, start: int = 0) -> Iterator[int]:
        """Yields the step numbers `start … total - 1`; ends early on a stop request or at `--limit-batches`."""
        last = total if self.limit_batches is None else min(total, start + self.limit_batches)
        self._last_step = last - 1
        for step in range(start, last):
            yield step
            if self.stopping:
                return

    def should_save(self, step: int, every: int) -> bool:
        """Whether to save after this step: each `every` steps, at the last one, and when a stop was requested."""
        return self.stopping or step == self._last_step or (every > 0 and (step + 1) % every == 0)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    @property
    def checkpoint_folder(self) -> Path:
        """The `checkpoints` folder."""
        assert self.folder is not None, "a silent run has no folder"
        return self.folder / "checkpoints"

    def save_checkpoint(self, **parts: Any) -> Path | None:
        """`checkpoints.save` into this run's folder; a silent run saves nothing."""
        return checkpoints.save(self.checkpoint_folder, **parts) if self.folder else None

    def latest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint of this run, or None."""
        return checkpoints.latest(self.checkpoint_folder) if self.folder else None

    def close(self) -> None:
        """Closes the files."""
        for file in (self._metrics, self._log):
            if file is not None:
                file.close()
        sys.stdout.flush()
