"""A home: lights, heating and music in its rooms."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Draw, Missing, Need, Step, tool

ROOMS = [
    "kitchen",
    "bedroom",
    "living room",
    "bathroom",
    "hall",
    "office",
    "garage",
    "attic",
    "garden",
    "nursery",
]
GENRES = ["jazz", "rock", "classical", "pop", "folk", "blues", "piano", "dance", "soul", "opera"]


def need(draw: Draw) -> Need:
    """Light, heat or music in a room."""
    return draw.pick([_light, _heat, _music])(draw)


def _light(draw: Draw) -> Need:
    light = tool(draw.mostly("set_light", "light"), "Switch a light.", room="string", state=["on", "off"])
    room, state = draw.pick(ROOMS), draw.pick(["on", "off"])
    ask = draw.pick(
        [
            "Turn {s} the light in the {r}.",
            "Switch the {r} light {s}.",
            "Light {s} in the {r}, please.",
            "Can you turn the {r} light {s}?",
        ]
    ).format(s=state, r=room)
    missing = Missing(
        f"Turn {state} the light.", "In which room?", draw.pick([f"In the {room}.", f"The {room}."])
    )
    failure = ({"error": "lamp not reachable"}, f"The lamp in the {room} does not answer.")
    step = Step(light, {"room": room, "state": state}, {"state": state})
    return Need("switch lights", ask, step, f"The light in the {room} is {state}.", failure, missing)


def _heat(draw: Draw) -> Need:
    heat = tool(draw.mostly("set_temperature", "heating"), "Heat a room.", room="string", celsius="integer")
    room, degrees = draw.pick(ROOMS), draw.number(15, 26)
    ask = draw.pick(
        [
            "Heat the {r} to {d} degrees.",
            "Make it {d} degrees in the {r}.",
            "Set the {r} to {d} degrees.",
            "I want {d} degrees in the {r}.",
        ]
    ).format(r=room, d=degrees)
    missing = Missing(
        f"Heat the {room}.", "To how many degrees?", draw.pick([f"{degrees}.", f"To {degrees} degrees."])
    )
    failure = ({"error": "heating is off"}, f"The heating is switched off, so the {room} stays as it is.")
    step = Step(heat, {"room": room, "celsius": degrees}, {"target": degrees})
    return Need(
        "control the heating", ask, step, f"The {room} is set to {degrees} degrees.", failure, missing
    )


def _music(draw: Draw) -> Need:
    play = tool(
        draw.mostly("play_music", "play"), "Play music.", genre="string", room="string", volume="integer?"
    )
    room, genre, volume = draw.pick(ROOMS), draw.pick(GENRES), draw.number(1, 10)
    loud = draw.pick([False, False, True])
    extra = f" at volume {volume}" if loud else ""
    ask = draw.pick(
        [
            "Play {g} in the {r}{e}.",
            "I want to hear {g} in the {r}{e}.",
            "Some {g} in the {r}{e}, please.",
            "Put on {g} in the {r}{e}.",
        ]
    ).format(g=genre, r=room, e=extra)
    missing = Missing(
        f"Play some music in the {room}{extra}.",
        "What would you like to hear?",
        draw.pick([f"{genre.capitalize()}.", f"Some {genre}."]),
    )
    failure = ({"error": "speaker not found"}, f"There is no speaker in the {room}.")
    arguments: dict[str, object] = {"genre": genre, "room": room, **({"volume": volume} if loud else {})}
    return Need(
        "play music",
        ask,
        Step(play, arguments, {"playing": genre}),
        f"Playing {genre} in the {room}{extra}.",
        failure,
        missing,
    )
