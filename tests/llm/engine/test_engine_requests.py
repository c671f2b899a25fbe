"""What a caller may rely on: seeds, stops, limits, streaming, cancelling, back-pressure, errors that stay at home."""

from __future__ import annotations

import threading
from typing import Any

import psutil
import pytest
import torch

from melete.errors import CheckpointError, ConfigError
from melete.llm.engine import Engine, EngineFull, Sampling, Token
from melete.llm.engine.cache import fit_context
from melete.llm.lm import LM

PROMPT = list(b"the quick brown fox")
OTHERS = [
    list(b"jumps over"),
    list(b"a"),
    list(b"the lazy dog and then some more text, much longer"),
    list(b"yes"),
]
NO_STOP: dict[str, Any] = {"stop_ids": ()}


def test_seed_gives_the_same_tokens_alone_and_in_a_crowd(lm: LM, engine: Engine) -> None:
    sampling = Sampling(max_tokens=20, temperature=1.0, seed=7, **NO_STOP)
    alone = Engine(lm, slots=1, dtype=torch.float32).generate([PROMPT], sampling)[0]
    crowd = [Sampling(max_tokens=9 + i, temperature=0.7, top_p=0.9, seed=i, **NO_STOP) for i in range(4)]
    together = engine.generate([*OTHERS, PROMPT], [*crowd, sampling])[-1]
    assert together.token_ids == alone.token_ids
    assert len(set(together.token_ids)) > 1


def test_generate_with_one_seed_gives_equal_prompts_different_samples(engine: Engine) -> None:
    first, second = engine.generate([PROMPT, PROMPT], Sampling(max_tokens=20, seed=3, **NO_STOP))
    assert first.token_ids != second.token_ids


def test_generate_twice_with_one_seed_repeats(lm: LM, engine: Engine) -> None:
    sampling = Sampling(max_tokens=20, seed=3, top_k=50, **NO_STOP)
    again = Engine(lm, slots=3, dtype=torch.float32).generate([PROMPT, *OTHERS], sampling)
    assert engine.generate([PROMPT, *OTHERS], sampling) == again


def test_stop_id_ends_the_request_and_stays_in_the_ids(lm: LM, engine: Engine, by_model: Any) -> None:
    greedy = by_model(lm, PROMPT, 8)
    stop = next(token for token in greedy[2:] if token not in greedy[:2])
    completion = engine.generate([PROMPT], Sampling(max_tokens=8, temperature=0, stop_ids=(stop,)))[0]
    assert completion.token_ids == greedy[: greedy.index(stop) + 1]
    assert completion.finish_reason == "stop"
    assert completion.text == bytes(greedy[: greedy.index(stop)]).decode("utf-8", "replace")


class Script:
    """A constraint that allows one given token after the other, as a grammar with a single sentence would."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.accepted: list[int] = []

    def mask(self) -> torch.Tensor:
        allowed = torch.zeros(264, dtype=torch.bool)
        allowed[self.tokens[len(self.accepted)]] = True
        return allowed

    def accept(self, token: int) -> None:
        self.accepted.append(token)


def test_constraint_limits_each_token_and_is_told_it(engine: Engine) -> None:
    script = Script(list(b"obey"))
    free = Sampling(max_tokens=4, temperature=0, **NO_STOP)
    bound = Sampling(max_tokens=4, temperature=0.5, constraint=script, logprobs=0, **NO_STOP)
    first, second = engine.generate([PROMPT, PROMPT], [free, bound])
    assert second.token_ids == script.accepted == list(b"obey")
    assert max(second.logprobs) < 0, "log-probs are those of the model, not of what was left"
    assert first.token_ids != second.token_ids


def test_constraint_that_fails_ends_its_own_request_only(engine: Engine) -> None:
    script = Script(list(b"ob"))
    good, bad = engine.generate(
        [PROMPT, PROMPT],
        [Sampling(max_tokens=6, seed=1, **NO_STOP), Sampling(max_tokens=6, constraint=script, **NO_STOP)],
    )
    assert (good.finish_reason, len(good.token_ids)) == ("length", 6)
    assert (bad.finish_reason, bad.token_ids) == ("error", list(b"ob"))
    assert bad.error is not None
    assert "constraint" in bad.error


def test_stop_string_across_tokens_is_cut_from_the_text(engine: Engine) -> None:
    script = Script(list(b"one, two; three"))
    completion = engine.generate(
        [PROMPT], Sampling(max_tokens=15, stop=("; t", "four"), constraint=script, **NO_STOP)
    )[0]
    assert completion.text == "one, two"
    assert completion.finish_reason == "stop"
    assert bytes(completion.token_ids) == b"one, two; t"


def test_stream_holds_back_what_may_begin_a_stop_string(engine: Engine) -> None:
    script = Script(list("a;;ü;!".encode()))
    generation = engine.submit(PROMPT, Sampling(max_tokens=7, stop=(";!!",), constraint=script, **NO_STOP))
    engine.start()
    pieces = [token.text for token in generation]
    engine.stop()
    assert pieces == ["a", "", ";", "", ";ü", "", ";!"]
    assert generation.text == "a;;ü;!"


def test_prompt_longer_than_the_context_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="96"):
        engine.submit([1] * 96)
    assert engine.generate([[1] * 95], Sampling(temperature=0, **NO_STOP))[0].finish_reason == "length"


@pytest.mark.parametrize(("prompt", "found"), [([], "0 tokens"), ([5, 264], "264"), ([-1], "-1")])
def test_prompt_that_is_no_prompt_is_refused(engine: Engine, prompt: list[int], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        engine.submit(prompt)


def test_completion_at_the_end_of_the_context_ends_by_length(engine: Engine) -> None:
    completion = engine.generate([PROMPT], Sampling(max_tokens=500, seed=1, **NO_STOP))[0]
    assert len(PROMPT) + len(completion.token_ids) == engine.context
    assert completion.finish_reason == "length"


def test_context_longer_than_the_models_is_refused(lm: LM) -> None:
    with pytest.raises(ConfigError, match="97"):
        Engine(lm, context=97)


def test_cache_that_does_not_fit_is_refused_or_cut_to_what_fits() -> None:
    available = psutil.virtual_memory().available
    with pytest.raises(ConfigError, match="fewer slots"):
        fit_context(100_000, 100_000, available // 1000, 8, torch.device("cpu"))
    with pytest.raises(ConfigError, match="fewer slots"):
        fit_context(None, 100_000, available // 100, 8, torch.device("cpu"))
    cut = fit_context(None, 1_000_000, available // 100_000, 8, torch.device("cpu"))
    assert 4_000 < cut < 8_000
    assert fit_context(None, 96, 1024, 8, torch.device("cpu")) == 96


@pytest.mark.parametrize("wrong", [{"top_p": 0.0}, {"temperature": -1.0}, {"max_tokens": 0}, {"stop": ("",)}])
def test_sampling_with_a_value_outside_its_range_says_what_is_allowed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Allowed"):
        Sampling(**wrong)


def test_short_request_ends_while_a_long_one_runs(engine: Engine) -> None:
    events: list[str] = []

    def told(name: str) -> Any:
        return lambda token: events.append(name if token else f"{name} ends")

    long = engine.submit(OTHERS[2], Sampling(max_tokens=30, seed=1, **NO_STOP), told("long"))
    short = engine.submit(OTHERS[1], Sampling(max_tokens=3, seed=1, **NO_STOP), told("short"))
    engine.start()
    assert long.result(60).finish_reason == short.result(60).finish_reason == "length"
    engine.stop()
    assert events.index("short ends") < events.index("long ends")
    assert "long" in events[events.index("short ends") :]


def test_cancel_frees_the_slot_for_the_next_request(lm: LM) -> None:
    engine = Engine(lm, slots=1, dtype=torch.float32)
    seen: list[Token] = []

    def third(token: Token | None) -> None:
        if token is not None:
            seen.append(token)
        if len(seen) == 3:
            first.cancel()

    first = engine.submit(PROMPT, Sampling(seed=1, **NO_STOP), third)
    second = engine.submit(OTHERS[0], Sampling(max_tokens=2, seed=1, **NO_STOP))
    engine.start()
    assert second.result(60).finish_reason == "length"
    assert (first.result(60).finish_reason, len(first.token_ids)) == ("cancelled", 3)
    engine.stop()


def test_cancel_of_a_waiting_request_ends_it_without_a_token(engine: Engine) -> None:
    generation = engine.submit(PROMPT)
    generation.cancel()
    engine.generate([OTHERS[0]], Sampling(max_tokens=2, **NO_STOP))
    assert (generation.finish_reason, generation.token_ids) == ("cancelled", [])


def test_full_line_refuses_with_a_time_to_retry(lm: LM) -> None:
    engine = Engine(lm, slots=1, waiting=2, dtype=torch.float32)
    kept = [engine.submit(PROMPT, Sampling(max_tokens=2, **NO_STOP)) for _ in range(2)]
    with pytest.raises(EngineFull) as refused:
        engine.submit(PROMPT)
    assert refused.value.retry_after_s >= 1
    engine.start()
    assert [generation.result(60).finish_reason for generation in kept] == ["length", "length"]
    assert engine.submit(PROMPT, Sampling(max_tokens=1, **NO_STOP)).result(60).finish_reason == "length"
    engine.stop()


def test_stop_of_the_engine_ends_what_waits_as_cancelled(engine: Engine) -> None:
    generation = engine.submit(PROMPT)
    engine.stop()
    assert generation.result(1).finish_reason == "cancelled"


def test_reader_that_raises_loses_its_own_request_only(engine: Engine) -> None:
    def broken(token: Token | None) -> None:
        raise RuntimeError("the client left")

    lost = engine.submit(PROMPT, Sampling(max_tokens=5, **NO_STOP), broken)
    kept = engine.generate([OTHERS[0]], Sampling(max_tokens=5, **NO_STOP))[0]
    assert (kept.finish_reason, lost.finish_reason) == ("length", "error")


def test_submit_from_many_threads_serves_each_its_own(lm: LM, engine: Engine, by_model: Any) -> None:
    engine.start()
    answers: dict[int, list[int]] = {}

    def ask(i: int) -> None:
        answers[i] = (
            engine.submit(OTHERS[i % 4], Sampling(max_tokens=6, temperature=0, **NO_STOP))
            .result(60)
            .token_ids
        )

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.stop()
    expected = [by_model(lm, prompt, 6) for prompt in OTHERS]
    assert answers == {i: expected[i % 4] for i in range(12)}


def test_weights_that_are_not_numbers_end_requests_with_an_error_and_the_engine_lives(
    lm: LM, engine: Engine
) -> None:
    good = lm.model.state_dict()
    before = engine.generate([PROMPT], Sampling(max_tokens=4, temperature=0, **NO_STOP))[0]
    engine.swap({name: tensor * float("nan") for name, tensor in good.items()})
    kinds = (Sampling(temperature=0, **NO_STOP), Sampling(**NO_STOP), Sampling(top_p=0.5, **NO_STOP))
    assert [c.finish_reason for c in engine.generate([PROMPT] * 3, kinds)] == ["error"] * 3
    engine.swap(good)
    assert engine.generate([PROMPT], Sampling(max_tokens=4, temperature=0, **NO_STOP))[0] == before


def test_model_that_fails_in_a_step_ends_its_requests_and_the_engine_lives(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: Any) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(engine.runner, "forward", out_of_memory)
        failed = engine.generate([PROMPT, OTHERS[0]], Sampling(max_tokens=4, **NO_STOP))
    assert [(c.finish_reason, c.error) for c in failed] == [
        ("error", "The model failed: RuntimeError: out of memory")
    ] * 2
    assert engine.generate([PROMPT], Sampling(max_tokens=4, **NO_STOP))[0].finish_reason == "length"
    assert engine.stats().running == 0


def test_swap_of_weights_of_another_shape_changes_nothing(lm: LM, engine: Engine) -> None:
    before = engine.generate([PROMPT], Sampling(max_tokens=4, temperature=0, **NO_STOP))[0].token_ids
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        engine.swap({**lm.model.state_dict(), "head.weight": torch.zeros(3, 3)})
    assert engine.generate([PROMPT], Sampling(max_tokens=4, temperature=0, **NO_STOP))[0].token_ids == before


def test_swap_in_the_middle_of_a_stream_drops_nothing(
    lm: LM, engine: Engine, another: Any, by_model: Any
) -> None:
    other = another(9)
    swapping = threading.Thread(target=lambda: engine.swap(other.model.state_dict()))
    count = 0

    def reader(token: Token | None) -> None:
        nonlocal count
        count += 1
        if count == 3:
            swapping.start()
        elif count > 3 and engine.stats().swaps == 0:
            swapping.join(0.01)  # lets the other thread come to its swap before the stream is over

    stream = engine.submit(PROMPT, Sampling(max_tokens=60, temperature=0, **NO_STOP), reader)
    engine.start()
    completion = stream.result(60)
    swapping.join()
    after = engine.submit(PROMPT, Sampling(max_tokens=10, temperature=0, **NO_STOP)).result(60)
    engine.stop()
    assert (completion.finish_reason, len(completion.token_ids)) == ("length", 60)
    assert completion.token_ids[:3] == by_model(lm, PROMPT, 3)
    assert completion.token_ids != by_model(lm, PROMPT, 60)
    assert (after.cached_tokens, after.token_ids) == (0, by_model(other, PROMPT, 10))
