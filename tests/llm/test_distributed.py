"""Two ranks on the CPU train one model: the losses of one rank with the same global batch, and one set of files."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from melete.runs import checkpoints
from melete.settings import Settings

FLAGS = [
    "--depth=2", "--width=32", "--context=32", "--batch-tokens=256", "--vocab-size=270", "--eval-tokens=320",
    "--steps=8", "--dtype=fp32",
]  # fmt: skip


def write_text(folder: Path) -> str:
    folder.mkdir()
    draw = random.Random(0)
    for split, count in (("train", 60), ("val", 30)):
        lines = [
            json.dumps({"text": " ".join(draw.choices(("sun", "moon", "star"), k=90))}) for _ in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return str(folder)


def launch(ranks: int, *arguments: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    start = [sys.executable] if ranks == 1 else torchrun
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*start, "-m", "melete", *arguments], env=environ, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def newest(home: Settings) -> Path:
    return sorted(home.runs.glob("*pretrain*"))[-1]


def figures(folder: Path, name: str) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


@pytest.mark.slow
def test_two_ranks_have_the_losses_of_one_and_write_one_run(home: Settings, tmp_path: Path) -> None:
    data = write_text(tmp_path / "text")
    launch(1, "llm", "pretrain", "--data", data, *FLAGS)
    one = newest(home)
    launch(2, "llm", "pretrain", "--data", data, *FLAGS)
    two = newest(home)
    assert len(list(home.runs.glob("*pretrain*"))) == 2
    assert figures(two, "loss") == pytest.approx(figures(one, "loss"), rel=3e-3)
    assert figures(two, "val_bpb") == pytest.approx(figures(one, "val_bpb"), rel=3e-3)
    kept = [checkpoints.latest(folder / "checkpoints") for folder in (one, two)]
    first, second = (checkpoints.load(folder, "state") for folder in kept if folder is not None)
    assert {name: t.shape for name, t in first.items()} == {name: t.shape for name, t in second.items()}


@pytest.mark.slow
def test_run_of_two_ranks_resumes_on_one(home: Settings, tmp_path: Path) -> None:
    data = write_text(tmp_path / "text")
    launch(1, "llm", "pretrain", "--data", data, *FLAGS)
    unbroken = figures(newest(home), "loss")
    launch(2, "llm", "pretrain", "--data", data, *FLAGS, "--limit-batches", "4", "--save-every", "4")
    folder = newest(home)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "state": "stopped", "limit_batches": None}))
    launch(1, "runs", "resume", folder.name)
    assert figures(folder, "loss") == pytest.approx(unbroken, rel=3e-3)
