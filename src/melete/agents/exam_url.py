"""The exam of a scenario for any model behind an OpenAI-compatible URL, played by the plain agent of the openai client.

Tasks, seeds, table and intervals are those of `exam.py`, so the rows can be laid beside those of a model of ours.
Guard, tools and criteria are here: the server is only asked for completions. Several tasks are played at once, each in
a thread of its own.

Limits: the seed of a completion is asked for, and only a server that honours it gives the same episodes again. A server
refuses a turn that might not fit into the model's context; the task has then failed. Tokens are those that the server
counts, unknown where it counts none. Whether decoding is held to a schema is the server's matter, so that there is no
such row. Nothing is kept as a session: `melete bench` measures agents behind URLs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from melete.agents import frameworks, player
from melete.agents.exam import EXAM_SEED, ExamConfig, outline, sentence, traced
from melete.agents.hub import PolicyRef
from melete.agents.measure import Measured, Spent, count
from melete.errors import ServerError
from melete.evals.url import UrlModel, key

if TYPE_CHECKING:
    from melete.actions.trace import TraceWriter
    from melete.agents.frameworks.openai import ToolLoop
    from melete.agents.hub import Episode
    from melete.agents.player import Session
    from melete.agents.scenario import Scenario, Task
    from melete.runs.run import Run


class UrlExamConfig(ExamConfig, Protocol):
    """What decides an exam through a URL.

    Attributes:
        url: of the server, with or without `/v1`.
        model: its id there; empty takes the only one.
        key_env: variable that holds the key.
        workers: tasks that are played at once.
        timeout_s: longest that one task may take.
    """

    url: str
    model: str
    key_env: str
    workers: int
    timeout_s: float


def sit(config: UrlExamConfig, scenario: Scenario, run: Run, token: str | None) -> tuple[str, list[Measured]]:
    """Plays all splits but `train`.

    Args:
        config: see `UrlExamConfig`.
        scenario: what is played.
        run: is told of progress.
        token: our own server's, sent only to this machine.

    Returns:
        The model's id at the server, and a row for each split and decoding.

    Raises:
        ConfigError: the URL is none, or the variable of the key is not set.
        ServerError: nothing answers there, or no task could be played.
        UnknownNameError: the server has no such model.
        MissingExtraError: the openai client is not installed.
    """
    frameworks.load("openai")  # that it is missing is said before anything is asked
    secret = key(config.url, config.key_env, token)
    server = UrlModel(config.url, config.model, secret)  # finds the model, or says what is wrong
    server.close()
    policy = PolicyRef(f"{server.url}/v1", server.name, 0, api_key=secret or "none")
    rows = []
    for split, decoding in outline(scenario, greedy=config.greedy):
        tasks = scenario.tasks(split, config.held_out)
        sampling = {"temperature": 0.0 if decoding == "greedy" else 1.0, "max_tokens": config.max_tokens}
        name = f"now-{split}" if decoding == "free" else f"now-{decoding}-{split}"
        with run.timed(f"exam {split} {decoding}"), traced(run, name) as trace:
            episodes, spent = play_tasks(
                scenario, policy, sampling, tasks, config.workers, config.timeout_s, trace, run.id
            )
        failure = _failure(episodes, policy)
        rows.append(count(episodes, split, decoding, EXAM_SEED, spent))
        run.say(sentence("now", rows[-1]))
        if failure:
            run.say(failure)
    return server.name, rows


def play_tasks(
    scenario: Scenario,
    policy: PolicyRef,
    sampling: Mapping[str, Any],
    tasks: Sequence[Task],
    workers: int,
    timeout_s: float,
    trace: TraceWriter | None = None,
    run: str = "",
) -> tuple[list[Episode], Spent | None]:
    """The episodes in order, and what the server counted; None if it did not count all of it."""
    adapter: Any = frameworks.load("openai")
    loops: list[ToolLoop] = []

    def make(session: Session) -> ToolLoop:
        loops.append(adapter.plain(session))
        return loops[-1]

    agent = adapter.practise(make)

    def one(place: int, task: Task) -> Episode:
        seed = EXAM_SEED + place
        asked = replace(policy, sampling={**sampling, "seed": seed})
        name = f"{task.split}-{place}"
        env = scenario.create_environment(task, trace=trace, run=run, episode=name)
        return player.play(agent, env, asked, name, seed, timeout_s)

    with ThreadPoolExecutor(workers, thread_name_prefix="task") as threads:
        episodes = list(threads.map(one, range(len(tasks)), tasks))
    counted = [usage for loop in loops for usage in loop.usage]
    if any(usage is None for usage in counted):
        return episodes, None
    known = [usage for usage in counted if usage is not None]
    return episodes, Spent(
        sum(usage.prompt_tokens for usage in known), sum(u.completion_tokens for u in known)
    )


def _failure(episodes: Sequence[Episode], policy: PolicyRef) -> str | None:
    """What is to be said of tasks that could not be played to their end; None if all could.

    Raises:
        ServerError: none could.
    """
    failed = [episode for episode in episodes if episode.status != "ok"]
    if not failed:
        return None
    why = f"the first one: {failed[0].status}, {failed[0].error or f'after {failed[0].seconds:.0f} s'}"
    if len(failed) < len(episodes):
        return f"{len(failed)} of {len(episodes)} tasks failed; {why}"
    raise ServerError(
        f"None of the {len(episodes)} tasks could be played with {policy.model} at {policy.endpoint}; {why}",
        next_step="Ask the server for one completion with tools by hand, or give tasks longer: --timeout-s.",
    )
