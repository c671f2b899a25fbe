"""Deployed agents of a server: loaded, shared and rolled back while others answer, with their conversations.

An agent's name and `<name>_v<version>` are also models of the OpenAI-compatible API: system prompt and tools are put in
where the client gives none, and of what the model writes only calls that the guard allows leave the server. Weights
that a loaded agent or a served model already has are shared; others are loaded beside them, in a thread. The version
before stays loaded, so that going back takes no time; older ones end when they have answered. The routes stand in
`agent_routes.py`.

Limits: a conversation (`session_id`) lives in this process for an hour after its last action, and ends with it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from melete.actions.guard import Guard
from melete.actions.trace import TraceWriter
from melete.errors import DeploymentError
from melete.serve import deployment
from melete.serve import models as served_models
from melete.serve.acting import Checks, Conversing, judge_turn
from melete.serve.deployment import Deployment
from melete.serve.models import ServedModel
from melete.serve.plan import Choice
from melete.serve.problems import Problem
from melete.serve.schema import ChatRequest
from melete.settings import Settings

if TYPE_CHECKING:
    from melete.llm.engine import Engine
    from melete.serve.echo import EchoEngine

SESSION_S = 3600.0
MOST_SESSIONS = 10_000


@dataclass
class Agent:
    """A loaded version of an agent."""

    deployment: Deployment
    model: ServedModel
    guard: Guard
    checks: Checks
    trace: TraceWriter
    loaded_ms: float

    def prepare(self, request: Any) -> ChatRequest:
        """A chat request with the agent's prompt and tools where it has none; what outgrows the context is folded.

        Raises:
            Problem: it is a plain completion, which no guard could judge.
        """
        if not isinstance(request, ChatRequest):
            raise Problem(
                400,
                f"{self.deployment.id} is an agent; use /v1/chat/completions or /v1/agents/{self.deployment.name}/act.",
                param="model",
            )
        values = request.model_dump(by_alias=True, exclude_unset=True)
        if not any(message.role in ("system", "developer") for message in request.messages):
            values["messages"] = [
                {"role": "system", "content": self.deployment.system_prompt},
                *values["messages"],
            ]
        if request.tools is None:
            values["tools"] = list(self.deployment.tools)
        if request.truncation is None:
            values["truncation"] = "fold"
        return ChatRequest.model_validate(values)

    def converse(self, facts: Any = None) -> Conversing:
        """A new conversation under the agent's guard."""
        return Conversing.start(self.guard, self.checks, facts if isinstance(facts, dict) else {})

    def judge(self, request: ChatRequest, choices: list[Choice]) -> None:
        """Leaves in each answer to a chat request what the guard allows; see `acting.judge_turn`."""
        metadata = request.metadata if isinstance(request.metadata, dict) else {}
        for choice in choices:
            assert choice.parser is not None
            conversing = self.converse(metadata.get("facts"))
            conversing.replay([message.turn() for message in request.messages])
            kept = judge_turn(conversing, choice.parser.content, choice.parser.calls)
            choice.parser.content, choice.parser.calls = kept


@dataclass
class Session:
    """A conversation with one version of an agent."""

    id: str
    agent: Agent
    conversing: Conversing
    used_s: float
    facts: dict[str, Any] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _held: dict[str, Any] | None = None

    def trace(self, line: dict[str, Any], executable: bool) -> None:
        """Writes a step; one whose action may be executed waits for its result, which belongs into the same line."""
        self.settle(False, None)
        if executable:
            self._held = line
        else:
            self.agent.trace.write(**line)

    def settle(self, ok: bool, result: Any) -> None:
        """Writes the step that waited for its result."""
        if self._held is not None:
            line, self._held = self._held, None
            self.agent.trace.write(**line, ok=ok, result=result)


class Agents:
    """The deployed agents of a server.

    Args:
        models: what the server serves; the agents' names are added to it.
        settings: where deployments are.
        device: auto, cpu, cuda, cuda:N or mps.
        slots: most requests of one agent that run at once.
        waiting: most requests that wait.
    """

    def __init__(
        self,
        models: dict[str, ServedModel],
        settings: Settings,
        *,
        device: str = "auto",
        slots: int = 32,
        waiting: int = 128,
    ) -> None:
        self.running = False
        self.models, self.settings = models, settings
        self.options: dict[str, Any] = {"device": device, "slots": slots, "waiting": waiting}
        self.loading = threading.Lock()
        self._loaded: dict[str, Agent] = {}
        self._active: dict[str, str] = {}
        self._before: dict[str, str | None] = {}
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, model_id: str) -> Agent | None:
        """The agent behind a model's id; None if it is a plain model."""
        return self._loaded.get(self._active.get(model_id, model_id))

    def find(self, name: str) -> Agent:
        """A loaded agent by name or `name_vVERSION`.

        Raises:
            Problem: it is not loaded here.
        """
        found = self.of(name)
        if found is None:
            loaded = ", ".join(sorted(self._active)) or "none"
            raise Problem(
                404,
                f"The agent {name!r} is not loaded here. Loaded: {loaded}. Load it with POST /v1/agents.",
                code="agent_not_found",
            )
        return found

    def activate(self, name: str, version: str | None = None) -> Agent:
        """Loads a version and makes it the one that answers to the name; others answer meanwhile. Blocks.

        Args:
            name: a deployed agent.
            version: None takes the one in use.

        Raises:
            DeploymentError: it does not exist, or its weights are not those that were deployed.
            CheckpointError: its weights cannot be loaded.
        """
        with self._lock:
            agent = self._use(name if version is None else f"{name}_v{version}")
            if version is not None:
                deployment.activate(self.settings, name, version)
        return agent

    def open(self, ref: str) -> Agent:
        """Loads an agent by name or `name_vVERSION` for this server alone; see `activate`."""
        with self._lock:
            return self._use(ref)

    def roll_back(self, name: str) -> Agent:
        """Makes the version before the one in use answer to the name. Blocks.

        Raises:
            DeploymentError: there was none before, or it cannot be loaded; the one in use stays.
        """
        with self._lock:
            before = deployment.previous(self.settings, name)
            if before is None:
                deployment.roll_back(self.settings, name)  # says why it cannot be
            agent = self._use(f"{name}_v{before}")
            deployment.roll_back(self.settings, name)
        return agent

    def unload(self, name: str) -> None:
        """Takes an agent with all its loaded versions from this server; it stays deployed.

        Args:
            name: of the agent, or `name_vVERSION` of any version of it.

        Raises:
            Problem: it is not loaded here.
        """
        with self._lock:
            chosen = self.find(name).deployment.name
            self.models.pop(chosen, None)
            self._active.pop(chosen, None)
            self._before.pop(chosen, None)
            for agent_id in [one for one, other in self._loaded.items() if other.deployment.name == chosen]:
                self._retire(agent_id)

    def refuse_if_deployed(self, model: ServedModel) -> None:
        """Refuses new weights for a model whose weights are those of a deployed version, which never change.

        Raises:
            Problem: they are.
        """
        for agent in list(self._loaded.values()):
            if agent.model.engine is model.engine:
                raise Problem(
                    409,
                    f"The weights of {model.id} are also those of {agent.deployment.id}, and a version never changes. "
                    f"Deploy a new version with: melete agents deploy RUN --name {agent.deployment.name}",
                    code="deployed",
                )

    def session(self, name: str, session_id: str | None, facts: dict[str, Any]) -> Session:
        """The conversation that a request belongs to, or a new one.

        Raises:
            Problem: it has expired, belongs to another agent, or there are too many.
        """
        now_s = time.monotonic()
        while self._sessions and next(iter(self._sessions.values())).used_s < now_s - SESSION_S:
            self._sessions.popitem(last=False)[1].settle(False, None)
        agent = self.find(name)
        if session_id is None:
            if len(self._sessions) >= MOST_SESSIONS:
                raise Problem(503, f"{MOST_SESSIONS} conversations are open here; end some.", code="too_many")
            made = Session(f"s-{secrets.token_urlsafe(12)}", agent, agent.converse(facts), now_s, facts)
            self._sessions[made.id] = made
            return made
        found = self._sessions.get(session_id)
        if found is None or found.agent.deployment.name != agent.deployment.name:
            raise Problem(
                404,
                f"{agent.deployment.name} has no conversation {session_id!r}, or it has expired. "
                "Leave session_id out to begin one.",
                param="session_id",
                code="session_not_found",
            )
        if self._loaded.get(found.agent.deployment.id) is not found.agent:
            raise Problem(
                409,
                f"The conversation began with {found.agent.deployment.id}, which is no longer loaded. Begin a new one.",
                param="session_id",
                code="version_gone",
            )
        found.used_s = now_s
        self._sessions.move_to_end(found.id)
        return found

    def forget(self, session: Session) -> None:
        """Drops a conversation whose first request failed: nobody knows its id."""
        self._sessions.pop(session.id, None)

    def close(self) -> None:
        """Writes what waited for a result, and closes the traces."""
        self.running = False
        for session in self._sessions.values():
            session.settle(False, None)
        for agent in self._loaded.values():
            agent.trace.close()

    def describe(self, agent: Agent) -> dict[str, Any]:
        """What `GET /v1/agents/{name}` says."""
        made, stats = agent.deployment, agent.model.engine.stats()
        return {
            "name": made.name,
            "version": made.version,
            "id": made.id,
            "object": "agent",
            "active": self._active.get(made.name) == made.id,
            "previous": deployment.previous(self.settings, made.name),
            "versions": deployment.versions(self.settings, made.name),
            "scenario": made.scenario,
            "prompt": made.prompt,
            "source": made.source,
            "created": int(made.created_s),
            "loaded_ms": round(agent.loaded_ms, 1),
            "criteria": list(made.criteria),
            "guard": {"name": agent.guard.name, "version": agent.guard.version, "digest": agent.guard.digest},
            "tools": [tool["function"]["name"] for tool in made.tools],
            "health": {
                "status": "ok" if self.running else "starting",
                "running": stats.running,
                "waiting": stats.waiting,
                "slots": stats.slots,
                "sessions": sum(one.agent is agent for one in self._sessions.values()),
            },
        }

    def listed(self) -> list[dict[str, Any]]:
        """The agents in use, as `describe` says."""
        return [self.describe(self._loaded[agent_id]) for _, agent_id in sorted(self._active.items())]

    def _use(self, ref: str) -> Agent:
        """Loads a version, if it is not loaded, and lets its name mean it."""
        started_s = time.perf_counter()
        chosen = deployment.load(self.settings, ref)
        if chosen.name in self.models and chosen.name not in self._active:
            raise DeploymentError(
                f"A model named {chosen.name!r} is served here already, so the agent cannot have its name.",
                next_step="Serve the model under another name: --model NAME=REF",
            )
        agent = self._loaded.get(chosen.id) or self._load(chosen)
        self._publish(agent)
        agent.loaded_ms = (time.perf_counter() - started_s) * 1000
        return agent

    def _load(self, chosen: Deployment) -> Agent:
        chosen.verify()
        base = self._sharing(chosen) or self._fresh(chosen)
        # One lock and one set of grammars for all names of the same weights.
        model = dataclasses.replace(base, id=chosen.id, created_s=int(chosen.created_s), lock=base.lock)
        guard = Guard.from_dict(chosen.guard, f"guard of {chosen.id}")
        trace = TraceWriter(
            deployment.root(self.settings) / chosen.name / "traces" / f"v{chosen.version}.jsonl"
        )
        return Agent(chosen, model, guard, Checks(chosen.tools), trace, 0.0)

    def _sharing(self, chosen: Deployment) -> ServedModel | None:
        """A model here with the same weights; one into which others were swapped is not looked at."""
        for model in self.models.values():
            known = deployment.digest_of(model.checkpoint) if model.checkpoint and not model.version else ""
            echo = chosen.weights is None and model.ref == served_models.ECHO
            if echo or (known and known == chosen.digest):
                return model
        return None

    def _fresh(self, chosen: Deployment) -> ServedModel:
        if chosen.weights is None:
            model = served_models.load(served_models.ECHO, self.settings, **self.options)
        else:
            model = served_models.load_folder(chosen.weights, **self.options)
        if self.running:
            model.engine.start()
        return model

    def _publish(self, agent: Agent) -> None:
        """Lets the name mean this version from the next request on, and ends versions that nothing needs."""
        made = agent.deployment
        before = self._active.get(made.name)
        self._loaded[made.id] = agent
        self.models[made.id] = agent.model
        self.models[made.name] = dataclasses.replace(agent.model, id=made.name, lock=agent.model.lock)
        self._active[made.name] = made.id
        if before != made.id:
            self._before[made.name] = before
        kept = (made.id, self._before[made.name])
        for agent_id in [one for one, other in self._loaded.items() if other.deployment.name == made.name]:
            if agent_id not in kept:
                self._retire(agent_id)

    def _retire(self, agent_id: str) -> None:
        """Forgets a version; its engine ends unless another model uses it."""
        engine = self._loaded.pop(agent_id).model.engine
        self.models.pop(agent_id, None)
        if all(model.engine is not engine for model in self.models.values()):
            threading.Thread(target=end_when_idle, args=(engine,), daemon=True).start()


def end_when_idle(engine: Engine | EchoEngine) -> None:
    """Stops an engine once it has answered what it was asked."""
    while (stats := engine.stats()).running or stats.waiting:
        time.sleep(0.2)
    engine.stop()
