"""What a page says of itself: its place in the navigation and in the command palette."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """Something to do that the palette offers.

    Args:
        title: in the imperative, such as `New job`.
        path: where it is done.
        summary: a sentence.
    """

    title: str
    path: str
    summary: str = ""


@dataclass(frozen=True)
class Page:
    """One page.

    Args:
        title: heading, and its name in the navigation.
        path: where it is.
        order: place in the navigation; None keeps it out of it (the palette still knows it).
        icon: name of a symbol in `templates/icons.html`.
        key: second key of its shortcut: `g` and then this one.
        summary: a sentence for the palette.
        commands: what the palette offers to do here.
        finds: a list of the API, such as `/runs`, whose things the palette finds by id and name; each is shown at
            `path/ID`, by its `id`, or by its `name` where it has none.
        finds_at: where they are shown, if not below `path`.
    """

    title: str
    path: str
    order: int | None = None
    icon: str = "dot"
    key: str | None = None
    summary: str = ""
    commands: tuple[Command, ...] = ()
    finds: str | None = None
    finds_at: str | None = None
