"""What watches one topic: a look says what is new since the look before, to all who watch; a newcomer gets the whole.

Kinds that send increments are files of `topics/`; every other topic is watched here: its whole answer is sent when it
differs from the one before. The poller calls one method at a time, so a watch needs no lock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from melete.api.live.topic import Topic, frame, problem, refused
from melete.errors import MeleteError, ServerError


@dataclass(frozen=True)
class Message:
    """What is sent to clients.

    Attributes:
        text: the frame, `[topic, payload]`.
        whole: whether it makes what was sent before of this topic worthless.
    """

    text: str
    whole: bool


class Joined(NamedTuple):
    """What those get who watch already, if anything, and what those get who come now."""

    news: Message | None
    whole: Message | None


class Watch(Protocol):
    """Watches one topic.

    Attributes:
        period_s: how long to wait between two looks.
    """

    period_s: float

    async def look(self) -> Message | None:
        """What is new since the look before; None if nothing is."""

    async def join(self) -> Joined:
        """The whole as it is now; those who are here are brought to the same point."""


class Answers:
    """Watches the answer of a path as a whole.

    Args:
        topic: any.
    """

    period_s = 1.0

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._last: Message | None = None

    async def look(self) -> Message | None:
        """See Watch."""
        message = await whole_answer(self._topic)
        if self._last is not None and message.text == self._last.text:
            return None
        self._last = message
        return message

    async def join(self) -> Joined:
        """See Watch."""
        news = await self.look()
        assert self._last is not None
        return Joined(news, self._last)


async def refusal(topic: Topic, error: Exception) -> Message:
    """What the API says to a topic that cannot be watched; the error itself if the API finds nothing wrong."""
    message = await whole_answer(topic)
    if message.text.startswith(frame(topic.text, '{"error":')[:-1]):
        return message
    told = error if isinstance(error, MeleteError) else ServerError(str(error))
    return Message(frame(topic.text, problem(told)), whole=True)


async def whole_answer(topic: Topic) -> Message:
    """The answer of a path as a message: its JSON, its HTML as a string, or the error that it is."""
    try:
        answer = await topic.answer()
    except ServerError as error:
        return Message(frame(topic.text, problem(error)), whole=True)
    if not answer.ok:
        payload = refused(answer, topic)
    elif answer.headers["content-type"].startswith("text/html"):
        payload = json.dumps(answer.body.decode())
    else:
        payload = answer.body.decode()
    return Message(frame(topic.text, payload), whole=True)
