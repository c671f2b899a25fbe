"""Evaluation: tasks found by name, suites of them as YAML, and a sandbox for answers that are programs.

Nothing here imports a system. A task is handed a `LanguageModel` (see `model.py`): something that can generate text
and score continuations.
"""
