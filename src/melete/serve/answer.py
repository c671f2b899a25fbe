"""One request while it is answered: submitted to the engine, followed until it ends, dropped if its client leaves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from melete.errors import ConfigError
from melete.llm.engine import EngineFull, Generation
from melete.serve import problems
from melete.serve.output import Delta
from melete.serve.plan import Choice, Plan
from melete.serve.problems import Problem
from melete.serve.stream import Bridge, Departure, Outlet

if TYPE_CHECKING:
    from starlette.types import Receive

    from melete.llm.engine import Token


class Answer:
    """A submitted plan. Make it in the event loop that answers.

    Raises:
        Problem: the queue is full, or the engine refuses the prompt; nothing is left running.
    """

    def __init__(self, plan: Plan, bridge: Bridge) -> None:
        self.plan = plan
        self.news = asyncio.Event()
        try:
            for choice in plan.choices:
                choice.outlet = Outlet(bridge, self.news)
                choice.generation = plan.model.engine.submit(
                    choice.prompt_ids, choice.sampling, choice.outlet.put
                )
        except EngineFull as error:
            self.cancel()
            raise problems.queue_full(error.retry_after_s) from error
        except ConfigError as error:
            self.cancel()
            raise Problem(400, str(error), param=plan.param) from error

    def cancel(self) -> None:
        """Drops what still runs: the client has left, or a part of the request was refused."""
        for choice in self.plan.choices:
            if choice.generation is not None:
                choice.generation.cancel()
        if self.plan.episode is not None:
            self.plan.episode.drop(self.plan.choices)

    def advance(self) -> list[tuple[Choice, list[Token], list[Delta]]]:
        """What has come since the last call, for each choice that has news; ended ones are marked `finished`.

        Raises:
            Problem: a generation failed.
        """
        news = []
        for choice in self.plan.choices:
            if choice.finished:
                continue
            assert choice.outlet is not None
            assert choice.generation is not None
            choice.finished = choice.outlet.ended
            tokens = choice.outlet.take()
            if choice.finished and choice.generation.finish_reason in ("error", "cancelled"):
                raise _failed(choice.generation)
            if choice.parser is None:
                text = "".join(token.text for token in tokens)
                choice.text += text
                deltas = [Delta(text)] if text else []
            else:
                deltas = choice.parser.feed(tokens)
                if choice.finished:
                    deltas += choice.parser.finish()
            if choice.finished and self.plan.episode is not None:
                self.plan.episode.keep(choice)
            if tokens or choice.finished:
                news.append((choice, tokens, deltas))
        return news

    async def whole(self, receive: Receive) -> list[list[Token]] | None:
        """Waits for the end; the tokens of each choice, or None if the client has left.

        Raises:
            Problem: a generation failed.
        """
        tokens: list[list[Token]] = [[] for _ in self.plan.choices]
        try:
            async with Departure(receive, self.news) as client:
                while not self.finished:
                    await self.news.wait()
                    self.news.clear()
                    if client.gone:
                        return None
                    for choice, arrived, _ in self.advance():
                        tokens[choice.index] += arrived
        finally:
            self.cancel()
        return tokens

    def at_once(self, tokens: list[list[Token]]) -> str:
        """A whole answer in the form of a stream."""
        form, choices = self.plan.form, self.plan.choices
        parts = [form.opening(choices)]
        parts += [form.chunks(choice, tokens[choice.index], choice.deltas()) for choice in choices]
        return "".join([*parts, form.closing(self.usage())])

    @property
    def finished(self) -> bool:
        """Whether all choices have ended."""
        return all(choice.finished for choice in self.plan.choices)

    def usage(self) -> dict[str, Any]:
        """Token counts of the request; a prompt with several choices counts once."""
        firsts = {id(choice.prompt_ids): choice for choice in reversed(self.plan.choices)}.values()
        prompt = sum(len(choice.prompt_ids) for choice in firsts)
        written = sum(len(choice.generation.token_ids) for choice in self.plan.choices if choice.generation)
        cached = sum(choice.generation.cached_tokens for choice in firsts if choice.generation)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def _failed(generation: Generation) -> Problem:
    if generation.finish_reason == "cancelled":
        return Problem(503, "The server is stopping; the answer was cut off.", code="server_stopping")
    return Problem(
        500, f"The model failed: {generation.error or 'no reason given'}", code="generation_failed"
    )
