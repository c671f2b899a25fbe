"""`melete llm sample` on a real checkpoint: same seed, same texts; prompts as text and as chat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melete.errors import UnknownNameError
from melete.jobs.execute import Options, execute
from melete.llm.checkpoint import save_model
from melete.llm.lm import LM
from melete.llm.processes.sample import _said
from melete.records import ToolCall, Turn
from melete.runs.run import Run
from melete.settings import Settings


@pytest.fixture
def checkpoint(tmp_path: Path, another: Callable[..., LM]) -> str:
    lm = another(context=512)  # a chat offers a tool, which takes some 200 tokens of single bytes
    folder = save_model(
        Run(tmp_path / "trained"),
        stage="pretrain",
        step=1,
        model_config=lm.model.config,
        weights=lm.model.state_dict(),
        tokenizer=lm.tokenizer,
    )
    return str(folder)


def texts(home: Settings, **values: Any) -> dict[str, str]:
    record = execute("llm.sample", {"max_tokens": 8, **values}, Options(settings=home))
    return {path.name: path.read_text() for path in (home.runs / record.id / "samples").iterdir()}


def test_sample_with_one_seed_repeats_and_keeps_each_text(home: Settings, checkpoint: str) -> None:
    first = texts(home, run=checkpoint, prompt=["ab", "c"], count=2, seed=3)
    assert len(first) == 4
    assert sorted(text[:1] for text in first.values()) == ["a", "a", "c", "c"]
    assert texts(home, run=checkpoint, prompt=["ab", "c"], count=2, seed=3) == first
    assert texts(home, run=checkpoint, prompt=["ab", "c"], count=2, seed=4) != first


def test_sample_of_a_chat_writes_the_message_and_the_answer(home: Settings, checkpoint: str) -> None:
    (text,) = texts(home, run=checkpoint, prompt=["hello"], chat=True).values()
    assert text.startswith("hello\n")


def test_sample_shows_a_tool_call_as_a_call() -> None:
    turn = Turn("assistant", "Let me see.", (ToolCall("1", "calculator", '{"expression": "6 * 7"}'),))
    assert _said(turn) == 'Let me see.\ncalculator({"expression": "6 * 7"})'


def test_sample_from_a_run_that_does_not_exist_lists_the_known_ones(home: Settings) -> None:
    with pytest.raises(UnknownNameError, match="nobody"):
        execute("llm.sample", {"run": "nobody"}, Options(settings=home))
