"""Every harness that ships a profile, run for real: through the real gateway, against the scripted upstream.

A file of `harness_tries/` says what a harness is told to do by the script, and what its session has to show afterwards.
The world beyond this machine is played by a proxy that lets nothing through and notes who was asked for.
"""

from __future__ import annotations

import json
import re
import select
import socket
import socketserver
import subprocess
import textwrap
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway_at_hand import AtHand, at_hand
from melete import documents, find
from melete.bench import attempt, session, snippet
from melete.bench.harness_profile import PLACEHOLDERS, HarnessProfile, render
from melete.bench.session import Plan
from melete.bench.task_card import TaskCard
from melete.bench.variant import Variant
from melete.gateway.echo.script import Script
from melete.gateway.provider import Provider

TRIES = Path(__file__).parent / "harness_tries"
PROFILES = find.folder_of("melete.bench.harness_profiles")
NAMES = find.names("melete.bench.harness_profiles", ".yaml")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bench" / "harnesses.md"
ENVS = ROOT / ".envs"
VALUES = {key: f"<{key}> of $HOME; #" for key in PLACEHOLDERS}
PROMPT = "Write a file hello.txt with the one word hello in it."


def profile_of(name: str) -> HarnessProfile:
    return documents.read(PROFILES / f"{name}.yaml", HarnessProfile, "harness profile").record


def wanted_of(name: str) -> dict[str, Any]:
    wanted: dict[str, Any] = yaml.safe_load((TRIES / f"{name}.yaml").read_text("utf-8"))
    return wanted


TRIED = sorted(path.stem for path in TRIES.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_profile_rendered_names_no_secret_and_leaves_no_placeholder(name: str) -> None:
    profile = profile_of(name)
    sources = [file.text if file.text is not None else (PROFILES / str(file.source)).read_text("utf-8")
               for file in profile.files.values()]  # fmt: skip
    templates = [*profile.environment.values(), *profile.command, *profile.version_command, *sources]

    rendered = [render(template, VALUES) for template in templates]

    assert not [text for text in rendered for key in PLACEHOLDERS if "{" + key + "}" in text]
    assert not [text for text in rendered if "sk-" in text]
    assert any("<key>" in text for text in rendered)


@pytest.mark.parametrize("name", NAMES)
def test_profile_environment_comes_out_of_a_shell_and_of_every_format_as_it_is(name: str) -> None:
    profile = profile_of(name)
    environment = {key: render(text, VALUES) for key, text in profile.environment.items()}

    texts = {kind: snippet.render(kind, environment, profile.unset) for kind in snippet.FORMATS}
    told = subprocess.run(["sh", "-c", f"{texts['shell']}env -0"], capture_output=True, check=True).stdout

    in_shell = dict(line.split("=", 1) for line in told.decode().split("\0") if line)
    assert environment.items() <= in_shell.items()
    assert not in_shell.keys() & (set(profile.unset) - environment.keys())
    assert json.loads(texts["json"])["environment"] == environment
    assert all(key in texts[kind] for kind in texts for key in environment)


@pytest.mark.parametrize("name", NAMES)
def test_profile_files_rendered_are_what_their_names_say(name: str) -> None:
    read = {
        ".json": json.loads,
        ".toml": tomllib.loads,
        ".yaml": yaml.safe_load,
        ".py": lambda text: compile(text, name, "exec"),
    }
    profile = profile_of(name)

    for path, file in profile.files.items():
        template = file.text if file.text is not None else (PROFILES / str(file.source)).read_text("utf-8")
        suffix = Path(path).suffix
        if suffix in read:
            read[suffix](render(template, VALUES))


@pytest.mark.parametrize("name", NAMES)
def test_profile_is_described_in_the_table_of_the_docs(name: str) -> None:
    profile = profile_of(name)

    row = next(line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| `{name}` |"))

    assert profile.status.version is None or profile.status.version in row
    assert profile.notes


@pytest.mark.parametrize("name", [name for name in NAMES if profile_of(name).installed_in])
def test_environment_of_a_profile_has_a_lock_file_that_pins_everything(name: str) -> None:
    lock = ROOT / "envs" / f"{profile_of(name).installed_in}.lock"

    lines = [line for line in lock.read_text("utf-8").splitlines() if line and not line.startswith("#")]

    pinned = re.compile(r"(@?[\w./-]+@|[\w.\[\]-]+==)\d[\w.+-]*( ;.*)?")
    assert lines
    assert not [line for line in lines if not pinned.fullmatch(line)]


def test_core_knows_no_harness_by_name() -> None:
    plain = {"ask", "llm", "langchain", "openai_sdk", "anthropic_sdk", "melete_agent"}
    named = re.compile(
        "|".join(name.replace("_", "[-_ ]?") for name in NAMES if name not in plain), re.IGNORECASE
    )
    rooms = ("api", "bench", "cli", "gateway", "records.py", "store")

    files = [file for room in rooms for file in (find.folder_of("melete") / room).glob("**/*.py")]

    assert len(files) > 50
    assert not [file.name for file in files if named.search(file.read_text("utf-8"))]


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
def test_yaml_on_the_page_is_what_it_is_said_to_be(block: str) -> None:
    values = yaml.safe_load(textwrap.dedent(block))
    model = {"environment": HarnessProfile, "rules": Script, "harness_profile": Variant, "kind": Provider,
             "checker": TaskCard}  # fmt: skip

    kind = next(model[key] for key in model if key in values)

    assert kind.model_validate({**({"name": "mine"} if "name" in kind.model_fields else {}), **values})


@pytest.mark.parametrize("name", [name for name in NAMES if profile_of(name).mode == "command"])
def test_profile_with_a_command_that_is_called_tried_has_a_try(name: str) -> None:
    assert (TRIES / f"{name}.yaml").is_file() or profile_of(name).status.state == "untried"


@pytest.mark.slow
@pytest.mark.xdist_group("gateway")
@pytest.mark.parametrize(
    ("name", "model"), [(name, model) for name in TRIED for model in wanted_of(name)["models"]]
)
def test_harness_through_the_gateway_solves_its_task_and_its_requests_are_counted(
    name: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: Outside
) -> None:
    wanted, profile = wanted_of(name), profile_of(name)
    if profile.installed_in and not (ENVS / profile.installed_in / "bin").is_dir():
        pytest.skip(f"python tools/envs.py {profile.installed_in} has not been run")
    hand = at_hand()
    (tmp_path / "home").mkdir()
    for key in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(key, outside.url)
    for key in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(key, "127.0.0.1,localhost")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    write_files(hand, name, model, wanted["checker"])
    hand.upstream.play(Script.model_validate(wanted["script"]))

    try:
        opened = session.start(hand.settings, Plan(f"try_{name}", f"try_{name}"), hand.url)
        record, ended = attempt.play(hand.settings, opened, quiet=True)
    finally:
        hand.upstream.play(Script())
    rows = hand.requests(record.id, len(wanted["streamed"]))

    assert (record.solved, ended.exit_code) == (True, 0), f"{record.outcome_note}, {ended}"
    assert [row["status"] for row in rows] == ["ok"] * len(wanted["streamed"])
    assert {row["endpoint"] for row in rows} == {wanted["endpoint"]}
    assert {row["model_asked"] for row in rows} == {model}
    assert sorted(bool(row["stream"]) for row in rows) == sorted(wanted["streamed"])
    assert sum(row["tool_calls"] or 0 for row in rows) == wanted["tool_calls"]
    assert all(row["tokens_in"] > 0 and row["tokens_out"] > 0 and row["cost_usd"] > 0 for row in rows)
    assert outside.asked_for <= {".".join(parts) for parts in wanted.get("calls_out", ())}


def write_files(hand: AtHand, name: str, model: str, checker: dict[str, Any]) -> None:
    """Provider, variant and task card of a try, in the bench folder of the gateway at hand."""
    models = {model: {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}
    files = {
        f"providers/try_{name}": {"kind": "echo", "base_url": f"{hand.upstream.url}/v1", "models": models},
        f"variants/try_{name}": {
            "harness_profile": name, "provider": f"try_{name}", "model": model,
        },
        f"task_cards/try_{name}": {
            "description": "A try.", "prompt": PROMPT, "files": {"README.md": "A try.\n"},
            "checker": checker, "timeout_s": 300,
        },
    }  # fmt: skip
    for path, content in files.items():
        file = hand.settings.bench / f"{path}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content), encoding="utf-8")


class Outside:
    """A proxy that lets nothing out of this machine, and the hosts that it was asked for."""

    def __init__(self) -> None:
        self.asked_for: set[str] = set()
        noted = self.asked_for

        class Note(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                words = self.rfile.readline(4096).decode("latin-1").split()
                while self.rfile.readline(4096).strip():
                    pass
                host, _, port = (
                    (words[1] if len(words) > 1 else "").split("://")[-1].split("/")[0].partition(":")
                )
                if host == "127.0.0.1":  # some harnesses take a proxy even where they are told not to
                    self.tunnel(int(port))
                else:
                    noted.add(host)
                    self.wfile.write(
                        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    )

            def tunnel(self, port: int) -> None:
                with socket.create_connection(("127.0.0.1", port)) as far:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                    ends = {self.connection: far, far: self.connection}
                    while True:
                        for end in select.select(list(ends), [], [])[0]:
                            data = end.recv(65536)
                            if not data:
                                return
                            ends[end].sendall(data)

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Note)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def outside() -> Iterator[Outside]:
    proxy = Outside()
    thread = threading.Thread(target=proxy.server.serve_forever, daemon=True)
    thread.start()
    yield proxy
    proxy.server.shutdown()
    proxy.server.server_close()
    thread.join()
