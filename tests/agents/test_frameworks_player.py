"""The player: one episode of an agent, whatever it does, comes back as a result, and nothing of it acts afterwards."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator

import openai
import pytest

from agents.desk import LINES, Desk, echo_model, policy_at, task
from melete.agents import frameworks
from melete.agents.environment import Environment
from melete.agents.hub import Episode, PolicyRef
from melete.agents.player import Agent, EpisodeOver, Session, play
from melete.errors import MissingExtraError, ScenarioError, UnknownNameError
from melete.serve.recording import Recorder
from melete.serve.server import Server
from melete.settings import Settings


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Recorder]]:
    recorder = Recorder()
    home = tmp_path_factory.mktemp("home")
    with Server({"echo": echo_model()}, Settings.of(home, token="secret"), recorder=recorder) as server:
        yield server, recorder


def played(
    practice: tuple[Server, Recorder],
    agent: Agent,
    name: str,
    timeout_s: float | None = 30,
    **options: object,
) -> Episode:
    server, recorder = practice
    given = options.get("task", task())
    env = Desk().create_environment(given)  # type: ignore[arg-type]
    return play(agent, env, policy_at(server.url, "echo"), name, 7, timeout_s, group="g", recorder=recorder)


def look(session: Session) -> str:
    return next(tool for tool in session.tools if tool.name == "look").call({"ticket": "T1"})


def plain() -> Agent:
    return frameworks.load("openai").default_agent()


def test_episode_of_a_plain_agent_has_its_moves_and_its_outcome(practice: tuple[Server, Recorder]) -> None:
    episode = played(practice, plain(), "plain")
    assert (episode.status, episode.group, len(episode.moves)) == ("ok", "g", 5)
    assert episode.outcome is not None
    assert (episode.outcome.success, episode.outcome.tool_calls_ok) == (True, 2)
    assert episode.reward == episode.outcome.reward


def test_moves_extend_each_other_token_by_token(practice: tuple[Server, Recorder]) -> None:
    moves = played(practice, plain(), "extend").moves
    for before, after in itertools.pairwise(moves):
        whole = [*before.prompt_ids, *before.response_ids]
        assert list(after.prompt_ids[: len(whole)]) == whole


def test_two_plays_of_one_seed_are_the_same_episode(practice: tuple[Server, Recorder]) -> None:
    one, two = (played(practice, plain(), name) for name in ("again", "and_again"))
    assert (one.moves, one.outcome, one.reward) == (two.moves, two.outcome, two.reward)


def test_unreadable_and_unknown_calls_count_as_failed_calls(practice: tuple[Server, Recorder]) -> None:
    lines = ["call look {broken}", 'call nosuch {"a":1}', 'call erase {"ticket":"T1"}', "bye"]
    outcome = played(practice, plain(), "wrong", task=task(lines=lines)).outcome
    assert outcome is not None
    assert (outcome.tool_calls, outcome.tool_calls_ok, outcome.refused) == (3, 0, 1)


def test_agent_that_raises_is_a_failed_episode_with_its_error(practice: tuple[Server, Recorder]) -> None:
    def broken(session: Session) -> None:
        raise KeyError(session.api_key)

    episode = played(practice, broken, "raises")
    assert episode.status == "failed"
    assert episode.error == "KeyError: '***'"
    assert episode.reward == Desk.reward_range[0]


def test_agent_that_hangs_times_out_and_cannot_act_afterwards(practice: tuple[Server, Recorder]) -> None:
    release, tried, errors = threading.Event(), threading.Event(), list[Exception]()

    def hanging(session: Session) -> None:
        look(session)
        release.wait(30)
        for act in (lambda: look(session), lambda: ask(session)):
            try:
                act()
            except Exception as error:
                errors.append(error)
        tried.set()

    def ask(session: Session) -> None:
        client = openai.OpenAI(base_url=session.base_url, api_key=session.api_key)
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "x"}])

    episode = played(practice, hanging, "hangs", 0.2)
    release.set()
    assert tried.wait(30)
    assert (episode.status, episode.outcome and episode.outcome.tool_calls) == ("timeout", 1)
    assert [type(error) for error in errors] == [EpisodeOver, openai.PermissionDeniedError]


def test_agent_that_calls_tools_for_ever_is_cut_by_the_environment(practice: tuple[Server, Recorder]) -> None:
    def forever(session: Session) -> None:
        while True:
            look(session)

    episode = played(practice, forever, "forever")
    assert episode.status == "ok"
    assert episode.outcome is not None
    assert (episode.outcome.steps, episode.outcome.success) == (Desk.max_steps, False)


def test_agent_that_leaves_without_a_word_ends_the_episode(practice: tuple[Server, Recorder]) -> None:
    episode = played(practice, lambda session: None, "leaves")
    assert episode.outcome is not None
    assert (episode.status, episode.outcome.steps, episode.moves) == ("ok", 0, ())


def test_coroutine_agent_is_played_too(practice: tuple[Server, Recorder]) -> None:
    async def polite(session: Session) -> None:
        assert session.say("hello") == LINES[1]

    episode = played(practice, polite, "coroutine")
    assert (episode.status, episode.error) == ("ok", None)


def test_call_that_the_agent_holds_back_is_not_made_for_it(practice: tuple[Server, Recorder]) -> None:
    def careful(session: Session) -> None:
        loop = frameworks.load("openai").ToolLoop(  # type: ignore[attr-defined]
            openai.OpenAI(base_url=session.base_url, api_key=session.api_key),
            session.model, [tool.schema for tool in session.tools], lambda call: "not now",
        )  # fmt: skip
        session.say(loop.ask(session.request))

    outcome = played(practice, careful, "careful").outcome
    assert outcome is not None
    assert outcome.tool_calls == 0


def test_without_recorder_the_policys_own_key_is_used_and_no_move_is_kept(
    practice: tuple[Server, Recorder],
) -> None:
    server, _ = practice
    policy = PolicyRef(f"{server.url}/v1", "echo", 0, "secret")
    episode = play(plain(), Desk().create_environment(task()), policy, "gateway", 7, 30)
    assert (episode.status, episode.moves) == ("ok", ())
    assert episode.outcome is not None
    assert episode.outcome.success


def test_scenario_that_is_wrong_in_itself_is_not_taken_for_an_agents_failure(
    practice: tuple[Server, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallowing(session: Session) -> None:
        with contextlib.suppress(Exception):
            look(session)

    monkeypatch.setattr(Desk, "value", lambda self, state: 7.0 * state["episode"]["steps"])
    with pytest.raises(ScenarioError, match="reward"):
        played(practice, swallowing, "out_of_range")


def test_scenario_that_raises_fails_the_episode_even_if_the_agent_keeps_it_to_itself(
    practice: tuple[Server, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallowing(session: Session) -> None:
        with contextlib.suppress(Exception):
            look(session)

    monkeypatch.setattr(Desk, "value", lambda self, state: 1 / 0)
    episode = played(practice, swallowing, "scenario_raises")
    assert (episode.status, episode.error) == ("failed", "ZeroDivisionError: division by zero")


def test_world_is_freed_when_the_episode_has_ended(
    practice: tuple[Server, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[object] = []
    monkeypatch.setattr(Environment, "close", lambda self: freed.append(self.world))
    played(practice, plain(), "freed")
    assert freed[-1] is not None


def test_unknown_framework_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'langchian'.*Did you mean 'langchain'"):
        frameworks.load("langchian")


def test_framework_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = frameworks.find.load(frameworks.PACKAGE, "openai", "agent framework")
    monkeypatch.setattr(adapter, "LIBRARIES", ("no_such_library",))
    with pytest.raises(MissingExtraError, match=r"melete\[agents\]"):
        frameworks.load("openai")
