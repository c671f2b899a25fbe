"""Datasets that are made on this machine and need nothing downloaded; each file has `open() -> Dataset`."""
