"""Asks the keyring without holding up the server, counts wrong tokens, and writes the audit log.

The database is asked in a thread. What it cannot say now is a 503: nobody passes who would have to be looked up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from melete.access import Via, Who
from melete.errors import StorageError
from melete.serve import audited
from melete.serve.asked import Asked, is_local
from melete.serve.backoff import Failures
from melete.serve.keyring import Keyring
from melete.serve.problems import Problem
from melete.store import tokens
from melete.store.audit import Entry

log = logging.getLogger("melete.serve")


class Porter:
    """Says whose a secret is.

    Args:
        keys: which secrets there are.
        clock: seconds that never go back.
    """

    def __init__(self, keys: Keyring, clock: Callable[[], float]) -> None:
        self.keys = keys
        self._failures = Failures(clock)

    async def is_free(self, asked: Asked) -> bool:
        """Whether anybody may come: from this machine, where no token has been set or made.

        Raises:
            Problem: nobody can say now.
        """
        if not is_local(asked.address):
            return False
        asks = self.keys.asks()
        if asks is None:
            try:
                asks = await asyncio.to_thread(self.keys.look_whether_it_asks)
            except StorageError as error:
                raise _nobody_knows(error) from error
        return not asks

    async def look_up(self, secret: str, via: Via) -> Who | None:
        """Whose a token or a cookie is; None if it opens nothing.

        Raises:
            Problem: nobody can say now.
        """
        known, who = self.keys.believed(secret, via)
        if known:
            return who
        try:
            return await asyncio.to_thread(self.keys.look_up, secret, via)
        except StorageError as error:
            raise _nobody_knows(error) from error

    async def bearer(self, key: str, asked: Asked) -> Who:
        """Whose token it is. One that could be guessed is not even looked at while its address has to wait.

        Raises:
            Problem: it is wrong, or comes too early.
        """
        ours = self.keys.named and key.startswith(tokens.PREFIX)
        if not ours:
            self._hold_up(asked)
        who = await self.look_up(key, "bearer")
        if who is None:
            self._hold_up(asked)
            raise await self._wrong(asked, "The token is wrong.")
        if not ours:
            self._failures.succeed(asked.address)
        return who

    async def sign_in(self, secret: str, asked: Asked) -> tuple[Who, str]:
        """Signs a browser in with a token or the link; returns who it is and what the cookie is to hold.

        Raises:
            Problem: it is wrong, comes too early, or nobody can say now.
        """
        self._hold_up(asked)
        browser = asked.headers.get("user-agent", "")
        try:
            found = await asyncio.to_thread(self.keys.sign_in, secret, asked.address, browser)
        except StorageError as error:
            raise _nobody_knows(error) from error
        if found is None:
            raise await self._wrong(asked, "That is not a token of this lab. Look at 'melete token list'.")
        self._failures.succeed(asked.address)
        await self.write(asked, found[0], 200, "sign-in.begin")
        return found

    async def sign_out(self, asked: Asked, who: Who | None) -> None:
        """Ends the sign-in of a browser, if it has one.

        Raises:
            Problem: the database does not answer.
        """
        if asked.cookie and who is not None and who.via == "cookie":
            try:
                await asyncio.to_thread(self.keys.sign_out, asked.cookie)
            except StorageError as error:
                raise _nobody_knows(error) from error
            await self.write(asked, who, 200, "sign-in.end")

    async def write(
        self, asked: Asked, who: Who | None, status: int, action: str = "", target: str | None = None
    ) -> None:
        """Adds to the audit log; without an action, what the path says."""
        if not self.keys.named:
            return
        named, found = (action, "") if action else audited.named(asked.method, asked.path)
        entry = Entry(
            time_s=time.time(),
            who=who.name if who else "",
            role=str(who.role) if who else "",
            via=who.via if who else "",
            address=asked.address,
            method=asked.method,
            path=asked.path,
            status=status,
            action=named,
            target=found if target is None else target,
        )
        try:
            await asyncio.to_thread(self.keys.write, entry)
        except StorageError as error:
            log.warning("%s of %s is not in the audit log: %s", named, entry.who or "nobody", error.found)

    def _hold_up(self, asked: Asked) -> None:
        wait_s = self._failures.wait_s(asked.address)
        if wait_s:
            raise Problem(
                429,
                f"Too many wrong tokens. Wait {wait_s} s before the next try.",
                code="too_many_failures",
                headers={"Retry-After": str(wait_s)},
            )

    async def _wrong(self, asked: Asked, said: str) -> Problem:
        self._failures.fail(asked.address)
        await self.write(asked, None, 401, "sign-in.failed")
        return Problem(401, said, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _nobody_knows(error: StorageError) -> Problem:
    return Problem(503, str(error), code="storage", headers={"Retry-After": "2"})
