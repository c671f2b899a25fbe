"""Exactly once: 1,000 short jobs, 4 workers and a server, each of them killed with SIGKILL at random, 50 times in all.

    python benchmarks/queue_kill.py [--jobs 1000] [--workers 4] [--kills 50] [--database URL] [--seed 7]

Each job is one process that appends its number to a file, with one write. Workers and the server are killed when a
random number of jobs is done, and started again at once; children are left alone, as they are by a worker that dies.
The run succeeds if the file holds every number once, the queue says that all jobs have succeeded, and there is one run
for each. Times are wall time on a machine that may do other things; CPU is that of the workers, the server and the
children whose worker lived to see their end.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peer
from melete import settings as configured
from melete.jobs.queue import opened
from melete.runs import folder as folders

TICK = '''"""Appends its number to a file, in one write."""

import os

from pydantic import Field

from melete.runs.process import ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """What to append, and where."""

    number: int = Field(description="Number of the job.")
    out: str = Field(description="File to append it to.")


def main(config: Config, run: Run) -> None:
    """Appends."""
    file = os.open(config.out, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{config.number}\\n".encode())
    os.close(file)
'''
COMMAND = (
    "import sys, melete; melete.__path__.append(sys.argv.pop(1)); sys.argv[0] = 'melete'; "
    "from melete.__main__ import main; main()"
)
LONGEST_S = 3600.0


class Victims:
    """What is killed and started again: workers, and a server."""

    def __init__(self, place: Path, workers: int, environ: dict[str, str]) -> None:
        self.place, self.environ = place, environ
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for name in [f"worker-{i}" for i in range(workers)] + ["server"]:
            self.start(name)

    def start(self, name: str) -> None:
        """Starts one."""
        told = ["worker", "--gpus", "none"] if name != "server" else ["serve", "--no-model", "--port", "0"]
        with (self.place / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-c", COMMAND, str(self.place), *told],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """Kills one with SIGKILL and starts it again."""
        self.running[name].kill()
        self.running[name].wait()
        self.start(name)

    def end(self) -> None:
        """Asks all to stop."""
        for one in self.running.values():
            one.send_signal(signal.SIGTERM)
        for one in self.running.values():
            one.wait(60)


def measure(jobs: int, workers: int, kills: int, database: str | None, seed: int) -> dict[str, object]:
    """Submits, kills, waits and counts."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="melete-kill-") as folder:
        place = Path(folder)
        processes = place / "ticking" / "processes"
        processes.mkdir(parents=True)
        for file, text in (
            (processes / "tick.py", TICK),
            (processes / "__init__.py", ""),
            (processes.parent / "__init__.py", '"""A system that ticks."""\n'),
        ):
            file.write_text(text)
        environ = {**os.environ, "MELETE_HOME": str(place / "home")}
        environ.pop("MELETE_DATABASE", None)
        environ |= {"MELETE_DATABASE": database} if database else {}
        settings = configured.load(environ, place)
        import melete

        melete.__path__.append(str(place))
        out = place / "done.txt"
        out.touch()
        began_s = time.monotonic()
        with opened(settings) as queue:
            for number in range(jobs):
                file = place / "job.yaml"
                file.write_text(
                    f"name: tick\nprocesses:\n  - {{process: ticking.tick, config: "
                    f"{{number: {number}, out: {out}}}}}\n"
                )
                queue.submit(file)
            submitted_s = time.monotonic() - began_s
            when = sorted(chance.randrange(jobs) for _ in range(kills))
            victims = Victims(place, workers, environ)
            killed: collections.Counter[str] = collections.Counter()
            try:
                while time.monotonic() - began_s < LONGEST_S:
                    done = out.read_bytes().count(b"\n")
                    while when and done >= when[0]:
                        when.pop(0)
                        name = chance.choice(sorted(victims.running))
                        victims.kill(name)
                        killed[name.partition("-")[0]] += 1
                    if queue.counts().get("succeeded", 0) == jobs and not when:
                        break
                    time.sleep(0.05)
                took_s = time.monotonic() - began_s
            finally:
                victims.end()
            lines = collections.Counter(out.read_text().split())
            found = queue.list(limit=jobs)
        return {
            "jobs": jobs, "workers": workers, "killed": dict(killed), "seed": seed,
            "database": "postgresql" if database else "sqlite",
            "done once": sum(count == 1 for count in lines.values()),
            "done twice or more": sum(count > 1 for count in lines.values()),
            "lost": jobs - len(lines),
            "succeeded": sum(job.state == "succeeded" for job in found),
            "claimed again": sum(job.steps[0].attempt > 1 for job in found),
            "runs": len(folders.ids(settings.runs)),
            "submitting_s": round(submitted_s, 1),
            "wall_s": round(took_s, 1),
            "cpu_s": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, 1),
        }  # fmt: skip


def main() -> int:
    """Runs it; 1 if a job was lost or done twice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--database", help="URL of an empty database; SQLite in the home by default")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--no-save", action="store_true", help="only print the result")
    told = parser.parse_args()
    result = measure(told.jobs, told.workers, told.kills, told.database, told.seed)
    if told.no_save:
        import json

        print(json.dumps(result))
    else:
        name = "queue_kill_postgresql" if told.database else "queue_kill"
        peer.save_result(name, {**peer.system(), **result})
    exact = result["done once"] == result["succeeded"] == result["runs"] == told.jobs
    return 0 if exact and sum(result["killed"].values()) == told.kills else 1  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
