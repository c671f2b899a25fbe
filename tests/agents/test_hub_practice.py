"""Practice through Agent Lightning: it trains, and a server that is killed on the way costs nothing but time."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from agents import trial_shop
from agents.hubs_at_hand import need
from llm.tiny import own_checkpoint
from melete.jobs.execute import Options, execute
from melete.records import RunRecord, RunState
from melete.settings import Settings

SMALL = {
    "device": "cpu", "scenario": "trial_shop", "problems": 2, "group": 3, "pool": 2, "max_tokens": 8, "held_out": 2,
    "constrained": False, "framework": "openai", "workers": 4,
}  # fmt: skip


@pytest.fixture
def settings(home: Settings) -> Settings:
    """An empty home in which the trial scenario is the user's own."""
    folder = home.home / "scenarios"
    folder.mkdir(parents=True)
    (folder / "trial_shop.py").write_text(
        Path(trial_shop.__file__).read_text(encoding="utf-8"), encoding="utf-8"
    )
    return home


def practise(settings: Settings, base: Path, **values: Any) -> RunRecord:
    return execute("agents.train", {**SMALL, "base": str(base), **values}, Options(settings=settings))


def steps(settings: Settings, record: RunRecord) -> list[dict[str, float]]:
    text = (settings.runs / record.id / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def kill_server_after_a_step(settings: Settings, over: threading.Event) -> None:
    """Waits for the first line of figures, then kills Agent Lightning's server."""
    while not over.wait(0.05):
        if any(path.stat().st_size for path in settings.runs.glob("*/metrics.jsonl")):
            for child in psutil.Process().children():
                if any("_server1.py" in part for part in child.cmdline()):
                    child.kill()
                    return


@pytest.mark.slow
def test_practice_through_agent_lightning_survives_the_death_of_its_server(
    settings: Settings, tmp_path: Path
) -> None:
    need("agentlightning")
    base = own_checkpoint(tmp_path / "tiny", context=512)
    over = threading.Event()
    killer = threading.Thread(target=kill_server_after_a_step, args=(settings, over))
    killer.start()
    record = practise(settings, base, hub="agentlightning", steps=4)
    over.set()
    killer.join()
    assert record.state is RunState.SUCCEEDED
    assert [line["step"] for line in steps(settings, record) if "reward" in line] == [0, 1, 2, 3]
    log = (settings.runs / record.id / "log.txt").read_text(encoding="utf-8")
    assert "it is opened anew" in log
    assert ".envs/agentlightning1, ended with exit code -9" in log


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["agentlightning", "agentlightning03"])
def test_practice_gets_the_same_rewards_through_each_hub(
    settings: Settings, tmp_path: Path, hub: str
) -> None:
    need(hub)
    base = own_checkpoint(tmp_path / "tiny", context=512)
    local, other = (practise(settings, base, hub=name, steps=2) for name in ("local", hub))
    rewards = [
        [line["reward"] for line in steps(settings, record) if "reward" in line] for record in (local, other)
    ]
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-6)
