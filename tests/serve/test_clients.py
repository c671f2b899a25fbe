"""The clients that people use, on a real server: the async official client, curl, and litellm's SDK."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from melete.serve.server import Server

from .conftest import CALCULATOR

HELLO: list[Any] = [{"role": "user", "content": "héllo"}]
CALL: list[Any] = [{"role": "user", "content": 'call calculator {"expression": "2 + 3"}'}]


def test_async_client_streams_many_at_once(server: Server) -> None:
    async def ask(client: openai.AsyncOpenAI, text: str) -> str:
        stream = await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": text}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return await asyncio.gather(*(ask(client, f"text {i}") for i in range(8)))

    assert asyncio.run(main()) == [f"text {i}" for i in range(8)]


def test_async_client_calls_tools(server: Server) -> None:
    async def main() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return await client.chat.completions.create(model="echo", messages=CALL, tools=[CALCULATOR])

    assert asyncio.run(main()).choices[0].message.tool_calls[0].function.name == "calculator"


def test_official_stream_helper_accumulates_content_and_calls(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="echo", messages=CALL, tools=[CALCULATOR]) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    assert [call.function.arguments for call in message.tool_calls or []] == ['{"expression": "2 + 3"}']


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("stream", [False, True])
def test_curl_without_content_type_is_understood(server: Server, stream: bool) -> None:
    body = json.dumps({"model": "echo", "messages": HELLO, "stream": stream})
    command = ["curl", "-sN", f"{server.url}/v1/chat/completions", "-d", body]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    if stream:
        events = [line.removeprefix("data: ") for line in out.splitlines() if line]
        assert events[-1] == "[DONE]"
        deltas = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]
        assert "".join(deltas) == "héllo"
    else:
        assert json.loads(out)["choices"][0]["message"]["content"] == "héllo"


LITELLM = """
import json, litellm
fields = dict(model="openai/echo", api_base=URL, api_key="none")
whole = litellm.completion(messages=[{"role": "user", "content": "hello"}], **fields)
stream = litellm.completion(messages=[{"role": "user", "content": "hello"}], stream=True, **fields)
text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
called = litellm.completion(messages=CALL, tools=[TOOL], **fields)
try:
    litellm.completion(messages=[{"role": "user", "content": "x" * 9000}], **fields)
except litellm.ContextWindowExceededError as error:
    kind = type(error).__name__
print(json.dumps([whole.choices[0].message.content, whole.usage.total_tokens, text,
    called.choices[0].message.tool_calls[0].function.name, kind]))
"""


@pytest.mark.slow
def test_litellm_chats_streams_calls_and_knows_the_errors(server: Server) -> None:
    import os
    import sys

    values = f"URL = {f'{server.url}/v1'!r}\nCALL = {CALL!r}\nTOOL = {CALCULATOR!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", values + LITELLM],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    content, total, text, called, error = json.loads(done.stdout.splitlines()[-1])
    assert (content, text, called) == ("hello", "hello", "calculator")
    assert total > 5
    assert error == "ContextWindowExceededError"


def test_official_parse_helper_returns_a_pydantic_object(client: openai.OpenAI) -> None:
    class Pet(BaseModel):
        kind: Literal["cat", "dog"]
        friends: list[Literal["a", "b"]] = Field(max_length=2)

    answer = client.chat.completions.parse(
        model="tiny", messages=HELLO, response_format=Pet, max_tokens=80, seed=1
    )
    assert isinstance(answer.choices[0].message.parsed, Pet)
