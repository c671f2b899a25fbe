"""An agent that has practised, ready for use: its model, prompt and tools as an agent object of a framework, guarded.

    with TrainedAgent.load("customer_support_v1.2") as trained:
        agent = trained.to_langchain(tools=[get_order, refund])

The model is asked at `url` if there is a server, else it is served from this process while the agent is open. Every
call is judged by the guard that it practised with before a function of yours runs, and no prompt switches that off.
**One agent object is one conversation**: the guard remembers what was done (an identity that was verified, money that
was spent), so make a new one for the next person; it costs milliseconds.

A tool for which no function was given answers that it is not connected. `tools=` also takes a world of the scenario, to
try an agent where nothing is real: `trained.to_openai(tools=trained.practice_world())`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melete import settings as settings_module
from melete.actions.action import ToolAction
from melete.actions.guard import Guard, GuardSession, Verdict
from melete.actions.tools import Tool, ToolSet
from melete.agents import frameworks
from melete.agents import scenario as scenarios
from melete.agents.scenario import World
from melete.errors import ConfigError, UnknownNameError
from melete.records import ToolCall
from melete.settings import Settings

if TYPE_CHECKING:
    from melete.serve.server import Server

NOT_CONNECTED = "This tool is not connected here."
Functions = Iterable[Tool | Callable[..., Any]] | World | None


@dataclass
class TrainedAgent:
    """What practice made, by its name; see the head of this file. Make one with `load`.

    Attributes:
        name: such as `customer_support_v1.2`; also the model's name.
        checkpoint: folder of the weights; None is the echo model.
        scenario: name of the scenario that it practised.
        system_prompt: what it was told.
        schemas: its tools in OpenAI's form.
        guard: judges every call.
        url: of an OpenAI-compatible server that serves the model by its name, ending in `/v1`; empty serves it here.
        api_key: for that server.
        confirm: asked when the guard wants a person to confirm a call; nobody confirms by default.
    """

    name: str
    checkpoint: Path | None
    scenario: str
    system_prompt: str
    schemas: tuple[dict[str, Any], ...]
    guard: Guard
    url: str = ""
    api_key: str = field(default="none", repr=False)
    confirm: Callable[[ToolAction], bool] = lambda action: False
    settings: Settings = field(default_factory=settings_module.load, repr=False)
    device: str = "auto"
    _server: Server | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        url: str = "",
        api_key: str = "none",
        scenario: str = "",
        settings: Settings | None = None,
        **options: Any,
    ) -> TrainedAgent:
        """A trained agent by the name of its deployment, or a run of practice or checkpoint with its scenario's parts.

        Args:
            name: such as `customer_support_v1.2`, or a run (id, beginning, name, `latest`) or checkpoint folder.
            url: see `TrainedAgent`.
            api_key: see `TrainedAgent`.
            scenario: of a checkpoint that was not made by practice.
            settings: where deployments and runs are.
            **options: further fields.

        Raises:
            DeploymentError: a version that is not deployed, or files that do not fit together.
            UnknownNameError: neither a deployment nor a run has that name.
            CheckpointError: the run has no checkpoint of a language model.
            ConfigError: a checkpoint without a scenario.
        """
        home = settings or settings_module.load()
        parts = _deployed(home, name) or _practised(home, name, scenario)
        return cls(**parts, url=url, api_key=api_key, settings=home, **options)

    @property
    def base_url(self) -> str:
        """Where the model answers; without a `url` it is served from this process from now on, until `close`."""
        if self.url:
            return self.url
        if self._server is None:
            from melete.serve import models
            from melete.serve.server import Server

            spec = f"{self.name}={self.checkpoint or models.ECHO}"
            served = models.load_all([spec], self.settings, device=self.device)
            # On loopback and for this process: without the token that the settings may hold.
            self._server = Server(served, replace(self.settings, token=None))
            self._server.start()
        return f"{self._server.url}/v1"

    @property
    def model(self) -> str:
        """The model's name on the server."""
        return self.name

    def start(self, tools: Functions = None) -> GuardedTools:
        """Begins a conversation: its tools, connected to your functions, behind a fresh session of the guard.

        Args:
            tools: functions by the names of the agent's tools (plain, `@tool` or `Tool`), or a world of the scenario.

        Raises:
            ConfigError: a function that the agent has no tool for.
        """
        return GuardedTools(self, tools)

    def practice_world(self, split: str = "held_out", index: int = 0) -> World:
        """A world of the scenario, in which nothing is real."""
        scenario = scenarios.load(self.scenario)
        return scenario.world(scenario.tasks(split, 1, start=index)[0])

    def to_openai(self, tools: Functions = None) -> Any:
        """A `ToolLoop` over the plain openai client; see `start` for `tools`."""
        return frameworks.load("openai").to_agent(self, self.start(tools))

    def to_langchain(self, tools: Functions = None) -> Any:
        """LangChain's agent, a compiled graph; see `start` for `tools`."""
        return frameworks.load("langchain").to_agent(self, self.start(tools))

    def to_autogen(self, tools: Functions = None) -> Any:
        """AutoGen's `AssistantAgent`; see `start` for `tools`."""
        return frameworks.load("autogen").to_agent(self, self.start(tools))

    def to_crewai(self, tools: Functions = None) -> Any:
        """CrewAI's `Agent`; see `start` for `tools`."""
        return frameworks.load("crewai").to_agent(self, self.start(tools))

    def close(self) -> None:
        """Ends the server of this process, if there is one."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> TrainedAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GuardedTools:
    """The tools of one conversation: judged by the guard, then executed by your functions.

    Attributes:
        tools: with the names, descriptions and schemas that the agent practised with.
    """

    def __init__(self, trained: TrainedAgent, functions: Functions) -> None:
        self._world = functions if isinstance(functions, World) else None
        self._confirm = self._world.confirm if self._world else trained.confirm
        connected = self._connected(trained, functions)
        self.tools = [_tool(schema["function"], connected) for schema in trained.schemas]
        self._set = ToolSet(self.tools)
        facts = self._world.facts() if self._world else None
        self._guard: GuardSession = trained.guard.start(facts)

    def caller(self, name: str) -> Callable[[dict[str, Any]], str]:
        """A function that proposes a call of one tool and returns what the model reads."""
        return lambda arguments: self.act(ToolAction(name, arguments))

    def propose(self, call: ToolCall) -> str:
        """Proposes a call as a model wrote it; what comes back is for the model to read."""
        try:
            return self.act(ToolAction.from_call(call))
        except ValueError as error:
            return f"error: {error}"

    def act(self, action: ToolAction) -> str:
        """Judges a call and executes what is allowed of it; what comes back is for the model to read."""
        judgement = self._guard.judge(action)
        if judgement.verdict is Verdict.ASK and self._confirm(action):
            self._guard.confirm(action)
            judgement = self._guard.judge(action)
        allowed = judgement.action
        if judgement.verdict not in (Verdict.ALLOW, Verdict.CLAMP) or not isinstance(allowed, ToolAction):
            # What is wrong with the call helps the model more than that it was refused.
            problems = self._set.problems(action)
            return f"error: {problems[0]}" if problems else f"refused: {' '.join(judgement.reasons)}"
        result = self._set.call(allowed, on=self._world)
        self._guard.record(allowed, result.ok, result.value)
        return result.content if result.ok else f"error: {result.error}"

    def _connected(self, trained: TrainedAgent, functions: Functions) -> dict[str, Tool | Callable[..., Any]]:
        if isinstance(functions, World):
            known = ToolSet.of(type(functions))
            return {name: known[name] for name in known.names}
        given = {_name(one): one for one in functions or ()}
        own = [schema["function"]["name"] for schema in trained.schemas]
        unknown = sorted(set(given) - set(own))
        if unknown:
            raise ConfigError(
                f"{trained.name} has no tool for {', '.join(unknown)}.",
                allowed=f"Its tools: {', '.join(own)}.",
            )
        return given


def _tool(function: dict[str, Any], connected: dict[str, Tool | Callable[..., Any]]) -> Tool:
    """A tool as the agent knows it, with the function that was given for it."""
    name, description = function["name"], function.get("description", "")
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    given = connected.get(name, _not_connected)
    own = _own(given)
    if own is not None:
        return replace(own, name=name, description=description, parameters=parameters)
    assert not isinstance(given, Tool)
    return Tool(name, description, parameters, given)


def _not_connected(**arguments: Any) -> str:
    from melete.actions.tools import ToolFailure

    raise ToolFailure(NOT_CONNECTED)


def _name(one: Tool | Callable[..., Any]) -> str:
    own = _own(one)
    return own.name if own is not None else str(getattr(one, "__name__", type(one).__name__))


def _own(one: Tool | Callable[..., Any]) -> Tool | None:
    """The `Tool` that something is, or that `@tool` made of it."""
    found = one if isinstance(one, Tool) else getattr(one, "__tool__", None)
    return found if isinstance(found, Tool) else None


def _deployed(settings: Settings, ref: str) -> dict[str, Any] | None:
    """Parts of the deployment that `ref` names, None if nothing is deployed by that name."""
    from melete.serve import deployment

    match = deployment.FULL.fullmatch(ref)
    if (match[1] if match else ref) not in deployment.names(settings):
        return None
    found = deployment.load(settings, ref)
    found.verify()
    return {
        "name": found.id,
        "checkpoint": found.weights,
        "scenario": found.scenario,
        "system_prompt": found.system_prompt,
        "schemas": found.tools,
        "guard": Guard.from_dict(found.guard, f"guard of {found.id}"),
    }


def _practised(settings: Settings, ref: str, scenario: str) -> dict[str, Any]:
    """Parts of a run of practice: its checkpoint, and the rest from its scenario as it is now."""
    from melete.runs import checkpoints, refs
    from melete.serve import deployment

    try:
        checkpoint = refs.checkpoint(settings, ref, ("llm",))
    except UnknownNameError:
        if deployment.FULL.fullmatch(ref):
            raise deployment.unknown(settings, ref) from None
        raise
    name = scenario or checkpoints.read(checkpoint).config.get("scenario")
    if not name:
        raise ConfigError(
            f"{checkpoint} was not made by practice, so its scenario is not known.",
            next_step="Name it: TrainedAgent.load(…, scenario=…).",
        )
    played = scenarios.load(name)
    return {
        "name": checkpoint.parent.parent.name if Path(ref).exists() else ref,
        "checkpoint": checkpoint,
        "scenario": name,
        "system_prompt": played.system_prompt,
        "schemas": played.toolset.schemas,
        "guard": played.guard,
    }
