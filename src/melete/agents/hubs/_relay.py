"""Stands between agents and a policy server: says which episode a call belongs to, and keeps what the model wrote.

An agent does not know that it practises, so it sends no seed, and Agent Lightning's gateway passes on neither the key
nor the path that would tell episodes apart. The relay is the base URL that the agent gets. By the episode's key it adds
the seed of the turn, the temperature and the limit of tokens, asks for token ids and log-probabilities, and records
them. It answers streamed requests too, in one piece, since the gateway refuses them, and holds calls back while the hub
is paused. If the server is ours, the episode is open at its recorder too and the call carries its key in `user`: an
episode is then the same, token by token, as without a gateway in between.

It has the interface of `melete.serve.recording.Recorder`. Threads of the standard library's server: one a connection.
Limits: one choice a call, chat completions only; it listens on loopback.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from melete.agents.hubs._http import Clients
from melete.records import ToolCall, Turn
from melete.serve.recording import PREFIX, RecordedMove, Recorder, turn_seed

LONGEST_CALL_S = 600.0


@dataclass
class _Open:
    """An episode that is being played."""

    id: str
    seed: int
    temperature: float
    max_tokens: int | None
    model: str | None
    moves: list[RecordedMove] = field(default_factory=list)
    running: int = 0
    full: bool = False


class Relay:
    """Serves agents on a free port of loopback.

    Args:
        upstream: base URL, ending in `/v1`, at which the model answers an episode of this id.
        api_key: bearer key of the upstream server; it never reaches the agent.
        version: says which version of the policy answers, if the answer does not.
        recorder: of the policy's server, if it is ours.
    """

    def __init__(
        self,
        upstream: Callable[[str], str],
        api_key: str = "",
        version: Callable[[], int] = lambda: 0,
        recorder: Recorder | None = None,
    ) -> None:
        self._upstream = upstream
        self._recorder = recorder
        self._version = version
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inflight = 0
        self._paused = False
        self._by_key: dict[str, _Open] = {}
        self._keys: dict[str, str] = {}
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._clients = Clients(headers, LONGEST_CALL_S)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.relay = self
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="melete-relay", daemon=True
        ).start()

    def open(
        self,
        episode_id: str,
        seed: int,
        temperature: float = 1.0,
        max_tokens: int | None = None,
        model: str | None = None,
    ) -> str:
        """Begins an episode and returns its key; see `Recorder.open`."""
        key = f"{PREFIX}{secrets.token_urlsafe(16)}"
        if self._recorder is not None:
            key = self._recorder.open(episode_id, seed, temperature, max_tokens, model)
        with self._lock:
            assert episode_id not in self._keys, f"episode {episode_id} is open already"
            self._keys[episode_id] = key
            self._by_key[key] = _Open(episode_id, seed, temperature, max_tokens, model)
        return key

    def close(self, episode_id: str) -> list[RecordedMove]:
        """Ends an episode and returns its completions; its key is refused from now on."""
        if self._recorder is not None:
            self._recorder.close(episode_id)
        with self._lock:
            return self._by_key.pop(self._keys.pop(episode_id)).moves

    def moves(self, episode_id: str) -> list[RecordedMove]:
        """Completions of an open episode so far; none if it is not open."""
        with self._lock:
            episode = self._by_key.get(self._keys.get(episode_id, ""))
            return list(episode.moves) if episode else []

    def full(self, episode_id: str) -> bool:
        """Whether a completion of an open episode was refused because its context is full."""
        with self._lock:
            episode = self._by_key.get(self._keys.get(episode_id, ""))
            return episode is not None and episode.full

    def pause(self) -> None:
        """Holds further calls back and returns when none is under way."""
        with self._changed:
            self._paused = True
            self._changed.wait_for(lambda: self._inflight == 0)

    def resume(self) -> None:
        """Lets calls through again."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends the server; calls that are held back fail."""
        with self._lock:
            self._by_key.clear()
            self._keys.clear()
        self.resume()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Passes one call on; returns the status and the body of the answer, and keeps what was drawn."""
        with self._changed:
            self._changed.wait_for(lambda: not self._paused)
            episode = self._by_key.get(key)
            if episode is None:
                return 403, _error("This episode is over; its key is no longer valid.", "episode_over")
            turn = len(episode.moves) + episode.running
            episode.running += 1
            self._inflight += 1
        move = None
        try:
            status, answer = self._ask(episode, turn, body | {"user": key})
            move = _move(answer, self._version()) if status == 200 else None
        finally:
            with self._changed:
                episode.running -= 1
                episode.moves += [move] if move else []
                self._inflight -= 1
                self._changed.notify_all()
        if status == 200 and move is None:
            return 502, _error("The policy's server returned no token ids.", "no_token_ids")
        return status, answer

    def _ask(self, episode: _Open, turn: int, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked = body.pop("max_completion_tokens", None) or body.pop("max_tokens", None)
        most = min((n for n in (asked, episode.max_tokens) if n is not None), default=None)
        body |= {
            "model": episode.model or body.get("model", ""),
            "temperature": episode.temperature,
            "top_p": 1.0,
            "seed": turn_seed(episode.seed, turn),
            "stream": False,
            "logprobs": True,
            "return_token_ids": True,
        }
        body.pop("stream_options", None)
        url = f"{self._upstream(episode.id).rstrip('/')}/chat/completions"
        try:
            response = self._clients.http.post(url, json=body | ({"max_tokens": most} if most else {}))
            if response.status_code == 400 and most and asked is None:
                # The limit was ours and leaves the prompt no room: the context is the limit then.
                response = self._clients.http.post(url, json=body)
            answer = response.json()
            if response.status_code == 400 and _code(answer) == "context_length_exceeded":
                episode.full = True
            return response.status_code, answer
        except (httpx.HTTPError, ValueError) as error:
            return 502, _error(f"The policy's server did not answer: {type(error).__name__}.", "upstream")


class _Server(ThreadingHTTPServer):
    """A thread a connection; agents keep theirs open."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    relay: Relay


class _Handler(BaseHTTPRequestHandler):
    """One connection of an agent."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        """A chat completion."""
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        except ValueError:
            body = None
        if not self.path.endswith("/chat/completions") or not isinstance(body, dict):
            self._send(404, _error("Only chat completions with a JSON body are known here.", "not_found"))
            return
        streamed = bool(body.get("stream"))
        key = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        status, answer = self.server.relay.answer(key, body)
        if streamed and status == 200:
            self._send(status, chunks(answer), "text/event-stream")
        else:
            self._send(status, answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: keys do not belong in a log."""

    def _send(self, status: int, answer: dict[str, Any] | str, kind: str = "application/json") -> None:
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def chunks(answer: dict[str, Any]) -> str:
    """A whole chat completion as server-sent events: the message in one chunk, then why it ended."""
    choice = answer["choices"][0]
    head = {key: answer.get(key) for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    delta = {key: value for key, value in choice["message"].items() if value is not None}
    if calls := delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls)]
    said = {"index": 0, "delta": delta, "finish_reason": None}
    ended = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    events = [head | {"choices": [said]}, head | {"choices": [ended], "usage": answer.get("usage")}]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def _move(answer: dict[str, Any], version: int) -> RecordedMove | None:
    """What an answer says that was drawn; None if it holds no token ids.

    Our own server says in `system_fingerprint` which weights answered.
    """
    choice = answer["choices"][0]
    told = re.fullmatch(r"weights-(\d+)", answer.get("system_fingerprint") or "")
    logprobs = [row["logprob"] for row in (choice.get("logprobs") or {}).get("content") or []]
    if "prompt_token_ids" not in answer or "token_ids" not in choice:
        return None
    message = choice["message"]
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    )
    return RecordedMove(
        answer["prompt_token_ids"],
        choice["token_ids"],
        logprobs,
        int(told[1]) if told else version,
        finish(choice),
        Turn("assistant", message.get("content") or "", calls),
    )


def finish(choice: dict[str, Any]) -> str:
    """Why a completion ended, in the words of `Move.finish`."""
    reason = choice.get("finish_reason")
    return "stop" if reason == "tool_calls" else str(reason)


def _code(answer: Any) -> str:
    """The code of an error answer."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("code")) if isinstance(error, dict) else ""


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
