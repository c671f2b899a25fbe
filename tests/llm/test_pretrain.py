"""Pretraining as a process: it learns, says what it derived, and refuses bad input with one clear message."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from melete.errors import ConfigError, DatasetError, TokenizerError, TrainingError
from melete.jobs.execute import Options, execute
from melete.llm import train
from melete.llm.checkpoint import load_model
from melete.llm.config import plan
from melete.llm.processes import pretrain
from melete.llm.tokenizer import Tokenizer
from melete.runs import checkpoints, refs
from melete.settings import Settings

TINY = {
    "depth": 1, "width": 32, "context": 32, "batch_tokens": 256, "steps": 6, "vocab_size": 280, "eval_tokens": 512,
    "dtype": "fp32",
}  # fmt: skip


def words(folder: Path, documents: int = 120) -> str:
    """A folder of text that is easy to learn."""
    folder.mkdir()
    draw = random.Random(0)
    for split, count in (("train", documents), ("val", 40)):
        lines = [
            json.dumps({"text": " ".join(draw.choices(("red", "blue", "green", "and", "or"), k=60))})
            for _ in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return str(folder)


def run(home: Settings, folder: Path, **values: Any) -> Path:
    """Executes a tiny run and returns its folder."""
    data = str(folder / "words") if (folder / "words").exists() else words(folder / "words")
    record = execute("llm.pretrain", {**TINY, "data": data, **values}, Options(home))
    return home.runs / record.id


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in metrics(folder) if "loss" in row]


def test_pretrain_on_own_text_learns_and_leaves_a_model_that_loads(home: Settings, tmp_path: Path) -> None:
    folder = run(home, tmp_path, steps=30)
    curve = losses(folder)
    assert len(curve) == 30
    assert curve[-1] < curve[0] - 1
    model, tokenizer, record = load_model(refs.checkpoint(home, "latest", ("llm",)))
    assert model.config.vocab_size == tokenizer.vocab_size
    assert record.step == 30
    assert record.config["stage"] == "pretrain"
    assert metrics(folder)[-1]["val_bpb"] < 2


def test_pretrain_prints_every_derived_value_with_its_reason(home: Settings, tmp_path: Path) -> None:
    log = (run(home, tmp_path, steps=1) / "log.txt").read_text()
    for name, value, reason in pretrain.plan(pretrain.Config(**TINY)):
        assert name in log
        assert reason in log or name == "tokens", (name, value)


def test_pretrain_saves_before_it_evaluates(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> float:
        raise RuntimeError("evaluation fell over")

    monkeypatch.setattr(train, "evaluate", crash)
    with pytest.raises(RuntimeError, match="fell over"):
        run(home, tmp_path)
    assert checkpoints.read(refs.checkpoint(home, "latest", ("llm",))).step == 6


def test_pretrain_twice_with_one_seed_gives_the_same_losses(home: Settings, tmp_path: Path) -> None:
    assert losses(run(home, tmp_path)) == losses(run(home, tmp_path))


def test_loss_that_is_not_a_number_stops_and_keeps_the_last_good_checkpoint(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = train.forward_backward
    calls = 0

    def poisoned(job: train.Pretraining, tokens: torch.Tensor, targets: torch.Tensor) -> float:
        nonlocal calls
        calls += 1
        if calls == 4:
            with torch.no_grad():
                job.model.head.weight.fill_(float("nan"))
        return honest(job, tokens, targets)

    monkeypatch.setattr(train, "forward_backward", poisoned)
    with pytest.raises(TrainingError, match=r"nan at step 3[^$]*step_00000002"):
        run(home, tmp_path, save_every=2)
    kept = refs.checkpoint(home, "latest", ("llm",))
    assert all(t.isfinite().all() for t in checkpoints.load(kept, "model").values())


def test_pretrain_takes_the_newest_tokenizer_that_was_trained_on_its_text(
    home: Settings, tmp_path: Path
) -> None:
    data = words(tmp_path / "words")
    execute("llm.tokenizer", {"data": data, "vocab_size": 290, "eval_chars": 500}, Options(home))
    trained = Tokenizer.load(next(home.runs.glob("*tokenizer*/tokenizer.json")))
    folder = run(home, tmp_path, vocab_size=290, steps=1)
    assert Tokenizer.load(folder / "tokenizer.json").fingerprint == trained.fingerprint
    assert "trained on this text" in (folder / "log.txt").read_text()


def test_checkpoint_with_another_tokenizer_is_a_tokenizer_error(home: Settings, tmp_path: Path) -> None:
    run(home, tmp_path, steps=1)
    folder = refs.checkpoint(home, "latest", ("llm",))
    other = Tokenizer([bytes([i]) for i in range(256)]).to_bytes()
    record = json.loads((folder / "checkpoint.json").read_text())
    import hashlib

    (folder / "tokenizer.json").write_bytes(other)
    record["files"]["tokenizer.json"] = [len(other), hashlib.sha256(other).hexdigest()]
    (folder / "checkpoint.json").write_text(json.dumps(record))
    with pytest.raises(TokenizerError, match="does not fit the model"):
        load_model(folder)


def test_text_that_changed_since_the_start_is_refused_on_resume(home: Settings, tmp_path: Path) -> None:
    from melete.jobs.execute import resume

    folder = tmp_path / "words"
    words(folder)
    record = execute(
        "llm.pretrain", {**TINY, "data": str(folder), "steps": 4, "save_every": 2}, Options(home)
    )
    path = home.runs / record.id
    stored = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**stored, "state": "failed"}))
    with (folder / "train.jsonl").open("a") as file:
        file.write('\n{"text": "something new"}')
    with pytest.raises(ConfigError, match="text has changed"):
        resume(path, Options(home))


def test_text_too_short_for_validation_is_a_dataset_error(home: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    words(folder)
    (folder / "val.jsonl").write_text('{"text": "red"}')
    with pytest.raises(DatasetError, match="Validation needs at least"):
        execute("llm.pretrain", {**TINY, "data": str(folder)}, Options(home))


def test_tokenizer_file_that_is_none_is_a_tokenizer_error(home: Settings, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(TokenizerError, match="is not a tokenizer"):
        run(home, tmp_path, tokenizer=str(tmp_path / "broken.json"))


def test_plan_for_a_batch_without_a_row_per_rank_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="does not hold a row"):
        plan(2, 4096, torch.device("cpu"), batch_tokens=256, ranks=2)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_plan_grows_with_depth_and_gives_a_reason_for_each_value(device: str) -> None:
    shallow, deep = (plan(depth, 4096, torch.device(device)) for depth in (2, 12))
    assert deep.model.width > shallow.model.width
    assert deep.steps * deep.batch_rows * deep.model.context > shallow.steps * shallow.batch_rows * 256
    assert all(row.reason for row in deep.rows)
    assert deep.batch_rows % deep.micro_rows == 0


def test_schedule_rises_holds_and_ends_near_zero() -> None:
    derived = plan(2, 4096, torch.device("cpu"), steps=100)
    scales = [derived.scale(step) for step in range(100)]
    assert scales[0] < 0.5
    assert max(scales) == 1
    assert scales[-1] < 0.05
