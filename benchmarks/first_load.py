"""What the first look at a page costs: bytes, and the time until it is ready, in headless Chromium.

A real server (`melete serve --no-model`) with one run of twelve figures of 5,000 points. Of home, the run's page and
the chat: the compressed bytes of a first visit with everything they load; the time until the page is ready for who has
been here before; and that of a first visit over 10 Mbit/s (40 ms there and back) with the processor slowed four times,
both by the browser's own means. Ready is: the page's live connection has answered, every chart that is in sight is
drawn, the chat can be written to; seen by the page itself, from the beginning of the navigation.

These are wall times: run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import peer
from live_chart import KEYS, POINTS, new_run, row
from live_clients import Server
from melete.settings import Settings

GOALS = {"first_load_kb": 250, "warm_ready_s": 0.5, "slow_ready_s": 2.0}
SLOW = {"offline": False, "latency": 40, "downloadThroughput": 10e6 / 8, "uploadThroughput": 10e6 / 8}
SLOWED = 4
READY = {
    "home": "document.documentElement.dataset.conn === 'live'",
    "run": """document.documentElement.dataset.conn === 'live' && (() => {
      const seen = [...document.querySelectorAll('melete-chart')]
        .filter((one) => one.getBoundingClientRect().top < innerHeight);
      return seen.length > 0 && seen.every((one) => one.plot);
    })()""",
    "chat": "document.querySelector('#composer')?.closest(':not(:defined)') === null",
}
WATCH = """
  const look = () => {
    if (document.readyState !== 'loading' && (%s)) window.readyAt = performance.now();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
"""


def visit(context: Any, path: str, what: str, *, slow: bool = False) -> dict[str, float]:
    """One look at a page in a tab of its own: seconds until it is ready, kB over the wire, requests."""
    page = context.new_page()
    page.add_init_script(WATCH % READY[what])
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    lengths: list[float] = []
    session.on("Network.loadingFinished", lambda done: lengths.append(done["encodedDataLength"]))
    if slow:
        session.send("Network.emulateNetworkConditions", SLOW)
        session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWED})
    page.goto(path)
    page.wait_for_function("() => window.readyAt", timeout=60_000)
    found = {"ready_s": page.evaluate("window.readyAt") / 1000, "paint_s": page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0") / 1000}  # fmt: skip
    page.wait_for_load_state("networkidle")
    page.close()
    return {**found, "kb": sum(lengths) / 1000, "requests": len(lengths)}


def measure(browser: Any, url: str, path: str, what: str, times: int) -> dict[str, Any]:
    """The figures of one page."""

    def fresh() -> Any:
        return browser.new_context(base_url=url, viewport={"width": 1280, "height": 800})

    context = fresh()
    first = visit(context, path, what)
    warm = [visit(context, path, what) for _ in range(times)]
    context.close()
    slow = []
    for _ in range(times):
        context = fresh()
        slow.append(visit(context, path, what, slow=True))
        context.close()
    return {
        "first_load_kb": round(first["kb"], 1),
        "requests": first["requests"],
        "warm_ready_s": round(statistics.median(one["ready_s"] for one in warm), 3),
        "warm_ready_least_s": round(min(one["ready_s"] for one in warm), 3),
        "warm_paint_s": round(statistics.median(one["paint_s"] for one in warm), 3),
        "slow_ready_s": round(statistics.median(one["ready_s"] for one in slow), 3),
        "slow_ready_least_s": round(min(one["ready_s"] for one in slow), 3),
        "slow_paint_s": round(statistics.median(one["paint_s"] for one in slow), 3),
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--times", type=int, default=7, help="visits of each kind")
    parser.add_argument("--dry-run", action="store_true", help="write no result")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("Chromium is not installed.")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as play:
        home = Path(scratch)
        settings = Settings.of(home)
        run = new_run(settings)
        (run / "metrics.jsonl").write_text("".join(row(step) for step in range(POINTS)))
        server = Server(home)
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            url = re.sub(r"^ws(.*)/api/v1/live$", r"http\1", server.url)
            paths = {"home": "/", "run": f"/runs/{run.name}", "chat": "/chat"}
            found = {what: measure(browser, url, path, what, args.times) for what, path in paths.items()}
            version = browser.version
        finally:
            browser.close()
            server.stop()
    result = {
        "system": peer.system(), "chromium": version, "goals": GOALS, "charts": len(KEYS), "points": POINTS,
        "times": args.times, "pages": found, "load_after": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    if args.dry_run:
        print(json.dumps(result, indent=1))
    else:
        peer.save_result("first_load", result)


if __name__ == "__main__":
    main()
