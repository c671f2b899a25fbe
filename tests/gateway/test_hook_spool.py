"""The spool's writer: whole lines only, segments that end, a reserve for a full disk, and who writes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melete.gateway.events import Event, event_id, parse
from melete.gateway.spool import SpoolWriter, alive, segment, writer_name


def event(number: int, size: int = 10) -> Event:
    request = f"r{number}"
    fields = {"status": "ok", "changed": ["x" * 40] * (size // 40)}
    return Event("end", event_id(request, "end"), request, "s-1", float(number), writer_name(), fields)


def told(folder: Path) -> list[str]:
    """Requests of all events in a spool, and a failure for any line that is none."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        data = path.read_bytes()
        assert not data or data.endswith(b"\n")
        for line in data.splitlines():
            read = parse(line)
            assert read is not None
            found.append(read.request)
    return found


def test_events_are_read_back_in_order(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    for number in range(20):
        writer.write(event(number))
    assert told(tmp_path) == [f"r{number}" for number in range(20)]


def test_folder_and_segments_are_for_the_owner_alone(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    writer.write(event(1))
    (path,) = (tmp_path / "spool").glob("*.jsonl")
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


def test_segment_that_is_full_is_followed_by_another(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=1000)
    for number in range(20):
        writer.write(event(number))
    paths = sorted(tmp_path.glob("*.jsonl"))
    assert len(paths) > 2
    assert all(path.stat().st_size <= 1000 for path in paths)
    assert paths[0] == segment(tmp_path, writer.writer, 0)
    assert told(tmp_path) == [f"r{number}" for number in range(20)]


def test_writer_is_alive_while_its_process_runs() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = writer_name(child.pid)
    assert alive(name)
    child.communicate(b"\n")
    assert not alive(name)


def test_pid_that_another_process_got_is_not_the_writer() -> None:
    host, pid, started = writer_name().rsplit(":", 2)
    assert alive(f"{host}:{pid}:{started}")
    assert not alive(f"{host}:{pid}:{int(started) - 1}")


def test_writer_of_another_host_counts_as_alive() -> None:
    assert alive("elsewhere:1:2")


def fill(folder: Path) -> Path:
    """Takes all room that is left on a disk."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return ballast


def test_full_disk_leaves_whole_lines_and_frees_the_reserve_for_what_is_under_way(
    small_disk: Callable[[int], Path],
) -> None:
    disk = small_disk(256 * 1024)
    with closing(SpoolWriter(disk / "spool", reserve_bytes=64 * 1024)) as writer:
        assert writer.ready()
        writer.write(event(0))
        fill(disk)
        written = 1
        try:
            while written < 100:
                writer.write(event(written, 1000))
                written += 1
        except OSError:
            assert told(disk / "spool") == [f"r{number}" for number in range(written)]
        assert written < 100
        for number in range(written, written + 20):
            writer.keep(event(number, 1000))
        assert told(disk / "spool") == [f"r{number}" for number in range(written + 20)]
        assert not writer.ready()


def test_events_of_a_full_disk_are_held_and_written_when_there_is_room(
    small_disk: Callable[[int], Path],
) -> None:
    disk, seconds = small_disk(128 * 1024), [0.0]
    with closing(SpoolWriter(disk / "spool", reserve_bytes=8192, clock=lambda: seconds[0])) as writer:
        assert writer.ready()
        writer.write(event(0))
        ballast = fill(disk)
        for number in range(1, 60):
            writer.keep(event(number, 1000))
        assert writer.held
        seconds[0] += 5
        assert not writer.ready()
        ballast.unlink()
        seconds[0] += 5
        assert writer.ready()
        assert not writer.held
        assert told(disk / "spool") == [f"r{number}" for number in range(60)]


def test_file_that_may_not_grow_is_never_left_with_half_a_line(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; sys.path[:0] = [sys.argv[2]]\n"
        "from test_hook_spool import SpoolWriter, event\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "writer = SpoolWriter(Path(sys.argv[1]), reserve_bytes=0)\n"
        "try:\n"
        "    for number in range(100): writer.write(event(number))\n"
        "except OSError: print(number)\n"
    )
    run = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert told(tmp_path) == [f"r{number}" for number in range(int(done.stdout))]


def test_close_gives_the_reserve_back(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    assert writer.ready()
    assert list(tmp_path.glob("*.reserve"))
    writer.close()
    assert not list(tmp_path.glob("*.reserve"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 1600), max_size=30), limit=st.integers(200, 5000))
def test_any_sizes_in_any_segments_come_back_whole_and_in_order(
    tmp_path: Path, sizes: list[int], limit: int
) -> None:
    folder = tmp_path / os.urandom(6).hex()
    writer = SpoolWriter(folder, segment_bytes=limit, reserve_bytes=0)
    for number, size in enumerate(sizes):
        writer.write(event(number, size))
    writer.close()
    assert told(folder) == [f"r{number}" for number in range(len(sizes))]
