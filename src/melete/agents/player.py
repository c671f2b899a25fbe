"""Plays one episode of an unchanged agent: a base URL, a key and tools go in, a finished `Episode` comes out.

The agent is any callable that takes a `Session`. Its model calls go over HTTP to the policy and are recorded there by
its key; its tool calls go through the environment, and so through guard, trace and reward. It runs in a thread of its
own: an agent that raises is a failed episode with its error, one that hangs is a timed out one. When the episode is
over, however it ended, its tools raise `EpisodeOver` and its key is refused: nothing of it can act or think afterwards.

Limits: Python cannot end a thread, so an agent that sleeps sleeps on, without effect. A call that a framework answers
itself (a tool that does not exist, arguments that it cannot read) never reaches the tools of the session; with a
recorder it is counted as the failed call that it is, but the model has read the framework's words about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from melete.actions.action import Message, ToolAction
from melete.agents.hub import Episode, EpisodeStatus, Move, PolicyRef
from melete.errors import MeleteError
from melete.records import ToolCall, Turn

if TYPE_CHECKING:
    from melete.agents.environment import Environment
    from melete.serve.recording import RecordedMove, Recorder

Agent = Callable[["Session"], Coroutine[Any, Any, None] | None]
"""What practises: it is given a session, and the episode lasts until it returns or the session is done."""

GRACE_S = 1.0
"""How long an agent whose episode is over may take to notice before its thread is left behind."""
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
        return self.session.propose(ToolAction(self.name, arguments).to_call())


class Session:
    """What an agent is given for one episode. Safe from any thread; one tool acts at a time.

    Attributes:
        base_url: of an OpenAI-compatible server, ending in `/v1`.
        api_key: key of this episode.
        model: the model's name there.
        sampling: options of a completion that the agent should ask for; a server that records samples as it was told
            to, whatever it is asked.
        system_prompt: what the scenario tells its agents.
        request: the person's first message.
        tools: the scenario's tools, bound to this episode.
        seed: of this episode, for an agent that draws something itself.
        over: set when the episode has ended.
        fault: what the scenario itself raised, if it did.
    """

    def __init__(
        self,
        env: Environment,
        policy: PolicyRef,
        *,
        api_key: str,
        seed: int,
        request: str,
        heard: Callable[[], list[RecordedMove]] | None = None,
    ) -> None:
        self.base_url = policy.endpoint
        self.api_key = api_key
        self.model = policy.model
        self.sampling = dict(policy.sampling)
        self.system_prompt = env.scenario.system_prompt
        self.request = request
        self.seed = seed
        self.tools = [
            SessionTool(f["name"], f.get("description", ""), f.get("parameters") or {"type": "object"}, self)
            for f in (schema["function"] for schema in env.scenario.toolset.schemas)
        ]
        self.over = threading.Event()
        self.fault: Exception | None = None
        self._env = env
        self._ledger = _Ledger(env, heard or list)
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """Whether the environment has ended the episode."""
        return self._env.over

    def propose(self, call: ToolCall) -> str:
        """Proposes a call as a model wrote it: any name, and arguments that may not be JSON.

        Returns:
            The result, or why it failed, for the model to read.

        Raises:
            EpisodeOver: the episode has ended.
        """
        with self._acting():
            self._ledger.settle()
            self._note_end()
            if self.over.is_set():
                raise EpisodeOver("the episode is over")
            observation, *_ = self._env.act(self._ledger.turn_of(call))
            self._note_end()
            return observation

    def say(self, text: str) -> str | None:
        """Tells the person something; returns the answer, or None when the episode is over."""
        with self._acting():
            self._ledger.settle()
            self._note_end()
            if self.over.is_set():
                return None
            observation, *_ = self._env.step(Message(text))
            self._note_end()
            return None if self._env.over else observation

    def end(self) -> None:
        """Ends the episode from outside: no tool acts any more."""
        self.over.set()

    def leave(self) -> None:
        """The agent has returned: what it proposed last is counted, and the episode ends."""
        with self._acting():
            if not self.over.is_set():
                self._ledger.settle(last=True)
        self.end()

    @contextlib.contextmanager
    def _acting(self) -> Iterator[None]:
        """One at a time; what the scenario itself raises ends the episode, even if a framework keeps it from us."""
        with self._lock:
            try:
                yield
            except EpisodeOver:
                raise
            except Exception as error:  # the scenario's own code
                self.fault = error
                self.over.set()
                raise

    def _note_end(self) -> None:
        if self._env.over:
            self.over.set()


class _Ledger:
    """Matches the calls that arrive at the tools with those that the model wrote.

    A call that arrives is given to the environment as the model wrote it, with the text beside it. One that never
    arrives and could not have been executed anyway is given to it too, so that it counts. One that the agent holds back
    although it could be executed is the agent's own decision, and is left out.
    """

    def __init__(self, env: Environment, heard: Callable[[], list[RecordedMove]]) -> None:
        self._env = env
        self._heard = heard
        self._read = 0
        self._pending: list[ToolCall] = []
        self._beside = ""

    def settle(self, last: bool = False) -> None:
        """Reads what the model has written meanwhile; calls of earlier turns that have not arrived never will."""
        moves = self._heard()
        for move in moves[self._read :]:
            self._give_up()
            self._pending, self._beside = list(move.turn.tool_calls), move.turn.content
        self._read = len(moves)
        if last:
            self._give_up()

    def turn_of(self, call: ToolCall) -> Turn:
        """The turn of an arriving call, in the words of the model if it wrote such a call."""
        for i, written in enumerate(self._pending):
            if written.name == call.name and _value(written) == _value(call):
                beside, self._beside = self._beside, ""
                return Turn("assistant", beside, (self._pending.pop(i),))
        return Turn("assistant", "", (call,))

    def _give_up(self) -> None:
        for call in self._pending:
            if not self._env.over and self._hopeless(call):
                self._env.act(Turn("assistant", "", (call,)))
        self._pending = []

    def _hopeless(self, call: ToolCall) -> bool:
        try:
            action = ToolAction.from_call(call)
        except ValueError:
            return True
        return bool(self._env.scenario.toolset.problems(action))


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
    """Plays one episode; it never raises for what the agent did, and frees the environment's world at the end.

    Args:
        agent: what practises.
        env: of the task to play; it is reset here.
        policy: where the model answers. With a recorder, `sampling` may hold `temperature` and `max_tokens`.
        episode_id: name of the episode.
        seed: of the environment and of the policy's draws.
        timeout_s: how long the agent may take; None waits for ever.
        group: tries of one task share it.
        recorder: of the server at `policy.endpoint`. None if another, such as a gateway, records what the model says;
            the episode then has no moves, and the agent gets the policy's own key.

    Raises:
        MeleteError: the scenario is wrong in itself, such as one whose reward leaves its range.
    """
    start_s = time.perf_counter()
    request, _ = env.reset(seed=seed)
    key = _open(recorder, policy, episode_id, seed) if recorder else policy.api_key
    heard = (lambda: recorder.moves(episode_id)) if recorder else None
    session = Session(env, policy, api_key=key, seed=seed, request=request, heard=heard)
    errors: list[Exception] = []
    thread = threading.Thread(target=_run, args=(agent, session, errors), name=episode_id, daemon=True)
    thread.start()
    in_time = session.over.wait(timeout_s)
    session.end()
    full = recorder is not None and recorder.full(episode_id)
    moves = recorder.close(episode_id) if recorder else []
    if in_time:
        thread.join(GRACE_S)
    if isinstance(session.fault, MeleteError):
        raise session.fault
    # What an agent raises because its episode is over, or its model's context is full, is no failure.
    failure = session.fault or (errors[0] if errors and not (session.done or full) else None)
    status: EpisodeStatus = "timeout" if not in_time else "failed" if failure else "ok"
    outcome = env.outcome
    env.close()
    assert env.task is not None
    return Episode(
        id=episode_id,
        task=env.task,
        group=group,
        status=status,
        moves=tuple(map(_move, moves)),
        reward=outcome.reward if status == "ok" else env.scenario.reward_range[0],
        outcome=outcome,
        error=_text_of(failure, key) if failure else None,
        seconds=time.perf_counter() - start_s,
    )


def _open(recorder: Recorder, policy: PolicyRef, episode_id: str, seed: int) -> str:
    return recorder.open(
        episode_id,
        seed,
        temperature=policy.sampling.get("temperature", 1.0),
        max_tokens=policy.sampling.get("max_tokens"),
        model=policy.model,
    )


def _move(seen: RecordedMove) -> Move:
    return Move(
        seen.prompt_ids, seen.response_ids, seen.logprobs, seen.policy_version, seen.finish,
        seen.begun_s, seen.first_s, seen.ended_s, seen.cached, len(seen.turn.tool_calls),
    )  # fmt: skip


def _run(agent: Agent, session: Session, errors: list[Exception]) -> None:
    """The agent's thread."""
    try:
        result = agent(session)
        if inspect.iscoroutine(result):
            asyncio.run(result)
        session.leave()
    except Exception as error:  # the agent is its author's: whatever it raises is a result of the episode
        errors.append(error)
    finally:
        session.end()


def _value(call: ToolCall) -> Any:
    """The arguments for comparing: as an object if they are one."""
    try:
        return ToolAction.from_call(call).arguments
    except ValueError:
        return call.arguments


def _text_of(error: Exception, key: str) -> str:
    text = f"{type(error).__name__}: {error}"
    return (text.replace(key, "***") if key else text)[:LONGEST_ERROR]
