"""A pretraining run that is killed at any moment and resumed has the losses of an unbroken one, to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from melete.settings import Settings

STEPS = 60


def write_text(folder: Path) -> str:
    folder.mkdir()
    draw = random.Random(0)
    for split, count in (("train", 80), ("val", 30)):
        lines = [
            json.dumps({"text": " ".join(draw.choices(("sun", "moon", "star"), k=90))}) for _ in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return str(folder)


def command(data: str) -> list[str]:
    flags = "--depth 2 --width 32 --context 32 --batch-tokens 256 --vocab-size 270 --eval-tokens 256 --save-every 3"
    return [
        sys.executable,
        "-m",
        "melete",
        "llm",
        "pretrain",
        "--data",
        data,
        "--steps",
        str(STEPS),
        *flags.split(),
    ]


def losses(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def logged(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def start_and_kill(data: str, home: Settings, after: int) -> Path:
    """Starts a run and kills it once it has logged `after` steps."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    earlier = set(home.runs.glob("*pretrain*"))
    child = subprocess.Popen(command(data), env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s and child.poll() is None:
        new = set(home.runs.glob("*pretrain*")) - earlier
        if any(logged(folder) >= after for folder in new):
            break
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return (set(home.runs.glob("*pretrain*")) - earlier).pop()


def assert_resumes_with_the_same_losses(home: Settings, tmp_path: Path, moments: list[int]) -> None:
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    data = write_text(tmp_path / "text")
    subprocess.run(command(data), env=environ, check=True, capture_output=True, timeout=300)
    unbroken = losses(sorted(home.runs.glob("*pretrain*"))[-1])
    assert [step for step, _ in unbroken] == list(range(STEPS))
    for after in moments:
        folder = start_and_kill(data, home, after)
        assert logged(folder) < STEPS, "the run was over before it was killed"
        subprocess.run(
            [sys.executable, "-m", "melete", "runs", "resume", folder.name],
            env=environ, check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        assert losses(folder) == unbroken


@pytest.mark.slow
def test_run_killed_once_and_resumed_has_the_same_losses(home: Settings, tmp_path: Path) -> None:
    assert_resumes_with_the_same_losses(home, tmp_path, [random.Random().randint(1, STEPS - 20)])


@pytest.mark.slow
def test_run_killed_at_many_moments_and_resumed_has_the_same_losses(home: Settings, tmp_path: Path) -> None:
    assert_resumes_with_the_same_losses(home, tmp_path, random.Random().sample(range(1, STEPS - 15), 6))
