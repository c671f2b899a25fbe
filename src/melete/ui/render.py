"""Templates: Jinja2 with autoescape, the filters that all pages share, and the headers of every page.

No page runs an inline script or style, and none loads anything from another host: the content security policy says so.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse

from melete.ui import assets

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # Asked for each time; "no-store" would keep pages out of the browser's back-forward cache.
    "Cache-Control": "private, no-cache",
    # With "no-referrer" a browser would send forms with "Origin: null", which the gate refuses.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def html(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page or fragment from its template."""
    return HTMLResponse(_environment().get_template(template).render(**values), status, headers=HEADERS)


def ago(time_s: float | None, now_s: float | None = None) -> str:
    """How long ago a time was, in one word: `12 s`, `5 min`, `3 h`, `2 d`; a dash for none."""
    if time_s is None:
        return "–"
    return duration(max(0.0, (time.time() if now_s is None else now_s) - time_s))


def duration(seconds: float | None) -> str:
    """A duration in one or two units: `0.4 s`, `12 s`, `5 min`, `3 h 20 min`, `2 d`; a dash for none."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} d"


def size(count: float | None) -> str:
    """Bytes in a readable unit of powers of ten."""
    if count is None:
        return "–"
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"


def number(value: Any, digits: int = 4) -> str:
    """A figure with a few significant digits; integers with thin spaces; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.{digits}g}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(ago=ago, duration=duration, size=size, number=number)
    environment.globals.update(asset=assets.url, now_s=time.time)
    return environment
