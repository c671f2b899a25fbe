"""Traces: appended step by step, whole after a kill, counted, checked and judged again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melete.actions.action import Message, ToolAction
from melete.actions.guard import Guard, Judgement, Verdict
from melete.actions.ledger import ToolResult
from melete.actions.trace import KEYS, TraceWriter, action_text, check, files, read, replay, summarise
from melete.errors import ConfigError, StorageError

GUARD = Guard.from_dict(
    {
        "name": "test",
        "version": 1,
        "rules": [
            {"allow_list": {"tools": ["get", "pay", "verify"]}},
            {"argument_limits": {"tool": "pay", "arguments": {"amount": {"max": 500}}, "otherwise": "clamp"}},
            {"precondition": {"tool": "pay", "needs": "verify"}},
            {"confirmation": {"tool": "pay", "above": {"amount": 100}}},
            {"abort": {"refusals": 3}},
        ],
    }
)


def play(path: Path, *actions: ToolAction | Message, confirm: bool = True, episode: str = "e1") -> None:
    """Plays actions under the guard as an environment does, and traces them."""
    session = GUARD.start(now_s=0.0)
    with TraceWriter(path, run="r1", episode=episode) as trace:
        for step, action in enumerate(actions, 1):
            judgement: Judgement = session.judge(action, now_s=step)
            confirmed = confirm and judgement.verdict is Verdict.ASK
            if confirmed:
                session.confirm(action)
                judgement = session.judge(action, now_s=step)
            executed = result = None
            if judgement.verdict in (Verdict.ALLOW, Verdict.CLAMP) and isinstance(
                judgement.action, ToolAction
            ):
                executed = judgement.action
                result = ToolResult(executed.name != "get", "text", value=object())
                session.record(executed, result.ok, now_s=step)
            trace.write(
                time_s=step, step=step, proposed=action, verdict=judgement.verdict, reasons=judgement.reasons,
                rule=judgement.rule, executed=executed, result=result, ok=bool(result and result.ok), reward=0.5,
                confirmed=confirmed,
            )  # fmt: skip


ACTIONS = (
    Message("hello"),
    ToolAction("pay", {"amount": 5}),
    ToolAction("verify"),
    ToolAction("pay", {"amount": 900}),
    ToolAction("get", {"id": "O-1"}),
    ToolAction("drop"),
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    play(tmp_path / "traces" / "a.jsonl", *ACTIONS)
    return tmp_path / "traces" / "a.jsonl"


def test_line_holds_its_fields_in_order_with_records_as_json(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    everything: dict[str, Any] = dict.fromkeys(reversed(KEYS), 1)
    with TraceWriter(path, run="r") as writer:
        writer.write(
            **{**everything, "proposed": ToolAction("get", {"id": 1}), "verdict": Verdict.ALLOW}, extra=2
        )
    row = json.loads(path.read_text())
    assert list(row) == [*KEYS, "extra"]
    assert row["proposed"] == {"type": "tool", "name": "get", "arguments": {"id": 1}}
    assert row["verdict"] == "allow"


def test_value_of_a_result_is_left_out_and_its_content_kept(trace: Path) -> None:
    assert list(read(trace))[2]["result"] == {
        "ok": True, "content": "text", "error": None, "attempts": 1, "seconds": 0.0,
    }  # fmt: skip


def test_secrets_do_not_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with TraceWriter(path) as writer:
        writer.write(
            observation="my card is 4111 1111 1111 1111",
            model_output='{"name":"log_in","arguments":{"password":"hunter2"}}',
            proposed=ToolAction("log_in", {"password": "hunter2"}),
            result="sk-abcdefghijklmnopqrst",
        )
    text = path.read_text()
    assert not any(secret in text for secret in ("4111", "hunter2", "sk-abc"))


def test_torn_last_line_is_left_out_and_ended_by_the_next_writer(trace: Path) -> None:
    whole = list(read(trace))
    with trace.open("ab") as file:
        file.write(b'{"step": 7, "obser')
    assert list(read(trace)) == whole
    with TraceWriter(trace) as writer:
        writer.write(step=8)
    assert [step["step"] for step in read(trace)] == [*range(1, 7), 8]


KILLED = """
import itertools, sys
from pathlib import Path
from melete.actions.trace import TraceWriter
writer = TraceWriter(Path(sys.argv[1]))
for step in itertools.count(1):
    writer.write(step=step, observation="x" * 2000)
    print(step, flush=True)
"""


def test_trace_of_a_killed_process_has_every_step_that_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 200:
                child.send_signal(signal.SIGKILL)
                break
        said = [int(line) for line in child.stdout.read().split("\n")[:-1] if line] or [200]
    steps = [step["step"] for step in read(path)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= said[-1]


def test_writers_in_many_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t.jsonl")

    def work(number: int) -> None:
        for step in range(50):
            writer.write(step=step, episode=str(number), observation="x" * 5000)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = list(read(writer.path))
    assert len(rows) == 200
    assert all([row["step"] for row in rows if row["episode"] == str(i)] == list(range(50)) for i in range(4))


def test_full_disk_is_an_error_and_the_lines_before_stay(small_disk: Callable[[int], Path]) -> None:
    path = small_disk(65_536) / "t.jsonl"
    writer = TraceWriter(path)

    def fill() -> None:
        for step in range(1000):
            writer.write(step=step, observation="x" * 1000)

    with pytest.raises(StorageError):
        fill()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert len(rows) > 10


def test_summary_counts_calls_verdicts_refusals_and_reward(trace: Path) -> None:
    play(trace.parent / "b.jsonl", ToolAction("verify"), episode="e2")
    found = summarise(step for path in files(trace.parent.parent) for step in read(path))
    assert (found.steps, found.messages, found.calls, found.calls_ok) == (7, 1, 6, 3)
    assert found.verdicts == {"allow": 4, "clamp": 1, "refuse": 2}
    assert found.refusals == {"precondition": 1, "default": 1}
    assert found.tools == {"pay": [2, 1], "verify": [2, 2], "get": [1, 0], "drop": [1, 0]}
    assert found.rewards == {"e1": 3.0, "e2": 0.5}


def test_malformed_call_counts_as_a_call_that_failed() -> None:
    found = summarise([{"proposed": {"type": "malformed", "text": "{"}, "verdict": "", "executed": None}])
    assert (found.calls, found.calls_ok, found.tools) == (1, 0, {"(malformed)": [1, 0]})


def test_sound_trace_has_nothing_to_complain_of(trace: Path) -> None:
    assert check(read(trace)) == []


@pytest.mark.parametrize(
    ("step", "changes", "problem"),
    [
        (
            1,
            {"executed": {"type": "tool", "name": "pay", "arguments": {}}},
            "executed although the verdict is refuse",
        ),
        (2, {"executed": None}, "not executed although the verdict is allow"),
        (2, {"executed": {"type": "tool", "name": "pay", "arguments": {}}}, "executed another action"),
    ],
)
def test_trace_that_breaks_its_own_verdicts_is_found(
    trace: Path, step: int, changes: dict[str, Any], problem: str
) -> None:
    steps = list(read(trace))
    steps[step].update(changes)
    found = check(steps)
    assert [(one.step, one.problem.startswith(problem)) for one in found] == [(step + 1, True)]


def test_action_executed_after_an_abort_is_found(trace: Path) -> None:
    steps = list(read(trace))
    steps[1]["verdict"] = "abort"
    assert {one.problem for one in check(steps)} == {"executed after the episode was aborted"}


def test_replay_under_the_same_guard_judges_the_same(trace: Path) -> None:
    assert replay(read(trace), GUARD) == []


def test_replay_under_another_guard_tells_what_would_change(trace: Path) -> None:
    values = GUARD.to_dict()
    values["rules"][0] = {"allow_list": {"tools": ["get", "pay", "drop"]}}
    found = replay(read(trace), Guard.from_dict(values))
    assert [(one.step, one.problem.partition(":")[0]) for one in found] == [
        (3, "allow → refuse"), (6, "refuse → allow"),
    ]  # fmt: skip


def test_replay_knows_the_facts_of_the_episode() -> None:
    rules = [{"allow_list": {"tools": ["pay"]}}, {"precondition": {"tool": "pay", "facts": {"staff": True}}}]
    guard = Guard.from_dict({"name": "a", "version": 1, "rules": rules})
    steps = [{"episode": "e", "step": 1, "proposed": {"type": "tool", "name": "pay"}, "verdict": "allow"}]
    assert len(replay(steps, guard)) == 1
    assert replay([{**steps[0], "facts": {"staff": True}}], guard) == []


def test_action_text_is_one_short_line() -> None:
    assert (
        action_text({"type": "tool", "name": "get", "arguments": {"id": "O-1", "n": 2}})
        == 'get(id="O-1", n=2)'
    )
    assert action_text({"type": "message", "text": "hi"}) == "says: hi"
    assert action_text({"type": "discrete", "index": 3}) == 'discrete {"index": 3}'


def test_trace_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read(tmp_path / "none.jsonl"))
