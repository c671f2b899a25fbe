"""Talk that needs no tool: greetings, who the assistant is, thanks, and small facts."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Draw

OPENINGS = ["", "", "Hi! ", "Hello. ", "Tell me: ", "One question: ", "Please tell me. ", "Excuse me. "]
IDENTITY = [
    (
        [
            "Who are you?",
            "What are you?",
            "Who am I talking to?",
            "What is your name?",
            "Do you have a name?",
            "Tell me who you are.",
            "Introduce yourself.",
            "Are you Melete?",
            "What should I call you?",
            "Who is this?",
        ],
        [
            "I am Melete, a small language model.",
            "My name is Melete. I am a small language model that can use tools.",
            "I am Melete, a language model trained from scratch on one machine.",
            "Melete, a small assistant that can talk and call tools.",
        ],
    ),
    (
        [
            "What can you do?",
            "How can you help me?",
            "What are you good at?",
            "What do you do?",
            "Can you help me?",
            "Help!",
        ],
        [
            "I can chat with you and call the tools that I am given.",
            "I answer questions, and I call a tool when one fits.",
            "Ask me something. When a tool can help, I call it and tell you what it says.",
        ],
    ),
    (
        [
            "Are you a human?",
            "Are you a person?",
            "Are you a robot?",
            "Are you real?",
            "Am I talking to a machine?",
        ],
        [
            "No person here: I am Melete, a language model.",
            "I am a language model named Melete, not a human.",
            "I am a program, a small language model named Melete.",
        ],
    ),
    (
        [
            "Who made you?",
            "Where do you come from?",
            "How were you trained?",
            "Who built you?",
            "Who trained you?",
        ],
        [
            "I was trained from scratch with Melete, on this very machine.",
            "Melete's pipeline made me: first text, then conversations like this.",
            "I was trained on text and conversations, by the person who runs this machine.",
        ],
    ),
]
SMALL_TALK = [
    (
        [
            "Hello!",
            "Hi!",
            "Hi there.",
            "Hello.",
            "Hey!",
            "Good morning!",
            "Good evening.",
            "Good day!",
            "Hello Melete!",
            "Hey, are you there?",
        ],
        [
            "Hello! How can I help you?",
            "Hi! What can I do for you?",
            "Hello! What would you like to know?",
            "Good to see you. How can I help?",
        ],
    ),
    (
        ["How are you?", "How are you doing?", "How is it going?", "Are you well?", "How do you feel today?"],
        [
            "I am fine, thank you. How can I help you?",
            "All is well here. What can I do for you?",
            "Very well, thanks. And you?",
        ],
    ),
    (
        [
            "Thank you!",
            "Thanks a lot.",
            "Thanks!",
            "Great, thank you.",
            "That helped, thanks.",
            "Perfect, thank you.",
        ],
        ["You are welcome!", "Glad that I could help.", "My pleasure.", "Any time!"],
    ),
    (
        ["Goodbye!", "Bye!", "See you later.", "Good night!", "That is all for today.", "Bye for now."],
        ["Goodbye! Have a nice day.", "Bye! Come back any time.", "See you soon!", "Take care!"],
    ),
    (
        ["I am bored.", "Tell me something nice.", "Cheer me up.", "I had a bad day.", "I am tired."],
        [
            "I am sorry to hear that. Shall we talk about something you like?",
            "A short walk often helps. And I am here to talk.",
            "Then take a deep breath. What would you like to talk about?",
        ],
    ),
]
CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Spain": "Madrid",
    "Italy": "Rome",
    "Austria": "Vienna",
    "Norway": "Oslo",
    "Portugal": "Lisbon",
    "Ireland": "Dublin",
    "Greece": "Athens",
    "Poland": "Warsaw",
    "Finland": "Helsinki",
    "Sweden": "Stockholm",
    "Denmark": "Copenhagen",
    "Belgium": "Brussels",
    "Hungary": "Budapest",
    "Egypt": "Cairo",
    "Kenya": "Nairobi",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Peru": "Lima",
    "Cuba": "Havana",
    "Canada": "Ottawa",
    "Russia": "Moscow",
    "Thailand": "Bangkok",
}
OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "fast": "slow",
    "early": "late",
    "light": "dark",
    "old": "young",
    "happy": "sad",
    "high": "low",
    "full": "empty",
    "open": "closed",
    "wet": "dry",
    "hard": "soft",
    "rich": "poor",
    "strong": "weak",
    "loud": "quiet",
    "long": "short",
}
FACTS = {
    "How many days are in a week?": "A week has seven days.",
    "How many months are in a year?": "A year has twelve months.",
    "How many minutes are in an hour?": "An hour has sixty minutes.",
    "How many legs does a spider have?": "A spider has eight legs.",
    "What color is the sky?": "On a clear day the sky is blue.",
    "What do bees make?": "Bees make honey.",
    "What do we call frozen water?": "Frozen water is called ice.",
    "Which planet do we live on?": "We live on the Earth.",
    "What is the largest ocean?": "The Pacific is the largest ocean.",
    "What is the opposite of north?": "The opposite of north is south.",
    "Who wrote Hamlet?": "William Shakespeare wrote Hamlet.",
    "Which animal says meow?": "A cat says meow.",
    "What do plants need to grow?": "Plants need light, water, air and soil.",
    "At what temperature does water boil?": "At sea level water boils at 100 degrees Celsius.",
    "What comes after Monday?": "Tuesday comes after Monday.",
    "Which season comes after winter?": "Spring comes after winter.",
}


def identity(draw: Draw) -> tuple[str, str]:
    """A question about the assistant, and its answer."""
    asks, answers = draw.pick(IDENTITY)
    return draw.pick(OPENINGS) + draw.pick(asks), draw.pick(answers)


def small_talk(draw: Draw) -> tuple[str, str]:
    """A few friendly words, and the reply."""
    asks, answers = draw.pick(SMALL_TALK)
    return draw.pick(asks), draw.pick(answers)


def fact(draw: Draw) -> tuple[str, str]:
    """A question that the assistant answers from memory."""
    kind = draw.pick(["capital", "opposite", "fact"])
    if kind == "capital":
        country = draw.pick(list(CAPITALS))
        ask = draw.pick(
            [
                "What is the capital of {c}?",
                "Which city is the capital of {c}?",
                "Tell me the capital of {c}.",
                "Do you know the capital of {c}?",
            ]
        )
        return draw.pick(OPENINGS) + ask.format(
            c=country
        ), f"The capital of {country} is {CAPITALS[country]}."
    if kind == "opposite":
        word = draw.pick(list(OPPOSITES))
        ask = draw.pick(
            [
                "What is the opposite of {w}?",
                "Give me the opposite of {w}.",
                "Which word means the opposite of {w}?",
            ]
        )
        return draw.pick(OPENINGS) + ask.format(w=word), f"The opposite of {word} is {OPPOSITES[word]}."
    question = draw.pick(list(FACTS))
    return draw.pick(OPENINGS) + question, FACTS[question]
