"""The report as Markdown: what was found, the tables, and where the numbers come from."""

from __future__ import annotations

from typing import Any

from melete.bench import tables
from melete.bench.tables import Table

SUFFIX = ".md"


def render(report: dict[str, Any]) -> bytes:
    """Headings, sentences and tables."""
    parts = [f"# {_escaped(report['title'])}", _table(tables.counts(report))]
    for found in report["comparisons"]:
        after, before = (_escaped(tables.called(report, found[side])) for side in ("after", "before"))
        parts += [
            f"## {after} against {before}",
            _escaped(tables.lead(report, found)),
            _table(tables.comparison(report, found)),
            "\n".join(f"- {_escaped(sentence)}" for sentence in tables.sentences(report, found)),
            "\n".join(f"- {_escaped(sentence)}" for sentence in found["left_out"]),
        ]
    parts += ["## All figures", _table(tables.variants(report))]
    parts.append("\n".join(f"- {_escaped(note)}" for note in report["notes"]))
    parts += ["## Where the numbers come from", _origin(report["provenance"])]
    meanings = (f"- **{metric['title']}**: {metric['note']}" for metric in report["metrics"].values())
    parts += ["## What is counted", "\n".join(meanings)]
    return ("\n\n".join(part for part in parts if part) + "\n").encode()


def _origin(provenance: dict[str, Any]) -> str:
    rows = [("sessions", f"{provenance['first_started']} to {provenance['last_ended']}")]
    for id, configs in provenance["variants"].items():
        rows.append(
            (id, ", ".join(f"{name} {' '.join(values)}" for name, values in configs.items() if values))
        )
    rows += [(name, _counted(values)) for name, values in provenance["noted"].items() if values]
    rows += [(f"version of {name}", ", ".join(values)) for name, values in provenance["versions"].items()]
    if provenance["load_1m"]:
        load = provenance["load_1m"]
        rows.append(("load of the host", f"median {load['median']}, {load['low']} to {load['high']}"))
    rows.append(("prices from", _counted(provenance["price_sources"])))
    how = provenance["intervals"]
    rows.append(("intervals", f"{how['confidence']:.0%}, {how['resamples']:,} resamples, seed {how['seed']}"))
    return _table(Table(("what", "value"), rows))


def _counted(values: dict[str, int]) -> str:
    return ", ".join(f"{value} ({count:,})" for value, count in values.items()) or "nothing"


def _table(table: Table) -> str:
    ruler = ["---:" if name in table.right else "---" for name in table.head]
    lines = ([*map(_escaped, table.head)], ruler, *([*map(_escaped, row)] for row in table.rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _escaped(text: str) -> str:
    """Text that Markdown takes as it is: names come from files and harnesses."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
