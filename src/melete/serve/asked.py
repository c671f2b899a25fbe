"""What a request says of where it comes from: its address, our cookie, and which page a browser made it for.

A browser tells with `Origin` and `Sec-Fetch-Site` whose page makes a request, and no page can change that; programs
send neither. Headers that proxies add are not looked at.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.types import Scope

from melete.access import SAFE

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SIGN_IN = "/login"
SIGN_OUT = "/logout"


@dataclass(frozen=True)
class Asked:
    """What of a request the gate looks at.

    Args:
        method: `GET` for a WebSocket.
        path: as the application sees it.
        headers: lower-case name to value, the last one of a name.
        address: of the other end of the connection.
        socket: whether it is a WebSocket.
        secure: whether the browser speaks TLS, to us or to a proxy.
    """

    method: str
    path: str
    headers: dict[str, str]
    address: str
    socket: bool
    secure: bool

    @classmethod
    def of(cls, scope: Scope) -> Asked:
        """What a scope says."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client = scope.get("client")
        secure = scope.get("scheme") in ("https", "wss") or headers.get("origin", "").startswith("https:")
        socket = scope["type"] == "websocket"
        method = "GET" if socket else str(scope["method"])
        return cls(method, str(scope["path"]), headers, client[0] if client else "", socket, secure)

    @property
    def host(self) -> str:
        """The `Host` header."""
        return self.headers.get("host", "")

    @property
    def cookie_name(self) -> str:
        """Name of our cookie: one for each port, because browsers send cookies to all ports of a host."""
        port = self.host.rpartition(":")[2]
        return f"melete_{port}" if port.isdigit() else "melete"

    @property
    def cookie(self) -> str | None:
        """What our cookie holds."""
        try:
            found = SimpleCookie(self.headers.get("cookie", "")).get(self.cookie_name)
        except CookieError:
            return None
        return found.value if found is not None else None

    @property
    def wants_json(self) -> bool:
        """Whether a script asks, which shows what is wrong itself."""
        return "application/json" in self.headers.get("accept", "")

    @property
    def page(self) -> bool:
        """Whether a browser asks for a page to show, not a script for a part of one."""
        accepts = "text/html" in self.headers.get("accept", "")
        return accepts and "hx-request" not in self.headers and self._mode in ("", "navigate")

    @property
    def foreign(self) -> bool:
        """Whether a browser says that a page of another site makes this request."""
        origin = self.headers.get("origin")
        if origin is not None:
            return urlsplit(origin).netloc.lower() != self.host.lower()
        site = self.headers.get("sec-fetch-site", "")
        followed_link = self.method in SAFE and self._mode == "navigate" and not self.socket
        return site in ("cross-site", "same-site") and not followed_link

    @property
    def own(self) -> bool:
        """Whether a browser says that a page of this server makes this request."""
        from_here = "origin" in self.headers or self.headers.get("sec-fetch-site") == "same-origin"
        return from_here and not self.foreign

    @property
    def _mode(self) -> str:
        return self.headers.get("sec-fetch-mode", "")


def same_site(where: str | None) -> str:
    """A path of this server to go back to; `/` in place of anything that could lead elsewhere."""
    if not where or len(where) > 2_000 or not where.startswith("/") or not where.isprintable():
        return "/"
    if where.startswith(("//", SIGN_IN)) or "\\" in where:
        return "/"
    return where


def is_local(address: str) -> bool:
    """Whether the other end of a connection is this machine; a connection in process has no address of a network."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return True
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
