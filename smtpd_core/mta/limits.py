"""How many connections may be open, how soon the next one, and which routes are in disgrace.

Theory of operation. A connection belongs to a domain, a relay, a source, a connector (a source
and a relay), a host (an address) and a route (a source, an address and a port; the original
forgets the port, so that trouble at one of a host's ports shuts all). Each has a Tally: open
connections, and when the last one was made. `choose` answers one of three:

- a Route: connect there, and say so with `connect`;
- Wait: some limit is reached; ask again in so many seconds, or when a connection has ended;
- Obstacle: no route is left; waiting does not help as long as nothing changes.

A route is new until a session on it was ready for mail. A new route has one connection. When
that one fails, the route is disabled for 15 seconds times the square of its penalty, which goes
up by one each time and down by one when it is enabled again. A route that was good before is
disabled when connections fail MAX_ERRORS times without a mail between them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from smtpd_core.config.settings import MtaLimits
    from smtpd_core.mta.targets import Hop, Relay

PENALTY_SECONDS = 15
MAX_PENALTY_SECONDS = 3600
MAX_ERRORS = 4  # sessions in a row that failed on a route that was good before
RETRY_SECONDS = 5  # at most, between two looks at limits
FORGET_SECONDS = 3600  # after its last use, what has no connection and no penalty
SWEEP_SECONDS = 60  # between two looks for what can be forgotten
MAX_BLOCKS = 10_000
SMTP_PORT = 25


class Limit(enum.Enum):
    """What has to be waited for, in the words of `show relays`."""

    HOST = "LIMIT_HOST"
    ROUTE = "LIMIT_ROUTE"
    SOURCE = "LIMIT_SOURCE"
    RELAY = "LIMIT_RELAY"
    CONNECTOR = "LIMIT_CONN"
    DOMAIN = "LIMIT_DOMAIN"


class Trouble(enum.Enum):
    """Why there is no route; the text is what envelopes are told. The gravest comes first."""

    ROUTE_SMTP = "Destination seem to reject all mails"
    ROUTE_NET = "Network error on destination MXs"
    MX = "No MX found for destination"
    FAMILY = "Address family mismatch on destination MXs"
    BLOCKED = "All routes to destination blocked"
    SOURCE = "No valid route to destination"


class Wait(NamedTuple):
    """Ask again after so many seconds, or when a connection ends if that is sooner."""

    seconds: int
    limit: Limit


class Obstacle(NamedTuple):
    """No route; reason is what the last connection on one of them died of, or empty."""

    trouble: Trouble
    reason: str = ""


@dataclass
class Tally:
    """Connections of one thing."""

    connections: int = 0
    last_connect: int = 0
    last_disconnect: int = 0
    name: str = ""  # of a host, as its address resolves

    def idle_since(self) -> int:
        """Give the time of its last use."""
        return max(self.last_connect, self.last_disconnect)


@dataclass
class Route(Tally):
    """One way to one port of one host."""

    ident: int = 0
    source: str = ""
    address: str = ""
    port: int = 0
    is_new: bool = True
    errors: int = 0  # sessions in a row that failed since a mail went through
    penalty: int = 0
    disabled_until: int = 0  # 0 while enabled
    trouble: Trouble = Trouble.ROUTE_NET
    reason: str = ""

    @property
    def end(self) -> tuple[str, int]:
        """Give the address and port it leads to."""
        return self.address, self.port

    def __str__(self) -> str:
        """Spell it as logs and `show routes` do; the port where it is not the usual one."""
        name = f" ({self.name})" if self.name else ""
        port = f":{self.port}" if self.port != SMTP_PORT else ""
        return f"{bracket_source(self.source)} <-> {bracketed(self.address)}{port}{name}"


def bracketed(address: str) -> str:
    """Spell an address so that a port can follow."""
    return f"[{address}]" if ":" in address else address


def bracket_source(source: str) -> str:
    """Spell a source, where none is an empty pair."""
    return bracketed(source) if source else "[]"


@dataclass(frozen=True)
class Way:
    """A connector: which relay, from where, under which limits."""

    relay: Relay
    source: str
    limits: MtaLimits

    @property
    def domain(self) -> tuple[str, bool]:
        """Give the key of its domain."""
        return self.relay.domain, self.relay.is_host


@dataclass
class _Tallies:
    """Tallies of one kind, made when they are asked for."""

    known: dict[Hashable, Tally] = field(default_factory=dict)

    def of(self, key: Hashable) -> Tally:
        tally = self.known.get(key)
        if tally is None:
            tally = self.known[key] = Tally()
        return tally

    def forget(self, before: int) -> None:
        for key, tally in list(self.known.items()):
            if not tally.connections and tally.idle_since() < before:
                del self.known[key]


class Limits:
    """All connections of one process."""

    def __init__(self) -> None:
        """Begin without connections."""
        self.hosts = _Tallies()
        self.sources = _Tallies()
        self.domains = _Tallies()
        self.relays = _Tallies()
        self.connectors = _Tallies()
        self.routes: dict[tuple[str, str, int], Route] = {}
        self.blocks: set[tuple[str, str]] = set()
        self._disabled: set[tuple[str, str, int]] = set()
        self._next_ident = 1
        self._looked = -1
        self._swept = 0

    # Choosing.

    def choose(self, way: Way, hops: Sequence[Hop], now: int) -> Union[Route, Wait, Obstacle]:
        """Find the route of the next connection: the least busy one of the best preference."""
        if self._is_blocked(way):
            return Obstacle(Trouble.BLOCKED)
        return self._crowded(way, now) or self._choose_route(way, hops, now)

    def _crowded(self, way: Way, now: int) -> Optional[Wait]:
        """Look at the limits that do not depend on a host."""
        limits = way.limits
        checks = (
            (self.domains.of(way.domain), limits.max_conn_per_domain, limits.conn_delay_domain),
            (self.sources.of(way.source), limits.max_conn_per_source, limits.conn_delay_source),
            (
                self.connectors.of((way.source, way.relay)),
                limits.max_conn_per_connector,
                limits.conn_delay_connector,
            ),
            (self.relays.of(way.relay), limits.max_conn_per_relay, limits.conn_delay_relay),
        )
        kinds = (Limit.DOMAIN, Limit.SOURCE, Limit.CONNECTOR, Limit.RELAY)
        for limit, (tally, most, delay) in zip(kinds, checks):
            seconds = _busy(tally, most, delay, now)
            if seconds:
                return Wait(seconds, limit)
        return None

    def _choose_route(
        self, way: Way, hops: Sequence[Hop], now: int
    ) -> Union[Route, Wait, Obstacle]:
        best: Optional[Route] = None
        wait: Optional[Wait] = None
        obstacle = Obstacle(Trouble.MX)
        level: Optional[int] = None
        for hop in sorted(hops, key=lambda hop: hop.preference):
            if hop.preference != level:
                if best is not None or wait is not None:
                    break  # a worse preference is for when the better one has nothing at all
                level = hop.preference
            found = self._judge(way, hop, now)
            if isinstance(found, Route):
                if best is None or found.connections < best.connections:
                    best = found
            elif isinstance(found, Wait):
                wait = found if wait is None else min(wait, found, key=lambda each: each.seconds)
            else:
                obstacle = _graver(obstacle, found)
        return best or wait or obstacle

    def _judge(self, way: Way, hop: Hop, now: int) -> Union[Route, Wait, Obstacle]:
        """Tell whether a connection to one host may be made now."""
        limits = way.limits
        family = 6 if ":" in hop.address else 4
        if limits.family not in (0, family) or (
            way.source and (":" in way.source) != (family == 6)
        ):
            return Obstacle(Trouble.FAMILY)
        seconds = _busy(
            self.hosts.of(hop.address), limits.max_conn_per_host, limits.conn_delay_host, now
        )
        if seconds:
            return Wait(seconds, Limit.HOST)
        route = self.route(way.source, hop)
        if route.disabled_until > now:
            return Obstacle(route.trouble, route.reason)
        if route.is_new and route.connections:
            return Wait(RETRY_SECONDS, Limit.ROUTE)
        seconds = _busy(route, limits.max_conn_per_route, limits.conn_delay_route, now)
        if not seconds and route.last_disconnect:
            seconds = min(route.last_disconnect + limits.reconn_delay_route - now, RETRY_SECONDS)
        return Wait(seconds, Limit.ROUTE) if seconds > 0 else route

    def route(self, source: str, hop: Hop) -> Route:
        """Give the route to a host, made when it is new."""
        key = (source, hop.address, hop.port)
        route = self.routes.get(key)
        if route is None:
            route = self.routes[key] = Route(
                ident=self._next_ident, source=source, address=hop.address, port=hop.port
            )
            self._next_ident += 1
        return route

    # What became of connections.

    def connect(self, way: Way, route: Route, now: int) -> None:
        """Count a connection that is being made."""
        for tally in self._tallies(way, route):
            tally.connections += 1
            tally.last_connect = now

    def ready(self, route: Route) -> None:
        """Note that a session on a route is ready for mail."""
        route.is_new = False

    def delivered(self, route: Route) -> None:
        """Note that a mail went through."""
        route.errors = 0

    def disconnect(self, way: Way, route: Route, now: int, reason: Optional[str] = None) -> int:
        """Count the end of a connection; a reason says that it failed.

        Return for how many seconds that disables the route; 0 when it does not.
        """
        for tally in self._tallies(way, route):
            tally.connections -= 1
            tally.last_disconnect = now
        if reason is None:
            return 0
        route.reason = reason
        route.errors += 1
        if route.is_new or route.errors >= MAX_ERRORS:
            return self._disable(route, Trouble.ROUTE_NET, now)
        return 0

    def reject(self, route: Route, reason: str, now: int) -> int:
        """Disable the route of a host that takes no mail at all; return for how many seconds."""
        route.reason = reason
        return self._disable(route, Trouble.ROUTE_SMTP, now)

    def _disable(self, route: Route, trouble: Trouble, now: int) -> int:
        route.penalty += 1
        route.trouble = trouble
        seconds = min(PENALTY_SECONDS * route.penalty**2, MAX_PENALTY_SECONDS)
        route.disabled_until = now + seconds
        self._disabled.add((route.source, route.address, route.port))
        return seconds

    def sweep(self, now: int) -> list[Route]:
        """Enable routes whose time has come, and forget what is long unused; give the former."""
        enabled: list[Route] = []
        if now == self._looked:  # it is asked for much more often than things change
            return enabled
        self._looked = now
        for key in list(self._disabled):
            route = self.routes[key]
            if route.disabled_until <= now:
                self._enable(route)
                route.penalty -= 1
                enabled.append(route)
        if now - self._swept >= SWEEP_SECONDS:
            self._swept = now
            self._forget(now - FORGET_SECONDS)
        return enabled

    def _enable(self, route: Route) -> None:
        route.disabled_until = 0
        route.is_new = True
        route.errors = 0
        self._disabled.discard((route.source, route.address, route.port))

    def _forget(self, before: int) -> None:
        for tallies in (self.hosts, self.sources, self.domains, self.relays, self.connectors):
            tallies.forget(before)
        for key, route in list(self.routes.items()):
            used = route.connections or key in self._disabled
            if not used and route.idle_since() < before:
                del self.routes[key]

    def _tallies(self, way: Way, route: Route) -> tuple[Tally, ...]:
        return (
            self.domains.of(way.domain),
            self.sources.of(way.source),
            self.connectors.of((way.source, way.relay)),
            self.relays.of(way.relay),
            self.hosts.of(route.address),
            route,
        )

    # What an operator does.

    def resume(self, ident: int) -> list[Route]:
        """Enable the disabled route of that number, or all when it is 0; give those."""
        resumed = []
        for key in list(self._disabled):
            route = self.routes[key]
            if ident in (0, route.ident):
                self._enable(route)
                route.penalty = 0
                resumed.append(route)
        return resumed

    def block(self, source: str, domain: str) -> bool:
        """Block a domain for a source; False when too many are blocked already."""
        if len(self.blocks) >= MAX_BLOCKS:
            return False
        self.blocks.add((source, domain.lower()))
        return True

    def unblock(self, source: str, domain: str) -> None:
        """Undo a block; one that is not there is undone already."""
        self.blocks.discard((source, domain.lower()))

    def _is_blocked(self, way: Way) -> bool:
        return (way.source, way.relay.domain) in self.blocks or (way.source, "") in self.blocks


def _busy(tally: Tally, most: int, delay: int, now: int) -> int:
    """Give how many seconds to wait because of one tally; 0 when there is no need to."""
    if tally.connections >= most:
        return RETRY_SECONDS
    if delay and tally.last_connect:
        return max(0, min(tally.last_connect + delay - now, RETRY_SECONDS))
    return 0


_GRAVITY = list(Trouble)


def _graver(one: Obstacle, other: Obstacle) -> Obstacle:
    """Give the obstacle to tell of: any says more than that there is no MX at all."""
    if one.trouble is Trouble.MX:
        return other
    return min(one, other, key=lambda each: _GRAVITY.index(each.trouble))


def gravest(obstacles: Sequence[Obstacle]) -> Obstacle:
    """Give the one of several sources' obstacles that envelopes are told."""
    return min(obstacles, key=lambda each: _GRAVITY.index(each.trouble))
