"""Records what a practising agent's model wrote: prompt ids, drawn ids and log-probabilities, behind a key per episode.

An agent of any framework is given a base URL and a key, and talks to the server as to any other. A server that was made
with a `Recorder` (the training process does, `melete serve` does not) knows the keys that were opened with it: a
completion of such a key is sampled as practice wants it (temperature, nothing cut off by top-k, top-p or a grammar, a
seed that follows from the episode's seed and the turn) and kept token by token, streamed or whole. The answer itself
looks like any other. Where a conversation goes on from a recorded turn, the prompt goes on from the drawn ids, so that
an episode is one sequence of tokens even if the client has written the turn's JSON anew. When an episode is closed its
key is refused and what still runs is cancelled, so an agent that was given up cannot go on. Requests with other keys
are not touched.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from melete.records import Conversation, ToolCall, Turn
from melete.serve import problems
from melete.serve.problems import Problem
from melete.serve.schema import ChatRequest

if TYPE_CHECKING:
    from melete.llm.lm import LM
    from melete.serve.models import ServedModel
    from melete.serve.plan import Choice, Plan

PREFIX = "rollout-"
LEAST_ROOM = 8
"""Tokens that a turn must have room for; an episode that has filled its context ends where it is."""
OPEN_TO_ROLLOUTS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/models"})
"""Paths that the key of an episode opens on a server that asks for a token."""


@dataclass(frozen=True)
class RecordedMove:
    """One completion as it was drawn.

    Attributes:
        prompt_ids: what the model read.
        response_ids: what it drew, the token that ended its turn included.
        logprobs: natural-log probability of each drawn token at temperature 1.
        policy_version: version of the weights when it began.
        finish: `stop` or `length`.
        turn: the same as the agent reads it.
        conversation: what the prompt was made of; None for a plain completion.
        begun_s: when it was asked for, in seconds since the epoch; `first_s` when its first token came, `ended_s` when
            it ended.
        cached: tokens of the prompt that were not computed again.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    logprobs: list[float]
    policy_version: int
    finish: str
    turn: Turn
    conversation: Conversation | None = None
    begun_s: float = 0.0
    first_s: float = 0.0
    ended_s: float = 0.0
    cached: int = 0


def turn_seed(episode_seed: int, turn: int) -> int:
    """Seed of one turn of an episode, from 0 to 2**31 - 1; every way to play an episode draws by it."""
    digest = hashlib.blake2b(f"{episode_seed}:{turn}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1


@dataclass
class EpisodeRecord:
    """What an open episode has said so far; the server's side of one key."""

    key: str
    seed: int
    temperature: float
    max_tokens: int | None
    model: str | None
    moves: list[RecordedMove] = field(default_factory=list)
    running: list[Choice] = field(default_factory=list)
    closed: bool = False
    full: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, make: Callable[[ServedModel, Any], Plan], model: ServedModel, asked: Any) -> Plan:
        """Makes a request of this episode ready, sampled as practice wants it; it is recorded from now on.

        Raises:
            Problem: what `make` raises, no room is left in the context, or the episode has been closed meanwhile.
        """
        limits = [name for name in ("max_completion_tokens", "max_tokens") if hasattr(asked, name)]
        limit = self.max_tokens or next(filter(None, (getattr(asked, name) for name in limits)), None)
        try:
            # A limit that does not fit the context is no reason to refuse: practice has its own.
            plan = make(model, asked.model_copy(update=dict.fromkeys(limits)))
            said = asked.conversation() if isinstance(asked, ChatRequest) else None
            prompt = self._continued(model.lm, said) if said and not plan.dropped else None
            prompts = [choice.prompt_ids if prompt is None else prompt for choice in plan.choices]
            room = model.lm.context - max(map(len, prompts))
            if room < LEAST_ROOM:
                raise problems.context_too_long(
                    max(map(len, prompts)), LEAST_ROOM, model.lm.context, plan.param
                )
        except Problem as problem:
            self.full = self.full or problem.code == "context_length_exceeded"
            raise
        with self.lock:
            if self.closed:
                raise episode_over()
            turn = len(self.moves) + len(self.running)
            for i, choice in enumerate(plan.choices):
                choice.prompt_ids, choice.conversation, choice.version = prompts[i], said, model.version
                choice.sampling = replace(
                    choice.sampling,
                    temperature=self.temperature,
                    top_k=0,
                    top_p=1.0,
                    max_tokens=min(room, limit or room),
                    seed=turn_seed(self.seed, turn + i),
                    logprobs=choice.sampling.logprobs or 0,
                    constraint=None,
                )
                self.running.append(choice)
        plan.episode = self
        return plan

    def keep(self, choice: Choice) -> None:
        """Keeps a choice that has ended well."""
        generation = choice.generation
        assert generation is not None
        said, calls = (choice.parser.content, choice.parser.calls) if choice.parser else (choice.text, [])
        with self.lock:
            self._leave(choice)
            if not self.closed:
                self.moves.append(
                    RecordedMove(
                        generation.prompt_ids,
                        list(generation.token_ids),
                        list(generation.logprobs),
                        choice.version,
                        str(generation.finish_reason),
                        Turn("assistant", said, tuple(calls)),
                        choice.conversation,
                        generation.begun_s,
                        generation.first_s,
                        generation.ended_s,
                        generation.cached_tokens,
                    )
                )

    def drop(self, choices: list[Choice]) -> None:
        """Forgets choices that were refused or left by their client; ended ones are kept."""
        with self.lock:
            for choice in choices:
                self._leave(choice)

    def close(self) -> list[RecordedMove]:
        """Ends the episode: what still runs is cancelled and not recorded."""
        with self.lock:
            self.closed = True
            for choice in self.running:
                if choice.generation is not None:
                    choice.generation.cancel()
            return self.moves

    def _continued(self, lm: LM, said: Conversation) -> list[int] | None:
        """The prompt of a conversation that goes on from a recorded turn; None if it does not."""
        for move in reversed(self.moves):
            before = move.conversation
            if before is None or before.tools != said.tools:
                continue
            length = len(before.turns)
            answered = said.turns[length + 1 :]
            if (
                len(said.turns) > length
                and all(map(_same, before.turns, said.turns))
                and _same(move.turn, said.turns[length])
                and all(turn.role != "assistant" for turn in answered)
            ):
                return follow(lm, move.prompt_ids, move.response_ids, answered)
        return None

    def _leave(self, choice: Choice) -> None:
        self.running = [other for other in self.running if other is not choice]


def follow(lm: LM, prompt: list[int], drawn: list[int], answered: Sequence[Turn]) -> list[int] | None:
    """The prompt after a turn that was drawn, token by token; None if the chat format cannot be continued like this.

    Args:
        lm: its chat format.
        prompt: what the turn was drawn after.
        drawn: its ids. A turn that ended by beginning another role's ends like any other.
        answered: what came back: results of its calls, or what the person said.
    """
    tail = lm.chat.follow(answered)
    if tail is None:
        return None
    body = drawn[:-1] if drawn and drawn[-1] in lm.chat.stop_ids else drawn
    return [*prompt, *body, lm.chat.stop_ids[0], *tail]


def _same(one: Turn, other: Turn) -> bool:
    """Whether two turns say the same, however their JSON is written."""
    if (one.role, one.content, len(one.tool_calls)) != (other.role, other.content, len(other.tool_calls)):
        return False
    return all(map(_same_call, one.tool_calls, other.tool_calls))


def _same_call(one: ToolCall, other: ToolCall) -> bool:
    if one.name != other.name:
        return False
    try:
        return one.arguments == other.arguments or json.loads(one.arguments) == json.loads(other.arguments)
    except ValueError:
        return False


def episode_over() -> Problem:
    """What a request with the key of a closed episode gets; clients do not try again on it."""
    return Problem(403, "This episode is over; its key is no longer valid.", code="episode_over")


class Recorder:
    """The keys of the episodes that are being played, and what was said with each. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[str, EpisodeRecord] = {}
        self._by_key: dict[str, EpisodeRecord] = {}

    def open(
        self,
        episode_id: str,
        seed: int,
        temperature: float = 1.0,
        max_tokens: int | None = None,
        model: str | None = None,
    ) -> str:
        """Begins an episode and returns its key, which nobody can guess.

        Args:
            episode_id: name of the episode; it must not be open already.
            seed: from which the seed of each turn follows.
            temperature: of all its completions, whatever the agent asks for.
            max_tokens: most tokens of one completion, None for as many as the agent asks for.
            model: id of the model that answers, whatever name the agent asks for; None leaves it to the agent.
        """
        key = f"{PREFIX}{quote(episode_id, safe='')}-{secrets.token_urlsafe(16)}"
        record = EpisodeRecord(key, seed, temperature, max_tokens, model)
        with self._lock:
            assert episode_id not in self._by_id, f"episode {episode_id} is open already"
            self._by_id[episode_id] = self._by_key[key] = record
        return key

    def close(self, episode_id: str) -> list[RecordedMove]:
        """Ends an episode and returns its completions in the order in which they ended; its key is refused from now."""
        with self._lock:
            record = self._by_id.pop(episode_id)
            del self._by_key[record.key]
        return record.close()

    def moves(self, episode_id: str) -> list[RecordedMove]:
        """Completions of an open episode so far; none if it is not open."""
        record = self._by_id.get(episode_id)
        return list(record.moves) if record else []

    def full(self, episode_id: str) -> bool:
        """Whether a completion of an open episode was refused because its context is full."""
        record = self._by_id.get(episode_id)
        return record is not None and record.full

    def knows(self, key: str) -> bool:
        """Whether a key belongs to an open episode."""
        return key in self._by_key

    def episode(self, key: str) -> EpisodeRecord | None:
        """The open episode of a key."""
        return self._by_key.get(key)


def bearer(authorization: str | None) -> str:
    """The key in an `Authorization` header; empty if there is none."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
