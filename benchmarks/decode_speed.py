"""Decoding speed of the engine beside nanochat's `Engine`: one stream, 32 samples of a prompt, 32 different prompts.

Both sides decode greedily with random weights of the same shape (4 layers of which three see a quarter of the context,
width 256, 4 heads, vocabulary 4,096, context 512), one thread, each in its own process, in turns. Speed is new tokens
per CPU second of the process, prompt computation included, models built and warmed up before. nanochat takes one prompt
per call, so it runs different prompts one after the other. Prompts are random, so our prefix store helps only where
one prompt is sampled 32 times, which is also where nanochat computes the prompt once.

    python benchmarks/decode_speed.py --nanochat DIR [--rounds 5] [--windows L] [--dtype float32]

Limits: greedy only, sampling costs both sides more; a CPU that others share is slower for both, so trust the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPE: dict[str, Any] = {
    "vocab_size": 4096,
    "context": 512,
    "depth": 4,
    "width": 256,
    "heads": 4,
    "windows": "SSSL",
}
ROWS = 32
NEW_TOKENS = 128
PROMPT_TOKENS = 128
LENGTHS = [32 + 7 * i for i in range(ROWS)]
"""Lengths of the different prompts: 32 to 249, 140 on average."""

Generate = Callable[[list[list[int]], int], int]
"""Decodes `NEW_TOKENS` for prompts, each `samples` times; returns the number of new tokens."""


def measure(generate: Generate) -> dict[str, float]:
    """Tokens per CPU second of each case, after a warm-up."""
    draw = random.Random(0)

    def prompt(length: int) -> list[int]:
        return [draw.randrange(SHAPE["vocab_size"]) for _ in range(length)]

    def speed(prompts: list[list[int]], samples: int) -> float:
        began = time.process_time()
        tokens = generate(prompts, samples)
        assert tokens == len(prompts) * samples * NEW_TOKENS, f"decoded {tokens} tokens"
        return tokens / (time.process_time() - began)

    speed([prompt(PROMPT_TOKENS)], 1)
    return {
        "one stream": statistics.median(speed([prompt(PROMPT_TOKENS)], 1) for _ in range(5)),
        f"{ROWS} samples of one prompt": speed([prompt(PROMPT_TOKENS)], ROWS),
        f"{ROWS} different prompts": speed([prompt(length) for length in LENGTHS], 1),
    }


def ours(dtype: str | None, windows: str) -> tuple[Generate, dict[str, Any]]:
    """The engine with its defaults."""
    import torch

    from melete.llm.config import GPTConfig, compute_dtype
    from melete.llm.engine import Engine, Sampling
    from melete.llm.lm import LM
    from melete.llm.model import GPT

    model = GPT(GPTConfig(**SHAPE | {"windows": windows})).initialize(0)
    lm = LM(model, None, None, SHAPE["context"], "melete", "random", source="random")  # type: ignore[arg-type]
    chosen = getattr(torch, dtype) if dtype else compute_dtype(torch.device("cpu"))
    engine = Engine(lm, slots=ROWS, dtype=chosen)
    sampling = Sampling(max_tokens=NEW_TOKENS, temperature=0.0, stop_ids=())

    def generate(prompts: list[list[int]], samples: int) -> int:
        return sum(len(done.token_ids) for done in engine.generate(prompts * samples, sampling))

    return generate, {"parameters": sum(p.numel() for p in model.parameters()), "dtype": str(chosen)}


def theirs(folder: str) -> tuple[Generate, dict[str, Any]]:
    """nanochat's engine, unmodified, over its model with random weights."""
    import torch

    sys.path.insert(0, folder)
    from nanochat.common import COMPUTE_DTYPE
    from nanochat.engine import Engine
    from nanochat.gpt import GPT, GPTConfig

    config = GPTConfig(
        sequence_len=SHAPE["context"],
        vocab_size=SHAPE["vocab_size"],
        n_layer=SHAPE["depth"],
        n_head=SHAPE["heads"],
        n_kv_head=SHAPE["heads"],
        n_embd=SHAPE["width"],
        window_pattern=SHAPE["windows"],
    )
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device="cpu")
    model.init_weights()
    engine = Engine(model.eval(), NoSpecialTokens())

    def generate(prompts: list[list[int]], samples: int) -> int:
        tokens = 0
        for prompt in prompts:
            for column, _ in engine.generate(
                prompt, num_samples=samples, max_tokens=NEW_TOKENS, temperature=0.0
            ):
                tokens += len(column)
        return tokens

    return generate, {"parameters": sum(p.numel() for p in model.parameters()), "dtype": str(COMPUTE_DTYPE)}


class NoSpecialTokens:
    """A tokenizer for nanochat's engine that has no token which could end a row."""

    def encode_special(self, name: str) -> int:
        """No such token."""
        return -1

    def get_bos_token_id(self) -> int:
        """No such token."""
        return -1


def child(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures one side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--nanochat", options.nanochat or ""]
    command += ["--windows", options.windows, *(["--dtype", options.dtype] if options.dtype else [])]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "NANOCHAT_DTYPE": options.nanochat_dtype,
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"The {side} side failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds, and medians of each round's ratio."""
    result: dict[str, Any] = {}
    for side in rounds[0]:
        medians = {
            case: round(statistics.median(r[side]["speed"][case] for r in rounds), 1)
            for case in rounds[0][side]["speed"]
        }
        result[side] = {**rounds[0][side]["about"], "tokens_per_cpu_s": medians}
    if "nanochat" in result:
        one, same, different = result["melete"]["tokens_per_cpu_s"]

        def ratio(mine: str, other: str) -> float:
            values = [r["melete"]["speed"][mine] / r["nanochat"]["speed"][other] for r in rounds]
            return round(statistics.median(values), 2)

        result["ratios"] = {
            one: ratio(one, one),
            same: ratio(same, same),
            different: ratio(different, different),
            f"{different} to its {same}": ratio(different, same),
        }
        result["goals"] = {one: 1.5, different: 6.0, f"{different} to its {same}": 1.0}
    return result


def main() -> None:
    """Runs both sides in turns and keeps the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--nanochat", help="folder of a nanochat checkout; without it only our side runs")
    parser.add_argument("--rounds", type=int, default=5, help="times that each side runs")
    parser.add_argument("--dtype", help="dtype of our weights; the default is the device's fastest")
    parser.add_argument(
        "--nanochat-dtype", default="float32", help="NANOCHAT_DTYPE; float32 is its fastest here"
    )
    parser.add_argument(
        "--windows", default=SHAPE["windows"], help="attention of our layers, as in GPTConfig"
    )
    parser.add_argument("--side", choices=("melete", "nanochat"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        import torch

        torch.set_num_threads(1)
        generate, about = (
            ours(options.dtype, options.windows) if options.side == "melete" else theirs(options.nanochat)
        )
        print(json.dumps({"about": about, "speed": measure(generate)}))
        return
    from peer import save_result, system

    sides = ["melete", "nanochat"] if options.nanochat else ["melete"]
    rounds = [{side: child(side, options) for side in sides} for _ in range(options.rounds)]
    conditions = {
        "threads": 1,
        "rounds": options.rounds,
        "new_tokens": NEW_TOKENS,
        "prompt_tokens": PROMPT_TOKENS,
    }
    name = Path(__file__).stem if options.nanochat else f"{Path(__file__).stem}_alone"
    save_result(name, {**system(), **conditions, **compare(rounds)})


if __name__ == "__main__":
    main()
