"""Keeps an episode's conversation within a token budget: older turns are folded into a short note of what matters.

The note stands at the end of the system prompt and holds

- the person's request, cut if it is long;
- **every tool call that was made**, with its arguments and whether it succeeded (equal ones once, with their number);
- **every id** that the person or the agent wrote: words with a digit in them, such as `O-1042` or `ana@mail7.com`;
- a question that was not answered yet;
- while there is room, newest first: what else the person said, and ids that stand in tool results alone.

The newest turns stay as they are, a call always together with its results. The newest of all is cut if it would not
fit alone. If request, calls and ids alone are more than the budget, that is an error, because an agent that forgets
what it has done acts twice.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from melete.errors import ConfigError
from melete.records import Turn

WORD = re.compile(r"#?\w[\w@.+-]*")
REQUEST_CHARS = 300
ERROR_CHARS = 80
TURN_TOKENS = 4
"""Tokens that a chat format adds to a turn, at most, in the formats that we know."""


class Memory:
    """The conversation of one episode.

    Args:
        budget_tokens: most tokens that `turns` may have.
        count: number of tokens of a text.
        system: system prompt; it counts into the budget.
    """

    def __init__(self, budget_tokens: int, count: Callable[[str], int], system: str = "") -> None:
        self.budget_tokens = budget_tokens
        self._count = count
        self._system = system
        self._groups: list[list[Turn]] = []
        self._tokens: list[int] = []
        self._folded = 0

    def add(self, turn: Turn) -> None:
        """Adds a turn; results of tools belong to the turn that called them."""
        if turn.role == "tool" and self._groups:
            self._groups[-1].append(turn)
            self._tokens[-1] += self._cost(turn)
        else:
            self._groups.append([turn])
            self._tokens.append(self._cost(turn))

    def turns(self) -> list[Turn]:
        """The system prompt with the note, and the newest turns: at most `budget_tokens` tokens.

        Raises:
            ConfigError: the budget does not hold the system prompt, the request, the calls and the ids.
        """
        if not self._fits(self._folded):
            count = len(self._groups)
            first = bisect.bisect_left(range(count), True, lo=self._folded, key=self._fits)
            self._folded = min(first, max(0, count - 1))
        head = self._head(self._room(self._folded))
        if head is None:
            return self._last_group_cut()
        newest = [turn for group in self._groups[self._folded :] for turn in group]
        return [head, *newest] if head.content else newest

    @property
    def tokens(self) -> int:
        """Tokens of system prompt and turns with nothing folded."""
        system = self._cost(Turn("system", self._system)) if self._system else 0
        return system + sum(self._tokens)

    @property
    def folded(self) -> int:
        """How many turns are no longer whole, but in the note."""
        return sum(len(group) for group in self._groups[: self._folded])

    def _room(self, folded: int) -> int:
        """Tokens that are left for the head if so many groups are folded."""
        return self.budget_tokens - sum(self._tokens[folded:])

    def _fits(self, folded: int) -> bool:
        """Whether what has to stand in the head fits; the more is folded the sooner it does, as a note is short."""
        room = self._room(folded)
        if room < 0:
            return False
        text = self._text(folded)
        return room >= (self._cost(Turn("system", text)) if text else 0)

    def _last_group_cut(self) -> list[Turn]:
        """The note and as much of the newest turns as fits."""
        newest = self._groups[-1] if self._groups else []
        smallest = [replace(turn, content="") for turn in newest]
        room = self.budget_tokens - sum(map(self._cost, smallest))
        least = self._head(room, extras=False)
        if least is None:
            needed = self.budget_tokens - room + self._cost(Turn("system", self._text(self._folded)))
            raise ConfigError(
                f"A memory of {self.budget_tokens} tokens does not hold what has to be kept: about {needed} tokens.",
                next_step="Give the episode a larger budget, or fewer steps.",
            )
        room -= self._cost(least)
        kept = []
        for turn, bare in zip(newest, smallest, strict=True):
            fitting = self._cut(turn, room + self._cost(bare))
            room -= self._cost(fitting) - self._cost(bare)
            kept.append(fitting)
        return [least, *kept]

    def _cut(self, turn: Turn, room: int) -> Turn:
        """The turn with as much of its content as `room` tokens hold."""
        if self._cost(turn) <= room:
            return turn
        low, high = 0, len(turn.content)
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost(_shortened(turn, middle)) <= room:
                low = middle
            else:
                high = middle - 1
        cut = _shortened(turn, low)
        return cut if self._cost(cut) <= room else replace(turn, content="")

    def _head(self, room: int, extras: bool = True) -> Turn | None:
        """System prompt and note in at most `room` tokens, or None if what has to stand there does not fit."""
        texts = [self._text(self._folded)]
        head = Turn("system", texts[0])
        left = room - (self._cost(head) if head.content else 0)
        if left < 0:
            return None
        for extra in self._extras() if extras and self._folded else ():
            cost = self._count(f"\n{extra}")
            if cost <= left:
                texts.append(extra)
                left -= cost
        # Texts side by side may be cut into more tokens than each alone.
        while self._cost(head := Turn("system", "\n".join(texts))) > room and len(texts) > 1:
            texts.pop()
        return head

    def _text(self, folded: int) -> str:
        """System prompt, and what has to stand in the note of so many groups."""
        turns = [turn for group in self._groups[:folded] for turn in group]
        if not turns:
            return self._system
        request = next((turn.content for turn in turns if turn.role == "user"), "")
        written = ids(part for turn in turns if turn.role != "tool" for part in _texts(turn))
        lines = [f"Request: {_cut_text(request, REQUEST_CHARS)}"] if request else []
        lines += [f"Done: {'; '.join(calls)}"] if (calls := _calls(turns)) else []
        lines += [f"Ids: {', '.join(written)}"] if written else []
        lines += [f"Open question: {question}"] if (question := _open_question(turns)) else []
        return "\n".join(part for part in (self._system, "So far:", *lines) if part)

    def _extras(self) -> list[str]:
        """What may stand in the note, the newest first."""
        folded = [turn for group in self._groups[: self._folded] for turn in group]
        known = set(ids(part for turn in folded if turn.role != "tool" for part in _texts(turn)))
        said = {turn.content for turn in [turn for turn in folded if turn.role == "user"][1:]}
        extras = []
        for turn in reversed(folded):
            if turn.role == "user" and turn.content in said:
                extras.append(f"The person said: {_cut_text(turn.content, REQUEST_CHARS)}")
            elif turn.role == "tool":
                fresh = [one for one in ids([turn.content]) if one not in known]
                extras += [f"Seen: {', '.join(fresh)}"] if fresh else []
        return extras

    def _cost(self, turn: Turn) -> int:
        texts = [turn.content, *(f"{call.name} {call.arguments}" for call in turn.tool_calls)]
        return TURN_TOKENS + sum(self._count(text) for text in texts if text)


def _texts(turn: Turn) -> list[str]:
    return [turn.content, *(call.arguments for call in turn.tool_calls)]


def ids(texts: Iterable[str]) -> list[str]:
    """Words with a digit or an `@` in them and three letters or more, in the order of their first appearance."""
    words = (word.rstrip(".+-") for text in texts for word in WORD.findall(text))
    looks = (word for word in words if len(word) > 2 and ("@" in word or any(one.isdigit() for one in word)))
    return list(dict.fromkeys(looks))


def _calls(turns: Sequence[Turn]) -> list[str]:
    """Each call with its outcome; equal ones once, with their number."""
    results = {turn.tool_call_id: turn.content for turn in turns if turn.role == "tool"}
    told: dict[str, int] = {}
    for turn in turns:
        for call in turn.tool_calls:
            result = results.get(call.id)
            if result is None:
                outcome = "no answer"
            elif result.lower().startswith(("error:", "refused:")):
                outcome = _cut_text(result, ERROR_CHARS)
            else:
                outcome = "ok"
            text = f"{call.name}({call.arguments}) → {outcome}"
            told[text] = told.get(text, 0) + 1
    return [text if times == 1 else f"{text} ({times} times)" for text, times in told.items()]


def _open_question(turns: Sequence[Turn]) -> str:
    """The question at the end of the last message, if nobody has answered it."""
    messages = [turn for turn in turns if turn.role in ("user", "assistant") and turn.content.strip()]
    if not messages or not messages[-1].content.rstrip().endswith("?"):
        return ""
    last = re.split(r"(?<=[.!?\n])\s+", messages[-1].content.strip())[-1]
    return f"{'the person' if messages[-1].role == 'user' else 'you'} asked: {_cut_text(last, REQUEST_CHARS)}"


def _shortened(turn: Turn, length: int) -> Turn:
    return replace(turn, content=_cut_text(turn.content, length))


def _cut_text(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]} [cut]"
