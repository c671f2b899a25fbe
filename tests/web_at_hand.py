"""A lab to look at with a browser: a home with real runs, jobs, data and sessions, and a real server on it."""

from __future__ import annotations

import html
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import lab_at_hand
from melete.datasets.adding import add
from melete.jobs.execute import Options, execute
from melete.jobs.queue import opened
from melete.settings import Settings
from melete.store import database
from runs_at_hand import fill_runs, rows_file
from trial_runs import TRIAL

LONGEST_S = 60.0
HOSTILE = '<img src=x onerror="document.title=`run`"><script>document.title=`ran`</script>'
"""A name, note, caption or line of a log that would run a script if a page let it."""
PRETRAIN = {
    "depth": 1, "width": 32, "context": 32, "batch_tokens": 256, "steps": 30, "vocab_size": 280, "eval_tokens": 512,
    "dtype": "fp32",
}  # fmt: skip


@dataclass
class Lab:
    """A server in a process of its own, and what is in its home.

    Attributes:
        settings: of the home.
        url: of the server, without a slash at its end.
        program: what Python is to run; by default Melete with the tests' own processes.
        made: ids by what they name: `first`, `second`, `hostile`, `pretrain`, `job`, `dataset`.
    """

    settings: Settings
    made: dict[str, str] = field(default_factory=dict)
    url: str = ""
    program: tuple[str, ...] = (str(TRIAL),)
    child: subprocess.Popen[str] | None = None

    def start(self, *arguments: str, port: int = 0, **environ: str) -> None:
        """Starts the server, and waits until it answers."""
        self.child = subprocess.Popen(
            [sys.executable, *self.program, "serve", "--no-model", "--port", str(port), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "MELETE_HOME": str(self.settings.home), "PYTHONUNBUFFERED": "1", **environ},
        )  # fmt: skip
        assert self.child.stdout is not None
        said = ""
        for line in self.child.stdout:
            said += line
            if found := re.search(r"(http://[0-9.]+:\d+)", line):
                self.url = found[1]
            if line.startswith("Stop with"):
                return
        raise AssertionError(f"the server did not start:\n{said}")

    def stop(self) -> None:
        """Ends the server."""
        if self.child is not None:
            self.child.kill()
            self.child.communicate()
            self.child = None

    def restart(self) -> None:
        """Kills the server and starts it again at the same address."""
        port = int(self.url.rsplit(":", 1)[1])
        self.stop()
        self.start(port=port)

    def get(self, path: str) -> Any:
        """What the API says at a path below `/api/v1`."""
        with urllib.request.urlopen(f"{self.url}/api/v1{path}", timeout=LONGEST_S) as answer:
            return json.load(answer)


def fill(settings: Settings, folder: Path, *, train: bool = True) -> dict[str, str]:
    """Fills a home with a bit of everything that pages show; returns the ids of what was made.

    Args:
        settings: of the home.
        folder: for files that are read once.
        train: whether a small language model is trained too, which takes some seconds.
    """
    made: dict[str, str] = {}
    with database.connect(settings.database) as connection:
        lab_at_hand.fill(connection, begun_s=time.time() - 5_000)
    made["first"], made["second"] = fill_runs(settings)
    hostile = execute("trial.count", {"steps": 4, "words": [HOSTILE]}, Options(settings, name=HOSTILE))
    (settings.runs / hostile.id / "note.md").write_text(HOSTILE, encoding="utf-8")
    made["hostile"] = hostile.id
    if train:
        words = _words(folder / "words")
        record = execute(
            "llm.pretrain", {**PRETRAIN, "data": str(words)}, Options(settings, name="tiny-base")
        )
        made["pretrain"] = record.id
    made["dataset"] = add(rows_file(folder, 120), settings, name="numbers", licence="CC0-1.0").name
    steps = [{"process": "trial.count", "name": name, "config": {"steps": 3}} for name in ("warm-up", "exam")]
    file = folder / "two-steps.yaml"
    file.write_text(yaml.safe_dump({"name": "two-steps", "processes": steps}))
    with opened(settings) as queue:
        made["job"] = queue.submit(file).id
    return made


def pages_of(url: str, *, broken: list[str] | None = None) -> dict[str, str]:
    """All kinds of pages of a server with content in it: a short name to a path.

    The palette knows the pages. Below each, one link of each shape is followed (`/runs/ID`, `/agents/runs/ID`), and
    links that change only the query to a tab are its tabs, or begin with an example. So a page that is added is found
    without being listed.

    Args:
        url: of the server.
        broken: takes what cannot be shown, which is an error otherwise.
    """
    found: dict[str, str] = {}
    known = _links(url, "/parts/palette", r'data-href="([^"]+)"', broken)
    for page in known:
        name = re.sub(r"\W+", "-", page.strip("/")) or "home"
        found[name] = page
        for begun in _links(url, page, rf'href="({re.escape(page)}\?example=[^"]+)"', broken)[:1]:
            found[f"{name}-one"] = begun
        wanted = [page] if page != "/" else []
        while wanted:
            for path in _links(url, wanted.pop(), rf'href="({re.escape(page)}/[^"?#]+)"', broken):
                parts = path.removeprefix(f"{page}/").split("/")
                # Words and ids take turns; a page right below has an id or is a word itself.
                kind = "-".join([name, *(parts[::2] if len(parts) % 2 == 0 else ["one", *parts[1::2]])])
                if kind not in found and path not in known:
                    found[kind] = path
                    wanted.append(path)
                    own = rf'href="((?:{re.escape(path)})?\?tab=\w+)"'
                    for tab in _links(url, path, own, broken):
                        address = tab if tab.startswith("/") else path + tab
                        found[f"{kind}-{tab.rsplit('=', 1)[1]}"] = address
                        wanted.append(address)
    return found


def _links(url: str, path: str, pattern: str, broken: list[str] | None) -> list[str]:
    try:
        with urllib.request.urlopen(url + path, timeout=LONGEST_S) as answer:
            shown = html.unescape(answer.read().decode())
    except urllib.error.HTTPError as error:
        if broken is not None:
            broken.append(path)
            return []
        raise AssertionError(f"{path} answers {error.code}: {error.read().decode()[-600:]}") from error
    return list(dict.fromkeys(re.findall(pattern, shown)))


def answers(url: str) -> bool:
    """Whether a server answers at its health check."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _words(folder: Path) -> Path:
    folder.mkdir()
    draw = random.Random(0)
    for split, count in (("train", 120), ("val", 40)):
        lines = [
            json.dumps({"text": " ".join(draw.choices(("red", "blue", "green", "and", "or"), k=60))})
            for _ in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder
