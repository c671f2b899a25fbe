"""The Python API of practice: what it refuses before anything is started, and one small run from end to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llm.tiny import own_checkpoint
from melete import settings as settings_module
from melete.agents.trainer import Trainer
from melete.errors import (
    ConfigError,
    GPUNotAvailableError,
    MissingExtraError,
    ScenarioNotFoundError,
    TrainingFailedError,
    UnknownNameError,
)
from melete.settings import Settings

TESTS = Path(__file__).parents[1]
SMALL = {"problems": 2, "group": 2, "pool": 2, "max_tokens": 8, "held_out": 1, "constrained": False}


@pytest.fixture
def desk_home(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with the scenario `desk`, also for child processes."""
    (home.home / "scenarios").mkdir(parents=True)
    (home.home / "scenarios" / "desk.py").write_text("from agents.desk import Desk as SCENARIO\n")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("MELETE_DATABASE", "")
    return settings_module.load()


def test_unknown_scenario_names_the_known_ones(desk_home: Settings) -> None:
    with pytest.raises(ScenarioNotFoundError, match=r"Did you mean 'customer_support'\?\nKnown: .*desk"):
        Trainer(settings=desk_home).train("custmer_support")


def test_unknown_framework_names_the_known_ones(desk_home: Settings) -> None:
    with pytest.raises(UnknownNameError, match="Known: autogen, crewai, langchain, openai"):
        Trainer(settings=desk_home).train("desk", framework="nemo")


def test_framework_of_another_environment_names_its_extra(desk_home: Settings) -> None:
    import importlib.util

    if importlib.util.find_spec("crewai") is not None:
        pytest.skip("crewai is installed here")
    with pytest.raises(MissingExtraError, match=r"melete\[crewai\]"):
        Trainer(settings=desk_home).train("desk", framework="crewai")


def test_wrong_option_is_refused_before_a_run_is_started(desk_home: Settings) -> None:
    with pytest.raises(ConfigError, match=r"problms: unknown key\. Did you mean 'problems'"):
        Trainer(settings=desk_home, problms=3).train("desk", gpu="cpu")
    assert not desk_home.runs.exists()


def test_no_episodes_are_refused(desk_home: Settings) -> None:
    with pytest.raises(ConfigError, match=r"episodes is 0\.\nAt least 1"):
        Trainer(settings=desk_home).train("desk", episodes=0, gpu="cpu")


def test_local_gpu_that_is_not_here_names_providers_and_prices(desk_home: Settings) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(GPUNotAvailableError, match=r"runpod[\s\S]*\$"):
        Trainer(settings=desk_home).train("desk", gpu="local")


def test_nothing_to_deploy_or_to_evaluate_says_what_to_do_first(desk_home: Settings) -> None:
    trainer = Trainer(settings=desk_home)
    with pytest.raises(ConfigError, match="Call train"):
        trainer.deploy()
    with pytest.raises(ConfigError, match="Name a scenario"):
        trainer.evaluate()


@pytest.mark.slow
def test_run_that_fails_is_a_training_failure_with_its_message(desk_home: Settings) -> None:
    lines: list[str] = []
    with pytest.raises(TrainingFailedError, match="no-such-run"):
        Trainer("no-such-run", settings=desk_home, say=lines.append).train("desk", gpu="cpu")
    assert any("no-such-run" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["langchain"])
def test_practice_is_started_measured_and_deployed(
    framework: str, desk_home: Settings, tmp_path: Path
) -> None:
    base = own_checkpoint(tmp_path / "tiny", context=512)
    trainer = Trainer(str(base), settings=desk_home, say=lambda line: None, **SMALL)
    result = trainer.train("desk", framework=framework, episodes=4, gpu="cpu")
    assert {row["split"] for row in result.metrics["after"]} == {"held_out", "unseen"}
    assert all(path.exists() for path in result.artifacts.values())
    assert result.trained_model.scenario == "desk"
    (row, *_) = trainer.evaluate(held_out=1, max_tokens=8, constrained=False)
    assert row["tasks"] == 1
    assert trainer.deploy().id == "desk_v1.0"
    with replace(result.trained_model, sampling={"max_tokens": 8, "seed": 1}) as trained:
        assert isinstance(trained.to_openai().ask("hello"), str)


@pytest.mark.parametrize(
    ("hub", "code", "said"),
    [("lokal", 2, "no hub named 'lokal'"), ("agentlightning", 12, "python tools/envs.py agentlightning1")],
)
def test_hub_that_cannot_be_opened_ends_a_run_before_anything_is_played(
    hub: str,
    code: int,
    said: str,
    desk_home: Settings,
    tmp_path: Path,
    call: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = own_checkpoint(tmp_path / "tiny", context=512)
    monkeypatch.setattr("melete.agents.hubs._child.melete.__file__", str(tmp_path / "src/melete/__init__.py"))
    monkeypatch.chdir(tmp_path)
    found, out, err = call("agents", "train", "--scenario", "desk", "--base", str(base), "--hub", hub)
    assert found == code
    assert said in err
    assert "before" not in out


def test_wrong_framework_ends_a_run_before_anything_is_played(
    desk_home: Settings, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    base = own_checkpoint(tmp_path / "tiny", context=512)
    code, out, err = call("agents", "train", "--scenario", "desk", "--base", str(base), "--framework", "nemo")
    assert code == 2
    assert "no agent framework named 'nemo'" in err
    assert "before" not in out
