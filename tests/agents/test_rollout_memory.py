"""Episodes that outgrow the context: they are folded and go on, and what is trained is what the engine drew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from agents.trial_shop import Shop, ShopWorld
from llm.tiny import byte_tokenizer
from melete.agents.hub import Episode
from melete.agents.measure import play_all
from melete.agents.rollout import EnginePlayer
from melete.agents.scenario import Task, World
from melete.llm.chat import MeleteChat
from melete.llm.config import GPTConfig
from melete.llm.engine import Engine
from melete.llm.lm import LM
from melete.llm.merge import merge
from melete.llm.model import GPT

CONTEXT, MAX_TOKENS = 320, 8
Played = tuple[Engine, list[Episode], list[list[int]]]


class Talkative(Shop):
    """A shop whose person always has one more thing to say."""

    name = "talkative_shop"
    max_steps = 12

    def world(self, task: Task) -> World:
        world = ShopWorld(task.request)
        world.reply = lambda text: "And then there is my order, O-77."  # type: ignore[method-assign]
        return world


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Played]:
    """Plays three episodes with random weights; with the engine and every prompt that it was given."""

    def play(context: int, scenario: Shop) -> Played:
        tokenizer = byte_tokenizer()
        model = GPT(GPTConfig(tokenizer.vocab_size, 1024, 1, 32, 1, 1)).initialize(0).eval()
        torch.manual_seed(0)
        for weights in model.parameters():  # fresh ones say every token with the same probability
            torch.nn.init.normal_(weights, std=0.1)
        lm = LM(model, tokenizer, MeleteChat(tokenizer), 1024, "melete", "tiny", "tiny")
        engine = Engine(lm, slots=3, context=context)
        prompts: list[list[int]] = []
        submit = engine.submit

        def noted(prompt: list[int], *options: Any) -> Any:
            prompts.append(list(prompt))
            return submit(prompt, *options)

        monkeypatch.setattr(engine, "submit", noted)
        player = EnginePlayer(lm, engine, scenario, max_tokens=MAX_TOKENS)
        return engine, play_all(player, scenario.tasks("train", 3), 1, 3), prompts

    return play


def test_episode_that_outgrows_the_context_is_folded_and_played_to_its_end(
    play: Callable[..., Played],
) -> None:
    _, episodes, _ = play(CONTEXT, Talkative())
    for episode in episodes:
        assert episode.status == "ok"
        assert episode.outcome is not None
        assert episode.outcome.steps == Talkative.max_steps
        assert episode.folded > 0
        last = list(episode.moves[-1].prompt_ids)
        assert len(last) <= CONTEXT - MAX_TOKENS
        request = Talkative().tasks("train", 3)[int(episode.id[-1])].request
        assert f"So far:\nRequest: {request}\n" in byte_tokenizer().decode(last)


def test_moves_of_a_folded_episode_are_what_the_engine_was_given_and_drew(
    play: Callable[..., Played],
) -> None:
    engine, episodes, prompts = play(CONTEXT, Talkative())
    moves = [move for episode in episodes for move in episode.moves]
    assert sorted(list(move.prompt_ids) for move in moves) == sorted(prompts)
    scored = engine.score([(list(move.prompt_ids), list(move.response_ids)) for move in moves])
    for move, score in zip(moves, scored, strict=True):
        assert move.logprobs == pytest.approx(score.logprobs, abs=1e-4)


def test_folded_episode_is_trained_in_rows_that_hold_every_drawn_token_once(
    play: Callable[..., Played],
) -> None:
    _, episodes, _ = play(CONTEXT, Talkative())
    for episode in episodes:
        rows = merge((move.prompt_ids, move.response_ids, move.logprobs) for move in episode.moves)
        assert 1 < len(rows) < len(episode.moves)
        assert sum(row.drawn for row in rows) == episode.tokens
        assert max(map(len, rows)) <= CONTEXT


def test_episode_that_fits_is_never_folded(play: Callable[..., Played]) -> None:
    _, episodes, prompts = play(1024, Talkative())
    assert [episode.folded for episode in episodes] == [0, 0, 0]
    assert not any("So far:" in byte_tokenizer().decode(prompt) for prompt in prompts)
    assert max(map(len, prompts)) > CONTEXT


def test_episode_whose_prompt_cannot_be_folded_ends_where_it_is(play: Callable[..., Played]) -> None:
    class Wordy(Talkative):
        system_prompt = "Sell. " * 60

    _, episodes, prompts = play(CONTEXT, Wordy())
    assert [(episode.status, len(episode.moves)) for episode in episodes] == [("ok", 0)] * 3
    assert prompts == []
