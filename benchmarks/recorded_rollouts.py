"""What it costs practice to keep its rollouts as sessions and requests: CPU time an episode, as a share of practice.

Episodes of the shape that practice on `customer_support` has (four completions) are recorded into a fresh database and
spool, as many at a time as a step has, with everything that a run does. How many episodes practice plays in a second is
taken from `results/practice.json`, so the share is that of a run that keeps them all (`--record all`); the default
keeps those of the exams. Reading them into rows happens later, in whatever asks for them, and is timed beside.

    python benchmarks/recorded_rollouts.py
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import peer
from melete import settings as settings_module
from melete.agents import scenario as scenarios
from melete.agents.environment import Outcome
from melete.agents.hub import Episode, Move
from melete.agents.recorded import Recording
from melete.gateway.collectors import spool
from melete.runs.run import Run

RESULTS = Path(__file__).parent / "results"
STEP, MOVES, STEPS, REPEATS = 128, 4, 40, 5


def episodes() -> list[Episode]:
    """Episodes of the shape that practice has."""
    tasks = scenarios.load("customer_support").tasks("train", STEP * STEPS // 8)
    outcome = Outcome(True, 0.9, 3, 3, 0, 4, {"done": True, "answered": True}, False)
    now_s = time.time()
    move = Move([1] * 200, [1] * 25, [0.0] * 25, 3, "stop", now_s, now_s + 0.02, now_s + 0.2, 150, 1)
    return [
        Episode(str(i), tasks[i // 8], "group", "ok", (move,) * MOVES, 0.9, outcome, None, 1.0)
        for i in range(STEP * STEPS)
    ]


def once(played: list[Episode]) -> tuple[float, float]:
    """CPU seconds for an episode: to record it, and to read its rows later."""
    with tempfile.TemporaryDirectory() as folder:
        home = settings_module.load({"MELETE_HOME": folder}, Path(folder))
        run = Path(folder) / "runs" / "run"
        run.mkdir(parents=True)
        recording = Recording(Run(run), home, "customer_support", "model")
        recording.keep(played[:8], "warm")
        recording.flush()
        began_s = time.process_time()
        for start in range(0, len(played), STEP):
            recording.keep(played[start : start + STEP], "")
        recording.flush()
        recorded_s = time.process_time() - began_s
        spool.collect(home)
        return recorded_s / len(played), (time.process_time() - began_s - recorded_s) / len(played)


def practised() -> float:
    """Episodes that practice plays in a second, by the runs that were measured."""
    runs = json.loads((RESULTS / "practice.json").read_text())["runs"]
    return float(statistics.median(STEP * run["steps"] / run["practised_s"] for run in runs))


def main() -> None:
    """Measures, prints and keeps the figures."""
    played = episodes()
    timed = [once(played) for _ in range(REPEATS)]
    recorded_s, read_s = (statistics.median(column) for column in zip(*timed, strict=True))
    rate = practised()
    result: dict[str, Any] = {
        "system": peer.system() | {"command": "recorded_rollouts.py"},
        "episodes": len(played),
        "requests_of_an_episode": MOVES,
        "cpu_us_to_record_an_episode": round(1e6 * recorded_s, 1),
        "cpu_us_to_record_an_episode_all": [round(1e6 * one, 1) for one, _ in timed],
        "cpu_us_to_read_an_episode_later": round(1e6 * read_s, 1),
        "episodes_of_practice_per_second": round(rate, 1),
        "share_of_practice": round(recorded_s * rate, 5),
    }
    print(json.dumps(result, indent=1))
    (RESULTS / "recorded_rollouts.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
