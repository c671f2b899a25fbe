"""Browser libraries: pinned by checksum, put in place whole, and shipped in the wheel."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from melete.ui.assets import STATIC

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import vendor  # noqa: E402

AT_HAND = vendor.check(quiet=True) == 0
needs_files = pytest.mark.skipif(not AT_HAND, reason="the libraries are not in place; run tools/vendor.py")


def test_each_library_is_pinned_by_version_and_checksum() -> None:
    wanted = json.loads((ROOT / "package.json").read_text())
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    for name, version in {**wanted["dependencies"], **wanted["devDependencies"]}.items():
        entry = locked[f"node_modules/{name}"]
        assert entry["version"] == version
        assert entry["integrity"].startswith("sha512-")


def test_each_library_has_its_licence_beside_it() -> None:
    scripts = {name.rsplit(".", 1)[0] for name in vendor.FILES if name.endswith(".js")}
    assert {f"{name}.LICENSE" for name in scripts} <= set(vendor.FILES)


@needs_files
def test_files_in_place_are_those_that_were_pinned() -> None:
    found = {file.name for file in vendor.TARGET.iterdir()}
    assert found == {*vendor.FILES, vendor.SUMS}
    assert vendor.check(quiet=True) == 0


@needs_files
def test_changed_file_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in vendor.TARGET.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "htmx.js").write_text("// something else")
    assert vendor.check(tmp_path) == 1
    assert "htmx.js" in capsys.readouterr().out


@needs_files
@pytest.mark.slow
def test_wheel_holds_pages_and_libraries(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    static = {
        f"melete/ui/static/{file.relative_to(STATIC).as_posix()}"
        for file in STATIC.rglob("*")
        if file.is_file()
    }
    assert static <= names
    assert "melete/ui/templates/shell.html" in names
    assert f"melete/ui/static/vendor/{vendor.SUMS}" in names
