"""The report as JSON: everything that it holds, the same bytes for the same sessions on any machine."""

from __future__ import annotations

from typing import Any

from melete.bench.report import to_text

SUFFIX = ".json"


def render(report: dict[str, Any]) -> bytes:
    """The report as it is."""
    return to_text(report).encode()
