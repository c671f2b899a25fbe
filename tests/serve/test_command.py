"""`melete serve` as a command: what it says, how it fails, and that it answers; the Python of the guide runs."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from melete.cli._root import run
from melete.serve.server import Server
from melete.settings import Settings

MELETE = [sys.executable, "-m", "melete"]
GUIDE = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.mark.slow
def test_serve_answers_and_ends_on_ctrl_c(home: Settings) -> None:
    command = [*MELETE, "serve", "--model", "mine=echo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            said += child.stdout.readline()
        url = re.search(r"http://[\d.:]+", said)
        assert url is not None
        assert httpx.get(f"{url[0]}/v1/models").json()["data"][0]["id"] == "mine"
        child.send_signal(signal.SIGINT)
        child.wait(timeout=30)
    assert "/chat" in said


def test_serve_taken_port_exits_8_before_a_model_is_loaded(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "--model", "no-such-model", "--port", str(port)]) == 8
    said = capsys.readouterr().err
    assert f"Port {port} on 127.0.0.1 is already in use." in said
    assert f"--port {port + 1}" in said


def test_serve_open_address_without_token_exits_8(home: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--model", "echo", "--host", "0.0.0.0", "--port", "0"]) == 8
    assert "MELETE_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "chat"])
def test_unknown_model_lists_the_known_runs(
    home: Settings, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = "20261120-120000-llm_sft-0000"
    folder = home.runs / known
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(
        json.dumps({"id": known, "process": "llm.sft", "state": "succeeded", "created_s": 1.0})
    )
    arguments = ["--port", "0", "--model", "nothing"] if command == "serve" else ["nothing"]
    assert run([command, *arguments]) == 2
    assert known in capsys.readouterr().err


def test_python_of_the_guide_runs(home: Settings, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    client, swap = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    exec(client.replace("http://127.0.0.1:8675", server.url), {})
    assert capsys.readouterr().out == "Hello"
    exec(swap, {})
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
