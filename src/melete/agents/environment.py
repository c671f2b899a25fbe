"""Plays a scenario as a Gymnasium environment: every proposed action is judged, executed, traced and counted here.

`step` takes one typed action, `act` a whole turn as a model wrote it (text, and any number of calls). The order is
always the same: the guard judges; what it allows is executed through the tool set; the trace gets a line; the scenario
rewards the step. A tool call counts as successful only if it was executed and answered without an error; one that
does not exist, has wrong arguments, was refused or could not be read counts as failed.

An episode ends when the person has nothing more to say, or when the guard aborts it (terminated), and after
`max_steps` actions (truncated). Nothing here draws a random number: the same task and actions give the same episode.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, cast

import gymnasium
from gymnasium.error import ResetNeeded

from melete.actions.action import Message, ToolAction, to_dict
from melete.actions.guard import GuardSession, Verdict
from melete.actions.trace import TraceWriter
from melete.agents.scenario import Malformed, Proposal, Scenario, State, Task, World, copy_state
from melete.errors import ConfigError, ScenarioError
from melete.records import Conversation, ToolCall, Turn

ROUNDING = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What happened in an episode.

    Attributes:
        success: all criteria hold at the end and no policy was broken.
        reward: sum of the rewards.
        tool_calls: calls proposed, in any state.
        tool_calls_ok: calls executed and answered without an error.
        refused: calls that the guard did not let through.
        steps: messages and calls.
        criteria: each criterion and whether it holds now.
        policy_broken: the guard had to refuse a call that could have been executed.
    """

    success: bool
    reward: float
    tool_calls: int
    tool_calls_ok: int
    refused: int
    steps: int
    criteria: dict[str, bool]
    policy_broken: bool


class TextSpace(gymnasium.Space[str]):
    """All texts; samples are short."""

    def __init__(self) -> None:
        super().__init__(shape=None, dtype=None)

    def contains(self, x: Any) -> bool:
        """Whether `x` is text."""
        return isinstance(x, str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A few letters."""
        return "".join(chr(97 + int(i)) for i in self.np_random.integers(0, 26, 8))


class ProposalSpace(gymnasium.Space[Proposal]):
    """Calls of the given tools, messages, and calls that cannot be read; samples are calls without arguments."""

    def __init__(self, tools: tuple[str, ...]) -> None:
        super().__init__(shape=None, dtype=None)
        self.tools = tools

    def contains(self, x: Any) -> bool:
        """Whether `x` is an action that `Environment.step` takes."""
        return isinstance(x, (ToolAction, Message, Malformed))

    def sample(self, mask: Any = None, probability: Any = None) -> Proposal:
        """A call of one of the tools."""
        return ToolAction(self.tools[int(self.np_random.integers(len(self.tools)))], {})


class Environment(gymnasium.Env[str, Proposal]):
    """One scenario under its guard; see the head of this file.

    Args:
        scenario: what is played.
        task: what `reset` starts when it is given no other task.
        split: drawn from when there is no task.
        trace: every step is written there.
        run: id of the run, for the trace.
        episode: id of the episode, for the trace; the task's id by default.

    Attributes:
        turns: the conversation so far, without the system prompt.
        task: what is played now.
        world: its world.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  gymnasium declares it so

    def __init__(
        self,
        scenario: Scenario,
        task: Task | None = None,
        split: str = "train",
        trace: TraceWriter | None = None,
        run: str = "",
        episode: str = "",
    ) -> None:
        if split not in scenario.splits:
            raise ConfigError(
                f"{scenario.name} has no split {split!r}.", allowed=f"Known: {', '.join(scenario.splits)}."
            )
        self.scenario = scenario
        self.split = split
        self.trace = trace
        self.run = run
        self.episode = episode
        self.observation_space = TextSpace()
        self.action_space = ProposalSpace(tuple(one["function"]["name"] for one in scenario.toolset.schemas))
        self.task: Task | None = task
        self._given = task
        self.turns: list[Turn] = []
        self.world: World | None = None
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: chooses the task when there is none.
            options: `task`, what to play now.

        Returns:
            The person's first message, and `{"task": id, "split": name}`.
        """
        super().reset(seed=seed)
        self.task = (options or {}).get("task") or self._given or self._draw()
        self.close()
        self.world = self.scenario.world(self.task)
        self._facts = self.world.facts()
        self._guard: GuardSession = self.scenario.guard.start(self._facts)
        self._counts: dict[str, Any] = {
            "steps": 0, "calls": 0, "calls_ok": 0, "refused": 0, "messages": 0, "characters": 0,
            "broken": False, "over": False, "executed": (), "said": (),
        }  # fmt: skip
        self._over = False
        self._reward = 0.0
        opening = self._seen = self.world.opening()
        self.turns = [Turn("user", opening)]
        self._state = self.state()
        return opening, {"task": self.task.id, "split": self.task.split}

    def step(self, action: Proposal) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Takes one action.

        Returns:
            What the agent sees next (a tool's result or the person's answer, empty at the end), the reward, whether
            the episode ended, whether it was cut at `max_steps`, and `verdict`, `ok`, `error`.

        Raises:
            ResetNeeded: the episode is over.
            ScenarioError: the scenario gave a reward outside its range.
        """
        self._must_be_open()
        call_id = f"call_{self._counts['calls']}"
        if isinstance(action, Message):
            turn = Turn("assistant", action.text)
        elif isinstance(action, Malformed):
            turn = Turn("assistant", "", (ToolCall(call_id, "", action.text),))
        else:
            turn = Turn("assistant", "", (action.to_call(call_id),))
        self._write(turn)
        return self._take(action, turn.tool_calls[0].id if turn.tool_calls else "", turn.content)

    def act(self, turn: Turn) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Takes a whole turn of the assistant: its calls in order, or its text as a message if it has none.

        Returns:
            As `step`; observations are joined by lines and rewards are summed.
        """
        self._must_be_open()
        self._write(turn)
        if not turn.tool_calls:
            return self._take(Message(turn.content), "", turn.content)
        seen: list[str] = []
        total, terminated, truncated, info = 0.0, False, False, dict[str, Any]()
        for call in turn.tool_calls:
            if terminated or truncated:
                # Proposed, but never executed: it counts as a call that failed.
                self._counts["calls"] += 1
                self.turns.append(Turn("tool", "Error: the conversation is over", (), call.id))
                continue
            observation, reward, terminated, truncated, info = self._take(
                _proposal(call), call.id, turn.content
            )
            seen.append(observation)
            total += reward
        return "\n".join(seen), total, terminated, truncated, info

    def state(self) -> State:
        """A snapshot of the world's state, with the task's goal under `goal` and what was counted under `episode`."""
        assert self.task is not None
        assert self.world is not None
        return {**copy_state(self.world.state), "goal": self.task.goal, "episode": dict(self._counts)}

    def conversation(self) -> Conversation:
        """System prompt, tools and turns: one row of training data."""
        return Conversation(
            (Turn("system", self.scenario.system_prompt), *self.turns), self.scenario.toolset.schemas
        )

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self._over

    @property
    def outcome(self) -> Outcome:
        """What happened so far."""
        state, counts = self._state, self._counts
        return Outcome(
            success=self.scenario.success(state),
            reward=self._reward,
            tool_calls=counts["calls"],
            tool_calls_ok=counts["calls_ok"],
            refused=counts["refused"],
            steps=counts["steps"],
            criteria={one.name: one.check(state) for one in self.scenario.success_criteria()},
            policy_broken=counts["broken"],
        )

    def close(self) -> None:
        """Frees the world; the outcome stays."""
        if self.world is not None:
            self.world.dispose()

    def _draw(self) -> Task:
        """A task of the split, chosen by this environment's generator."""
        index = int(self.np_random.integers(2**20))
        try:
            return self.scenario.tasks(self.split, 1, start=index)[0]
        except IndexError:
            tasks = self.scenario.tasks(self.split)
            return tasks[index % len(tasks)]

    def _must_be_open(self) -> None:
        if self._over:
            raise ResetNeeded("The episode is over. Call reset() before the next step.")

    def _write(self, turn: Turn) -> None:
        self.turns.append(turn)
        written = sum(len(call.name) + len(call.arguments) for call in turn.tool_calls)
        self._counts["characters"] += len(turn.content) + written

    def _take(
        self, action: Proposal, call_id: str, written: str
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Judges, executes, records, rewards one action whose turn already stands in `turns`."""
        counts = self._counts
        counts["steps"] += 1
        self._executed: ToolAction | None = None
        info: dict[str, Any] = {"verdict": "", "ok": True, "error": None, "reasons": ()}
        if isinstance(action, Message):
            observation, terminated = self._say(action, info)
        else:
            observation, terminated = self._call(action, info)
            self.turns.append(Turn("tool", observation, (), call_id))
        truncated = not terminated and counts["steps"] >= self.scenario.max_steps
        self._over = counts["over"] = terminated or truncated
        if isinstance(action, Message) and observation:
            self.turns.append(Turn("user", observation))
        state = self.state()
        reward = self._rewarded(action, state)
        self._state = state
        if self.trace is not None:
            self._trace(action, written, observation, reward, info)
        return observation, reward, terminated, truncated, info

    def _say(self, action: Message, info: dict[str, Any]) -> tuple[str, bool]:
        """The person's answer to a message, and whether the episode ends."""
        assert self.world is not None
        counts = self._counts
        counts["messages"] += 1
        counts["said"] = (*counts["said"], action.text)
        judgement = self._guard.judge(action)
        info.update(verdict=judgement.verdict.value, reasons=judgement.reasons, rule=judgement.rule)
        if judgement.verdict is Verdict.ABORT:
            return "", True
        if judgement.verdict not in (Verdict.ALLOW, Verdict.CLAMP):
            counts["refused"] += 1
            info.update(ok=False, error=_first(judgement.reasons))
            return f"Refused: {info['error']}", False
        answer = self.world.reply(cast(Message, judgement.action).text)
        return answer or "", answer is None

    def _call(self, action: ToolAction | Malformed, info: dict[str, Any]) -> tuple[str, bool]:
        """The result of a call as the model reads it, and whether the guard ended the episode."""
        assert self.world is not None
        counts = self._counts
        counts["calls"] += 1
        if isinstance(action, Malformed):
            info.update(verdict="", ok=False, error="not a tool call with JSON arguments")
            return f"Error: {info['error']}", False
        judgement = self._guard.judge(action)
        if judgement.verdict is Verdict.ASK and self.world.confirm(action):
            self._guard.confirm(action)
            judgement = self._guard.judge(action)
            info["confirmed"] = True
        info.update(verdict=judgement.verdict.value, reasons=judgement.reasons, rule=judgement.rule)
        if judgement.verdict not in (Verdict.ALLOW, Verdict.CLAMP):
            return self._refused(action, info, judgement.verdict)
        executed = cast(ToolAction, judgement.action)
        result = self.scenario.toolset.call(executed, on=self.world)
        self._guard.record(executed, result.ok, result.value)
        self._executed = executed
        info.update(ok=result.ok, error=result.error)
        if result.ok:
            counts["calls_ok"] += 1
            counts["executed"] = (*counts["executed"], executed.key)
        return result.content, False

    def _refused(self, action: ToolAction, info: dict[str, Any], verdict: Verdict) -> tuple[str, bool]:
        """What the model reads when the guard let a call not through, and whether the episode ends."""
        counts = self._counts
        problem = self._problem(action)
        if problem:
            # It could not have been executed either, so no policy was broken; the schema says more than the guard.
            info.update(ok=False, error=problem)
            return f"Error: {problem}", verdict is Verdict.ABORT
        counts["refused"] += 1
        counts["broken"] = True
        # The guard's sentences begin with "NAME is refused: "; the agent knows what it called.
        reason = re.sub(r"^\S+ (is refused|has to wait): ", "", _first(info["reasons"])) or verdict.value
        info.update(ok=False, error=reason)
        return f"Refused: {reason}", verdict is Verdict.ABORT

    def _problem(self, action: ToolAction) -> str:
        """What is wrong with a call's name or arguments, in short; empty if nothing is."""
        toolset = self.scenario.toolset
        if action.name not in toolset.names:
            return f"there is no tool {action.name[:64]}"
        return " ".join(toolset.problems(action)[:2])

    def _rewarded(self, action: Proposal, state: State) -> float:
        reward = float(self.scenario.calculate_reward(self._state, action, state))
        self._reward += reward
        low, high = self.scenario.reward_range
        for value, what in ((reward, "a step"), (self._reward, "an episode")):
            if not low - ROUNDING <= value <= high + ROUNDING:
                raise ScenarioError(
                    f"{self.scenario.name} gave {what} a reward of {value:.4g}.",
                    allowed=f"Its reward_range says {low:g} to {high:g}.",
                    next_step="Correct its calculate_reward, or its reward_range.",
                )
        return reward

    def _trace(
        self, action: Proposal, written: str, observation: str, reward: float, info: dict[str, Any]
    ) -> None:
        assert self.trace is not None
        assert self.task is not None
        proposed = (
            {"type": "malformed", "text": action.text} if isinstance(action, Malformed) else to_dict(action)
        )
        self.trace.write(
            time_s=time.time(),
            step=self._counts["steps"],
            run=self.run,
            episode=self.episode or self.task.id,
            observation=self._seen,
            model_output=written,
            proposed=proposed,
            verdict=info["verdict"],
            reasons=list(info["reasons"]),
            executed=to_dict(self._executed) if self._executed is not None else None,
            result=observation,
            reward=reward,
            ok=info["ok"],
            rule=info.get("rule", ""),
            confirmed=info.get("confirmed", False),
            **self._about_episode(),
        )
        self._seen = observation

    def _about_episode(self) -> dict[str, Any]:
        """What a trace says once: of the task in its first line, of the end in its last one."""
        assert self.task is not None
        said: dict[str, Any] = {}
        if self._counts["steps"] == 1:
            said |= {"facts": self._facts, "task": self.task.id, "split": self.task.split}
        if self._over:
            outcome = self.outcome
            said |= {"solved": outcome.success, "criteria": outcome.criteria}
        return said


def _proposal(call: ToolCall) -> ToolAction | Malformed:
    """The action of a call as a model wrote it."""
    try:
        return ToolAction.from_call(call) if call.name else Malformed(call.arguments)
    except ValueError:
        return Malformed(f"{call.name} {call.arguments}")


def _first(reasons: tuple[str, ...]) -> str:
    return reasons[0] if reasons else ""
