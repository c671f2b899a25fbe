"""Open-weights models: SFT and RL in full and by LoRA, exact resume, and an export that transformers loads as it is."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, own_checkpoint, transformers_folder

from melete import datasets
from melete.errors import ConfigError, MeleteError, TokenizerError, UnknownNameError
from melete.jobs.execute import Options, execute, resume
from melete.llm import export, hf
from melete.llm import lm as lms
from melete.llm.learner import Lora, TransformersLearner
from melete.llm.tokenizer import SPECIAL, Tokenizer
from melete.records import Conversation, RunRecord, Turn
from melete.runs import checkpoints
from melete.settings import Settings, load

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
ASK = Conversation((Turn("user", "how much is 12 and 30?"),))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {family: transformers_folder(folder / family, family) for family in ("qwen3", "llama")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = islice(datasets.open("toolcalls").conversations("train"), 100)
    file = tmp_path_factory.mktemp("data") / "calls.jsonl"
    file.write_text("".join(json.dumps(c.to_openai()) + "\n" for c in rows))
    return file


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MELETE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return load()


def sft(settings: Settings, base: Path, data: Path, limit: int | None = None, **values: object) -> RunRecord:
    config = {
        "device": "cpu", "base": str(base), "data": str(data), "steps": 6, "batch_tokens": 512, "context": 128,
        "val_rows": 2, "val_turns": 0, "rate": 50.0, **values,
    }  # fmt: skip
    return execute("llm.sft", config, Options(settings=settings, limit_batches=limit))


def losses(settings: Settings, record: RunRecord) -> list[float]:
    lines = (settings.runs / record.id / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def latest(settings: Settings, record: RunRecord) -> Path:
    found = checkpoints.latest(settings.runs / record.id / "checkpoints")
    assert found is not None
    return found


def logits(lm: lms.LM) -> torch.Tensor:
    prompt, _ = lm.chat.render(ASK, generation_prompt=True)
    with torch.no_grad():
        return lm.logits(torch.tensor([prompt]))


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("rank", [0, 4])
def test_sft_exported_gives_the_same_logits_in_transformers(
    settings: Settings, bases: dict[str, Path], data: Path, tmp_path: Path, family: str, rank: int
) -> None:
    import transformers

    record = sft(settings, bases[family], data, lora_rank=rank)
    curve = losses(settings, record)
    assert curve[-1] < curve[0]
    ours = lms.load(record.id, settings, CPU, torch.float32)
    execute("llm.export", {"run": record.id, "to": str(tmp_path / "out")}, Options(settings=settings))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": ASK.turns[0].content}], add_generation_prompt=True, tokenize=False
    )
    tokens = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        theirs = model(tokens).logits
    assert torch.allclose(logits(ours), theirs, atol=1e-4)
    assert not torch.allclose(
        logits(lms.load(str(bases[family]), settings, CPU, torch.float32)), theirs, atol=1e-2
    )


@pytest.mark.parametrize("rank", [0, 4])
def test_sft_resumed_gives_the_weights_of_an_unbroken_run(
    settings: Settings, bases: dict[str, Path], data: Path, rank: int
) -> None:
    whole = sft(settings, bases["qwen3"], data, lora_rank=rank, save_every=3)
    part = sft(settings, bases["qwen3"], data, limit=3, lora_rank=rank, save_every=3)
    path = settings.runs / part.id / "run.json"
    path.write_text(path.read_text().replace('"succeeded"', '"lost"'))
    resumed = resume(settings.runs / part.id, Options(settings=settings, limit_batches=100))
    assert losses(settings, resumed) == losses(settings, whole)
    a, b = (checkpoints.load(latest(settings, record), "model") for record in (whole, resumed))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_lora_checkpoint_holds_the_adapter_alone_and_leaves_the_base_alone(
    settings: Settings, bases: dict[str, Path], data: Path
) -> None:
    before = (bases["qwen3"] / "model.safetensors").read_bytes()
    record = sft(settings, bases["qwen3"], data, lora_rank=4)
    tensors = checkpoints.load(latest(settings, record), "model")
    assert tensors
    assert all("lora_" in name for name in tensors)
    assert (bases["qwen3"] / "model.safetensors").read_bytes() == before


def test_rl_by_lora_from_an_sft_checkpoint_runs_and_is_loaded(
    settings: Settings, bases: dict[str, Path], data: Path
) -> None:
    base = sft(settings, bases["qwen3"], data, lora_rank=4)
    values = {"steps": 1, "problems": 2, "group": 2, "max_tokens": 4, "val_problems": 2, "kl": 0.1}
    file = {"device": "cpu", "base": base.id, "task": "calculator", **values}
    record = execute("llm.rl", file, Options(settings=settings))
    lm = lms.load(record.id, settings, CPU, torch.float32)
    assert lm.record is not None
    assert lm.record.config["lora"] == {"rank": 4, "alpha": 8}
    assert torch.isfinite(logits(lm)).all()


def test_learner_losses_are_those_of_the_whole_logits(bases: dict[str, Path]) -> None:
    lm = hf.load(str(bases["qwen3"]), CPU, torch.float32)
    learner = TransformersLearner(lm, 1e-3)
    tokens = torch.randint(0, 300, (3, 20), generator=torch.Generator().manual_seed(0))
    targets = torch.full_like(tokens, -1)
    targets[0, 3:6], targets[2, 18:] = tokens[0, 4:7], 7
    with torch.no_grad():
        expected = -lm.logits(tokens).log_softmax(-1).gather(-1, targets.clamp_min(0)[..., None])[..., 0]
        found = learner.token_losses(tokens, targets)
    assert torch.allclose(found, expected * (targets >= 0), atol=0.05)
    assert float(found[1].sum()) == 0.0


def test_learner_without_a_gradient_moves_nothing(bases: dict[str, Path]) -> None:
    lm = hf.load(str(bases["llama"]), CPU, torch.float32)
    learner = TransformersLearner(lm, 1e-2, Lora(4))
    tokens = torch.arange(20)[None]
    learner.loss(tokens, tokens).backward()
    learner.step(1.0)
    before = {name: tensor.clone() for name, tensor in hf.weights(lm.model).items()}
    assert learner.step(1.0) == 0.0
    assert all(torch.equal(before[name], tensor) for name, tensor in hf.weights(lm.model).items())


def test_merged_state_equals_the_adapters_logits_and_changes_nothing(bases: dict[str, Path]) -> None:
    lm = hf.load(str(bases["qwen3"]), CPU, torch.float32)
    learner = TransformersLearner(lm, 1e-2, Lora(4))
    tokens = torch.arange(20)[None]
    for _ in range(3):
        learner.loss(tokens, tokens).backward()
        learner.step(1.0)
    expected = logits(lm)
    plain = hf.load(str(bases["qwen3"]), CPU, torch.float32)
    hf.load_weights(plain.model, learner.weights(), "merged")
    assert torch.allclose(logits(plain), expected, atol=1e-4)
    assert torch.equal(logits(lm), expected)


def test_base_that_is_no_folder_and_not_reachable_is_a_clear_error(settings: Settings) -> None:
    with pytest.raises(MeleteError, match="HF_HUB_OFFLINE") as raised:
        lms.load("nobody/no-such-model", settings, CPU)
    assert not isinstance(raised.value, UnknownNameError)


def test_base_without_a_chat_template_is_a_clear_error(settings: Settings, tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "plain", "llama", template=None)
    with pytest.raises(TokenizerError, match="no chat template"):
        lms.load(str(folder), settings, CPU)


def test_base_with_a_broken_weights_file_is_a_clear_error(settings: Settings, tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "broken", "llama")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(MeleteError, match="could not be loaded"):
        lms.load(str(folder), settings, CPU)


def test_another_lora_rank_than_the_checkpoints_is_refused(
    settings: Settings, bases: dict[str, Path], data: Path
) -> None:
    base = sft(settings, bases["qwen3"], data, lora_rank=4, steps=1)
    with pytest.raises(ConfigError, match="adapter of rank 4"):
        sft(settings, Path(base.id), data, lora_rank=8)


def test_export_of_our_own_model_loads_in_melete_with_the_same_logits(
    settings: Settings, tmp_path: Path
) -> None:
    path = own_checkpoint(tmp_path / "run")
    execute("llm.export", {"run": str(path), "to": str(tmp_path / "out")}, Options(settings=settings))
    ours, theirs = (lms.load(str(p), settings, CPU, torch.float32) for p in (path, tmp_path / "out"))
    assert torch.equal(logits(ours), logits(theirs))
    assert not (tmp_path / "out" / "state.safetensors").exists()


def test_export_into_a_folder_that_holds_something_is_refused(settings: Settings, tmp_path: Path) -> None:
    path = own_checkpoint(tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        export.export(str(path), tmp_path / "out", settings)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


TRAINED = Tokenizer.train(["the quick brown fox 12345 jumps\n\n  over it's naïve café "] * 50, 400)
IN_THEIRS = {id(t): export.tokenizers_format(t) for t in (TRAINED, byte_tokenizer())}


@given(
    st.text(max_size=60)
    | st.sampled_from(["the quick brown fox's 1234567 cafés\n\n\t over  it ", "naïve 😀 ₂ é"])
)
@hypothesis_settings(max_examples=300, deadline=None)
def test_tokenizers_format_gives_our_ids_for_any_text(text: str) -> None:
    if any(name in text for name in SPECIAL):
        return
    theirs = IN_THEIRS[id(TRAINED)]
    assert theirs.encode(text).ids == TRAINED.encode(text)
    assert theirs.decode(TRAINED.encode(text)) == text


def test_tokenizers_format_keeps_the_ids_of_special_tokens() -> None:
    theirs = IN_THEIRS[id(TRAINED)]
    assert {name: theirs.token_to_id(name) for name in SPECIAL} == TRAINED.special
