"""What a page says of itself: its place in the navigation and in the command palette."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    title: str
    path: str
    order: int | None = None
    icon: str = "dot"
    key: str | None = None
    summary: str = ""
