"""The echo model: answers with what the user said, so that clients and pages can be tried without weights.

`melete serve --model echo` serves it. It has a byte-level tokenizer and our chat layout, and behaves by four rules:

- `call NAME {"json": "arguments"}`, one a line, becomes tool calls (if the request has tools);
- a tool result is answered with `The tool answered: …`;
- any other message is repeated;
- under a constraint (a schema, a forced call) it says what it can of that, else the shortest thing allowed.

Its log-probabilities are 0. It has the engine's interface, not its batching, and nothing in it learns.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from melete.errors import ConfigError
from melete.llm.chat import MeleteChat
from melete.llm.engine import EngineFull, EngineStats, Generation, Sampling, Token
from melete.llm.engine.text import TextSource, TextStream
from melete.llm.lm import LM
from melete.llm.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

CALL = re.compile(r"call ([A-Za-z0-9_.-]+) (\{.*\})")
SPOKEN = ("", "<|bos|>", "<|user|>", "<|tool_result|>")
SHORTEST = b'"}],:0123456789'


def load(context: int = 4096) -> LM:
    """The echo model with one token a byte.

    Args:
        context: most tokens of prompt and answer.
    """
    tokenizer = Tokenizer([bytes([byte]) for byte in range(256)])
    return LM(None, tokenizer, MeleteChat(tokenizer), context, kind="melete", name="echo", source="echo")


@dataclass
class _Row:
    """A request that is being answered."""

    generation: Generation
    script: list[int]
    text: TextStream
    said: int = 0


class EchoEngine:
    """Serves the echo model with the interface of `melete.llm.engine.Engine`.

    Args:
        lm: what `load` returned.
        slots: most requests answered at once.
        waiting: most requests that wait before `submit` raises `EngineFull`.
        interval_s: pause after each step, so that a stream can be watched.
    """

    def __init__(self, lm: LM, *, slots: int = 32, waiting: int = 128, interval_s: float = 0.0) -> None:
        self._lm = lm
        self.context = lm.context
        self._texts = TextSource(lm)
        self._slots = slots
        self._most_waiting = waiting
        self._interval_s = interval_s
        self._waiting: list[_Row] = []
        self._running: list[_Row] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._generated = self._prompted = self._steps = self._swaps = 0

    def start(self) -> None:
        """Starts the thread that answers."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._loop, name="melete-echo", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; what still runs ends as `cancelled`."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for row in [*self._running, *self._waiting]:
            row.generation.finish("cancelled")
        self._running, self._waiting = [], []

    def submit(
        self,
        prompt_ids: list[int],
        sampling: Sampling | None = None,
        on_token: Callable[[Token | None], None] | None = None,
    ) -> Generation:
        """Queues a request.

        Raises:
            ConfigError: the prompt is empty, too long, or has ids outside the vocabulary.
            EngineFull: too many requests wait already.
        """
        if not 0 < len(prompt_ids) < self._lm.context:
            raise ConfigError(f"A prompt of {len(prompt_ids)} tokens does not fit.")
        if not all(0 <= token < self._lm.tokenizer.vocab_size for token in prompt_ids):
            raise ConfigError("The prompt has token ids outside the vocabulary.")
        generation = Generation(prompt_ids, sampling or Sampling(), on_token)
        text = self._texts.stream(generation.sampling.stop)
        assert text is not None
        row = _Row(generation, script(self._lm, prompt_ids), text)
        with self._changed:
            if len(self._waiting) >= self._most_waiting:
                raise EngineFull(len(self._waiting), 1.0)
            self._waiting.append(row)
            self._prompted += len(prompt_ids)
            self._changed.notify()
        return generation

    def swap(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Accepts any weights, as there are none."""
        self._swaps += 1

    def stats(self) -> EngineStats:
        """Counters since the start."""
        return EngineStats(
            len(self._running), len(self._waiting), self._slots, self._steps, self._prompted, 0, self._generated,
            self._swaps,
        )  # fmt: skip

    def _loop(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                while not (self._running or self._waiting or self._stopping.is_set()):
                    self._changed.wait()
                room = self._slots - len(self._running)
                self._running += self._waiting[:room]
                del self._waiting[:room]
            self._running = [row for row in self._running if not self._step(row)]
            self._steps += 1
            if self._interval_s:
                self._stopping.wait(self._interval_s)

    def _step(self, row: _Row) -> bool:
        """One token for one request; whether it has ended."""
        generation, sampling = row.generation, row.generation.sampling
        if generation.cancelled:
            generation.finish("cancelled")
            return True
        wanted = row.script[min(row.said, len(row.script) - 1)]
        if sampling.constraint is not None and (mask := sampling.constraint.mask()) is not None:
            choices = (wanted, self._lm.tokenizer.end, *SHORTEST)
            allowed = next((token for token in choices if mask[token]), None)
            wanted = int(mask.nonzero()[0]) if allowed is None else allowed
        if sampling.constraint is not None:
            sampling.constraint.accept(wanted)
        row.said += 1
        self._generated += 1
        stop_ids = self._lm.chat.stop_ids if sampling.stop_ids is None else sampling.stop_ids
        full = len(generation.prompt_ids) + row.said >= self._lm.context or row.said == sampling.max_tokens
        ended = wanted in stop_ids
        text, stopped = row.text.add(None if ended else wanted, last=ended or full)
        generation.push(Token(wanted, 0.0, ((wanted, 0.0),) if sampling.logprobs else (), text))
        if ended or stopped or full:
            generation.finish("stop" if ended or stopped else "length")
        return generation.finish_reason is not None


def script(lm: LM, prompt_ids: list[int]) -> list[int]:
    """Token ids of the answer to a prompt in our chat layout, by the rules in the head of this file."""
    tokenizer = lm.tokenizer
    special = {token: name for name, token in tokenizer.special.items()}
    blocks: list[tuple[str, list[int]]] = [("", [])]
    for token in prompt_ids:
        if token in special:
            blocks.append((special[token], []))
        else:
            blocks[-1][1].append(token)
    spoken = [(role, tokenizer.decode(ids)) for role, ids in blocks if role in SPOKEN]
    role, text = next((block for block in reversed(spoken) if block[1]), ("", "…"))
    if role == "<|tool_result|>":
        return [*tokenizer.encode(f"The tool answered: {text}"), tokenizer.end]
    calls = [match for line in text.splitlines() if (match := CALL.fullmatch(line.strip()))]
    if calls and any(role == "<|tools|>" for role, _ in blocks):
        ids: list[int] = []
        for call in calls:
            ids += lm.chat.call_start
            ids += tokenizer.encode(f'{{"name":"{call[1]}","arguments":{call[2]}}}')
        return [*ids, tokenizer.end]
    return [*tokenizer.encode(text), tokenizer.end]
