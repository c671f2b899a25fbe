"""The report as one HTML file that opens offline: figures, differences, distributions, tasks and origins."""

from __future__ import annotations

from typing import Any

from melete.bench import drawing, tables
from melete.runs import curves

SUFFIX = ".html"


def render(report: dict[str, Any]) -> bytes:
    """The page, with every text from outside escaped."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("melete.bench.exports", "."), PackageLoader("melete.runs", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"label": curves.label, "amount": tables.amount}
    page: str = environment.get_template("report.html.j2").render(
        report=report, tables=tables, drawing=drawing, size=curves
    )
    return page.encode()
