"""Submits one child to a Ray cluster and waits for its end; run by Ray's Python, and imports nothing of ours.

The child's output goes to this program's own log file, which lies on the shared disk. Its exit code becomes this
program's; 75 says that the node or the task was lost. When this program is killed, Ray ends the task and the child.
"""

import json
import os
import subprocess
import sys


def on_the_node(child: list[str], environ: dict[str, str], log: str) -> int:
    """Runs in a Ray worker on the node: starts the child, which dies with it."""
    import ctypes
    import signal

    import ray  # type: ignore[import-not-found]

    def die_with_parent() -> None:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(log, "ab", buffering=0) as said:
        said.write(f"Ray: on node {ray.get_runtime_context().get_node_id()}\n".encode())
        started = subprocess.Popen(
            child,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**inherited, **environ},
            preexec_fn=die_with_parent,
        )
        return started.wait()


def main() -> int:
    """Reads the task from the command line."""
    task = json.loads(sys.argv[1])
    log = os.readlink("/proc/self/fd/1")
    environ = {name: value for name, value in os.environ.items() if name.startswith("MELETE_")}
    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        print(f"error: the Ray cluster cannot be reached ({type(error).__name__}: {error})", flush=True)
        return 75
    wanted = {name: task[name] for name in ("num_cpus", "num_gpus", "resources")}
    print(f"Ray: waiting for a node with {json.dumps(wanted)}", flush=True)
    submitted = ray.remote(on_the_node).options(max_retries=0, **wanted).remote(task["child"], environ, log)
    try:
        code = int(ray.get(submitted))
    except ray.exceptions.RayError as error:
        print(f"error: Ray lost the task ({type(error).__name__})", flush=True)
        return 75
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
