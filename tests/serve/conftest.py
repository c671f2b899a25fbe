"""A real server on a free port with the real engine over a tiny random model of ours, and the echo model beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from llm.tiny import own_checkpoint
from melete.serve import echo, models
from melete.serve.models import ServedModel
from melete.serve.server import Server
from melete.settings import Settings

CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Work out an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "maxLength": 8}},
            "required": ["expression"],
            "additionalProperties": False,
        },
    },
}


def echo_model(**options: Any) -> ServedModel:
    """The echo model."""
    lm = echo.load()
    return ServedModel("echo", lm, echo.EchoEngine(lm, **options), models.ECHO)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny random model with a context of 512 tokens."""
    return own_checkpoint(tmp_path_factory.mktemp("runs") / "tiny", context=512)


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves `tiny` (the real engine) and `echo`."""
    settings = Settings.of(tmp_path_factory.mktemp("home"))
    served = models.load_all([f"tiny={checkpoint}", "echo"], settings, device="cpu", slots=8)
    with Server(served, settings) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """The official client on the server."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made
