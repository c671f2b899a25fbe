"""Events of a calendar: add one, or see what is on a day."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Chain, Draw, Missing, Need, Step, Tool, tool
from melete.datasets.toolcalls.words import DAYS, HOURS, PEOPLE

EVENTS = [
    "meeting",
    "dinner",
    "lunch",
    "call",
    "dentist",
    "yoga",
    "training",
    "interview",
    "party",
    "walk",
    "exam",
    "rehearsal",
]


def _add(draw: Draw) -> tuple[Tool, str]:
    key = draw.mostly("title", "event")
    return tool(
        draw.mostly("add_event", "create_event"),
        "Add a calendar event.",
        **{key: "string", "day": DAYS, "time": "string"},
    ), key


def need(draw: Draw) -> Need:
    """Add an event, or list a day."""
    return _list(draw) if draw.pick([False, False, True]) else _create(draw)


def chain(draw: Draw) -> Chain:
    """Find a free hour, then put the event there."""
    add, key = _add(draw)
    free = tool("free_time", "First free hour of a day.", day=DAYS)
    title, day, hour = draw.pick(EVENTS), draw.pick(DAYS), draw.pick(HOURS)
    ask = draw.pick(
        [
            "Put a {title} in my calendar on {day} when I am free.",
            "Find a free time on {day} and add a {title}.",
            "When am I free on {day}? Plan a {title} then.",
        ]
    ).format(title=title, day=day)
    steps = [
        Step(free, {"day": day}, {"free": hour}),
        Step(add, {key: title, "day": day, "time": hour}, {"added": True}),
    ]
    return Chain(ask, steps, f"You are free on {day} at {hour}, so I added the {title} then.")


def _create(draw: Draw) -> Need:
    add, key = _add(draw)
    kind, day, hour = draw.pick(EVENTS), draw.pick(DAYS), draw.pick(HOURS)
    person = draw.pick(PEOPLE) if draw.pick([False, True]) else ""
    title = f"{kind} with {person}" if person else kind
    ask = draw.pick(
        [
            "Add {title} to my calendar on {day} at {hour}.",
            "I have {title} on {day} at {hour}, please note it.",
            "Schedule {title} for {day} at {hour}.",
            "Put {title} on {day} at {hour}.",
            "On {day} at {hour} I have {title}. Save that.",
            "Please plan {title} on {day}, {hour}.",
        ]
    ).format(title=title, day=day, hour=hour)
    answer = draw.pick(
        [
            f"Done: {title} on {day} at {hour}.",
            f"I added {title} on {day} at {hour}.",
            f"{day} at {hour}: {title}. Saved.",
        ]
    )
    missing = Missing(
        draw.pick(["Add {title} to my calendar on {day}.", "Schedule {title} for {day}."]).format(
            title=title, day=day
        ),
        draw.pick(["At what time?", "What time should it be?"]),
        draw.pick([f"At {hour}.", f"{hour}.", f"{hour}, please."]),
    )
    failure = (
        {"error": f"{day} {hour} is taken"},
        f"You already have something on {day} at {hour}. Shall I take another time?",
    )
    return Need(
        "add calendar events",
        ask,
        Step(add, {key: title, "day": day, "time": hour}, {"added": True}),
        answer,
        failure,
        missing,
    )


def _list(draw: Draw) -> Need:
    events = tool(draw.mostly("list_events", "get_calendar"), "Events of a day.", day=DAYS)
    day, first, second = draw.pick(DAYS), draw.pick(EVENTS), draw.pick(EVENTS)
    hours = sorted({draw.pick(HOURS), draw.pick(HOURS)}, key=lambda hour: int(hour.replace(":", "")))
    found = (
        [f"{hour} {event}" for hour, event in zip(hours, (first, second), strict=False)]
        if draw.chance(0.8)
        else []
    )
    ask = draw.pick(
        [
            "What do I have on {day}?",
            "Show me my calendar for {day}.",
            "Am I busy on {day}?",
            "What is planned for {day}?",
            "Read me my events on {day}.",
        ]
    ).format(day=day)
    answer = f"On {day} you have: {', '.join(found)}." if found else f"You have nothing on {day}."
    missing = Missing(
        draw.pick(["What is in my calendar?", "Show me my events."]),
        "For which day?",
        draw.pick([f"{day}.", f"On {day}."]),
    )
    failure = (
        {"error": "calendar is offline"},
        "I cannot reach your calendar right now. Please try again later.",
    )
    return Need(
        "look into your calendar",
        ask,
        Step(events, {"day": day}, {"events": found}),
        answer,
        failure,
        missing,
    )
