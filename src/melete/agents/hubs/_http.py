"""An HTTP client for each thread: in one that all share, threads wait for its pool longer than the calls take."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from functools import cache

import httpx


class Clients(threading.local):
    """What `http` is in a thread is that thread's own client, made at its first use.

    Args:
        headers: sent with every request.
        timeout_s: longest wait for an answer.
    """

    def __init__(self, headers: Mapping[str, str], timeout_s: float) -> None:
        self.http = httpx.Client(headers=headers, timeout=timeout_s, verify=_context(), trust_env=False)


@cache
def _context() -> ssl.SSLContext:
    """Made once, as it takes longer than many requests."""
    return ssl.create_default_context()
