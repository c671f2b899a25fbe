"""Plays episodes of a scenario straight through the engine: no HTTP, all episodes in flight decode together.

Each episode goes its own pace: as soon as a turn is written it is parsed, its calls are executed in the environment
(guard, trace and reward included) and its next turn is queued, while the others decode on. One thread drives it all,
so the same seeds and weights give the same episodes, token by token, whatever the time.

What a model wrote stays as it was drawn: the next prompt is the last one, the drawn ids, and the ids of what it was
answered, so that the engine computes only what is new and training merges the whole episode into one row. A chat
template that cannot be continued like this is rendered anew each turn. An episode that outgrows the context is folded
(`llm/folding.py`) and goes on in a row of its own; it ends where it is when not even that fits.

Limits: the tools run in this thread, one after the other; a tool that waits makes all episodes wait. Agents that are
programs of their own go through `player.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from melete.agents.hub import Episode, EpisodeStatus, Mode, Move
from melete.errors import ConfigError, MeleteError
from melete.llm import folding
from melete.llm.engine import Engine, Sampling
from melete.records import Turn
from melete.serve.recording import turn_seed

if TYPE_CHECKING:
    from melete.actions.trace import TraceWriter
    from melete.agents.environment import Environment
    from melete.agents.scenario import Scenario, Task
    from melete.llm.engine.api import Constraint, Generation, Token
    from melete.llm.lm import LM

STEPS = 24
"""Steps of the engine between two looks at what ended: about a fifth of an episode."""
WAITING = 1 << 20
"""An engine's line is as long as it has to be: it is filled by one player alone."""
LEAST_ROOM = 8
"""Tokens that a turn must have room for, at the very least."""


@dataclass(frozen=True)
class Ticket:
    """An episode that is to be played; see `Hub.submit`."""

    id: str
    task: Task
    group: str
    seed: int
    mode: Mode = "train"
    timeout_s: float | None = None


class Player(Protocol):
    """Plays tickets, several at once; turns that begin now are drawn by policy `version`."""

    version: int

    def begin(self, ticket: Ticket) -> None:
        """Starts an episode."""
        ...

    def advance(self, wait_s: float) -> list[Episode]:
        """Goes on with all that run for a while, `wait_s` if it is time that passes; returns those that ended."""
        ...

    @property
    def active(self) -> int:
        """Episodes that run."""
        ...

    def close(self) -> None:
        """Gives up what runs."""
        ...


@dataclass
class _Running:
    """An episode between two turns."""

    ticket: Ticket
    env: Environment
    began_s: float
    prompt: list[int] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    generation: Generation | None = None
    version: int = 0
    folded: int = 0


class EnginePlayer:
    """See the head of this file.

    Args:
        lm: chat format and context.
        engine: with the weights to sample from; nobody else may step it.
        scenario: what is played.
        temperature: 0 takes the most probable token; log-probs are those at 1.
        max_tokens: most tokens of one turn.
        constraint: makes a fresh limit on what a turn may hold, None for free decoding.
        trace: where steps are written.
        run: id of the run, for the trace.

    Attributes:
        version: policy version that turns which begin now are drawn with.
    """

    def __init__(
        self,
        lm: LM,
        engine: Engine,
        scenario: Scenario,
        *,
        temperature: float = 1.0,
        max_tokens: int = 128,
        constraint: Callable[[], Constraint | None] | None = None,
        trace: TraceWriter | None = None,
        run: str = "",
    ) -> None:
        self.lm, self.engine, self.scenario = lm, engine, scenario
        self.temperature, self.max_tokens = temperature, max_tokens
        self.constraint, self.trace, self.run = constraint, trace, run
        self.version = 0
        self._budget = folding.budget(engine.context)
        self._running: dict[str, _Running] = {}
        self._written: list[_Running] = []
        self._ended: list[Episode] = []

    @property
    def active(self) -> int:
        """See `Player.active`."""
        return len(self._running)

    def begin(self, ticket: Ticket) -> None:
        """See `Player.begin`."""
        env = self.scenario.create_environment(ticket.task, trace=self.trace, run=self.run, episode=ticket.id)
        running = _Running(ticket, env, time.monotonic())
        self._running[ticket.id] = running
        try:
            env.reset()
        except MeleteError:
            raise
        except Exception as error:  # the scenario's own code
            self._end(running, "failed", f"{type(error).__name__}: {error}")
            return
        self._ask(running, self._rendered(running))

    def advance(self, wait_s: float = 0.0) -> list[Episode]:
        """See `Player.advance`: `STEPS` steps of the engine, whatever the time, so that it is always the same."""
        for _ in range(STEPS):
            if not self._running:
                break
            busy = self.engine.step()
            assert busy or self._written, "an episode waits for nothing"
            written, self._written = self._written, []
            for running in written:
                self._take(running)
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """See `Player.close`."""
        for running in self._running.values():
            if running.generation is not None:
                running.generation.cancel()
        self._running.clear()
        while self.engine.step():
            pass
        self._written.clear()

    def _rendered(self, running: _Running) -> list[int]:
        return self.lm.chat.render(running.env.conversation(), generation_prompt=True)[0]

    def _folded(self, running: _Running, prompt: list[int]) -> list[int]:
        """The prompt with older turns folded into a note; as it is if that cannot be."""
        try:
            folded, running.folded = folding.fold(self.lm, running.env.conversation(), self._budget)
        except ConfigError:
            return prompt
        return folded

    def _ask(self, running: _Running, prompt: list[int]) -> None:
        """Queues the next turn, or ends the episode if the context is full."""
        if len(prompt) > self._budget:
            prompt = self._folded(running, prompt)
        if len(prompt) > self.engine.context - LEAST_ROOM:
            self._end(running, "ok", None)
            return
        running.prompt, running.version = prompt, self.version
        sampling = Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=turn_seed(running.ticket.seed, len(running.moves)),
            logprobs=0,
            constraint=self.constraint() if self.constraint else None,
        )

        def heard(token: Token | None) -> None:
            if token is None:
                self._written.append(running)

        running.generation = self.engine.submit(prompt, sampling, heard)

    def _take(self, running: _Running) -> None:
        """A turn has been written: acts on it and asks for the next one."""
        generation = running.generation
        if running.ticket.id not in self._running or generation is None:
            return
        drawn = generation.token_ids
        finish = str(generation.finish_reason)
        if finish == "error" or not drawn:
            self._end(running, "failed", generation.error or "nothing was written")
            return
        turn = self.lm.chat.parse(drawn)
        move = Move(
            running.prompt, drawn, generation.logprobs, running.version, finish,
            generation.begun_s, generation.first_s, generation.ended_s, generation.cached_tokens,
            len(turn.tool_calls),
        )  # fmt: skip
        running.moves.append(move)
        before = len(running.env.turns)
        try:
            _, _, terminated, truncated, _ = running.env.act(numbered(turn, before))
        except MeleteError:
            raise
        except Exception as error:  # the scenario's own code
            self._end(running, "failed", f"{type(error).__name__}: {error}")
            return
        limit_s = running.ticket.timeout_s
        if terminated or truncated:
            self._end(running, "ok", None)
        elif limit_s is not None and time.monotonic() - running.began_s > limit_s:
            self._end(running, "timeout", f"not over after {limit_s:g} s")
        else:
            self._ask(running, self._next_prompt(running, move, running.env.turns[before:]))

    def _next_prompt(self, running: _Running, move: Move, turns: list[Turn]) -> list[int]:
        tail = self.lm.chat.follow([turn for turn in turns if turn.role != "assistant"])
        if tail is None:
            return self._rendered(running)
        end = self.lm.chat.stop_ids[0]
        drawn = list(move.response_ids)
        if drawn[-1] in self.lm.chat.stop_ids:
            drawn.pop()  # a turn that ended by beginning another role's ends like any other
        return [*move.prompt_ids, *drawn, end, *tail]

    def _end(self, running: _Running, status: EpisodeStatus, error: str | None) -> None:
        ticket = running.ticket
        del self._running[ticket.id]
        started = bool(running.env.turns)
        outcome = running.env.outcome if started else None
        good = status == "ok" and outcome is not None
        self._ended.append(
            Episode(
                id=ticket.id,
                task=ticket.task,
                group=ticket.group,
                status=status,
                moves=tuple(running.moves),
                reward=outcome.reward if good and outcome else self.scenario.reward_range[0],
                outcome=outcome,
                error=error,
                seconds=time.monotonic() - running.began_s,
                folded=running.folded,
            )
        )
        running.env.close()


def numbered(turn: Turn, start: int) -> Turn:
    """The turn with ids of its calls that are unique in the episode."""
    if not turn.tool_calls:
        return turn
    return replace(
        turn,
        tool_calls=tuple(replace(call, id=f"call_{start + i}") for i, call in enumerate(turn.tool_calls)),
    )
