"""The whole pipeline at toy size, from text to an answer over HTTP, in a temporary home: what `make smoke` runs.

    python tools/smoke.py

Every step is the command that a user would type. It ends with exit code 0 and one line, or with the first command
that failed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

JOB = """
name: smoke
processes:
  - {process: llm.tokenizer, name: tokenizer, config: {data: stdlib, vocab_size: 512}}
  - process: llm.pretrain
    name: base
    config: {data: stdlib, tokenizer: "@tokenizer", depth: 1, context: 256, steps: 20, eval_tokens: 4096}
  - {process: llm.sft, name: chat, config: {base: "@base", data: toolcalls, steps: 5}}
  - process: llm.rl
    name: practised
    config: {base: "@chat", task: calculator, steps: 2, problems: 2, group: 2, max_tokens: 8, val_problems: 2}
  - process: llm.evaluate
    name: scores
    config: {run: "@practised", tasks: [toolcalls, bits_per_byte], limit: 4}
"""


def main() -> int:
    """Runs the job, then serves the model and asks it once."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = {**os.environ, "MELETE_HOME": str(home)}
        (home / "smoke.yaml").write_text(JOB, encoding="utf-8")
        subprocess.run([*MELETE, "run", str(home / "smoke.yaml")], env=environment, check=True)
        answer = ask_served(environment)
    print(f"\nsmoke passed in {time.perf_counter() - began:.0f} s; the served model said {answer!r}")
    return 0


def ask_served(environment: dict[str, str]) -> str:
    """Starts `melete serve` on a free port, sends one chat message, returns the answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [*MELETE, "serve", "--model", "practised", "--port", str(port)]
    server = subprocess.Popen(command, env=environment)
    try:
        wait_until_healthy(url, server)
        body = {"model": "practised", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return str(json.load(response)["choices"][0]["message"]["content"])
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_until_healthy(url: str, server: subprocess.Popen[bytes], limit_s: float = 120) -> None:
    """Asks `/health` until it answers; ends with the server's exit code if it died."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"melete serve ended with exit code {server.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    sys.exit(f"melete serve did not answer within {limit_s:.0f} s")


MELETE = [sys.executable, "-m", "melete"]

if __name__ == "__main__":
    sys.exit(main())
