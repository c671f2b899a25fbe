"""The dashboard on a real server: what it shows, what its keys do, and how it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, RichLog, Static

from live_at_hand import LONGEST_S, add_lines, add_points, empty_run, served
from melete.api.alone import gated
from melete.jobs.queue import opened
from melete.settings import Settings
from melete.store import index
from melete.ui.top.app import Top
from melete.ui.top.dialogs import Confirm, Help

JOB = "name: night\nprocesses:\n  - {process: trial.count, name: one, config: {steps: 3}}\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with two runs that are on, and a job that waits for a worker."""
    return furnished(tmp_path_factory.mktemp("top"), "alpha [red]", "beta")


def furnished(home: Path, *names: str) -> Settings:
    """A home with these runs, each with two figures and a log, and a job that waits."""
    made = Settings.of(home)
    for name in names:
        run = empty_run(made, name)
        add_points(run, 0, 50)
        add_points(run, 50, 5, key="reward")
        add_lines(run, 0, 5)
        index.record(made, run)
    (home / "night.yaml").write_text(JOB)
    with opened(made) as queue:
        queue.submit(home / "night.yaml")
    return made


@pytest.fixture(scope="module")
def url(lab: Settings) -> Iterator[str]:
    """A server over it."""
    with served(gated(lab), lab) as found:
        yield found


def played(
    url: str, play: Callable[[Top, Pilot[None]], Awaitable[None]], size: tuple[int, int] = (140, 44)
) -> None:
    """Plays with a dashboard that shows both tables, a curve and a log."""

    async def run() -> None:
        app = Top(url)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: rows(app, "jobs") and app.curve.values and log(app))
            await play(app, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], fact: Callable[[], Any]) -> None:
    """Waits for a fact."""
    async with asyncio.timeout(LONGEST_S):
        while not fact():
            await pilot.pause(0.05)


def rows(app: Top, name: str) -> list[list[str]]:
    """The cells of a table."""
    table = app.screen_stack[0].query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in table.get_row_at(at)] for at in range(table.row_count)]


def log(app: Top) -> str:
    """The log as it is shown."""
    return "\n".join(
        line.text for pane in app.screen_stack[0].query("#log").results(RichLog) for line in pane.lines
    )


def test_dashboard_shows_runs_jobs_the_machine_a_curve_and_a_log(url: str) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        assert [row[:3] for row in rows(app, "runs")] == [
            ["running", "beta", "54"],
            ["running", "alpha [red]", "54"],
        ]
        assert rows(app, "jobs")[0][:3] == ["queued", "night", "0/1"]
        assert (app.curve.key, len(app.curve.values)) == ("loss", 50)
        assert "line 4" in log(app)
        assert "CPU" in str(app.query_one("#head", Static).content)

    played(url, play)


@pytest.mark.slow
def test_dashboard_at_eighty_columns_keeps_what_is_needed_most(url: str) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        names = [str(column.label) for column in app.query_one("#runs", DataTable).columns.values()]
        assert names == ["state", "run", "step", "figures"]
        assert all(app.query_one(part).region.height >= 3 for part in ("#runs", "#jobs", "#chart", "#log"))

    played(url, play, (80, 30))


@pytest.mark.slow
def test_run_that_is_chosen_shows_its_own_curve_as_it_grows(url: str, lab: Settings) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        first = app.chosen_run
        await pilot.press("down")
        await until(pilot, lambda: app.chosen_run != first and len(app.curve.values) == 50)
        run = lab.runs / str(app.chosen_run)
        add_points(run, 55, 2)
        add_lines(run, 5)
        await until(pilot, lambda: len(app.curve.values) == 52 and "line 5" in log(app))

    played(url, play)


@pytest.mark.slow
def test_run_that_comes_leaves_the_log_and_the_curve_of_the_chosen_one(tmp_path: Path) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        chosen, shown = app.chosen_run, log(app)
        index.record(home, empty_run(home, "later"))
        await until(pilot, lambda: len(rows(app, "runs")) == 2)
        await pilot.pause()
        assert app.chosen_run == chosen
        assert log(app) == shown
        add_points(home.runs / str(chosen), 50, 2)
        add_lines(home.runs / str(chosen), 5)
        await until(pilot, lambda: len(app.curve.values) == 52 and "line 5" in log(app))
        assert log(app).startswith(shown)

    home = furnished(tmp_path, "alpha")
    with served(gated(home), home) as found:
        played(found, play)


@pytest.mark.slow
def test_key_shows_the_next_figure(url: str) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.answer(f"/api/v1/runs/{app.chosen_run}/metrics"))
        await pilot.press("m")
        await until(pilot, lambda: app.curve.key == "reward" and len(app.curve.values) == 5)
        await pilot.press("M")
        await until(pilot, lambda: app.curve.key == "loss" and app.curve.values)

    played(url, play)


@pytest.mark.slow
def test_event_that_comes_while_the_screen_is_taken_down_does_no_harm(url: str) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        table = app.query_one("#runs", DataTable)
        await app.query("#tables, #detail").remove()
        app.post_message(DataTable.RowHighlighted(table, 0, next(iter(table.rows))))
        await pilot.pause()
        assert app.is_running
        assert not log(app)

    played(url, play)


@pytest.mark.slow
def test_filter_keeps_matching_rows_and_escape_ends_it(url: str) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"alpha")
        await until(pilot, lambda: len(rows(app, "runs")) == 1 and not rows(app, "jobs"))
        await pilot.press("escape")
        await until(pilot, lambda: len(rows(app, "runs")) == 2 and rows(app, "jobs"))
        assert not app.query_one("#filter", Input).has_class("-open")

    played(url, play)


@pytest.mark.slow
def test_job_is_paused_and_resumed_after_a_question(url: str, lab: Settings) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("tab", "p")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: not isinstance(app.screen, Confirm))
        assert rows(app, "jobs")[0][0] == "queued"
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: rows(app, "jobs")[0][0] == "paused")
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: rows(app, "jobs")[0][0] == "queued")

    played(url, play)


@pytest.mark.slow
def test_action_that_is_not_possible_says_why_and_asks_nothing(url: str) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("t")
        await until(pilot, lambda: len(app._notifications))
        assert "started by hand" in next(iter(app._notifications)).message
        assert not isinstance(app.screen, Confirm)

    played(url, play)


@pytest.mark.slow
def test_keys_are_shown_and_the_theme_changes(url: str) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Help))
        await pilot.press("escape", "d")
        await until(pilot, lambda: not app.current_theme.dark)

    played(url, play)


@pytest.mark.slow
def test_server_that_comes_back_is_watched_again(lab: Settings, tmp_path: Path) -> None:
    async def run() -> None:
        first = served(gated(lab), lab)
        url = first.__enter__()
        app = Top(url)
        async with app.run_test(size=(140, 44)) as pilot:
            await until(pilot, lambda: app.curve.values)
            await asyncio.to_thread(first.__exit__, None, None, None)
            await until(pilot, lambda: "○" in str(app.query_one("#head", Static).content))
            add_points(lab.runs / str(app.chosen_run), 100, 3)
            with served(gated(lab), lab, int(url.rpartition(":")[2])):
                await until(pilot, lambda: app.curve.steps[-1:] == [102.0])
                await until(pilot, lambda: "● live" in str(app.query_one("#head", Static).content))

    asyncio.run(run())


def test_command_without_a_server_says_what_to_start(call: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = call("top")
    assert code == 8
    assert "melete up" in err


def test_command_with_an_address_that_is_none_is_refused(call: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = call("top", "--url", "here")
    assert code == 2
    assert "http://" in err


def test_command_without_a_terminal_names_what_a_script_uses(
    call: Callable[..., tuple[int, str, str]],
) -> None:
    code, _, err = call("top", "--url", "http://127.0.0.1:9")
    assert code == 2
    assert "melete status --json" in err
