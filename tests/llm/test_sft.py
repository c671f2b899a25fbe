"""SFT: it learns from the first steps, at any context, resumes to the bit, and says what is wrong with its input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from tiny import own_checkpoint

from melete import datasets
from melete.errors import ConfigError, UnknownNameError
from melete.jobs.execute import Options, execute, resume
from melete.llm import finetune
from melete.llm import lm as lms
from melete.llm.distributed import SINGLE
from melete.llm.learner import OwnLearner
from melete.llm.packing import open_mixture, row
from melete.llm.sft import accumulate, accumulate_apart
from melete.records import Conversation, RunRecord, RunState, Turn
from melete.runs import checkpoints
from melete.settings import Settings, load

CPU = {"device": "cpu", "val_rows": 4, "val_turns": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_checkpoint(tmp_path_factory.mktemp("base") / "run")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MELETE_HOME", str(tmp_path / "home"))
    return load()


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred of the generated conversations: the whole set takes seconds to make."""
    rows = islice(datasets.open("toolcalls").conversations("train"), 300)
    file = tmp_path_factory.mktemp("data") / "calls.jsonl"
    file.write_text("".join(json.dumps(c.to_openai()) + "\n" for c in rows))
    return file


def sft(settings: Settings, base: Path, data: Path, limit: int | None = None, **values: object) -> RunRecord:
    options = Options(settings=settings, limit_batches=limit)
    return execute("llm.sft", {**CPU, "base": str(base), "data": str(data), **values}, options)


def metrics(settings: Settings, record: RunRecord) -> list[dict[str, float]]:
    lines = (settings.runs / record.id / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(settings: Settings, record: RunRecord) -> list[float]:
    return [line["loss"] for line in metrics(settings, record) if "loss" in line]


def latest(settings: Settings, record: RunRecord) -> Path:
    found = checkpoints.latest(settings.runs / record.id / "checkpoints")
    assert found is not None
    return found


def own_data(folder: Path, exchanges: int, length: int) -> Path:
    conversations = [
        Conversation(
            tuple(
                Turn(role, f"{i} {j} " + "word " * length)
                for j in range(exchanges)
                for role in ("user", "assistant")
            )
        )
        for i in range(60)
    ]
    file = folder / "own.jsonl"
    file.write_text("".join(json.dumps(c.to_openai()) + "\n" for c in conversations))
    return file


def test_sft_loss_falls_from_the_first_steps(settings: Settings, base: Path, calls: Path) -> None:
    record = sft(settings, base, calls, steps=30, batch_tokens=1024)
    curve = losses(settings, record)
    assert record.state is RunState.SUCCEEDED
    assert max(curve[1:]) < curve[0] + 0.1
    assert curve[-1] < 0.75 * curve[0]
    assert record.result["val_loss"] < 0.75 * curve[0]


def test_sft_of_a_trained_model_on_other_data_falls_from_the_first_steps(
    settings: Settings, base: Path, calls: Path, tmp_path: Path
) -> None:
    first = sft(settings, base, own_data(tmp_path, exchanges=2, length=20), steps=20, batch_tokens=1024)
    second = sft(settings, latest(settings, first), calls, steps=16, batch_tokens=1024)
    curve = losses(settings, second)
    assert max(curve[1:]) < curve[0] + 0.1
    assert sum(curve[-4:]) / 4 < curve[0] - 1


@pytest.mark.slow
@pytest.mark.parametrize("context", [64, 128])
def test_sft_on_huge_conversations_at_a_short_context_stays_finite_and_learns(
    settings: Settings, base: Path, tmp_path: Path, context: int
) -> None:
    data = own_data(tmp_path, exchanges=30, length=100)
    record = sft(settings, base, data, steps=20, batch_tokens=512, context=context)
    curve = losses(settings, record)
    assert all(0 < loss < 20 for loss in curve)
    assert curve[-1] < curve[0]
    assert all(line["trained_tokens"] > 0 for line in metrics(settings, record) if "loss" in line)
    assert "split between exchanges" in (settings.runs / record.id / "log.txt").read_text()


def test_sft_stopped_and_resumed_gives_the_weights_of_an_unbroken_run(
    settings: Settings, base: Path, calls: Path
) -> None:
    values = {"steps": 8, "batch_tokens": 512, "save_every": 3}
    whole = sft(settings, base, calls, **values)
    part = sft(settings, base, calls, limit=3, **values)
    path = settings.runs / part.id / "run.json"
    # A run that ended at its limit counts as done; here it stands for one that was killed after its third step.
    path.write_text(path.read_text().replace('"succeeded"', '"lost"'))
    resumed = resume(settings.runs / part.id, Options(settings=settings, limit_batches=100))
    assert losses(settings, resumed) == losses(settings, whole)
    a, b = (checkpoints.load(latest(settings, r), "model") for r in (whole, resumed))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_sft_of_conversations_apart_learns_and_goes_on_where_it_was_stopped(
    settings: Settings, base: Path, calls: Path
) -> None:
    values = {"steps": 6, "apart": 4, "save_every": 3}
    whole = sft(settings, base, calls, **values)
    part = sft(settings, base, calls, limit=3, **values)
    path = settings.runs / part.id / "run.json"
    path.write_text(path.read_text().replace('"succeeded"', '"lost"'))
    resumed = resume(settings.runs / part.id, Options(settings=settings, limit_batches=100))
    assert losses(settings, whole) == losses(settings, resumed)
    assert losses(settings, whole)[-1] < losses(settings, whole)[0]


def test_sft_of_one_conversation_apart_has_the_loss_of_a_row_that_holds_it_alone(
    base: Path, calls: Path
) -> None:
    lm = lms.load_checkpoint(base, torch.device("cpu"), torch.float32)
    learner = OwnLearner(lm, finetune.own_rates(lm, 1.0))
    (source,) = open_mixture(str(calls), "train", lm.chat, 129, load())
    pieces = [piece for i in range(5) for piece in source.pieces(i)]
    packed = [row([piece], 128) for piece in pieces]
    assert accumulate_apart(learner, pieces, SINGLE)[0] == pytest.approx(
        accumulate(learner, packed, SINGLE)[0], rel=0.01
    )


def test_sft_result_is_loaded_as_a_model_of_its_own(settings: Settings, base: Path, calls: Path) -> None:
    record = sft(settings, base, calls, steps=1, batch_tokens=256)
    lm = lms.load(record.id, settings, torch.device("cpu"), torch.float32)
    assert (lm.kind, lm.context) == ("melete", 128)
    assert lm.record is not None
    assert lm.record.config["stage"] == "sft"
    prompt, _ = lm.chat.render(Conversation((Turn("user", "hello"),)), generation_prompt=True)
    assert torch.isfinite(lm.logits(torch.tensor([prompt]))).all()


def test_sft_with_a_context_beyond_the_models_is_refused(settings: Settings, base: Path, calls: Path) -> None:
    with pytest.raises(ConfigError, match="At most 128"):
        sft(settings, base, calls, steps=1, context=4096)


def test_sft_from_an_unknown_base_is_a_clear_error(settings: Settings, base: Path, calls: Path) -> None:
    with pytest.raises(UnknownNameError, match="no run named 'nonesuch'"):
        sft(settings, Path("nonesuch"), calls, steps=1)


def test_sft_lora_on_our_own_model_is_refused(settings: Settings, base: Path, calls: Path) -> None:
    with pytest.raises(ConfigError, match="open-weights"):
        sft(settings, base, calls, steps=1, lora_rank=4)


def test_sft_a_gradient_of_nothing_moves_nothing(base: Path) -> None:
    from melete.llm.finetune import own_rates
    from melete.llm.learner import OwnLearner

    lm = lms.load_checkpoint(base, torch.device("cpu"), torch.float32)
    learner = OwnLearner(lm, own_rates(lm, 1.0))
    tokens = torch.zeros(1, 64, dtype=torch.int64)
    learner.loss(tokens, tokens).backward()
    learner.step(1.0)
    before = {name: p.clone() for name, p in learner.optimizer.master_weights().items()}
    nothing = torch.full((1, 64), -1)
    (learner.loss(tokens, nothing) * 1.0).backward()
    assert learner.step(1.0) == 0.0
    after = learner.optimizer.master_weights()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_sft_two_ranks_give_the_losses_of_one(settings: Settings, base: Path, calls: Path) -> None:
    values = [
        "--base",
        str(base),
        "--steps",
        "4",
        "--batch-tokens",
        "1024",
        "--device",
        "cpu",
        "--val-rows",
        "4",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = {
        "one": [sys.executable, "-m", "melete"],
        "two": [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "melete"],
    }
    curves = {}
    for name, command in commands.items():
        subprocess.run(
            [*command, "llm", "sft", "--name", name, *values], check=True, env=environment, timeout=300
        )
        (folder,) = [
            p for p in settings.runs.iterdir() if json.loads((p / "run.json").read_text())["name"] == name
        ]
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        curves[name] = [line["loss"] for line in lines if "loss" in line]
    assert len(curves["one"]) == 4
    assert curves["one"] == pytest.approx(curves["two"], rel=2e-3)


def test_sft_tries_held_out_tool_calls_and_reports_their_share(
    settings: Settings, calls: Path, tmp_path: Path
) -> None:
    base = own_checkpoint(tmp_path / "wide", context=384)
    folder = tmp_path / "data"
    folder.mkdir()
    lines = calls.read_text().splitlines()
    short = [line for line in lines if len(line) < 700]
    (folder / "train.jsonl").write_text("\n".join(lines))
    (folder / "val.jsonl").write_text("\n".join(short))
    record = sft(settings, base, folder, steps=1, val_turns=4, batch_tokens=256)
    assert 1 <= record.result["calls_exact"]["count"] <= 4
    (sample,) = (settings.runs / record.id / "samples").glob("*held_out_turns.txt")
    assert "user: " in sample.read_text()
