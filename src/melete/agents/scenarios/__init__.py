"""Scenarios: one file each, with a class `SCENARIO`; the data of a scenario stands in a folder of the same name."""
