"""The door, the keys and the recorder as the proxy runs them, before an application that answers like LiteLLM's.

    python door_alone.py DATABASE SPOOL PORT

Starts in a fraction of LiteLLM's time, for tests that kill it a hundred times. The application answers a chat
completion after some milliseconds, whole or in pieces.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn

from melete.gateway.hook_answer import Tokens
from melete.gateway.hook_door import Door, inside
from melete.gateway.hook_keys import Keys, open_database
from melete.gateway.hook_record import Attempt, Exchange, Recorder
from melete.gateway.spool import SpoolWriter

PIECES = ["one ", "two ", "three ", "four"]
USAGE = {"prompt_tokens": 10, "completion_tokens": 4}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers every request that is let in with the same chat completion."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = json.loads((await receive())["body"])
    known = inside.get()
    assert known is not None
    assert known.exchange is not None
    known.exchange.attempts.append(Attempt(0, "alone/echo", "alone", known.exchange.started_s))
    kind = b"text/event-stream" if body.get("stream") else b"application/json"
    await asyncio.sleep(0.005)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if not body.get("stream"):
        choices = [{"index": 0, "message": {"content": "".join(PIECES)}, "finish_reason": "stop"}]
        answer = json.dumps({"model": "echo", "choices": choices, "usage": USAGE}).encode()
        await send({"type": "http.response.body", "body": answer})
        return
    for piece in PIECES:
        await asyncio.sleep(0.005)
        chunk = {"model": "echo", "choices": [{"index": 0, "delta": {"content": piece}}]}
        await send(
            {
                "type": "http.response.body",
                "body": b"data: %b\n\n" % json.dumps(chunk).encode(),
                "more_body": True,
            }
        )
    last = {"model": "echo", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}
    await send(
        {"type": "http.response.body", "body": b"data: %b\n\n" % json.dumps(last).encode(), "more_body": True}
    )
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def price(exchange: Exchange, tokens: Tokens) -> tuple[float | None, str]:
    """A price of its own."""
    return tokens.input * 1e-6, "config"


def count(exchange: Exchange) -> Tokens:
    """A rough count."""
    return Tokens(10, exchange.answer.characters // 4, estimated=True)


def door(database: str, spool: Path, **options: Any) -> Door:
    """The door before the application."""
    recorder = Recorder(SpoolWriter(spool, **options), None, price, count)
    return Door(application, Keys(open_database(database)), recorder)


if __name__ == "__main__":
    uvicorn.run(
        door(sys.argv[1], Path(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[3]), log_level="critical"
    )
