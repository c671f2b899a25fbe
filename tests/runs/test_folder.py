"""Run folders: ids, records, states, and who is alive."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.errors import DiskFullError, RunStateError, StorageError, UnknownNameError
from melete.records import MOVES, RunRecord, RunState, move
from melete.runs import folder, heartbeat
from melete.runs.heartbeat import beating
from melete.settings import Settings


def running(path: Path, record: RunRecord, *, pid: int, host: str) -> None:
    record.state, record.pid, record.host = RunState.RUNNING, pid, host
    record.pid_started_s = folder.process_start_s(os.getpid())
    folder.write(path, record)


def test_ids_of_runs_made_in_one_second_sort_by_age(home: Settings) -> None:
    made = [folder.create(home, f"trial.{word}")[0].name for word in ("zebra", "ant", "bee", "zebra", "ant")]
    assert folder.ids(home.runs) == made


def test_new_id_can_be_read_aloud(home: Settings) -> None:
    path, _ = folder.create(home, "llm.pretrain")
    date, clock, word, fraction = path.name.split("-")
    assert (len(date), len(clock), word, len(fraction)) == (8, 6, "pretrain", 4)


def test_record_written_and_read_is_the_same(home: Settings) -> None:
    path, record = folder.create(home, "trial.count", name="naïve", limit_batches=3)
    record.result = {"loss": 1.5, "text": "ö"}
    folder.write(path, record)
    assert folder.read(path) == record


def test_record_of_a_newer_melete_with_more_keys_is_read(home: Settings) -> None:
    path, record = folder.create(home, "trial.count")
    file = path / "run.json"
    file.write_text(file.read_text().replace('"id"', '"colour": "blue", "id"'))
    assert folder.read(path) == record


def test_record_that_is_cut_short_is_an_error_with_its_path(home: Settings) -> None:
    path, _ = folder.create(home, "trial.count")
    (path / "run.json").write_text('{"id": "x", ')
    with pytest.raises(RunStateError, match=r"run\.json cannot be read"):
        folder.read(path)


def test_run_whose_process_lives_is_running(home: Settings) -> None:
    path, record = folder.create(home, "trial.count")
    running(path, record, pid=os.getpid(), host=socket.gethostname())
    assert folder.read(path).state is RunState.RUNNING


def test_run_whose_pid_belongs_to_another_process_now_is_lost(home: Settings) -> None:
    path, record = folder.create(home, "trial.count")
    running(path, record, pid=os.getpid(), host=socket.gethostname())
    record.pid_started_s = 1.0
    folder.write(path, record)
    assert folder.read(path).state is RunState.LOST


def test_run_whose_process_is_gone_is_lost_at_once(home: Settings) -> None:
    path, record = folder.create(home, "trial.count")
    running(path, record, pid=2**22 + 1, host=socket.gethostname())
    assert folder.read(path).state is RunState.LOST


@pytest.mark.parametrize(("age_s", "state"), [(5, RunState.RUNNING), (61, RunState.LOST)])
def test_run_of_another_host_is_lost_a_minute_after_its_last_beat(
    home: Settings, age_s: float, state: RunState
) -> None:
    path, record = folder.create(home, "trial.count")
    running(path, record, pid=1, host="elsewhere")
    beat = path / folder.HEARTBEAT
    beat.touch()
    os.utime(beat, (time.time() - age_s,) * 2)
    assert folder.read(path).state is state


def test_reading_a_lost_run_writes_nothing(home: Settings) -> None:
    path, record = folder.create(home, "trial.count")
    running(path, record, pid=2**22 + 1, host=socket.gethostname())
    before = (path / "run.json").read_bytes()
    folder.read(path)
    assert (path / "run.json").read_bytes() == before


def test_folder_without_a_run_is_an_unknown_name(home: Settings) -> None:
    with pytest.raises(UnknownNameError):
        folder.read(home.runs / "nothing")


def test_home_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(StorageError, match="MELETE_HOME"):
        folder.create(Settings(tmp_path / "home", None, ""), "trial.count")


@given(st.sampled_from(RunState), st.sampled_from(RunState))
def test_move_is_legal_exactly_where_the_table_says_so(old: RunState, new: RunState) -> None:
    if new in MOVES[old]:
        assert move(old, new) is new
    else:
        with pytest.raises(RunStateError, match=f"{old} cannot become {new}"):
            move(old, new)


def test_run_that_cannot_be_read_does_not_hide_the_others(home: Settings) -> None:
    broken, _ = folder.create(home, "trial.count")
    whole, _ = folder.create(home, "trial.count")
    (broken / "run.json").write_text("{")
    (home.runs / "20200101-000000-empty-0000").mkdir()
    assert [path for path, _ in folder.all_runs(home)] == [whole]


def hold(path: Path, held: Connection) -> None:
    with beating(path, lambda: None):
        held.send("held")
        held.recv()


def test_run_that_another_process_holds_cannot_be_held(home: Settings) -> None:
    path, _ = folder.create(home, "trial.count")
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=hold, args=(path, there))
    child.start()
    assert here.recv() == "held"
    with pytest.raises(RunStateError, match="executed by another process"), beating(path, lambda: None):
        pass
    here.send("end")
    child.join(30)
    with beating(path, lambda: None):
        assert child.exitcode == 0


def test_first_beat_of_a_run_comes_soon_after_its_start(home: Settings) -> None:
    path, _ = folder.create(home, "trial.count")
    noted = threading.Event()
    with beating(path, noted.set):
        assert noted.wait(heartbeat.BEAT_EVERY_S / 2)


def test_run_on_a_disk_without_room_for_a_folder_says_that_it_is_full(
    small_disk: Callable[[int], Path],
) -> None:
    disk = small_disk(1_000_000)
    subprocess.run(["mount", "-o", "remount,nr_inodes=2", str(disk)], check=True)
    settings = Settings(home=disk, data=None, database="sqlite://")
    (disk / "runs").mkdir()
    with pytest.raises(DiskFullError, match="The disk is full") as caught:
        folder.create(settings, "trial.count")
    assert "Free some space" in str(caught.value)
