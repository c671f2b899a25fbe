"""The routes of deployed agents: what is loaded, loading, going back, and the next action of a conversation.

GET  /v1/agents                  what is deployed here
POST /v1/agents                  load one: {"name": NAME, "version": "1.2"}; without a version, the one in use
GET  /v1/agents/{name}           version, health, guard, success criteria
POST /v1/agents/{name}/act       the next action: {"observation" | "messages" | "confirm", "session_id"}
POST /v1/agents/{name}/rollback  back to the version before
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi import Path as UrlPath
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import JSONResponse, Response

from melete.errors import CheckpointError, DeploymentError
from melete.records import Turn
from melete.serve import body
from melete.serve.acting import Conversing, OutOfTurn, Step
from melete.serve.agents import Agent, Agents, Session
from melete.serve.answer import Answer
from melete.serve.plan import plan_chat
from melete.serve.problems import Problem
from melete.serve.schema import ChatRequest, Message

MOST_STEPS = 1_000
AgentName = Annotated[str, UrlPath(description="A deployed agent's name, or name_vVERSION.")]


class LoadRequest(BaseModel):
    """Body of `POST /v1/agents`."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str | None = None


class ActRequest(BaseModel):
    """Body of `POST /v1/agents/{name}/act`; one of `observation`, `messages` and `confirm`, or none to go on."""

    model_config = ConfigDict(extra="forbid")

    session_id: str | None = Field(None, max_length=128)
    observation: str | None = None
    ok: bool = True
    messages: list[Message] | None = Field(None, min_length=1)
    confirm: bool | None = None
    facts: dict[str, Any] | None = None
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _one_input(self) -> ActRequest:
        given = [name for name in ("observation", "messages", "confirm") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(given)}")
        if self.facts is not None and self.session_id is not None:
            raise ValueError("'facts' are told when a conversation begins, without 'session_id'")
        return self


def add_to(app: FastAPI, agents: Agents) -> None:
    """Adds the agents' routes to the application."""

    @app.get("/v1/agents")
    async def list_agents() -> dict[str, Any]:
        return {"object": "list", "data": agents.listed()}

    @app.post("/v1/agents")
    async def load_agent(request: Request) -> dict[str, Any]:
        wanted = await body.read(request, LoadRequest)
        return agents.describe(await _changed(agents.activate, wanted.name, wanted.version))

    @app.post("/v1/agents/{name}/rollback")
    async def roll_back(name: AgentName) -> dict[str, Any]:
        return agents.describe(await _changed(agents.roll_back, name))

    @app.post("/v1/agents/{name}/act")
    async def act(request: Request, name: AgentName) -> Response:
        wanted = await body.read(request, ActRequest, empty=b"{}")
        session = agents.session(name, wanted.session_id, wanted.facts or {})
        async with session.lock:
            try:
                return await _act(app, request, session, wanted)
            finally:
                if session.conversing.steps == 0:
                    agents.forget(session)

    @app.get("/v1/agents/{name}")
    async def one_agent(name: AgentName) -> dict[str, Any]:
        return agents.describe(agents.find(name))


async def _changed(change: Any, *arguments: Any) -> Agent:
    try:
        agent: Agent = await asyncio.to_thread(change, *arguments)
    except DeploymentError as error:
        raise Problem(404, str(error), param="name", code="deployment_not_found") from error
    except CheckpointError as error:
        raise Problem(409, str(error), param="name", code="checkpoint_refused") from error
    return agent


async def _act(app: FastAPI, request: Request, session: Session, wanted: ActRequest) -> Response:
    """One action: takes what was posted, lets the model write if need be, judges, traces."""
    conversing, agent = session.conversing, session.agent
    usage: dict[str, Any] = {}
    if conversing.steps >= MOST_STEPS:
        raise Problem(409, f"The conversation has {MOST_STEPS} actions; begin a new one.", code="too_long")
    try:
        step = _take(session, wanted)
        if step is None:
            conversing.must_go_on()
            if conversing.wants_turn:
                planned = await asyncio.to_thread(plan_chat, agent.model, _chat(agent, conversing, wanted))
                answer = Answer(planned, app.state.bridge)
                if await answer.whole(request.receive) is None:
                    return Response(status_code=499)
                parser = answer.plan.choices[0].parser
                assert parser is not None
                conversing.wrote(Turn("assistant", parser.content, tuple(parser.calls)))
                usage = answer.usage() | {"folded_messages": planned.dropped}
            step = conversing.judge()
    except OutOfTurn as error:
        raise Problem(409, str(error), code="out_of_turn") from error
    _trace(agent, session, step, wanted, usage.get("folded_messages", 0))
    return JSONResponse(_reply(agent, session, step, usage))


def _take(session: Session, wanted: ActRequest) -> Step | None:
    """Takes what was posted; a confirmed action is judged again and is the step."""
    conversing = session.conversing
    if wanted.confirm is not None:
        return conversing.confirm(wanted.confirm)
    if wanted.observation is not None:
        _observe(session, wanted.observation, wanted.ok)
    if wanted.messages is not None and not conversing.turns:
        turns = [message.turn() for message in wanted.messages]
        conversing.replay([turn for turn in turns if turn.role != "system"])
    elif wanted.messages is not None:
        for message in wanted.messages:
            if message.role not in ("user", "tool") or (message.role == "tool") != (
                conversing.due == "result"
            ):
                raise OutOfTurn(
                    f"A {message.role} message does not fit here; due is: {conversing.due or 'the agent'}. "
                    "The agent's own turns are kept on the server."
                )
            _observe(session, message.content or "", wanted.ok)
    return None


def _observe(session: Session, text: str, ok: bool) -> None:
    result = session.conversing.observe(text, ok)
    if result is not None:
        session.settle(result.ok, result.value)


def _chat(agent: Agent, conversing: Conversing, wanted: ActRequest) -> ChatRequest:
    system = {"role": "system", "content": agent.deployment.system_prompt}
    return ChatRequest.model_validate(
        {
            "model": agent.deployment.id,
            "messages": [system, *(turn.to_openai() for turn in conversing.turns)],
            "tools": list(agent.deployment.tools) or None,
            "temperature": wanted.temperature,
            "max_tokens": wanted.max_tokens,
            "seed": wanted.seed,
            "truncation": "fold",
        }
    )


def _reply(agent: Agent, session: Session, step: Step, usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "agent": agent.deployment.name,
        "version": agent.deployment.version,
        "session_id": session.id,
        "step": session.conversing.steps,
        "action": step.proposed,
        "verdict": step.verdict,
        "reasons": list(step.reasons),
        "rule": step.rule,
        "execute": step.execute,
        "due": "" if session.conversing.over else session.conversing.due,
        "over": session.conversing.over,
        "usage": usage,
    }


def _trace(agent: Agent, session: Session, step: Step, wanted: ActRequest, folded: int) -> None:
    last = wanted.messages[-1].content if wanted.messages else None
    line = {
        "time_s": time.time(),
        "step": session.conversing.steps,
        "run": agent.deployment.id,
        "episode": session.id,
        "observation": wanted.observation if wanted.observation is not None else last,
        "model_output": step.written,
        "proposed": step.proposed,
        "verdict": step.verdict,
        "reasons": list(step.reasons),
        "rule": step.rule,
        "executed": step.execute,
    }
    if session.conversing.steps == 1:
        line["facts"] = session.facts
    if wanted.confirm:
        line["confirmed"] = True
    if folded:
        line["folded"] = folded
    session.trace(line, step.execute is not None and step.execute["type"] == "tool")
