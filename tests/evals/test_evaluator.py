"""The evaluator over the real engine and a tiny model: scores are the model's own, and the process keeps them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melete.errors import DatasetError, UnknownNameError
from melete.evals import task as tasks
from melete.evals.model import Generate, ScoreRequest
from melete.jobs.execute import Options, execute
from melete.llm import lm
from melete.llm.checkpoint import save_model
from melete.llm.config import GPTConfig
from melete.llm.evaluator import Evaluator, split
from melete.llm.lm import LM
from melete.llm.model import GPT
from melete.llm.processes import evaluate as process
from melete.llm.tokenizer import Tokenizer
from melete.records import Conversation, RunState, Turn
from melete.runs.run import Run
from melete.settings import Settings

CONTEXT = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a random model over bytes."""
    tokenizer = Tokenizer([bytes([i]) for i in range(256)])
    shape = GPTConfig(tokenizer.vocab_size, CONTEXT, depth=2, width=32, heads=2, kv_heads=2)
    # Random weights everywhere: the initial ones give every token the same probability.
    draw = torch.Generator().manual_seed(0)
    weights = {name: 0.3 * torch.randn(p.shape, generator=draw) for name, p in GPT(shape).named_parameters()}
    run = Run(tmp_path_factory.mktemp("run"))
    path = save_model(run, stage="pretrain", step=1, model_config=shape, weights=weights, tokenizer=tokenizer)
    assert path is not None
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> LM:
    """The same model in fp32."""
    return lm.load_checkpoint(checkpoint, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def evaluator(model: LM) -> Evaluator:
    return Evaluator(model, slots=4)


def _direct(model: LM, context: str, continuation: str) -> tuple[float, bool]:
    """Log-probability and greedy choice by one plain forward pass."""
    before = [model.bos or 0, *model.encode(context)]
    ids = before + model.encode(continuation)
    with torch.no_grad():
        logits = model.logits(torch.tensor([ids[:-1]]))[0, len(before) - 1 :].float()
    targets = torch.tensor(ids[len(before) :])
    logprob = torch.log_softmax(logits, -1).gather(1, targets[:, None]).sum().item()
    return logprob, bool((logits.argmax(-1) == targets).all())


def test_score_is_the_log_probability_of_a_plain_forward_pass(model: LM, evaluator: Evaluator) -> None:
    pairs = [("Once upon", " a time"), ("Once upon", " the"), ("", "xyz"), ("A: ", "b"), ("12 + 3 =", " 15")]
    results = evaluator.score([ScoreRequest(*pair) for pair in pairs])
    for (context, continuation), result in zip(pairs, results, strict=True):
        # Spaces before a continuation belong to its tokens.
        text = context.rstrip(" ")
        logprob, greedy = _direct(model, text, context[len(text) :] + continuation)
        assert result.logprob == pytest.approx(logprob, rel=0.02, abs=0.05)
        assert result.greedy == greedy
        assert result.bytes == len(continuation)
        assert not result.cut


def test_score_of_what_the_model_writes_itself_is_greedy(evaluator: Evaluator) -> None:
    (text,) = evaluator.generate(["Hello"], Generate(max_tokens=1))
    (result,) = evaluator.score([ScoreRequest("Hello", text)])
    assert result.greedy or not text.isascii()


def test_context_that_is_too_long_is_cut_alike_for_all_choices(model: LM, evaluator: Evaluator) -> None:
    context = "x" * 200
    short, long = evaluator.score([ScoreRequest(context, "a"), ScoreRequest(context, "abcdef")])
    assert short.cut
    assert long.cut
    kept = "x" * (CONTEXT - 6 - 1)
    assert short.logprob == pytest.approx(_direct(model, kept, "a")[0], rel=0.02, abs=0.05)


def test_text_longer_than_the_context_is_scored_whole(evaluator: Evaluator) -> None:
    (result,) = evaluator.score([ScoreRequest("", "abcdefgh" * 50)])
    assert result.tokens == 400
    assert math.isfinite(result.logprob)


@given(st.integers(1, 30), st.integers(1, 100), st.integers(2, 40))
def test_windows_hold_every_token_once_and_never_exceed_the_limit(
    before: int, after: int, limit: int
) -> None:
    context, continuation = list(range(before)), list(range(1000, 1000 + after))
    windows = list(split(context, continuation, limit))
    assert [token for _, part in windows for token in part] == continuation
    assert all(len(head) >= 1 and len(head) + len(part) <= max(limit, 2) for head, part in windows)
    assert all(head[0] == 0 for head, _ in windows)


def test_windows_give_every_token_half_of_the_context() -> None:
    windows = list(split([0], list(range(1, 100)), 16))
    assert all(len(head) >= 8 for head, _ in windows[1:])
    assert windows[1][0] == [0, *range(2, 9)]


def test_model_without_a_beginning_of_text_scores_every_token(evaluator: Evaluator, monkeypatch: Any) -> None:
    monkeypatch.setattr(LM, "bos", None)
    alone, after = evaluator.score([ScoreRequest("", "abc"), ScoreRequest("ab", "c")])
    assert (alone.tokens, alone.bytes, after.tokens) == (3, 3, 1)


def test_prompt_that_leaves_no_room_still_gets_an_answer(evaluator: Evaluator) -> None:
    how = Generate(max_tokens=8)
    texts = evaluator.generate(["y" * 500, "z"], how)
    turns = evaluator.chat([Conversation((Turn("user", "y" * 500),))], how)
    assert len(texts) == 2
    assert turns[0].role == "assistant"


def test_random_model_is_within_chance_on_multiple_choice(evaluator: Evaluator, home: Settings) -> None:
    try:
        task = tasks.open("arc_easy", tasks.config_class("arc_easy")(limit=60), home, seed=0)
    except DatasetError as error:
        pytest.skip(str(error))
    (score,) = task.scores(task.evaluate(evaluator, task.rows))
    assert score.low is not None
    assert score.high is not None
    assert score.low <= 0.25 <= score.high


def _config(checkpoint: Path, **options: Any) -> process.Config:
    return process.Config(run=str(checkpoint), device="cpu", limit=2, **options)


def test_process_keeps_scores_items_and_dataset_hashes(checkpoint: Path, home: Settings) -> None:
    values = {"run": str(checkpoint), "tasks": ["toolcalls"], "limit": 2, "device": "cpu"}
    record = execute("llm.evaluate", values, Options(settings=home))
    folder = home.runs / record.id
    assert record.state is RunState.SUCCEEDED
    assert {"value", "count", "low", "high"} <= set(record.result["toolcalls"])
    items = [json.loads(line) for line in (folder / "evaluation/toolcalls.jsonl").read_text().splitlines()]
    scores = json.loads((folder / "evaluation/scores.json").read_text())
    assert len(items) == scores[0]["items"] >= 2
    assert "toolcalls" in (folder / "log.txt").read_text()
    assert "due: " in (folder / "samples/00000001_toolcalls.txt").read_text()
    assert len(scores[0]["datasets"]["toolcalls"]) == 64


def test_process_on_resume_asks_only_what_had_not_finished(
    checkpoint: Path, home: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(checkpoint, tasks=["toolcalls", "bits_per_byte"])
    process.main(config, Run(tmp_path, limit_batches=1))
    assert "toolcalls 0" in capsys.readouterr().out
    again = Run(tmp_path, resuming=True)
    process.main(config, again)
    said = capsys.readouterr().out
    assert "toolcalls 0, " not in said
    assert "items in" in said
    assert again.result["toolcalls"]["count"] > 0
    assert any(name.startswith("bits_per_byte/") for name in again.result)


def test_process_with_an_unknown_task_names_the_closest(checkpoint: Path, home: Settings) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'toolcalls'"):
        execute("llm.evaluate", {"run": str(checkpoint), "tasks": ["toolcall"]}, Options(settings=home))


def test_process_where_every_task_is_skipped_is_an_error_that_says_how_to_go_on(
    checkpoint: Path, home: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MELETE_DATA", str(tmp_path / "nothing"))
    with pytest.raises(DatasetError, match="No task of the suite could run"):
        process.main(_config(checkpoint, tasks=["mmlu"]), Run(tmp_path))
