"""What has to be done every second beside LiteLLM, in a thread of the supervisor; and our page of metrics.

The spool is read into the database, sessions whose time is over are ended, and now and then what is past its retention
is deleted. A database that is away is tried again later; nothing is lost meanwhile, because the spool keeps it all.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from melete.errors import ServerError
from melete.gateway import logs
from melete.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from melete.gateway.exporter import Exporter

EVERY_S = 1.0
TROUBLED_S = 5.0
PURGE_S = 60.0
METRICS_PORT = 9464
"""Port of our page of metrics, that of OpenTelemetry's exporters; a free one where it is taken."""


class Housekeeping:
    """The thread and the page, for a `with` block.

    Attributes:
        metrics_url: of our page of metrics.

    Raises:
        StorageError: the database cannot be used.
    """

    def __init__(self, settings: Settings, log: logs.Log) -> None:
        self._settings, self._log = settings, log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self.metrics_url = ""
        self._exporter: Exporter | None = None
        self._purged_s = 0.0

    def __enter__(self) -> Housekeeping:
        from melete.gateway import exporter

        try:
            self._exporter = exporter.serve(self._settings, METRICS_PORT)
        except ServerError:
            self._exporter = exporter.serve(self._settings, 0)
        self.metrics_url = self._exporter.url
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Does the work once more, then stops."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join(60)
            if self._exporter is not None:
                self._exporter.close()

    def _run(self) -> None:
        from melete.store import database

        engine = database.open_engine(self._settings.database)
        troubled = False
        last = False
        while not last:
            last = self._stop.wait(TROUBLED_S if troubled else EVERY_S)
            try:
                self._once(engine)
                if troubled:
                    self._log.say("the database is back")
                troubled = False
            # The boundary of the thread: whatever it was, the next turn tries again.
            except Exception as error:
                if not troubled:
                    self._log.say(f"housekeeping waits: {error.__class__.__name__}")
                troubled = True
        engine.dispose()

    def _once(self, engine: Engine) -> None:
        from melete.gateway import retention, sessions
        from melete.gateway.collectors import contents, spool

        folder, kept = self._settings.gateway / "spool", self._settings.gateway / "content"
        spool.collect_into(engine, folder)
        contents.collect_into(engine, kept)
        with engine.begin() as connection:
            sessions.expire_due(connection)
        if time.monotonic() - self._purged_s > PURGE_S:
            self._purged_s = time.monotonic()
            retention.purge_contents(engine)
            retention.purge_segments(engine, folder)
            retention.purge_segments(engine, kept, keep_s=PURGE_S, under_writers=True)
