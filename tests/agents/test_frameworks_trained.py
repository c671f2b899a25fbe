"""A trained agent as the frameworks' own agent objects: asked natively, guarded, connected to the user's functions."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from melete import settings as settings_module
from melete.actions import trace
from melete.actions.action import ToolAction
from melete.agents import deploy
from melete.agents import scenario as scenarios
from melete.agents.trained import TrainedAgent
from melete.errors import ConfigError, DeploymentError, UnknownNameError
from melete.serve import models
from melete.serve.server import Server
from melete.settings import Settings

INSTALLED = {
    "openai": "openai",
    "langchain": "langchain_openai",
    "autogen": "autogen_agentchat",
    "crewai": "crewai",
}


def look(ticket: str) -> str:
    return f"{ticket} is blue"


def erase(ticket: str) -> str:
    raise AssertionError("the guard let it through")


def ask_langchain(agent: Any, text: str) -> str:
    return str(agent.invoke({"messages": [("user", text)]})["messages"][-1].text)


def ask_autogen(agent: Any, text: str) -> str:
    async def run() -> str:
        return str((await agent.run(task=text)).messages[-1].to_text())

    return asyncio.run(run())


ASK: dict[str, Callable[[Any, str], str]] = {
    "openai": lambda agent, text: str(agent.ask(text)),
    "langchain": ask_langchain,
    "autogen": ask_autogen,
    "crewai": lambda agent, text: str(agent.kickoff(text).raw),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A home with the scenario `desk`, and the echo model deployed as `desk_v1.0`."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "scenarios").mkdir()
    (folder / "scenarios" / "desk.py").write_text("from agents.desk import Desk as SCENARIO\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELETE_HOME", str(folder))
        settings = settings_module.load()
        deploy.deploy("echo", settings, scenario="desk")
        yield settings


@pytest.fixture(scope="module")
def trained(home: Settings) -> Iterator[TrainedAgent]:
    with TrainedAgent.load("desk_v1.0", settings=home) as agent:
        yield agent


@pytest.fixture(scope="module", params=sorted(ASK))
def name(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec(INSTALLED[request.param]) is None:
        pytest.skip(f"{request.param} is not installed here")
    return str(request.param)


def asked(trained: TrainedAgent, name: str, text: str, tools: Any) -> str:
    agent = getattr(trained, f"to_{name}")(tools=tools)
    return ASK[name](agent, text)


def test_agent_object_calls_the_users_function_and_answers(trained: TrainedAgent, name: str) -> None:
    answer = asked(trained, name, 'please\ncall look {"ticket":"T7"}', [look])
    assert answer == "The tool answered: T7 is blue"


def test_call_that_the_guard_refuses_never_reaches_the_users_function(
    trained: TrainedAgent, name: str
) -> None:
    answer = asked(trained, name, 'please\ncall erase {"ticket":"T7"}', [look, erase])
    assert answer.startswith("The tool answered: Refused: it is not among what is allowed")


def test_tool_without_a_function_says_that_it_is_not_connected(trained: TrainedAgent, name: str) -> None:
    answer = asked(trained, name, 'please\ncall close {"ticket":"T7","hours":1}', None)
    assert answer == "The tool answered: Error: This tool is not connected here."


def test_sampling_reaches_the_server(home: Settings, name: str) -> None:
    with TrainedAgent.load("desk_v1.0", settings=home, sampling={"max_tokens": 7, "seed": 1}) as short:
        assert len(asked(short, name, "one two three four five six", None)) == 7


def test_agent_object_is_the_frameworks_own(trained: TrainedAgent, name: str) -> None:
    own = {
        "openai": "ToolLoop",
        "langchain": "CompiledStateGraph",
        "autogen": "AssistantAgent",
        "crewai": "Agent",
    }
    assert type(getattr(trained, f"to_{name}")()).__name__ == own[name]


def test_practice_world_connects_all_tools_where_nothing_is_real(trained: TrainedAgent) -> None:
    world = trained.practice_world()
    loop = trained.to_openai(tools=world)
    loop.ask('please\ncall close {"ticket":"T1","hours":2}')
    assert world.state["closed"] == ["T1"]


def test_agent_at_a_server_is_asked_there(home: Settings) -> None:
    served = models.load_all(["desk_v1.0=echo"], home)
    with Server(served, home) as server:
        trained = TrainedAgent.load("desk_v1.0", url=f"{server.url}/v1", settings=home)
        assert trained.to_openai().ask("hello") == "hello"
        assert trained._server is None


def test_two_conversations_have_a_guard_session_each(trained: TrainedAgent) -> None:
    one, two = trained.start([look]), trained.start([look])
    assert one.act(ToolAction("look", {"ticket": "T1"})) == "T1 is blue"
    assert one._guard is not two._guard


def test_wrong_arguments_are_said_to_the_model(trained: TrainedAgent) -> None:
    assert "ticket is missing" in trained.start([look]).act(ToolAction("look", {"tick": 1}))


def test_failed_calls_are_worded_as_in_practice(trained: TrainedAgent) -> None:
    env = scenarios.load("desk").create_environment()
    env.reset()
    guarded = trained.start(trained.practice_world())
    calls = (
        ToolAction("nosuch", {}),
        ToolAction("look", {"tick": 1}),
        ToolAction("look", {"ticket": "T9"}),
        ToolAction("erase", {"ticket": "T1"}),
    )
    assert [guarded.act(call) for call in calls] == [env.step(call)[0] for call in calls]


def test_every_call_is_traced_with_its_verdict(home: Settings) -> None:
    with TrainedAgent.load("desk_v1.0", settings=home) as agent:
        guarded = agent.start([look])
        guarded.act(ToolAction("look", {"ticket": "T4"}))
        guarded.act(ToolAction("erase", {"ticket": "T4"}))
        assert agent.traces is not None
        *_, one, two = trace.read(agent.traces)
    assert (one["verdict"], one["result"], one["ok"]) == ("allow", "T4 is blue", True)
    assert (two["verdict"], two["ok"], two["rule"]) == ("refuse", False, "default")


def test_function_that_the_agent_has_no_tool_for_is_refused(trained: TrainedAgent) -> None:
    def dance() -> str:
        raise AssertionError

    with pytest.raises(ConfigError, match=r"no tool for dance.\nIts tools: .*look"):
        trained.start([dance])


def test_version_that_is_not_deployed_names_those_that_are(home: Settings) -> None:
    with pytest.raises(DeploymentError, match=r"no version 1\.9\.\nDeployed: 1\.0"):
        TrainedAgent.load("desk_v1.9", settings=home)


def test_name_of_nothing_is_an_unknown_run(home: Settings) -> None:
    with pytest.raises(UnknownNameError, match="no run named 'nothing'"):
        TrainedAgent.load("nothing", settings=home)


def test_checkpoint_with_its_scenario_named_is_an_agent(home: Settings, tmp_path: Path) -> None:
    from llm.tiny import own_checkpoint

    checkpoint = own_checkpoint(tmp_path / "tiny", context=256)
    with pytest.raises(ConfigError, match="scenario="):
        TrainedAgent.load(str(checkpoint), settings=home)
    with TrainedAgent.load(str(checkpoint), scenario="desk", settings=home, device="cpu") as agent:
        assert agent.base_url.endswith("/v1")
        assert {tool.name for tool in agent.start().tools} == {"look", "close", "erase"}
