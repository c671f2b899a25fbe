"""Tools for the tests of the child process, at the top of a module as the sandbox needs them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from melete.actions.tools import ToolFailure, tool


@tool(timeout_s=20, sandbox=True)
def look_around(secret_name: str) -> dict[str, Any]:
    """Tells what the child process sees.

    Args:
        secret_name: A variable.
    """
    print("this is not the answer")
    return {"variable": os.environ.get(secret_name), "folder": os.listdir("."), "pid": os.getpid()}


@tool(timeout_s=20, sandbox=True)
def fail(kind: str) -> str:
    """Fails in one of several ways."""
    if kind == "failure":
        raise ToolFailure("no such order")
    if kind == "crash":
        os._exit(3)
    if kind == "memory":
        return "x" * (8 << 30)
    raise KeyError(kind)


@tool(timeout_s=1.5, sandbox=True)
def hang(path: str) -> str:
    """Hangs, with a child of its own whose id it writes down."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    with open(path, "w") as file:
        file.write(str(child.pid))
    time.sleep(60)
    return ""
