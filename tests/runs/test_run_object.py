"""What a process does with its run: steps, figures, samples, checkpoints, stop requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from melete.errors import StorageError, TrainingError
from melete.runs.lines import LineFile, last_json_lines, read_json_lines
from melete.runs.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def steps_in(path: Path) -> list[int]:
    return [line["step"] for line in read_json_lines(path / "metrics.jsonl")]


def test_steps_yields_all_from_start(run: Run) -> None:
    assert list(run.steps(5, start=2)) == [2, 3, 4]


def test_steps_with_limit_batches_takes_that_many(tmp_path: Path) -> None:
    assert list(Run(tmp_path, limit_batches=2).steps(100, start=10)) == [10, 11]


def test_steps_after_a_stop_request_ends_with_the_step_at_hand(run: Run) -> None:
    seen = []
    for step in run.steps(100):
        seen.append(step)
        if step == 3:
            run.stop()
            assert run.should_save(step, every=50)
    assert seen == [0, 1, 2, 3]
    assert run.stopping


def test_should_save_is_true_on_schedule_and_at_the_last_step(run: Run) -> None:
    assert [step for step in run.steps(10) if run.should_save(step, every=4)] == [3, 7, 9]


def test_should_save_after_a_loop_inside_the_loop_still_knows_the_last_step(run: Run) -> None:
    saved = []
    for step in run.steps(4):
        assert list(run.steps(2)) == [0, 1]
        if run.should_save(step, every=0):
            saved.append(step)
    assert saved == [3]


def test_log_writes_each_line_at_once(run: Run, tmp_path: Path) -> None:
    run.log(1, {"loss": 2.5})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (line["step"], line["loss"]) == (1, 2.5)


def test_rewind_drops_later_steps_and_the_log_goes_on(run: Run, tmp_path: Path) -> None:
    for step in range(1, 6):
        run.log(step, {"loss": 1.0})
    run.rewind(3)
    run.log(4, {"loss": 2.0})
    assert steps_in(tmp_path) == [1, 2, 3, 4]


def test_rewind_after_a_line_that_a_kill_cut_short_leaves_it_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 3}\n{"step": 2, "lo')
    run = Run(tmp_path)
    run.rewind(1)
    run.log(2, {"loss": 2.0})
    assert steps_in(tmp_path) == [1, 2]


def test_line_file_after_a_cut_line_starts_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    lines = LineFile(path)
    lines.append('{"a": 3}')
    lines.close()
    assert read_json_lines(path) == [{"a": 1}, {"a": 3}]


def test_last_json_lines_reads_only_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"step": {i}}}\n' for i in range(10_000)))
    rows = last_json_lines(path, size=200)
    assert rows[-1] == {"step": 9999}
    assert len(rows) < 20


def test_check_finite_of_nan_names_the_step(run: Run) -> None:
    run.check_finite(6, 1.0)
    with pytest.raises(TrainingError, match="became nan at step 7"):
        run.check_finite(7, float("nan"))


def test_say_keeps_the_line_in_the_log(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.say("hello")
    assert capsys.readouterr().out == "hello\n"
    assert (tmp_path / "log.txt").read_text().endswith(" hello\n")


def test_sample_that_cannot_be_written_is_a_storage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("in the way")
    with pytest.raises(StorageError):
        run.sample(1, "text", "x")


def test_silent_run_writes_nothing_and_reads_the_checkpoints_of_its_source(tmp_path: Path) -> None:
    owner = Run(tmp_path / "owner")
    (tmp_path / "owner").mkdir()
    owner.save_checkpoint(kind="trial", step=4, config={}, tensors={}, side_files={"a": b"x"})
    silent = Run(None, source=tmp_path / "owner", resuming=True)
    before = sorted(tmp_path.rglob("*"))
    silent.say("a")
    silent.log(1, {"loss": 1.0})
    silent.sample(1, "a", "b")
    silent.rewind(0)
    assert silent.save_checkpoint(kind="trial", step=5, config={}, tensors={}) is None
    found = silent.latest_checkpoint()
    assert found is not None
    assert found.name == "step_00000004"
    assert sorted(tmp_path.rglob("*")) == before


def test_clock_parts_add_up_and_nested_time_counts_once(run: Run) -> None:
    for _ in run.steps(2):
        with run.timed("validation"):
            pass
    seconds = run.clock.settle()
    assert set(seconds) == {"set-up", "steps", "validation", "other"}
    assert all(value >= 0 for value in seconds.values())
