"""Writes `front.txt`, the help of `melete` that the first lane prints without importing anything.

Run `python -m melete.cli._front` after a command or a process was added; `tests/cli/test_front.py` says so too.
"""

from __future__ import annotations

from pathlib import Path

import click

from melete.cli._root import root

FRONT = Path(__file__).with_name("front.txt")


def text() -> str:
    """The help of the root command, 100 columns wide at most."""
    with click.Context(root, info_name="melete", terminal_width=100, **root.context_settings) as context:
        return root.get_help(context) + "\n"


if __name__ == "__main__":
    FRONT.write_text(text(), encoding="utf-8")
    print(f"wrote {FRONT.name}")
