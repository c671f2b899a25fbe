"""The child process of a sandboxed tool: reads one order from stdin, calls the function, writes one line of JSON.

Started by `attempt.in_process`. What the function prints goes to stderr, so that it cannot be taken for the answer.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from typing import Any, cast


def main() -> None:
    """Carries out the order and ends the process."""
    order = json.loads(sys.stdin.buffer.read())
    answer = os.dup(1)
    os.dup2(2, 1)
    limit_memory(order["memory_mb"])
    from melete.actions.attempt import ToolFailure, inline

    try:
        said = {"value": inline(load(order), order["arguments"])}
        line = json.dumps(said, ensure_ascii=False)
    except ToolFailure as failure:
        line = json.dumps({"failure": True, "error": str(failure), "retry": failure.retry})
    except Exception as error:  # the author's code: told to the parent by type and text
        line = json.dumps({"failure": False, "error": f"{type(error).__name__}: {error}", "retry": False})
    data = line.encode() + b"\n"
    while data:
        data = data[os.write(answer, data) :]
    os._exit(0)


def load(order: dict[str, Any]) -> Callable[..., Any]:
    """The function of an order; one of a script is loaded from the script's file."""
    if order["file"]:
        spec = importlib.util.spec_from_file_location("__melete_tools__", order["file"])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["__melete_tools__"] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(order["module"])
    found: Any = module
    for name in order["name"].split("."):
        found = getattr(found, name)
    return cast(Callable[..., Any], found)


def limit_memory(memory_mb: int) -> None:
    """Limits the address space, and leaves no core file behind; where the system has no such limits, nothing."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 2**20, memory_mb * 2**20))
