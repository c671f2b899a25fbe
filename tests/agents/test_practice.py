"""Practice on a trial scenario: it improves, resumes exactly, drops stale episodes, and ends clearly when it has to."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import trial_shop
from agents.trial_shop import Shop
from llm.tiny import transformers_folder
from melete.actions import trace
from melete.agents import exam_url
from melete.agents import hub as hubs
from melete.agents.exam import EXAM_SEED
from melete.agents.gather import REVIVALS, Gathering
from melete.agents.hub import Episode, Move, Played, PolicyRef, Setup
from melete.agents.hubs import local
from melete.agents.measure import count, play_all, spent_by
from melete.agents.processes.train import Config
from melete.agents.rollout import EnginePlayer, Ticket
from melete.agents.train import advantages, schedule_of
from melete.errors import ConfigError, HubError, ScenarioError, ScenarioNotFoundError, TrainingFailedError
from melete.jobs.execute import Options, execute, resume
from melete.llm import finetune
from melete.llm import lm as lms
from melete.llm.checkpoint import save_model
from melete.llm.config import GPTConfig
from melete.llm.engine import Engine
from melete.llm.grpo import Draws, micro_batches
from melete.llm.learner import OwnLearner
from melete.llm.merge import merge
from melete.llm.model import GPT
from melete.llm.packing import Tally, encode
from melete.llm.tokenizer import Tokenizer
from melete.records import RunRecord
from melete.runs import checkpoints
from melete.runs.run import Run
from melete.serve import models
from melete.serve.server import Server
from melete.settings import Settings, load

CPU = torch.device("cpu")
SMALL = {
    "device": "cpu", "scenario": "trial_shop", "problems": 6, "group": 6, "pool": 6, "max_tokens": 48,
    "held_out": 24, "constrained": False, "rate": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that was shown demonstrations of which a part is wrong."""
    folder = tmp_path_factory.mktemp("base") / "run"
    shape = GPTConfig(264, 256, 2, 64, 2, 2)
    tokenizer = Tokenizer([bytes([i]) for i in range(256)])
    model = GPT(shape).initialize(0)
    folder.mkdir()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    parts: dict[str, Any] = {"stage": "sft", "model_config": shape, "tokenizer": tokenizer}
    path = save_model(Run(folder), step=1, weights=weights, **parts)
    assert path is not None
    lm = lms.load_checkpoint(path, CPU, torch.float32)
    learner = OwnLearner(lm, finetune.own_rates(lm, 1.0))
    shown = [
        encode(c, lm.chat, 256, Tally())[0] for c in Shop().demonstrations("train", 240, error_share=0.6)
    ]
    for step in range(90):
        rows = [shown[(step * 8 + i) % len(shown)] for i in range(8)]
        width = max(len(row) for row in rows) - 1
        tokens = torch.zeros((8, width), dtype=torch.long)
        targets = torch.full((8, width), -1)
        for i, row in enumerate(rows):
            ids, trained = torch.from_numpy(row.ids).long(), torch.from_numpy(row.trained)
            tokens[i, : len(ids) - 1] = ids[:-1]
            targets[i, : len(ids) - 1] = torch.where(trained[1:], ids[1:], -1)
        (learner.loss(tokens, targets) / (targets >= 0).sum()).backward()
        learner.step(min(1.0, (90 - step) / 45))
    path = save_model(Run(folder), step=2, weights=learner.optimizer.master_weights(), **parts)
    assert path is not None
    return path


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An empty home in which the trial scenarios are the user's own."""
    monkeypatch.setenv("MELETE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "scenarios"
    folder.mkdir(parents=True)
    text = Path(trial_shop.__file__).read_text(encoding="utf-8")
    for name in ("Shop", "Careless", "Endless", "Broken"):
        file = getattr(trial_shop, name).name
        (folder / f"{file}.py").write_text(text.replace("SCENARIO = Shop", f"SCENARIO = {name}"))
    return load()


@pytest.fixture
def engine(base: Path) -> Engine:
    return Engine(lms.load_checkpoint(base, CPU, torch.float32), slots=16, waiting=1000)


def practise(settings: Settings, base: Path, limit: int | None = None, **values: object) -> RunRecord:
    options = Options(settings=settings, limit_batches=limit)
    return execute("agents.train", {**SMALL, "base": str(base), **values}, options)


def lines(settings: Settings, record: RunRecord) -> list[dict[str, float]]:
    text = (settings.runs / record.id / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def latest(settings: Settings, record: RunRecord) -> Path:
    found = checkpoints.latest(settings.runs / record.id / "checkpoints")
    assert found is not None
    return found


def player(engine: Engine, base: Path, scenario: Any = None, **options: Any) -> EnginePlayer:
    lm = lms.load_checkpoint(base, CPU, torch.float32)
    return EnginePlayer(lm, engine, scenario or Shop(), **{"max_tokens": 48, **options})


@pytest.mark.slow
def test_practice_makes_the_calls_succeed_that_sometimes_failed(settings: Settings, base: Path) -> None:
    record = practise(settings, base, steps=24, held_out=60)
    (before, *_), (after, *_) = record.result["before"], record.result["after"]
    assert before["split"] == after["split"] == "held_out"
    assert before["tasks"] == after["tasks"] == 60
    assert 0.3 < before["reliability"][0] < 0.85
    assert after["reliability"][0] > before["reliability"][0] + 0.15
    assert after["success"][0] > before["success"][2]
    assert after["tokens_per_solved"] < before["tokens_per_solved"]


def test_practice_writes_figures_samples_and_traces(settings: Settings, base: Path) -> None:
    record = practise(settings, base, steps=1)
    (line,) = lines(settings, record)
    assert {"reward", "tool_reliability", "success", "tokens_per_task", "groups_all_right"} <= set(line)
    folder = settings.runs / record.id
    steps = [json.loads(text) for text in (folder / "traces" / "rollouts.jsonl").read_text().splitlines()]
    assert {step["episode"] for step in steps} == {f"0.{t}-{t2}" for t, t2 in _ids(steps)}
    assert len({step["episode"] for step in steps}) == 36
    for when in ("before", "after"):
        for row in record.result[when]:
            exam = trace.summarise(trace.read(folder / "traces" / f"{when}-{row['split']}.jsonl"))
            assert (exam.calls, exam.calls_ok) == (row["tool_calls"], row["tool_calls_ok"])
            assert len(exam.rewards) == row["tasks"]
    (sample,) = (folder / "samples").iterdir()
    assert "<|tool_call|>" in sample.read_text()


def test_practice_with_a_kl_weight_reports_how_far_it_has_gone(settings: Settings, base: Path) -> None:
    first, second = lines(settings, practise(settings, base, steps=2, held_out=2, kl=0.1, ahead=False))
    assert first["kl"] == pytest.approx(0.0, abs=1e-3)
    assert second["kl"] > first["kl"]


def _ids(steps: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for step in steps:
        group, _, number = step["episode"].removeprefix("0.").partition("-")
        yield group, number


@pytest.mark.slow
def test_practice_stopped_and_resumed_gives_the_weights_of_an_unbroken_run(
    settings: Settings, base: Path
) -> None:
    values = {"steps": 3, "save_every": 1, "held_out": 2, "ahead": False}
    whole = practise(settings, base, **values)
    part = practise(settings, base, limit=2, **values)
    path = settings.runs / part.id / "run.json"
    path.write_text(path.read_text().replace('"succeeded"', '"lost"'))
    resumed = resume(settings.runs / part.id, Options(settings=settings, limit_batches=100))
    rewards = [[line["reward"] for line in lines(settings, record)] for record in (whole, resumed)]
    assert rewards[0] == rewards[1]
    assert whole.result["after"] == resumed.result["after"]
    a, b = (checkpoints.load(latest(settings, record), "model") for record in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_practice_ahead_trains_on_episodes_one_version_old_and_repeats_itself(
    settings: Settings, base: Path
) -> None:
    one, two = (practise(settings, base, steps=3, held_out=2, ahead=True) for _ in "ab")
    assert [line["reward"] for line in lines(settings, one)] == [
        line["reward"] for line in lines(settings, two)
    ]
    assert sum(line["stale"] for line in lines(settings, one)) == 0
    with pytest.raises(ConfigError, match="one version old"):
        practise(settings, base, ahead=True, max_staleness=0)


@pytest.mark.slow
def test_practice_with_minutes_ends_when_they_are_over_and_keeps_its_checkpoint(
    settings: Settings, base: Path
) -> None:
    record = practise(settings, base, steps=1000, minutes=0.005, held_out=2)
    done = len(lines(settings, record))
    assert done < 100
    assert checkpoints.read(latest(settings, record)).step == done


@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.slow
def test_practice_of_a_transformers_model_keeps_a_checkpoint_of_its_kind(
    settings: Settings, tmp_path: Path, lora_rank: int
) -> None:
    folder = transformers_folder(tmp_path / "qwen")
    values = {"problems": 2, "group": 3, "pool": 2, "held_out": 2, "max_tokens": 12, "steps": 1}
    record = practise(settings, folder, lora_rank=lora_rank, **values)
    config = checkpoints.read(latest(settings, record)).config
    assert config["family"] == "transformers"
    assert bool(config["lora"]) == bool(lora_rank)


def test_practice_of_an_unknown_scenario_names_the_known_ones(settings: Settings, base: Path) -> None:
    with pytest.raises(ScenarioNotFoundError, match="customer_support"):
        practise(settings, base, scenario="customer_suport")


def test_practice_of_a_scenario_whose_reward_leaves_its_range_says_so(settings: Settings, base: Path) -> None:
    with pytest.raises(ScenarioError, match=r"careless_shop gave a step a reward of 7"):
        practise(settings, base, scenario="careless_shop")


def test_practice_of_a_scenario_that_cannot_start_says_what_it_raised(settings: Settings, base: Path) -> None:
    with pytest.raises(TrainingFailedError, match="the door is stuck"):
        practise(settings, base, scenario="broken_shop")


def test_rollout_of_an_agent_that_goes_on_for_ever_ends_at_max_steps(engine: Engine, base: Path) -> None:
    tasks = trial_shop.Endless().tasks("train", 4)
    for episode in play_all(player(engine, base, trial_shop.Endless()), tasks, 1, 4):
        assert episode.status == "ok"
        assert episode.outcome is not None
        assert episode.outcome.steps <= Shop.max_steps or len(episode.moves) < Shop.max_steps


def test_rollout_gives_the_same_episodes_however_many_are_in_flight(engine: Engine, base: Path) -> None:
    tasks = Shop().tasks("held_out", 12)
    one, many = (play_all(player(engine, base), tasks, 3, at_once) for at_once in (1, 12))
    assert [[m.response_ids for m in e.moves] for e in one] == [
        [m.response_ids for m in e.moves] for e in many
    ]
    assert [episode.reward for episode in one] == [episode.reward for episode in many]


def test_rollout_turns_of_an_episode_are_one_row_with_the_learners_own_log_probs(
    engine: Engine, base: Path
) -> None:
    played = play_all(player(engine, base), Shop().tasks("held_out", 12), 3, 12)
    episodes = [episode for episode in played if not episode.folded]
    assert max(len(episode.moves) for episode in episodes) > 2
    lm = lms.load_checkpoint(base, CPU, torch.float32)
    learner = OwnLearner(lm, finetune.own_rates(lm, 0.1))
    for episode in episodes:
        (row,) = merge((m.prompt_ids, m.response_ids, m.logprobs) for m in episode.moves)
        assert row.drawn == episode.tokens
        (batch,) = micro_batches([(row, 0.0)], CPU)
        with torch.no_grad():
            losses = learner.token_losses(batch.tokens, batch.targets)
        assert -float(losses.sum()) == pytest.approx(
            sum(sum(m.logprobs) for m in episode.moves), rel=0.03, abs=0.5
        )


def test_rollout_that_takes_too_long_is_a_timeout_and_its_siblings_go_on(engine: Engine, base: Path) -> None:
    slow = player(engine, base)
    tasks = Shop().tasks("train", 2)
    slow.begin(Ticket("a", tasks[0], "g", 1, "train", timeout_s=0.0))
    slow.begin(Ticket("b", tasks[1], "g", 2))
    ended: dict[str, Episode] = {}
    while slow.active:
        ended |= {episode.id: episode for episode in slow.advance(1.0)}
    assert ended["b"].status == "ok"
    assert ended["a"].status == "timeout" or len(ended["a"].moves) == 1


def test_measure_counts_what_happened_and_is_paired_by_seed(engine: Engine, base: Path) -> None:
    tasks = Shop().tasks("held_out", 20)
    games = [play_all(player(engine, base), tasks, 7, 20) for _ in "ab"]
    first, second = (count(game, "held_out", "free", 7, spent_by(game)) for game in games)
    assert first == second
    assert first.tasks == 20
    assert first.reliability[1] <= first.tool_calls_ok / first.tool_calls <= first.reliability[2]


def episode(reward: float, version: int = 0, group: str = "g", number: int = 0) -> Episode:
    move = Move([1, 2, 3], [4, 5], [-0.1, -0.2], version)
    return Episode(f"{group}-{number}", Shop().tasks("train", 1)[0], group, "ok", (move,), reward)


def test_advantages_of_groups_that_differ_little_are_left_out() -> None:
    from melete.agents.gather import Group

    task = Shop().tasks("train", 1)[0]
    close = Group("a", 0, task, (1, 2), {0: episode(0.9), 1: episode(0.91)})
    mixed = Group("b", 0, task, (1, 2), {0: episode(1.0), 1: episode(0.0)})
    ((first, second),) = advantages([close, mixed], refusal_cost=0.0)
    assert (first[1], second[1]) == (0.5, -0.5)


def test_advantages_with_a_refusal_cost_count_what_the_guard_refused() -> None:
    from melete.agents.environment import Outcome
    from melete.agents.gather import Group

    def refused(times: int, number: int) -> Episode:
        outcome = Outcome(True, 1.0, 2, 2, times, 2, {}, False)
        return replace(episode(1.0, number=number), outcome=outcome)

    group = Group("a", 0, Shop().tasks("train", 1)[0], (1, 2), {0: refused(0, 0), 1: refused(2, 1)})
    assert advantages([group], refusal_cost=0.0) == []
    ((clean, costly),) = advantages([group], refusal_cost=0.2)
    assert (clean[1], costly[1]) == (pytest.approx(0.2), pytest.approx(-0.2))


def test_schedule_of_minutes_falls_with_the_time_that_is_spent() -> None:
    config = Config(steps=1000, minutes=1.0, decay=0.5)
    factors = [schedule_of(config, 10, spent_s) for spent_s in (0.0, 30.0, 45.0, 60.0)]
    assert factors[:2] == [1.0, 1.0]
    assert factors[2] == pytest.approx(0.5)
    assert factors[3] == pytest.approx(0.1)


class PaperHub:
    """Answers every task at once; its episodes are of the versions that it is told, and it dies when it is told to."""

    def __init__(self, versions: Iterator[int], dies: Iterator[bool]) -> None:
        self._versions, self._dies = versions, dies
        self._done: list[Episode] = []

    def publish(self, policy: PolicyRef) -> None:
        pass

    def submit(self, tasks: Sequence[Any], *, group: str, seeds: Sequence[int], **_: Any) -> list[str]:
        version = next(self._versions)
        self._done += [episode(float(i), version, group, i) for i in range(len(tasks))]
        return [one.id for one in self._done[-len(tasks) :]]

    def completed(self, wait_s: float | None = None) -> list[Episode]:
        if next(self._dies):
            raise HubError("The hub is gone.")
        done, self._done = self._done, []
        return done

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def close(self) -> None:
        self._done = []


def gathering(hub: PaperHub, run: Run, **options: Any) -> Gathering:
    tasks = Shop().tasks("train", 6)
    given = {"size": 3, "count": 2, "max_staleness": 1, "seed": 1, "timeout_s": None, **options}
    return Gathering(lambda: hub, tasks, Draws(6, 1), run=run, **given)  # type: ignore[arg-type,return-value]


def test_gathering_drops_episodes_of_weights_that_are_too_old() -> None:
    hub = PaperHub(iter([4, 3]), itertools.repeat(False))
    groups = gathering(hub, Run(None))
    groups.publish(PolicyRef("", "m", 5), lambda: None)
    gathered = groups.take(0)
    assert gathered.stale == 3
    assert sorted(len(group.episodes) for group in gathered.groups) == [0, 3]


def test_gathering_goes_on_with_a_new_hub_when_one_dies(tmp_path: Path) -> None:
    hub = PaperHub(itertools.repeat(0), iter([True, False, False]))
    gathered = gathering(hub, Run(tmp_path)).take(0)
    assert [len(group.episodes) for group in gathered.groups] == [3, 3]
    assert "opened anew" in (tmp_path / "log.txt").read_text()


def test_gathering_of_a_hub_that_keeps_dying_ends_with_one_clear_message(tmp_path: Path) -> None:
    hub = PaperHub(itertools.repeat(0), itertools.repeat(True))
    with pytest.raises(TrainingFailedError, match=f"died {REVIVALS + 1} times.*The hub is gone"):
        gathering(hub, Run(tmp_path)).take(0)


@pytest.mark.slow
def test_practice_whose_hub_dies_for_good_keeps_its_checkpoint_and_goes_on_from_it(
    settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mortal(local.LocalHub):
        """Answers twice, and is dead from then on."""

        answers = 72

        def completed(self, wait_s: float | None = None) -> list[Episode]:
            if Mortal.answers <= 0:
                raise HubError("The hub is gone.")
            done = super().completed(wait_s)
            Mortal.answers -= len(done)
            return done

    monkeypatch.setattr(local, "LocalHub", Mortal)
    with pytest.raises(TrainingFailedError, match=r"The hub is gone.[\s\S]*kept in step_00000002"):
        practise(settings, base, steps=4, held_out=2, ahead=False)
    monkeypatch.undo()
    monkeypatch.setenv("MELETE_HOME", str(settings.home))
    (folder,) = (path for path in settings.runs.iterdir() if (path / "checkpoints").is_dir())
    record = resume(folder, Options(settings=settings))
    assert [line["step"] for line in lines(settings, record)] == [0, 1, 2, 3]


def test_local_hub_while_paused_plays_nothing_and_then_goes_on(engine: Engine, base: Path) -> None:
    lm = lms.load_checkpoint(base, CPU, torch.float32)
    hub = local.open(Setup(Shop(), Played(lm, engine), max_tokens=48))
    hub.publish(PolicyRef("", "m", 3))
    hub.pause()
    ids = hub.submit(Shop().tasks("train", 2), group="g", seeds=[1, 2])
    assert hub.completed(0.0) == []
    hub.resume()
    ended = []
    while len(ended) < 2:
        ended += hub.completed(None)
    assert sorted(one.id for one in ended) == sorted(ids)
    assert {move.policy_version for one in ended for move in one.moves} == {3}


def test_local_hub_that_was_closed_says_so(engine: Engine, base: Path) -> None:
    lm = lms.load_checkpoint(base, CPU, torch.float32)
    hub = local.open(Setup(Shop(), Played(lm, engine)))
    hub.close()
    with pytest.raises(HubError, match="closed"):
        hub.completed(0.0)


def test_hub_of_an_unknown_name_names_the_known_ones(engine: Engine, base: Path) -> None:
    lm = lms.load_checkpoint(base, CPU, torch.float32)
    with pytest.raises(Exception, match=r"Known: .*local"):
        hubs.open("lokal", Setup(Shop(), Played(lm, engine)))


def test_demonstrations_of_a_run_are_a_dataset_by_its_id(settings: Settings) -> None:
    from melete import datasets

    values = {"scenario": "trial_shop", "count": 12, "val": 3, "error_share": 0.5}
    record = execute("agents.demonstrate", values, Options(settings=settings))
    dataset = datasets.open(record.id, settings)
    assert len(list(dataset.conversations("train"))) == 12
    assert len(list(dataset.conversations("val"))) == 3
    assert 0 < record.result["train"]["tool_calls_ok"] < record.result["train"]["tool_calls"]


def test_evaluate_reports_each_split_and_decoding_apart(settings: Settings, base: Path) -> None:
    values = {"scenario": "trial_shop", "base": str(base), "held_out": 4, "device": "cpu", "max_tokens": 48}
    record = execute("agents.evaluate", values, Options(settings=settings))
    rows = [(row["split"], row["decoding"]) for row in record.result["measured"]]
    assert rows == [("held_out", "free"), ("unseen", "free"), ("held_out", "schema")]


@pytest.mark.slow
def test_exam_through_a_url_plays_the_episodes_that_the_engine_plays(
    settings: Settings, engine: Engine, base: Path
) -> None:
    tasks = Shop().tasks("held_out", 24)
    own = play_all(player(engine, base), tasks, EXAM_SEED, 8)
    with Server(models.load_all([f"shop={base}"], settings, device="cpu", slots=8), settings) as server:
        policy = PolicyRef(f"{server.url}/v1", "shop", 0, "none")
        sampling = {"temperature": 1.0, "max_tokens": 48}
        other, spent = exam_url.play_tasks(Shop(), policy, sampling, tasks, 4, 60.0)
    # A server refuses a turn that might not fit into the context; the engine begins it.
    both = [(one, two) for one, two in zip(own, other, strict=True) if two.status == "ok"]
    assert len(both) > 10
    for one, two in both:
        assert two.outcome == one.outcome
    assert spent is not None
    assert spent.tokens >= sum(one.tokens for one, _ in both)


def test_practice_on_an_empty_split_is_a_clear_error(settings: Settings, base: Path) -> None:
    with pytest.raises(ConfigError, match=r"problems: input should be greater"):
        practise(settings, base, problems=0)
