"""The figures and differences of a report as Parquet, with the whole report as JSON in the file's metadata."""

from __future__ import annotations

import io
from typing import Any

from melete.bench.exports._rows import COLUMNS, rows
from melete.bench.report import to_text

SUFFIX = ".parquet"
FLOATS = frozenset({"value", "low", "high", "effect_size", "p_value"})
INTEGERS = frozenset({"count", "needed"})


def render(report: dict[str, Any]) -> bytes:
    """One row a figure; the report stands under the key `melete_report`."""
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    def kind(name: str) -> Any:
        if name in FLOATS:
            return pyarrow.float64()
        if name in INTEGERS:
            return pyarrow.int64()
        return pyarrow.bool_() if name == "shown" else pyarrow.string()

    schema = pyarrow.schema(
        [(name, kind(name)) for name in COLUMNS], metadata={"melete_report": to_text(report)}
    )
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows(report), schema=schema), file)
    return file.getvalue()
