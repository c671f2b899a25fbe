"""Plays one task with an agent before it practises, to see that it works at all, and what it says.

    agent = frameworks.agent("langchain", "my_agent:build")
    episode, conversation = rehearse(agent, "customer_support", model="my-run")

The model is served from this process for as long as the task takes; `echo` repeats what it hears and needs no weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from melete import settings as settings_module
from melete.agents import player
from melete.agents import scenario as scenarios
from melete.agents.hub import Episode, PolicyRef
from melete.records import Conversation

if TYPE_CHECKING:
    from melete.agents.player import Agent
    from melete.settings import Settings


def rehearse(
    agent: Agent,
    scenario: str,
    model: str = "echo",
    *,
    split: str = "train",
    index: int = 0,
    seed: int = 0,
    max_tokens: int = 128,
    timeout_s: float = 120.0,
    device: str = "auto",
    settings: Settings | None = None,
) -> tuple[Episode, Conversation]:
    """Plays one task; what came of it, and the conversation as the environment saw it.

    Args:
        agent: see `player.Agent`.
        scenario: its name.
        model: `echo`, or a run, checkpoint folder, transformers folder or hub id.
        split: of the scenario.
        index: of the task in it.
        seed: of the model's draws.
        max_tokens: most tokens of one turn.
        timeout_s: how long the agent may take.
        device: where the model runs.
        settings: where runs are.

    Raises:
        ScenarioNotFoundError: no such scenario.
        UnknownNameError: no such model.
    """
    from melete.serve import models
    from melete.serve.recording import Recorder
    from melete.serve.server import Server

    home = settings or settings_module.load()
    played = scenarios.load(scenario)
    env = played.create_environment(played.tasks(split, 1, start=index)[0])
    served = models.load_all([f"policy={model}"], home, device=device)
    recorder = Recorder()
    # On loopback, for this process alone.
    with Server(served, replace(home, token=None), recorder=recorder) as server:
        policy = PolicyRef(f"{server.url}/v1", "policy", 0, sampling={"max_tokens": max_tokens})
        episode = player.play(agent, env, policy, "rehearsal", seed, timeout_s, recorder=recorder)
    return episode, env.conversation()


def told(episode: Episode, conversation: Conversation) -> str:
    """A rehearsal as text, for people."""
    lines = []
    for turn in conversation.turns:
        calls = "".join(f"\n    {call.name or '(unreadable)'} {call.arguments}" for call in turn.tool_calls)
        lines.append(f"{turn.role}: {turn.content}{calls}")
    outcome = episode.outcome
    if episode.error:
        lines.append(f"{episode.status}: {episode.error}")
    elif outcome is not None:
        lines.append(
            f"{episode.status}: {outcome.tool_calls_ok} of {outcome.tool_calls} calls succeeded, "
            f"{'solved' if outcome.success else 'not solved'}, reward {episode.reward:.2f}"
        )
    return "\n".join(lines)
