"""One conversation of a deployed agent: what it proposes is judged by its guard before anyone executes it.

The server proposes and judges; whoever runs the agent executes and posts the result back, and only what was allowed and
succeeded counts for a precondition. A turn with several calls is judged one call at a time, each after the result of
the one before. The model reads what the guard refused as the call's result, worded as in practice, and goes on.

    session.take(…)            the person's words, a result, a confirmation
    session.wants_turn         whether the model has to write
    session.wrote(turn)        what it wrote
    session.judge()            the next action with its verdict

A conversation that was kept elsewhere is read again with `replay`: its calls are judged in order, and those that the
guard would not have let through count for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from melete.actions.action import Message, ToolAction, to_dict
from melete.actions.guard import Guard, GuardSession, Judgement, Verdict
from melete.actions.schema import compile_schema
from melete.records import ToolCall, Turn

FAILED = ("Error:", "Refused:", "error:", "refused:")
"""How the result of a call that failed begins, in training and here."""


class OutOfTurn(Exception):
    """What was posted does not fit the state of the conversation; the text says what is due."""


@dataclass(frozen=True)
class Step:
    """The next action of an agent.

    Attributes:
        proposed: what the model proposed, as in a trace.
        verdict: allow, clamp, refuse, ask or abort.
        reasons: the guard's, in sentences.
        rule: type of the rule that decided.
        execute: what may be executed now, clamped if need be; None where nothing may.
        written: text that the model wrote beside a call.
    """

    proposed: dict[str, Any]
    verdict: str
    reasons: tuple[str, ...]
    rule: str
    execute: dict[str, Any] | None
    written: str = ""


@dataclass(frozen=True)
class Result:
    """How an executed call ended, as its executor says."""

    ok: bool
    value: Any


class Checks:
    """The arguments' checks of an agent's tools, compiled once."""

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self._checks: dict[str, Callable[[Any], list[str]]] = {
            tool["function"]["name"]: compile_schema(
                tool["function"].get("parameters") or {"type": "object"}, closed=True
            )
            for tool in tools
        }

    def problem(self, action: ToolAction) -> str:
        """What is wrong with a call; empty if it could be executed."""
        if action.name not in self._checks:
            return f"There is no tool named {action.name!r}. Known: {', '.join(self._checks)}."
        return " ".join(self._checks[action.name](action.arguments)[:4])


@dataclass
class Conversing:
    """A conversation with its guard; not safe to use from several threads at once."""

    guard: GuardSession
    checks: Checks
    turns: list[Turn] = field(default_factory=list)
    steps: int = 0
    over: bool = False
    _queue: list[ToolCall] = field(default_factory=list)
    _due: tuple[str, ToolAction] | None = None
    _asked: tuple[str, ToolAction, str] | None = None
    _said: bool = False

    @classmethod
    def start(cls, guard: Guard, checks: Checks, facts: Mapping[str, Any] | None = None) -> Conversing:
        """A new conversation."""
        return cls(guard.start(facts), checks)

    @property
    def due(self) -> str:
        """What has to be posted next: `result`, `confirm`, `message`, or nothing (the agent goes on)."""
        if self._due is not None:
            return "result"
        if self._asked is not None:
            return "confirm"
        return "message" if self._said or not self.turns else ""

    def must_go_on(self) -> None:
        """Checks that the agent is to act now.

        Raises:
            OutOfTurn: something has to be posted first.
        """
        self._must_be_open()
        if self._due is not None:
            raise OutOfTurn(f"The result of {self._due[1].name} is due: send it as 'observation'.")
        if self._asked is not None:
            raise OutOfTurn("The agent waits for a confirmation: send 'confirm' with true or false.")
        if self.due == "message":
            raise OutOfTurn("The person's next message is due: send it as 'observation'.")

    @property
    def wants_turn(self) -> bool:
        """Whether the model has to write, as no proposed call is left to be judged."""
        return not self._queue and not self._asked

    def replay(self, turns: Sequence[Turn]) -> None:
        """Reads the beginning of a conversation that was kept elsewhere."""
        results = {turn.tool_call_id: turn.content for turn in turns if turn.role == "tool"}
        for turn in turns:
            self.turns.append(turn)
            self._said = turn.role == "assistant" and not turn.tool_calls
            if turn.role == "assistant" and not turn.tool_calls:
                self.guard.judge(Message(turn.content))
            for call in turn.tool_calls:
                self._replay_call(call, results.get(call.id))

    def observe(self, text: str, ok: bool = True) -> Result | None:
        """Takes the result of the call that was allowed last, or the person's next message (then None is returned).

        Raises:
            OutOfTurn: a confirmation is due, or the conversation is over.
        """
        self._must_be_open()
        if self._asked is not None:
            raise OutOfTurn("The agent waits for a confirmation: send 'confirm' with true or false.")
        self.guard.beat()
        if self._due is None:
            self._say("user", text)
            return None
        (call_id, action), self._due = self._due, None
        self.turns.append(Turn("tool", text, (), call_id))
        result = Result(ok and not text.startswith(FAILED), _value(text))
        self.guard.record(action, result.ok, result.value)
        return result

    def confirm(self, yes: bool) -> Step | None:
        """Takes the person's answer to a call that needs one; None where it was declined and the agent goes on.

        Raises:
            OutOfTurn: nothing waits for one.
        """
        self._must_be_open()
        if self._asked is None:
            raise OutOfTurn("No action waits for a confirmation.")
        self.guard.beat()
        (call_id, action, reason), self._asked = self._asked, None
        if not yes:
            self.turns.append(Turn("tool", f"Refused: {reason}", (), call_id))
            return None
        self.guard.confirm(action)
        return self._judged(call_id, action, self.guard.judge(action))

    def wrote(self, turn: Turn) -> None:
        """Takes what the model wrote."""
        self.turns.append(turn)
        self._queue = list(turn.tool_calls)
        self._said = False

    def judge(self) -> Step:
        """Judges the next proposed action; call it after `wrote`, or where `wants_turn` says that calls are left."""
        self.steps += 1
        written = next(turn.content for turn in reversed(self.turns) if turn.role == "assistant")
        if not self._queue:
            return self._judge_message(Message(written))
        call = self._queue.pop(0)
        try:
            action = ToolAction.from_call(call) if call.name else None
        except ValueError:
            action = None
        if action is None:
            return self._unreadable(call, written)
        judgement = self.guard.judge(action)
        problem = self.checks.problem(action)
        if problem and judgement.verdict is not Verdict.ABORT:
            # It could not be executed; the schema says more than the guard, for which it is a call that failed.
            self._failed(judgement)
            self._tell(call.id, f"Error: {problem}")
            return Step(to_dict(action), "refuse", (problem,), "schema", None, written)
        return self._judged(call.id, action, judgement, written)

    def _judged(self, call_id: str, action: ToolAction, judgement: Judgement, written: str = "") -> Step:
        verdict, reasons = judgement.verdict, judgement.reasons
        allowed = judgement.action
        execute = None
        if verdict in (Verdict.ALLOW, Verdict.CLAMP):
            assert isinstance(allowed, ToolAction)
            self._due = call_id, allowed
            execute = to_dict(allowed)
        elif verdict is Verdict.ASK:
            self._asked = call_id, action, reasons[0] if reasons else "it was not confirmed"
        else:
            self._tell(call_id, f"Refused: {reasons[0] if reasons else verdict.value}")
            self.over = verdict is Verdict.ABORT
        return Step(to_dict(action), verdict.value, reasons, judgement.rule, execute, written)

    def _judge_message(self, message: Message) -> Step:
        judgement = self.guard.judge(message)
        allowed = judgement.verdict in (Verdict.ALLOW, Verdict.CLAMP)
        self._said = True
        self.over = judgement.verdict is Verdict.ABORT
        execute = to_dict(judgement.action) if allowed else None
        return Step(to_dict(message), judgement.verdict.value, judgement.reasons, judgement.rule, execute)

    def _unreadable(self, call: ToolCall, written: str) -> Step:
        reason = "not a tool call with JSON arguments"
        self._tell(call.id, f"Error: {reason}")
        text = f"{call.name} {call.arguments}".strip()
        return Step({"type": "malformed", "text": text}, "refuse", (reason,), "schema", None, written)

    def _replay_call(self, call: ToolCall, result: str | None) -> None:
        try:
            action = ToolAction.from_call(call)
        except ValueError:
            return
        judgement = self.guard.judge(action)
        if self.checks.problem(action):
            self._failed(judgement)
            return
        if result is None:
            return
        if judgement.verdict is Verdict.ASK and not result.startswith(FAILED):
            # It was executed, so the person was asked; that stands in the conversation of the application.
            self.guard.confirm(action)
            judgement = self.guard.judge(action)
        if judgement.verdict in (Verdict.ALLOW, Verdict.CLAMP):
            self.guard.record(judgement.action, not result.startswith(FAILED), _value(result))
        self.over = self.over or judgement.verdict is Verdict.ABORT

    def _failed(self, judgement: Judgement) -> None:
        """Notes that a call which the guard allowed was not executed."""
        if judgement.verdict in (Verdict.ALLOW, Verdict.CLAMP):
            self.guard.record(judgement.action, False)

    def _say(self, role: str, text: str) -> None:
        self.turns.append(Turn(role, text))
        self._said = False

    def _tell(self, call_id: str, text: str) -> None:
        self.turns.append(Turn("tool", text, (), call_id))

    def _must_be_open(self) -> None:
        if self.over:
            raise OutOfTurn("The guard has ended this conversation; start a new one.")


def judge_turn(conversing: Conversing, content: str, calls: Sequence[ToolCall]) -> tuple[str, list[ToolCall]]:
    """What of a turn may leave the server: its text with the guard's reasons, and the calls that are allowed, clamped.

    Every call is judged in the state before the turn, as none of them has been executed.
    """
    conversing.wrote(Turn("assistant", content, tuple(calls)))
    kept: list[ToolCall] = []
    held: list[str] = []
    if not calls:
        step = conversing.judge()
        return (content, []) if step.execute else (f"[guard] {' '.join(step.reasons)}", [])
    for call in calls:
        step = conversing.judge()
        conversing._due = conversing._asked = None
        if step.execute is not None:
            kept.append(ToolAction(step.execute["name"], step.execute.get("arguments", {})).to_call(call.id))
        else:
            word = {"ask": "needs a person's confirmation", "abort": "ended the conversation"}.get(
                step.verdict, "refused"
            )
            held.append(f"[guard] {call.name or 'a call'} {word}: {' '.join(step.reasons)}")
    return "\n".join(part for part in (content, *held) if part), kept


def _value(text: str) -> Any:
    """A result as a value, in which preconditions look for fields."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
