"""Runs every benchmark of this folder, one after the other, each in a process of its own.

    python benchmarks/run_all.py [--nanochat DIR]

Each script writes its figures with machine, versions and command to `benchmarks/results/` and takes `--nanochat` only
if it has that peer. A script that fails does not keep the others from running; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_BENCHMARKS = {"run_all", "peer"}


def main() -> int:
    """Runs the scripts and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nanochat", type=Path, help="checkout of nanochat to run beside ours")
    arguments = parser.parse_args()
    failed = []
    for script in sorted(HERE.glob("*.py")):
        if script.stem in NOT_BENCHMARKS:
            continue
        command = [sys.executable, str(script)]
        if arguments.nanochat and "--nanochat" in script.read_text(encoding="utf-8"):
            command += ["--nanochat", str(arguments.nanochat)]
        print(f"\n== {script.name}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(script.name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
