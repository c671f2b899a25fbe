"""Practice from Python: start it, wait for it, look at what came of it, deploy it.

    trainer = Trainer(base="my-sft-run")
    result = trainer.train("customer_support", framework="langchain", episodes=10_000, gpu="auto")
    result.metrics["after"]                      # tool reliability, success, tokens, with their intervals
    agent = result.trained_model.to_langchain(tools=[…])
    trainer.deploy()                             # customer_support_v1.0

Every run is a process of its own, started as the command line starts it (`melete agents train …`): it survives a closed
notebook, frees its memory when it ends, and can be resumed. What comes back is read from its run folder.

Limits: an agent of your own is named as `module:function`, since a process cannot be handed a function.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melete import settings as settings_module
from melete.agents import compute, frameworks
from melete.agents import scenario as scenarios
from melete.agents.trained import TrainedAgent
from melete.errors import ConfigError, TrainingFailedError
from melete.records import RunRecord, RunState
from melete.runs import checkpoints, folder
from melete.runs.process import config_class, parse_config
from melete.settings import Settings

if TYPE_CHECKING:
    from melete.serve.deployment import Deployment

TRAIN, EVALUATE = "agents.train", "agents.evaluate"
LAST_LINES = 12
"""Lines of a run's output that an error shows when no run folder tells more."""


@dataclass(frozen=True)
class TrainingResult:
    """What practice made.

    Attributes:
        trained_model: the agent, ready to be asked; it is served when it is first used.
        metrics: result of the run: rows `before` and `after` of the splits that practice never saw, and what changed.
        artifacts: `run` (folder), `checkpoint`, `report`, `traces`.
        run: id of the run.
    """

    trained_model: TrainedAgent
    metrics: dict[str, Any]
    artifacts: dict[str, Path]
    run: str


class Trainer:
    """Practises, evaluates and deploys; see the head of this file.

    Args:
        base: model to start from: a run (id, beginning, name, `latest`), a transformers folder or a hub id.
        agent: `module:function` that builds an agent of the framework; empty is the framework's plain one.
        settings: where runs are kept.
        say: told each line of a run that has no terminal to draw on.
        **options: further options of `agents.train`, such as `problems`, `group`, `minutes`, `seed` or `device`.
    """

    def __init__(
        self,
        base: str = "latest",
        *,
        agent: str = "",
        settings: Settings | None = None,
        say: Callable[[str], None] = print,
        **options: Any,
    ) -> None:
        self.base = base
        self.agent = agent
        self.options = options
        self.result: TrainingResult | None = None
        self._settings = settings or settings_module.load()
        self._say = say

    def train(
        self,
        scenario: str,
        *,
        framework: str = "",
        episodes: int | None = None,
        gpu: str = "auto",
        **options: Any,
    ) -> TrainingResult:
        """Practises a scenario and waits for the end.

        Args:
            scenario: name of the scenario.
            framework: whose agent practises; empty is the model itself.
            episodes: episodes to play, rounded up to whole steps; None takes the default number of steps.
            gpu: see `melete.agents.compute`: auto, local, cpu, or a provider. What would be rented is shown with its
                price and asked for on the terminal; `yes=True` agrees beforehand.
            **options: further options of `agents.train`.

        Raises:
            ScenarioNotFoundError: no scenario has that name; the message lists the known ones.
            UnknownNameError: no such framework or GPU target.
            MissingExtraError: the framework is not installed.
            ConfigError: a wrong option.
            GPUNotAvailableError: no such GPU here; the message lists providers and what they would cost.
            TrainingFailedError: the run did not succeed; the message names the checkpoint that was kept.
        """
        scenarios.load(scenario)
        if framework or self.agent:
            frameworks.agent(framework or "openai", self.agent)
        values: dict[str, Any] = {
            "scenario": scenario, "base": self.base, "framework": framework, "agent": self.agent,
            "gpu": gpu, **self.options, **options,
        }  # fmt: skip
        compute.resolve(gpu)
        if episodes is not None:
            values["steps"] = _steps(values, episodes)
        path, record = self._run(TRAIN, values)
        checkpoint = checkpoints.latest(path / "checkpoints")
        if checkpoint is None:
            raise TrainingFailedError(f"Run {record.id} ended without a checkpoint.")
        self.result = TrainingResult(
            TrainedAgent.load(record.id, settings=self._settings),
            record.result,
            {
                "run": path,
                "checkpoint": checkpoint,
                "report": path / "report.html",
                "traces": path / "traces",
            },
            record.id,
        )
        return self.result

    def evaluate(self, scenario: str = "", **options: Any) -> list[dict[str, Any]]:
        """Plays the splits that practice never saw with what was trained last, or else with the base.

        Args:
            scenario: empty takes the one that was practised.
            **options: options of `agents.evaluate`, such as `held_out`.

        Returns:
            One row for each split and decoding.

        Raises:
            ConfigError: nothing was practised and no scenario is named, or a wrong option.
            TrainingFailedError: the run did not succeed.
        """
        chosen = scenario or (self.result.trained_model.scenario if self.result else "")
        if not chosen:
            raise ConfigError("Nothing was practised yet.", next_step="Name a scenario: evaluate(SCENARIO).")
        values = {"scenario": chosen, "base": self.result.run if self.result else self.base, **options}
        _, record = self._run(EVALUATE, values)
        rows: list[dict[str, Any]] = record.result["measured"]
        return rows

    def deploy(
        self, name: str = "", *, version: str = "", url: str = "", copy_weights: bool = False
    ) -> Deployment:
        """Puts what was trained last behind a name, and into use on a running server.

        Args:
            name: of the agent; empty takes the scenario's.
            version: `<major>.<minor>`; empty takes the next minor one.
            url: of a running server that loads it; empty leaves it to the next `melete serve`.
            copy_weights: whether the checkpoint is copied into the deployment.

        Raises:
            ConfigError: nothing was practised.
            DeploymentError: a bad name or version, or one that exists.
            ServerError: no server answers at `url`.
        """
        from melete.agents import deploy

        if self.result is None:
            raise ConfigError("Nothing was practised yet.", next_step="Call train(SCENARIO) first.")
        made = deploy.deploy(
            self.result.run, self._settings, name=name, version=version, copy_weights=copy_weights
        )
        if url:
            deploy.activate_at(url, made.name, made.version, self._settings.token)
        return made

    def _run(self, process: str, values: dict[str, Any]) -> tuple[Path, RunRecord]:
        """Runs a process to its end; its folder and record.

        Raises:
            ConfigError: a wrong option; nothing was started.
            TrainingFailedError: it did not succeed.
        """
        parse_config(process, values)
        began_s = time.time()
        child, last = self._child([*process.split("."), *_flags(values)])
        found = next(
            (
                (path, record)
                for path, record in folder.all_runs(self._settings)
                if record.pid == child.pid and record.created_s >= began_s - 1
            ),
            None,
        )
        if found is None:
            raise TrainingFailedError(
                f"The run did not start (exit code {child.returncode}).",
                allowed="\n".join(last) or "Its message stands above.",
            )
        path, record = found
        if record.state is not RunState.SUCCEEDED:
            kept = checkpoints.latest(path / "checkpoints")
            raise TrainingFailedError(
                f"Run {record.id} {record.state}" + (f": {record.error}" if record.error else "."),
                allowed=f"Its last checkpoint is {kept.name}." if kept else "No checkpoint was saved before.",
                next_step=f"Go on from there with: melete runs resume {record.id}",
            )
        return path, record

    def _child(self, arguments: list[str]) -> tuple[subprocess.Popen[str], deque[str]]:
        """Runs the command line and waits; a terminal is left to the run, which draws on it."""
        environ = {
            **os.environ,
            "MELETE_HOME": str(self._settings.home),
            "MELETE_DATABASE": self._settings.database,
        }
        drawn = sys.stdout.isatty()
        last: deque[str] = deque(maxlen=LAST_LINES)
        child = subprocess.Popen(
            [sys.executable, "-m", "melete", *arguments],
            env=environ,
            text=True,
            stdout=None if drawn else subprocess.PIPE,
            stderr=None if drawn else subprocess.STDOUT,
        )
        try:
            for line in child.stdout or ():
                last.append(line.rstrip())
                self._say(line.rstrip())
            child.wait()
        except KeyboardInterrupt:
            # The run was interrupted as well: it saves a checkpoint and ends.
            child.wait()
            raise
        return child, last


def _steps(values: dict[str, Any], episodes: int) -> int:
    """Steps in which so many episodes are played."""
    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}.", allowed="At least 1.")
    fields = config_class(TRAIN).model_fields
    problems, group = (int(values.get(key, fields[key].default)) for key in ("problems", "group"))
    return math.ceil(episodes / (problems * group))


def _flags(values: dict[str, Any]) -> list[str]:
    """Options of the command line."""
    flags: list[str] = []
    for key, value in values.items():
        name = key.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        elif value not in ("", None):
            flags.append(f"--{name}={value}")
    return flags
