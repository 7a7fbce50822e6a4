"""What `show hosts`, `show relays`, `show routes`, `show hoststats` and the blocks print.

One line each, in the original's form. Routes and hosts of one address and several ports stand
apart, since they are apart. Source: smtpctl(8) of OpenSMTPD 7.8.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from smtpd_core.mta.limits import Route, Tally, Trouble, bracket_source, bracketed
from smtpd_core.mta.lines import delay_text
from smtpd_core.text import escape

if TYPE_CHECKING:
    from smtpd_core.mta.relay import Mta
    from smtpd_core.mta.work import Work

MAX_LINE = 2047  # characters; the original cuts there

_FLAGS = {
    Trouble.FAMILY: "ERROR_FAMILY",
    Trouble.SOURCE: "ERROR_SOURCE",
    Trouble.MX: "ERROR_MX",
    Trouble.ROUTE_NET: "ERROR_ROUTE_NET",
    Trouble.ROUTE_SMTP: "ERROR_ROUTE_SMTP",
    Trouble.BLOCKED: "ERROR_BLOCKED",
}


def _ago(when: int, now: int) -> str:
    return delay_text(now - when) if when else "-"


def _until(when: int, now: int) -> str:
    return delay_text(when - now) if when > now else "-"


def _cut(line: str) -> str:
    return escape(line)[:MAX_LINE]


def hosts(mta: Mta) -> list[str]:
    """Give a line for each host, by address."""
    now = mta.services.clock()
    used: dict[str, int] = {}
    for route in mta.limits.routes.values():
        used[route.address] = used.get(route.address, 0) + 1
    known = {str(address): tally for address, tally in mta.limits.hosts.known.items()}
    return [
        _cut(
            f"{address} {tally.name or '(null)'} refcount={used.get(address, 0)}"
            f" nconn={tally.connections} lastconn={_ago(tally.last_connect, now)}"
        )
        for address, tally in sorted(known.items(), key=lambda each: _order(each[0]))
    ]


def _order(address: str) -> tuple[int, bytes]:
    packed = ip_address(address.partition("%")[0]).packed
    return len(packed), packed


def routes(mta: Mta) -> list[str]:
    """Give a line for each route, by number."""
    now = mta.services.clock()
    known = sorted(mta.limits.routes.values(), key=lambda route: route.ident)
    return [
        _cut(
            f"{route.ident}. {route} {_route_flags(route, now)} nconn={route.connections}"
            f" nerror={route.errors} penalty={route.penalty}"
            f" timeout={_until(route.disabled_until, now)}"
        )
        for route in known
    ]


def _route_flags(route: Route, now: int) -> str:
    return ("N" if route.is_new else "-") + ("D" if route.disabled_until > now else "-") + "--"


def relays(mta: Mta) -> list[str]:
    """Give a line for each relay, and one for each of its connectors."""
    now = mta.services.clock()
    spelled = []
    for work in mta.works.values():
        tally = mta.limits.relays.of(work.relay)
        waits = ["MX"] if work.is_preparing else []
        waits += ["limits"] if work.wait is not None else []
        waits += ["connector"] if work.obstacles else []
        spelled.append(
            _cut(
                f"{work.relay} refcount={1 + len(work.sessions)} ntask={len(work.backlog)}"
                f" nconn={tally.connections} lastconn={_ago(tally.last_connect, now)}"
                f" timeout={_until(work.wait_until, now)} wait={','.join(waits)}"
                f"{'ONHOLD' if work.backlog.on_hold else ''}"
            )
        )
        spelled += [_connector(mta, work, source, now) for source in sorted(work.sources)]
    return spelled


def _connector(mta: Mta, work: Work, source: str, now: int) -> str:
    tally = mta.limits.connectors.known.get((source, work.relay), Tally())
    flags = [_FLAGS[work.obstacles[source].trouble]] if source in work.obstacles else []
    flags += [work.wait.limit.value] if work.wait is not None else []
    return _cut(
        f"  connector {bracket_source(source)} refcount=0 nconn={tally.connections}"
        f" lastconn={_ago(tally.last_connect, now)} timeout=- flags={','.join(flags)}"
    )


def hoststats(mta: Mta) -> list[str]:
    """Give a line for each domain mail was tried to in the last hours."""
    entries = mta.hoststats.entries(mta.services.clock())
    return [_cut(f"{domain}|{last.when}|{last.text}") for domain, last in entries]


def blocks(mta: Mta) -> list[str]:
    """Give a line for each block."""
    return [
        _cut(f"{bracketed(source) or '[]'} -> {domain or '*'}")
        for source, domain in sorted(mta.limits.blocks)
    ]
