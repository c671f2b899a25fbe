"""Runs in `.envs/agentlightning1`: serves Agent Lightning's 1.x API on a free port of loopback.

The first line of the standard input is its configuration, the first line of the output is `{"port": N}`. The key comes
that way too, so that no list of processes shows it. It ends when the input ends.
"""

import contextlib
import importlib.metadata
import json
import os
import socket
import sys
import threading

said = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is for the log
config = json.loads(sys.stdin.readline())

import uvicorn  # type: ignore[import-untyped,unused-ignore]  # noqa: E402
from agentlightning.server.app import create_app  # type: ignore[import-not-found,unused-ignore]  # noqa: E402


def end_with_input() -> None:
    """Ends the process when the one that started it has."""
    with contextlib.suppress(OSError):
        sys.stdin.read()
    os._exit(0)


# With the protocol named asyncio sends small packets at once; else each answer waits 40 ms for an acknowledgement.
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.bind(("127.0.0.1", 0))
threading.Thread(target=end_with_input, daemon=True).start()
server = uvicorn.Server(uvicorn.Config(create_app(config), log_level="warning", access_log=False))
hello = {"port": listener.getsockname()[1], "version": importlib.metadata.version("agentlightning")}
listener.listen(2048)
print(json.dumps(hello), file=said, flush=True)
server.run(sockets=[listener])
