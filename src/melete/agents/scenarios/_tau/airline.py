"""The airline of tau-bench: 14 tools over users, flights and reservations, written from their schemas and the policy.

The policy says what the API does not check (whether a fare may be changed, whether a cancellation is allowed);
those stay the agent's duty and are not checked here either. What no airline could do fails: seats that are not
there, payments that do not add up, a method that is not in the profile. A reservation takes its seats, a change or
a cancellation gives them back. Recorded results of the original (the example dialogues in the data) decide the form
of a record: a cancellation writes each payment again with a minus sign, and refunds arrive in 5 to 7 days, so no
balance moves. Limits: a new reservation's id is made from its content, so that the order of bookings does not show;
two equal bookings by one user count up.
"""

from __future__ import annotations

import hashlib
import json
from datetime import date as Date
from datetime import timedelta
from typing import Literal

from typing_extensions import TypedDict

from melete.actions.action import ToolAction
from melete.actions.tools import ToolFailure, tool
from melete.agents.scenarios._tau.journal import Record, cents
from melete.agents.scenarios._tau.world import TauWorld

TABLES = ("users", "flights", "reservations")
NOW = "2024-05-15T15:00:00"  # the policy's "current time"
BAG_PRICE = 50
INSURANCE_PRICE = 30
CITIES = {
    "ATL": "Atlanta", "BOS": "Boston", "CLT": "Charlotte", "DEN": "Denver", "DFW": "Dallas", "DTW": "Detroit",
    "EWR": "Newark", "IAH": "Houston", "JFK": "New York", "LAS": "Las Vegas", "LAX": "Los Angeles",
    "LGA": "New York", "MCO": "Orlando", "MIA": "Miami", "MSP": "Minneapolis", "ORD": "Chicago",
    "PHL": "Philadelphia", "PHX": "Phoenix", "SEA": "Seattle", "SFO": "San Francisco",
}  # fmt: skip

Cabin = Literal["basic_economy", "economy", "business"]


class Segment(TypedDict):
    """A flight on a date, such as HAT001 on 2024-05-01."""

    flight_number: str
    date: str


class Passenger(TypedDict):
    """A passenger; `dob` is the date of birth, such as 1990-01-01."""

    first_name: str
    last_name: str
    dob: str


class Payment(TypedDict):
    """An amount in dollars and the id of a payment method in the user's profile."""

    payment_id: str
    amount: float


class AirlineWorld(TauWorld):
    """One episode at the airline: its tools as methods, its database as a journal, its customer as a script."""

    writes = frozenset(
        {
            "book_reservation", "cancel_reservation", "send_certificate", "update_reservation_baggages",
            "update_reservation_flights", "update_reservation_passengers",
        }
    )  # fmt: skip

    def identity(self) -> str:
        """The user id, by which alone the airline finds a customer."""
        return f"My user id is {self.goal['user_id']}."

    def wish(self, action: ToolAction) -> str:
        """Says all details, since the choice of flights is part of them."""
        details = ", ".join(f"{key.replace('_', ' ')} {_words(v)}" for key, v in action.arguments.items())
        return f"I want to {action.name.replace('_', ' ')}: {details}."

    @tool
    def book_reservation(
        self,
        user_id: str,
        origin: str,
        destination: str,
        flight_type: Literal["one_way", "round_trip"],
        cabin: Cabin,
        flights: list[Segment],
        passengers: list[Passenger],
        payment_methods: list[Payment],
        total_baggages: int,
        nonfree_baggages: int,
        insurance: Literal["yes", "no"],
    ) -> Record:
        """Book a reservation. Needs the user's yes.

        Args:
            user_id: Such as 'sara_doe_496'.
            origin: Airport, such as 'SFO'.
            destination: Airport, such as 'JFK'.
            flight_type: One way or round trip.
            cabin: The same for all flights and passengers.
            flights: Every segment in order.
            passengers: Everyone who flies.
            payment_methods: What each payment method pays; together the whole price.
            total_baggages: Checked bags altogether.
            nonfree_baggages: Those of them that are paid, 50 dollars each.
            insurance: Travel insurance, 30 dollars a passenger.
        """
        user = self.user(user_id)
        count = len(passengers)
        booked = [self._segment(one, cabin, count) for one in flights]
        price = sum(one["price"] for one in booked) * count + BAG_PRICE * nonfree_baggages
        price += INSURANCE_PRICE * count if insurance == "yes" else 0
        for payment in payment_methods:
            self._require_funds(user, payment["payment_id"], payment["amount"])
        paid = sum(payment["amount"] for payment in payment_methods)
        if cents(paid) != cents(price):
            raise ToolFailure(f"payment amount does not add up, total price is {price}, but paid {paid}")
        reservation: Record = {
            "user_id": user_id,
            "origin": origin,
            "destination": destination,
            "flight_type": flight_type,
            "cabin": cabin,
            "flights": booked,
            "passengers": [dict(passenger) for passenger in passengers],
            "payment_history": [dict(payment) for payment in payment_methods],
            "created_at": NOW,
            "total_baggages": total_baggages,
            "nonfree_baggages": nonfree_baggages,
            "insurance": insurance,
        }
        reservation = {"reservation_id": self._new_id(reservation), **reservation}
        self.journal.add("reservations", reservation["reservation_id"], reservation)
        self._seat(booked, cabin, -count)
        for payment in payment_methods:
            self._charge(user_id, payment["payment_id"], payment["amount"])
        self.journal.edit("users", user_id)["reservations"].append(reservation["reservation_id"])
        return reservation

    @tool
    def cancel_reservation(self, reservation_id: str) -> Record:
        """Cancel a whole reservation; refunds arrive in 5 to 7 days. Needs the user's yes.

        Args:
            reservation_id: Such as 'ZFA04Y'.
        """
        self._open(reservation_id)
        reservation = self.journal.edit("reservations", reservation_id)
        refunds = [{**entry, "amount": -entry["amount"]} for entry in reservation["payment_history"]]
        reservation["payment_history"].extend(refunds)
        reservation["status"] = "cancelled"
        self._seat(reservation["flights"], reservation["cabin"], len(reservation["passengers"]))
        return reservation

    @tool
    def get_reservation_details(self, reservation_id: str) -> Record:
        """Read a reservation.

        Args:
            reservation_id: Such as '8JX2WO'.
        """
        return self._reservation(reservation_id)

    @tool
    def get_user_details(self, user_id: str) -> Record:
        """Read a user's profile: payment methods, membership, reservations.

        Args:
            user_id: Such as 'sara_doe_496'.
        """
        return self.user(user_id)

    @tool
    def list_all_airports(self) -> dict[str, str]:
        """List all airports and their cities."""
        return CITIES

    @tool
    def search_direct_flight(self, origin: str, destination: str, date: str) -> list[Record]:
        """Find direct flights between two airports on a date that still can be booked.

        Args:
            origin: Airport, such as 'JFK'.
            destination: Airport, such as 'LAX'.
            date: Such as '2024-05-01'.
        """
        return [
            _offer(flight, date)
            for flight in self._flights()
            if flight["origin"] == origin
            and flight["destination"] == destination
            and _available(flight, date)
        ]

    @tool
    def search_onestop_flight(self, origin: str, destination: str, date: str) -> list[list[Record]]:
        """Find pairs of flights with one stop between two airports that still can be booked.

        Args:
            origin: Airport, such as 'JFK'.
            destination: Airport, such as 'LAX'.
            date: Date of the first flight, such as '2024-05-01'.
        """
        found = []
        onwards = [flight for flight in self._flights() if flight["destination"] == destination]
        for first in self._flights():
            if first["origin"] != origin or not _available(first, date):
                continue
            clock, _, days = first["scheduled_arrival_time_est"].partition("+")
            day = (Date.fromisoformat(date) + timedelta(days=int(days or 0))).isoformat()
            for second in onwards:
                leaves = second["scheduled_departure_time_est"]
                if second["origin"] == first["destination"] and leaves >= clock and _available(second, day):
                    found.append(
                        [{**_offer(first, date), "date": date}, {**_offer(second, day), "date": day}]
                    )
        return found

    @tool
    def send_certificate(self, user_id: str, amount: float) -> str:
        """Give a user a travel certificate. Needs the user's yes.

        Args:
            user_id: Such as 'sara_doe_496'.
            amount: Its worth in dollars.
        """
        self.user(user_id)
        methods = self.journal.edit("users", user_id)["payment_methods"]
        number = int(_short_hash([user_id, amount, len(methods)]), 36) % 10_000_000
        certificate = f"certificate_{number:07d}"
        methods[certificate] = {"source": "certificate", "amount": amount, "id": certificate}
        return f"Certificate {certificate} added to user {user_id} with amount {amount:g}."

    @tool
    def update_reservation_baggages(
        self, reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str
    ) -> Record:
        """Change the checked bags of a reservation. Needs the user's yes.

        Args:
            reservation_id: Such as 'ZFA04Y'.
            total_baggages: Checked bags altogether, after the change.
            nonfree_baggages: Those of them that are paid, 50 dollars each.
            payment_id: Pays for added bags, such as 'gift_card_7815826'.
        """
        reservation = self._open(reservation_id)
        price = BAG_PRICE * max(0, nonfree_baggages - reservation["nonfree_baggages"])
        self._require_funds(self.user(reservation["user_id"]), payment_id, price)
        reservation = self.journal.edit("reservations", reservation_id)
        reservation["total_baggages"] = total_baggages
        reservation["nonfree_baggages"] = nonfree_baggages
        self._book_change(reservation, payment_id, price)
        return reservation

    @tool
    def update_reservation_flights(
        self, reservation_id: str, cabin: Cabin, flights: list[Segment], payment_id: str
    ) -> Record:
        """Change flights or cabin of a reservation. Needs the user's yes.

        Args:
            reservation_id: Such as 'ZFA04Y'.
            cabin: The same for all flights.
            flights: Every segment of the whole reservation, also those that stay.
            payment_id: Pays or receives the difference: a credit card or gift card of the profile.
        """
        reservation = self._open(reservation_id)
        count = len(reservation["passengers"])
        stays = {(one["flight_number"], one["date"]): one for one in reservation["flights"]}
        if cabin != reservation["cabin"]:
            stays = {}
        kept = [stays.get((one["flight_number"], one["date"])) for one in flights]
        booked = [
            dict(old) if old else self._segment(one, cabin, count)
            for old, one in zip(kept, flights, strict=True)
        ]
        price = cents(count * (_price(booked) - _price(reservation["flights"])))
        if payment_id.startswith("certificate"):
            raise ToolFailure("certificate cannot be used to update reservation")
        self._require_funds(self.user(reservation["user_id"]), payment_id, price)
        reservation = self.journal.edit("reservations", reservation_id)
        left = [one for one in reservation["flights"] if one not in kept]
        self._seat(left, reservation["cabin"], count)
        self._seat([one for one, old in zip(booked, kept, strict=True) if not old], cabin, -count)
        reservation["flights"] = booked
        reservation["cabin"] = cabin
        self._book_change(reservation, payment_id, price)
        return reservation

    @tool
    def update_reservation_passengers(self, reservation_id: str, passengers: list[Passenger]) -> Record:
        """Change the passengers of a reservation, not their number. Needs the user's yes.

        Args:
            reservation_id: Such as 'ZFA04Y'.
            passengers: Everyone who flies, after the change.
        """
        if len(passengers) != len(self._open(reservation_id)["passengers"]):
            raise ToolFailure("number of passengers does not match")
        reservation = self.journal.edit("reservations", reservation_id)
        reservation["passengers"] = [dict(passenger) for passenger in passengers]
        return reservation

    def _reservation(self, reservation_id: str) -> Record:
        reservation = self.journal.get("reservations", reservation_id)
        if reservation is None:
            raise ToolFailure("reservation not found")
        return reservation

    def _open(self, reservation_id: str) -> Record:
        reservation = self._reservation(reservation_id)
        if reservation.get("status") == "cancelled":
            raise ToolFailure("the reservation is cancelled")
        return reservation

    def _flights(self) -> list[Record]:
        changed = self.journal.changed.get("flights", {})
        return [changed.get(number, flight) for number, flight in self.journal.tables["flights"].items()]

    def _segment(self, wanted: Segment, cabin: str, count: int) -> Record:
        """A new segment at today's price.

        Raises:
            ToolFailure: no such flight, not to be booked on that date, or too few seats.
        """
        number, date = wanted["flight_number"], wanted["date"]
        flight = self.journal.get("flights", number)
        if flight is None:
            raise ToolFailure(f"flight {number} not found")
        if not _available(flight, date):
            raise ToolFailure(f"flight {number} not available on date {date}")
        day = flight["dates"][date]
        if day["available_seats"][cabin] < count:
            raise ToolFailure(f"not enough seats on flight {number}")
        places = {"origin": flight["origin"], "destination": flight["destination"]}
        return {**places, "flight_number": number, "date": date, "price": day["prices"][cabin]}

    def _seat(self, segments: list[Record], cabin: str, count: int) -> None:
        """Gives back (positive) or takes seats on flights that still can be booked."""
        for one in segments:
            flight = self.journal.get("flights", one["flight_number"])
            if flight is not None and _available(flight, one["date"]):
                day = self.journal.edit("flights", one["flight_number"])["dates"][one["date"]]
                day["available_seats"][cabin] += count

    def _require_funds(self, user: Record, payment_id: str, amount: float) -> None:
        method = user["payment_methods"].get(payment_id)
        if method is None:
            raise ToolFailure(f"payment method {payment_id} not found")
        if method["source"] != "credit_card" and method["amount"] < amount:
            raise ToolFailure(f"not enough balance in payment method {payment_id}")

    def _charge(self, user_id: str, payment_id: str, amount: float) -> None:
        """Takes money from a gift card; a certificate is used up whole, whatever it was worth."""
        source = self.user(user_id)["payment_methods"][payment_id]["source"]
        if source == "credit_card":
            return
        methods = self.journal.edit("users", user_id)["payment_methods"]
        if source == "certificate":
            del methods[payment_id]
        else:
            methods[payment_id]["amount"] = cents(methods[payment_id]["amount"] - amount)

    def _book_change(self, reservation: Record, payment_id: str, price: float) -> None:
        if price:
            reservation["payment_history"].append({"payment_id": payment_id, "amount": price})
            self._charge(reservation["user_id"], payment_id, price)

    def _new_id(self, reservation: Record) -> str:
        for attempt in range(1_000):
            short = _short_hash([reservation, attempt])[-6:]
            if self.journal.get("reservations", short) is None:
                return short
        raise AssertionError("a thousand equal bookings in one episode")


def _words(value: object) -> str:
    """A value as it is said: objects and lists by their values alone."""
    if isinstance(value, dict):
        return " ".join(_words(one) for one in value.values())
    return " and ".join(_words(one) for one in value) if isinstance(value, list) else str(value)


def _available(flight: Record, date: str) -> bool:
    return bool(flight["dates"].get(date, {}).get("status") == "available")


def _offer(flight: Record, date: str) -> Record:
    day = flight["dates"][date]
    about = {key: value for key, value in flight.items() if key != "dates"}
    return {**about, **{key: day[key] for key in ("status", "available_seats", "prices")}}


def _price(segments: list[Record]) -> float:
    return float(sum(one["price"] for one in segments))


def _short_hash(value: object) -> str:
    """Capital letters and digits that depend on the value alone."""
    text = json.dumps(value, sort_keys=True)
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(letters[digit])
    return "".join(digits).rjust(6, "0")
