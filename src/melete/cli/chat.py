"""Chat with a model in the terminal: a run of yours, a folder, or any OpenAI-compatible URL."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from melete.serve.backends import Backend
    from melete.settings import Settings


@click.command("chat")
@click.argument("ref", required=False)
@click.option("--url", help="Chat with a server instead; MELETE_TOKEN is sent if it is set.")
@click.option("--model", help="Model id at the server; the first one by default.")
@click.option("--system", default="", help="System prompt.")
@click.option(
    "--temperature", default=0.7, show_default=True, type=click.FloatRange(0, 2), help="0 is greedy."
)
@click.option(
    "--max-tokens", type=click.IntRange(1), help="Most tokens of an answer; as many as fit by default."
)
@click.option("--seed", type=int, help="The same seed gives the same answers.")
@click.option(
    "--tools/--no-tools", default=True, show_default=True, help="Whether the model may call a calculator."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
def command(
    ref: str | None,
    url: str | None,
    model: str | None,
    system: str,
    temperature: float,
    max_tokens: int | None,
    seed: int | None,
    tools: bool,
    device: str,
) -> None:
    """Chat with a model in the terminal.

    REF is a run (id, beginning or name), latest (the default), a checkpoint folder, a transformers folder, a hub id,
    or echo. From a pipe it answers once: echo 'What is 6 * 7?' | melete chat
    """
    if url is not None and ref is not None:
        raise click.UsageError("Give a REF or --url, not both.")
    if url is None and model is not None:
        raise click.UsageError("--model belongs to --url; name a local model as REF.")
    from rich.console import Console

    from melete import find, settings

    terminal = find.load("melete.serve", "terminal", "part of the server")
    wanted = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    sampling = {name: value for name, value in wanted.items() if value is not None}
    interactive = sys.stdin.isatty()
    out, aside = Console(), Console(stderr=not interactive)
    with backend(settings.load(), ref or "latest", url, model, device) as found:
        chat = terminal.Chat(found, sampling, system, tools, out, aside)
        if interactive:
            terminal.talk(chat, found.name, aside)
        else:
            terminal.answer_once(chat)


@contextlib.contextmanager
def backend(
    configured: Settings, ref: str, url: str | None, model: str | None, device: str
) -> Iterator[Backend]:
    """What answers: a server, or a model loaded here for as long as the chat lasts."""
    from melete import find

    backends: Any = find.load("melete.serve", "backends", "part of the server")
    if url is not None:
        yield backends.RemoteBackend(url, model, configured.token)
        return
    models: Any = find.load("melete.serve", "models", "part of the server")
    loaded = models.load(ref, configured, device=device, slots=1)
    loaded.engine.start()
    try:
        yield backends.LocalBackend(loaded)
    finally:
        loaded.engine.stop()
