"""Readers: every format, streaming, and errors that name file and line."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.datasets import readers
from melete.errors import DatasetError


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.csv", "rows.csv.gz"])
def test_read_of_each_row_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    rows = [{"text": "one, two"}, {"text": 'with "quotes"\nand lines'}]
    if ".csv" in name:
        data = 'text\n"one, two"\n"with ""quotes""\nand lines"\n'
    else:
        data = json.dumps(rows) if name.endswith(".json") else "\n\n".join(map(json.dumps, rows)) + "\n"
    items = list(readers.read(write(tmp_path / name, data.encode())))
    assert [item.row() for item in items] == rows
    assert [item.text() for item in items] == ["one, two", 'with "quotes"\nand lines']


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "a.txt.gz"])
def test_read_of_a_text_file_gives_one_document(tmp_path: Path, name: str) -> None:
    (item,) = readers.read(write(tmp_path / name, "\ufeffGrüße\nzwei".encode()))
    assert item.text() == "Grüße\nzwei"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"fine\nstill fine\nbad \xff byte", r"a\.txt:3: byte 0xff is not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text": \n', r"a\.jsonl:3: not JSON"),
        ("a.jsonl", b'{"text": "x"}\n[1]\n', r"a\.jsonl:2: a row is a JSON object; found list"),
        ("a.jsonl", b'{"title": "x"}\n', r"a\.jsonl:1: a text row needs a string 'text'; found keys title"),
        (
            "a.jsonl",
            b'{"text": 3}\n',
            r"a\.jsonl:1: a text row needs a string 'text'; found text of type int",
        ),
        ("a.json", b"[1]", r"a\.json: element 1 is int"),
        ("a.json", b"{", r"a\.json: not JSON"),
        ("a.csv", b"text,label\nx,1\ny\n", r"a\.csv:3: the number of fields differs"),
        ("a.csv", b"text\n\xff\n", r"a\.csv:\d+: .*can't decode byte 0xff"),
    ],
)
def test_read_of_a_bad_row_names_file_and_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(DatasetError, match=message):
        [item.text() for item in readers.read(path, name=name)]


def test_read_of_a_truncated_gzip_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:-20])
    with pytest.raises(DatasetError, match="truncated or corrupt"):
        list(readers.read(path))


def test_read_of_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        list(readers.read(tmp_path / "none.txt"))


@given(st.text(alphabet="ab \n\u00e9", max_size=400), st.integers(1, 60))
def test_passages_joined_again_are_the_text(text: str, limit: int) -> None:
    import io

    items = list(readers._read_passages(io.BytesIO(text.encode()), "a", limit))
    assert "".join(item.text() for item in items) == text
    assert all(0 < len(item.text()) <= limit for item in items)


def test_read_of_a_large_compressed_file_needs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl.gz"
    row = json.dumps({"text": "melete " * 200}).encode() + b"\n"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(10_000):
            file.write(row)
    tracemalloc.start()
    count = sum(1 for item in readers.read(path) if item.uniform() >= 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 10_000
    assert peak < 2_000_000  # of 14 MB of text
