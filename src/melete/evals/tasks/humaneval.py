"""HumanEval: 164 Python functions to complete, run in the sandbox (Chen et al., 2021, arXiv:2107.03374).

The checks run in a process of their own and must reach their last line, so an answer that exits, patches `assert` or
prints success does not pass (see `melete.evals.sandbox.check`). `text` continues the prompt and stops at the next
top-level line; `chat` asks in a conversation and takes the first code block that defines the function.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from pydantic import Field

from melete import datasets
from melete.evals import sandbox, scoring
from melete.evals.model import Generate, LanguageModel
from melete.evals.sandbox import Grade, Limits
from melete.evals.task import Item, Row, Solution, TaskConfig, choose
from melete.records import Conversation, Score, Turn
from melete.settings import Settings

DATASET = "eval_humaneval"
EXAMPLE = {"limit": 2, "max_tokens": 8}
STOP = ("\ndef ", "\nclass ", "\nif ", "\nprint(", "\nassert ", "\n#", "\n@", "\n```")
_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


class Config(TaskConfig):
    """Options of HumanEval."""

    style: Literal["text", "chat"] = Field(
        "text", description="Continue the prompt, or ask in a conversation."
    )
    max_tokens: int = Field(384, ge=1, description="Longest answer in tokens.")
    timeout_s: float = Field(5.0, gt=0, le=60, description="Wall time of one program in seconds.")


class Task:
    """See the head of this file."""

    def __init__(self, config: Config, settings: Settings, seed: int) -> None:
        dataset = datasets.open(DATASET, settings)
        self.config = config
        self.datasets = {DATASET: dataset.fingerprint}
        problems = list(dataset.rows("test"))
        self.rows = [
            Row(problems[i]["task_id"], "humaneval", problems[i])
            for i in choose(len(problems), config.limit, seed, "humaneval")
        ]

    def evaluate(self, model: LanguageModel, rows: Sequence[Row]) -> list[Item]:
        """Lets the model write all programs, then runs them side by side."""
        how = Generate(self.config.max_tokens, stop=STOP if self.config.style == "text" else ())
        if self.config.style == "text":
            programs = [
                row.data["prompt"] + text
                for row, text in zip(
                    rows, model.generate([row.data["prompt"] for row in rows], how), strict=True
                )
            ]
        else:
            turns = model.chat([_conversation(row) for row in rows], how)
            programs = [program_in(turn.content, row.data) for row, turn in zip(rows, turns, strict=True)]
        limits = Limits(timeout_s=self.config.timeout_s)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            grades = list(
                pool.map(lambda pair: grade(pair[0].data, pair[1], limits), zip(rows, programs, strict=True))
            )
        return [
            Item(
                row.id,
                row.group,
                float(g.passed),
                1.0,
                {"program": program, "reason": g.reason, "calls": g.calls},
            )
            for row, program, g in zip(rows, programs, grades, strict=True)
        ]

    def scores(self, items: Sequence[Item]) -> list[Score]:
        """pass@1 with one greedy answer per problem."""
        return [scoring.rate("humaneval", items, f"pass@1, style {self.config.style}, greedy")]

    def solve(self, rows: Sequence[Row]) -> Solution:
        """The canonical solutions."""
        if self.config.style == "text":
            return Solution(texts={row.data["prompt"]: row.data["canonical_solution"] for row in rows})
        solution = Solution()
        for row in rows:
            program = f"{row.data['prompt']}{row.data['canonical_solution']}"
            solution.add_turn(_conversation(row), Turn("assistant", f"```python\n{program}\n```"))
        return solution


def grade(problem: dict[str, str], program: str, limits: Limits | None = None) -> Grade:
    """Runs one program against the checks of its problem.

    Raises:
        SandboxError: the sandbox could not be set up.
    """
    name = problem["entry_point"]
    checks = f"{problem['test']}\ncheck({name})\n"
    return sandbox.check(program, name, checks, setup=problem["prompt"], limits=limits)


def program_in(answer: str, problem: dict[str, str]) -> str:
    """The program in a chat answer: the first code block that defines the function, with the prompt's imports."""
    blocks = _BLOCK.findall(answer) or [answer]
    defines = [block for block in blocks if f"def {problem['entry_point']}" in block]
    head = str(problem["prompt"]).partition("def ")[0]
    return head + str((defines or blocks)[0])


def _conversation(row: Row) -> Conversation:
    asked = f"Complete this Python function. Answer with the whole function in one code block.\n\n{row.data['prompt']}"
    return Conversation((Turn("user", asked),))
