"""A node of a Ray cluster that has what the process needs; the home folder must be on a disk that all nodes share.

Ray's pins fight ours, so it lives in an environment of its own and is never imported here: a driver, run by Ray's
Python, submits one task, and the task starts the child, with Melete's own Python, on the node that Ray chose. Ray
decides where, and waits until a node has room; the queue keeps attempts, retries and stops. A node that is lost kills
the child there, and the process is tried again from its checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import melete
from melete.errors import DeviceError
from melete.jobs.claims import Claim
from melete.settings import Settings

CURRENT = Path("/tmp/ray/ray_current_cluster")
"""Where `ray start` writes down the cluster of this machine."""
NAME_ONE = "Set RAY_ADDRESS=HOST:PORT, or start one on this machine: ray start --head"
ANSWER_S = 5.0
DRIVER = Path(__file__).with_name("_ray_driver.py")


def problem(settings: Settings) -> str | None:
    """Why Ray cannot be used here."""
    if python() is None:
        return "Ray is not installed. Install it in an environment of its own: python tools/envs.py ray"
    address = os.environ.get("RAY_ADDRESS") or (CURRENT.read_text().strip() if CURRENT.is_file() else "")
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        return (
            f"RAY_ADDRESS is {address!r}, not HOST:PORT."
            if address
            else f"no Ray cluster is known. {NAME_ONE}"
        )
    try:
        socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        return f"no Ray cluster answers at {address} ({error.strerror or error}). {NAME_ONE}"
    return None


def command(claim: Claim, child: list[str]) -> tuple[list[str], dict[str, str]]:
    """Ray's Python with the driver, which submits the child as a task.

    Raises:
        DeviceError: Ray is not installed any more.
    """
    ray = python()
    if ray is None:
        raise DeviceError("Ray is not installed.", next_step="Install it with: python tools/envs.py ray")
    needs = claim.step.needs
    on_gpu = needs["device"] == "cuda"
    task = {
        "child": child,
        "num_cpus": 1 if on_gpu else needs["slots"],
        "num_gpus": needs["slots"] if on_gpu else 0,
        "resources": needs["resources"],
    }
    return [str(ray), "-P", str(DRIVER), json.dumps(task)], {"RAY_USAGE_STATS_ENABLED": "0"}


def python() -> Path | None:
    """The Python that has Ray: that of `.envs/ray`, or of the program `ray` on the PATH."""
    beside = [root / ".envs" / "ray" / "bin" for root in (Path.cwd(), Path(melete.__file__).parents[2])]
    on_path = shutil.which("ray")
    folders = [*([Path(on_path).parent] if on_path else []), *beside]
    return next((folder / "python" for folder in folders if (folder / "ray").is_file()), None)
