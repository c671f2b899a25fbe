"""A session's own folder: a working copy of the task, and the files that its harness reads.

    <home>/gateway/sessions/<id>/
        work/        what the harness works on: the card's files, a git repository with one commit of them
        harness/     the profile's files, rendered; the harness may keep its own state here

The folder belongs to its owner alone, because rendered files hold the session's key, and it goes when the session ends.
The working copy is always a repository of its own: a harness that looks for one upwards would else find, and change,
whatever repository the home folder happens to lie in.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from melete.bench.harness_profile import HarnessProfile, render, templates
from melete.bench.task_card import LARGEST_FILE_BYTES, Card, Repository, folder_files
from melete.errors import ConfigError, StorageError
from melete.runs.folder import storage_error
from melete.settings import Settings

GIT_TIMEOUT_S = 300.0
_GIT = [
    "git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "user.name=melete",
    "-c", "user.email=melete@localhost", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=main",
]  # fmt: skip
"""git without hooks, signatures or transports that run programs."""


def folder(settings: Settings, session: str) -> Path:
    """Folder of a session, which need not exist."""
    return settings.gateway / "sessions" / session


def make(settings: Settings, session: str) -> Path:
    """Makes a session's folder, for its owner alone.

    Raises:
        StorageError: it cannot be written.
    """
    place = folder(settings, session)
    with writing(place):
        (place / "harness").mkdir(parents=True, exist_ok=True)
        place.chmod(0o700)
    return place


def equipped(settings: Settings) -> list[Path]:
    """Folders of sessions whose harness still has what it was given."""
    return sorted(path.parent for path in (settings.gateway / "sessions").glob("*/harness"))


def remove(settings: Settings, session: str, *, keep_work: bool = False) -> None:
    """Removes a session's folder, or all of it but the working copy; what cannot be removed stays."""
    place = folder(settings, session)
    shutil.rmtree(place / "harness" if keep_work else place, ignore_errors=True)


def write_files(profile: HarnessProfile, beside: Path, place: Path, values: Mapping[str, str]) -> list[Path]:
    """Renders the files of a profile into the folder of a session.

    Args:
        profile: whose files.
        beside: folder of the profile's file, where its sources are.
        place: the session's `harness` folder.
        values: of the placeholders.

    Raises:
        ConfigError: a source is missing.
        StorageError: a file cannot be written.
    """
    written = []
    for name, template in templates(profile, beside).items():
        path = place / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
                out.write(render(template, values))
        written.append(path)
    return written


def prepare(card: Card, work: Path) -> None:
    """Fills the working copy of a task.

    Raises:
        ConfigError: the card's folder or repository is not there, or has not that commit.
        StorageError: the copy cannot be written.
    """
    if card.card.repository is not None:
        _check_out(card.card.repository, card.folder, work)
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
        if card.card.folder is not None:
            _copy(card.folder / card.card.folder, work)
        for name, text in card.card.files.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if card.card.repository is None:
        _own_repository(work)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names what could not be written, and why."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


def _copy(source: Path, work: Path) -> None:
    if not source.is_dir():
        raise ConfigError(f"{source}: the folder of a task card is not there.")
    for path in folder_files(source):
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ConfigError(f"{path}: a file of a task card has at most {LARGEST_FILE_BYTES:,} bytes.")
        target = work / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(path.stat().st_mode & 0o755)


def _own_repository(work: Path) -> None:
    """Makes the working copy a repository with one commit, where git is installed."""
    if shutil.which("git") is None:
        return
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "--allow-empty", "-m", "The task"]):
            _git(work, *arguments)


def _check_out(repository: Repository, beside: Path, work: Path) -> None:
    """A working copy of a repository at its commit; nothing in it can push back to where it came from."""
    url = repository.url
    if not url.startswith("https://"):
        source = (beside / Path(url).expanduser()).resolve()
        if not source.is_dir():
            raise ConfigError(f"{source}: the repository of a task card is not there.")
        url = str(source)
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        _git(work.parent, "clone", "-q", "--no-hardlinks", "--no-checkout", "--", url, str(work))
        _git(work, "checkout", "-q", "--detach", repository.commit)
        _git(work, "remote", "remove", "origin")
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
        raise ConfigError(
            f"The repository {repository.url} has no working copy at {repository.commit[:12]}: {said}",
            next_step="Check the url and the commit of the task card.",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StorageError(f"No working copy of {repository.url} could be made: {error}.") from error


def _git(place: Path, *arguments: str) -> None:
    subprocess.run(
        [*_GIT, *arguments],
        cwd=place,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=GIT_TIMEOUT_S,
        check=True,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"},
    )
