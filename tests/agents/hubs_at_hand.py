"""What the tests of hubs share: setups of tiny policies, and skips where a hub's environment has not been made."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from agents.desk import Desk, echo_model
from melete.agents import frameworks
from melete.agents.hub import Hub, Played, Setup
from melete.agents.hubs._child import python_of
from melete.errors import HubError


def need_environment(environment: str) -> None:
    """Skips a test where an environment has not been made."""
    try:
        python_of(environment)
    except HubError:
        pytest.skip(f"python tools/envs.py {environment} has not been run")


def need(name: str) -> None:
    """Skips a test whose hub has no environment here."""
    environment = getattr(importlib.import_module(f"melete.agents.hubs.{name}"), "ENVIRONMENT", None)
    if environment is not None:
        need_environment(environment)


def echo_setup(**options: Any) -> Setup:
    """The desk, played by the plain agent on the echo model, which does what the person says."""
    model = echo_model()
    played = Played(model.lm, cast(Any, model.engine))
    given: dict[str, Any] = {
        "agent": frameworks.load("openai").default_agent(),
        "max_tokens": 64,
        "workers": 4,
    }
    return Setup(Desk(), played, **{**given, **options})


def drawn_setup(checkpoint: Path, **options: Any) -> Setup:
    """The desk, played by the plain agent on a tiny random model, whose words depend on every seed."""
    import torch

    from melete.llm import lm as llm
    from melete.llm.engine import Engine

    lm = llm.load(str(checkpoint), None, torch.device("cpu"))  # type: ignore[arg-type]
    engine = Engine(lm, slots=8, dtype=torch.float32)
    given: dict[str, Any] = {
        "agent": frameworks.load("openai").default_agent(),
        "max_tokens": 12,
        "workers": 4,
    }
    return Setup(Desk(), Played(lm, engine), **{**given, **options})


@contextmanager
def opened(name: str, setup: Setup) -> Iterator[Hub]:
    """A hub, closed at the end."""
    need(name)
    hub: Hub = importlib.import_module(f"melete.agents.hubs.{name}").open(setup)
    try:
        yield hub
    finally:
        hub.close()


def all_of(hub: Hub, count: int, wait_s: float = 60.0) -> dict[str, Any]:
    """Collects `count` episodes by id."""
    episodes: dict[str, Any] = {}
    while len(episodes) < count:
        news = hub.completed(wait_s)
        assert news, f"only {len(episodes)} of {count} episodes came"
        episodes.update((episode.id, episode) for episode in news)
    return episodes
