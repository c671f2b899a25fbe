"""Weather of a city on a day."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Chain, Draw, Missing, Need, Step, Tool, tool
from melete.datasets.toolcalls.words import CITIES

WHEN = ["today", "tomorrow"]
SKIES = ["sunny", "cloudy", "light rain", "heavy rain", "snow", "fog", "clear sky", "thunderstorms", "windy"]
WET = {"light rain", "heavy rain", "thunderstorms", "snow"}


def _tool(draw: Draw) -> tuple[Tool, str]:
    key = draw.mostly("city", "location", "place")
    name = draw.mostly("get_weather", "weather", "forecast")
    return tool(name, "Weather of a city.", **{key: "string", "day": WHEN}), key


def _step(draw: Draw, weather: Tool, key: str, city: str, day: str) -> Step:
    sky = draw.pick(SKIES)
    degrees = draw.number(-8, 1) if sky == "snow" else draw.number(3 if sky in WET else -8, 34)
    return Step(weather, {key: city, "day": day}, {"sky": sky, "temp_c": degrees})


def need(draw: Draw) -> Need:
    """What the weather is."""
    weather, key = _tool(draw)
    city, day = draw.pick(CITIES), draw.pick(WHEN)
    step = _step(draw, weather, key, city, day)
    when = "" if day == "today" and draw.chance(0.5) else f" {day}"
    ask = draw.pick(
        [
            "What is the weather in {city}{when}?",
            "What's the weather in {city}{when}?",
            "How is the weather in {city}{when}?",
            "Tell me the weather for {city}{when}.",
            "Weather in {city}{when}, please.",
            "What is it like in {city}{when}?",
            "Is it warm in {city}{when}?",
            "I am in {city}{when}. What weather should I expect?",
            "Check the weather in {city}{when}.",
            "How cold is it in {city}{when}?",
            "Do I need an umbrella in {city}{when}?",
            "Give me the forecast for {city}{when}.",
            "Can you look up the weather in {city}{when}?",
        ]
    ).format(city=city, when=when)
    sky, degrees = step.result["sky"], step.result["temp_c"]
    answer = draw.pick(
        [
            f"In {city} it is {sky} {day}, {degrees} degrees.",
            f"{day.capitalize()} in {city}: {sky}, {degrees} °C.",
            f"Expect {sky} and {degrees} degrees in {city} {day}.",
            f"The forecast for {city} {day} is {sky} with {degrees} °C.",
        ]
    )
    missing = Missing(
        draw.pick(
            ["What is the weather {day}?", "How will the weather be {day}?", "Do I need a coat {day}?"]
        ).format(day=day),
        draw.pick(["For which city?", "Which city do you mean?", "In which city?"]),
        draw.pick(["{city}.", "In {city}.", "{city}, please.", "I am in {city}."]).format(city=city),
    )
    failure = (
        {"error": f"no weather data for {city}"},
        f"Sorry, there is no weather data for {city} at the moment.",
    )
    return Need("check the weather", ask, step, answer, failure, missing)


def chain(draw: Draw) -> Chain:
    """Compare two cities, or plan by the weather."""
    weather, key = _tool(draw)
    remind = tool("add_reminder", "Save a reminder.", text="string", day=WHEN)
    city, day = draw.pick(CITIES), draw.pick(WHEN)
    step = _step(draw, weather, key, city, day)
    wet = step.result["sky"] in WET
    ask = draw.pick(
        [
            "If it is wet in {city} {day}, remind me to take an umbrella, otherwise to take sunglasses.",
            "Look at the weather in {city} {day} and remind me to pack an umbrella or sunglasses.",
            "Remind me {day} to take an umbrella if {city} gets rain or snow, else sunglasses.",
        ]
    ).format(city=city, day=day)
    thing = "umbrella" if wet else "sunglasses"
    reminder = Step(remind, {"text": f"take {thing}", "day": day}, {"saved": True})
    what = "an umbrella" if wet else "sunglasses"
    answer = f"It is {step.result['sky']} in {city} {day}, so I set a reminder to take {what}."
    return Chain(ask, [step, reminder], answer)
