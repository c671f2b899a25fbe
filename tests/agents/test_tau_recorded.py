"""tau-bench's tools against results of the original that stand in the data: 88 example dialogues with tool results.

The dialogues show what tools returned, not how they were called. So each written record is traced back to the call that
must have made it; the call is carried out here, and the record has to be the recorded one.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from melete import datasets
from melete.actions.action import ToolAction
from melete.agents.scenarios._tau import data
from melete.agents.scenarios._tau.airline import AirlineWorld
from melete.agents.scenarios._tau.journal import Journal, Record
from melete.agents.scenarios._tau.retail import RetailWorld
from melete.agents.scenarios._tau.world import TauWorld
from melete.agents.scenarios.tau_airline import TauAirline
from melete.agents.scenarios.tau_retail import TauRetail
from melete.errors import DatasetError

MESSAGE = re.compile(r"\n(?=(?:user|assistant|tool): )")
NOBODY: dict[str, Any] = {"user_id": "", "instruction": "", "actions": [], "outputs": [], "failing": []}


def recorded(domain: str) -> Iterator[list[Any]]:
    """The tool results of each example dialogue, those that are JSON parsed."""
    try:
        path = datasets.open(data.DATASET).path(f"few_shot/Mock{domain}DomainEnv-few_shot.jsonl.gz")
    except DatasetError as error:
        pytest.skip(f"not at hand: {error.found}")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            messages = MESSAGE.split(json.loads(line)["messages_display"])
            yield [parsed(text[6:]) for text in messages if text.startswith("tool: ")]


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def retail_world() -> RetailWorld:
    return RetailWorld(Journal(data.tables("retail", TauRetail.tables)), NOBODY)


def airline_world() -> AirlineWorld:
    return AirlineWorld(Journal(data.tables("airline", TauAirline.tables)), NOBODY)


def rounded(value: Any) -> Any:
    """The value with amounts in cents and without the order of keys."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 2) if isinstance(value, float) else value


def order_calls(before: Record, after: Record) -> Iterator[ToolAction]:
    """The calls that turn an order into the recorded one."""
    order_id = {"order_id": after["order_id"]}
    if before["address"] != after["address"]:
        yield ToolAction("modify_pending_order_address", {**order_id, **after["address"]})
    if before["status"] == after["status"]:
        if len(after["payment_history"]) > len(before["payment_history"]):
            method = after["payment_history"][1]["payment_method_id"]
            yield ToolAction("modify_pending_order_payment", {**order_id, "payment_method_id": method})
    elif after["status"] == "cancelled":
        yield ToolAction("cancel_pending_order", {**order_id, "reason": after["cancel_reason"]})
    elif after["status"] == "return requested":
        method = after["return_payment_method_id"]
        about = {"item_ids": after["return_items"][::-1], "payment_method_id": method}
        yield ToolAction("return_delivered_order_items", {**order_id, **about})
    elif after["status"] == "exchange requested":
        old = after["exchange_items"]
        about = {
            "item_ids": old,
            "new_item_ids": matched(before, old, after["exchange_new_items"]),
            "payment_method_id": after["exchange_payment_method_id"],
        }
        yield ToolAction("exchange_delivered_order_items", {**order_id, **about})
    else:
        pairs = zip(before["items"], after["items"], strict=True)
        ids = [(old["item_id"], new["item_id"]) for old, new in pairs]
        changed = [pair for pair in ids if pair[0] != pair[1]] or ids[:1]
        about = {
            "item_ids": [old for old, _ in changed],
            "new_item_ids": [new for _, new in changed],
            "payment_method_id": after["payment_history"][-1]["payment_method_id"],
        }
        yield ToolAction("modify_pending_order_items", {**order_id, **about})


def matched(order: Record, old_ids: list[str], new_ids: list[str]) -> list[str]:
    """The new items in the order of the old ones: they are recorded sorted, each list for itself."""
    product_of = {item["item_id"]: item["product_id"] for item in order["items"]}
    variants = {
        key: one["variants"] for key, one in data.tables("retail", TauRetail.tables)["products"].items()
    }
    waiting = list(new_ids)
    found = []
    for old in old_ids:
        found.append(next(new for new in waiting if new in variants[product_of[old]]))
        waiting.remove(found[-1])
    return found


def reservation_call(before: Record, after: Record) -> ToolAction:
    """The call that turns a reservation into the recorded one."""
    about: dict[str, Any] = {"reservation_id": after["reservation_id"]}
    if after.get("status") != before.get("status"):
        return ToolAction("cancel_reservation", about)
    if after["total_baggages"] != before["total_baggages"]:
        bags = {key: after[key] for key in ("total_baggages", "nonfree_baggages")}
        method = before["payment_history"][0]["payment_id"]
        return ToolAction("update_reservation_baggages", {**about, **bags, "payment_id": method})
    flights = [{key: one[key] for key in ("flight_number", "date")} for one in after["flights"]]
    method = after["payment_history"][-1]["payment_id"]
    cabin = cabin_of(after["flights"])
    return ToolAction(
        "update_reservation_flights", {**about, "cabin": cabin, "flights": flights, "payment_id": method}
    )


def cabin_of(flights: list[Record]) -> str:
    """The cabin whose prices the flights have: the recorded cabin is the one before the change."""
    tables = data.tables("airline", TauAirline.tables)["flights"]
    days = [tables[one["flight_number"]]["dates"][one["date"]] for one in flights]
    prices = [one["price"] for one in flights]
    cabins = ("basic_economy", "economy", "business")
    return next(cabin for cabin in cabins if [day["prices"][cabin] for day in days] == prices)


def test_orders_change_as_recorded_in_the_shop() -> None:
    toolset, seen = TauRetail().toolset, Counter[str]()
    for results in recorded("Retail"):
        world: TauWorld = retail_world()
        for result in results:
            if not isinstance(result, dict) or "order_id" not in result:
                continue
            before = world.journal.get("orders", result["order_id"])
            assert before is not None
            if rounded(before) == rounded(result):
                continue
            for call in order_calls(before, result):
                answer = toolset.call(call, on=world)
                assert answer.ok, (call, answer.error)
                seen[call.name] += 1
            assert rounded(world.journal.get("orders", result["order_id"])) == rounded(result)
    assert seen == {
        "cancel_pending_order": 18,
        "exchange_delivered_order_items": 14,
        "modify_pending_order_address": 12,
        "modify_pending_order_items": 19,
        "modify_pending_order_payment": 1,
        "return_delivered_order_items": 20,
    }


def test_products_read_as_recorded_in_the_shop() -> None:
    world, seen = retail_world(), 0
    for results in recorded("Retail"):
        for result in results:
            if isinstance(result, dict) and "variants" in result:
                assert world.get_product_details(result["product_id"]) == result
                seen += 1
            elif isinstance(result, dict) and "Action Camera" in result:
                assert world.list_all_product_types() == result
                seen += 1
    assert seen == 53


def test_reservations_change_as_recorded_at_the_airline() -> None:
    toolset, seen = TauAirline().toolset, Counter[str]()
    for results in recorded("Airline"):
        world: TauWorld = airline_world()
        for result in results:
            if not isinstance(result, dict) or "reservation_id" not in result:
                continue
            before = world.journal.get("reservations", result["reservation_id"])
            assert before is not None
            if before == result:
                continue
            call = reservation_call(before, result)
            answer = toolset.call(call, on=world)
            assert answer.ok, (call, answer.error)
            seen[call.name] += 1
            after = world.journal.get("reservations", result["reservation_id"])
            assert after is not None
            assert {**after, "cabin": None} == {**result, "cabin": None}
    assert seen == {
        "cancel_reservation": 6,
        "update_reservation_baggages": 1,
        "update_reservation_flights": 7,
    }


def test_flights_are_found_as_recorded_at_the_airline() -> None:
    world, seen = airline_world(), 0
    dates = [f"2024-05-{day:02d}" for day in range(16, 31)]
    for results in recorded("Airline"):
        for result in results:
            if not isinstance(result, list) or not result:
                continue
            if isinstance(result[0], list):
                first, second = result[0]
                found = world.search_onestop_flight(first["origin"], second["destination"], first["date"])
                assert found == result
            else:
                route = result[0]["origin"], result[0]["destination"]
                assert any(world.search_direct_flight(*route, date) == result for date in dates)
            seen += 1
    assert seen == 4
