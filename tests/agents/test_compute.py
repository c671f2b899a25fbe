"""Where a GPU comes from: targets, tasks that SkyPilot accepts, a job on a played machine, every way to fail."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import fake_sky
import pytest

from llm.tiny import own_checkpoint
from melete import find
from melete.agents import compute
from melete.agents.compute import prices, renting, task
from melete.agents.compute import sky as sky_command
from melete.agents.compute.target import Offer
from melete.errors import ConfigError, GPUNotAvailableError, TrainingFailedError, UnknownNameError
from melete.runs import folder as folders
from melete.runs.run import Run
from melete.settings import Settings

CLOUDS = ("runpod", "lambda", "kubernetes", "slurm")
EXAMPLE: dict[str, Any] = find.process("llm.tokenizer").EXAMPLE | {"max_chars": 20000, "eval_chars": 2000}
SKY_PYTHON = Path(__file__).parents[2] / ".envs" / "skypilot" / "bin" / "python"


@pytest.fixture
def sky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The played SkyPilot, first on the PATH."""
    folder = tmp_path / "sky"
    commands = fake_sky.install(folder)
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    return folder


@pytest.fixture
def run(home: Settings) -> Run:
    """The run here that hands its work over."""
    path, _ = folders.create(home, "llm.tokenizer", name=None, job=None, step_name=None, limit_batches=None)
    return Run(path)


def yes(offer: Offer) -> bool:
    return True


def launch(run: Run | None, gpu: str = "runpod", confirm: Any = yes, **options: Any) -> list[str]:
    """Hands the tokenizer's training over; returns what was said."""
    said: list[str] = []
    target = compute.resolve(gpu)
    target.launch("llm.tokenizer", EXAMPLE, run=run, confirm=confirm, say=said.append, **options)
    return said


def test_every_target_is_known_and_auto_never_rents() -> None:
    assert compute.names() == ["auto", "cpu", "kubernetes", "lambda", "local", "runpod", "slurm"]
    target = compute.resolve("auto")
    assert not target.elsewhere
    assert target.device
    assert compute.resolve("cpu").device == "cpu"


def test_auto_without_a_gpu_says_why_it_is_the_cpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "never rents" in compute.resolve("auto").reason
    with pytest.raises(GPUNotAvailableError, match=r"no CUDA device[\s\S]*runpod from \$[\s\S]*--gpu cpu"):
        compute.resolve("local")


def test_unknown_target_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"'runpot'. Did you mean 'runpod'"):
        compute.resolve("runpot")


@pytest.mark.parametrize("gpu", ["runpod:H100:x", "slurm:A100:0"])
def test_wrong_number_of_gpus_is_said(gpu: str) -> None:
    with pytest.raises(ConfigError, match="is no number of GPUs"):
        compute.resolve(gpu)


@pytest.mark.parametrize("name", CLOUDS)
def test_dry_run_prints_the_task_with_its_price_and_asks_nobody(home: Settings, name: str) -> None:
    def never(offer: Offer) -> bool:
        raise AssertionError("nothing is rented by a dry run")

    said = "\n".join(launch(None, f"{name}:H100:2", never, dry_run=True))
    assert "accelerators: H100:2" in said
    assert "python -m melete run job.json" in said
    assert (
        "not in our table" if name in prices.table() else "your own cluster"
    ) in said or "estimate" in said
    assert not (home.home / "runs").exists() or not list((home.home / "runs").iterdir())


@pytest.mark.slow
def test_tasks_are_what_skypilot_accepts(home: Settings, tmp_path: Path) -> None:
    if not SKY_PYTHON.exists():
        pytest.skip("SkyPilot is not here; make it with: python tools/envs.py skypilot")
    built = []
    for name in CLOUDS:
        cloud = compute.resolve(f"{name}:A100:1").cloud
        assert cloud is not None
        work = task.Job("llm.tokenizer", EXAMPLE, {"~/melete/base": str(tmp_path)})
        built.append(task.build(cloud, work, "melete-x", str(tmp_path)))
    program = (
        "import json, sys, sky\n"
        "for config in json.load(sys.stdin):\n"
        "    task = sky.Task.from_yaml_config(config)\n"
        "    print('OK', task.name, task.setup is not None, len(task.file_mounts or {}))\n"
    )
    done = subprocess.run(
        [str(SKY_PYTHON), "-c", program], input=json.dumps(built), capture_output=True, text=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.count("OK melete-x True 1") == len(CLOUDS), done.stderr[-2000:]


def test_machine_ends_itself_when_it_is_idle_where_it_can_be_told_to(home: Settings) -> None:
    for name in CLOUDS:
        cloud = compute.resolve(name).cloud
        assert cloud is not None
        built = task.build(cloud, task.Job("llm.tokenizer", {}, {}), "x", "w")
        assert ("autostop" in built["resources"]) == cloud.autostop
        if cloud.priced:
            assert built["resources"]["autostop"] == {"idle_minutes": task.IDLE_MINUTES, "down": True}


def test_job_takes_checkpoint_data_and_scenario_along_and_changes_the_device(
    home: Settings, tmp_path: Path
) -> None:
    base = own_checkpoint(tmp_path / "base")
    (home.datasets / "mine").mkdir(parents=True)
    work = task.job("llm.sft", {"base": str(base), "data": "mine:0.5,toolcalls", "device": "auto"}, home)
    assert work.mounts["~/melete/base"] == str(base)
    assert work.mounts["~/melete/data/mine"] == str(home.datasets / "mine")
    assert work.values["base"] == "base"
    assert work.values["device"] == "cuda"


def test_job_whose_base_does_not_exist_is_refused_before_anything_else(home: Settings) -> None:
    with pytest.raises(UnknownNameError, match="nothing-here"):
        task.job("llm.sft", {"base": "nothing-here"}, home)


@pytest.mark.slow
def test_job_runs_there_and_its_checkpoint_comes_back(
    home: Settings, sky: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MELETE_TOKEN", "not-for-others")
    (sky / "prices").write_text('[["RTX4090", 1, 0.5], ["H100", 1, 3.0]]')
    offers: list[Offer] = []

    def confirm(offer: Offer) -> bool:
        offers.append(offer)
        return True

    said = launch(run, confirm=confirm)
    assert offers[0].price_per_hour == 0.5
    assert "SkyPilot's catalogue" in offers[0].describe()
    assert any("$0.50 an hour" in line for line in said)
    assert task.STARTED in said
    assert run.latest_checkpoint() is not None
    calls = (sky / "calls").read_text().splitlines()
    assert [call.split()[:2] for call in calls] == [
        ["sky", "check"], ["python", "-c"], ["sky", "launch"], ["rsync", "--archive"], ["sky", "down"],
    ]  # fmt: skip
    assert "MELETE_TOKEN" not in json.loads((sky / "environ").read_text())


def test_job_that_fails_keeps_what_it_had_saved(home: Settings, sky: Path, run: Run) -> None:
    own_checkpoint(sky / "saved")
    (sky / "fail").write_text("job")
    with pytest.raises(TrainingFailedError, match=r"exit code 9\)[\s\S]*checkpoint that was kept: .*step_"):
        launch(run)
    assert run.latest_checkpoint() is not None
    assert "sky down" in (sky / "calls").read_text()


@pytest.mark.parametrize(
    ("failing", "error", "message"),
    [
        ("provision", GPUNotAvailableError, r"no RTX4090:1 free now[\s\S]*lambda from"),
        ("setup", TrainingFailedError, r"upload or set-up failed[\s\S]*was given back"),
    ],
)
def test_machine_that_could_not_be_made_ready_is_given_back(
    home: Settings, sky: Path, run: Run, failing: str, error: type[Exception], message: str
) -> None:
    (sky / "fail").write_text(failing)
    with pytest.raises(error, match=message):
        launch(run)
    assert (sky / "calls").read_text().splitlines()[-1].startswith("sky down")


def test_checkpoint_that_cannot_be_copied_leaves_the_machine_and_says_how(
    home: Settings, sky: Path, run: Run
) -> None:
    (sky / "fail").write_text("copy")
    with pytest.raises(
        TrainingFailedError, match=r"could not be copied[\s\S]*10 idle minutes[\s\S]*rsync -az melete-"
    ):
        launch(run)
    assert "sky down" not in (sky / "calls").read_text()


def test_stop_brings_back_what_was_saved_and_gives_the_machine_back(
    home: Settings, sky: Path, run: Run
) -> None:
    def say(line: str) -> None:
        if task.STARTED in line:
            run.stop()

    compute.resolve("runpod").launch("llm.tokenizer", EXAMPLE, run=run, confirm=yes, say=say)
    calls = [call.split()[:2] for call in (sky / "calls").read_text().splitlines()]
    assert calls[-2:] == [["rsync", "--archive"], ["sky", "down"]]


def test_no_skypilot_names_providers_costs_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        GPUNotAvailableError, match=r"needs SkyPilot[\s\S]*lambda from \$[\s\S]*envs.py skypilot"
    ):
        sky_command.find((tmp_path,), str(tmp_path))


def test_no_credentials_says_what_skypilot_said_and_how_to_give_them(
    home: Settings, sky: Path, run: Run
) -> None:
    (sky / "check").write_text("RunPod: disabled\n  Reason: no API key\n")
    with pytest.raises(GPUNotAvailableError, match=r"no API key[\s\S]*runpod from \$[\s\S]*runpod config"):
        launch(run)
    assert "launch" not in (sky / "calls").read_text()


def test_gpu_that_the_provider_does_not_have_lists_the_cheapest(home: Settings, sky: Path, run: Run) -> None:
    (sky / "prices").write_text('[["A40", 1, 0.4], ["H100", 1, 3.0]]')
    with pytest.raises(
        GPUNotAvailableError, match=r"no machine with RTX4090:1[\s\S]*A40:1 \$0\.40/h, H100:1 \$3\.00/h"
    ):
        launch(run)


def test_declined_price_rents_nothing(home: Settings, sky: Path, run: Run) -> None:
    with pytest.raises(GPUNotAvailableError, match=r"declined; nothing was rented[\s\S]*--gpu cpu"):
        launch(run, confirm=lambda offer: False)
    assert "launch" not in (sky / "calls").read_text()


def test_without_a_terminal_and_without_yes_nothing_is_rented(home: Settings, sky: Path, run: Run) -> None:
    with pytest.raises(GPUNotAvailableError, match=r"no terminal to ask on[\s\S]*an hour[\s\S]*--yes"):
        launch(run, confirm=compute.asked())
    assert compute.asked(yes=True)(Offer("runpod", "m", 1.0, "s", 1.0))


def test_price_without_a_catalogue_is_called_an_estimate() -> None:
    cloud = compute.resolve("lambda:A100:8").cloud
    assert cloud is not None
    offer = renting.priced(cloud, [], renting.hours_of({"minutes": 48}))
    assert offer.hours == 1.0
    assert offer.price_per_hour == pytest.approx(8 * prices.table()["lambda"]["A100"])
    assert "estimate from a table" in offer.describe()
    unknown = renting.priced(compute.resolve("lambda:B300").cloud or cloud, [], 1.0)
    assert unknown.price_per_hour is None
    assert "see the provider's page" in unknown.describe()
