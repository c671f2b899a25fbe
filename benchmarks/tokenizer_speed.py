"""Tokenizing a corpus on two threads, tokens per second: ours beside nanochat's, same merges, same documents.

Ours encodes joined documents with one call per half of the corpus into an array, as the data loader does; nanochat
encodes a list of documents on two threads, as its loader does. Rounds alternate; medians are compared, in wall time
and in CPU time, which is steadier on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import peer

TIMING = """
import json, time
documents = json.load(open(DOCUMENTS))
def measure(encode):
    encode()
    wall, cpu, count = time.perf_counter(), time.process_time(), encode()
    print(json.dumps({"per_s": count / (time.perf_counter() - wall), "per_cpu_s": count / (time.process_time() - cpu)}))
"""

OURS = """
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from melete.llm.tokenizer import Tokenizer
tokenizer = Tokenizer.load(Path(TOKENIZER))
halves = [documents[0::2], documents[1::2]]
pool = ThreadPoolExecutor(2)
measure(lambda: sum(len(ids) for ids in pool.map(tokenizer.encode_documents, halves)))
"""

NANOCHAT = """
from nanochat.tokenizer import get_tokenizer
tokenizer = get_tokenizer()
bos = tokenizer.get_bos_token_id()
measure(lambda: sum(len(ids) for ids in tokenizer.encode(documents, prepend=bos, num_threads=2)))
"""


def main() -> None:
    parser: argparse.ArgumentParser = peer.arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    from melete.llm.tokenizer import Tokenizer

    train, validation = peer.corpus(args.data)
    args.work.mkdir(parents=True, exist_ok=True)
    documents, tokenizer = args.work / "documents.json", args.work / "tokenizer.json"
    documents.write_text(json.dumps(train))
    nanochat = None
    if args.nanochat:
        nanochat = peer.Nanochat(
            args.nanochat.resolve(), args.nanochat_python.absolute(), args.work / "nanochat"
        )
        nanochat.prepare(train, validation)
        Tokenizer(*nanochat.merges()).save(tokenizer)
    else:
        Tokenizer.train(train, peer.VOCAB_SIZE).save(tokenizer)
    values = f"DOCUMENTS, TOKENIZER = {str(documents)!r}, {str(tokenizer)!r}\n"
    rounds: dict[str, list[dict[str, float]]] = {"ours": [], "nanochat": []}
    for _ in range(args.rounds):
        code = values + TIMING + OURS
        done = peer.run_process([sys.executable, "-c", code], cwd=Path.cwd(), env={"OMP_NUM_THREADS": "1"})
        rounds["ours"].append(json.loads(done.output.splitlines()[-1]))
        if nanochat:
            done = nanochat.script(values + TIMING + NANOCHAT)
            rounds["nanochat"].append(json.loads(done.output.splitlines()[-1]))
    result: dict[str, Any] = {"system": peer.system(), "characters": sum(map(len, train))}
    for side, runs in rounds.items():
        if runs:
            result[side] = {name: round(statistics.median(run[name] for run in runs)) for name in runs[0]}
    if nanochat:
        result["ratio"] = {
            name: round(result["ours"][name] / result["nanochat"][name], 2) for name in result["ours"]
        }
    peer.save_result("tokenizer_speed", result)


if __name__ == "__main__":
    main()
