"""The figures and differences of a report as CSV, one row each, for spreadsheets.

A text that begins like a formula is given a leading apostrophe, so that no spreadsheet runs it.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from melete.bench.exports._rows import COLUMNS, rows

SUFFIX = ".csv"


def render(report: dict[str, Any]) -> bytes:
    """UTF-8 with a head; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows(report))
    return text.getvalue().encode()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
