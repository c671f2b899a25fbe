"""Plays an experiment without a person: every cell (variant, task card, attempt) that is missing becomes a session.

    for ended in play(settings, schedule(settings, Order("support"))):
        …one finalised session after the other…

Whatever is needed is started: runs behind a provider of kind `melete` are served, the gateway is lent, harnesses of
mode `batch` get all their sessions in one process, those of mode `command` a process each. Variants take turns, so that
load and caches are the same for all. A cell that was finalised with the same texts and the same weights is not played
again, so a run that was killed goes on where it ended. Limits: a harness of mode `manual` needs a person; sessions that
were under way at a kill stay open until their time is over, and their cells are played anew.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from melete.bench import attempt, pinned, planned, serving, session
from melete.bench.batch import Answer, Batch, Results
from melete.bench.checkers import Evidence
from melete.bench.exec import Ended
from melete.bench.experiment import Experiment
from melete.bench.folder import Bench
from melete.bench.outcome import Outcome
from melete.bench.pinned import PinnedBench
from melete.bench.session import Opened, Plan
from melete.bench.task_card import Card
from melete.errors import ConfigError, MeleteError, SessionError, UnknownNameError
from melete.gateway import entities, process, sessions
from melete.gateway.provider import Provider
from melete.records import SessionRecord, SessionState
from melete.settings import Settings
from melete.store.database import connect

TOGETHER = 16
"""Most results that are finalised in one transaction."""
PAUSE_S = 0.25


@dataclass(frozen=True)
class Order:
    """What to play.

    Attributes:
        experiment: its name.
        variants: only these; empty is all.
        tasks: the first so many cards of each set; 0 is all.
        attempts: how often each card is played; None is what the experiment says.
        concurrency: sessions at once.
        runs: model to run, instead of the one that the provider file names.
        again: plays cells that were finalised already too.
        device: where served runs compute.
        seed: given to harnesses of mode batch, for draws that an attempt shares between variants.
        run: id of the run that plays, kept with its sessions.
    """

    experiment: str
    variants: tuple[str, ...] = ()
    tasks: int = 0
    attempts: int | None = None
    concurrency: int = 8
    runs: Mapping[str, str] = field(default_factory=dict)
    again: bool = False
    device: str = "auto"
    seed: int = 0
    run: str = ""


@dataclass(frozen=True)
class Cell:
    """One session to play."""

    variant: str
    card: Card
    attempt: int


@dataclass(frozen=True)
class Schedule:
    """The cells of an order in the order in which they are played, and how many were finalised already."""

    order: Order
    bench: PinnedBench
    experiment: Experiment
    cells: list[Cell]
    done: int

    @property
    def variants(self) -> list[str]:
        """Names of the variants that are played."""
        return list(self.order.variants or self.experiment.variants)

    @property
    def providers(self) -> list[Provider]:
        """Providers of these variants, each once."""
        names = {self.bench.variants.read(name).record.provider: None for name in self.variants}
        return [self.bench.providers.read(name).record for name in names]


def schedule(settings: Settings, order: Order) -> Schedule:
    """Looks up what there is to play.

    Raises:
        UnknownNameError: a name that no file and no run has.
        ConfigError: a file is wrong, or a harness needs a person.
    """
    experiment = Bench(settings).experiments.read(order.experiment).record
    unknown = [name for name in order.variants if name not in experiment.variants]
    if unknown:
        raise UnknownNameError(f"variant of {experiment.name}", unknown[0], experiment.variants)
    chosen = list(order.variants or experiment.variants)
    bench = pinned.pin(settings, chosen, order.runs)
    for name in chosen:
        profile = bench.harness_profiles.read(bench.variants.read(name).record.harness_profile).record
        if profile.mode == "manual":
            raise ConfigError(
                f"The variant {name} needs a person: its harness {profile.name} has no command.",
                next_step=f"Play it by hand: melete bench session start --variant {name} --task NAME",
            )
    cells = _cells(bench, experiment, order, chosen)
    done = set() if order.again else _finalised(settings, bench, experiment, chosen)
    missing = [cell for cell in cells if (cell.variant, cell.card.id, cell.attempt) not in done]
    return Schedule(order, bench, experiment, missing, len(cells) - len(missing))


def play(settings: Settings, plan: Schedule) -> Generator[SessionRecord, None, None]:
    """Plays what is missing; yields each session when it is finalised. Closing the iterator ends everything.

    Raises:
        GatewayError: the gateway cannot be started, or another one is up.
        ServerError: a run cannot be served.
        SessionError: a harness died.
        ConfigError: a provider without its key.
    """
    if not plan.cells:
        return
    order = plan.order
    with contextlib.ExitStack() as stack:
        # Three programs start at once: the server of the runs, the harness, and the gateway.
        slots = max(8, order.concurrency)
        served = stack.enter_context(
            serving.serve(settings, plan.providers, device=order.device, slots=slots)
        )
        playing = stack.enter_context(_Playing(settings, plan))
        gateway = stack.enter_context(process.here(settings, served.providers))
        served.wait()
        yield from playing.all(gateway.url)


def play_at(settings: Settings, plan: Schedule, url: str) -> Generator[SessionRecord, None, None]:
    """The same against a gateway that is up at a URL, with models that answer already; see `play`."""
    with _Playing(settings, plan) as playing:
        yield from playing.all(url)


def _cells(bench: PinnedBench, experiment: Experiment, order: Order, variants: Sequence[str]) -> list[Cell]:
    """All cells. Variants take turns, and who begins alternates: what is second finds warmer caches."""
    cards = [card for name in experiment.task_cards for card in bench.cards(name)[: order.tasks or None]]
    return [
        Cell(variant, card, number)
        for number in range(order.attempts or experiment.attempts)
        for place, card in enumerate(cards)
        for variant in (variants if (place + number) % 2 == 0 else reversed(variants))
    ]


def _finalised(
    settings: Settings, bench: PinnedBench, experiment: Experiment, variants: Sequence[str]
) -> set[tuple[str, str, int]]:
    """Cells that were finalised with the texts and weights that are in force now."""
    ids: dict[str, tuple[str, str, str]] = {}
    for name in variants:
        variant = bench.variants.read(name)
        profile = bench.harness_profiles.read(variant.record.harness_profile)
        provider = bench.providers.read(variant.record.provider)
        texts = planned.texts(variant, profile, provider)
        of = {kind: entities.id_of(text["name"], text) for kind, text in texts.items()}
        ids[of["variant"]] = (of["harness_profile"], of["provider"], name)
    cards = {
        entities.id_of(card.id, card.document): card.id
        for n in experiment.task_cards
        for card in bench.cards(n)
    }
    with connect(settings.database) as connection:
        sessions.expire_due(connection)
        known = sessions.list_sessions(
            connection, experiment=experiment.name, state=str(SessionState.FINALISED), limit=1_000_000
        )
    return {
        (ids[str(one.variant)][2], cards[str(one.task_card)], one.attempt)
        for one in known
        if one.task_card in cards
        and str(one.variant) in ids
        and ids[str(one.variant)][:2] == (one.harness_profile, one.provider)
    }


@dataclass
class _Running:
    """A session that is under way; a harness of mode `command` ends its session itself."""

    opened: Opened
    deadline_s: float
    by_batch: bool


class _Playing:
    """The harnesses, what they have under way, and what comes back.

    Args:
        settings: home folder and database.
        plan: what is played.
    """

    def __init__(self, settings: Settings, plan: Schedule) -> None:
        self._settings, self._plan = settings, plan
        self._waiting = deque(plan.cells)
        self._running: dict[str, _Running] = {}
        self._results: Results = queue.SimpleQueue()
        self._batches: dict[str, Batch] = {}
        self._threads = ThreadPoolExecutor(plan.order.concurrency, thread_name_prefix="harness")

    def __enter__(self) -> _Playing:
        for name in self._plan.variants:
            variant = self._plan.bench.variants.read(name).record
            profile = self._plan.bench.harness_profiles.read(variant.harness_profile).record
            if profile.mode == "batch" and profile.name not in self._batches:
                self._batches[profile.name] = Batch(self._settings, profile, self._results)
        return self

    def all(self, url: str) -> Iterator[SessionRecord]:
        """Plays all cells against a gateway; yields sessions as they end."""
        while self._waiting or self._running:
            free = self._plan.order.concurrency - len(self._running)
            if self._waiting and (not self._running or 2 * free >= self._plan.order.concurrency):
                self._begin(url, free)
            yield from self._take()

    def _begin(self, url: str, count: int) -> None:
        """Opens the next sessions and gives them to their harnesses."""
        cells = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        name = self._plan.experiment.name
        plans = [Plan(cell.variant, cell.card.id, name, cell.attempt) for cell in cells]
        metadata = {"run": self._plan.order.run} if self._plan.order.run else {}
        opened = session.start_many(self._settings, plans, url, bench=self._plan.bench, metadata=metadata)
        now_s = time.monotonic()
        for one in opened:
            by_batch = one.profile.name in self._batches
            deadline_s = now_s + one.timeout_s if one.timeout_s else float("inf")
            self._running[one.session.id] = _Running(one, deadline_s, by_batch)
            if not by_batch:
                self._threads.submit(self._play_one, one)
            elif one.card.card.scenario is None:
                attempt.prepare(one)
        for profile, batch in self._batches.items():
            batch.play([one for one in opened if one.profile.name == profile], self._plan.order.seed)

    def _play_one(self, opened: Opened) -> None:
        try:
            ended: SessionRecord | MeleteError = attempt.play(self._settings, opened, quiet=True)[0]
        except MeleteError as error:
            ended = error
        except Exception as error:  # a checker of the user's own
            ended = SessionError(f"Session {opened.session.id} could not be played: {type(error).__name__}.")
        self._results.put((opened.session.id, ended))

    def _take(self) -> Iterator[SessionRecord]:
        """What has come back: outcomes are finalised together, because a transaction costs more than a row."""
        outcomes: dict[str, Outcome] = {}
        ended: list[SessionRecord] = []
        failure: MeleteError | None = None
        for name, came in self._arrived():
            if came is None:
                failure = failure or self._batches[name].died()
                continue
            running = self._running.pop(name, None)
            if running is None:
                continue  # an answer that came too late, or twice
            if isinstance(came, Answer):
                try:
                    outcomes[name] = _judged(running.opened, came)
                except MeleteError as error:  # no sandbox for the checker
                    session.abort(self._settings, name, "could not be judged")
                    failure = failure or error
            elif isinstance(came, MeleteError):
                failure = failure or came
            else:
                ended.append(came)
        now_s = time.monotonic()
        for id in [id for id, one in self._running.items() if one.by_batch and one.deadline_s < now_s]:
            opened = self._running.pop(id).opened
            note = f"not done within {opened.timeout_s:g} s"
            outcomes[id] = Outcome("harness", solved=False, note=note)
        if outcomes:
            ended += session.finalize_many(self._settings, outcomes)
        yield from ended
        if failure is not None:
            raise failure

    def _arrived(self) -> list[Any]:
        arrived = []
        with contextlib.suppress(queue.Empty):
            arrived.append(self._results.get(timeout=PAUSE_S))
            while len(arrived) < TOGETHER:
                arrived.append(self._results.get_nowait())
        return arrived

    def __exit__(self, *_: object) -> None:
        """Aborts what a batch has under way; a harness with a process of its own is waited for, within its time."""
        for id in [id for id, one in self._running.items() if one.by_batch]:
            with contextlib.suppress(MeleteError):
                session.abort(self._settings, id, "the experiment was stopped")
        for batch in self._batches.values():
            batch.close()
        self._threads.shutdown(cancel_futures=True)


def _judged(opened: Opened, answer: Answer) -> Outcome:
    """The outcome of a session of a batch: by the card's checker if it has one, else as the harness says.

    Raises:
        SandboxError: the checker needs the sandbox, which could not be set up.
    """
    if not opened.card.card.checker:
        return answer.outcome
    outcome = attempt.judged(opened, Evidence(opened.workdir, answer.output), Ended(0, "exited", 0.0))
    return replace(outcome, self_reported=answer.outcome.self_reported)
