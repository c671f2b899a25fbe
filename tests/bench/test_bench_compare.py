"""Comparison: what is paired, what is left out and said, what is refused, and what is said in words."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

import pytest
import stored_sessions
from sqlalchemy import Connection
from stored_sessions import START_S, play, variant

from melete.bench import report, tables
from melete.errors import ConfigError, UnknownNameError
from melete.gateway import entities
from melete.records import SessionState
from melete.settings import Settings
from melete.store.database import connect

CALL = Callable[..., tuple[int, str, str]]


def difference(made: dict, metric: str) -> dict:  # type: ignore[type-arg]
    return next(row for row in made["comparisons"][0]["differences"] if row["metric"] == metric)


def two(connection: Connection, cards: int, **after: float) -> tuple[str, str]:
    """Two variants on some cards; the second one's requests have other figures."""
    sides = variant(connection, "before"), variant(connection, "after", model="large")
    for card in range(cards):
        play(connection, sides[0], f"card/{card}")
        play(connection, sides[1], f"card/{card}", requests=[after])
    return sides


def test_comparison_of_a_clear_gain_says_so_with_its_direction(home: Settings) -> None:
    with connect(home.database) as connection:
        stored_sessions.experiment(connection, cards=12)
        made = report.of_variants(connection, "before", "after")
    assert difference(made, "latency")["verdict"] == "better"
    assert difference(made, "latency")["high"] < 0 < difference(made, "tokens_per_s")["low"]
    assert difference(made, "tokens_per_s")["verdict"] == "better"
    assert made["comparisons"][0]["task_cards"] == 12
    assert re.fullmatch(
        r"a difference of \+[\d.]+ pp is shown with 12 pairs \(95% interval \+.* pp to \+.* pp\)",
        difference(made, "success")["sentence"],
    )


def test_variants_that_did_the_same_differ_in_nothing(home: Settings) -> None:
    draw = random.Random(1)
    with connect(home.database) as connection:
        sides = variant(connection, "before"), variant(connection, "after", model="large")
        for card in range(15):
            requests = [
                {
                    "latency_ms": draw.uniform(200, 900),
                    "cost_usd": draw.random() / 7,
                    "tokens_cached": draw.randrange(90),
                }
                for _ in range(draw.randint(1, 4))
            ]
            said = {"self_reported": {"tool_calls": card + 1, "tool_calls_ok": card}}
            for own in sides:
                play(connection, own, f"card/{card}", solved=card % 3 > 0, requests=requests, metadata=said)
        (found,) = report.of_variants(connection, "before", "after")["comparisons"]
    assert len(found["differences"]) >= 15
    assert {row["difference"] for row in found["differences"]} == {0.0}
    assert {row["verdict"] for row in found["differences"]} == {"none shown"}
    assert {(row["low"], row["high"]) for row in found["differences"]} == {(0.0, 0.0)}


def test_comparison_that_shows_nothing_says_how_many_pairs_would_be_needed(home: Settings) -> None:
    with connect(home.database) as connection:
        sides = variant(connection, "before"), variant(connection, "after", model="large")
        for card in range(12):
            play(connection, sides[0], f"card/{card}", solved=card % 2 == 0)
            play(connection, sides[1], f"card/{card}", solved=card % 2 == 0 or card in (1, 3))
        found = difference(report.of_variants(connection, "before", "after"), "success")
    assert (found["verdict"], found["test"]) == ("none shown", "mcnemar exact")
    assert found["sentence"].startswith("no difference shown with 12 pairs")
    assert found["sentence"].endswith(f"about {found['needed']} would be needed")


def test_repeated_attempts_count_as_one_pair_a_card(home: Settings) -> None:
    with connect(home.database) as connection:
        stored_sessions.experiment(connection, cards=4, attempts=5)
        made = report.of_variants(connection, "before", "after")
    (found,) = made["comparisons"]
    assert (found["task_cards"], found["pairs"], difference(made, "latency")["count"]) == (4, 20, 4)
    assert not difference(made, "latency")["shown"]


def test_cost_per_solved_counts_failed_attempts_too(home: Settings) -> None:
    with connect(home.database) as connection:
        before, after = variant(connection, "before"), variant(connection, "after", model="large")
        for card in range(8):
            play(connection, before, f"card/{card}", solved=card < 2, requests=[{"cost_usd": 1.0}])
            play(connection, after, f"card/{card}", solved=card < 4, requests=[{"cost_usd": 1.0}])
        made = report.of_variants(connection, "before", "after")
    assert [one["figures"]["cost_per_solved"][""]["value"] for one in made["variants"]] == [4.0, 2.0]
    assert difference(made, "cost_per_solved")["difference"] == -2.0


def test_cost_per_solved_is_unknown_where_nothing_was_solved(home: Settings) -> None:
    with connect(home.database) as connection:
        sides = variant(connection, "before"), variant(connection, "after", model="large")
        for card in range(3):
            play(connection, sides[0], f"card/{card}", solved=False)
            play(connection, sides[1], f"card/{card}", solved=True)
        made = report.of_variants(connection, "before", "after")
    assert "cost_per_solved" not in made["variants"][0]["figures"]
    assert "cost_per_solved" not in {row["metric"] for row in made["comparisons"][0]["differences"]}
    assert "success" in {row["metric"] for row in made["comparisons"][0]["differences"]}


def test_comparison_leaves_out_and_names_what_has_no_partner(home: Settings) -> None:
    with connect(home.database) as connection:
        before, after = two(connection, 3, latency_ms=500.0)
        play(connection, before, "only/before")
        play(connection, after, "card/0", attempt=1)
        made = report.of_variants(connection, "before", "after")
    (found,) = made["comparisons"]
    assert (found["pairs"], found["task_cards"]) == (3, 3)
    assert [line.partition(" without")[0] for line in found["left_out"]] == [
        f"1 session of {before}",
        f"1 session of {after}",
    ]
    assert "only/before" in found["left_out"][0]


def test_comparison_says_which_outcomes_are_missing(home: Settings) -> None:
    with connect(home.database) as connection:
        before, _ = two(connection, 3, latency_ms=500.0)
        play(connection, before, "card/2", solved=None, created_s=START_S + 9)
        made = report.of_variants(connection, "before", "after")
    assert made["comparisons"][0]["left_out"] == [
        f"1 session of {before} have no outcome and are left out of success and what is counted per solved task."
    ]
    assert difference(made, "success")["count"] == 2
    assert difference(made, "latency")["count"] == 3


def test_comparison_says_what_has_not_finished(home: Settings) -> None:
    with connect(home.database) as connection:
        before, _ = two(connection, 2, latency_ms=500.0)
        play(connection, before, "card/5", state=SessionState.ABORTED)
        play(connection, before, "card/6", state=SessionState.LIVE)
        made = report.of_variants(connection, "before", "after")
    assert made["notes"] == [f"Not finalised and in no number here, of {before}: 1 aborted, 1 live."]


def test_comparison_of_variants_without_a_common_card_is_refused_with_a_next_step(home: Settings) -> None:
    with connect(home.database) as connection:
        play(connection, variant(connection, "before"), "card/1")
        play(connection, variant(connection, "after", model="large"), "card/2")
        with pytest.raises(ConfigError, match="nothing to compare") as caught:
            report.of_variants(connection, "before", "after")
    assert "melete bench run" in str(caught.value)


def test_comparison_of_a_variant_with_itself_is_refused(home: Settings) -> None:
    with connect(home.database) as connection:
        two(connection, 2)
        with pytest.raises(ConfigError, match="the same variant"):
            report.of_variants(connection, "before", "before")


def test_comparison_of_an_unknown_variant_names_the_closest(home: Settings) -> None:
    with connect(home.database) as connection:
        two(connection, 2)
        with pytest.raises(UnknownNameError, match="Did you mean 'after'"):
            report.of_variants(connection, "before", "aftre")
        with pytest.raises(UnknownNameError, match="experiment with sessions"):
            report.of_variants(connection, "before", "after", "nowhere")


def test_two_versions_of_one_variant_can_be_compared_and_a_name_means_the_newest(home: Settings) -> None:
    with connect(home.database) as connection:
        old, new = variant(connection, "one"), variant(connection, "one", model="large")
        other = variant(connection, "other")
        for number, own in enumerate((old, new, other)):
            play(connection, own, "card", created_s=START_S + number)
        named = report.of_variants(connection, "one", "other")
        both = report.of_variants(connection, old, new)
    assert named["baseline"] == new
    assert any(old in note and "older version" in note for note in named["notes"])
    assert (both["comparisons"][0]["before"], both["comparisons"][0]["after"]) == (old, new)


def test_comparison_reads_the_newest_experiment_that_both_were_played_in(home: Settings) -> None:
    with connect(home.database) as connection:
        sides = variant(connection, "before"), variant(connection, "after", model="large")
        for number, name in enumerate(("first", "second")):
            id = entities.record(
                connection, "experiment", name, {"name": name, "variants": ["before", "after"]}
            )
            for own in sides:
                play(connection, own, f"card/{number}", experiment=id, created_s=START_S + number)
        newest = report.of_variants(connection, "before", "after")
        chosen = report.of_variants(connection, "before", "after", "first")
    assert newest["experiment"]["name"] == "second"
    assert any("also played in first" in note for note in newest["notes"])
    assert (chosen["experiment"]["name"], chosen["notes"]) == ("first", [])


def test_compare_command_prints_a_table_and_sentences(home: Settings, call: CALL) -> None:
    with connect(home.database) as connection:
        stored_sessions.experiment(connection, cards=12)
    code, out, _ = call("bench", "compare", "before", "after")
    assert code == 0
    assert re.search(r"^success +\S+ % +\S+ % +\+\S+ pp +\+\S+ to \+\S+  better$", out, re.MULTILINE)
    assert re.search(r"^success: a difference of \+\S+ pp is shown with 12 pairs", out, re.MULTILINE)


def test_compare_command_prints_a_narrow_table(home: Settings, call: CALL) -> None:
    with connect(home.database) as connection:
        stored_sessions.experiment(connection, cards=12)
    _, out, _ = call("bench", "compare", "before", "after")
    table = out.split("\n\n")[1]
    assert max(map(len, table.splitlines())) <= 88


def test_sentence_of_a_difference_names_its_effect_size(home: Settings) -> None:
    with connect(home.database) as connection:
        stored_sessions.experiment(connection, cards=12)
        made = report.of_variants(connection, "before", "after")
    found = made["comparisons"][0]
    # 10 of 12 cards are won and none is lost: mean 10/12 over a standard deviation of 0.389
    assert tables.sentences(made, found, ("success",))[0].endswith("effect size +2.14.")


def test_table_shows_the_number_of_cards_where_it_differs(home: Settings) -> None:
    with connect(home.database) as connection:
        before, _ = two(connection, 3, latency_ms=500.0)
        play(connection, before, "card/2", solved=None, created_s=START_S + 9)
        made = report.of_variants(connection, "before", "after")
    table = tables.comparison(made, made["comparisons"][0])
    place = table.head.index("cards")
    assert {row[0]: row[place] for row in table.rows if row[0] in ("success", "latency p50")} == {
        "success": "2",
        "latency p50": "3",
    }


def test_compare_command_with_json_prints_the_report(home: Settings, call: CALL) -> None:
    with connect(home.database) as connection:
        stored_sessions.experiment(connection, cards=3)
    _, out, _ = call("bench", "compare", "before", "after", "--json")
    assert json.loads(out)["comparisons"][0]["task_cards"] == 3


def test_compare_command_without_sessions_says_what_to_do(home: Settings, call: CALL) -> None:
    code, _, err = call("bench", "compare", "before", "after")
    assert code == 2
    assert "No variant with sessions exists yet" in err


@pytest.mark.parametrize(
    ("value", "unit", "signed", "text"),
    [
        (0.125, "share", False, "12.5 %"),
        (-0.125, "share", True, "−12.5 pp"),
        (0.0000123, "USD", False, "$0.0000123"),
        (1234.5, "USD", False, "$1,234.50"),
        (412.4, "ms", True, "+412 ms"),
        (99.96, "ms", False, "100 ms"),
        (61_234.0, "ms", False, "61,234 ms"),
        (1_234_567.0, "tokens", False, "1,234,567"),
        (0.0, "ms", True, "0 ms"),
        (float("inf"), "ms", False, "–"),
        (None, "ms", False, "–"),
    ],
)
def test_amount_is_written_as_people_read_it(value: float | None, unit: str, signed: bool, text: str) -> None:
    assert tables.amount(value, unit, signed=signed) == text
