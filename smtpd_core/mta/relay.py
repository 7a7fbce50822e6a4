"""Envelopes to connections to outcomes.

Theory of operation. `Mta.relay` is handed due envelopes, one by one. Each finds its Relay (see
targets), and joins the Work of that relay: tasks that wait, sessions that run. A Work first
prepares (credentials, sources, hosts), then opens connections as Limits allow: one more whenever
tasks wait that no session is there for. A session takes one task after the other. When no route
is left and no session lives, every waiting task fails at once, with the reason of the last
failure; the queue decides when to try again.

Each envelope that was handed over ends in exactly one of: report (an Outcome) or hold (the relay
has enough; it is handed over again after a release). That holds when a session breaks, when the
program has a mistake, and at the end: `close` lets running mails finish for a while, and reports
the rest as temporary failures.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Protocol, Union

from smtpd_core import ask
from smtpd_core.config.model import RelayAction
from smtpd_core.mail.srs import Keys
from smtpd_core.mail.status import Outcome, Result
from smtpd_core.mta import lines
from smtpd_core.mta.hoststats import HostStats
from smtpd_core.mta.limits import Limits
from smtpd_core.mta.lines import NOWHERE, Here
from smtpd_core.mta.stored import stored_relay
from smtpd_core.mta.targets import Ask, Relay, choose_relay, temporary
from smtpd_core.mta.task import Item
from smtpd_core.mta.visit import SHUTTING_DOWN
from smtpd_core.mta.work import Work
from smtpd_core.routing.stored import action_of, is_spelled_out, without_missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smtpd_core.config.model import Config
    from smtpd_core.dns.exchangers import Exchangers
    from smtpd_core.dns.reverse import ClientName
    from smtpd_core.mta.contexts import Contexts
    from smtpd_core.mta.targets import TableAnswer
    from smtpd_core.queue.envelope import Envelope
    from smtpd_core.routing.rules import Failure


class QueueService(Protocol):
    """What relaying asks of the queue."""

    async def open_message(self, msgid: int) -> int:
        """Give a descriptor of the plain text of a message."""

    def report(self, evpid: int, outcome: Outcome, *, peer_reports: bool = False) -> None:
        """Take the outcome of an attempt."""

    def hold(self, evpid: int, holdq: str) -> None:
        """Keep an envelope until its hold queue is released."""

    def release(self, holdq: str, count: int) -> None:
        """Hand over so many held envelopes again, or all when count is 0."""


class Resolver(Protocol):
    """What relaying asks of the DNS."""

    async def mx(self, domain: str) -> Exchangers:
        """Find the hosts of a domain."""

    async def host(self, name: str) -> Exchangers:
        """Find one host."""

    async def ptr(self, address: str) -> ClientName:
        """Find the name of an address."""


class Lookups(Protocol):
    """What relaying asks of tables."""

    def fetch(self, table: str, service: str, key: str) -> Union[str, Failure, None]:
        """Give the value of a key."""

    def pick(self, table: str, service: str) -> Union[str, Failure, None]:
        """Give the next entry."""


class Stats(Protocol):
    """Where counters live."""

    def add(self, key: str, by: int = 1) -> None:
        """Count; by may be negative."""


def _never_own(_address: str, _port: int) -> bool:
    return False


def _reschedule_nothing(_evpid: int) -> None:
    """Leave an envelope to its own schedule."""


@dataclass(frozen=True)
class Services:
    """What relaying needs of the daemon around it.

    clock is seconds since the epoch; new_id draws session ids; log takes a level and a line, and
    confess a mistake of our own. is_own tells whether we listen at an address and port;
    reschedule asks for an envelope that failed before its time.
    """

    queue: QueueService
    resolver: Resolver
    lookups: Lookups
    stats: Stats
    clock: Callable[[], int]
    new_id: Callable[[], int]
    log: Callable[[str, str], None]
    confess: Callable[[BaseException], None]
    is_own: Callable[[str, int], bool] = _never_own
    reschedule: Callable[[int], None] = _reschedule_nothing


class Mta:
    """All relaying of one process; make it where its event loop runs."""

    def __init__(
        self, config: Config, contexts: Mapping[str, Contexts], services: Services
    ) -> None:
        """Go by a configuration; contexts are those of contexts.prepare."""
        self.services = services
        self.limits = Limits()
        self.works: dict[Relay, Work] = {}
        self.hoststats = HostStats(config.mta_max_deferred)
        self.closing = False
        self._sizes: dict[str, int] = {}
        self.reconfigure(config, contexts)

    def reconfigure(self, config: Config, contexts: Mapping[str, Contexts]) -> None:
        """Go by another configuration from the next envelope on."""
        self.config = config
        self.contexts = contexts
        keys = config.srs
        self.srs_keys = Keys(keys.key, keys.backup_key or "") if keys.key else None

    # Envelopes.

    def relay(self, evpid: int, envelope: Envelope) -> None:
        """Take a due envelope; see the module for how it ends."""
        item = Item(evpid, envelope)
        self.services.stats.add("mta.envelope")
        found = self._find_relay(envelope)
        if isinstance(found, Outcome):
            self.settle(item, found, NOWHERE)
            return
        work = self.works.get(found)
        if work is None:
            work = self.works[found] = Work(self, found, self.contexts[found.action.name])
            self.services.stats.add("mta.relay")
        work.add(item)

    def _find_relay(self, envelope: Envelope) -> Union[Relay, Outcome]:
        if self.closing:
            return temporary(SHUTTING_DOWN, "4.3.2")
        action = action_of(envelope, self.config.actions)
        if not isinstance(action, RelayAction) or action.name not in self.contexts:
            return temporary(f"No relay action {envelope.dispatcher}", "4.3.5")
        if is_spelled_out(envelope):
            return stored_relay(envelope, without_missing(action, self.config.tables))
        domain = envelope.dest.rpartition("@")[2]
        found = ask.answer(choose_relay(action, domain, self.config.name), self.answer)
        if isinstance(found, Outcome):
            self.services.log("warn", f"warn: smtp-out: {found.text} (action {action.name})")
        return found

    def answer(self, question: Ask) -> TableAnswer:
        """Answer a question of targets from the tables."""
        lookups = self.services.lookups
        if question.key is None:
            found = lookups.pick(question.table, question.service)
        else:
            found = lookups.fetch(question.table, question.service, question.key)
        if found is not None and not isinstance(found, str):
            what = "smarthost" if question.service == "relayhost" else question.service
            self.services.log("warn", f"warn: Failed to parse {what} {found.why}")
        return found

    def settle(self, item: Item, found: Outcome, here: Here, *, peer_reports: bool = False) -> None:
        """Report an outcome, log it, and remember it for its domain."""
        services, now = self.services, self.services.clock()
        services.log("info", lines.delivery(here, item.evpid, item.envelope, found, now))
        services.stats.add("mta.envelope", -1)
        domain = item.envelope.dest.rpartition("@")[2]
        self.hoststats.note(domain, found.text, now)
        services.queue.report(item.evpid, found, peer_reports=peer_reports)
        if found.result is Result.DELIVERED:
            for evpid in self.hoststats.better(domain):
                services.reschedule(evpid)

    # What goes on around works.

    def sweep(self) -> None:
        """Enable routes whose time has come."""
        for route in self.limits.sweep(self.services.clock()):
            self.services.log("info", lines.enabling(str(route)))

    def forget(self, work: Work) -> None:
        """Drop a work that has nothing left to do."""
        if self.works.get(work.relay) is work:
            del self.works[work.relay]
            self.services.stats.add("mta.relay", -1)

    def count_objects(self) -> None:
        """Tell the counters how many objects there are of each kind."""
        limits = self.limits
        sizes = {
            "mta.domain": len(limits.domains.known),
            "mta.host": len(limits.hosts.known),
            "mta.source": len(limits.sources.known),
            "mta.connector": len(limits.connectors.known),
            "mta.route": len(limits.routes),
        }
        for key, size in sizes.items():
            change = size - self._sizes.get(key, 0)
            if change:
                self.services.stats.add(key, change)
        self._sizes = sizes

    # What an operator does.

    def resume_route(self, ident: int) -> None:
        """Enable one disabled route, or all when ident is 0."""
        for route in self.limits.resume(ident):
            self.services.log("info", lines.enabling(str(route), asked=True))
        self.wake()

    def block(self, source: str, domain: str) -> bool:
        """Open no connections for a domain (all when empty) from a source; False at the limit."""
        return self.limits.block(source, domain)

    def unblock(self, source: str, domain: str) -> None:
        """Undo a block."""
        self.limits.unblock(source, domain)
        self.wake()

    def wake(self) -> None:
        """Let who waits for a limit look again: a connection ended, or an operator spoke."""
        for work in self.works.values():
            if work.wait is not None:
                work.drive_soon()

    async def close(self, timeout_seconds: float) -> None:
        """Take no more; let mails under way finish for so long, then end them."""
        self.closing = True
        works = list(self.works.values())
        for work in works:
            work.stop()
        sessions = {task for work in works for task in work.tasks_running()}
        if sessions:
            _, late = await asyncio.wait(sessions, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
