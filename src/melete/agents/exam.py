"""The same requests before and after practice: the splits that it never sees, free decoding and held to the schemas.

Before and after use the same tasks and the same seeds of every draw. The exam's seed is fixed apart from the run's, so
that runs of different seeds can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from melete.actions.trace import TraceWriter
from melete.agents.measure import Decoding, Measured, count, play_all, schema_constraint, spent_by
from melete.agents.rollout import EnginePlayer

if TYPE_CHECKING:
    from melete.agents.hub import Played
    from melete.agents.recorded import Recording
    from melete.agents.scenario import Scenario, Task
    from melete.llm.learner import Learner
    from melete.runs.run import Run

EXAM_SEED = 20_000


class ExamConfig(Protocol):
    """What decides an exam.

    Attributes:
        held_out: tasks of each split.
        constrained: whether decoding held to the tools' schemas is measured too.
        greedy: whether decoding at temperature 0 is measured too.
        max_tokens: most tokens of a turn.
        device: where.
    """

    held_out: int
    constrained: bool
    greedy: bool
    max_tokens: int


class Exam:
    """See the head of this file.

    Args:
        model: with the weights to try.
        scenario: what is played.
        config: see `ExamConfig`.
        run: is told of progress.
        recording: keeps the episodes as sessions; None keeps none.
    """

    def __init__(
        self,
        model: Played,
        scenario: Scenario,
        config: ExamConfig,
        run: Run,
        recording: Recording | None = None,
    ) -> None:
        self._model, self._scenario = model, scenario
        self._config, self._run, self._recording = config, run, recording
        self._limits: Any = None

    def of(self, kept: Sequence[dict[str, Any]] | None) -> list[Measured]:
        """What a checkpoint kept of an exam; empty if nothing."""
        rows = []
        for row in kept or ():
            fixed: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
            }
            rows.append(Measured(**fixed))
        return rows

    def sit(self, learner: Learner | None, step: int, when: str) -> list[Measured]:
        """Plays all splits but `train` with the newest weights."""
        if learner is not None:
            self._model.engine.swap(learner.weights())
        rows = []
        with self._run.timed(f"exam {when}"):
            plan = outline(self._scenario, self._config.greedy, self._config.constrained)
            for split, decoding in plan:
                tasks = self.tasks(split)
                rows.append(self._play(tasks, split, decoding, when))
                self._run.say(sentence(when, rows[-1]))
        return rows

    def tasks(self, split: str) -> list[Task]:
        """The exam's tasks of a split: at most as many as there are."""
        return self._scenario.tasks(split, self._config.held_out)

    def _play(self, tasks: list[Task], split: str, decoding: Decoding, when: str) -> Measured:
        if decoding == "schema" and self._limits is None:
            self._limits = schema_constraint(self._model.lm, self._scenario)
        name = when if decoding == "free" else f"{when}-{decoding}"
        with traced(self._run, f"{name}-{split}") as trace:
            player = EnginePlayer(
                self._model.lm,
                self._model.engine,
                self._scenario,
                temperature=0.0 if decoding == "greedy" else 1.0,
                max_tokens=self._config.max_tokens,
                constraint=self._limits if decoding == "schema" else None,
                trace=trace,
                run=self._run.id,
            )
            episodes = play_all(player, tasks, EXAM_SEED, self._model.engine.stats().slots)
        if self._recording is not None:
            self._recording.keep(episodes, name, decoding=decoding)
            self._recording.flush()
        return count(episodes, split, decoding, EXAM_SEED, spent_by(episodes))


@contextmanager
def traced(run: Run, name: str) -> Iterator[TraceWriter | None]:
    """Where the steps of an exam go: `traces/<name>.jsonl`, begun anew; None for a run without a folder."""
    if run.folder is None or run.silent:
        yield None
        return
    file = run.folder / "traces" / f"{name}.jsonl"
    file.unlink(missing_ok=True)
    with TraceWriter(file) as trace:
        yield trace


def outline(
    scenario: Scenario, greedy: bool = False, constrained: bool = False
) -> list[tuple[str, Decoding]]:
    """The rows of an exam: each split that practice never sees, with each way of decoding."""
    splits = [split for split in scenario.splits if split != "train"]
    rows: list[tuple[str, Decoding]] = [(split, "free") for split in splits]
    if greedy:
        rows += [(split, "greedy") for split in splits]
    if constrained:
        rows.append((splits[0], "schema"))
    return rows


def sentence(when: str, row: Measured) -> str:
    """A row in words."""
    return (
        f"{when}, {row.split}, {row.decoding}: tool reliability {row.reliability[0]:.1%} of "
        f"{row.tool_calls:,} calls, {row.success[0]:.1%} of {row.tasks} tasks solved"
    )
