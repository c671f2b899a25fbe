"""One real gateway and one scripted upstream for all tests of a worker: LiteLLM takes some ten CPU seconds to start.

A file that uses it says `pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]`, so that its tests share
one worker. The gateway lives in a home of its own until the worker ends:

    from gateway_at_hand import at_hand

    def test_...() -> None:
        hand = at_hand()                       # skips where LiteLLM is not there
        lent = hand.session()                  # a live session with a key: lent.id, lent.key
        httpx.post(f"{hand.url}/v1/chat/completions", headers=lent.headers, json={"model": "echo", ...})

Models: `echo` (the scripted upstream as an OpenAI server), `echo-chat` (the same, but only its chat completions are
used), `echo-messages` (the same as an Anthropic server).
"""

from __future__ import annotations

from dataclasses import dataclass

from melete.gateway.process import Gateway
from melete.settings import Settings

MODELS = ("echo", "echo-chat", "echo-messages")


@dataclass(frozen=True)
class Lent:
    """A session that is live, and its key."""

    id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@dataclass(frozen=True)
class AtHand:
    """A gateway that is up, and the upstream behind it."""

    settings: Settings
    gateway: Gateway
    upstream_url: str

    @property
    def url(self) -> str:
        return self.gateway.url

    def session(self, models: tuple[str, ...] = MODELS, *, expires_in_s: float = 600.0) -> Lent:
        """Opens a session and issues its key."""
        raise NotImplementedError


def at_hand() -> AtHand:
    """The gateway of this worker, started by whoever asks first."""
    raise NotImplementedError
