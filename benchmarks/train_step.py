"""Tokens per CPU second and peak memory of a training step: same shape, vocabulary and batch, one thread, bf16.

Both sides build a model of depth 4, width 256, 4 heads and 4,096 tokens of vocabulary, take a batch of 16 rows and
run forward, backward and optimizer. nanochat is compiled, as it always is; ours is eager, as it is by default on a
CPU. Each side is a process of its own; rounds alternate, and the medians of the rounds are compared. Peak memory is
the resident set of the process at its highest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import peer

SHAPE = {"vocab": 4096, "depth": 4, "width": 256, "heads": 4}

TIMING = """
import json, resource, statistics, time, torch
torch.set_num_threads(1)
def measure(step, tokens, steps):
    for _ in range(5):
        step()
    times = []
    for _ in range(steps):
        began = time.process_time()
        step()
        times.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tokens_per_cpu_s": tokens / statistics.median(times), "peak_mib": peak}))
x = torch.randint(0, 4096, (ROWS, CONTEXT + 1))
x, y = x[:, :-1].contiguous(), x[:, 1:].contiguous()
"""

NANOCHAT = """
from nanochat.gpt import GPT, GPTConfig
config = GPTConfig(sequence_len=CONTEXT, vocab_size=4096, n_layer=4, n_head=4, n_kv_head=4, n_embd=256,
                   window_pattern="L")
with torch.device("meta"):
    model = GPT(config)
model.to_empty(device="cpu")
model.init_weights()
optimizer = model.setup_optimizer()
compiled = torch.compile(model, dynamic=False)
def step():
    compiled(x, y).backward()
    optimizer.step()
    model.zero_grad(set_to_none=True)
measure(step, ROWS * CONTEXT, STEPS)
"""

OURS = """
from melete.llm.config import GPTConfig, plan
from melete.llm.model import GPT
from melete.llm.optim import build_optimizer
model = GPT(GPTConfig(4096, CONTEXT, 4, 256, 4, 4)).initialize(0).bfloat16()
optimizer = build_optimizer(model, plan(4, 4096, torch.device("cpu")).rates)
if COMPILE:
    model.compile_training()
def step():
    model(x, y).backward()
    optimizer.step()
measure(step, ROWS * CONTEXT, STEPS)
"""


def program(side: str, rows: int, context: int, steps: int, compiled: bool) -> str:
    values = f"ROWS, CONTEXT, STEPS, COMPILE = {rows}, {context}, {steps}, {compiled}\n"
    return values + TIMING + (NANOCHAT if side == "nanochat" else OURS)


def main() -> None:
    parser: argparse.ArgumentParser = peer.arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--contexts", default="256,512")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="compile ours too")
    args = parser.parse_args()
    nanochat = None
    if args.nanochat:
        nanochat = peer.Nanochat(
            args.nanochat.resolve(), args.nanochat_python.absolute(), args.work / "nanochat"
        )
    result: dict[str, Any] = {"system": peer.system(), "shape": SHAPE, "rows": args.rows, "contexts": {}}
    for context in map(int, args.contexts.split(",")):
        rounds: dict[str, list[dict[str, float]]] = {"ours": [], "nanochat": []}
        for _ in range(args.rounds):
            code = program("ours", args.rows, context, args.steps, args.compile)
            done = peer.run_process(
                [sys.executable, "-c", code], cwd=Path.cwd(), env={"OMP_NUM_THREADS": "1"}
            )
            rounds["ours"].append(json.loads(done.output.splitlines()[-1]))
            if nanochat:
                done = nanochat.script(program("nanochat", args.rows, context, args.steps, False), "bfloat16")
                rounds["nanochat"].append(json.loads(done.output.splitlines()[-1]))
            print(context, {side: runs[-1] for side, runs in rounds.items() if runs}, flush=True)
        sides: dict[str, Any] = {
            side: {name: round(statistics.median(run[name] for run in runs)) for name in runs[0]}
            for side, runs in rounds.items()
            if runs
        }
        if nanochat:
            sides["speed_ratio"] = round(
                statistics.median(
                    ours["tokens_per_cpu_s"] / theirs["tokens_per_cpu_s"]
                    for ours, theirs in zip(rounds["ours"], rounds["nanochat"], strict=True)
                ),
                3,
            )
            sides["memory_ratio"] = round(sides["ours"]["peak_mib"] / sides["nanochat"]["peak_mib"], 3)
        result["contexts"][str(context)] = sides
    peer.save_result("train_step", result)


if __name__ == "__main__":
    main()
