"""Hands practice of a large model over to Agent Lightning's verl trainer, which needs GPUs: same job, other machine.

`write` turns the options of `agents train` into a folder: settings of Agent Lightning's server, overrides of its
trainer's configuration, the tasks, and three small programs. On the GPUs run the server and the trainer; the agents,
with guard and trace, run where Melete is (`work`), and claim rollouts from the server over HTTP, since verl's pins
(numpy below 2) cannot be met beside Melete's. `trainer.py --check` composes the configuration with the installed
Agent Lightning and verl, which refuses every key that they do not have; here that is all that is ever run of it.

Limits: verl trains transformers models. What has no counterpart there is left out and named in the README: constrained
measurement, the pool's choice of tasks, the cost of refusals, the limit of staleness, and our learning rate schedule.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from melete.agents import frameworks
from melete.agents import scenario as scenarios
from melete.agents.hub import Setup
from melete.agents.scenario import Scenario, Task
from melete.errors import ConfigError

if TYPE_CHECKING:
    from melete.agents.processes.handover import Config
    from melete.runs.run import Run

RATE = 1e-6
"""verl's learning rate for all weights of a large model; `rate` is a factor of it."""
LORA_RATE = 1e-5
RESULT_TOKENS = 256
"""Tokens that a tool result or an answer of the person is taken to have at most, for the length of a trajectory."""
PARTS = "melete.agents._handover"


def write(config: Config, run: Run) -> Path:
    """Writes the folder `handover` of a run.

    Raises:
        ConfigError: the base is no transformers model, or the sizes do not divide as verl needs it.
        ScenarioNotFoundError: no such scenario.
    """
    _check(config)
    scenario = scenarios.load(config.scenario)
    assert run.folder is not None
    folder = run.folder / "handover"
    folder.mkdir(exist_ok=True)
    held_out = next(split for split in scenario.splits if split != "train")
    _write_tasks(folder / "tasks_train.jsonl", scenario.tasks("train", config.pool, seed=config.seed))
    _write_tasks(folder / "tasks_val.jsonl", scenario.tasks(held_out, config.held_out, seed=config.seed))
    (folder / "server.yaml").write_text(yaml.safe_dump(server(config), sort_keys=False), encoding="utf-8")
    overrides = yaml.safe_dump(trainer(config, scenario), sort_keys=False)
    (folder / "trainer.yaml").write_text(overrides, encoding="utf-8")
    for part in ("trainer.py.txt", "worker.py.txt", "README.md.txt"):
        text = resources.files(PARTS).joinpath(part).read_text(encoding="utf-8")
        filled = text.replace("{scenario}", config.scenario).replace("{framework}", config.framework)
        filled = filled.replace("{agent}", config.agent)
        filled = filled.replace("{url}", config.url).replace("{max_tokens}", str(config.max_tokens))
        (folder / part.removesuffix(".txt")).write_text(filled, encoding="utf-8")
    run.say(f"Written for verl: {folder.relative_to(run.folder)}; its README says what to start where.")
    return folder


def server(config: Config) -> dict[str, Any]:
    """Settings of `agl-server`; the trainer registers the model under the name of its path."""
    sampled = {"temperature": 1.0}
    return {
        "host": "0.0.0.0",
        "port": int(config.url.rsplit(":", 1)[-1].strip("/")) if config.url.count(":") == 2 else 8080,
        "key": "${oc.env:AGL_KEY}",
        "default_proxy": {
            "model_name": config.base,
            "include_log_probs": True,
            "include_routed_experts": False,
            "train": sampled,
            "val": dict(sampled),
        },
    }


def trainer(config: Config, scenario: Scenario) -> dict[str, Any]:
    """Overrides of Agent Lightning's trainer configuration, which extends verl's `ppo_trainer`."""
    trajectory = scenario.max_steps * (config.max_tokens + RESULT_TOKENS)
    return {
        "data": {
            "train_batch_size": config.problems,
            "max_prompt_length": config.prompt_tokens,
            "max_response_length": config.max_tokens,
            "seed": config.seed,
        },
        "algorithm": {"adv_estimator": "grpo", "use_kl_in_reward": False},
        "actor_rollout_ref": {
            "model": {
                "path": config.base,
                "lora_rank": config.lora_rank,
                "lora_alpha": 2 * config.lora_rank or 16,
            },
            "actor": {
                "optim": {"lr": config.rate * (LORA_RATE if config.lora_rank else RATE)},
                "ppo_mini_batch_size": config.problems // config.updates,
                "use_dynamic_bsz": True,
                "ppo_max_token_len_per_gpu": config.prompt_tokens + trajectory,
                "use_kl_loss": config.kl > 0,
                "kl_loss_coef": config.kl,
            },
            "rollout": {
                "name": "vllm",
                "mode": "async",
                "n": config.group,
                "temperature": 1.0,
                "tensor_model_parallel_size": config.parallel,
                "max_model_len": config.prompt_tokens + trajectory,
                "engine_kwargs": {
                    "vllm": {"enable_auto_tool_choice": True, "tool_call_parser": config.tool_parser}
                },
            },
        },
        "agentlightning": {
            "agl_base_url": config.url,
            "agl_key": "${oc.env:AGL_KEY}",
            "rollout_timeout_seconds": int(config.timeout_s) or 1800,
            "reward_fillna_value": scenario.reward_range[0],
            "trace_aggregator": {
                "level": "trajectory",
                "trajectory_max_prompt_length": config.prompt_tokens,
                "trajectory_max_response_length": trajectory,
            },
            "async_rollout": {
                "enabled": config.ahead,
                "async_train_batch_size": 2 * config.problems if config.ahead else None,
            },
        },
        "trainer": {
            "total_training_steps": config.steps,
            "n_gpus_per_node": config.gpus,
            "nnodes": config.nodes,
            "project_name": "melete",
            "experiment_name": config.scenario,
            "logger": ["console"],
            "val_before_train": True,
            "test_freq": max(1, config.steps // 4),
            "save_freq": config.save_every or config.steps,
        },
    }


def work(
    url: str,
    key: str,
    *,
    scenario: str,
    framework: str,
    agent: str = "",
    max_tokens: int,
    workers: int,
    traces: Path,
) -> None:
    """Plays what the trainer submits to an Agent Lightning server, until that server ends; for `worker.py`.

    Args:
        url: of the server.
        key: its key.
        scenario: name of what is practised.
        framework: name of the framework whose agent practises.
        agent: your own agent of it, `module:function`; empty is its plain one.
        max_tokens: most tokens of one turn.
        workers: agents that run at once.
        traces: folder for the traces.

    Raises:
        HubError: the server has gone away, or is no 1.x server.
    """
    from melete.agents.hubs.agentlightning import Hub

    traces.mkdir(parents=True, exist_ok=True)
    # A worker has no model of its own: the server knows where it is.
    setup = Setup(
        scenarios.load(scenario),
        cast(Any, None),
        frameworks.agent(framework, agent),
        max_tokens=max_tokens,
        workers=workers,
        traces=traces,
    )
    hub = Hub(setup, None, url, key)
    try:
        hub.wait()
    finally:
        hub.close()


def _check(config: Config) -> None:
    """Refuses what verl would refuse minutes after its start."""
    from melete.llm import hf

    if not (hf.is_transformers_folder(Path(config.base)) or hf.looks_like_hub_id(config.base)):
        raise ConfigError(
            f"agents.handover: base: verl trains transformers models; found {config.base!r}.",
            allowed="A folder in transformers layout, or a hub id such as Qwen/Qwen3-4B.",
            next_step="A model of ours that was finetuned from one can be exported: melete llm export",
        )
    gpus = config.gpus * config.nodes
    if config.problems * config.group % gpus:
        raise ConfigError(
            f"agents.handover: {config.problems} tasks of {config.group} tries do not divide among {gpus} GPUs.",
            allowed="problems x group must be a multiple of gpus x nodes.",
        )
    if config.problems % config.updates:
        raise ConfigError(
            f"agents.handover: updates: {config.problems} tasks do not divide into {config.updates} updates."
        )
    if config.gpus % config.parallel:
        raise ConfigError(f"agents.handover: parallel: {config.parallel} does not divide {config.gpus} GPUs.")


def _write_tasks(path: Path, tasks: list[Task]) -> None:
    """One row a task, its order as text: verl's data sets want the same columns in all rows."""
    rows = [{"name": task.id, "order": json.dumps({"task": vars(task)})} for task in tasks]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
