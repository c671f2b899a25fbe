"""Episodes of a reward task through the engine: all prompts of a batch and all their samples decode together.

An episode alternates between the model's turns and the results of its tool calls, all episodes in step: one engine
call per turn for those that still run. Each turn of the model is kept as it was sampled (prompt, tokens, log-probs), so
that training sees exactly the tokens that were drawn, whatever the text round trip would make of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from melete.llm.engine import Completion, Engine, Sampling
from melete.llm.lm import LM
from melete.llm.rewards import Problem, RewardTask
from melete.records import Turn

LEAST_ROOM = 8
"""Tokens that an answer must have room for."""


@dataclass(frozen=True)
class Move:
    """One turn as the model wrote it: prompt ids, drawn ids, and the log-probs they were drawn with."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


@dataclass
class Episode:
    """One try at a problem; `turns` is what followed the problem's conversation."""

    problem: Problem
    turns: list[Turn] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    reward: float = 0.0

    @property
    def length(self) -> int:
        """Tokens that the model wrote."""
        return sum(len(move.tokens) for move in self.moves)

    def prompt(self, lm: LM) -> list[int]:
        """Token ids that the model's next turn follows."""
        start = self.problem.conversation
        whole = replace(start, turns=(*start.turns, *self.turns))
        return lm.chat.render(whole, generation_prompt=True)[0]


def rollouts(
    engine: Engine,
    lm: LM,
    task: RewardTask,
    problems: Sequence[Problem],
    *,
    max_tokens: int,
    temperature: float,
    seed: Sequence[int],
) -> list[Episode]:
    """Plays one episode per problem (repeat a problem for a group) and rewards it.

    Args:
        engine: with the weights to sample from.
        lm: its chat format and context.
        task: replies to tool calls and rewards.
        problems: where episodes begin.
        max_tokens: most tokens of one turn.
        temperature: 0 takes the most probable token; log-probs are those at 1.
        seed: seed of all draws.
    """
    episodes = [Episode(problem) for problem in problems]
    seeds = np.random.default_rng(list(seed)).integers(0, 2**31, (task.max_turns, len(episodes)))
    running = list(enumerate(episodes))
    for turn in range(task.max_turns):
        prompts = [(i, episode, episode.prompt(lm)) for i, episode in running]
        prompts = [entry for entry in prompts if len(entry[2]) <= lm.context - LEAST_ROOM]
        if not prompts:
            break
        samplings = [
            Sampling(max_tokens=max_tokens, temperature=temperature, seed=int(seeds[turn, i]), logprobs=0)
            for i, _, _ in prompts
        ]
        completions = engine.generate([prompt for _, _, prompt in prompts], samplings)
        running = []
        for (i, episode, prompt), completion in zip(prompts, completions, strict=True):
            if _take(episode, prompt, completion, lm, task) and turn + 1 < task.max_turns:
                running.append((i, episode))
    for episode in episodes:
        episode.reward = task.reward(episode.problem, episode.turns) if episode.moves else 0.0
    return episodes


def fitting(lm: LM, problems: Sequence[Problem], max_tokens: int) -> list[Problem]:
    """The problems whose prompt leaves room for an answer of `max_tokens`."""
    return [p for p in problems if len(Episode(p).prompt(lm)) + max_tokens <= lm.context]


def transcript(episode: Episode) -> str:
    """An episode as text, for people."""
    lines = []
    for turn in (*episode.problem.conversation.turns, *episode.turns):
        calls = "".join(f"\n    {call.name or '(unreadable)'} {call.arguments}" for call in turn.tool_calls)
        lines.append(f"{turn.role}: {turn.content}{calls}")
    return "\n".join([*lines, f"reward: {episode.reward:g}"])


def _take(episode: Episode, prompt: list[int], completion: Completion, lm: LM, task: RewardTask) -> bool:
    """Adds a turn and the results of its calls; whether the episode goes on."""
    turn = lm.chat.parse(completion.token_ids)
    episode.moves.append(Move(prompt, completion.token_ids, completion.logprobs))
    episode.turns.append(turn)
    # A turn that was cut off has not said what it wants to call.
    if completion.finish_reason != "stop" or not turn.tool_calls:
        return False
    if task.max_turns > 1:
        results = [task.reply(episode.problem, call) for call in turn.tool_calls]
        episode.turns.extend(
            Turn("tool", result, tool_call_id=call.id)
            for call, result in zip(turn.tool_calls, results, strict=True)
        )
    return True
