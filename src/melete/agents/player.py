"""Plays one episode of an unchanged agent: a base URL, a key and tools go in, a finished `Episode` comes out.

The agent is any callable that takes a `Session`. Its model calls go over HTTP to the policy and are recorded there by
its key; its tool calls go through the environment, and so through guard, trace and reward. It runs in a thread of its
own: an agent that raises is a failed episode with its error, one that hangs is a timed out one. When the episode is over,
however it ended, its tools raise `EpisodeOver` and its key is refused, so nothing of it can act or think afterwards.

Limits: Python cannot end a thread, so an agent that sleeps sleeps on, without effect. A call that a framework answers
itself (a tool that does not exist, arguments that it cannot read) never reaches the environment: with a recorder it is
counted as a failed call, but the model reads the framework's words about it.
"""

from __future__ import annotations

import asyncio
import collections
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from melete.actions.action import Message, ToolAction
from melete.agents.environment import Environment, Malformed
from melete.agents.hub import Episode, EpisodeStatus, Move, PolicyRef
from melete.records import ToolCall

if TYPE_CHECKING:
    from melete.serve.recording import RecordedMove, Recorder

Agent = Callable[["Session"], None | Awaitable[None]]
"""What practises: it is given a session, and the episode lasts until it returns or the session is done."""

GRACE_S = 1.0
"""How long an agent whose episode is over may take to notice, before its thread is left behind."""
LONGEST_ERROR = 2000
"""Characters of an agent's error that are kept."""


class EpisodeOver(Exception):
    """Raised by a tool of a session whose episode has ended."""


@dataclass(frozen=True)
class SessionTool:
    """A tool of the scenario, bound to one episode.

    Attributes:
        name: its name.
        description: what it does, for the model.
        parameters: JSON schema of its arguments.
        session: the episode it acts in.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    session: Session

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    def call(self, arguments: dict[str, Any]) -> str:
        """Proposes the call; what comes back is the result, or why it failed, for the model to read.

        Raises:
            EpisodeOver: the episode has ended.
        """
        return self.session.act(ToolAction(self.name, arguments))


class Session:
    """What an agent is given for one episode.

    Attributes:
        base_url: of an OpenAI-compatible server, ending in `/v1`.
        api_key: key of this episode.
        model: the model's name there.
        system_prompt: what the scenario tells its agents.
        request: the person's first message.
        tools: the scenario's tools, bound to this episode.
        seed: of this episode, for an agent that draws something itself.
    """

    def __init__(self, env: Environment, policy: PolicyRef, api_key: str, seed: int, request: str) -> None:
        self.base_url = policy.endpoint
        self.api_key = api_key
        self.model = policy.model
        self.system_prompt = env.scenario.system_prompt
        self.request = request
        self.seed = seed
        self.tools = [
            SessionTool(f["name"], f.get("description", ""), f.get("parameters") or {"type": "object"}, self)
            for f in (schema["function"] for schema in env.scenario.toolset.schemas)
        ]
        self.over = threading.Event()
        self._env = env
        self._lock = threading.Lock()
        self._on_act: Callable[[], None] = lambda: None
        self.done = False

    def act(self, action: ToolAction | Malformed) -> str:
        """Proposes a tool call to the environment; what comes back is for the model to read.

        Raises:
            EpisodeOver: the episode has ended.
        """
        with self._lock:
            if self.over.is_set():
                raise EpisodeOver("the episode is over")
            self._on_act()
            return self._step(action)

    def call(self, name: str, arguments: str) -> str:
        """Proposes a call as a model wrote it: any name, and arguments that may not be JSON.

        Raises:
            EpisodeOver: the episode has ended.
        """
        try:
            return self.act(ToolAction.from_call(ToolCall("", name, arguments)))
        except ValueError as error:
            return self.act(Malformed(f"{name} {arguments}: {error}"))

    def say(self, text: str) -> str | None:
        """Tells the person something; returns the answer, or None when the episode is over."""
        with self._lock:
            if self.over.is_set():
                return None
            answer = self._step(Message(text))
            return None if self.done else answer

    def end(self) -> None:
        """Ends the episode: no tool acts any more."""
        self.over.set()

    def _step(self, action: ToolAction | Message | Malformed) -> str:
        observation, _, terminated, truncated, _ = self._env.step(action)
        if terminated or truncated:
            self.done = True
            self.over.set()
        return observation


def play(
    agent: Agent,
    env: Environment,
    policy: PolicyRef,
    episode_id: str,
    seed: int,
    timeout_s: float | None = None,
    *,
    group: str = "",
    recorder: Recorder | None = None,
) -> Episode:
    """Plays one episode; it never raises for what the agent did.

    Args:
        agent: what practises.
        env: of the task to play; it is reset here.
        policy: where the model answers. With a recorder, `sampling` holds `temperature` and `max_tokens`.
        episode_id: name of the episode.
        seed: of the environment and of the policy's draws.
        timeout_s: how long the agent may take; None waits for ever.
        group: tries of one task share it.
        recorder: of the server at `policy.endpoint`. None if another, such as a gateway, records what the model says;
            the episode then has no moves and the policy's own key is used.
    """
    start_s = time.perf_counter()
    request, _ = env.reset(seed=seed)
    key = _open(recorder, policy, episode_id, seed) if recorder else policy.api_key
    session = Session(env, policy, key, seed, request)
    reached: collections.Counter[int] = collections.Counter()
    if recorder:
        session._on_act = lambda: reached.update([recorder.said(episode_id)])
    errors: list[Exception] = []
    thread = threading.Thread(target=_run, args=(agent, session, errors), name=episode_id, daemon=True)
    thread.start()
    ended = session.over.wait(timeout_s)
    session.end()
    said = recorder.close(episode_id) if recorder else []
    if ended:
        thread.join(GRACE_S)
    # What an agent raises because its episode is over is no failure.
    failure = errors[0] if errors and not session.done else None
    status: EpisodeStatus = "timeout" if not ended else "failed" if failure else "ok"
    missed = _never_arrived(said, reached, session.done)
    outcome = replace(env.outcome, tool_calls=env.outcome.tool_calls + missed)
    return Episode(
        id=episode_id,
        task=env.task,
        group=group,
        status=status,
        moves=tuple(Move(m.prompt_ids, m.response_ids, m.logprobs, m.policy_version, m.finish) for m in said),
        reward=outcome.reward if status == "ok" else env.scenario.reward_range[0],
        outcome=outcome,
        error=_text_of(failure, key) if failure else None,
        seconds=time.perf_counter() - start_s,
    )


def _open(recorder: Recorder, policy: PolicyRef, episode_id: str, seed: int) -> str:
    sampling = policy.sampling
    return recorder.open(
        episode_id,
        seed,
        temperature=sampling.get("temperature", 1.0),
        max_tokens=sampling.get("max_tokens"),
        model=policy.model,
    )


def _run(agent: Agent, session: Session, errors: list[Exception]) -> None:
    """The agent's thread."""
    try:
        if inspect.iscoroutinefunction(agent) or inspect.iscoroutinefunction(
            getattr(agent, "__call__", None)
        ):
            asyncio.run(agent(session))  # type: ignore[arg-type]
        else:
            agent(session)
    except Exception as error:  # the agent is its author's: whatever it raises is a result of the episode
        errors.append(error)
    finally:
        session.end()


def _never_arrived(said: list[RecordedMove], reached: collections.Counter[int], done: bool) -> int:
    """Calls that the model proposed and the framework answered itself; an episode that ended may leave some unheard."""
    turns = said[:-1] if done else said
    return sum(max(0, len(move.calls) - reached[i]) for i, move in enumerate(turns, 1))


def _text_of(error: Exception, key: str) -> str:
    text = f"{type(error).__name__}: {error}"
    return (text.replace(key, "***") if key else text)[:LONGEST_ERROR]
