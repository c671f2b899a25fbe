"""The contract of hubs: the same tasks and seeds give the same episodes through each of them, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.desk import task
from agents.hubs_at_hand import all_of, drawn_setup, echo_setup, opened
from llm.tiny import own_checkpoint
from melete.agents.hub import Episode, Setup

SEEDS = (11, 12, 13, 11)
LINES = ("hello there", "go on", "once more", "thanks")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model."""
    return own_checkpoint(tmp_path_factory.mktemp("runs") / "tiny", context=1024)


def told(episode: Episode) -> dict[str, Any]:
    """What must be the same, to the token."""
    return {
        "task": episode.task,
        "status": episode.status,
        "reward": episode.reward,
        "outcome": episode.outcome,
        "prompts": [list(move.prompt_ids) for move in episode.moves],
        "drawn": [list(move.response_ids) for move in episode.moves],
        "finish": [move.finish for move in episode.moves],
        "versions": [move.policy_version for move in episode.moves],
    }


def played(name: str, setup: Setup, lines: tuple[str, ...] | None) -> list[Episode]:
    """One episode for each seed, in order."""
    tasks = [task(f"t{i}", lines) if lines else task(f"t{i}") for i in range(len(SEEDS))]
    with opened(name, setup) as hub:
        ids = hub.submit(tasks, group="g", seeds=SEEDS)
        episodes = all_of(hub, len(ids))
    return [episodes[one] for one in ids]


def same(one: list[Episode], other: list[Episode]) -> None:
    """Compares episode by episode."""
    for first, second in zip(one, other, strict=True):
        assert told(first) == told(second)
        for move, again in zip(first.moves, second.moves, strict=True):
            # To a tolerance, as rows of other requests are computed beside them.
            assert list(move.logprobs) == pytest.approx(list(again.logprobs), abs=1e-4)


HUBS = pytest.mark.parametrize(
    "name", ["agentlightning", pytest.param("agentlightning03", marks=pytest.mark.slow)]
)


@pytest.mark.slow
@HUBS
def test_drawn_episodes_are_the_same_as_through_the_local_hub(name: str, checkpoint: Path) -> None:
    local = played("local", drawn_setup(checkpoint), LINES)
    same(local, played(name, drawn_setup(checkpoint), LINES))
    drawn = [[list(move.response_ids) for move in episode.moves] for episode in local]
    assert len(drawn[0]) == len(LINES)
    assert drawn[0] == drawn[3] != drawn[1]


@pytest.mark.slow
@HUBS
def test_episodes_with_calls_and_rewards_are_the_same_as_through_the_local_hub(name: str) -> None:
    local = played("local", echo_setup(), None)
    same(local, played(name, echo_setup(), None))
    assert all(episode.outcome and episode.outcome.success for episode in local)
