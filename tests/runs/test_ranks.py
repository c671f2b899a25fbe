"""Several ranks under torchrun: one run folder, and a stop that all of them take at the same step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from melete.runs import folder
from melete.settings import Settings
from trial_runs import TRIAL


@pytest.mark.slow
def test_stop_request_of_one_rank_stops_all_at_the_same_step(home: Settings, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(TRIAL),
    ]
    command += ["trial", "ranks", "--steps", "1000", "--stop-rank", "1", "--out", str(tmp_path)]
    child = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    walked = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    assert walked == ["5", "5"], child.stderr
    (run_id,) = folder.ids(home.runs)
    record = json.loads((home.runs / run_id / "run.json").read_text())
    assert (record["state"], record["result"]) == ("stopped", {"walked": 5})
