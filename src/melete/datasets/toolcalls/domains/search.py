"""A search in an encyclopedia."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Draw, Missing, Need, Step, tool
from melete.datasets.toolcalls.words import TOPICS

FOUND = {
    "photosynthesis": "Plants turn light, water and carbon dioxide into sugar.",
    "black holes": "Their gravity lets no light escape.",
    "the Roman Empire": "It ruled the lands around the Mediterranean for centuries.",
    "tides": "The moon's pull makes the sea rise and fall.",
    "volcanoes": "Melted rock rises through the crust and breaks out.",
    "the printing press": "Gutenberg built one around 1440.",
    "vaccines": "They teach the body to fight an illness before it comes.",
    "glaciers": "Snow that is pressed to ice and slowly flows.",
    "bees": "They live in colonies and pollinate plants.",
    "the French Revolution": "It began in 1789 and ended the old monarchy.",
    "coral reefs": "Tiny animals build them from limestone.",
    "steam engines": "Steam pushes a piston and does work.",
    "the Silk Road": "Trade routes that joined China with Europe.",
    "dinosaurs": "They lived until about 66 million years ago.",
    "electricity": "Moving charges carry energy.",
    "the moon": "It circles the Earth once in 27 days.",
    "earthquakes": "Plates of the crust slip and the ground shakes.",
    "jazz": "It arose in New Orleans around 1900.",
    "chess": "Two players move 16 pieces each on 64 squares.",
    "origami": "The Japanese art of folding paper.",
    "whales": "They are mammals that live in the sea.",
    "the heart": "A muscle that pumps blood through the body.",
    "bridges": "Beams, arches or cables carry their load.",
    "magnets": "They attract iron and have two poles.",
    "comets": "Balls of ice and dust that grow a tail near the sun.",
    "rice": "A grain that feeds half of mankind.",
    "the alphabet": "Letters in a fixed order that stand for sounds.",
    "deserts": "They get less than 25 cm of rain a year.",
    "owls": "Birds that hunt at night and fly without a sound.",
    "penicillin": "Fleming found it in a mould in 1928.",
}


def need(draw: Draw) -> Need:
    """Look something up."""
    key = draw.mostly("query", "topic", "text")
    search = tool(
        draw.mostly("search", "encyclopedia", "look_up"), "Search an encyclopedia.", **{key: "string"}
    )
    topic = draw.pick(TOPICS)
    ask = draw.pick(
        [
            "What do you know about {t}?",
            "Look up {t}.",
            "Tell me something about {t}.",
            "Search for {t}, please.",
            "Find out about {t}.",
            "I want to read about {t}.",
            "Can you search for {t}?",
            "Explain {t} to me.",
        ]
    ).format(t=topic)
    text = FOUND[topic]
    answer = draw.pick([text, f"Here is what I found: {text}", f"About {topic}: {text}"])
    missing = Missing(
        draw.pick(["Search for something for me.", "Please look something up.", "I need some information."]),
        draw.pick(["What should I look up?", "About what?"]),
        draw.pick([f"About {topic}.", f"{topic[0].upper()}{topic[1:]}."]),
    )
    failure = ({"error": "no results"}, f"The search found nothing about {topic}.")
    return Need("search the encyclopedia", ask, Step(search, {key: topic}, text), answer, failure, missing)
