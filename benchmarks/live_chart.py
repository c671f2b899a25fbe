"""What live charts cost the page: one chart and twelve, 5,000 points each, ten updates a second, in headless Chromium.

A real server (`melete serve --no-model`) on a fresh home with one run of twelve figures, to which this program appends
ten rows a second; the page is the run's own. Main thread is the CPU time of the page's tasks over the wall time of a
stretch in which nothing else happens (Performance.getMetrics in thread ticks), so that other work of the machine does
not count as the page's. Frames are counted in a stretch of their own, by requestAnimationFrame. Pictures are made by
software here, in threads and a process of their own; of those `process_of_one_core` holds the page's threads.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import peer
from live_clients import Server
from melete.records import RunState
from melete.runs import folder
from melete.settings import Settings
from melete.store import index

KEYS = ("loss", "val_loss", "lr", "grad_norm", "tokens_per_s", "mfu", "reward", "kl", "entropy", "accuracy",
        "margin", "clip_share")  # fmt: skip
POINTS = 5_000
BEFORE = POINTS - 300
"""Rows that are there when the page opens; they become the rest while it is measured."""
PERIOD_S = 0.1
GOALS = {"one chart": 0.10, "twelve charts": 0.15, "frames_per_s": 60}
CHARTS = {"one chart": "^loss$", "twelve charts": ""}
COUNT = """(seconds) => new Promise((done) => {
  let frames = 0; const began = performance.now();
  const count = () => {
    frames += 1;
    if (performance.now() - began < seconds * 1000) requestAnimationFrame(count);
    else done(frames / (performance.now() - began) * 1000);
  };
  requestAnimationFrame(count);
})"""
LAST = "(n) => [...document.querySelectorAll('melete-chart')].map((one) => one.curves[0]?.steps.at(-1) ?? 0)"


def row(step: int) -> str:
    """A row of metrics: twelve figures that fall, with noise that repeats."""
    noise = (step * 7919 % 1000) / 1000
    values = {
        key: round(3.0 / (1 + step / 700) + 0.2 * noise + place / 10, 5) for place, key in enumerate(KEYS)
    }
    return json.dumps({"step": step, "time_s": time.time(), **values}) + "\n"


def new_run(settings: Settings) -> Path:
    """A run that calls itself running, with its first rows."""
    run, record = folder.create(settings, "llm.pretrain", name="watched")
    folder.set_state(run, record, RunState.RUNNING)
    (run / "metrics.jsonl").write_text("".join(row(step) for step in range(BEFORE)))
    index.record(settings, run)
    return run


class Writer(threading.Thread):
    """Appends ten rows a second until it is ended."""

    def __init__(self, run_folder: Path) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.ended, self.step = run_folder, threading.Event(), BEFORE

    def run(self) -> None:
        """Writes."""
        with (self.run_folder / "metrics.jsonl").open("a", buffering=1) as opened:
            while not self.ended.wait(PERIOD_S):
                opened.write(row(self.step))
                self.step += 1


def metrics(session: Any) -> dict[str, float]:
    """What the page says of its own work, in seconds."""
    return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}


def measure(browser: Any, url: str, run: str, what: str, seconds: float) -> dict[str, Any]:
    """The figures of one page."""
    context = browser.new_context(viewport={"width": 1600, "height": 1400}, base_url=url)
    page = context.new_page()
    page.goto(f"/runs/{run}?points={POINTS}&match={CHARTS[what]}")
    wanted = len(KEYS) if what == "twelve charts" else 1
    page.wait_for_function(
        "(n) => [...document.querySelectorAll('melete-chart')].filter((one) => one.plot).length === n",
        arg=wanted, timeout=60_000,
    )  # fmt: skip
    points = page.evaluate(
        "[...document.querySelectorAll('melete-chart')].map((one) => one.plot.data[0].length)"
    )
    time.sleep(3.0)
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    shares, processes, began_step = [], [], page.evaluate(LAST)
    began_s = time.monotonic()
    for _ in range(5):
        before, from_s = metrics(session), time.monotonic()
        time.sleep(seconds / 5)
        after, took_s = metrics(session), time.monotonic() - from_s
        shares.append((after["TaskDuration"] - before["TaskDuration"]) / took_s)
        processes.append((after["ProcessTime"] - before["ProcessTime"]) / took_s)
    took_s, ended_step = time.monotonic() - began_s, page.evaluate(LAST)
    frames = page.evaluate(COUNT, 4.0)
    context.close()
    return {
        "charts": wanted,
        "points_each": min(points),
        "updates_per_s": round(min(b - a for a, b in zip(began_step, ended_step, strict=True)) / took_s, 2),
        "main_thread_of_one_core": round(statistics.median(shares), 4),
        "process_of_one_core": round(statistics.median(processes), 4),
        "frames_per_s": round(frames, 1),
        "heap_mb": round(after["JSHeapUsedSize"] / 1e6, 1),
        "goal": GOALS[what],
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring, each page")
    parser.add_argument("--dry-run", action="store_true", help="write no result")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("Chromium is not installed.")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as play:
        home = Path(scratch)
        settings = Settings.of(home)
        server = Server(home)
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            url = re.sub(r"^ws(.*)/api/v1/live$", r"http\1", server.url)
            for what in CHARTS:
                writer = Writer(new_run(settings))
                writer.start()
                found[what] = measure(browser, url, writer.run_folder.name, what, args.seconds)
                writer.ended.set()
                print(what, json.dumps(found[what]))
            version = browser.version
        finally:
            browser.close()
            server.stop()
    result = {"system": peer.system(), "chromium": version, "goals": GOALS, "period_s": PERIOD_S, "pages": found,
              "load_after": round(os.getloadavg()[0], 1)}  # fmt: skip
    if not args.dry_run:
        peer.save_result("live_chart", result)


if __name__ == "__main__":
    main()
