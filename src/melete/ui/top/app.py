"""The dashboard: runs and jobs, what the machine does, the curve and the log of what is chosen; drawn twice a second.

What arrives is only kept; a timer draws it, so that a busy lab does not make a busy terminal. Cells are updated where
they changed, and a table is filled anew only when its rows are others. Everything that changes something asks first and
goes through the API, with the rights of the token.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar
from urllib.parse import quote

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import DataTable, Footer, Input, RichLog, Static
from textual_plotext import PlotextPlot

from melete.api.client import Client
from melete.errors import MeleteError
from melete.ui.top import picture
from melete.ui.top.dialogs import Confirm, Help
from melete.ui.top.wire import Wire

PERIOD_S = 0.5
STATUS, RUNS, JOBS = "/api/v1/status", "/api/v1/runs?limit=50", "/api/v1/jobs?limit=50"
POINTS = 2_000
DOES = {"stop": "Stop", "pause": "Pause", "resume": "Resume", "retry": "Try again"}
COLOURS = {
    "running": "green", "succeeded": "dim", "failed": "red", "lost": "red", "stopped": "yellow", "queued": "cyan",
    "paused": "yellow", "gone": "red",
}  # fmt: skip


class Top(App[None]):
    """The dashboard of one server.

    Args:
        url: where it listens.
        token: what it asks for, if it does.
    """

    TITLE = "melete top"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012  as Textual declares it
    CSS = """
    #head { height: auto; padding: 0 1; background: $panel; }
    #tables { height: 2fr; layout: horizontal; } #detail { height: 3fr; layout: horizontal; }
    #runs { width: 3fr; height: 1fr; } #jobs { width: 2fr; height: 1fr; }
    #chart, #log { width: 1fr; }
    #log { scrollbar-size-vertical: 1; }
    #runs, #jobs, #chart, #log { border: round $surface-lighten-2; border-title-color: $text-muted; }
    #runs:focus, #jobs:focus { border: round $accent; }
    #filter { dock: bottom; display: none; }
    #filter.-open { display: block; }
    .-narrow #tables { layout: vertical; height: 12fr; } .-narrow #detail { layout: vertical; height: 15fr; }
    .-narrow #runs, .-narrow #jobs { width: 1fr; }
    .-narrow #runs { height: 2fr; } .-narrow #jobs { height: 1fr; min-height: 5; }
    .-narrow #log { height: 7; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Leave"),
        Binding("s", "ask('stop')", "Stop"),
        Binding("p", "ask('pause')", "Pause"),
        Binding("r", "ask('resume')", "Resume"),
        Binding("t", "ask('retry')", "Retry"),
        Binding("m", "figure(1)", "Figure"),
        Binding("M", "figure(-1)", "Figure before", show=False),
        Binding("slash", "filter", "Filter"),
        Binding("d", "theme", "Theme", show=False),
        Binding("question_mark", "help", "Keys"),
        Binding("escape", "unfilter", "No filter", show=False),
    ]

    def __init__(self, url: str, token: str | None = None) -> None:
        super().__init__()
        self._url, self._token = url, token
        self._wire = Wire(url, token, self._arrived, self._connection)
        self._lost: str | None = "connecting"
        self._answers: dict[str, Any] = {}
        self._needle = ""
        self._figure = ""
        # What is shown is kept together with the topic that it came from.
        self._curve, self._curve_of = picture.Curve(), ""
        self._log_of = ""
        self._watched: frozenset[str] = frozenset()
        self._trouble: dict[str, str] = {}
        self._changed = True
        # Held, not asked for: an event may still come while the screen is being taken down.
        self._head = Static(id="head")
        self._tables = {kind: DataTable[Text](id=kind, cursor_type="row") for kind in ("runs", "jobs")}
        self._chart = PlotextPlot(id="chart")
        self._log_pane = RichLog(id="log", max_lines=picture.LOG_LINES, wrap=True, markup=False)
        self._filter = Input(placeholder="part of a name, a process, a state", id="filter")

    def compose(self) -> ComposeResult:
        """See Textual."""
        yield self._head
        with Container(id="tables"):
            yield from self._tables.values()
        with Container(id="detail"):
            yield self._chart
            yield self._log_pane
        yield self._filter
        yield Footer()

    def on_mount(self) -> None:
        """Begins to watch."""
        for kind, table in self._tables.items():
            table.border_title = kind.capitalize()
        self._tables["runs"].focus()  # an Input that is hidden would take the keys
        self.run_worker(self._wire.run(), exit_on_error=True)
        self.set_interval(PERIOD_S, self._draw)
        self.call_after_refresh(self._draw)

    def on_resize(self) -> None:
        """Other columns may fit."""
        self._changed = True

    @property
    def curve(self) -> picture.Curve:
        """The curve that is shown."""
        return self._curve

    def answer(self, topic: str) -> Any:
        """The newest answer of a topic that is watched; None before there is one."""
        return self._answers.get(topic)

    @property
    def chosen(self) -> tuple[str, str | None]:
        """What the detail shows: `runs` or `jobs`, and the id; None if there is nothing."""
        kind = "jobs" if self._tables["jobs"].has_focus else "runs"
        table = self._tables[kind]
        if not table.row_count:
            return kind, None
        return kind, table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    @property
    def chosen_run(self) -> str | None:
        """The run whose curve is shown; of a job the one that came last."""
        kind, ref = self.chosen
        if kind == "runs" or ref is None:
            return ref
        runs = [step["run"] for step in self._job(ref).get("steps", ()) if step["run"]]
        return runs[-1] if runs else None

    async def _draw(self) -> None:
        """Draws what changed since the last time, and asks for what is looked at."""
        if len(self.screen_stack) > 1:
            return
        self._watched = frozenset(self._topics())
        await self._wire.want(self._watched)
        if not self._changed:
            return
        self._changed = False
        self._draw_head()
        runs, jobs = self._rows(RUNS), self._rows(JOBS)
        self._fill("runs", picture.RUN_COLUMNS, picture.run_rows(runs, self._needle))
        self._fill("jobs", picture.JOB_COLUMNS, picture.job_rows(jobs, self._needle))
        self._draw_chart()

    def _topics(self) -> list[str]:
        kind, ref = self.chosen
        topics = [STATUS, RUNS, JOBS]
        log = f"/api/v1/{kind}/{ref}/log" if ref else ""
        if log != self._log_of:
            self._log_of = log
            self._log_pane.clear()
        if log:
            topics.append(log)
        self._log_pane.border_title = picture.shown(f"Log of {ref}" if ref else "Log")
        run = self.chosen_run
        if run is not None:
            topics.append(f"/api/v1/runs/{run}/metrics")
            if (key := self._key()) and "," not in key:
                topics.append(self._curve_topic(run, key))
        return topics

    def _curve_topic(self, run: str, key: str) -> str:
        topic = f"/api/v1/runs/{run}/metrics?keys={quote(key, safe='')}&max={POINTS}"
        if topic != self._curve_of:
            self._curve, self._curve_of, self._changed = picture.Curve(key), topic, True
        return topic

    def _key(self) -> str:
        return picture.choose(self._keys(), self._figure)

    def _keys(self) -> list[str]:
        found = self._answers.get(f"/api/v1/runs/{self.chosen_run}/metrics") or {}
        return [figure["key"] for figure in found.get("figures", ())]

    def _arrived(self, topic: str, payload: Any) -> None:
        """Keeps what a topic says."""
        self._changed = True
        trouble = picture.problem(payload)
        self._trouble.pop(topic, None)
        if topic == self._log_of:
            self._add_lines(payload, trouble)
        elif trouble is not None:
            self._trouble[topic] = trouble
            self._answers.pop(topic, None)
        elif topic == self._curve_of:
            self._curve.take(payload)
        else:
            self._answers[topic] = payload
        # What is not watched any more is not kept either.
        self._answers = {name: answer for name, answer in self._answers.items() if name in self._watched}

    def _add_lines(self, payload: Any, trouble: str | None) -> None:
        log = self._log_pane
        if trouble is not None:
            log.clear()
            log.write(Text(trouble, "red"))
            return
        ((kind, page),) = payload.items()
        if kind == "whole":
            log.clear()
        for line in page["data"]:
            log.write(Text(picture.shown(line["text"])), scroll_end=None)

    def _connection(self, lost: str | None) -> None:
        self._lost, self._changed = lost, True

    def _rows(self, topic: str) -> list[dict[str, Any]]:
        return list((self._answers.get(topic) or {}).get("data", ()))

    def _job(self, ref: str | None) -> dict[str, Any]:
        return next((job for job in self._rows(JOBS) if job["id"] == ref), {})

    def _draw_head(self) -> None:
        status = self._answers.get(STATUS)
        line = Text()
        line.append("melete ", "bold")
        line.append(picture.shown(status["host"] if status else self._url), "bold")
        line.append(f"  {picture.shown(self._url)}  ", "dim")
        line.append(
            *(("● live", "green") if self._lost is None else (f"○ {picture.shown(self._lost)}", "red"))
        )
        if self._needle:
            line.append(f"  only {self._needle!r}", "yellow")
        for trouble in [self._trouble[topic] for topic in (STATUS, RUNS, JOBS) if topic in self._trouble][:1]:
            line.append(f"  {trouble}", "red")
        if status:
            counts = ", ".join(f"{count} {state}" for state, count in sorted(status["jobs"].items()))
            line.append(f"\n{picture.machine(status)}   jobs: {counts or 'none'}")
        self._head.update(line)

    def _fill(self, name: str, columns: tuple[picture.Column, ...], rows: dict[str, dict[str, str]]) -> None:
        """Brings a table up to date: cells that changed, or all of it where its rows or columns are others."""
        table = self._tables[name]
        chosen = picture.fitting(columns, table.size.width - 2)
        if [key.value for key in table.columns] != [column.name for column in chosen]:
            table.clear(columns=True)
            for column in chosen:
                table.add_column(column.name, key=column.name, width=column.width)
        if [key.value for key in table.rows] != list(rows):
            place = table.cursor_row
            ref = (
                table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
                if table.row_count
                else None
            )
            table.clear()
            for key, cells in rows.items():
                table.add_row(*(_cell(column.name, cells) for column in chosen), key=key)
            table.move_cursor(row=list(rows).index(ref) if ref in rows else min(place, max(0, len(rows) - 1)))
            return
        for key, cells in rows.items():
            for column in chosen:
                cell = _cell(column.name, cells)
                if table.get_cell(key, column.name) != cell:
                    table.update_cell(key, column.name, cell)

    def _draw_chart(self) -> None:
        chart = self._chart
        steps, values = self._curve.points(chart.size.width)
        chart.border_title = picture.shown(
            f"{self._curve.key} of {self.chosen_run}" if self._curve.key else "Curve"
        )
        plot = chart.plt
        plot.clear_data()
        plot.clear_figure()
        if values:
            plot.plot(steps, values, marker="braille")
        chart.refresh()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Another run or job is looked at."""
        self._changed = True

    def on_descendant_focus(self) -> None:
        """The other table may have been entered."""
        self._changed = True

    def action_figure(self, by: int) -> None:
        """Shows another figure of the run."""
        keys = self._keys()
        if keys:
            self._figure = keys[(keys.index(self._key()) + by) % len(keys)]
            self._changed = True

    def action_filter(self) -> None:
        """Opens the filter."""
        self._filter.add_class("-open")
        self._filter.focus()

    def action_unfilter(self) -> None:
        """Shows everything again."""
        self._filter.value = ""
        self._close_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filters while one types."""
        self._needle, self._changed = event.value.strip(), True

    def on_input_submitted(self) -> None:
        """Keeps the filter."""
        self._close_filter()

    def _close_filter(self) -> None:
        self._filter.remove_class("-open")
        self._tables["runs"].focus()

    def action_theme(self) -> None:
        """Dark or light."""
        self.theme = "textual-light" if self.current_theme.dark else "textual-dark"

    def action_help(self) -> None:
        """Shows the keys."""
        self.push_screen(Help())

    def action_ask(self, what: str) -> None:
        """Asks whether something is to be done with what is chosen, and does it."""
        path, name = self._target(what)
        if path is None:
            self.notify(name, severity="warning")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(self._do(path, what, name))

        self.push_screen(Confirm(f"{DOES[what]} {name}?", DOES[what]), answered)

    def _target(self, what: str) -> tuple[str | None, str]:
        """What to POST to and what it is called, or None and why it cannot be done."""
        kind, ref = self.chosen
        if ref is None:
            return None, "There is nothing here yet."
        if kind == "runs":
            run = next(row for row in self._rows(RUNS) if row["id"] == ref)
            job = self._job(run["job"])
            if not job:
                if what != "stop":
                    return None, "Only a job of the queue can do that; this run was started by hand."
                return f"/runs/{ref}/stop", f"run {picture.shown(run['name'] or ref)}"
        else:
            job = self._job(ref)
        if what not in job.get("actions", ()):
            return None, picture.shown(
                f"{job.get('name')} is {job.get('shown_state')}; that cannot be done now."
            )
        return f"/jobs/{job['id']}/{what}", f"job {picture.shown(job['name'])}"

    async def _do(self, path: str, what: str, name: str) -> None:
        def ask() -> None:
            with Client(self._url, self._token) as lab:
                lab.post(path)

        try:
            await asyncio.to_thread(ask)
        except MeleteError as error:
            self.notify(picture.shown(str(error)), severity="error", timeout=10)
        else:
            self.notify(f"{DOES[what]}: {name}")


def _cell(column: str, cells: dict[str, str]) -> Text:
    """A cell, never read as markup."""
    colour = COLOURS.get(cells["state"], "") if column == "state" else ""
    return Text(cells[column], colour, no_wrap=True, overflow="ellipsis")
