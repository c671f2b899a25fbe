"""Demonstrations of a scenario as a dataset in the run's folder: `data/train.jsonl` and `data/val.jsonl`.

Both are drawn from the train split, one after the other, so that what practice and evaluations play is never shown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from melete.agents import scenario as scenarios
from melete.agents.alone import require_one_process
from melete.runs.folder import replace_file

if TYPE_CHECKING:
    from melete.agents.processes.demonstrate import Config
    from melete.agents.scenario import Scenario
    from melete.runs.run import Run


def write(config: Config, run: Run) -> None:
    """Plays the expert and writes what was said and done.

    Raises:
        ConfigError: the scenario cannot be played here.
    """
    require_one_process("Writing demonstrations")
    scenario = scenarios.load(config.scenario)
    scenario.require_playable()
    assert run.folder is not None
    folder = run.folder / "data"
    folder.mkdir(exist_ok=True)
    run.result["prompt"] = scenario.prompt_id
    start = 0
    for name, count in (("train", config.count), ("val", config.val)):
        if not count:
            continue
        lines, calls, good = _lines(scenario, config, start, count, run)
        replace_file(folder / f"{name}.jsonl", "".join(lines))
        start += count
        run.say(
            f"{name}: {len(lines):,} conversations, {good / max(1, calls):.1%} of {calls:,} calls succeed"
        )
        run.result[name] = {"conversations": len(lines), "tool_calls": calls, "tool_calls_ok": good}


def _lines(
    scenario: Scenario, config: Config, start: int, count: int, run: Run
) -> tuple[list[str], int, int]:
    """Rows of a dataset, the calls in them, and how many of those succeeded."""
    lines, calls, good = [], 0, 0
    played = scenario.demonstrations(
        "train", count, seed=config.seed, error_share=config.error_share, start=start
    )
    for step, conversation in zip(run.steps(count, what="conversations"), played, strict=False):
        lines.append(json.dumps(conversation.to_openai(), ensure_ascii=False) + "\n")
        results = [turn.content for turn in conversation.turns if turn.role == "tool"]
        calls += len(results)
        good += sum(not failed(result) for result in results)
        if step == 0 and start == 0:
            shown = [f"{turn.role}: {turn.content}" for turn in conversation.turns]
            run.sample(0, "demonstration", "\n".join(shown))
    return lines, calls, good


def failed(result: str) -> bool:
    """Whether a tool's answer says that the call did not succeed."""
    return result.lower().startswith(("error:", "refused:"))
