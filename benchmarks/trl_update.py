"""Time of one practice update against trl's `GRPOTrainer`: the same tiny model, prompts, group size and lengths.

Both sides start from the same folder of a tiny Qwen3 (random weights, byte-level tokenizer), answer the same prompts
`--group` times with at most `--length` tokens at temperature 1 (the mean length of each side is in the result: the
token that ends an answer is one of 4,096), reward them by the same function of the text and make one optimizer step
over all of them. Each side runs alone in a process of its own, one after the other, `--rounds` times; the first
`--warmup` updates of each are left out.

trl is the peer as its documentation sets it up (transformers generation, one step per batch, no KL), once in fp32 and
once in bf16, and the faster of the two counts. What is compared: wall and CPU time of an update, sampling included.
Each `--length` has an entry of its own in the results: the shorter the answers, the more of an update is the training
step, which costs both the same.

    python tools/envs.py trl
    python benchmarks/trl_update.py --write          # --side ours|trl is what the child processes run
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".envs" / "trl" / "bin" / "python"
RESULT = ROOT / "benchmarks" / "results" / "trl_update.json"
WORDS = [
    "order",
    "parcel",
    "refund",
    "email",
    "number",
    "change",
    "cancel",
    "track",
    "address",
    "phone",
    "the",
    "a",
    "my",
    "is",
    "please",
    "where",
    "when",
]


def prompts(count: int) -> list[str]:
    """Different requests of about the same length."""
    return [" ".join(WORDS[(i * 7 + j * 3) % len(WORDS)] for j in range(24)) for i in range(count)]


def reward(text: str) -> float:
    """Share of letters, the same function for both sides."""
    return sum(c.isalpha() for c in text) / max(1, len(text))


def make_model(folder: Path, width: int, layers: int) -> None:
    """Writes a tiny random Qwen3 with a byte-level tokenizer."""
    import tokenizers
    import torch
    import transformers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1024, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(prompts(500), trainer)
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    config = transformers.Qwen3Config(
        vocab_size=4096, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 64, head_dim=64,
        max_position_embeddings=1024, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run_trl(args: argparse.Namespace) -> dict[str, Any]:
    """Updates of trl's trainer."""
    import torch
    import transformers
    import trl

    from datasets import Dataset

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model, padding_side="left")
    chats = [[{"role": "user", "content": text}] for text in prompts(args.problems)]
    data = Dataset.from_dict({"prompt": chats * (args.updates + args.warmup)})
    marks: list[tuple[float, float]] = []
    lengths: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append((time.perf_counter(), time.process_time()))

        def on_train_end(self, *_: Any, **__: Any) -> None:
            marks.append((time.perf_counter(), time.process_time()))

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "completions/mean_length" in logs:
                lengths.append(logs["completions/mean_length"])

    def scored(completions: list[Any], **_: Any) -> list[float]:
        return [reward(one[0]["content"]) for one in completions]

    config = trl.GRPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=args.problems * args.group,
        num_generations=args.group, max_completion_length=args.length, gradient_accumulation_steps=1,
        max_steps=args.updates + args.warmup, beta=0.0, temperature=1.0, learning_rate=1e-6, use_cpu=True,
        bf16=args.dtype == "bf16", gradient_checkpointing=False, report_to=[], save_strategy="no",
        logging_steps=1, disable_tqdm=True, shuffle_dataset=False, seed=0,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    trainer = trl.GRPOTrainer(
        model=model, reward_funcs=scored, args=config, train_dataset=data, processing_class=tokenizer,
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    return figures(marks, args.warmup) | {"length": statistics.mean(lengths), "trl": trl.__version__}


def run_ours(args: argparse.Namespace) -> dict[str, Any]:
    """Updates of our own."""
    import torch

    from melete import settings
    from melete.llm import lm as lms
    from melete.llm.config import compute_dtype
    from melete.llm.engine import Engine, Sampling
    from melete.llm.grpo import improve
    from melete.llm.learner import TransformersLearner
    from melete.llm.merge import merge
    from melete.records import Conversation, Turn

    lm = lms.load(args.model, settings.load(), torch.device("cpu"), torch.float32)
    learner = TransformersLearner(lm, 1e-6)
    engine = Engine(lm, slots=args.problems * args.group, dtype=compute_dtype(lm.device))
    asked = [
        lm.chat.render(Conversation((Turn("user", text),)), generation_prompt=True)[0]
        for text in prompts(args.problems)
        for _ in range(args.group)
    ]
    marks: list[tuple[float, float]] = []
    lengths: list[float] = []
    for step in range(args.updates + args.warmup):
        marks.append((time.perf_counter(), time.process_time()))
        samplings = [
            Sampling(max_tokens=args.length, seed=step * 100_000 + i, logprobs=0) for i in range(len(asked))
        ]
        done = engine.generate(asked, samplings)
        rewards = [reward(one.text) for one in done]
        groups = []
        for start in range(0, len(asked), args.group):
            part = range(start, start + args.group)
            mean = sum(rewards[i] for i in part) / args.group
            groups.append(
                [
                    (row, rewards[i] - mean)
                    for i in part
                    for row in merge([(asked[i], done[i].token_ids, done[i].logprobs)])
                ]
            )
        improve(learner, groups, 1.0)
        engine.swap(learner.weights())
        lengths.append(statistics.mean(len(one.token_ids) for one in done))
    marks.append((time.perf_counter(), time.process_time()))
    return figures(marks, args.warmup) | {"length": statistics.mean(lengths)}


def figures(marks: list[tuple[float, float]], warmup: int) -> dict[str, Any]:
    """Median wall and CPU seconds of an update."""
    pairs = list(itertools.pairwise(marks))[warmup:]
    return {
        "wall_s": statistics.median(b[0] - a[0] for a, b in pairs),
        "cpu_s": statistics.median(b[1] - a[1] for a, b in pairs),
        "updates": len(pairs),
    }


def child(args: argparse.Namespace, side: str, python: Path | str, dtype: str = "") -> dict[str, Any]:
    """Runs one side in a process of its own."""
    options = ["problems", "group", "length", "updates", "warmup", "model"]
    given = [part for name in options for part in (f"--{name}", str(getattr(args, name)))]
    command = [str(python), str(Path(__file__).resolve()), "--side", side, *given]
    done = subprocess.run(
        [*command, *(["--dtype", dtype] if dtype else [])],
        capture_output=True,
        text=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    """Measures both sides and prints, or writes, the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--length", type=int, default=256, help="256 is trl's own default")
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--side", choices=("ours", "trl"))
    parser.add_argument("--model", default="")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/trl_update.json")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(run_trl(args) if args.side == "trl" else run_ours(args)))
        return
    if not PEER.exists():
        raise SystemExit("The peer is not here. Make its environment with: python tools/envs.py trl")
    with tempfile.TemporaryDirectory() as folder:
        args.model = folder
        make_model(Path(folder), args.width, args.layers)
        rounds = [
            {
                "ours": child(args, "ours", sys.executable),
                "trl_fp32": child(args, "trl", PEER, "fp32"),
                "trl_bf16": child(args, "trl", PEER, "bf16"),
            }
            for _ in range(args.rounds)
        ]
    best = {
        side: {key: statistics.median(one[side][key] for one in rounds) for key in ("wall_s", "cpu_s")}
        for side in rounds[0]
    }
    peer = min((best["trl_fp32"], best["trl_bf16"]), key=lambda row: row["wall_s"])
    result = {
        "system": system() | {"command": "trl_update.py " + " ".join(sys.argv[1:])},
        "shape": {name: getattr(args, name) for name in ("width", "layers", "problems", "group", "length")},
        "median": best,
        "ratio_wall": round(best["ours"]["wall_s"] / peer["wall_s"], 3),
        "ratio_cpu": round(best["ours"]["cpu_s"] / peer["cpu_s"], 3),
        "rounds": rounds,
    }
    print(json.dumps(result, indent=1))
    if args.write:
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.write_text(json.dumps(kept | {f"length_{args.length}": result}, indent=1) + "\n")


def system() -> dict[str, Any]:
    """Machine and versions."""
    sys.path.insert(0, str(Path(__file__).parent))
    import peer

    return peer.system()


if __name__ == "__main__":
    main()
