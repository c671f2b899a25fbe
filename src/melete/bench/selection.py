"""Which sessions a report is about: experiments and variants by name, their versions, what did not finish.

A name means an experiment with all its versions, because cards and variants have versions of their own; and the newest
version of a variant. Whatever is not in the numbers for that reason is said in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from melete.bench.rollups import SESSIONS
from melete.errors import UnknownNameError
from melete.gateway.entities import name_of
from melete.records import SessionState


@dataclass(frozen=True)
class Group:
    """Sessions of one variant of one experiment, counted by state."""

    experiment: str | None
    variant: str
    states: dict[str, int]
    last_s: float

    @property
    def finalised(self) -> int:
        """How many of them have ended with an outcome."""
        return self.states.get(str(SessionState.FINALISED), 0)


def groups(connection: Connection) -> list[Group]:
    """All sessions with a variant, counted by experiment, variant and state; the oldest first."""
    table = SESSIONS.c
    query = (
        select(table.experiment, table.variant, table.state, func.count(), func.max(table.created_s))
        .where(table.variant.is_not(None))
        .group_by(table.experiment, table.variant, table.state)
    )
    found: dict[tuple[str | None, str], Group] = {}
    for experiment, variant, state, count, last_s in connection.execute(query):
        old = found.get((experiment, variant))
        states = {**(old.states if old else {}), state: count}
        found[experiment, variant] = Group(
            experiment, variant, states, max(last_s, old.last_s if old else 0.0)
        )
    return sorted(found.values(), key=lambda group: (group.last_s, group.variant, group.experiment or ""))


def named(id: str) -> tuple[str, str]:
    """What an entity answers to: its id and its name."""
    return id, name_of(id)


def experiments(chosen: Sequence[Group]) -> list[str]:
    """Ids of the experiments of the groups, the newest last."""
    return list(dict.fromkeys(group.experiment for group in reversed(chosen) if group.experiment))[::-1]


def of_experiment(everything: Sequence[Group], name: str) -> list[Group]:
    """The groups of an experiment, by id, or by name with all its versions.

    Raises:
        UnknownNameError: none of them has sessions.
    """
    found = [group for group in everything if group.experiment and name in named(group.experiment)]
    if not found:
        known = {name_of(group.experiment) for group in everything if group.experiment}
        raise UnknownNameError(
            "experiment with sessions", name, known, next_step=f"Play it first: melete bench run {name}"
        )
    return found


def played_together(
    before: Sequence[Group], after: Sequence[Group]
) -> tuple[list[Group], str | None, list[str]]:
    """The groups of the newest experiment that both finished sessions in, its name, and a sentence about other ones.

    Where there is no such experiment, all groups and no name.
    """
    names = [
        {name_of(g.experiment) for g in side if g.experiment and g.finalised} for side in (before, after)
    ]
    shared, both = names[0] & names[1], [*before, *after]
    if not shared:
        return both, None, []
    inside = [group for group in both if group.experiment and name_of(group.experiment) in shared]
    name = name_of(max(inside, key=lambda group: group.last_s).experiment or "")
    others = ", ".join(sorted(shared - {name}))
    notes = [f"Both were also played in {others}; this is the newest, {name}. Choose with --experiment."]
    return [g for g in inside if name_of(g.experiment or "") == name], name, notes if others else []


def of_variant(everything: Sequence[Group], name: str) -> list[Group]:
    """The groups of a variant, by id, or by name with all its versions.

    Raises:
        UnknownNameError: none of them has sessions.
    """
    found = [group for group in everything if name in named(group.variant)]
    if not found:
        known = {name_of(group.variant) for group in everything}
        raise UnknownNameError(
            "variant with sessions", name, known, next_step="See: melete bench session list"
        )
    return found


def newest_versions(chosen: Sequence[Group]) -> tuple[list[str], list[str]]:
    """For each variant's name the version that has the newest finalised session, and sentences about the others."""
    newest: dict[str, str] = {}
    for group in chosen:
        if group.finalised or name_of(group.variant) not in newest:
            newest[name_of(group.variant)] = group.variant
    older = sorted({group.variant for group in chosen} - set(newest.values()))
    return list(newest.values()), [
        f"{id} is an older version of {newest[name_of(id)]} and in none of these numbers; name it in full to see it."
        for id in older
    ]


def unfinished(chosen: Sequence[Group]) -> list[str]:
    """A sentence for each variant about sessions that are not in any number."""
    said = []
    for variant in dict.fromkeys(group.variant for group in chosen):
        states: dict[str, int] = {}
        for group in chosen:
            for state, count in group.states.items():
                if group.variant == variant and state != SessionState.FINALISED:
                    states[state] = states.get(state, 0) + count
        if states:
            listed = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
            said.append(f"Not finalised and in no number here, of {variant}: {listed}.")
    return said
