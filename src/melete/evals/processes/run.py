"""Evaluate any model behind an OpenAI-compatible URL on a suite or on single tasks, such as bfcl.

The server may be ours (`melete serve`), a provider's or another engine's. Scores, items and the report are those of
`melete llm evaluate`. Tasks that need log-probabilities are skipped, with the reason, where the server gives none.
"""

from __future__ import annotations

from pydantic import Field

from melete.runs.process import ProcessConfig
from melete.runs.run import Run

ECHO = "echo"
EXAMPLE = {"url": "echo", "tasks": ["toolcalls"], "limit": 2}


class Config(ProcessConfig):
    """Options of an evaluation over a URL."""

    url: str = Field(
        "http://127.0.0.1:8675", min_length=1,
        description="Server, with or without /v1; echo is a model that guesses, without a server.",
    )  # fmt: skip
    model: str = Field("", description="The model's id there; empty takes the only one.")
    suite: str = Field("smoke", description="Suite by name, or the path of a YAML file.")
    tasks: list[str] = Field([], description="Single tasks with their default options, instead of a suite.")
    limit: int | None = Field(None, ge=1, description="Most items per task or group, instead of the suite's.")
    key_env: str = Field(
        "", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="Environment variable that holds the key; empty is MELETE_TOKEN on this machine.",
    )  # fmt: skip
    concurrency: int = Field(8, ge=1, le=256, description="Requests at once.")
    timeout_s: float = Field(300.0, gt=0, description="Longest wait for one answer, in seconds.")


def main(config: Config, run: Run) -> None:
    """Opens the URL, runs the suite, keeps items and scores."""
    from melete import settings as settings_module
    from melete.evals import in_run
    from melete.evals import suite as suites
    from melete.evals.echo import Guesser

    suite = suites.of_tasks(config.tasks) if config.tasks else suites.load(config.suite)
    settings = settings_module.load()
    if config.url == ECHO:
        in_run.evaluate(run, Guesser(), suite, settings=settings, limit=config.limit, seed=config.seed)
        return
    from melete.evals.url import UrlModel, key

    secret = key(config.url, config.key_env, settings.token)
    model = UrlModel(
        config.url, config.model, secret, concurrency=config.concurrency, timeout_s=config.timeout_s
    )
    try:
        in_run.evaluate(run, model, suite, settings=settings, limit=config.limit, seed=config.seed)
    finally:
        model.close()
    for note in model.notes:
        run.say(f"Note: {note}.")
    run.result |= {"url": model.url, "model": model.name, "notes": model.notes}
