"""Photographs every kind of page of the web UI in headless Chromium, in both themes, at a desk's and a phone's width.

    python tools/screenshots.py                          # on a small lab that is made for it
    python tools/screenshots.py --home .melete           # on a copy of a home with runs of its own
    python tools/screenshots.py --kept                   # only those that the documentation shows

Pages are found by their links, so one that is added is photographed without being listed. The pictures go to
docs/images/ui with a palette of 128 colours, that of `melete top` beside that folder. A real server answers, a real
training runs meanwhile and two jobs wait in the queue; the sessions of bench are made up (tests/lab_at_hand.py).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
TARGET = ROOT / "docs" / "images" / "ui"
SIZES = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 780}}
TALLEST = {"desk": 1600, "phone": 1560}
COLOURS = 128
SETTLED_MS = 1500
"""What a page may take to draw its curves."""
LONGEST_S = 120.0
STEPS_BEFORE = 60
"""Steps that the training has taken when the first picture is made."""
TRAINING = (
    "--name", "reading-python", "--depth", "2", "--context", "256", "--batch-tokens", "2048", "--steps", "4000",
)  # fmt: skip
KEPT = (
    "home", "jobs", "jobs-one", "jobs-new", "jobs-new-process-agents-train", "runs", "runs-one", "runs-one-samples",
    "compare", "datasets", "models", "agents", "agents-one", "agents-runs", "bench", "bench-experiments",
    "bench-sessions", "chat", "settings", "search", "ui-kit",
)  # fmt: skip
"""What the documentation may show; other pages show data of others, or folders of the machine."""
KEPT_DARK = ("home", "runs-one", "compare", "chat")
KEPT_PHONE = ("home", "runs-one", "jobs", "chat")


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--home", type=Path, help="home folder to show; a copy is used")
    parser.add_argument("--out", type=Path, default=TARGET, help="folder for the pictures")
    parser.add_argument(
        "--kept", action="store_true", help="light at a desk's width, a few dark and phone ones"
    )
    parser.add_argument("--only", default="", help="names that begin with this")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("Chromium is not installed. On Debian: apt install chromium", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    total = 0
    with serving(options.home) as url:
        for name, picture in shots(url, chromium, only=options.only, kept=options.kept):
            data = packed(picture)
            (options.out / f"{name}.png").write_bytes(data)
            total += len(data)
            print(f"{name:40} {len(data) / 1000:6.0f} kB", flush=True)
        if not options.only:
            from melete.ui.top import photo

            photo.photograph(url, options.out.parent / "top.svg")
    print(f"{total / 1e6:.1f} MB in {options.out}")
    return 0


@contextmanager
def serving(home: Path | None) -> Iterator[str]:
    """A server on a copy of a home, or on a small lab; its address."""
    import lab_at_hand
    from melete.settings import Settings
    from melete.store import database
    from web_at_hand import Lab, fill

    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder) / "home"
        if home is not None:
            shutil.copytree(home, mine)
        mine.mkdir(exist_ok=True)
        settings = Settings.of(mine)
        lab = Lab(settings) if home is None else Lab(settings, program=("-m", "melete"))
        if home is None:
            import melete_trial  # noqa: F401  the tests' own process, which the small lab runs

            fill(settings, Path(folder))
        else:
            rebuild(mine)
            with database.connect(settings.database) as connection:
                lab_at_hand.fill(connection, begun_s=time.time() - 5_000)
        lab.start()
        with busy(lab, settings):
            try:
                yield lab.url
            finally:
                lab.stop()


@contextmanager
def busy(lab: Any, settings: Any) -> Iterator[None]:
    """A real training that runs while pictures are taken, and two jobs that wait in the queue."""
    for name in ("first-steps", "two-ways"):
        example = lab.get(f"/examples/{name}")
        body = json.dumps({"text": example["text"]}).encode()
        asked = urllib.request.Request(
            f"{lab.url}/api/v1/jobs", body, {"content-type": "application/json"}, method="POST"
        )
        urllib.request.urlopen(asked).close()
    command = [sys.executable, "-m", "melete", "llm", "pretrain", *TRAINING]
    with (settings.home / "training.txt").open("wb") as said:
        child = subprocess.Popen(
            command, stdout=said, stderr=said, env={**os.environ, "MELETE_HOME": str(settings.home)}
        )
    try:
        until_s = time.monotonic() + LONGEST_S
        while time.monotonic() < until_s and child.poll() is None:
            running = lab.get("/status")["running"]
            if running and (running[0]["step"] or 0) > STEPS_BEFORE:
                break
            time.sleep(1)
        yield
    finally:
        child.terminate()
        child.wait(60)


def rebuild(home: Path) -> None:
    """Lists the runs of a copied home in its index, which knows them by their old place."""
    from melete.cli._root import run

    os.environ["MELETE_HOME"] = str(home)
    run(["store", "rebuild"])


def shots(url: str, chromium: str, *, only: str, kept: bool) -> Iterator[tuple[str, bytes]]:
    """Name and picture of each page, theme and width."""
    from playwright.sync_api import sync_playwright

    pages = {name: path for name, path in found(url).items() if name.startswith(only)}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for size, viewport in SIZES.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport=viewport, color_scheme=scheme, base_url=url, reduced_motion="reduce"
                )
                tab = context.new_page()
                for name, path in pages.items():
                    if not kept or wanted(name, size, scheme):
                        yield f"{name}-{size}-{scheme}", photograph(tab, path, TALLEST[size])
                context.close()
        browser.close()


def wanted(name: str, size: str, scheme: str) -> bool:
    """Whether the documentation keeps a picture."""
    if size == "phone":
        return scheme == "light" and name in KEPT_PHONE
    return name in (KEPT if scheme == "light" else KEPT_DARK)


def found(url: str) -> dict[str, str]:
    """The pages by name: those that links lead to, every kind of data once, and runs of one process side by side."""
    from web_at_hand import pages_of

    broken: list[str] = []
    pages = pages_of(url, broken=broken)
    for path in broken:
        print(f"cannot be shown: {path}", file=sys.stderr)
    for dataset in asked(url, "/datasets?limit=200"):
        path = f"/datasets/{dataset['name']}"
        with urllib.request.urlopen(url + path) as answer:
            for tab in re.findall(r'href="[^"]*\?tab=(\w+)"', answer.read().decode()):
                pages.setdefault(f"datasets-one-{tab}", f"{path}?tab={tab}")
    runs = asked(url, "/runs?limit=100")
    for run in runs:
        same = [one["id"] for one in runs if one["process"] == run["process"] and one["last"]][:3]
        if len(same) > 1:
            pages["compare"] = f"/compare?runs={','.join(same)}"
            break
    return pages


def asked(url: str, path: str) -> list[dict[str, Any]]:
    """A list of the API."""
    with urllib.request.urlopen(f"{url}/api/v1{path}") as answer:
        rows: list[dict[str, Any]] = json.load(answer)["data"]
        return rows


def photograph(tab: Any, path: str, tallest: int) -> bytes:
    """A picture of a page from its top, as tall as it is up to a limit."""
    tab.goto(path)
    tab.wait_for_load_state("load")
    tab.wait_for_timeout(SETTLED_MS)
    size = tab.viewport_size
    height = min(tab.evaluate("document.documentElement.scrollHeight"), tallest)
    tab.set_viewport_size({"width": size["width"], "height": max(height, size["height"])})
    tab.wait_for_timeout(300)
    picture: bytes = tab.screenshot()
    tab.set_viewport_size(size)
    return picture


def packed(picture: bytes) -> bytes:
    """A picture with few colours, as a small PNG."""
    with Image.open(io.BytesIO(picture)) as image:
        out = io.BytesIO()
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
