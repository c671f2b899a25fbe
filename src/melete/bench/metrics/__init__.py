"""Metrics of sessions: one file each, found by name; see `melete.bench.metric`."""
