"""Show what runs: the server, the workers, the queue and the gateway."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from melete.jobs.lab import State


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> int:
    """Show what runs: the server, the workers, the queue and the gateway. The exit code is 0 if the server is up."""
    from melete import settings, supervision
    from melete.cli import _show
    from melete.gateway import process
    from melete.jobs import lab, outlook
    from melete.jobs.queue import opened

    configured = settings.load()
    now = lab.alive(configured)
    last = now or lab.read(configured)
    healthy = now is not None and supervision.answers(f"{now.plan.url}/health", timeout_s=3)
    with opened(configured) as queue:
        counts = queue.counts()
        workers = outlook.workers(queue.engine, queue.home)
        running = [
            (job, step)
            for job in queue.list(state="running")
            for step in job.steps
            if step.state == "running"
        ]
    gateway = process.status(configured)
    if as_json:
        _show.print_json(
            {
                "lab": last if now else None, "healthy": healthy, "jobs": counts, "workers": workers,
                "running": [{"job": job.id, "process": step} for job, step in running],
                "gateway": gateway.state,
            }
        )  # fmt: skip
        return 0 if healthy else 1
    rows: list[tuple[str, Any]] = [("server", _server(now, last, healthy))]
    for worker in workers:
        slots = [f"GPU {gpu}" for gpu in worker["gpus"]] + [f"{worker['cpu_slots']} on the CPU"]
        rows.append(("worker", f"{worker['id']}, slots {', '.join(slots)}"))
    if not workers:
        rows.append(("worker", "none is alive"))
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    rows += [("jobs", told or "none yet"), ("gateway", gateway.state)]
    _show.pairs(rows)
    if now is None:
        click.echo("Start the server and a worker with: melete up")
    if running:
        click.echo()
        _show.table(
            ("job", "process", "run", "time"),
            [
                (job.id, step.process, step.run, _show.age(time.time() - (step.claimed_s or 0)))
                for job, step in running
            ],
            right=("time",),
        )
    return 0 if healthy else 1


def _server(now: State | None, last: State | None, healthy: bool) -> str:
    from melete.cli import _show

    if now is None:
        return f"down; {last.trouble}" if last is not None and last.trouble else "down"
    since = _show.age(time.time() - now.started_s)
    restarts = sum(part.restarts for part in now.parts.values())
    again = f", parts restarted {restarts} times" if restarts else ""
    answer = "" if healthy or now.state != "up" else ", but it does not answer"
    return f"{now.state}, at {now.plan.url}, since {since}{again}{answer}"
