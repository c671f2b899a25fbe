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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melete import settings as settings_module
from melete.actions.action import ToolAction
from melete.actions.guard import Guard
from melete.actions.trace import TraceWriter
from melete.agents import frameworks
from melete.agents import scenario as scenarios
from melete.agents.guarded import Functions, GuardedTools
from melete.agents.scenario import World
from melete.errors import ConfigError, UnknownNameError
from melete.settings import Settings

if TYPE_CHECKING:
    from melete.serve.server import Server


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
        sampling: options of every completion (`temperature`, `top_p`, `max_tokens`, `seed`); what is not named is the
            server's default.
        confirm: asked when the guard wants a person to confirm a call; nobody confirms by default.
        traces: file that every proposed call is appended to, with the guard's verdict; None writes none.
    """

    name: str
    checkpoint: Path | None
    scenario: str
    system_prompt: str
    schemas: tuple[dict[str, Any], ...]
    guard: Guard
    url: str = ""
    api_key: str = field(default="none", repr=False)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    confirm: Callable[[ToolAction], bool] = lambda action: False
    traces: Path | None = None
    settings: Settings = field(default_factory=settings_module.load, repr=False)
    device: str = "auto"
    _server: Server | None = field(default=None, repr=False)
    _trace: TraceWriter | None = field(default=None, repr=False)

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

    def start(self, tools: Functions = None, facts: Mapping[str, Any] | None = None) -> GuardedTools:
        """Begins a conversation: its tools, connected to your functions, behind a fresh session of the guard.

        Args:
            tools: functions by the names of the agent's tools (plain, `@tool` or `Tool`), or a world of the scenario.
            facts: what the guard may know from the start, such as who is logged in.

        Raises:
            ConfigError: a function that the agent has no tool for.
        """
        if self._trace is None and self.traces is not None:
            self._trace = TraceWriter(self.traces)
        return GuardedTools(
            self.name, self.schemas, self.guard, tools, facts=facts, confirm=self.confirm, trace=self._trace
        )

    def practice_world(self, split: str = "held_out", index: int = 0) -> World:
        """A world of the scenario, in which nothing is real."""
        scenario = scenarios.load(self.scenario)
        return scenario.world(scenario.tasks(split, 1, start=index)[0])

    def to_openai(self, tools: Functions = None, facts: Mapping[str, Any] | None = None) -> Any:
        """A `ToolLoop` over the plain openai client; see `start` for the arguments."""
        return frameworks.load("openai").to_agent(self, self.start(tools, facts))

    def to_langchain(self, tools: Functions = None, facts: Mapping[str, Any] | None = None) -> Any:
        """LangChain's agent, a compiled graph; see `start` for the arguments."""
        return frameworks.load("langchain").to_agent(self, self.start(tools, facts))

    def to_autogen(self, tools: Functions = None, facts: Mapping[str, Any] | None = None) -> Any:
        """AutoGen's `AssistantAgent`; see `start` for the arguments."""
        return frameworks.load("autogen").to_agent(self, self.start(tools, facts))

    def to_crewai(self, tools: Functions = None, facts: Mapping[str, Any] | None = None) -> Any:
        """CrewAI's `Agent`; see `start` for the arguments."""
        return frameworks.load("crewai").to_agent(self, self.start(tools, facts))

    def close(self) -> None:
        """Ends the server of this process, if there is one, and closes the trace."""
        if self._trace is not None:
            self._trace.close()
            self._trace = None
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> TrainedAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
        "traces": deployment.root(settings) / found.name / "traces" / f"v{found.version}.jsonl",
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
