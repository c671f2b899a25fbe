"""An agent as a harness: tasks from the command line and as JSON lines, against a real server."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from agents.desk import Desk, task
from melete import settings
from melete.agents import frameworks, play, player
from melete.agents.hub import PolicyRef
from melete.errors import ConfigError
from melete.serve import models
from melete.serve.server import Server


@pytest.fixture
def url(home: settings.Settings) -> Iterator[str]:
    """Address of the echo model, which repeats what it hears and so solves nothing."""
    with Server(models.load_all(["echo"], home), replace(home, token=None)) as server:
        yield f"{server.url}/v1"


def line(url: str, session: str, number: int = 0, **task: Any) -> str:
    environment = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-own", "OPENAI_MODEL": "echo"}
    task = {"scenario": "customer_support", "split": "held_out", "number": number, **task}
    return json.dumps({"session": session, "environment": environment, "task": task}) + "\n"


def played(*lines: str) -> dict[str, dict[str, Any]]:
    out = io.StringIO()
    play.play_lines(frameworks.agent("openai"), lines, out, concurrency=3, timeout_s=30)
    rows = [json.loads(row) for row in out.getvalue().splitlines()]
    assert len({row["session"] for row in rows}) == len(rows)
    return {row["session"]: row for row in rows}


def test_play_lines_several_tasks_give_one_result_each(url: str) -> None:
    rows = played(*(line(url, f"s-{number}", number) for number in range(5)))
    assert sorted(rows) == [f"s-{number}" for number in range(5)]
    assert all(row["self_reported"]["status"] == "ok" for row in rows.values())
    assert all(row["self_reported"]["steps"] > 0 for row in rows.values())


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["openai", "langchain"])
@pytest.mark.parametrize("stream", [False, True])
def test_agent_streamed_or_not_makes_the_same_calls(framework: str, stream: bool, url: str) -> None:
    policy = PolicyRef(url, "echo", 0, api_key="sk-own", sampling={"stream": stream, "max_tokens": 64})
    env = Desk().create_environment(task())
    episode = player.play(frameworks.agent(framework), env, policy, "one", 7, 30.0)
    assert episode.error is None
    assert episode.outcome is not None
    assert (episode.outcome.success, episode.outcome.tool_calls_ok, episode.outcome.tool_calls) == (
        True,
        2,
        2,
    )


def test_play_lines_broken_line_tells_and_others_go_on(url: str) -> None:
    rows = played('{"session": "s-bad", "task": 3}\n', line(url, "s-good"), "no JSON at all\n")
    assert "no task that an agent can play" in rows["s-bad"]["note"]
    assert rows["s-good"]["self_reported"]["status"] == "ok"
    assert not rows[""]["solved"]


def test_play_lines_unknown_split_tells_and_others_go_on(url: str) -> None:
    rows = played(line(url, "s-bad", split="nowhere"), line(url, "s-good"))
    assert "nowhere" in rows["s-bad"]["note"]
    assert rows["s-bad"]["score"] is None
    assert rows["s-good"]["note"] == ""


def test_play_lines_dead_server_gives_failed_result_without_words_of_it() -> None:
    row = played(line("http://127.0.0.1:9/v1", "s-1"))["s-1"]
    assert (row["solved"], row["self_reported"]["status"]) == (False, "failed")
    assert row["note"] == "failed: APIConnectionError"


def test_assignment_attempts_have_seeds_of_their_own_and_variants_share_them(url: str) -> None:
    first, again = play.assignment(line(url, "a")), play.assignment(line(url, "b"))
    other = play.assignment(line(url, "c", attempt=1))
    assert first.seed == again.seed != other.seed


def test_assignment_repr_hides_the_key(url: str) -> None:
    assert "sk-own" not in repr(play.assignment(line(url, "a")))


def test_of_environment_without_key_names_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="no OPENAI_API_KEY, OPENAI_MODEL"):
        play.of({"OPENAI_BASE_URL": "http://127.0.0.1/v1"}, session="s")


def test_play_command_one_task_unsolved_exits_with_one(
    url: str, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    monkeypatch.setenv("OPENAI_MODEL", "echo")
    code, out, _ = call("agents", "play", "--task", "2")
    assert code == 1
    assert out.startswith("not solved: 0 of 0 calls succeeded")
