"""The run that a process's `main(config, run)` is given: its folder, metrics, log, progress and checkpoints.

The folder is the truth: `run.json` (record), `config.yaml` (resolved), `provenance.json`, `metrics.jsonl`, `log.txt`,
`samples/`, `checkpoints/`, `report.html`. A silent run (ranks above 0 of a distributed job) has the same methods and
writes nothing; on a resume it reads the checkpoints of its `source`.

A loop that takes its steps from `run.steps(...)` has progress, `--limit-batches` and a graceful stop without a
further line; one that asks `run.should_save(step, every)` saves on schedule, on a stop and at the end. Under `torchrun`
the ranks agree on a stop at the start of each step, so every rank must walk the same `run.steps` loops.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from melete.errors import TrainingError
from melete.runs import checkpoints, headway
from melete.runs.clock import Clock
from melete.runs.folder import plain, replace_file, storage_error
from melete.runs.lines import LineFile, read_json_lines
from melete.runs.progress import Display, display
from melete.runs.provenance import keep_datasets


class Run:
    """One execution of a process; see the head of this file.

    Args:
        folder: the run's folder; None makes the run silent.
        limit_batches: `--limit-batches`: the most steps each `steps` loop takes; None is no limit.
        resuming: whether the run continues from its latest checkpoint.
        source: folder that a silent run reads checkpoints from.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        limit_batches: int | None = None,
        resuming: bool = False,
        source: Path | None = None,
    ) -> None:
        self.folder = folder
        self.source = folder or source
        self.limit_batches = limit_batches
        self.resuming = resuming
        self.result: dict[str, Any] = {}
        self.datasets: dict[str, str] = {}
        self.clock = Clock()
        self._stop_requested = False
        self._stop_agreed = False
        self._last_step: int | None = None
        self._figures: dict[str, float] = {}
        self._display: Display | None = None
        self._metrics: LineFile | None = None
        self._log: LineFile | None = None

    @property
    def id(self) -> str:
        """The run's id: the name of its folder."""
        return self.folder.name if self.folder else "silent"

    @property
    def silent(self) -> bool:
        """Whether this run writes nothing (a rank above 0)."""
        return self.folder is None

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to stop: it saves and ends; on several ranks, once all of them know."""
        return self._stop_agreed or (self._stop_requested and _process_group() is None)

    def stop(self) -> None:
        """Asks the run to stop after this step."""
        self._stop_requested = True
        if self.folder is not None:
            headway.ending(self.folder, True)

    def say(self, text: str = "") -> None:
        """Prints a line and keeps it in `log.txt`.

        Raises:
            StorageError: the disk is full.
        """
        if self.folder is None:
            return
        if self._display is not None:
            self._display.say(text)
        else:
            print(text, flush=True)
        self.note(text)

    def note(self, text: str) -> None:
        """Keeps a line in `log.txt` without printing it.

        Raises:
            StorageError: the disk is full.
        """
        if self.folder is None:
            return
        if self._log is None:
            self._log = LineFile(self.folder / "log.txt")
        self._log.append(f"{time.strftime('%H:%M:%S')} {text}")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Appends one line to `metrics.jsonl`: `{"step": …, "time_s": …, …}`.

        Raises:
            StorageError: the disk is full; the lines before stay.
        """
        self._figures.update(values)
        if self.folder is None:
            return
        if self._metrics is None:
            self._metrics = LineFile(self.folder / "metrics.jsonl")
        line = {"step": step, "time_s": round(time.time(), 3), **values}
        self._metrics.append(json.dumps(line, default=plain))

    def rewind(self, step: int) -> None:
        """Drops the metrics after `step`, so that a resumed run's curve has each step once."""
        path = self.folder / "metrics.jsonl" if self.folder else None
        if path is None or not path.exists():
            return
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        kept = [line for line in read_json_lines(path) if line["step"] <= step]
        replace_file(path, "".join(json.dumps(line) + "\n" for line in kept))

    def sample(self, step: int, name: str, text: str) -> None:
        """Keeps a text sample in `samples/`, shown in the report.

        Raises:
            StorageError: the disk is full.
        """
        if self.folder is None:
            return
        path = self.folder / "samples" / f"{step:08d}_{name}.txt"
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise storage_error(path, error) from error

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

    def timed(self, name: str) -> AbstractContextManager[None]:
        """Counts the time of a `with` block under `name` in the report's "where the time went"."""
        return self.clock.section(name)

    def steps(self, total: int, start: int = 0, what: str = "steps") -> Iterator[int]:
        """Yields the step numbers `start … total - 1`; ends early on a stop request or at `--limit-batches`.

        Args:
            total: steps of the whole loop.
            start: first step, above 0 after a resume.
            what: word for the progress line and for the time in the report.
        """
        last = total if self.limit_batches is None else min(total, start + self.limit_batches)
        outer, self._last_step = self._last_step, last - 1
        if self._display is not None or self.silent:
            shown = None  # a loop inside a loop: the outer one is shown
        else:
            shown = self._display = display(last, start, what)
            assert self.folder is not None, "a run without a folder is silent"
            headway.begin(self.folder, what, start, last)
        self.clock.enter(what)
        try:
            for step in range(start, last):
                self._agree()
                yield step
                if shown is not None:
                    shown.update(step + 1, self._figures)
                if self.stopping:
                    return
        finally:
            self.clock.leave()
            self._last_step = outer
            if shown is not None:
                shown.close()
                self._display = None

    def should_save(self, step: int, every: int) -> bool:
        """Whether to save after this step: each `every` steps, at the last one, and when a stop was requested."""
        return self.stopping or step == self._last_step or (every > 0 and (step + 1) % every == 0)

    @property
    def checkpoint_folder(self) -> Path:
        """The `checkpoints` folder."""
        assert self.source is not None, "a silent run without a source has no folder"
        return self.source / "checkpoints"

    def save_checkpoint(self, **parts: Any) -> Path | None:
        """`checkpoints.save` into this run's folder; a silent run saves nothing."""
        if self.folder is None:
            return None
        with self.clock.section("saving checkpoints"):
            keep_datasets(self.folder, self.datasets)
            return checkpoints.save(self.checkpoint_folder, **parts)

    def latest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint of this run, or None."""
        return checkpoints.latest(self.checkpoint_folder) if self.source else None

    def close(self) -> None:
        """Ends the progress and closes the files."""
        if self._display is not None:
            self._display.close()
            self._display = None
        for file in (self._metrics, self._log):
            if file is not None:
                file.close()
        self._metrics = self._log = None
        sys.stdout.flush()

    def _agree(self) -> None:
        """Makes a stop request of any rank known to all of them, at the same step."""
        dist = _process_group()
        if dist is None:
            return
        import torch

        device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
        flag = torch.tensor(int(self._stop_requested), device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        self._stop_agreed = bool(flag.item())


def _process_group() -> Any:
    """`torch.distributed` if a group of more than one rank stands, without importing torch."""
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return dist
    return None
