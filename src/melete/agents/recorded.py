"""Keeps rollouts as sessions and requests, in the rows that the gateway keeps for any harness, without a proxy between.

An episode is a session of kind `rollout` that has ended, each completion in it one request with its own times and
tokens; what was said is not kept. So practice and proof are read with the same commands, and `melete bench compare
NAME/before NAME/after` compares the two exams of a run. The variant of an exam is `<run>/<when>` (with the decoding,
where it is not free), that of a practised episode `<run>/v<policy version>`; the experiment is `<run>/<split>`.

Episodes wait until a batch is full, because a transaction costs more than a row; a kill loses the last batch of these
rows, never practice itself. Where the database or the disk does not take them, the run says so once and goes on
without. Limits: a local model has no price, so no request has a cost; a hub that does not tell when a completion began
gives requests without times of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from melete.agents.play import result
from melete.errors import MeleteError
from melete.gateway.events import Event, event_id
from melete.gateway.spool import SpoolWriter
from melete.records import SessionState

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from melete.agents.hub import Episode, Move
    from melete.agents.scenario import Task
    from melete.runs.run import Run
    from melete.settings import Settings

Record = Literal["all", "exams", "none"]
"""Which rollouts of practice are kept: all, those before and after it, or none."""
BATCH = 512
"""Episodes that are written together."""
PROVIDER = "melete"
PROVIDER_DOCUMENT = {
    "name": PROVIDER,
    "kind": PROVIDER,
    "description": "The model itself, in the process that practises.",
}


@dataclass(frozen=True)
class _Ended:
    """An episode that waits to be written, with the names of what it belongs to."""

    episode: Episode
    variant: str
    parameters: tuple[tuple[str, Any], ...]
    ended_s: float


@dataclass
class Recording:
    """See the head of this file.

    Args:
        run: whose rollouts they are.
        settings: database and spool.
        scenario: name of what is played.
        model: name of the model that plays.
        framework: whose agent plays; empty is the model itself.
    """

    run: Run
    settings: Settings
    scenario: str
    model: str
    framework: str = ""
    _waiting: list[_Ended] = field(default_factory=list)
    _ids: dict[tuple[str, str], str] = field(default_factory=dict)
    _attempts: dict[tuple[str, str], int] = field(default_factory=dict)
    _spool: SpoolWriter | None = None
    _name: str = ""
    _failed: bool = False

    def keep(self, episodes: Sequence[Episode], variant: str, **parameters: Any) -> None:
        """Takes episodes that have ended; they are written when enough have come, or at `flush`.

        Args:
            episodes: of one policy, or, where the variant is empty, each of the oldest version that wrote a part of it.
            variant: such as `before`; the run's name is put before it.
            **parameters: what else the variant was told, such as `decoding`.
        """
        now_s = time.time()
        given = tuple(sorted(parameters.items()))
        for episode in episodes:
            name = variant or f"v{episode.oldest_version}"
            self._waiting.append(_Ended(episode, name, given, now_s))
        if len(self._waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        waiting, self._waiting = self._waiting, []
        if not waiting or self._failed or self.run.silent:
            return
        try:
            with self.run.timed("recording rollouts"):
                self._write(waiting)
        except (MeleteError, OSError) as error:
            self._failed = True
            self.run.say(f"The rollouts of this run are no longer recorded as sessions: {error}")

    def _write(self, waiting: Sequence[_Ended]) -> None:
        from melete.gateway import sessions
        from melete.store.database import connect

        if self._spool is None:
            self._spool = SpoolWriter(self.settings.gateway / "spool")
            self._name = _name_of(self.run)
        with connect(self.settings.database) as connection:
            self._know_tasks(connection, [ended.episode.task for ended in waiting])
            opened = sessions.open_many(connection, [self._session(connection, ended) for ended in waiting])
        for session, ended in zip(opened, waiting, strict=True):
            for number, move in enumerate(ended.episode.moves):
                at_s = move.begun_s or float(session.started_s or 0.0)
                self._spool.write(_event(session.id, number, move, at_s, self.model, self._spool.writer))

    def _session(self, connection: Connection, ended: _Ended) -> dict[str, Any]:
        """The row of a session."""
        episode, task = ended.episode, ended.episode.task
        came = result(episode)
        began_s = next(
            (move.begun_s for move in episode.moves if move.begun_s), ended.ended_s - episode.seconds
        )
        last_s = max((move.ended_s for move in episode.moves), default=0.0) or ended.ended_s
        variant = self._variant(connection, ended)
        card = self._ids["task_card", _card_name(task)]
        return {
            "kind": "rollout",
            "state": SessionState.FINALISED,
            "experiment": self._experiment(connection, task.split),
            "variant": variant,
            "task_card": card,
            "attempt": self._attempt(variant, card),
            "harness_profile": self._harness(connection),
            "provider": self._entity(connection, "provider", PROVIDER, PROVIDER_DOCUMENT),
            "model": self.model,
            "created_s": began_s,
            "started_s": began_s,
            "ended_s": last_s,
            "solved": came.solved,
            "score": came.score,
            "outcome_source": "harness",
            "outcome_note": came.note or None,
            "metadata": {"run": self.run.id, "episode": episode.id, "self_reported": came.self_reported},
        }

    def _attempt(self, variant: str, card: str) -> int:
        count = self._attempts.get((variant, card), 0)
        self._attempts[variant, card] = count + 1
        return count

    def _variant(self, connection: Connection, ended: _Ended) -> str:
        name = f"{self._name}/{ended.variant}"
        parameters = {"run": self.run.id, "policy": ended.variant, **dict(ended.parameters)}
        document = {
            "name": name, "harness_profile": self._harness_name, "provider": PROVIDER, "model": self.model,
            "parameters": parameters,
        }  # fmt: skip
        return self._entity(connection, "variant", name, document)

    def _experiment(self, connection: Connection, split: str) -> str:
        name = f"{self._name}/{split}"
        variants = [f"{self._name}/before", f"{self._name}/after"]
        document = {
            "name": name,
            "description": f"Rollouts of {self.scenario}, split {split}, by the run {self.run.id}.",
            "variants": variants, "baseline": variants[0], "task_cards": [f"{self.scenario}/{split}"],
        }  # fmt: skip
        return self._entity(connection, "experiment", name, document)

    @property
    def _harness_name(self) -> str:
        return f"rollout_{self.framework}" if self.framework else "rollout"

    def _harness(self, connection: Connection) -> str:
        how = (
            f"an agent of {self.framework}"
            if self.framework
            else "the model itself, straight through the engine"
        )
        document = {
            "name": self._harness_name,
            "description": f"Rollouts of practice by {how}.",
            "mode": "batch",
        }
        return self._entity(connection, "harness_profile", self._harness_name, document)

    def _entity(self, connection: Connection, kind: str, name: str, document: dict[str, Any]) -> str:
        from melete.gateway import entities

        if (kind, name) not in self._ids:
            self._ids[kind, name] = entities.record(connection, kind, name, document)
        return self._ids[kind, name]

    def _know_tasks(self, connection: Connection, tasks: Sequence[Task]) -> None:
        for task in tasks:
            name = _card_name(task)
            where = {"scenario": task.scenario, "split": task.split, "id": task.id}
            self._entity(connection, "task_card", name, {"name": name, "scenario": where})


def _card_name(task: Task) -> str:
    return f"{task.scenario}/{task.id}"


def _name_of(run: Run) -> str:
    """What people call a run: its name, or its name within a job, or its id."""
    assert run.folder is not None
    file = run.folder / "run.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return str(record.get("name") or record.get("step_name") or run.id)


def _event(session: str, number: int, move: Move, at_s: float, model: str, writer: str) -> Event:
    """One completion as an event that has everything a request's row has."""
    request = f"{session}.{number}"
    ended_s = move.ended_s or at_s
    failed = move.finish in ("error", "cancelled")
    fields: dict[str, Any] = {
        "source": "rollout",
        "endpoint": "chat",
        "stream": False,
        "model_asked": model,
        "model_answered": f"{model}@{move.policy_version}",
        "provider": PROVIDER,
        "status": "error" if failed else "ok",
        "attempts": 1,
        "started_s": at_s,
        "ended_s": ended_s,
        "tokens_in": len(move.prompt_ids),
        "tokens_cached": move.cached,
        "tokens_out": len(move.response_ids),
        "tokens_estimated": False,
        "cost_source": "none",
        "tool_calls": move.calls,
        "finish_reason": "tool_calls" if move.calls else move.finish,
    }
    if failed:
        fields["error_class"] = "interrupted" if move.finish == "cancelled" else "provider_error"
    if move.begun_s:
        fields["latency_ms"] = 1000 * (ended_s - at_s)
        if move.first_s:
            fields["ttft_ms"] = 1000 * (move.first_s - at_s)
    return Event("end", event_id(request, "end"), request, session, ended_s, writer, fields)
