"""Evaluation tasks, one file each; see `melete.evals.task` for what a file holds."""
