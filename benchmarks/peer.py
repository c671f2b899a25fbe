"""What the language-model benchmarks share: the text, nanochat's environment, and CPU seconds of a child process.

The text is WikiText-2 (validation half), tinyshakespeare and GSM8K's training problems: sections, speeches and
problems as documents, shuffled with a fixed seed, the last tenth held out. nanochat reads it from parquet shards in
its base folder and trains its own tokenizer on it; ours takes over the same merges, so both see the same tokens.

nanochat is run unmodified as its own process, from its folder, with `--nanochat-python` when it needs another
environment (pyarrow, filelock, wandb or an empty module of that name).
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCAB_SIZE = 4096
DOCUMENT_CHARS = 1_200


def corpus(data: Path) -> tuple[list[str], list[str]]:
    """Train and validation documents, the same on every machine."""
    wiki = (data / "text_wikitext2_valid_test" / "valid.txt").read_text(encoding="utf-8")
    plays = (data / "text_tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    problems = (data / "eval_gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [part.strip() for part in re.split(r"(?m)^(?= = )", wiki) if part.strip()]
    speeches: list[str] = []
    for speech in plays.split("\n\n"):
        if speeches and len(speeches[-1]) + len(speech) < DOCUMENT_CHARS:
            speeches[-1] += "\n\n" + speech
        else:
            speeches.append(speech)
    documents += speeches
    documents += [f"{row['question']}\n{row['answer']}" for row in map(json.loads, problems)]
    random.Random(7).shuffle(documents)
    held_out = len(documents) // 10
    return documents[:-held_out], documents[-held_out:]


def system() -> dict[str, Any]:
    """Machine and versions, for a results file."""
    import torch

    cpu = next(
        (x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), platform.machine()
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join([Path(sys.argv[0]).name, *(_short(a) for a in sys.argv[1:])]),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _short(argument: str) -> str:
    return Path(argument).name if "/" in argument else argument


def save_result(name: str, result: dict[str, Any]) -> None:
    """Writes `benchmarks/results/<name>.json` and prints it."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


@dataclass(frozen=True)
class Finished:
    """A child process that ended: its output and what it cost."""

    output: str
    cpu_s: float
    wall_s: float


def run_process(command: list[str], *, cwd: Path, env: dict[str, str]) -> Finished:
    """Runs a command; CPU seconds are user + system of it and of all its children (a compiler's too)."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(done.stdout, cpu, time.time() - wall)


@dataclass(frozen=True)
class Nanochat:
    """nanochat's folder, its interpreter and the base folder with shards, tokenizer and checkpoints."""

    folder: Path
    python: Path
    base: Path

    def environment(self, dtype: str) -> dict[str, str]:
        return {
            "NANOCHAT_BASE_DIR": str(self.base),
            "NANOCHAT_DTYPE": dtype,
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(self.base / f"inductor_{time.time_ns()}"),
            "PYTHONPATH": str(self.folder),
        }

    def run(self, module: str, *flags: str, dtype: str = "float32") -> Finished:
        return run_process(
            [str(self.python), "-m", module, *flags], cwd=self.folder, env=self.environment(dtype)
        )

    def script(self, code: str, dtype: str = "float32") -> Finished:
        """Runs a few lines of Python in nanochat's environment."""
        return run_process([str(self.python), "-c", code], cwd=self.folder, env=self.environment(dtype))

    def prepare(self, train: list[str], validation: list[str]) -> None:
        """Writes the shards and trains nanochat's tokenizer, once per base folder."""
        shards = self.base / "base_data_climbmix"
        if (self.base / "tokenizer" / "tokenizer.pkl").exists():
            return
        shards.mkdir(parents=True, exist_ok=True)
        for name, documents in (("shard_00000", train), ("shard_00001", validation)):
            (shards / f"{name}.json").write_text(json.dumps(documents))
        self.script(
            "import json, pyarrow as pa, pyarrow.parquet as pq\n"
            f"for name in ('shard_00000', 'shard_00001'):\n"
            f"    path = {str(shards)!r} + '/' + name\n"
            "    table = pa.table({'text': json.load(open(path + '.json'))})\n"
            "    pq.write_table(table, path + '.parquet', row_group_size=256)\n"
        )
        self.run("scripts.tok_train", f"--vocab-size={VOCAB_SIZE}")

    def merges(self) -> tuple[list[bytes], str]:
        """Tokens by rank and split pattern of its tokenizer."""
        encoding = pickle.loads((self.base / "tokenizer" / "tokenizer.pkl").read_bytes())
        ranks = encoding._mergeable_ranks
        return sorted(ranks, key=ranks.__getitem__), encoding._pat_str


def arguments(description: str) -> argparse.ArgumentParser:
    """Flags of every benchmark that stands beside nanochat."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the texts")
    parser.add_argument("--nanochat", type=Path, help="nanochat's folder; without it only ours runs")
    parser.add_argument("--nanochat-python", type=Path, default=Path(sys.executable))
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "melete-benchmark", help="scratch folder"
    )
    return parser
