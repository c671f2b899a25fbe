"""Turns the moves of a scripted expert into those of a bad day, for demonstrations like real logs.

Real logs hold calls of tools that do not exist, wrong argument names, ids with a `#`, amounts in cents, steps that were
skipped, forbidden things that were tried, needless calls and talk; usually the right call follows, sometimes the agent
gives up. The distorted moves are played in the real environment, so that every result in such a log is true.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from melete.actions.action import Message, ToolAction, compact_json
from melete.datasets.toolcalls.drawing import Draw
from melete.records import ToolCall, Turn


@dataclass(frozen=True)
class Slips:
    """What goes wrong in a scenario.

    Attributes:
        names: tools that do not exist, by the right one.
        keys: wrong names of arguments, by the right one.
        values: wrong values, by the right one.
        needs_first: tools that are tried too early.
        id_key: argument that is copied wrongly or with a `#`.
        money_key: argument that is given in cents.
        distractors: calls that are never right.
        chatter: what it says before a call.
        endings: what it adds to its last message.
        slip_share: share of the right calls before which a slip stands.
        chatty_share: share of the bad days on which it talks.
        give_up_share: share of the slips after which it gives up.
    """

    names: Mapping[str, Sequence[str]]
    keys: Mapping[str, str]
    values: Mapping[str, str]
    needs_first: frozenset[str] | set[str]
    id_key: str
    money_key: str
    distractors: Sequence[ToolAction]
    chatter: Sequence[str]
    endings: Sequence[str]
    slip_share: float = 0.6
    chatty_share: float = 0.6
    give_up_share: float = 0.1


def bad_day(
    moves: Sequence[ToolAction | Message], slips: Slips, seed: int, tempting: Sequence[ToolAction] = ()
) -> list[ToolAction | Message | Turn]:
    """The moves with slips; before the expert asks for something, it may act without knowing it.

    Args:
        moves: the expert's, the last of which is a message.
        slips: see `Slips`.
        seed: the same seed gives the same slips.
        tempting: calls of an agent that gives in, where the request must be refused.
    """
    draw = Draw(f"bad day {seed}")
    chatty = draw.chance(slips.chatty_share)
    *front, last = moves
    calls = [move for move in front if isinstance(move, ToolAction)]
    done: list[ToolAction | Message | Turn] = []
    for move in front:
        if isinstance(move, Message):
            if calls and draw.chance(0.4):
                done.append(_guess(calls[0], slips, draw))
            done.append(move)
            continue
        if draw.chance(slips.slip_share):
            done.extend(_slip(move, calls, slips, draw) for _ in range(1 + draw.chance(0.2)))
            if draw.chance(slips.give_up_share):
                return [*done, Message("Sorry, something went wrong.")]
        done.append(_spoken(move, slips, draw) if chatty and draw.chance(0.6) else move)
        if draw.chance(0.12):
            done.append(move)
    if tempting and draw.chance(0.4):
        done.append(draw.pick(tempting))
    assert isinstance(last, Message)
    done.append(Message(f"{last.text} {draw.pick(slips.endings)}") if chatty else last)
    return done


def _slip(move: ToolAction, calls: Sequence[ToolAction], slips: Slips, draw: Draw) -> ToolAction | Turn:
    """A wrong call instead of a right one."""
    kinds: list[ToolAction | Turn] = [
        *_wrong_arguments(move, slips, draw),
        *_wrong_steps(move, calls, slips, draw),
    ]
    return draw.pick(kinds)


def _wrong_arguments(move: ToolAction, slips: Slips, draw: Draw) -> Iterator[ToolAction | Turn]:
    arguments = move.arguments
    renamed = [key for key in arguments if key in slips.keys]
    if renamed:
        key = draw.pick(renamed)
        yield ToolAction(
            move.name, {slips.keys[one] if one == key else one: arguments[one] for one in arguments}
        )
    wrong = [key for key, value in arguments.items() if isinstance(value, str) and value in slips.values]
    if wrong:
        yield ToolAction(move.name, {**arguments, wrong[0]: slips.values[arguments[wrong[0]]]})
    if slips.id_key in arguments:
        given = str(arguments[slips.id_key])
        yield ToolAction(
            move.name, {**arguments, slips.id_key: draw.pick([f"#{given}", f"0{given}", f"order {given}"])}
        )
        yield ToolAction(
            move.name, {**arguments, slips.id_key: int(given[:-1] + str((int(given[-1]) + 1) % 10))}
        )
    if slips.money_key in arguments:
        yield ToolAction(move.name, {**arguments, slips.money_key: arguments[slips.money_key] * 100})
    text = f'{{"name":"{move.name}","arguments":{compact_json(arguments)}'
    yield _raw(draw.pick([text, text[:-1], text.replace('"arguments":', '"arguments"') + "}"]))


def _wrong_steps(
    move: ToolAction, calls: Sequence[ToolAction], slips: Slips, draw: Draw
) -> Iterator[ToolAction | Turn]:
    if move.name in slips.names:
        yield ToolAction(draw.pick(slips.names[move.name]), move.arguments)
    early = [call for call in calls[calls.index(move) + 1 :] if call.name in slips.needs_first]
    if early:
        yield from (early[0], early[0])
    if draw.chance(0.3):
        yield draw.pick(slips.distractors)


def _guess(call: ToolAction, slips: Slips, draw: Draw) -> ToolAction:
    """The first call with something made up instead of what is missing."""
    made_up = {slips.id_key: draw.number(1000, 9999)} if slips.id_key in call.arguments else {}
    return ToolAction(call.name, {**call.arguments, **made_up})


def _spoken(move: ToolAction, slips: Slips, draw: Draw) -> Turn:
    return Turn("assistant", draw.pick(slips.chatter), (move.to_call(),))


def _raw(text: str) -> Turn:
    return Turn("assistant", "", (ToolCall("call_0", "", text),))
