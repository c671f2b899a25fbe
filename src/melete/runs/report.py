"""`report.html` of a run, and of a job with all its runs: one file, no network, dark and light, made from the folders.

It holds curves, scores with interval and count, samples over time, derived values with their reasons, where the time
went, config and provenance. It can be written again at any time; nothing in it is the only copy.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melete.records import JobRecord, RunRecord
from melete.runs import curves, folder, provenance
from melete.runs.lines import read_json_lines
from melete.runs.progress import duration

LOG_LINES = 400
SAMPLE_CHARACTERS = 6_000


@dataclass
class RunView:
    """What the template shows of one run."""

    record: RunRecord
    anchor: str
    title: str
    took: str
    seconds: list[tuple[str, float, str]]
    charts: list[curves.Chart]
    scores: list[dict[str, Any]]
    facts: list[tuple[str, str]]
    samples: dict[str, list[tuple[int, str]]]
    derived: list[dict[str, str]]
    config: list[tuple[str, str]]
    origin: dict[str, Any] | None
    checkpoints: list[str]
    log: str
    link: str


def write(path: Path) -> Path:
    """Writes the report of the run in `path`.

    Raises:
        StorageError: the disk is full.
    """
    run = view(path, "")
    target = path / "report.html"
    folder.replace_file(target, _render(run.title, run.record.state, [run], None))
    return target


def write_job(path: Path, job: JobRecord, runs: Path) -> Path:
    """Writes the report of a job, with all its runs, into the job's folder.

    Raises:
        StorageError: the disk is full.
    """
    folders = [runs / step.run for step in job.steps if step.run is not None]
    views = [view(run, f"../../runs/{run.name}/") for run in folders]
    target = path / "report.html"
    folder.replace_file(target, _render(job.name, job.state, views, job))
    return target


def view(path: Path, link: str) -> RunView:
    """Reads a run folder; `link` leads from the report to it."""
    record = folder.read(path)
    scores, facts = _results(record.result)
    total_s = sum(record.seconds.values())
    parts = sorted(record.seconds.items(), key=lambda item: -item[1])
    log = _text(path / "log.txt").splitlines()[-LOG_LINES:]
    ended_s = record.ended_s or time.time()
    return RunView(
        record,
        anchor=record.id,
        title=record.step_name or record.name or record.process,
        took=duration(ended_s - record.started_s) if record.started_s else "",
        seconds=[(name, s / total_s, duration(s)) for name, s in parts if total_s and s / total_s >= 0.005],
        charts=curves.charts(read_json_lines(path / "metrics.jsonl")),
        scores=scores,
        facts=facts,
        samples=_samples(path / "samples"),
        derived=_json(path / "plan.json") or [],
        config=[(key, _shown(value)) for key, value in _config(path).items()],
        origin=provenance.read(path),
        checkpoints=[saved.name for saved in sorted((path / "checkpoints").glob("step_*"))],
        log="\n".join(log),
        link=link,
    )


def _render(title: str, state: str, runs: list[RunView], job: JobRecord | None) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("melete.runs", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["label"] = curves.label
    environment.filters["score"] = lambda value: f"{value:.3f}" if abs(value) < 100 else curves.label(value)
    environment.filters["clock"] = lambda seconds: time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    total_s = sum(sum(run.record.seconds.values()) for run in runs)
    shares = [
        (run.title, sum(run.record.seconds.values()) / total_s, duration(sum(run.record.seconds.values())))
        for run in runs
        if total_s
    ]
    text: str = environment.get_template("report.html.j2").render(
        title=title, state=state, runs=runs, job=job, shares=shares, total=duration(total_s), size=curves
    )
    return text


def _results(result: dict[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The scores in a result (a score has a value and a count), and everything else as text."""
    scores: list[dict[str, Any]] = []
    facts: list[tuple[str, str]] = []

    def sort(name: str, value: Any) -> None:
        if isinstance(value, dict) and isinstance(value.get("value"), (int, float)) and "count" in value:
            scores.append({"low": None, "high": None, "note": "", **value, "name": value.get("name") or name})
        elif isinstance(value, dict):
            for key, item in value.items():
                sort(f"{name} {key}" if name else key, item)
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for item in value:
                sort(name, item)
        else:
            facts.append((name, _shown(value)))

    sort("", result)
    return scores, facts


def _samples(path: Path) -> dict[str, list[tuple[int, str]]]:
    """Samples by name, each with the newest step first."""
    samples: dict[str, list[tuple[int, str]]] = {}
    for file in sorted(path.glob("*_*.txt"), reverse=True):
        step, _, name = file.stem.partition("_")
        if step.isdecimal():
            samples.setdefault(name, []).append((int(step), _text(file)[:SAMPLE_CHARACTERS]))
    return dict(sorted(samples.items()))


def _config(path: Path) -> dict[str, Any]:
    import yaml

    values = yaml.safe_load(_text(path / "config.yaml"))
    return values if isinstance(values, dict) else {}


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return curves.label(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
