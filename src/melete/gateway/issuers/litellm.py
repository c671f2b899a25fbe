"""Credentials as virtual keys of a LiteLLM that has a database of its own, made and deleted through its admin API.

For a gateway that somebody else runs, where our hook cannot be installed: its own auth keeps the allow-list, the time
and the budget, and its `LiteLLM_SpendLogs` are collected instead of our events. The key is made here and handed over,
so that its hash is known before LiteLLM answers and the row in our credential table exists before any traffic. LiteLLM
cannot count requests and must not keep content for us: a policy that asks for either is refused.

Requests and answers are those of LiteLLM 1.106 (`GenerateKeyRequest`, `GenerateKeyResponse`, `KeyRequest`); a test
holds them against the real classes.
"""

from __future__ import annotations

import json
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, delete, select, update

from melete.errors import ConfigError, GatewayError, SessionError
from melete.gateway.issuers import Credential, Policy, key_hash, new_key
from melete.gateway.issuers._rows import keep
from melete.gateway.sessions import CREDENTIALS

ROUTES = ("llm_api_routes",)
"""Routes of a key: LiteLLM's name for all calls of models. Without it a key could have every model called."""
TIMEOUT_S = 20.0


class LiteLLMIssuer:
    """Issues virtual keys.

    Args:
        engine: our database, whose credential table joins LiteLLM's rows to sessions by the hash of the key.
        url: address of the LiteLLM, without a path.
        admin_key: its master key, or one that may make keys; never shown.
    """

    name = "litellm"

    def __init__(self, engine: Engine, url: str, admin_key: str) -> None:
        self._engine = engine
        self._url = url.rstrip("/")
        self._admin_key = admin_key

    def issue(
        self, session: str, models: Sequence[str], expires_s: float, policy: Policy | None = None
    ) -> Credential:
        """A new virtual key for a session; see `Issuer.issue`.

        Raises:
            ConfigError: the policy asks for what a virtual key cannot do; or no model is allowed.
            UnknownNameError: there is no such session.
            SessionError: it is over, or would be before the key works.
            GatewayError: LiteLLM refused or does not answer; no key is left behind in our table.
        """
        policy = policy or Policy()
        _check(policy, models)
        lasts_s = math.ceil(expires_s - time.time())
        if lasts_s <= 0:
            raise SessionError(f"The session {session} has no time left, so it gets no key.")
        key = new_key()
        hashed = key_hash(key)
        credential = Credential(key, hashed, f"{session}.{hashed[:8]}", expires_s)
        with self._engine.begin() as connection:
            keep(connection, self.name, session, credential, models, policy)
        try:
            answer = self._post("/key/generate", request_of(credential, session, models, lasts_s, policy))
        except GatewayError:
            with self._engine.begin() as connection:
                connection.execute(delete(CREDENTIALS).where(CREDENTIALS.c.key_hash == hashed))
            raise
        if not {answer.get("key"), answer.get("token"), answer.get("token_id")} & {key, hashed}:
            self.revoke(session)
            raise GatewayError(
                f"The LiteLLM at {self._url} made another key than the one it was given.",
                next_step="Allow keys of one's own there (disable_custom_api_keys), or use the embedded issuer.",
            )
        return credential

    def revoke(self, session: str) -> int:
        """Deletes every virtual key of a session; how many still worked.

        Raises:
            GatewayError: LiteLLM refused or does not answer; they expire on their own.
        """
        alive = (CREDENTIALS.c.session_id == session) & CREDENTIALS.c.revoked_s.is_(None)
        ours = alive & (CREDENTIALS.c.issuer == self.name)
        with self._engine.connect() as connection:
            hashes = list(connection.scalars(select(CREDENTIALS.c.key_hash).where(ours)))
        if not hashes:
            return 0
        self._post("/key/delete", {"keys": hashes}, gone=True)
        with self._engine.begin() as connection:
            of_these = CREDENTIALS.c.key_hash.in_(hashes)
            connection.execute(update(CREDENTIALS).where(of_these).values(revoked_s=time.time()))
        return len(hashes)

    def _post(self, path: str, body: dict[str, Any], *, gone: bool = False) -> dict[str, Any]:
        """Posts to the admin API; with `gone`, 404 is a success, because what was to be deleted is not there."""
        request = urllib.request.Request(
            self._url + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._admin_key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            if gone and error.code == 404:
                return {}
            raise self._refused(path, error.code, error.read(4000)) from None
        except (OSError, ValueError) as error:
            raise GatewayError(
                f"The LiteLLM at {self._url} does not answer ({error.__class__.__name__}).",
                next_step="See that its address is right and that it is up.",
            ) from None
        return answer if isinstance(answer, dict) else {}

    def _refused(self, path: str, status: int, data: bytes) -> GatewayError:
        # What LiteLLM says may repeat the request with the key in it, so only known words of it are passed on.
        text = data.decode("utf-8", "replace").lower()
        if status in (401, 403):
            why, step = "the admin key is not accepted", "Give it the master key of that LiteLLM."
        elif re.search(r"\b(db|database)\b", text):
            why, step = "it has no database, and so no virtual keys", "Use the embedded issuer there."
        elif "alias" in text and "exists" in text:
            why, step = "a key of that alias exists", "Revoke the session's keys first."
        else:
            why, step = "it refused", "See the log of that LiteLLM."
        return GatewayError(f"{self._url}{path} answered {status}: {why}.", next_step=step)


def request_of(
    credential: Credential, session: str, models: Sequence[str], lasts_s: int, policy: Policy
) -> dict[str, Any]:
    """Body of `/key/generate`; the session stands in alias and metadata, because tags are not free."""
    body: dict[str, Any] = {
        "key": credential.key,
        "key_alias": credential.alias,
        "duration": f"{lasts_s}s",
        "models": list(models),
        "allowed_routes": list(ROUTES),
        "metadata": {"session_id": session, "issuer": "melete"},
    }
    return body if policy.budget_usd is None else {**body, "max_budget": policy.budget_usd}


def _check(policy: Policy, models: Sequence[str]) -> None:
    # LiteLLM reads an empty list of models as all of them.
    if not models or any(name in ("*", "all-proxy-models", "all-team-models") for name in models):
        raise ConfigError("A virtual key needs the names of the models that it may call.")
    asked = [name for name, on in (("content", policy.content), ("max_requests", policy.max_requests)) if on]
    if asked:
        raise ConfigError(
            f"A virtual key of LiteLLM cannot do what the experiment asks for: {', '.join(asked)}.",
            allowed="It can hold a session to its models, its time and its budget.",
            next_step="Leave that out, or use the embedded issuer.",
        )
