"""A world for relaying: a queue, a resolver and tables in memory, and a clock that stands."""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from smtpd_core.config.model import Config, RelayAction, SocketListener
from smtpd_core.config.problems import Place
from smtpd_core.config.settings import MtaLimits, SrsSettings
from smtpd_core.dns.exchangers import Exchanger, Exchangers, Verdict
from smtpd_core.dns.reverse import ClientName, Confirmation
from smtpd_core.mta.contexts import Contexts
from smtpd_core.mta.relay import Mta, Services
from smtpd_core.queue.envelope import Envelope
from smtpd_core.routing.rules import Failure
from tests.fakes.certificates import client_context
from tests.fakes.loop import run, until
from tests.fakes.smtp_peer import Peer, serving

if TYPE_CHECKING:
    from smtpd_core.mail.status import Outcome

HERE = Place("smtpd.conf", 1)
NOW = 1_700_000_000
AT_ONCE = MtaLimits(conn_delay_route=0, conn_delay_relay=0, reconn_delay_route=0)
BODY = b"Subject: x\n\nHello\n.dot\n"


@dataclass
class FakeQueue:
    """Messages by id; what was reported, held and released."""

    messages: dict[int, bytes] = field(default_factory=dict)
    reports: dict[int, Outcome] = field(default_factory=dict)
    passed_on: set[int] = field(default_factory=set)  # the peer reports
    held: list[tuple[int, str]] = field(default_factory=list)
    released: list[tuple[str, int]] = field(default_factory=list)
    opener: Optional[Callable[[], int]] = None  # opens, or raises, in place of messages

    async def open_message(self, msgid: int) -> int:
        if self.opener is not None:
            return self.opener()
        with tempfile.TemporaryFile() as file:
            file.write(self.messages.get(msgid, BODY))
            file.seek(0)
            return os.dup(file.fileno())

    def report(self, evpid: int, outcome: Outcome, *, peer_reports: bool = False) -> None:
        assert evpid not in self.reports, "two outcomes of one attempt"
        self.reports[evpid] = outcome
        if peer_reports:
            self.passed_on.add(evpid)

    def hold(self, evpid: int, holdq: str) -> None:
        self.held.append((evpid, holdq))

    def release(self, holdq: str, count: int) -> None:
        self.released.append((holdq, count))


@dataclass
class FakeResolver:
    """Domains and hosts by name."""

    domains: dict[str, Exchangers] = field(default_factory=dict)
    hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    nameless: bool = False  # names of addresses never come

    async def mx(self, domain: str) -> Exchangers:
        if self.silent:
            await asyncio.Event().wait()
        missing = Exchangers(Verdict.PERMANENT, text="Domain does not exist")
        return self.domains.get(domain, missing)

    async def host(self, name: str) -> Exchangers:
        addresses = self.hosts.get(name)
        if addresses is None:
            return Exchangers(Verdict.TEMPORARY, text="Host not found")
        return Exchangers(Verdict.FOUND, (Exchanger(0, name, addresses),))

    async def ptr(self, address: str) -> ClientName:
        if self.nameless:
            await asyncio.Event().wait()
        name = self.names.get(address, "<unknown>")
        return ClientName(name, Confirmation.PASS)


@dataclass
class FakeLookups:
    """Tables: lists of entries that are given in turn, and dicts."""

    tables: dict[str, Any] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)

    def fetch(self, table: str, _service: str, key: str) -> Union[str, Failure, None]:
        found = self.tables.get(table, Failure(f"no table {table}"))
        return found if isinstance(found, Failure) else found.get(key)

    def pick(self, table: str, _service: str) -> Union[str, Failure, None]:
        found = self.tables.get(table, Failure(f"no table {table}"))
        if isinstance(found, Failure) or not found:
            return found or None
        turn = self.turns[table] = self.turns.get(table, -1) + 1
        entry: Union[str, Failure] = found[turn % len(found)]
        return entry


class FakeStats(dict[str, int]):
    """Counters."""

    def add(self, key: str, by: int = 1) -> None:
        self[key] = self.get(key, 0) + by


class World:
    """Relaying with everything around it."""

    def __init__(self, *actions: RelayAction, **settings: Any) -> None:
        contexts = Contexts(client_context(), client_context(verify=False))
        self.config = Config(
            settings.pop("name", "here.example"),
            SocketListener(HERE),
            actions={action.name: action for action in actions},
            mta=settings.pop("limits", AT_ONCE),
            **settings,
        )
        self.queue = FakeQueue()
        self.resolver = FakeResolver()
        self.lookups = FakeLookups()
        self.stats = FakeStats()
        self.now = NOW
        self.lines: list[str] = []
        self.mistakes: list[BaseException] = []
        self.rescheduled: list[int] = []
        self.own: set[tuple[str, int]] = set()
        ids = count(0xABC)
        self.mta = Mta(
            self.config,
            dict.fromkeys(self.config.actions, contexts),
            Services(
                queue=self.queue,
                resolver=self.resolver,
                lookups=self.lookups,
                stats=self.stats,
                clock=lambda: self.now,
                new_id=lambda: next(ids),
                log=lambda _, line: self.lines.append(line),
                confess=self.mistakes.append,
                is_own=lambda address, port: (address, port) in self.own,
                reschedule=self.rescheduled.append,
            ),
        )
        self.handed = 0

    def relay(self, dest: str = "d@there.example", *, msgid: int = 0, **values: Any) -> int:
        """Hand over an envelope; give its id."""
        self.handed += 1
        evpid = (msgid or self.handed) << 32 | self.handed
        action = next(iter(self.config.actions))
        values = {"dispatcher": action, "sender": "s@here.example", "ctime": NOW - 65, **values}
        self.mta.relay(evpid, Envelope(**{"type": "mta", "rcpt": dest, "dest": dest, **values}))
        return evpid

    async def outcomes(self) -> list[str]:
        """Wait for the outcome of every envelope handed over and not held; spell them."""
        await until(lambda: len(self.queue.reports) + len(self.queue.held) >= self.handed)
        return [
            f"{each.result.value} {each.status} {each.text}"
            for _, each in sorted(self.queue.reports.items(), key=lambda pair: pair[0] & 0xFFFFFFFF)
        ]

    async def one(self, dest: str = "d@there.example", **values: Any) -> str:
        """Hand over one envelope; give its outcome."""
        evpid = self.relay(dest, **values)
        await until(lambda: evpid in self.queue.reports)
        each = self.queue.reports[evpid]
        return f"{each.result.value} {each.status} {each.text}"

    async def close(self, timeout_seconds: float = 5) -> None:
        """End relaying; nothing may be left."""
        await self.mta.close(timeout_seconds)
        assert not self.mistakes
        left = ("mta.envelope", "mta.task", "mta.task.running", "mta.session")
        assert [self.stats.get(key, 0) for key in left] == [0, 0, 0, 0]
        connections = [route.connections for route in self.mta.limits.routes.values()]
        assert not any(connections)


def smarthost(url: str = "", name: str = "out", **options: Any) -> RelayAction:
    """Make an action that relays to the table `hosts`, or to MX when url is empty."""
    return RelayAction(name, HERE, host="hosts" if url else None, **options)


KEY = "a key"  # of sender rewriting


def raising(error: Exception) -> Callable[[], int]:
    """Make an opener that fails."""

    def raise_it() -> int:
        raise error

    return raise_it


def world_for(peer: Peer, scheme: str = "smtp", host: str = "mx.example", **options: Any) -> World:
    """Make a world whose one action leads to a peer; limits are no option of the action."""
    settings: dict[str, Any] = {"limits": options.pop("limits", AT_ONCE)}
    if options.get("srs"):
        settings["srs"] = SrsSettings(KEY)
    world = World(smarthost("yes", **options), **settings)
    world.lookups.tables["hosts"] = [f"{scheme}://{host}:{peer.port}"]
    world.resolver.hosts[host] = (peer.host,)
    world.resolver.names[peer.host] = "mx.example"
    return world


def play(peer: Peer, act: Callable[[World, Peer], Any], **options: Any) -> World:
    """Run one act in a world with one peer; nothing may be left of it."""

    async def whole() -> World:
        async with serving(peer):
            world = world_for(peer, **options)
            await act(world, peer)
            await world.close()
            return world

    world: World = run(whole())
    return world
