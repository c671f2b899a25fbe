"""Templates: Jinja2 with autoescape, the filters that all pages share, and the headers of every page.

No page runs an inline script or style, and none loads anything from another host: the content security policy says so.
"""

from __future__ import annotations

import json
import math
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
WATCHED = ("loss", "reward", "tool_reliability", "success", "val_bpb", "val_loss", "accuracy", "tokens_per_s")
"""Figures that come first where there is room for few."""
BESIDE = ("step", "time_s", "left_s")
"""What stands in a line of figures and is none."""
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def html(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page or fragment from its template."""
    return HTMLResponse(_environment().get_template(template).render(**values), status, headers=HEADERS)


def ago(time_s: float | None, now_s: float | None = None) -> str:
    """How long ago a time was, in one unit: `12 s`, `5 min`, `3 h`, `2 d`; a dash for none. As in `shell.js`."""
    if time_s is None:
        return "–"
    passed_s = max(0.0, (time.time() if now_s is None else now_s) - time_s)
    for unit_s, most_s, unit in ((1, 60, "s"), (60, 3_600, "min"), (3_600, 86_400, "h")):
        if passed_s < most_s:
            return f"{passed_s // unit_s:.0f} {unit}"
    return f"{passed_s // 86_400:.0f} d"


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
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f")
    if 10**digits <= abs(value) < 1e15:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.{digits}g}"


def headline(last: dict[str, Any], most: int = 3) -> list[tuple[str, Any]]:
    """The figures of a run that people watch first, then the others in their order.

    Args:
        last: last value of each figure.
        most: how many.
    """
    shown = {
        key: value for key, value in last.items() if key not in BESIDE and isinstance(value, int | float)
    }
    first = [key for key in WATCHED if key in shown]
    return [(key, shown[key]) for key in [*first, *(key for key in shown if key not in first)][:most]]


def as_json(value: Any) -> str:
    """A value as JSON for people; unlike `tojson` it is plain text, which the template escapes."""
    return json.dumps(value, indent=2, ensure_ascii=False)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        ago=ago, duration=duration, size=size, number=number, headline=headline, as_json=as_json
    )
    environment.globals.update(asset=assets.url, preloads=assets.preloads, now_s=time.time, watched=WATCHED)
    return environment
