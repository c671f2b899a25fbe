"""An agent of a scenario as a harness: it plays tasks against any OpenAI-compatible URL and says what came of them.

The address, the key and the model come from the environment of the task (`OPENAI_BASE_URL`, `OPENAI_API_KEY`,
`OPENAI_MODEL`), as they do for any other harness, so the agent need not know that it is being measured. The scenario's
guard judges every call and its criteria decide whether the task was solved. Several tasks are played at once, each in a
thread of its own; each keeps its own key.

`play_lines` is the batch protocol: a JSON line for a task comes in, one with its result goes out, in the order in which
they end. Limits: all tasks share one process, so one that needs a core delays the others; what a model wrote is not
kept here, and an error is told by its class alone, because its text may quote a prompt.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from melete.agents import player
from melete.agents import scenario as scenarios
from melete.agents.hub import Episode, PolicyRef
from melete.errors import ConfigError, MeleteError

if TYPE_CHECKING:
    from melete.agents.player import Agent

SEED = 20_000
"""Seed of the first task, as in an exam; the next task has the next one."""
ATTEMPT, SERIES = 1_000_003, 7_919_003
"""How far the seeds of a further attempt and of a further series are away."""
COUNTED = ("reward", "tool_calls", "tool_calls_ok", "refused", "steps", "policy_broken")
"""Fields of an outcome that a result reports."""
NEEDED = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL")


@dataclass(frozen=True)
class Assignment:
    """One task to play, and where the model answers.

    Attributes:
        session: name under which the result is given back.
        scenario: its name.
        split: of the scenario.
        number: of the task in the split.
        attempt: repeat of the same task, from 0; each has draws of its own.
        series: a number that another series of draws has another of.
        base_url: of an OpenAI-compatible server, ending in `/v1`.
        api_key: for that server.
        model: name to ask for.
        sampling: options of every completion, such as `temperature`.
    """

    session: str
    scenario: str
    split: str
    number: int
    attempt: int
    base_url: str
    api_key: str = field(repr=False)
    model: str
    sampling: Mapping[str, Any] = field(default_factory=dict)
    series: int = 0

    @property
    def seed(self) -> int:
        """Of the world and of the model's draws: the same for every variant that plays this attempt of this task."""
        return (SEED + self.number + ATTEMPT * self.attempt + SERIES * self.series) % 2**31


@dataclass(frozen=True)
class Result:
    """What came of one task; `self_reported` is what the agent's own side counted, see `counted`."""

    session: str
    solved: bool
    score: float | None
    note: str
    self_reported: dict[str, Any]


def assignment(line: str) -> Assignment:
    """Reads a line of the batch protocol: `{"session", "environment": {…}, "task": {…}}`.

    Raises:
        ConfigError: it is no such line; the message names the key.
    """
    try:
        row = json.loads(line)
        task = row["task"]
        return of(
            row["environment"],
            session=str(row["session"]),
            scenario=str(task["scenario"]),
            split=str(task["split"]),
            number=int(task["number"]),
            attempt=int(task.get("attempt", 0)),
            sampling=dict(task.get("parameters") or {}),
            series=int(task.get("seed", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"This is no task that an agent can play: {type(error).__name__}: {error}.",
            allowed='{"session", "environment": {…}, "task": {"scenario", "split", "number", "attempt"}}, on one line.',
        ) from error


def of(environment: Mapping[str, str], **values: Any) -> Assignment:
    """An assignment whose address, key and model stand in an environment.

    Raises:
        ConfigError: one of them is missing.
    """
    missing = [name for name in NEEDED if not environment.get(name)]
    if missing:
        raise ConfigError(
            f"The environment has no {', '.join(missing)}.",
            next_step="Start the agent with `melete bench exec`, or export what `melete bench session start` prints.",
        )
    base_url, api_key, model = (environment[name] for name in NEEDED)
    return Assignment(base_url=base_url, api_key=api_key, model=model, **values)


def play(agent: Agent, order: Assignment, timeout_s: float | None = None) -> Result:
    """Plays one task.

    Args:
        agent: of any framework, see `frameworks.agent`.
        order: what to play and where.
        timeout_s: how long the agent may take; None waits.

    Raises:
        ScenarioNotFoundError: no such scenario.
        ConfigError: no such split.
        ScenarioError: the scenario is wrong in itself.
    """
    scenario = scenarios.load(order.scenario)
    tasks = scenario.tasks(order.split, 1, start=order.number)
    if not tasks:
        raise ConfigError(f"{order.scenario} has no task {order.number} in its split {order.split}.")
    env = scenario.create_environment(tasks[0], episode=order.session)
    sampling = {"seed": order.seed, **order.sampling}
    policy = PolicyRef(order.base_url, order.model, 0, api_key=order.api_key, sampling=sampling)
    return result(player.play(agent, env, policy, order.session, order.seed, timeout_s))


def result(episode: Episode) -> Result:
    """A finished episode in the words of the batch protocol."""
    outcome = episode.outcome
    solved = episode.status == "ok" and outcome is not None and outcome.success
    # A score is from 0 to 1; the reward of a task that went wrong is below.
    return Result(episode.id, solved, round(max(0.0, episode.reward), 6), _note(episode), counted(episode))


def counted(episode: Episode) -> dict[str, Any]:
    """What the environment counted: reward, calls proposed and succeeded, refusals, steps, whether a policy was broken.

    None of it holds a word that was said.
    """
    said: dict[str, Any] = {"status": episode.status, "seconds": round(episode.seconds, 3)}
    if episode.outcome is not None:
        said |= {name: getattr(episode.outcome, name) for name in COUNTED}
    return said


def play_lines(
    agent: Agent,
    lines: Iterable[str],
    out: IO[str],
    *,
    concurrency: int = 8,
    timeout_s: float | None = None,
) -> int:
    """The batch protocol: plays each line of `lines` and writes a line to `out` when it has ended.

    A line that cannot be read, and a task that does not exist, give a result with a note, so that the others go on.

    Returns:
        How many were played.
    """
    writing = threading.Lock()
    played = 0

    def say(session: str, future: Future[Result]) -> None:
        try:
            ended = future.result()
        except MeleteError as error:
            ended = Result(
                session, False, None, f"{type(error).__name__}: {error.found}", {"status": "failed"}
            )
        with writing:
            out.write(json.dumps(asdict(ended), separators=(",", ":")) + "\n")
            out.flush()

    with ThreadPoolExecutor(concurrency, thread_name_prefix="task") as threads:
        for line in filter(str.strip, lines):
            try:
                order = assignment(line)
            except ConfigError as error:
                unread: Future[Result] = Future()
                unread.set_exception(error)
                say(_session_of(line), unread)
                continue
            played += 1
            future = threads.submit(play, agent, order, timeout_s)
            future.add_done_callback(partial(say, order.session))
    return played


def _session_of(line: str) -> str:
    """The session that a broken line names, so that whoever sent it can tell which one it was."""
    try:
        return str(json.loads(line).get("session", ""))
    except (ValueError, AttributeError):
        return ""


def _note(episode: Episode) -> str:
    if episode.status == "timeout":
        return f"timeout after {episode.seconds:.0f} s"
    return f"failed: {(episode.error or '').partition(':')[0]}" if episode.status == "failed" else ""
