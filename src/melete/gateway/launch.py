"""Starts LiteLLM's proxy inside its own Python, with our hook importable and a listening socket that is handed in.

Run as a file by the supervisor, `python -I launch.py CONFIG`; nothing of ours is installed in LiteLLM's environment.

- `melete` is made importable from this file's place alone, so that our site-packages never mix with LiteLLM's.
- LiteLLM's command line does the set-up; only its last step, serving, is ours: on the socket that the supervisor holds
  (so that the port survives a restart) and without an access log, which would repeat what clients sent.
- The supervisor holds the other end of stdin: when it dies, however that is, LiteLLM ends too.
- The garbage collector rests while some ten thousand classes are imported and never looks at them again: a third of the
  CPU time of a start.

Stdlib only, besides what is imported from LiteLLM's environment.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

GRACE_S = 10
"""Seconds that running answers get when the proxy is stopped."""


def main(config: str) -> None:
    """Serves until a signal, or until the supervisor is gone."""
    gc.disable()
    _make_importable()
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    import uvicorn
    from litellm import run_server

    vars(uvicorn)["run"] = _serve
    sys.argv[0] = "litellm"
    run_server(["--config", config, "--host", "127.0.0.1", "--port", "1"])


def _make_importable() -> None:
    """Puts the package that this file stands in among the modules, and nothing else on the path."""
    root = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        "melete", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["melete"] = module
    spec.loader.exec_module(module)


def _end_with_supervisor() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(app: str, *, host: str = "", port: int = 0, workers: int = 1, **options: Any) -> None:
    """Takes the place of `uvicorn.run` in LiteLLM's command line."""
    import uvicorn

    from melete.gateway import environment

    del host, port, workers
    module, _, name = app.partition(":")
    loaded = getattr(importlib.import_module(module), name)
    options |= {
        "access_log": False,
        "server_header": False,
        "date_header": True,
        "timeout_graceful_shutdown": GRACE_S,
        "log_level": "warning",
    }
    server = uvicorn.Server(uvicorn.Config(loaded, **options))
    listener = socket.socket(fileno=int(os.environ[environment.LISTEN_FD]))
    gc.freeze()
    gc.enable()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
