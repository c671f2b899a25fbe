"""The resources of the API: one file each, found by its name."""
