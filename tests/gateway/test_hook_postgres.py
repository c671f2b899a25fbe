"""A real proxy on a real PostgreSQL that is stopped under it: known sessions go on, and nothing of them is lost."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway_at_hand import lend, need_litellm, providers, rows, settings_in
from melete.gateway import process
from melete.gateway.echo.server import Echo
from melete.gateway.issuers.embedded import EmbeddedIssuer
from melete.store import database
from postgres_at_hand import empty, server

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.xdist_group("gateway")]

SAID = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


def test_postgres_that_goes_away_stops_no_known_session_and_loses_nothing(tmp_path: Path) -> None:
    with server() as running, Echo() as upstream:
        settings = settings_in(tmp_path, MELETE_DATABASE=running.url)
        need_litellm(settings)
        empty(running.url)
        known, unknown, revoked = (lend(settings, ("echo",)) for _ in range(3))
        with process.here(settings, providers(upstream.url)) as gateway:

            def ask(headers: dict[str, str]) -> int:
                url = f"{gateway.url}/v1/chat/completions"
                return httpx.post(url, json=SAID, headers=headers, timeout=60).status_code

            assert [ask(known.headers), ask(revoked.headers)] == [200, 200]
            with database.opened(running.url) as engine:
                EmbeddedIssuer(engine).revoke(revoked.id)
            assert ask(revoked.headers) == 401
            running.stop()
            assert [ask(known.headers), ask(unknown.headers), ask(revoked.headers)] == [200, 503, 503]
            running.start()
            assert [ask(known.headers), ask(unknown.headers), ask(revoked.headers)] == [200, 200, 401]
        assert [row["status"] for row in rows(settings, known.id, 3)] == ["ok"] * 3
        assert [row["status"] for row in rows(settings, unknown.id, 1)] == ["ok"]
