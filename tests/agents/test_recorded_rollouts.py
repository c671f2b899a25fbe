"""Rollouts as sessions and requests: the rows say what the hub's episodes were, however they were played."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from agents.desk import Desk
from agents.hubs_at_hand import all_of, drawn_setup, echo_setup, opened
from llm.tiny import own_checkpoint
from melete.agents.exam import Exam
from melete.agents.hub import Episode, PolicyRef, Setup
from melete.agents.processes.train import Config
from melete.agents.recorded import Recording
from melete.agents.scenario import Task
from melete.errors import StorageError
from melete.gateway import entities, sessions
from melete.gateway.collectors import spool
from melete.gateway.events import Event, parse
from melete.records import SessionRecord, SessionState
from melete.runs.run import Run
from melete.settings import Settings
from melete.store.database import connect
from melete.store.models import RequestRow


class Splits(Desk):
    """A desk whose tasks know the split that they are of."""

    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        return [replace(task, split=split) for task in super().tasks(split, count, start, seed)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny random model."""
    return own_checkpoint(tmp_path_factory.mktemp("tiny") / "run", context=512)


@pytest.fixture
def recording(home: Settings, tmp_path: Path) -> Recording:
    """Of a run that people call `mine`."""
    folder = tmp_path / "20260101-000000-train-abcd"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"name": "mine"}))
    return Recording(Run(folder), home, "desk", "tiny")


def played(setup: Setup, count: int = 3, tries: int = 1) -> list[Episode]:
    with opened("local", setup) as hub:
        hub.publish(PolicyRef("", "tiny", 7))
        tasks = [task for task in Desk().tasks("held_out", count) for _ in range(tries)]
        ids = hub.submit(tasks, group="g", seeds=range(len(tasks)))
        ended = all_of(hub, len(ids))
        return [ended[one] for one in ids]


def told(home: Settings) -> dict[str, list[Event]]:
    """Events in the spool by session."""
    found: dict[str, list[Event]] = defaultdict(list)
    for file in (home.gateway / "spool").glob("*.jsonl"):
        for line in file.read_bytes().splitlines(keepends=True):
            event = parse(line)
            assert event is not None
            assert event.session is not None
            found[event.session].append(event)
    return found


def stored(home: Settings) -> list[SessionRecord]:
    with connect(home.database) as connection:
        return sessions.list_sessions(connection, kind="rollout", limit=1000)


def by_episode(home: Settings) -> dict[str, SessionRecord]:
    return {session.metadata["episode"]: session for session in stored(home)}


@pytest.mark.parametrize("how", ["engine", "agent", "echo agent"])
def test_keep_episodes_rows_equal_what_was_played(
    how: str, checkpoint: Path, home: Settings, recording: Recording
) -> None:
    setup = echo_setup() if how == "echo agent" else drawn_setup(checkpoint)
    episodes = played(replace(setup, agent=None) if how == "engine" else setup)
    recording.keep(episodes, "before", decoding="free")
    recording.flush()
    rows, events = by_episode(home), told(home)
    assert sorted(rows) == sorted(episode.id for episode in episodes)
    for episode in episodes:
        row = rows[episode.id]
        assert (row.state, row.outcome_source) == (SessionState.FINALISED, "harness")
        assert row.solved == bool(episode.outcome and episode.outcome.success)
        fields = [event.fields for event in events[row.id]]
        assert [one["tokens_out"] for one in fields] == [len(move.response_ids) for move in episode.moves]
        assert [one["tokens_in"] for one in fields] == [len(move.prompt_ids) for move in episode.moves]
        assert all(one["latency_ms"] >= one["ttft_ms"] > 0 for one in fields)
    assert any(events.values())


def test_collect_rows_of_requests_are_the_episodes_completions(
    checkpoint: Path, home: Settings, recording: Recording
) -> None:
    episodes = played(replace(drawn_setup(checkpoint), agent=None))
    recording.keep(episodes, "before")
    recording.flush()
    for _ in range(2):
        spool.collect(home)  # a second time adds nothing
    with connect(home.database) as connection:
        rows = connection.execute(select(RequestRow.__table__)).mappings().all()
    assert {(row["source"], row["status"], row["tokens_estimated"]) for row in rows} == {
        ("rollout", "ok", False)
    }
    assert len(rows) == sum(len(episode.moves) for episode in episodes)
    assert sum(row["tokens_out"] for row in rows) == sum(episode.tokens for episode in episodes)
    assert all(row["cost_usd"] is None and row["model_answered"] == "tiny@7" for row in rows)


def test_keep_calls_of_an_agent_are_counted(home: Settings, recording: Recording) -> None:
    recording.keep(played(echo_setup(), count=1), "before")
    recording.flush()
    (row,) = stored(home)
    calls = sum(event.fields["tool_calls"] for event in told(home)[row.id])
    assert calls == row.metadata["self_reported"]["tool_calls"] == 2


def test_keep_tries_of_one_task_are_attempts_of_their_own(
    checkpoint: Path, home: Settings, recording: Recording
) -> None:
    episodes = played(replace(drawn_setup(checkpoint), agent=None), count=2, tries=3)
    recording.keep(episodes, "")
    recording.flush()
    attempts = sorted((str(row.task_card), row.attempt) for row in stored(home))
    assert len(attempts) == len(set(attempts)) == 6
    assert {attempt for _, attempt in attempts} == {0, 1, 2}


def test_keep_without_a_variant_takes_the_policy_version(
    checkpoint: Path, home: Settings, recording: Recording
) -> None:
    recording.keep(played(replace(drawn_setup(checkpoint), agent=None), count=1), "")
    recording.flush()
    (row,) = stored(home)
    assert entities.name_of(str(row.variant)) == "mine/v7"
    with connect(home.database) as connection:
        documents = {
            kind: entities.document(connection, kind, str(getattr(row, kind)))
            for kind in ("provider", "harness_profile", "variant", "experiment", "task_card")
        }
    assert documents["variant"]["parameters"]["run"] == recording.run.id
    assert documents["task_card"]["scenario"]["split"] == "train"


def test_keep_no_word_of_a_conversation_is_in_rows_or_spool(home: Settings, recording: Recording) -> None:
    episodes = played(echo_setup(), count=1)
    recording.keep(episodes, "before")
    recording.flush()
    spool = b"".join(file.read_bytes() for file in (home.gateway / "spool").glob("*.jsonl"))
    for word in ("T1", "please", "thanks"):
        assert word.encode() not in spool
        assert word not in json.dumps([row.metadata for row in stored(home)])


def test_flush_full_disk_or_no_database_says_so_once_and_goes_on(
    checkpoint: Path, home: Settings, recording: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = replace(recording, settings=replace(home, database="sqlite:////proc/no/such.db"))
    episodes = played(replace(drawn_setup(checkpoint), agent=None), count=1)
    for _ in range(2):
        broken.keep(episodes, "before")
        broken.flush()
    assert "".join(capsys.readouterr()).count("no longer recorded") == 1
    with pytest.raises(StorageError), connect(broken.settings.database):
        pass


def test_exam_with_a_recording_keeps_each_task_of_each_split_once(
    checkpoint: Path, home: Settings, recording: Recording
) -> None:
    config = Config(held_out=2, max_tokens=4, constrained=False, greedy=True)
    model = drawn_setup(checkpoint).model
    rows = Exam(model, Splits(), config, recording.run, recording).sit(None, 0, "before")
    kept = stored(home)
    assert len(kept) == sum(row.tasks for row in rows) == 8
    assert {entities.name_of(str(row.variant)) for row in kept} == {"mine/before", "mine/before-greedy"}
    assert {entities.name_of(str(row.experiment)) for row in kept} == {"mine/held_out", "mine/unseen"}
    tokens = sum(event.fields["tokens_out"] for events in told(home).values() for event in events)
    assert tokens == sum(row.tokens for row in rows)
