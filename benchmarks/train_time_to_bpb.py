"""CPU time to nanochat's validation bits per byte: same text, same tokens, one thread, all evaluations included.

nanochat runs three times for 300 steps of 4,096 tokens at sequence 256, depth 4: as it comes (fp32), in bf16, and in
bf16 with its rates times three and a warm-up of ten steps. Ours runs with its defaults, once per horizon in
`--tokens`. CPU seconds are user + system of the whole process with its children, imports and compilation included.

Both models are judged on nanochat's own validation rows (its loader's, so with its cropping), which is what its
reported figure is over; ours is also validated on its own rows inside its timed run, for as many tokens. The
merges are nanochat's, so a token is the same token for both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import peer

EVAL_TOKENS = 131_072
STEPS = 300
BASE = (
    "--depth=4", "--head-dim=64", "--window-pattern=L", "--max-seq-len=256", "--device-batch-size=16",
    "--total-batch-size=4096", f"--num-iterations={STEPS}", "--eval-every=50", f"--eval-tokens={EVAL_TOKENS}",
    "--core-metric-every=-1", "--sample-every=-1",
)  # fmt: skip
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fp32": ("float32", ()),
    "bf16": ("bfloat16", ()),
    "bf16_rates_x3": (
        "bfloat16",
        (
            "--embedding-lr=0.9",
            "--unembedding-lr=0.024",
            "--matrix-lr=0.06",
            "--scalar-lr=1.5",
            "--warmup-steps=10",
        ),
    ),
}
GOALS = {"fp32": 0.12, "bf16": 0.25, "bf16_rates_x3": 0.6}


def run_peer(nanochat: peer.Nanochat, variant: str) -> dict[str, Any]:
    dtype, flags = VARIANTS[variant]
    done = nanochat.run("scripts.base_train", *BASE, *flags, dtype=dtype)
    curve = {int(s): float(b) for s, b in re.findall(r"Step (\d+) \| Validation bpb: ([\d.]+)", done.output)}
    return {
        "cpu_s": round(done.cpu_s, 1),
        "wall_s": round(done.wall_s, 1),
        "bpb": curve[STEPS],
        "curve": curve,
    }


def peer_rows(nanochat: peer.Nanochat) -> Path:
    """Validation rows as nanochat's loader makes them, (R, 257)."""
    path = nanochat.base / "validation_rows.npy"
    if not path.exists():
        nanochat.script(
            "import numpy as np\n"
            "from nanochat.tokenizer import get_tokenizer\n"
            "from nanochat.dataloader import tokenizing_distributed_data_loader_bos_bestfit as loader\n"
            "batches = loader(get_tokenizer(), 16, 256, 'val', device='cpu')\n"
            "rows = []\n"
            f"for _ in range({EVAL_TOKENS} // 4096):\n"
            "    x, y = next(batches)\n"
            "    rows.append(np.concatenate((x.numpy(), y.numpy()[:, -1:]), 1))\n"
            f"np.save({str(path)!r}, np.concatenate(rows))\n"
        )
    return path


def prepare_ours(
    work: Path, train: list[str], validation: list[str], merges: tuple[list[bytes], str] | None
) -> None:
    """The same documents as a folder of JSONL, and the tokenizer."""
    from melete.llm.tokenizer import Tokenizer

    (work / "text").mkdir(parents=True, exist_ok=True)
    for split, documents in (("train", train), ("val", validation)):
        lines = (json.dumps({"text": text}) for text in documents)
        (work / "text" / f"{split}.jsonl").write_text("\n".join(lines))
    tokenizer = Tokenizer(*merges) if merges else Tokenizer.train(train, peer.VOCAB_SIZE)
    tokenizer.save(work / "tokenizer.json")


def run_ours(work: Path, tokens: int, flags: list[str]) -> dict[str, Any]:
    home = work / "home"
    before = set((home / "runs").glob("*")) if home.exists() else set()
    done = peer.run_process(
        [
            sys.executable, "-m", "melete", "llm", "pretrain", "--data", str(work / "text"), "--context", "256",
            "--tokenizer", str(work / "tokenizer.json"), "--tokens", str(tokens), "--save-every", "0",
            "--eval-tokens", str(EVAL_TOKENS), *flags,
        ],
        cwd=work,
        env={"OMP_NUM_THREADS": "1", "MELETE_HOME": str(home)},
    )  # fmt: skip
    folder = (set((home / "runs").glob("*")) - before).pop()
    result = json.loads((folder / "run.json").read_text())["result"]
    return {
        "tokens": tokens,
        "cpu_s": round(done.cpu_s, 1),
        "wall_s": round(done.wall_s, 1),
        "own_bpb": result["val_bpb"],
        "folder": str(folder),
    }


def bpb_on(rows_file: Path, folder: Path) -> float:
    """Bits per byte of our model on nanochat's rows."""
    import numpy as np
    import torch

    from melete.llm.checkpoint import load_model
    from melete.llm.data import bits_per_byte
    from melete.runs import checkpoints

    latest = checkpoints.latest(folder / "checkpoints")
    assert latest is not None
    model, tokenizer, _ = load_model(latest, dtype=torch.bfloat16)
    rows = torch.from_numpy(np.load(rows_file)).long()
    token_bytes = torch.from_numpy(tokenizer.token_bytes)
    nats, count = 0.0, 0
    with torch.no_grad():
        for part in rows.split(16):
            counted = token_bytes[part[:, 1:]]
            losses = model(part[:, :-1], part[:, 1:], reduction="none")
            nats += (losses * (counted > 0)).double().sum().item()
            count += int(counted.sum())
    return bits_per_byte(nats, count)


def main() -> None:
    parser: argparse.ArgumentParser = peer.arguments(__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="400000,1000000", help="horizons of ours")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="variants of nanochat to run")
    parser.add_argument("--flags", default="", help="further flags of melete llm pretrain")
    parser.add_argument(
        "--peer-result", type=Path, help="take nanochat's figures from an earlier result here"
    )
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    train, validation = peer.corpus(args.data)
    args.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"system": peer.system(), "nanochat": {}, "ours": []}
    merges, rows = None, None
    if args.nanochat:
        nanochat = peer.Nanochat(
            args.nanochat.resolve(), args.nanochat_python.absolute(), args.work / "nanochat"
        )
        nanochat.prepare(train, validation)
        merges, rows = nanochat.merges(), peer_rows(nanochat)
        if args.peer_result:
            result["nanochat"] = json.loads(args.peer_result.read_text())["nanochat"]
        for variant in filter(None, args.variants.split(",")):
            result["nanochat"][variant] = run_peer(nanochat, variant)
            print(variant, result["nanochat"][variant], flush=True)
    prepare_ours(args.work, train, validation, merges)
    for tokens in map(int, args.tokens.split(",")):
        ours = run_ours(args.work, tokens, args.flags.split())
        folder = Path(ours.pop("folder"))
        if rows is not None:
            ours["bpb"] = round(bpb_on(rows, folder), 4)
        result["ours"].append(ours)
        print(ours, flush=True)
    result["ratios"] = {
        variant: {
            "to_bpb": theirs["bpb"],
            "peer_cpu_s": theirs["cpu_s"],
            "ours_cpu_s": min(
                (o["cpu_s"] for o in result["ours"] if o["bpb"] <= theirs["bpb"]), default=None
            ),
            "goal": GOALS[variant],
        }
        for variant, theirs in result["nanochat"].items()
    }
    for row in result["ratios"].values():
        row["ratio"] = round(row["ours_cpu_s"] / row["peer_cpu_s"], 3) if row["ours_cpu_s"] else None
    peer.save_result("train_time_to_bpb", result)


if __name__ == "__main__":
    main()
