"""Provenance: commit and uncommitted changes that can be applied again, and nothing secret."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from melete.runs import provenance


def git(folder: Path, *args: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, as the working folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("one\n")
    git(folder, "add", "a.txt")
    git(folder, "commit", "-q", "-m", "Start")
    monkeypatch.chdir(folder)
    return folder


def test_patch_applied_to_the_commit_gives_the_work_tree_back(work: Path, tmp_path: Path) -> None:
    (work / "a.txt").write_text("two ö\n")
    (work / "new.bin").write_bytes(bytes(range(256)))
    patch, left_out = provenance.uncommitted(work)
    assert left_out == []
    git(tmp_path, "clone", "-q", str(work), "again")
    (tmp_path / "p.patch").write_text(patch)
    git(tmp_path / "again", "apply", str(tmp_path / "p.patch"))
    for name in ("a.txt", "new.bin"):
        assert (tmp_path / "again" / name).read_bytes() == (work / name).read_bytes()


def test_patch_leaves_index_and_status_as_they_are(work: Path) -> None:
    (work / "new.txt").write_text("x")
    before = git(work, "status", "--porcelain")
    provenance.uncommitted(work)
    assert git(work, "status", "--porcelain") == before == "?? new.txt\n"


def test_patch_of_a_clean_tree_is_empty(work: Path) -> None:
    assert provenance.uncommitted(work) == ("", [])


def test_patch_names_large_files_and_leaves_secrets_out(work: Path) -> None:
    (work / "big.bin").write_bytes(bytes(provenance.LARGEST_UNTRACKED + 1))
    (work / ".env").write_text("MELETE_TOKEN=secret")
    patch, left_out = provenance.uncommitted(work)
    assert left_out == ["big.bin"]
    assert "secret" not in patch


def test_record_names_the_working_folder_beside_the_source(work: Path, tmp_path: Path) -> None:
    (work / "a.txt").write_text("changed\n")
    run = tmp_path / "run"
    run.mkdir()
    provenance.record(run, seed=7, argv=["melete", "x"])
    kept = json.loads((run / "provenance.json").read_text())
    (sitting,) = kept["sittings"]
    mine = next(code for code in sitting["code"] if code["folder"] == "work")
    assert mine["commit"] == git(work, "rev-parse", "HEAD").strip()
    assert "changed" in (run / mine["patch"]).read_text()
    assert (kept["seed"], sitting["argv"]) == (7, ["melete", "x"])
    assert sitting["packages"]["click"]
    assert sitting["machine"]["cores"] == os.cpu_count()


def test_record_outside_any_repository_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "SOURCE", tmp_path)
    provenance.record(tmp_path, seed=1)
    assert json.loads((tmp_path / "provenance.json").read_text())["sittings"][0]["code"] == []


def test_keep_datasets_adds_hashes_once(tmp_path: Path) -> None:
    provenance.record(tmp_path, seed=1)
    provenance.keep_datasets(tmp_path, {"a": "1"})
    provenance.keep_datasets(tmp_path, {"b": "2"})
    assert json.loads((tmp_path / "provenance.json").read_text())["datasets"] == {"a": "1", "b": "2"}
