"""Runs behind a provider of kind `melete`: served by a child for as long as the block lasts."""

from __future__ import annotations

import json
import urllib.request

import pytest

from melete.bench.serving import serve
from melete.errors import ServerError
from melete.gateway.provider import Provider
from melete.settings import Settings

pytestmark = pytest.mark.slow


def provider(**models: str) -> Provider:
    offered = {name: {"serve": ref} for name, ref in models.items()}
    return Provider.model_validate({"name": "local", "kind": "melete", "models": offered})


def test_serve_two_models_answer_under_their_names_and_end_with_the_block(home: Settings) -> None:
    elsewhere = Provider.model_validate(
        {"name": "far", "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "models": {"x": {}}}
    )
    with serve(home, [provider(before="echo", after="echo"), elsewhere], device="cpu", slots=2) as served:
        served.wait()
        assert served.providers[1] == elsewhere
        (child,) = served.children
        with urllib.request.urlopen(f"{served.providers[0].base_url}/models", timeout=10) as answer:
            names = [model["id"] for model in json.load(answer)["data"]]
        assert names == ["before", "after"]
    assert child.process.returncode is not None


def test_serve_model_that_cannot_be_loaded_says_why(home: Settings) -> None:
    missing = provider(before="no-such-run")
    with (
        serve(home, [missing], device="cpu", slots=2) as served,
        pytest.raises(ServerError, match="no-such-run"),
    ):
        served.wait()
