"""Plays requests of a split and counts what came of it: tool reliability, task success, tokens and calls.

Tool reliability is executed tool calls that succeed over all proposed; its interval knows that the calls of one episode
are alike (`metrics.cluster_rate`). Task success counts an episode only if all criteria hold and no policy was broken.
Tokens are those that the model wrote; tokens per solved task counts the tokens of the tasks that were not solved as
well. The same requests and seeds are played before and after, so that the difference is a paired one.

Free decoding and decoding held to the tools' JSON schemas are different measurements and never put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from melete import metrics
from melete.agents.hub import Episode
from melete.agents.rollout import Player, Ticket

if TYPE_CHECKING:
    from melete.agents.scenario import Scenario, Task
    from melete.llm.engine.api import Constraint
    from melete.llm.lm import LM

Decoding = Literal["free", "greedy", "schema"]
"""Sampled at temperature 1; the most probable token; sampled at temperature 1 within the tools' JSON schemas."""
ADVANCE_S = 1.0


@dataclass(frozen=True)
class Spent:
    """Tokens that a server counted, where the episodes hold none themselves."""

    prompt_tokens: int
    tokens: int


@dataclass(frozen=True)
class Measured:
    """What came of the requests of one split.

    Attributes:
        split: of the scenario.
        decoding: see `Decoding`.
        seed: of all draws; requests `start …` of the split with this seed were played.
        tasks: how many.
        tool_calls: calls proposed.
        tool_calls_ok: calls that succeeded.
        reliability: their share, with the ends of its 95 % interval.
        success: share of solved tasks, with the ends of its 95 % interval.
        policies_broken: episodes in which the guard had to refuse what could have been executed.
        failed: episodes that ended by an error or a timeout.
        tokens: tokens written; None if nobody counted them.
        prompt_tokens: tokens read, each turn's prompt counted whole; None likewise.
        tokens_per_solved: None if nothing was solved or counted.
        calls_per_task: mean.
        solved: for each task, 1 or 0.
    """

    split: str
    decoding: Decoding
    seed: int
    tasks: int
    tool_calls: int
    tool_calls_ok: int
    reliability: tuple[float, float, float]
    success: tuple[float, float, float]
    policies_broken: int
    failed: int
    tokens: int | None
    prompt_tokens: int | None
    tokens_per_solved: float | None
    calls_per_task: float
    solved: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, without the single tasks."""
        values = asdict(self)
        del values["solved"]
        return values


def play_all(player: Player, tasks: Sequence[Task], seed: int, at_once: int) -> list[Episode]:
    """One episode per task, in order, `at_once` in flight."""
    tickets = [Ticket(f"{task.split}-{i}", task, task.id, seed + i, "val") for i, task in enumerate(tasks)]
    waiting = iter(tickets)
    ended: dict[str, Episode] = {}
    while len(ended) < len(tickets):
        while player.active < at_once and (ticket := next(waiting, None)):
            player.begin(ticket)
        ended |= {episode.id: episode for episode in player.advance(ADVANCE_S)}
    return [ended[ticket.id] for ticket in tickets]


def spent_by(episodes: Sequence[Episode]) -> Spent:
    """The tokens of recorded completions."""
    return Spent(
        sum(len(move.prompt_ids) for episode in episodes for move in episode.moves),
        sum(episode.tokens for episode in episodes),
    )


def count(
    episodes: Sequence[Episode], split: str, decoding: Decoding, seed: int, spent: Spent | None
) -> Measured:
    """Counts finished episodes, at least one; `spent` is None where the tokens are not known."""
    outcomes = [episode.outcome for episode in episodes]
    calls = [outcome.tool_calls if outcome else 0 for outcome in outcomes]
    good = [outcome.tool_calls_ok if outcome else 0 for outcome in outcomes]
    solved = tuple(
        int(episode.status == "ok" and episode.outcome is not None and episode.outcome.success)
        for episode in episodes
    )
    done = sum(solved)
    reliability = metrics.cluster_rate(good, calls) if sum(calls) else metrics.Interval(0.0, 0.0, 1.0, 0)
    success = metrics.success_rate(done, len(solved))
    return Measured(
        split=split,
        decoding=decoding,
        seed=seed,
        tasks=len(episodes),
        tool_calls=sum(calls),
        tool_calls_ok=sum(good),
        reliability=(reliability.value, reliability.low, reliability.high),
        success=(success.value, success.low, success.high),
        policies_broken=sum(bool(outcome and outcome.policy_broken) for outcome in outcomes),
        failed=sum(episode.status != "ok" for episode in episodes),
        tokens=spent.tokens if spent else None,
        prompt_tokens=spent.prompt_tokens if spent else None,
        tokens_per_solved=spent.tokens / done if spent and done else None,
        calls_per_task=sum(calls) / len(episodes),
        solved=solved,
    )


def table(rows: Sequence[tuple[str, Measured]]) -> list[str]:
    """Lines for people: one row each, headed by when it was measured."""
    head = (
        "",
        "split",
        "decoding",
        "tool reliability",
        "calls",
        "task success",
        "tasks",
        "broken",
        "tokens",
        "calls",
    )
    under = ("", "", "", "(95 % interval)", "", "(95 % interval)", "", "", "per solved", "per task")
    body = [
        (
            when,
            row.split,
            row.decoding,
            _rate(row.reliability),
            f"{row.tool_calls:,}",
            _rate(row.success),
            f"{row.tasks:,}",
            f"{row.policies_broken:,}",
            _per_solved(row),
            f"{row.calls_per_task:.2f}",
        )
        for when, row in rows
    ]
    lines = [head, under, *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return [
        "  ".join(
            text.ljust(width) if i < 3 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def schema_constraint(lm: LM, scenario: Scenario) -> Any:
    """Makes fresh limits that hold each call to the schema of its tool; text stays free.

    Raises:
        MissingExtraError: llguidance is not installed.
    """
    from melete.errors import MissingExtraError

    try:
        from melete.serve.constraint import Grammars
        from melete.serve.schema import ChatRequest
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "llguidance", "serve") from error
    grammars = Grammars(lm)
    tools = [
        {"type": "function", "function": {**schema["function"], "strict": True}}
        for schema in scenario.toolset.schemas
    ]
    request = ChatRequest.model_validate(
        {"model": "", "messages": [{"role": "user", "content": ""}], "tools": tools}
    )

    def fresh() -> Constraint | None:
        return grammars.for_request(request)

    return fresh


def _per_solved(row: Measured) -> str:
    if row.tokens_per_solved is not None:
        return f"{row.tokens_per_solved:,.0f}"
    return "unknown" if 1 in row.solved else "none"


def _rate(rate: tuple[float, float, float]) -> str:
    value, low, high = rate
    return f"{value:.1%} ({low:.1%} to {high:.1%})"
