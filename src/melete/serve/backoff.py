"""Back-off after failed sign-ins: a few are free, then each costs a longer wait, per address and for all addresses.

Nobody is made to wait with a connection open: what comes too early is refused with the seconds that are left, without
being looked at. A success forgives its address. Memory is bounded: of too many addresses the oldest are forgotten, and
the wait for all of them together goes on. Only the address of the connection counts, never what a header says.
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE = 5
LONGEST_S = 300.0
FREE_FOR_ALL = 50
LONGEST_FOR_ALL_S = 5.0
FORGOTTEN_S = 900.0
MOST_ADDRESSES = 4_096


@dataclass
class _Count:
    failures: int = 0
    until_s: float = 0.0
    last_s: float = 0.0

    def fail(self, now_s: float, free: int, longest_s: float) -> None:
        """One failure more, and the wait that it costs."""
        if now_s - self.last_s > FORGOTTEN_S:
            self.failures = 0
        self.failures, self.last_s = self.failures + 1, now_s
        if self.failures > free:
            self.until_s = now_s + min(longest_s, 2.0 ** min(self.failures - free - 1, 30))


class Failures:
    """Counts failures. Safe from any thread.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._of: OrderedDict[str, _Count] = OrderedDict()
        self._all = _Count()

    def wait_s(self, address: str) -> int:
        """Whole seconds that an address has to wait; 0 for none."""
        with self._lock:
            own = self._of.get(source(address))
            until_s = max(self._all.until_s, own.until_s if own else 0.0)
            return max(0, math.ceil(until_s - self._clock()))

    def fail(self, address: str) -> None:
        """Counts a failure."""
        with self._lock:
            now_s, key = self._clock(), source(address)
            self._of.setdefault(key, _Count(last_s=now_s)).fail(now_s, FREE, LONGEST_S)
            self._of.move_to_end(key)
            if len(self._of) > MOST_ADDRESSES:
                self._of.popitem(last=False)
            self._all.fail(now_s, FREE_FOR_ALL, LONGEST_FOR_ALL_S)

    def succeed(self, address: str) -> None:
        """Forgives an address."""
        with self._lock:
            self._of.pop(source(address), None)

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._of)


def source(address: str) -> str:
    """What is counted together: an IPv4 address, or the network of 64 bits of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:60]
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
