"""Finding datasets: those added by the user, those made here, and the known public sets by checksum.

Look-up order for a name: the user's own (`<home>/datasets/<name>/<version>/`), then the generated sets (`generated/`),
then the known public sets (`known/`), whose files are looked for in `MELETE_DATA` and `../shared/data`, then what a run
wrote to its folder `data`. Nothing is ever downloaded: a set that is not at hand is an error that says where it comes
from, its licence and what to do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from melete import find
from melete import settings as settings_module
from melete.datasets import manifest as manifests
from melete.datasets import own
from melete.datasets.dataset import Dataset, from_files
from melete.datasets.manifest import Manifest
from melete.errors import DatasetError, UnknownNameError
from melete.runs import refs
from melete.settings import Settings

GENERATED = "melete.datasets.generated"
KNOWN = "melete.datasets.known"
ADAPTERS = "melete.datasets.adapters"
MANIFEST_FILE = "manifest.json"


def open(name: str | Path, settings: Settings | None = None) -> Dataset:
    """Opens a dataset by name, `name@version`, or the path of a folder or file of the user's own.

    Files are compared with their checksums when a split is first read, not here.

    Raises:
        UnknownNameError: nothing has that name.
        DatasetError: a path that does not exist, own data that cannot be read, or a known set that is not at hand.
    """
    settings = settings or settings_module.load()
    if _is_path(str(name), settings):
        path = Path(name).expanduser()
        if not path.exists():
            raise DatasetError(f"There is no file or folder {path}.", next_step="Check the path.")
        if (path / MANIFEST_FILE).is_file():
            return _from_folder(manifests.read(path / MANIFEST_FILE), path, settings)
        return from_files(own.manifest_of(path, settings), own.folder_of(path), settings)
    stem, _, version = str(name).partition("@")
    if stem not in added(settings) and stem in find.names(GENERATED):
        return _version(cast(Dataset, find.load(GENERATED, stem, "dataset").open()), version)
    made = None if stem in names(settings) else of_run(str(name), settings)
    if made is not None:
        return from_files(own.manifest_of(made, settings, name=made.parent.name), made, settings)
    manifest = describe(str(name), settings)
    folder = at_hand(manifest, settings)
    if folder is None:
        raise _not_at_hand(manifest)
    return _from_folder(manifest, folder, settings)


def of_run(ref: str, settings: Settings) -> Path | None:
    """Folder of the data that a run wrote, such as that of `agents demonstrate`; None if there is no such run."""
    try:
        folder = refs.run(settings, ref) / "data"
    except UnknownNameError:
        return None
    return folder if folder.is_dir() else None


def names(settings: Settings | None = None) -> list[str]:
    """Names of all datasets that `open` knows, at hand or not."""
    settings = settings or settings_module.load()
    return sorted({*added(settings), *find.names(GENERATED), *find.names(KNOWN, ".yaml")})


def describe(name: str, settings: Settings | None = None) -> Manifest:
    """The manifest of a dataset by `name` or `name@version`, without touching its data.

    Raises:
        UnknownNameError: nothing has that name.
        DatasetError: it has no such version.
    """
    settings = settings or settings_module.load()
    stem, _, version = name.partition("@")
    versions = added(settings).get(stem, {})
    if versions:
        if version and version not in versions:
            raise _no_version(stem, version, list(versions))
        chosen = version or max(versions, key=version_key)
        return manifests.read(versions[chosen] / MANIFEST_FILE)
    if stem in find.names(GENERATED):
        return open(name, settings).manifest
    if stem not in find.names(KNOWN, ".yaml"):
        raise UnknownNameError(
            "dataset",
            stem,
            names(settings),
            next_step="Own data: give a path such as ./my_folder or notes.txt.",
        )
    manifest = manifests.read(find.path(KNOWN, stem, "dataset"))
    if version and version != manifest.version:
        raise _no_version(stem, version, [manifest.version])
    return manifest


def at_hand(manifest: Manifest, settings: Settings) -> Path | None:
    """Folder that holds the files of a dataset, or None."""
    folder = added(settings).get(manifest.name, {}).get(manifest.version)
    if folder:
        return folder
    known = settings.data / manifest.name if settings.data else None
    return known if known and known.is_dir() else None


def added(settings: Settings) -> dict[str, dict[str, Path]]:
    """Datasets that the user added: name to version to folder."""
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(settings.datasets.glob(f"*/*/{MANIFEST_FILE}")):
        if not file.parent.name.startswith("."):
            found.setdefault(file.parent.parent.name, {})[file.parent.name] = file.parent
    return found


def default_text(settings: Settings | None = None) -> str:
    """The text that pretraining uses when none is named: classic books when at hand, else `stdlib`."""
    settings = settings or settings_module.load()
    books = describe("text_classic_books", settings)
    return books.name if at_hand(books, settings) else "stdlib"


def version_key(version: str) -> list[tuple[int, str]]:
    """Sorts versions as people count: 1.10 after 1.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[.\-+]", version)]


def _from_folder(manifest: Manifest, folder: Path, settings: Settings) -> Dataset:
    if manifest.adapter is None:
        return from_files(manifest, folder, settings)
    make_reader = find.load(ADAPTERS, manifest.adapter, "dataset adapter").reader
    return from_files(manifest, folder, settings, make_reader)


def _is_path(name: str, settings: Settings) -> bool:
    if "/" in name or name.startswith((".", "~")):
        return True
    return name.partition("@")[0] not in names(settings) and Path(name).exists()


def _version(dataset: Dataset, version: str) -> Dataset:
    if version and version != dataset.manifest.version:
        raise _no_version(dataset.name, version, [dataset.manifest.version])
    return dataset


def _no_version(name: str, version: str, known: list[str]) -> DatasetError:
    return DatasetError(
        f"The dataset {name} has no version {version!r}.",
        allowed=f"Versions: {', '.join(sorted(known, key=version_key))}.",
    )


def _not_at_hand(manifest: Manifest) -> DatasetError:
    places = "; ".join(
        f"{source.repository} {source.path} @ {source.commit}".replace("  ", " ")
        for source in manifest.sources
    )
    return DatasetError(
        f"The dataset {manifest.id} is known but not on this machine.",
        allowed=f"It comes from {places} (licence: {manifest.licence})",
        next_step=f"{manifest.how_to_get} Then put it in the folder {manifest.name} of the folder that MELETE_DATA "
        "names, or use `stdlib` and `toolcalls`, which need nothing, or a path of your own.",
    )
