"""Parts of a run in the API: one file is one path below `/runs/{run_id}/`, found by its name."""
