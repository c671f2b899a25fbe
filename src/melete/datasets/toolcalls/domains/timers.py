"""Timers and alarms."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Draw, Missing, Need, Step, tool
from melete.datasets.toolcalls.words import HOURS

LABELS = [
    "tea",
    "pasta",
    "eggs",
    "cake",
    "laundry",
    "nap",
    "workout",
    "bread",
    "soup",
    "pizza",
    "rice",
    "parking",
]


def need(draw: Draw) -> Need:
    """Start a timer, or set an alarm."""
    return _alarm(draw) if draw.pick([False, False, True]) else _timer(draw)


def _timer(draw: Draw) -> Need:
    key = draw.mostly("minutes", "duration_min")
    timer = tool(
        draw.mostly("set_timer", "start_timer"), "Start a timer.", **{key: "integer", "label": "string?"}
    )
    minutes, label = draw.number(2, 59), draw.pick([*LABELS, ""])
    purpose = f" for the {label}" if label else ""
    ask = draw.pick(
        [
            "Set a timer of {m} minutes{p}.",
            "Set a timer for {m} minutes{p}.",
            "Start a {m} minute timer{p}.",
            "Wake me in {m} minutes{p}.",
            "Timer{p}: {m} minutes.",
            "Please count {m} minutes{p}.",
            "I need a timer{p}, {m} minutes.",
        ]
    ).format(m=minutes, p=purpose)
    answer = draw.pick(
        [f"The timer{purpose} runs for {minutes} minutes.", f"{minutes} minutes{purpose}, starting now."]
    )
    missing = Missing(
        draw.pick(["Set a timer{p}.", "Start a timer{p}, please."]).format(p=purpose),
        draw.pick(["For how many minutes?", "How long?"]),
        draw.pick([f"{minutes} minutes.", f"For {minutes} minutes."]),
    )
    arguments: dict[str, object] = {key: minutes, **({"label": label} if label else {})}
    failure = (
        {"error": "too many timers"},
        "There are too many timers already, so I could not start this one.",
    )
    return Need("set timers", ask, Step(timer, arguments, {"running": True}), answer, failure, missing)


def _alarm(draw: Draw) -> Need:
    alarm = tool("set_alarm", "Set an alarm.", time="string", repeat="boolean")
    hour, repeat = draw.pick(HOURS), draw.pick([True, False])
    every = "every day at" if repeat else "at"
    ask = draw.pick(
        [
            "Wake me {e} {h}.",
            "Set an alarm {e} {h}.",
            "I want to get up {e} {h}.",
            "Alarm {e} {h}, please.",
        ]
    ).format(e=every, h=hour)
    failure = ({"error": "no sound device"}, "I could not set the alarm: there is no sound device.")
    step = Step(alarm, {"time": hour, "repeat": repeat}, {"set": True})
    return Need("set alarms", ask, step, f"The alarm rings {every} {hour}.", failure)
