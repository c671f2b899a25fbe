"""Plays unchanged agents in threads of this process; they reach the practising model by the URL of its own server.

The server records each episode by its key (`serve/recording.py`), so the agent's framework is none of our business.
Limits: as many agents as `Setup.workers` run at once, and Python runs one of them at a time between model calls; an
agent that hangs keeps its thread until the episode's timeout.
"""

from __future__ import annotations

import dataclasses
import queue
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from melete import settings
from melete.agents import player
from melete.agents.hub import Episode, PolicyRef, Setup
from melete.errors import MeleteError
from melete.serve.models import ServedModel
from melete.serve.recording import Recorder
from melete.serve.server import Server

if TYPE_CHECKING:
    from melete.actions.trace import TraceWriter
    from melete.agents.rollout import Ticket

MODEL = "policy"


class AgentPlayer:
    """See the head of this file and `rollout.Player`.

    Args:
        setup: the agent, what it plays, and the model, whose engine the server steps.
        trace: where steps are written.
    """

    def __init__(self, setup: Setup, trace: TraceWriter | None) -> None:
        assert setup.agent is not None
        self._setup, self._trace = setup, trace
        self._agent = setup.agent
        self._recorder = Recorder()
        self._model = ServedModel(MODEL, setup.model.lm, setup.model.engine)
        # The key of an episode is all that is asked for, and the server listens on loopback only.
        open_to_us = dataclasses.replace(settings.load(), token=None)
        self._server = Server({MODEL: self._model}, open_to_us, recorder=self._recorder)
        self._server.start()
        self._threads = ThreadPoolExecutor(setup.workers, thread_name_prefix="agent")
        self._ended: queue.SimpleQueue[Episode | MeleteError] = queue.SimpleQueue()
        self._active = 0

    @property
    def version(self) -> int:
        """Policy version of the weights that answer now."""
        return self._model.version

    @version.setter
    def version(self, version: int) -> None:
        self._model.version = version

    @property
    def active(self) -> int:
        """See `Player.active`."""
        return self._active

    def begin(self, ticket: Ticket) -> None:
        """See `Player.begin`."""
        self._active += 1
        self._threads.submit(self._play, ticket).add_done_callback(self._keep)

    def advance(self, wait_s: float) -> list[Episode]:
        """See `Player.advance`.

        Raises:
            MeleteError: the scenario is wrong in itself.
        """
        ended: list[Episode] = []
        try:
            while self._active:
                came = self._ended.get(timeout=0 if ended else wait_s)
                self._active -= 1
                if isinstance(came, MeleteError):
                    raise came
                ended.append(came)
        except queue.Empty:
            pass
        return ended

    def close(self) -> None:
        """See `Player.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._server.stop()
        self._active = 0

    def _play(self, ticket: Ticket) -> Episode | MeleteError:
        setup = self._setup
        sampling = {"temperature": setup.temperature, "max_tokens": setup.max_tokens}
        policy = PolicyRef(f"{self._server.url}/v1", MODEL, self.version, sampling=sampling)
        try:
            env = setup.scenario.create_environment(
                ticket.task, trace=self._trace, run=setup.run, episode=ticket.id
            )
            return player.play(
                self._agent,
                env,
                policy,
                ticket.id,
                ticket.seed,
                ticket.timeout_s,
                group=ticket.group,
                recorder=self._recorder,
            )
        except MeleteError as error:
            return error
        except Exception as error:  # the scenario's own code
            return Episode(
                ticket.id, ticket.task, ticket.group, "failed",
                reward=setup.scenario.reward_range[0], error=f"{type(error).__name__}: {error}",
            )  # fmt: skip

    def _keep(self, future: Future[Episode | MeleteError]) -> None:
        if not future.cancelled():
            self._ended.put(future.result())
