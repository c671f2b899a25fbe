"""Practice on `customer_support` by the clock: tool reliability before and after on the same held-out requests.

From one beginner (see `examples/demo.yaml`: a base, then demonstrations of which a share is wrong), practice runs
once per seed for `--minutes`. The seed decides the tasks, the draws and the order; the exam's requests and seeds are
the same for all. What is written: every run's table rows with counts and intervals, the practice wall time (exams are
not counted), the curve of each run, the machine and the command. Nothing is averaged over seeds.

    make demo    # leaves the run `beginner`; any model that learned the demonstrations will do
    python benchmarks/practice.py --base beginner --write -- --greedy

What follows `--` goes to `melete agents train`; `--greedy` and `--no-constrained` add and leave out rows of the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from melete import settings
from melete.errors import UnknownNameError
from melete.runs import refs

RESULT = Path(__file__).parent / "results" / "practice.json"
CURVE = ("practised_s", "reward", "tool_reliability", "success", "tokens_per_task")


def practise(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run in a process of its own; one that is there already, of this base, is taken as it is."""
    name = f"practice-{args.base}-{seed}"
    command = [
        "melete", "agents", "train", "--base", args.base, "--seed", str(seed), "--name", name,
        "--minutes", str(args.minutes), "--steps", "1000", "--held-out", str(args.held_out), *args.options,
    ]  # fmt: skip
    try:
        folder = refs.run(settings.load(), name)
    except UnknownNameError:
        subprocess.run(command, check=True)
        folder = refs.run(settings.load(), name)
    record = json.loads((folder / "run.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = [{key: round(line[key], 4) for key in CURVE} for line in lines]
    return {"seed": seed, **record["result"], "steps": len(curve), "curve": curve}


def judged(run: dict[str, Any]) -> dict[str, Any]:
    """The figures that the goal names."""

    def row(when: str, split: str) -> dict[str, Any]:
        found: dict[str, Any] = next(r for r in run[when] if (r["split"], r["decoding"]) == (split, "free"))
        return found

    before, after = row("before", "held_out"), row("after", "held_out")
    return {
        "seed": run["seed"],
        "practised_s": run["practised_s"],
        "reliability_before": before["reliability"],
        "reliability_after": after["reliability"],
        "calls_after": after["tool_calls"],
        "success_after": after["success"],
        "policies_broken_after": after["policies_broken"],
        "tokens_per_solved_saved": 1 - after["tokens_per_solved"] / before["tokens_per_solved"],
        "unseen_reliability": [row(when, "unseen")["reliability"] for when in ("before", "after")],
        "unseen_success": [row(when, "unseen")["success"] for when in ("before", "after")],
    }


def main() -> None:
    """Practises once per seed and prints, or writes, the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", default="beginner")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--held-out", type=int, default=450)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/practice.json")
    parser.add_argument("options", nargs="*", help="further options of melete agents train, after --")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    import peer

    runs = [practise(args, seed) for seed in args.seeds]
    result = {
        "system": peer.system() | {"command": "practice.py " + " ".join(sys.argv[1:])},
        "judged": [judged(run) for run in runs],
        "runs": runs,
    }
    print(json.dumps(result["judged"], indent=1))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
