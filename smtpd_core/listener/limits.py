"""How many clients at once, how many of one address, and how long a wrong password takes."""

from __future__ import annotations

from typing import Dict

from smtpd_core.tables.matching import parse_network

MAX_PER_CLIENT = 100  # sessions of one address in one process; big senders use some ten
DESCRIPTOR_RESERVE = 5  # as the original keeps back

_IPV6_BITS = 64  # what one customer has at least: its addresses count as one

MAX_GUESSERS = 4096  # addresses remembered; the one seen first is forgotten for a new one
FORGET_SECONDS = 900
DELAY_SECONDS = 1.0  # before a first refusal; twice that for each one more
MAX_DELAY_SECONDS = 16.0  # less than clients wait; five guesses end a session anyway


def sessions_for(descriptors: int, in_use: int) -> int:
    """Give how many sessions a process can have: one descriptor each, and one for its mail."""
    return max((descriptors - in_use) // 2 - DESCRIPTOR_RESERVE, 1)


def client_key(address: str) -> str:
    """Give what the sessions of a client are counted under; nothing for this machine itself.

    The mail of this machine's own programs comes from one address however many they are.
    """
    network = parse_network(address)
    if network is None:
        return ""
    if network.version == 4:
        return "" if network.number >> 24 == 127 else address
    if network.number == 1:
        return ""
    mapped = network.number >> 32
    if mapped == 0xFFFF:
        return str(network.number & 0xFFFFFFFF)
    return f"{network.number >> (128 - _IPV6_BITS):x}/{_IPV6_BITS}"


class Clients:
    """The sessions of each client."""

    def __init__(self, most: int = MAX_PER_CLIENT) -> None:
        """Allow each client so many sessions at once."""
        self._most = most
        self._sessions: Dict[str, int] = {}
        self._refused: Dict[str, int] = {}

    def enter(self, key: str) -> bool:
        """Count a session; False when the client has too many, which are not counted."""
        if not key:
            return True
        count = self._sessions.get(key, 0)
        if count >= self._most:
            self._refused[key] = self._refused.get(key, 0) + 1
            return False
        self._sessions[key] = count + 1
        return True

    def first_refusal(self, key: str) -> bool:
        """Tell whether only one was refused since the client last had all its sessions free."""
        return self._refused.get(key) == 1

    def leave(self, key: str) -> None:
        """End a session that was counted."""
        if not key:
            return
        count = self._sessions[key] - 1
        if count:
            self._sessions[key] = count
        else:
            del self._sessions[key]
            self._refused.pop(key, None)


class Guesses:
    """Who gave wrong passwords lately. Bounded: an attacker has more addresses than we memory."""

    def __init__(self, most: int = MAX_GUESSERS, delay_seconds: float = DELAY_SECONDS) -> None:
        """Remember so many clients; delay_seconds is that of the first failure."""
        self._most = most
        self._delay = delay_seconds
        self._failures: Dict[str, tuple[int, int]] = {}  # key: how many, and when the last was

    def failed(self, key: str, now: int) -> float:
        """Count a failure; give how many seconds its answer is to wait."""
        count = self._count(key, now) + 1
        self._failures.pop(key, None)  # so that the newest stand last
        if len(self._failures) >= self._most:
            del self._failures[next(iter(self._failures))]
        self._failures[key] = (count, now)
        return min(self._delay * (1 << min(count - 1, 10)), MAX_DELAY_SECONDS)

    def succeeded(self, key: str) -> None:
        """Forget a client: somebody who mistyped."""
        self._failures.pop(key, None)

    def _count(self, key: str, now: int) -> int:
        count, last = self._failures.get(key, (0, now))
        return count if now - last <= FORGET_SECONDS else 0
