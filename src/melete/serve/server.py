"""A server on a port: bound first, so that a taken port is known before a model is loaded, then run by uvicorn.

`Server` is used in two ways: `run()` serves in the foreground until a signal, `with Server(...) as server:` serves from
a thread, for tests, benchmarks and training that reads from its own model's URL and swaps the weights.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from melete.errors import ServerError
from melete.serve import app, models, sign_in
from melete.serve.listen import Uvicorn, bind, url_of
from melete.serve.models import ServedModel
from melete.serve.recording import Recorder
from melete.settings import Settings

if TYPE_CHECKING:
    import torch

    from melete.serve.agents import Agents


class Server:
    """Serves models at a URL.

    Args:
        served: id to model, as `models.load_all` returns.
        settings: the token to ask for.
        host: address to listen on; anything but loopback needs a token.
        port: 0 takes a free one.
        listener: an already bound socket, from `bind`.
        recorder: knows the keys of episodes that practise here; None serves none.
        agents: deployed agents over the same `served`; None offers none and loads none.
        mounts: path to an application that answers below it, behind the same gate.

    Raises:
        ServerError: the port is taken, or the address needs a token.
    """

    def __init__(
        self,
        served: dict[str, ServedModel],
        settings: Settings,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        listener: socket.socket | None = None,
        recorder: Recorder | None = None,
        agents: Agents | None = None,
        mounts: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self.models = served
        self._socket = listener or bind(host, port, settings)
        self.url = url_of(self._socket)
        application = app.create_app(served, settings, recorder, agents, mounts)
        self._keys = application.state.keys
        self._server = Uvicorn.of(application)
        self._thread: threading.Thread | None = None

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Serves until SIGINT or SIGTERM; running answers get a few seconds to finish."""
        self._server.on_ready = on_ready
        self._server.run(sockets=[self._socket])

    def link(self) -> str | None:
        """A link that signs one browser in, once; None where nobody is asked for a token."""
        return sign_in.link(self._keys, self.url)

    def start(self) -> None:
        """Serves from a thread; returns when the server answers."""
        ready = threading.Event()
        self._server.on_ready = ready.set
        self._thread = threading.Thread(
            target=self._serve_and_tell, args=(ready,), name="melete-serve", daemon=True
        )
        self._thread.start()
        ready.wait()
        if not self._server.started:
            raise ServerError(f"The server at {self.url} did not start; its log says why.")

    def stop(self) -> None:
        """Ends the thread."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def swap(
        self, state_dict: Mapping[str, torch.Tensor], model: str | None = None, version: int | None = None
    ) -> None:
        """Replaces a model's weights while it serves; `model` may be left out if there is only one.

        `version` is what completions from now on say that wrote them; None counts on by one.

        Raises:
            UnknownNameError: no such model.
            CheckpointError: the tensors do not fit.
        """
        only = next(iter(self.models)) if len(self.models) == 1 else ""
        models.find(self.models, model or only).swap(state_dict, version)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve_and_tell(self, ready: threading.Event) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            ready.set()
