"""Agent Lightning 1.x: rollouts, events and policy versions are kept by its server, over its HTTP contract.

The server runs from an environment of its own (`open`) or anywhere else (`Hub` with its URL and key). Agents act in
this process: threads claim rollouts from the server, play them, and report events and states back, so that further
workers may claim from the same server. A model call goes agent, relay, Agent Lightning's proxy, policy: the relay says
which episode it is, the proxy keeps prompt ids, drawn ids, log-probabilities and the policy's version.

    publish    DELETE and POST /api/models         completed  GET /api/rollouts/terminal, GET .../events, DELETE
    submit     POST /api/rollouts, our own ids     pause      POST /proxy/pause, then until nothing is in flight

Episodes are read from the plain events and not with `format=triplet`, which drops why a completion ended and keeps
only the last of two completions of the same prompt. Limits of the server: one model name and one temperature,
fixed at its start; no key for the policy's server; everything in memory. Needs 1.0.2 or newer.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx

from melete.agents.hub import Episode, Mode, Move, PolicyRef, Setup
from melete.agents.hubs._child import Child
from melete.agents.hubs._http import Clients
from melete.agents.hubs._playing import MODEL, Order, Playground, Served, orders_of, outcome_of, summary
from melete.agents.hubs._relay import Relay, finish
from melete.errors import ConfigError, HubError, MeleteError

if TYPE_CHECKING:
    from melete.agents.scenario import Task

ENVIRONMENT = "agentlightning1"
ATTEMPT = "0"
LOOK_S = 1.0
"""How long to wait before looking for rollouts that others submitted, or finished, when nothing happened here."""
LISTED = 64
LONGEST_ANSWER_S = 30.0
NEEDED = ("/api/rollouts/terminal", "/api/models", "/proxy/pause", "/api/rollouts/{rollout_id}/events")


class Hub:
    """A hub on an Agent Lightning 1.x server; see `melete.agents.hub.Hub`.

    Args:
        setup: what is played, by whom, with which model.
        policy: where the model answers, for the beginning; None leaves that to another client of the server.
        url: of the server.
        key: its key.
        child: the server's process, if it is ours.
        served: the model's server, if it is ours.

    Raises:
        HubError: nothing answers there, or it is no Agent Lightning 1.x server.
    """

    def __init__(
        self,
        setup: Setup,
        policy: PolicyRef | None,
        url: str,
        key: str = "",
        *,
        child: Child | None = None,
        served: Served | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._child = child
        self._served = served
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._clients = Clients(headers, LONGEST_ANSWER_S)
        self._temperature = setup.temperature
        self._modes: dict[str, str] = {}
        self._open: dict[str, Order] = {}
        self._workers = setup.workers
        self._submitted = 0
        self._taken: set[str] = set()
        self._paused = self._news = False
        self._dead: HubError | None = None
        self._changed = threading.Condition()
        self._check_version()
        # What ended before this hub came is not its own.
        self._after = self._json("GET", "/api/rollouts/terminal", params={"limit": 1})["total_terminal"]
        self._policy = PolicyRef("", "", 0, sampling={"max_tokens": setup.max_tokens})
        if policy is not None:
            self.publish(policy)
        recorder = served.recorder if served is not None else None
        relay = Relay(self._proxy_of, key, lambda: self._policy.version, recorder)
        self._playground = Playground(setup, relay)
        self._pool = ThreadPoolExecutor(setup.workers, thread_name_prefix="agentlightning")
        threading.Thread(target=self._claim_all, name="agentlightning-claim", daemon=True).start()

    def publish(self, policy: PolicyRef) -> None:
        """See `Hub.publish`.

        Raises:
            ConfigError: the server cannot do what the policy asks for.
        """
        policy = self._served.published(policy) if self._served else policy
        if policy.api_key:
            raise ConfigError(
                "Agent Lightning's proxy passes on no key, and the policy's server asks for one.",
                next_step="Serve the policy on loopback without a token, or take the hub `local`.",
            )
        if policy.sampling.get("temperature", self._temperature) != self._temperature:
            raise ConfigError(
                f"This Agent Lightning server samples at temperature {self._temperature:g}, fixed at its start.",
                next_step="Open another hub for another temperature.",
            )
        model = {"model": policy.model, "endpoint": policy.endpoint, "version": policy.version}
        self._json("DELETE", "/api/models")
        self._json("POST", "/api/models", json=[model])
        self._policy = policy

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
        rollouts = [
            {
                "rollout_id": order.id,
                "input": {"data_id": order.task.id, "order": json.dumps(order.to_dict())},
                "is_train": mode == "train",
                "metadata": {"group": group},
                **({"config": {"timeout_seconds": max(1, round(timeout_s))}} if timeout_s else {}),
            }
            for order in orders
        ]
        self._json("POST", "/api/rollouts", json=rollouts)
        self._tell()
        return [order.id for order in orders]

    def completed(self, wait_s: float | None = None) -> list[Episode]:
        """See `Hub.completed`; nothing if nothing is under way."""
        end_s = None if wait_s is None else time.monotonic() + wait_s
        while self._open:
            page = self._json("GET", "/api/rollouts/terminal", params={"after": self._after})
            self._after = page["next_after"]
            ended = [self._collect(item["rollout_id"]) for item in page["items"]]
            if episodes := [episode for episode in ended if episode is not None]:
                return episodes
            left_s = LOOK_S if end_s is None else end_s - time.monotonic()
            if left_s <= 0:
                return []
            with self._changed:
                self._changed.wait_for(lambda: self._news or self._dead is not None, min(left_s, LOOK_S))
                self._news = False
        return []

    def wait(self) -> None:
        """Plays what others submit until the server goes away; for a worker.

        Raises:
            HubError: it has gone away.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._dead is not None)
        assert self._dead is not None
        raise self._dead

    def pause(self) -> None:
        """See `Hub.pause`; returns when no completion is under way."""
        with self._changed:
            self._paused = True
        self._playground.relay.pause()
        state = self._json("POST", "/proxy/pause", json={"reason": "weights are exchanged"})
        while state["inflight"]:
            time.sleep(0.005)
            state = self._json("GET", "/proxy/state")

    def resume(self) -> None:
        """See `Hub.resume`."""
        self._json("POST", "/proxy/resume")
        self._playground.relay.resume()
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def close(self) -> None:
        """See `Hub.close`; ends the server if this hub started it."""
        self._die(HubError("This hub was closed."))
        self._playground.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._child is not None:
            self._child.close()
        if self._served is not None:
            self._served.stop()

    def _claim_all(self) -> None:
        """Hands queued rollouts to the workers, as they become free, until the hub dies."""
        with contextlib.suppress(HubError):
            while self._dead is None:
                seen = self._submitted
                listed = self._json("GET", "/api/rollouts", params={"state_in": "queuing", "limit": LISTED})
                new = [one for one in listed if one["rollout_id"] not in self._taken and _is_order(one)]
                for rollout in new:
                    with self._changed:
                        self._changed.wait_for(
                            lambda: self._dead or (len(self._taken) < self._workers and not self._paused)
                        )
                        if self._dead:
                            return
                        self._taken.add(rollout["rollout_id"])
                    self._pool.submit(self._play, rollout)
                if not new:
                    with self._changed:
                        self._changed.wait_for(lambda: self._dead or self._submitted != seen, LOOK_S)  # noqa: B023

    def _play(self, rollout: dict[str, Any]) -> None:
        """Claims a rollout, plays it and reports it; for a worker's thread."""
        rollout_id = rollout["rollout_id"]
        try:
            claim = {"state": "running", "last_attempt_id": ATTEMPT}
            if self._ask("PATCH", f"/api/rollouts/{rollout_id}", json={"status": claim}).status_code != 200:
                return  # another worker was quicker
            order = _order(rollout)
            self._modes[rollout_id] = order.mode
            episode = self._playground.play(order, self._policy)
            events = f"/api/rollouts/{rollout_id}/attempt/{ATTEMPT}/events"
            reward = {"event_type": "reward", "data": {"value": episode.reward, "source": "agent"}}
            self._json("POST", events, json=reward)
            self._json("POST", events, json={"event_type": "episode", "data": summary(episode)})
            status = {"state": "succeeded" if episode.status == "ok" else "failed"}
            if episode.error or episode.status == "timeout":
                status["error_message"] = episode.error or "timed out"
            self._json("PATCH", f"/api/rollouts/{rollout_id}", json={"status": status})
        except HubError:
            return  # the hub is dead, and says so to whoever asks it
        finally:
            self._modes.pop(rollout_id, None)
            with self._changed:
                self._taken.discard(rollout_id)
                self._news = True
                self._changed.notify_all()

    def _forget(self, rollout_id: str) -> None:
        """Removes a collected rollout from the server, which keeps everything in memory; for a worker's thread."""
        with contextlib.suppress(HubError):
            self._json("DELETE", f"/api/rollouts/{rollout_id}")

    def _collect(self, rollout_id: str) -> Episode | None:
        """The finished episode of a rollout, which the server then forgets; None if it is not ours."""
        order = self._open.get(rollout_id)
        if order is None:
            return None
        events = self._json("GET", f"/api/rollouts/{rollout_id}/events")
        by_type: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            by_type.setdefault(event["event_type"], []).append(event["data"])
        told = (by_type.get("episode") or [{"status": "failed", "error": "ended by another worker"}])[-1]
        rewards = by_type.get("reward") or [{"value": 0.0}]
        episode = Episode(
            id=rollout_id,
            task=order.task,
            group=order.group,
            status=told["status"],
            moves=tuple(_move(one) for one in by_type.get("model_request", ()) if one["status"] == "ok"),
            reward=float(rewards[-1]["value"]),
            outcome=outcome_of(told),
            error=told.get("error"),
            seconds=float(told.get("seconds", 0.0)),
        )
        del self._open[rollout_id]
        self._pool.submit(self._forget, rollout_id)
        return episode

    def _proxy_of(self, rollout_id: str) -> str:
        """Where Agent Lightning's proxy answers the agent of a rollout."""
        mode = self._modes[rollout_id]
        return f"{self.url}/proxy/rollout/{rollout_id}/attempt/{ATTEMPT}/mode/{mode}/openai/v1"

    def _tell(self) -> None:
        with self._changed:
            self._submitted += 1
            self._changed.notify_all()

    def _check_version(self) -> None:
        """Refuses a server that is something else, such as one of the 0.x line."""
        document = self._ask("GET", "/openapi.json")
        paths = document.json().get("paths", {}) if document.status_code == 200 else {}
        missing = [path for path in NEEDED if path not in paths]
        if missing:
            raise HubError(
                f"What answers at {self.url} is no Agent Lightning 1.x server: it has no {missing[0]}.",
                allowed="Agent Lightning 1.0.2 or newer; the 0.x line has the hub `agentlightning03`.",
                next_step=f"Let the hub start its own, from: python tools/envs.py {ENVIRONMENT}",
            )

    def _json(self, method: str, path: str, **arguments: Any) -> Any:
        """Body of an answer.

        Raises:
            HubError: the server is gone, or refused.
        """
        response = self._ask(method, path, **arguments)
        if response.status_code >= 400:
            raise HubError(
                f"Agent Lightning refused {method} {path} with status {response.status_code}: {response.text[:300]}"
            )
        return response.json() if response.content else None

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        if self._dead is not None:
            raise self._dead
        try:
            return self._clients.http.request(method, self.url + path, **arguments)
        except httpx.HTTPError as error:
            raise self._die(self._gone(error)) from error

    def _gone(self, error: Exception) -> HubError:
        if self._child is not None and self._child.ended(5.0):
            return self._child.died()
        return HubError(
            f"The Agent Lightning server at {self.url} does not answer: {type(error).__name__}.",
            next_step="Episodes that were not collected can be submitted again to a new hub.",
        )

    def _die(self, error: HubError) -> HubError:
        """Marks the hub as dead; the first reason stays."""
        with self._changed:
            self._dead = self._dead or error
            self._changed.notify_all()
        return self._dead


def open(setup: Setup) -> Hub:
    """Serves the model, starts Agent Lightning's server from its environment, and opens a hub on both.

    Raises:
        HubError: the environment has not been made, or the server did not start.
    """
    child = Child(ENVIRONMENT, "_server1.py")
    key = secrets.token_urlsafe(24)
    sampled = {"temperature": setup.temperature}
    proxy = {"model_name": MODEL, "train": sampled, "val": sampled, "include_log_probs": True}
    served = None
    try:
        child.send({"key": key, "default_proxy": proxy})
        url = f"http://127.0.0.1:{child.receive()['port']}"
        served = Served(setup)
        return Hub(setup, served.policy, url, key, child=child, served=served)
    except MeleteError:
        child.close()
        if served is not None:
            served.stop()
        raise


def _is_order(rollout: dict[str, Any]) -> bool:
    """Whether a rollout is one that this hub can play; others are left to workers of another kind."""
    told = rollout["input"]
    return isinstance(told, dict) and isinstance(told.get("order"), str)


def _order(rollout: dict[str, Any]) -> Order:
    """The order in a rollout; who submits from elsewhere need not know its id and may leave the seed out."""
    rollout_id = rollout["rollout_id"]
    drawn, mode = zlib.crc32(rollout_id.encode()), "train" if rollout["is_train"] else "val"
    defaults = {"group": "", "timeout_s": None, "seed": drawn, "mode": mode}
    return Order.from_dict({**defaults, **json.loads(rollout["input"]["order"]), "id": rollout_id})


def _move(request: dict[str, Any]) -> Move:
    """A recorded model request of the proxy as a move."""
    answer = request["response"]
    choice = answer["choices"][0]
    return Move(
        answer["prompt_token_ids"],
        choice["token_ids"],
        [row["logprob"] for row in (choice.get("logprobs") or {}).get("content") or ()],
        int(request["model_version"]),
        finish(choice),
    )
