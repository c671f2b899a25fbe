"""Agent Lightning 0.3.0: its store, runners and adapter, in one process of its own.

They were to run in this process, but their pins cannot be met beside Melete's (docs/decisions/0006-agent-lightning.md),
so they run in `.envs/agentlightning03` and reach this process by lines of JSON. There: the queue, the policy's versions
as resources, a runner thread for each worker, spans, and the triplets that are read from them. Here: the agents, with
guard and trace. A rollout goes from queue to runner, to an agent here, and back as spans, one for each completion.

Limits: only what this process submitted is played; nothing is kept when it ends; the start takes several seconds,
which is how long 0.3.0 takes to import. The 0.x line is no longer developed: prefer `agentlightning` for new work.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from melete.agents.hub import Episode, Mode, Move, PolicyRef, Setup
from melete.agents.hubs._child import Child
from melete.agents.hubs._playing import Order, Playground, Served, orders_of, outcome_of, summary
from melete.agents.hubs._relay import Relay
from melete.errors import HubError

if TYPE_CHECKING:
    from melete.agents.scenario import Task

ENVIRONMENT = "agentlightning03"
VERSION = "0.3.0"


class Hub:
    """A hub on Agent Lightning 0.3.0; see `melete.agents.hub.Hub`.

    Args:
        setup: what is played, by whom, with which model.
        policy: where the model answers, for the beginning.
        served: the model's server, if it is ours.

    Raises:
        HubError: the environment has not been made, or holds another version.
    """

    def __init__(self, setup: Setup, policy: PolicyRef, *, served: Served | None = None) -> None:
        self._served = served
        self._open: dict[str, Order] = {}
        self._ended: list[Episode] = []
        self._dead: HubError | None = None
        self._changed = threading.Condition()
        self._child = Child(ENVIRONMENT, "_child03.py")
        try:
            self._child.send({"workers": setup.workers})
            self._check_version(self._child.receive()["version"])
            self.publish(policy)
        except HubError:
            self._child.close()
            raise
        recorder = served.recorder if served is not None else None
        endpoint, version = lambda _: self._policy.endpoint, lambda: self._policy.version
        relay = Relay(endpoint, policy.api_key, version, recorder)
        self._playground = Playground(setup, relay)
        self._pool = ThreadPoolExecutor(setup.workers, thread_name_prefix="agentlightning03")
        threading.Thread(target=self._listen, name="agentlightning03-listen", daemon=True).start()

    def publish(self, policy: PolicyRef) -> None:
        """See `Hub.publish`."""
        self._policy = policy = self._served.published(policy) if self._served else policy
        self._send(
            "publish",
            endpoint=policy.endpoint,
            model=policy.model,
            version=policy.version,
            sampling=dict(policy.sampling),
        )

    def submit(
        self,
        tasks: Sequence[Task],
        *,
        group: str,
        mode: Mode = "train",
        seeds: Sequence[int],
        timeout_s: float | None = None,
    ) -> list[str]:
        """See `Hub.submit`."""
        orders = orders_of(tasks, group, mode, seeds, timeout_s)
        self._open.update((order.id, order) for order in orders)
        self._send("submit", orders=[order.to_dict() for order in orders])
        return [order.id for order in orders]

    def completed(self, wait_s: float | None = None) -> list[Episode]:
        """See `Hub.completed`; nothing if nothing is under way."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._dead or not self._open, wait_s)
            if self._dead is not None and not self._ended:
                raise self._dead
            ended, self._ended = self._ended, []
            return ended

    def pause(self) -> None:
        """See `Hub.pause`; returns when no completion is under way."""
        self._playground.relay.pause()

    def resume(self) -> None:
        """See `Hub.resume`."""
        self._playground.relay.resume()

    def close(self) -> None:
        """See `Hub.close`."""
        self._die(HubError("This hub has been closed."))
        self._playground.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._child.close()
        if self._served is not None:
            self._served.stop()

    def _listen(self) -> None:
        """Reads what the other process asks for and tells of, until it ends."""
        try:
            while True:
                message = self._child.receive()
                if message["what"] == "play":
                    self._pool.submit(self._play, Order.from_dict(message["order"]))
                else:
                    self._finish(message)
        except HubError as error:
            self._die(error)
        except RuntimeError:
            return  # closed meanwhile

    def _play(self, order: Order) -> None:
        """Plays what a runner of the other process asked for; for a worker's thread."""
        episode = self._playground.play(order, self._policy)
        calls = [
            {"prompt_ids": m.prompt_ids, "response_ids": m.response_ids, "logprobs": m.logprobs}
            for m in episode.moves
        ]
        # What a triplet has no place for.
        told = {**summary(episode), "of_moves": [[m.policy_version, m.finish] for m in episode.moves]}
        try:
            self._send("played", id=order.id, calls=calls, reward=episode.reward, told=told)
        except HubError:
            return  # the hub is dead, and says so to whoever asks it

    def _finish(self, message: dict[str, Any]) -> None:
        order, told = self._open.pop(message["id"]), message["told"]
        moves = tuple(
            Move(call["prompt_ids"], call["response_ids"], call["logprobs"], version, finish)
            for call, (version, finish) in zip(message["calls"], told["of_moves"], strict=True)
        )
        episode = Episode(
            id=order.id,
            task=order.task,
            group=order.group,
            status=told["status"],
            moves=moves,
            reward=message["reward"],
            outcome=outcome_of(told),
            error=told["error"],
            seconds=told["seconds"],
        )
        with self._changed:
            self._ended.append(episode)
            self._changed.notify_all()

    def _check_version(self, version: str) -> None:
        if version != VERSION:
            raise HubError(
                f".envs/{ENVIRONMENT} holds Agent Lightning {version}.",
                allowed=f"This hub needs {VERSION}; 1.x has the hub `agentlightning`.",
                next_step=f"Make it again with: python tools/envs.py {ENVIRONMENT}",
            )

    def _send(self, what: str, **fields: Any) -> None:
        if self._dead is not None:
            raise self._dead
        try:
            self._child.send({"what": what, **fields})
        except HubError as error:
            raise self._die(error) from error

    def _die(self, error: HubError) -> HubError:
        """Marks the hub as dead; the first reason stays."""
        with self._changed:
            self._dead = self._dead or error
            self._changed.notify_all()
        return self._dead


def open(setup: Setup) -> Hub:
    """Serves the model and opens a hub that plays it through Agent Lightning 0.3.0.

    Raises:
        HubError: the environment has not been made, or holds another version.
    """
    served = Served(setup)
    try:
        return Hub(setup, served.policy, served=served)
    except HubError:
        served.stop()
        raise
