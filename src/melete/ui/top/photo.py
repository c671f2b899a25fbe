"""A photograph of the dashboard as SVG, for the documents: it runs without a terminal until its picture is complete."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from textual.widgets import RichLog

from melete.errors import ServerError
from melete.ui.top.app import RUNS, Top

LONGEST_S = 20.0


def photograph(url: str, to: Path, *, token: str | None = None, width: int = 140, height: int = 44) -> Path:
    """Writes what `melete top` shows of a server, once it shows a run with its curve and log.

    Args:
        url: where the server listens.
        to: an SVG file.
        token: what the server asks for, if it does.
        width: columns.
        height: lines.

    Raises:
        ServerError: the server has no run with figures and a log.
    """
    to.write_text(without_fonts(asyncio.run(_drawn(Top(url, token), width, height))), encoding="utf-8")
    return to


async def _drawn(app: Top, width: int, height: int) -> str:
    async with app.run_test(size=(width, height)) as pilot:
        try:
            async with asyncio.timeout(LONGEST_S):
                while not (app.curve.values and app.query_one("#log", RichLog).lines):
                    await pilot.pause(0.2)
        except TimeoutError as error:
            shown = "none of its runs" if app.answer(RUNS) else "nothing"
            raise ServerError(f"There is nothing to photograph: {shown} has figures and a log.") from error
        await pilot.pause(2.5)  # the next status knows how busy the processors were
        return app.export_screenshot(title="melete top")


def without_fonts(svg: str) -> str:
    """The same picture, in the reader's own fixed font: nothing is fetched."""
    svg = re.sub(r"@font-face\s*\{[^}]*\}", "", svg)
    return re.sub(
        r"font-family:\s*Fira Code[^;]*;", "font-family: ui-monospace, Menlo, Consolas, monospace;", svg
    )
