"""The journal of tau-bench's worlds: shared tables stay as they are, and equal databases have equal digests."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from melete.agents.scenarios._tau.journal import Journal, cents, differences, digest

TABLES = {
    "orders": {"1": {"price": 5, "items": [1, 2]}, "2": {"price": 7, "items": []}},
    "users": {"a": {"age": 3}},
}
EDITS = st.lists(st.tuples(st.sampled_from("12"), st.integers(0, 3)), max_size=6)


@given(EDITS)
def test_edits_never_reach_the_shared_tables(edits: list[tuple[str, int]]) -> None:
    before = copy.deepcopy(TABLES)
    journal = Journal(TABLES)
    for key, price in edits:
        order = journal.edit("orders", key)
        order["price"] = price
        order["items"].append(price)
    assert before == TABLES


@given(EDITS)
def test_digest_depends_on_the_last_values_and_not_on_the_order_of_edits(
    edits: list[tuple[str, int]],
) -> None:
    one, other = Journal(TABLES), Journal(TABLES)
    for key, price in edits:
        one.edit("orders", key)["price"] = price
    for key, price in sorted(dict(edits).items(), reverse=True):
        other.edit("orders", key)["price"] = price
    assert digest(TABLES, one.changed) == digest(TABLES, other.changed)


def test_edit_that_is_undone_is_no_difference() -> None:
    journal = Journal(TABLES)
    journal.edit("orders", "1")["price"] = 6
    journal.edit("orders", "1")["price"] = 5
    assert differences(TABLES, journal.changed) == {}
    assert digest(TABLES, journal.changed) == digest(TABLES, {})


def test_added_record_is_read_back_and_is_a_difference() -> None:
    journal = Journal(TABLES)
    journal.add("users", "b", {"age": 4})
    assert journal.get("users", "b") == {"age": 4}
    assert differences(TABLES, journal.changed) == {"users": {"b": {"age": 4}}}


def test_cents_of_a_tiny_negative_amount_is_zero_without_a_sign() -> None:
    assert str(cents(-0.001)) == "0.0"
    assert cents(0.1 + 0.2) == 0.3
