"""RL: groups without advantage move nothing, better tries become likelier, and practice shows on held-out problems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import own_checkpoint

from melete import datasets
from melete.errors import ConfigError, UnknownNameError
from melete.jobs.execute import Options, execute, resume
from melete.llm import finetune, rewards
from melete.llm import lm as lms
from melete.llm.distributed import SINGLE
from melete.llm.engine import Engine
from melete.llm.grpo import Draws, micro_batches
from melete.llm.learner import OwnLearner
from melete.llm.merge import Row, merge
from melete.llm.processes.rl import Config
from melete.llm.rewards import Problem
from melete.llm.rl import Trial, summary, update
from melete.llm.rollout import Episode, Move, rollouts
from melete.records import Conversation, RunRecord, Turn
from melete.runs import checkpoints
from melete.settings import Settings, load

SMALL = {"device": "cpu", "problems": 3, "group": 4, "max_tokens": 12, "val_problems": 3, "slots": 16}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_checkpoint(tmp_path_factory.mktemp("base") / "run", context=256)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MELETE_HOME", str(tmp_path / "home"))
    return load()


@pytest.fixture
def learner(base: Path) -> OwnLearner:
    lm = lms.load_checkpoint(base, torch.device("cpu"), torch.float32)
    return OwnLearner(lm, finetune.own_rates(lm, 0.1))


def run_rl(settings: Settings, base: Path, limit: int | None = None, **values: object) -> RunRecord:
    options = Options(settings=settings, limit_batches=limit)
    return execute("llm.rl", {**SMALL, "base": str(base), **values}, options)


def metrics(settings: Settings, record: RunRecord) -> list[dict[str, float]]:
    lines = (settings.runs / record.id / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def latest(settings: Settings, record: RunRecord) -> Path:
    return latest_in(settings.runs / record.id)


def latest_in(folder: Path) -> Path:
    found = checkpoints.latest(folder / "checkpoints")
    assert found is not None
    return found


def trial(learner: OwnLearner, rewards_of_tries: list[float]) -> Trial:
    """A group of made-up tries of different lengths, with the log-probs that the learner itself gives them."""
    prompt = [learner.lm.tokenizer.bos, 5, 6, 7]
    episodes = []
    for i, reward in enumerate(rewards_of_tries):
        tokens = [20 + i, 30 + i, *range(40, 40 + i)]
        (batch,) = micro_batches([(row(Move(prompt, tokens, [0.0] * len(tokens))), 0.0)], torch.device("cpu"))
        with torch.no_grad():
            losses = learner.token_losses(batch.tokens, batch.targets)
        logprobs = (-losses[batch.targets >= 0]).tolist()
        episodes.append(
            Episode(Problem(Conversation(()), None), [], [Move(prompt, tokens, logprobs)], reward)
        )
    return Trial(0, episodes)


def row(move: Move) -> Row:
    (only,) = merge([(move.prompt, move.tokens, move.logprobs)])
    return only


def likelihood(learner: OwnLearner, move: Move) -> float:
    (batch,) = micro_batches([(row(move), 0.0)], torch.device("cpu"))
    with torch.no_grad():
        return -float(learner.token_losses(batch.tokens, batch.targets).sum())


def test_update_with_groups_of_equal_rewards_moves_nothing(learner: OwnLearner) -> None:
    config = Config()
    update(learner, [trial(learner, [1.0, 0.0, 0.5])], 1.0, config, SINGLE)
    before = {name: p.clone() for name, p in learner.optimizer.master_weights().items()}
    state = {name: t.clone() for name, t in learner.optimizer.state_tensors().items()}
    figures = update(learner, [trial(learner, [0.0] * 4), trial(learner, [1.0] * 4)], 1.0, config, SINGLE)
    after = learner.optimizer.master_weights()
    assert figures["gradient_norm"] == 0.0
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(state[name], t) for name, t in learner.optimizer.state_tensors().items())


def test_update_makes_the_better_tries_likelier_and_the_worse_ones_less(learner: OwnLearner) -> None:
    group = trial(learner, [1.0, 0.0, 0.0, 1.0])
    moves = [episode.moves[0] for episode in group.episodes]
    before = [likelihood(learner, move) for move in moves]
    for _ in range(3):
        update(learner, [group], 1.0, Config(), SINGLE)
    change = [likelihood(learner, move) - was for move, was in zip(moves, before, strict=True)]
    assert min(change[0], change[3]) > 0 > max(change[1], change[2])


def test_update_stops_at_the_clip_of_the_ratio(learner: OwnLearner) -> None:
    group = trial(learner, [1.0, 0.0])
    figures = [update(learner, [group], 1.0, Config(), SINGLE) for _ in range(40)]
    assert figures[0]["clipped"] == 0.0
    assert figures[-1]["clipped"] > 0.5


def test_update_with_kl_to_itself_adds_nothing_at_first(learner: OwnLearner) -> None:
    group = trial(learner, [1.0, 0.0])
    figures = update(learner, [group], 1.0, Config(kl=0.1), SINGLE, reference=learner.token_losses)
    assert figures["kl"] == pytest.approx(0.0, abs=1e-6)


def test_micro_batches_hold_every_token_once_at_its_place() -> None:
    moves = [
        (row(Move([1] * p, list(range(10, 10 + n)), [-0.5] * n)), float(p))
        for p in (3, 50, 7)
        for n in (1, 9)
    ]
    batches = micro_batches(moves, torch.device("cpu"))
    assert sum(int((batch.targets >= 0).sum()) for batch in batches) == 30
    for batch in batches:
        for i in range(len(batch.tokens)):
            where = (batch.targets[i] >= 0).nonzero()[:, 0]
            assert where[0] == float(batch.advantages[i]) - 1
            assert (batch.drawn[i, where] == -0.5).all()


def test_rollouts_are_drawn_with_the_learners_own_log_probs(learner: OwnLearner) -> None:
    task = rewards.load("toolcalls", load())
    problems = [p for p in task.problems("val")[:40] if len(Episode(p).prompt(learner.lm)) < 200][:6]
    for _ in range(4):
        update(learner, [trial(learner, [1.0, 0.0, 0.0])], 1.0, Config(), SINGLE)
    engine = Engine(learner.lm, slots=6)
    engine.swap(learner.weights())
    episodes = rollouts(engine, learner.lm, task, problems, max_tokens=16, temperature=1.0, seed=(1,))
    for episode in episodes:
        (move,) = episode.moves
        assert len(move.logprobs) == len(move.tokens) > 0
        assert likelihood(learner, move) == pytest.approx(sum(move.logprobs), rel=0.02, abs=0.3)


def test_rollouts_answer_tool_calls_and_go_on(learner: OwnLearner) -> None:
    """A model that has learned one call by heart makes it, sees the result and writes again."""
    chat, tokenizer = learner.lm.chat, learner.lm.tokenizer
    task = rewards.load("calculator", load())
    problem = Problem(Conversation((Turn("user", "6 times 7?"),)), 42)
    call = [
        tokenizer.special["<|tool_call|>"],
        *tokenizer.encode('{"name":"calculator","arguments":{"expression": "6 * 7"}}'),
    ]
    prompt = chat.render(problem.conversation, generation_prompt=True)[0]
    target = Move(prompt, [*call, tokenizer.end], [0.0] * (len(call) + 1))
    fast = OwnLearner(learner.lm, finetune.own_rates(learner.lm, 1.0))
    for _ in range(40):
        (batch,) = micro_batches([(row(target), 0.0)], torch.device("cpu"))
        fast.loss(batch.tokens, batch.targets).backward()
        fast.step(1.0)
    engine = Engine(fast.lm, slots=2)
    engine.swap(fast.weights())
    (episode,) = rollouts(engine, fast.lm, task, [problem], max_tokens=40, temperature=0.0, seed=(1,))
    assert [turn.role for turn in episode.turns][:3] == ["assistant", "tool", "assistant"]
    assert episode.turns[1].content == "42"
    assert tokenizer.special["<|tool_result|>"] in episode.moves[1].prompt
    assert episode.moves[1].prompt[: len(prompt)] == prompt


def test_rl_on_groups_that_all_fail_leaves_the_weights_as_they_were(settings: Settings, base: Path) -> None:
    record = run_rl(settings, base, steps=2, task="calculator")
    assert all(line["groups_skipped"] == 1.0 for line in metrics(settings, record))
    before, after = checkpoints.load(base, "model"), checkpoints.load(latest(settings, record), "model")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_rl_stopped_and_resumed_gives_the_weights_of_an_unbroken_run(settings: Settings, base: Path) -> None:
    # A random model makes no calls, so where none is due it is right: groups differ once one of them stumbles.
    values = {"steps": 3, "save_every": 2, "problems": 6, "rate": 10.0, "max_tokens": 24}
    whole = run_rl(settings, base, **values)
    part = run_rl(settings, base, limit=2, **values)
    path = settings.runs / part.id / "run.json"
    path.write_text(path.read_text().replace('"succeeded"', '"lost"'))
    resumed = resume(settings.runs / part.id, Options(settings=settings, limit_batches=100))
    rewards_of = [[line["reward"] for line in metrics(settings, record)] for record in (whole, resumed)]
    assert rewards_of[0] == rewards_of[1]
    a, b = (checkpoints.load(latest(settings, record), "model") for record in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_rl_reports_before_and_after_with_intervals(settings: Settings, base: Path) -> None:
    record = run_rl(settings, base, steps=1)
    assert record.result["before"]["count"] == record.result["after"]["count"] == 3
    assert 0 <= record.result["after"]["low"] <= record.result["after"]["high"] <= 1
    (line,) = metrics(settings, record)
    assert {
        "reward",
        "solved",
        "pass_at_4",
        "groups_all_right",
        "groups_all_wrong",
        "response_tokens",
    } <= set(line)


@pytest.mark.slow
def test_rl_answers_that_never_fit_are_a_clear_error(settings: Settings, base: Path) -> None:
    with pytest.raises(ConfigError, match="leaves room for 250 tokens"):
        run_rl(settings, base, steps=1, max_tokens=250)


def test_rl_of_an_unknown_task_names_the_known_ones(settings: Settings, base: Path) -> None:
    with pytest.raises(UnknownNameError, match="Known: calculator, gsm8k, toolcalls"):
        run_rl(settings, base, steps=1, task="calculatr")


def test_draws_prefer_problems_that_are_sometimes_solved() -> None:
    draws = Draws(30, seed=0)
    draws.learn([(i, [1.0] * 16) for i in range(10)])
    draws.learn([(i, [0.0] * 16) for i in range(10, 20)])
    draws.learn([(i, [1.0, 0.0] * 8) for i in range(20, 30)])
    chosen = [i for step in range(300) for i in draws.choose(step, 3)]
    mixed = sum(i >= 20 for i in chosen) / len(chosen)
    assert mixed > 0.6
    assert set(chosen) == set(range(30))


def test_draws_resumed_at_a_position_go_on_the_same() -> None:
    draws = Draws(50, seed=3)
    draws.learn([(i, [float(i % 2), 0.0, 1.0]) for i in draws.choose(0, 8)])
    again = Draws(50, seed=3, position=json.loads(json.dumps(draws.position)))
    assert draws.choose(1, 8) == again.choose(1, 8)
    assert len(set(draws.choose(1, 8))) == 8


def test_summary_counts_groups() -> None:
    figures = summary([[1.0, 1.0], [0.0, 0.0], [1.0, 0.2]], [10, 20, 30, 40, 50, 60])
    assert figures["solved"] == 0.5
    assert figures["pass_at_2"] == pytest.approx(2 / 3)
    assert figures["groups_all_right"] == figures["groups_all_wrong"] == pytest.approx(1 / 3)
    assert figures["groups_skipped"] == pytest.approx(2 / 3)
    assert figures["response_tokens"] == 35.0


@pytest.mark.slow
def test_rl_on_the_calculator_improves_on_held_out_problems(settings: Settings, tmp_path: Path) -> None:
    """A base that was taught too briefly seldom solves one; practice shows a difference on the same problems."""
    start = own_checkpoint(tmp_path / "start", context=320, depth=3, width=128)
    taught = (
        c
        for c in datasets.open("toolcalls").conversations("train")
        if [call.name for turn in c.turns for call in turn.tool_calls] == ["calculator"]
    )
    file = tmp_path / "calculator.jsonl"
    file.write_text("".join(json.dumps(c.to_openai()) + "\n" for c in taught))
    values = {"device": "cpu", "base": str(start), "data": str(file), "steps": 100, "val_turns": 0}
    base = execute("llm.sft", values, Options(settings=settings))
    practice = {"device": "cpu", "base": base.id, "task": "calculator", "steps": 50, "max_tokens": 40}
    record = execute("llm.rl", {**practice, "val_problems": 200, "slots": 128}, Options(settings=settings))
    difference = record.result["difference"]
    assert difference["count"] > 50
    assert difference["shown"]
    assert difference["low"] > 0


@pytest.mark.slow
def test_rl_on_two_ranks_trains_one_model_on_the_problems_of_both(settings: Settings, base: Path) -> None:
    values = ["--base", str(base), "--steps", "2", "--problems", "4", "--group", "4", "--max-tokens", "24"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "-m",
        "melete",
        "llm",
        "rl",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = ["--val-problems", "4", "--device", "cpu", "--name", "two"]
    subprocess.run([*command, *values, *options], check=True, env=environment, timeout=500)
    (folder,) = settings.runs.iterdir()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    position = checkpoints.read(latest_in(folder)).data_position
    assert sum(tries for tries, _ in position["draws"].values()) == 2 * 4 * 4
