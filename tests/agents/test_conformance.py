"""Every scenario keeps what a scenario promises, whoever wrote it."""

from __future__ import annotations

import pytest

from melete.agents import conformance, scenario
from melete.agents.conformance import Check
from melete.agents.scenario import Scenario, Task
from melete.errors import MissingExtraError


@pytest.fixture(scope="module", params=scenario.names())
def played(request: pytest.FixtureRequest) -> tuple[Scenario, list[Task]]:
    """A scenario and two tasks of each of its splits."""
    try:
        loaded = scenario.load(request.param)
    except MissingExtraError as error:
        pytest.skip(str(error))
    if reason := loaded.unavailable():
        pytest.skip(reason)
    return loaded, conformance.some_tasks(loaded, 2)


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_scenario_keeps_its_promise(played: tuple[Scenario, list[Task]], check: Check) -> None:
    assert check(*played) == []


def test_there_are_scenarios() -> None:
    assert "customer_support" in scenario.names()
