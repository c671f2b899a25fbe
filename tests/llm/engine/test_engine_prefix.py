"""Beginnings that are already in the cache are reused, and what comes out does not change."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from melete.llm.engine import Engine, Sampling
from melete.llm.engine.slots import SHORTEST_REUSE, SlotTable, common_prefix
from melete.llm.lm import LM

SYSTEM = list(b"You are a helpful assistant; answer briefly. ")
GREEDY = Sampling(max_tokens=6, temperature=0, stop_ids=())


def test_prompt_sharing_a_beginning_with_a_finished_request_reuses_it(
    lm: LM, engine: Engine, by_model: Any
) -> None:
    first, second = SYSTEM + list(b"What is 1+1?"), SYSTEM + list(b"Really?")
    assert engine.generate([first], GREEDY)[0].cached_tokens == 0
    again = engine.generate([second], GREEDY)[0]
    assert again.cached_tokens == len(SYSTEM)
    assert again.token_ids == by_model(lm, second, 6)


def test_next_turn_of_a_conversation_reuses_prompt_and_answer(lm: LM, engine: Engine, by_model: Any) -> None:
    first = engine.generate([SYSTEM], GREEDY)[0]
    longer = SYSTEM + first.token_ids + list(b" And then?")
    second = engine.generate([longer], GREEDY)[0]
    assert second.cached_tokens == len(SYSTEM) + 5, "all but the last sampled token is in the cache"
    assert second.token_ids == by_model(lm, longer, 6)


def test_equal_prompts_at_once_are_computed_once(lm: LM, engine: Engine, by_model: Any) -> None:
    completions = engine.generate([SYSTEM] * 4, GREEDY)
    assert sorted(c.cached_tokens for c in completions) == [0] + [len(SYSTEM) - 1] * 3
    assert all(c.token_ids == by_model(lm, SYSTEM, 6) for c in completions)
    assert engine.stats().prompt_tokens == len(SYSTEM) + 3


def test_reuse_from_a_running_request_copies_its_beginning(lm: LM, engine: Engine, by_model: Any) -> None:
    running = engine.submit(SYSTEM, Sampling(max_tokens=40, temperature=0, stop_ids=()))
    engine.generate([list(b"other")], GREEDY)
    assert running.finish_reason is None
    completion = engine.generate([[*SYSTEM, 33]], GREEDY)[0]
    assert completion.cached_tokens == len(SYSTEM)
    assert completion.token_ids == by_model(lm, [*SYSTEM, 33], 6)
    engine.generate([list(b"x")] * 2, Sampling(max_tokens=60, temperature=0, stop_ids=()))
    assert running.result(1).token_ids == by_model(lm, SYSTEM, 40)


def test_reuse_after_eviction_never_gives_stale_tokens(lm: LM, by_model: Any) -> None:
    engine = Engine(lm, slots=2, dtype=torch.float32, prefill_chunk=16)
    variants = [SYSTEM[: 10 + 7 * i] + [i] * (5 + i) for i in range(5)]
    for round_trip in (variants, variants[::-1], variants[1::2] + variants[::2]):
        for prompt in round_trip:
            assert engine.generate([prompt], GREEDY)[0].token_ids == by_model(lm, prompt, 6)
    assert engine.stats().cached_tokens > 0


def test_swap_empties_the_prefix_store(engine: Engine, another: Any, by_model: Any) -> None:
    engine.generate([SYSTEM], GREEDY)
    other = another(5)
    engine.swap(other.model.state_dict())
    completion = engine.generate([SYSTEM], GREEDY)[0]
    assert (completion.cached_tokens, completion.token_ids) == (0, by_model(other, SYSTEM, 6))


def test_score_of_choices_computes_their_context_once(engine: Engine) -> None:
    engine.score([(SYSTEM, list(choice)) for choice in (b"yes", b"no", b"maybe", b"never")])
    fed = len(SYSTEM) + len(b"yesnomaybenever") - 4
    # The context's last position gives the first log-prob, so each choice computes that one again.
    assert engine.stats().prompt_tokens == fed + 3


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_common_prefix_is_the_longest(a: list[int], b: list[int]) -> None:
    length = common_prefix(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


def test_take_keeps_a_long_slot_that_shares_little() -> None:
    table = SlotTable(2)
    long = table.take(-1, 0)
    table[long].ids = list(range(100))
    table.release(long)
    source, shared = table.find([*range(SHORTEST_REUSE), 7, 7], 99)
    assert (source, shared) == (long, SHORTEST_REUSE)
    assert table.take(source, shared) != long
    assert len(table[long].ids) == 100
