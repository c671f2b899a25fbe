"""A queued job on a machine that is rented through a played SkyPilot: within its budget, and not beyond it."""

from __future__ import annotations

from pathlib import Path

import fake_sky
import pytest
import yaml

from melete.jobs.queue import opened
from melete.jobs.worker import Options, work
from melete.llm.processes.tokenizer import EXAMPLE
from melete.runs import checkpoints
from melete.settings import Settings

SMALL = {**EXAMPLE, "max_chars": 20_000, "eval_chars": 2_000}
pytestmark = pytest.mark.slow
DRAIN = Options(gpus="none", executors=("local", "skypilot"), drain=True)


@pytest.fixture
def sky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The played SkyPilot, first on the PATH; an hour costs half a dollar."""
    folder = tmp_path / "sky"
    monkeypatch.setenv("PATH", str(fake_sky.install(folder)), prepend=":")
    (folder / "prices").write_text('[["RTX4090", 1, 0.5]]')
    return folder


def job_file(folder: Path, **needs: object) -> Path:
    file = folder / "rented.yaml"
    step = {"process": "llm.tokenizer", "config": SMALL, "executor": "skypilot", "needs": needs}
    file.write_text(yaml.safe_dump({"name": "rented", "processes": [step]}))
    return file


def test_job_within_its_budget_runs_there_and_its_checkpoint_comes_back(
    home: Settings, tmp_path: Path, sky: Path
) -> None:
    with opened(home) as queue:
        job = queue.submit(job_file(tmp_path, gpu="runpod", budget_usd=2.0))
        work(home, DRAIN)
        (step,) = queue.get(job.id).steps
    assert (step.state, step.error) == ("succeeded", None)
    assert checkpoints.latest(home.runs / (step.run or "") / "checkpoints") is not None
    assert any(call.startswith("sky launch") for call in (sky / "calls").read_text().splitlines())


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"gpu": "runpod", "budget_usd": 0.1}, "The price was declined; nothing was rented."),
        ({"gpu": "runpod"}, "The price was declined; nothing was rented."),
        ({}, "says 'executor: skypilot' and not what to rent"),
        ({"gpu": "runpot"}, "no GPU target named 'runpot'"),
    ],
)
def test_job_beyond_its_budget_rents_nothing_and_says_why(
    home: Settings, tmp_path: Path, sky: Path, needs: dict[str, object], said: str
) -> None:
    with opened(home) as queue:
        job = queue.submit(job_file(tmp_path, **needs))
        work(home, DRAIN)
        found = queue.get(job.id)
    assert found.state == "failed"
    assert said in (found.error or "")
    assert "launch" not in ((sky / "calls").read_text() if (sky / "calls").is_file() else "")
