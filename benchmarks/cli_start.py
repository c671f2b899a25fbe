"""How long `melete --help` takes beside a bare `python -c pass`: medians of wall and CPU time, both in one run.

    python benchmarks/cli_start.py [--repeat 25]

The commands take turns, so that the load of the machine falls on all of them alike. CPU is user and system time of the
child. Goal: `melete --help` in under 100 ms of wall time on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "melete --help": [sys.executable, "-m", "melete", "--help"],
    "melete --version": [sys.executable, "-m", "melete", "--version"],
    "melete llm --help": [sys.executable, "-m", "melete", "llm", "--help"],
    "melete runs list": [sys.executable, "-m", "melete", "runs", "list"],
}


def once(command: list[str]) -> tuple[float, float]:
    """Wall and CPU milliseconds of one execution."""
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s * 1000, cpu_s * 1000


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=25, help="executions of each command")
    repeat = parser.parse_args().repeat
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as home:
        os.environ["MELETE_HOME"] = home
        for number in range(repeat + 1):
            for name, command in COMMANDS.items():
                measured = once(command)
                if number:  # the first execution writes the byte code
                    times[name].append(measured)
    print(f"median of {repeat}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(f"{'command':<20} {'wall ms':>8} {'CPU ms':>8} {'CPU ratio':>10}")
    bare = statistics.median(cpu for _, cpu in times["python -c pass"])
    for name, measured_times in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*measured_times, strict=True))
        print(f"{name:<20} {wall:8.1f} {cpu:8.1f} {cpu / bare:10.2f}")


if __name__ == "__main__":
    main()
