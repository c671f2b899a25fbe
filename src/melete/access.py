"""Who asks, and what they may do: three roles, and one table that says which request needs which.

    read      may look at everything but tokens and the audit log
    operate   may besides use models, submit and steer jobs, write notes
    admin     may besides deploy, roll back, delete, and hand out tokens

The gate in front of the server puts a `Who` into `scope["state"]["who"]`; requests that a page makes in process carry
it on, and the API looks at the same table again. A request without one came through no gate: it is this program's own.
Limits: a role holds for the whole lab, there are no rights for single runs or jobs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

Via = Literal["local", "bearer", "cookie", "episode", "command"]
SAFE = ("GET", "HEAD", "OPTIONS")


class Role(StrEnum):
    """What somebody may do; each may all that the one before may."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what asks for another."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Who:
    """Who makes a request.

    Args:
        name: of their token; `local` for anybody on a machine that asks for none.
        role: what they may do.
        via: how they showed it.
        token_id: of a named token.
    """

    name: str
    role: Role
    via: Via
    token_id: str | None = None


LOCAL = Who("local", Role.ADMIN, "local")
"""Everybody, where no token is asked for: on this machine only."""


@dataclass(frozen=True)
class Rule:
    """Which role a request needs whose whole path matches; `methods` None is any."""

    pattern: str
    role: Role
    methods: tuple[str, ...] | None = None


UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
RULES = (
    Rule(r"/logout", Role.READ),
    Rule(r"(/api/v1|/parts)?/jobs/(check|draft)|(/api/v1)?/processes/[^/]+/job", Role.READ, ("POST",)),
    Rule(r"(/api/v1|/parts|/settings)?/(tokens|audit)(/.*)?", Role.ADMIN),
    Rule(r"(/api/v1)?/deployments(/.*)?", Role.ADMIN, UNSAFE),
    Rule(r"/v1/agents(/[^/]+/rollback)?", Role.ADMIN, UNSAFE),
    Rule(r"/v1/models(/.*)?", Role.OPERATE, UNSAFE),
    Rule(r".*", Role.ADMIN, ("DELETE",)),
    Rule(r".*", Role.READ, SAFE),
    Rule(r".*", Role.OPERATE),
)
"""The first rule that fits says it."""


def needed(method: str, path: str) -> Role:
    """The role that a request needs; a WebSocket is a `GET`."""
    return next(
        rule.role
        for rule in RULES
        if (rule.methods is None or method in rule.methods) and re.fullmatch(rule.pattern, path, re.DOTALL)
    )


def may(who: Who, method: str, path: str) -> bool:
    """Whether somebody may make a request."""
    return who.role.covers(needed(method, path))


def who_of(scope: MutableMapping[str, Any]) -> Who:
    """Who makes the request of an ASGI scope."""
    found = scope.get("state", {}).get("who") or LOCAL
    assert isinstance(found, Who)
    return found


async def still_valid(scope: MutableMapping[str, Any]) -> bool:
    """Whether who opened a connection that stays open may keep it; asked every few seconds.

    The gate leaves a function for that at `scope["state"]["still_valid"]`: no arguments, awaited, True while the token
    or the sign-in that opened the connection opens the lab. Without one, as on free loopback, it may.
    """
    asked: Callable[[], Awaitable[bool]] | None = scope.get("state", {}).get("still_valid")
    return asked is None or await asked()


def put(scope: MutableMapping[str, Any], who: Who) -> None:
    """Says in a scope who makes its request."""
    scope.setdefault("state", {})["who"] = who
