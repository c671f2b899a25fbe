"""Unattended playing: every missing cell becomes one session, whatever the harness does; nothing is played twice."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import own_bench
from melete.bench import batch, play, rollups
from melete.bench.folder import Bench, check
from melete.bench.play import Order, Schedule
from melete.errors import ConfigError, SessionError, UnknownNameError
from melete.gateway import entities, sessions
from melete.records import SessionRecord, SessionState
from melete.settings import Settings
from melete.store.database import connect

ROOT = Path(__file__).parents[2]
HARNESS = Path(__file__).with_name("batch_harness.py")
NOWHERE = "http://127.0.0.1:9"
PROFILE = """
description: A harness for tests.
mode: batch
environment:
  OPENAI_BASE_URL: "{{base_url}}/v1"
  OPENAI_API_KEY: "{{key}}"
  OPENAI_MODEL: "{{model}}"
  HARNESS: "{how}"
  BLOCK: "{block}"
command: ["{{python}}", "{harness}"]
status: {{state: tried, version: "1", date: "2026-11-20"}}
"""


def bench(home: Settings, folder: Path, how: str = "well", **changed: str) -> Settings:
    """Two variants that play three cards twice with the harness of these tests."""
    profile = PROFILE.format(how=how, block=folder / "block", harness=HARNESS)
    given = {"harness_profiles_worker": profile, "experiments_both": EXPERIMENT, **changed}
    return own_bench.settings_with(home, folder, **given)


EXPERIMENT = "variants: [one, two]\ntask_cards: [desk]\nattempts: 2\nlimits: {timeout_s: 30}\n"


def scheduled(settings: Settings, **order: object) -> Schedule:
    return play.schedule(settings, Order("both", **{"concurrency": 4, **order}))  # type: ignore[arg-type]


def played(settings: Settings, **order: object) -> list[SessionRecord]:
    return list(play.play_at(settings, scheduled(settings, **order), NOWHERE))


def stored(settings: Settings) -> list[SessionRecord]:
    with connect(settings.database) as connection:
        return sessions.list_sessions(connection, limit=1000)


def cell(session: SessionRecord) -> tuple[str, str, int]:
    return entities.name_of(str(session.variant)), entities.name_of(str(session.task_card)), session.attempt


def test_schedule_variants_take_turns_and_who_begins_alternates(home: Settings, tmp_path: Path) -> None:
    cells = scheduled(bench(home, tmp_path)).cells
    assert [(one.variant, one.card.id, one.attempt) for one in cells[:4]] == [
        ("one", "desk/10", 0), ("two", "desk/10", 0), ("two", "desk/11", 0), ("one", "desk/11", 0),
    ]  # fmt: skip
    assert len(cells) == len({(one.variant, one.card.id, one.attempt) for one in cells}) == 12


def test_schedule_fewer_tasks_and_attempts_are_the_first_ones(home: Settings, tmp_path: Path) -> None:
    cells = scheduled(bench(home, tmp_path), tasks=1, attempts=1, variants=("two",)).cells
    assert [(one.variant, one.card.id, one.attempt) for one in cells] == [("two", "desk/10", 0)]


def test_schedule_unknown_variant_lists_those_of_the_experiment(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"one, two"):
        scheduled(bench(home, tmp_path), variants=("three",))


def test_schedule_harness_that_needs_a_person_says_how_to_play_it(home: Settings, tmp_path: Path) -> None:
    by_hand = (
        "description: By hand.\nmode: manual\nstatus: {state: tried, version: '1', date: '2026-11-20'}\n"
    )
    settings = bench(home, tmp_path, harness_profiles_worker=by_hand)
    with pytest.raises(ConfigError, match="melete bench session start"):
        scheduled(settings)


def test_schedule_run_for_a_model_that_nobody_asks_for_is_refused(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="large, small"):
        scheduled(bench(home, tmp_path), runs={"after": "echo"})


def test_schedule_run_for_a_model_served_elsewhere_is_refused(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="served elsewhere"):
        scheduled(bench(home, tmp_path), runs={"small": "echo"})


def test_schedule_other_weights_are_another_variant(home: Settings, tmp_path: Path) -> None:
    provider = "kind: melete\nmodels: {small: {serve: echo}, large: {serve: a/b}}\n"
    settings = bench(home, tmp_path, providers_here=provider)
    first = scheduled(settings).bench.variants.read("one").record
    second = scheduled(settings, runs={"small": "c/d"}).bench.variants.read("one").record
    assert (first.name, second.name) == ("one", "one")
    assert "echo" in first.description
    assert "c/d" in second.description


def test_play_every_cell_becomes_one_finalised_session(home: Settings, tmp_path: Path) -> None:
    settings = bench(home, tmp_path)
    ended = played(settings)
    assert len(ended) == len({cell(one) for one in ended}) == len(stored(settings)) == 12
    assert all(one.state is SessionState.FINALISED for one in stored(settings))
    with connect(settings.database) as connection:
        figures = rollups.finalise(connection, ended[0].id)
    assert figures["tool_reliability"] == 0.75


def test_play_outcome_score_and_what_the_harness_counts_are_kept(home: Settings, tmp_path: Path) -> None:
    one = next(s for s in played(bench(home, tmp_path)) if cell(s) == ("two", "desk/10", 1))
    assert (one.solved, one.score, one.outcome_source) == (True, 0.5, "harness")
    reported = one.metadata["self_reported"]
    assert (reported["tool_calls"], reported["model"], reported["attempt"]) == (4, "large", 1)


def test_play_twice_nothing_is_played_again_unless_asked(home: Settings, tmp_path: Path) -> None:
    settings = bench(home, tmp_path)
    assert len(played(settings, tasks=1)) == 4
    assert scheduled(settings).done == 4
    assert len(played(settings)) == 8
    assert played(settings) == []
    assert len(played(settings, again=True)) == 12


@pytest.mark.slow
def test_play_changed_variant_is_played_anew_and_the_other_is_not(home: Settings, tmp_path: Path) -> None:
    settings = bench(home, tmp_path)
    played(settings)
    (settings.bench / "variants" / "two.yaml").write_text(
        "harness_profile: worker\nprovider: here\nmodel: large\nparameters: {temperature: 1}\n"
    )
    plan = scheduled(settings)
    assert {one.variant for one in plan.cells} == {"two"}
    assert plan.done == 6


@pytest.mark.parametrize("how", ["garbage", "twice"])
def test_play_harness_that_says_too_much_changes_nothing(how: str, home: Settings, tmp_path: Path) -> None:
    settings = bench(home, tmp_path, how)
    played(settings)
    assert [one.solved for one in stored(settings)].count(None) == 0
    assert len(stored(settings)) == 12


def test_play_harness_that_dies_is_named_with_its_last_error_and_its_sessions_end(
    home: Settings, tmp_path: Path
) -> None:
    settings = bench(home, tmp_path, "die")
    with pytest.raises(SessionError, match=r"worker ended with exit code 3[^$]*out of luck"):
        played(settings)
    assert {one.state for one in stored(settings)} == {SessionState.ABORTED}
    assert not any((settings.gateway / "sessions").iterdir())


def test_play_harness_that_dies_after_an_answer_keeps_the_answer(home: Settings, tmp_path: Path) -> None:
    settings = bench(home, tmp_path, "answer and die")
    with pytest.raises(SessionError, match="exit code 4"):
        played(settings)
    states = [one.state for one in stored(settings)]
    assert states.count(SessionState.FINALISED) == 1
    assert states.count(SessionState.ABORTED) == 3


def test_play_harness_that_never_answers_runs_into_the_time_limit(home: Settings, tmp_path: Path) -> None:
    limits = EXPERIMENT.replace("timeout_s: 30", "timeout_s: 0.2")
    ended = played(bench(home, tmp_path, "silent", experiments_both=limits), tasks=1, attempts=1)
    assert [(one.solved, one.outcome_note) for one in ended] == [(False, "not done within 0.2 s")] * 2


def test_play_program_that_is_not_there_says_so_and_opens_no_session(home: Settings, tmp_path: Path) -> None:
    profile = PROFILE.format(how="", block="", harness="").replace("{python}", str(tmp_path / "missing"))
    settings = bench(home, tmp_path, harness_profiles_worker=profile)
    with pytest.raises(ConfigError, match="cannot be started"):
        played(settings)
    assert stored(settings) == []


def test_play_stopped_in_the_middle_aborts_what_is_under_way(home: Settings, tmp_path: Path) -> None:
    settings = bench(home, tmp_path)
    playing = play.play_at(settings, scheduled(settings), NOWHERE)
    next(playing)
    playing.close()
    states = [one.state for one in stored(settings)]
    assert SessionState.FINALISED in states
    assert SessionState.LIVE not in states


def test_play_batch_on_cards_with_checkers_is_judged_by_them_and_not_by_the_harness(
    home: Settings, tmp_path: Path
) -> None:
    cards = {
        "task_cards_open": "prompt: Print it.\nchecker: {expected_text: {text: printed}}\n",
        "experiments_both": "variants: [one]\ntask_cards: [say, open]\nlimits: {timeout_s: 30}\n",
    }
    ended = played(bench(home, tmp_path, **cards))
    assert [(one.solved, one.outcome_source) for one in ended] == [(True, "checker")] * 2
    assert {one.metadata["self_reported"]["tokens_in"] for one in ended} == {9}


def test_play_command_harness_is_judged_by_the_checker(home: Settings, tmp_path: Path) -> None:
    experiment = "variants: [one, two]\ntask_cards: [say]\nlimits: {timeout_s: 30}\n"
    settings = own_bench.settings_with(home, tmp_path, experiments_both=experiment)
    ended = played(settings)
    assert [(one.solved, one.outcome_source) for one in ended] == [(True, "checker")] * 2


@pytest.mark.slow
def test_play_killed_in_the_middle_goes_on_with_what_is_missing(home: Settings, tmp_path: Path) -> None:
    settings = bench(home, tmp_path)
    (tmp_path / "block").touch()  # the harness answers three tasks and then nothing more
    program = textwrap.dedent(
        f"""
        import dataclasses, pathlib
        from melete import settings
        from melete.bench import play
        home = dataclasses.replace(settings.load(), bench_folder=pathlib.Path({str(settings.bench)!r}))
        plan = play.schedule(home, play.Order("both", concurrency=4))
        for session in play.play_at(home, plan, {NOWHERE!r}):
            print(session.id, flush=True)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    first = [child.stdout.readline().strip() for _ in range(3)]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    (tmp_path / "block").unlink()
    plan = scheduled(settings)
    assert (plan.done, len(plan.cells)) == (3, 9)
    played(settings)
    finalised = [one for one in stored(settings) if one.state is SessionState.FINALISED]
    assert len(finalised) == len({cell(one) for one in finalised}) == 12
    assert set(first) <= {one.id for one in finalised}


def test_guide_files_in_its_text_are_a_bench_folder_that_plays(home: Settings, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "bench" / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```yaml\n# bench/(.*?)```", guide, re.DOTALL):
        name = re.match(r"[\w/]+\.yaml", block)
        assert name is not None
        path = tmp_path / "bench" / name[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {block}", encoding="utf-8")
    settings = dataclasses.replace(home, bench_folder=tmp_path / "bench")
    assert check(Bench(settings), {"OPENAI_API_KEY": "set"}).problems == []
    plan = play.schedule(settings, Order("editors"))
    assert [provider.name for provider in plan.providers] == ["mine"]
    assert len(plan.cells) == 6


def test_example_folder_is_valid(home: Settings) -> None:
    settings = dataclasses.replace(home, bench_folder=ROOT / "examples" / "bench")
    assert check(Bench(settings), {}).problems == []
    assert len(play.schedule(settings, Order("frameworks", runs={"agent": "echo"})).cells) == 40


def test_pinned_bench_changes_no_file_of_the_user(home: Settings, tmp_path: Path) -> None:
    provider = "kind: melete\nmodels: {small: {serve: echo}, large: {serve: echo}}\n"
    settings = bench(home, tmp_path, providers_here=provider)
    before = {path: path.read_bytes() for path in settings.bench.rglob("*.yaml")}
    scheduled(settings, runs={"small": "c/d"})
    assert {path: path.read_bytes() for path in settings.bench.rglob("*.yaml")} == before


@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["session", "solved", "score", "note", "self_reported"]), inner, max_size=5
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_parse_any_line_is_a_result_or_nothing(line: bytes) -> None:
    found = batch.parse(line)
    if found is not None:
        session, answer = found
        assert isinstance(session, str)
        assert answer.outcome.source == "harness"
        assert isinstance(answer.output, str | None)


@pytest.mark.parametrize("score", [1.5, -0.1, 10**400, "NaN", True, None, [1]])
def test_parse_score_that_is_none_is_left_out(score: object) -> None:
    found = batch.parse(json.dumps({"session": "s", "solved": 1, "score": score}).encode())
    assert found is not None
    assert found[1].outcome.score in (None, 1.0)
    assert found[1].outcome.solved is None
