"""Starts and stops the lab in the background, and tells how it is; the systemd unit that does the same.

Everything that can be wrong in what was asked for is said before anything starts. The supervisor (`lab.py`) has a
session of its own, so it lives on when the terminal is closed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace

import melete
from melete import find, supervision
from melete.errors import MissingExtraError, ServerError
from melete.jobs import devices, lab
from melete.jobs.lab import Plan, State, Supervisor
from melete.settings import Settings
from melete.store import database

PORT = 8675
PAUSE_S = 0.1
COMMAND_LOCK = "command.lock"
"""Held while the lab of a home is started or stopped; the next command waits and finds what was done."""
UNIT = """\
[Unit]
Description=Melete: server and workers of {home}
After=network.target

[Service]
ExecStart={command}
Environment={environment}
WorkingDirectory={cwd}
Restart=on-failure
RestartSec=2
# Its own children first save their checkpoints; systemd ends only what is left after that.
KillMode=mixed
TimeoutStopSec={stop_s:.0f}

[Install]
WantedBy=default.target
"""


def up(settings: Settings, plan: Plan, *, wait_s: float = lab.READY_S) -> tuple[State, bool]:
    """Starts the lab, or finds the one that is up as it is asked for; tells whether it was up before.

    Args:
        settings: home and database.
        plan: port 0 takes a free one.
        wait_s: seconds until the start has failed.

    Raises:
        ServerError: the port is taken, the lab is up otherwise, or the server does not come up.
        MissingExtraError: what the server needs is not installed.
        StorageError: the database cannot be used, or is of a newer version.
        DeviceError: a GPU that is not here.
    """
    with supervision.one_at_a_time(lab.folder(settings) / COMMAND_LOCK):
        now = lab.alive(settings)
        if now is not None:
            asked = replace(plan, port=plan.port or now.plan.port)
            if asked == now.plan and now.state == "up":
                return now, True
            raise lab.refused(now)
        plan = prepare(settings, plan)
        child = _spawn(settings, plan)
        return _await(settings, child, wait_s), False


def serve(settings: Settings, plan: Plan) -> int:
    """Runs the lab in this process until SIGTERM or Ctrl-C, with its logs on stdout; returns the exit code.

    Raises:
        ServerError: the port is taken, or the lab is up already.
        MissingExtraError: what the server needs is not installed.
        StorageError: the database cannot be used, or is of a newer version.
    """
    now = lab.alive(settings)
    if now is not None:
        raise lab.refused(now)
    plan = prepare(settings, plan)
    os.environ.update(_environment(settings))
    return Supervisor(settings, plan, shown=True).run()


def prepare(settings: Settings, plan: Plan) -> Plan:
    """Checks all that a start needs; returns the plan with its port."""
    for library in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(library, "serve")
    devices.chosen(plan.gpus)
    with database.connect(settings.database):
        pass  # brings the schema to the newest revision, or says why that cannot be
    with find.load("melete.serve", "listen", "part of the server").bind(
        plan.host, plan.port, settings, named=True
    ) as listener:
        return replace(plan, port=listener.getsockname()[1])


def down(settings: Settings) -> bool:
    """Stops the lab: processes save a checkpoint and go back into the queue; False if none was up.

    Raises:
        ServerError: it does not stop.
    """
    with supervision.one_at_a_time(lab.folder(settings) / COMMAND_LOCK):
        now = lab.alive(settings)
        if now is None:
            return False
        # The lock is held, so the pid is that of a supervisor of ours and of nothing that took its number since.
        os.kill(now.pid, signal.SIGTERM)
        wait_s = now.plan.grace_s + 2 * lab.MARGIN_S
        until_s = time.monotonic() + wait_s
        while lab.alive(settings) is not None:
            if time.monotonic() > until_s:
                raise ServerError(
                    f"Melete (pid {now.pid}) did not stop within {wait_s:.0f} s.",
                    next_step=f"End it with: kill -9 {now.pid}; jobs go on from their checkpoints.",
                )
            time.sleep(PAUSE_S)
        return True


def unit(settings: Settings, plan: Plan) -> str:
    """A systemd unit that runs the lab, for `~/.config/systemd/user/melete.service`."""
    models = [part for model in plan.models for part in ("--model", model)]
    told = ["up", "--foreground", "--host", plan.host, "--port", str(plan.port), *models]
    told += ["--workers", str(plan.workers), "--gpus", plan.gpus, "--cpu-slots", str(plan.cpu_slots)]
    told += ["--grace-s", f"{plan.grace_s:g}"]
    home = str(settings.home.resolve())
    return UNIT.format(
        home=home,
        command=shlex.join([sys.executable, "-m", "melete", *told]),
        environment=f'"MELETE_HOME={home}"',
        cwd=os.getcwd(),
        stop_s=plan.grace_s + 2 * lab.MARGIN_S,
    )


def _environment(settings: Settings) -> Mapping[str, str]:
    told = {
        "MELETE_HOME": str(settings.home.resolve()),
        "MELETE_DATABASE": database.absolute(settings.database),
        "MELETE_BENCH": str(settings.bench.absolute()),
    }
    told |= {"MELETE_DATA": str(settings.data.absolute())} if settings.data else {}
    return {**told, **({"MELETE_TOKEN": settings.token} if settings.token else {})}


def _spawn(settings: Settings, plan: Plan) -> subprocess.Popen[bytes]:
    return supervision.spawn(
        "melete.jobs.lab",
        json.dumps({**asdict(plan), "beside": list(melete.__path__)[1:]}),
        said=lab.folder(settings) / "supervisor.err",
        folder=settings.home,
        environ={**os.environ, **_environment(settings)},
    )


def _await(settings: Settings, child: subprocess.Popen[bytes], wait_s: float) -> State:
    """Waits until the supervisor says that it is up; whoever gives up waiting leaves nothing behind."""
    until_s, came_up, why = time.monotonic() + wait_s, False, f"within {wait_s:.0f} s"
    try:
        while time.monotonic() < until_s:
            now = lab.read(settings)
            if now is not None and now.pid == child.pid and now.state == "up":
                came_up = True
                return now
            if child.poll() is not None:
                trouble = now.trouble if now is not None and now.pid == child.pid else None
                why = f"because {trouble or 'its supervisor ended at once'}"
                break
            time.sleep(PAUSE_S)
    finally:
        if not came_up and child.poll() is None:
            child.terminate()
    said = lab.last_words(settings)
    raise ServerError(
        f"Melete did not come up {why}.",
        allowed="Its log ends with:\n  " + "\n  ".join(said) if said else None,
        next_step=f"The logs are in {lab.folder(settings) / 'logs'}",
    )
