"""Datasets: `open(name)` gives text, conversations or rows with a manifest, checked checksums and splits."""

from melete.datasets.dataset import Dataset, Shard
from melete.datasets.manifest import FileEntry, Manifest, Source
from melete.datasets.registry import default_text, describe, names, open

__all__ = ["Dataset", "FileEntry", "Manifest", "Shard", "Source", "default_text", "describe", "names", "open"]
