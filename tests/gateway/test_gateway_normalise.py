"""A request's row follows from the set of its events, whatever order or repetition they come in."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import OUTCOMES, told_of

from melete.gateway.events import (
    FIELDS,
    LONGEST_LINE,
    Event,
    allowed,
    event_id,
    new_request,
    parse,
    text,
    to_line,
)
from melete.gateway.normalise import ERROR_CLASSES, STATUSES, interrupted_event, is_open, request_of

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def row_of(outcome: str, **end: Any) -> dict[str, Any]:
    """The row of a request that went as `outcome` says, with other fields in its last event."""
    events = told_of(outcome, "r", "s", 1000.0)
    events[-1] = replace(events[-1], fields={**events[-1].fields, **end})
    row = request_of(events)
    assert row is not None
    return row


def test_row_of_a_stream_holds_what_the_hook_told() -> None:
    row = row_of("stream")
    assert (row["id"], row["session_id"], row["source"], row["status"]) == ("r", "s", "hook", "ok")
    assert (row["endpoint"], row["stream"], row["ttft_ms"], row["first_chunk_ms"]) == (
        "chat",
        True,
        120.0,
        30.0,
    )
    assert (row["started_s"], row["ended_s"], row["latency_ms"]) == (1000.0, 1000.5, 500.0)
    assert (row["tokens_in"], row["tokens_cached"], row["tokens_out"]) == (100, 40, 20)
    assert (row["cost_usd"], row["cost_source"], row["client"]) == (0.001, "config", "openai")


def test_row_of_a_retried_request_counts_both_attempts_and_names_the_last_upstream() -> None:
    row = row_of("retried")
    assert (row["attempts"], row["upstream_request_id"], row["error_class"]) == (2, "req-2", None)


def test_row_of_a_refused_request_has_no_session() -> None:
    row = row_of("refused")
    assert (row["session_id"], row["status"], row["error_class"]) == (None, "refused", "refused_session")
    assert row["attempts"] == 0


@pytest.mark.parametrize("outcome", ["open", "interrupted"])
def test_row_of_a_request_that_has_not_ended_is_none(outcome: str) -> None:
    events = told_of(outcome, "r", "s", 1000.0)
    assert request_of(events) is None
    assert is_open(events)


def test_row_of_no_events_is_none() -> None:
    assert request_of([]) is None


def test_interrupted_end_gives_a_row_without_a_duration() -> None:
    events = told_of("interrupted", "r", "s", 1000.0)
    row = request_of([*events, interrupted_event("r", "s", 1000.0, "host:1:2")])
    assert row is not None
    assert (row["status"], row["error_class"], row["latency_ms"], row["ended_s"]) == (
        "interrupted",
        "interrupted",
        None,
        None,
    )
    assert (row["attempts"], row["upstream_request_id"]) == (1, "req-1")


def test_end_that_was_seen_wins_over_one_that_was_concluded() -> None:
    events = told_of("ok", "r", "s", 1000.0)
    concluded = interrupted_event("r", "s", 2000.0, "host:1:2")
    assert request_of([concluded, *events]) == request_of(events)


def test_clock_that_was_set_back_gives_no_negative_duration() -> None:
    row = row_of("error", latency_ms=None, started_s=1000.0, ended_s=900.0)
    assert (row["latency_ms"], row["ended_s"]) == (None, None)
    assert row_of("stream", ttft_ms=-5.0)["ttft_ms"] is None


def test_monotonic_duration_wins_over_a_clock_that_jumped() -> None:
    row = row_of("ok", started_s=1000.0, ended_s=99_000.0)
    assert (row["latency_ms"], row["ended_s"]) == (500.0, 1000.5)


def test_unknown_words_become_other() -> None:
    row = row_of("error", error_class="SomeNewError", status="strange")
    assert (row["status"], row["error_class"]) == ("error", "other")


@pytest.mark.parametrize("outcome", OUTCOMES)
@given(data=st.data())
def test_row_is_the_same_in_any_order_and_with_repeats(outcome: str, data: st.DataObject) -> None:
    events = told_of(outcome, "r", "s", 1000.0)
    shuffled = data.draw(st.permutations(events + events))
    assert request_of({event.id: event for event in shuffled}.values()) == request_of(events)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), anything))
def test_row_of_hostile_fields_keeps_to_its_words_and_has_nothing_negative(fields: dict[str, Any]) -> None:
    row = request_of([Event("end", "e", "r", "s", 5.0, "w", allowed(fields))])
    assert row is not None
    assert row["status"] in STATUSES
    assert row["error_class"] in ERROR_CLASSES | {None}
    numbers = [row[name] for name in row if name.endswith(("_ms", "_usd")) or name.startswith("tokens_")]
    assert all(value is None or (math.isfinite(value) and value >= 0) for value in numbers)


@given(st.dictionaries(st.text(), anything))
def test_line_holds_only_what_is_on_the_list(fields: dict[str, Any]) -> None:
    line = to_line(Event("end", "e", "r", "s", 5.0, "w", fields))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) <= LONGEST_LINE
    told = json.loads(line)["fields"]
    assert set(told) <= set(FIELDS)
    assert all(len(value) <= FIELDS[name][1] for name, value in told.items() if isinstance(value, str))


@given(st.sampled_from(OUTCOMES))
def test_line_read_back_is_the_event(outcome: str) -> None:
    for event in told_of(outcome, "r", "s", 1000.0):
        assert parse(to_line(event)) == event


def test_fields_that_are_not_allowed_are_counted() -> None:
    assert allowed({"prompt": "secret", "tokens_in": "7", "tokens_out": 3}) == {"tokens_out": 3, "dropped": 2}


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_garbage_is_no_event(line: bytes) -> None:
    assert parse(line) is None


@given(anything)
def test_json_that_is_no_event_is_no_event(value: Any) -> None:
    assert parse(json.dumps(value).encode()) is None


@pytest.mark.parametrize("cut", [1, 20, 80])
def test_line_that_was_torn_is_no_event(cut: int) -> None:
    line = to_line(told_of("ok", "r", "s", 1000.0)[0])
    assert parse(line[:-cut]) is None or cut == 1


def test_line_that_is_too_long_is_no_event() -> None:
    assert parse(to_line(told_of("ok", "r", "s", 1.0)[0])[:-1] + b" " * LONGEST_LINE) is None


@given(st.text(st.characters()))
def test_text_can_be_kept_by_every_database(value: str) -> None:
    kept = text(value, 50)
    assert "\x00" not in kept
    assert len(kept) <= 50
    kept.encode()


def test_ids_of_new_requests_are_uuids_that_sort_by_time() -> None:
    ids = [new_request() for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(id).version for id in ids} == {7}
    assert [id[:13] for id in ids] == sorted(id[:13] for id in ids)


def test_event_id_tells_attempts_apart() -> None:
    assert len({event_id("r", "attempt", 0), event_id("r", "attempt", 1), event_id("r", "end")}) == 3
