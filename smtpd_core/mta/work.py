"""The work of one relay: tasks that wait, sessions that run, and when to open another one.

See relay for how works come and go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Optional, Union

from smtpd_core import ask
from smtpd_core.mail.status import Outcome
from smtpd_core.mta import lines
from smtpd_core.mta.backlog import Backlog, Place
from smtpd_core.mta.limits import (
    Obstacle,
    Route,
    Trouble,
    Wait,
    Way,
    gravest,
)
from smtpd_core.mta.lines import NOWHERE
from smtpd_core.mta.targets import (
    Find,
    find_credentials,
    find_hops,
    find_sources,
    temporary,
)
from smtpd_core.mta.task import Item, Task, outgoing_sender, task_key
from smtpd_core.mta.visit import SHUTTING_DOWN, Visit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtpd_core.dns.exchangers import Exchangers
    from smtpd_core.mta.contexts import Contexts
    from smtpd_core.mta.relay import Mta
    from smtpd_core.mta.targets import Hop, Relay
    from smtpd_core.tables.lines import Credentials

FRESH_SECONDS = 300  # before hosts and tables are asked again for a relay that never rests
HOLDQ_MAX = 1000  # characters of the name of a hold queue

_TROUBLE_LINES = {
    Trouble.MX: "No MX found for",
    Trouble.FAMILY: "Address family mismatch on",
}
_FLAGS = {
    Trouble.FAMILY: 0x0001,
    Trouble.SOURCE: 0x0002,
    Trouble.MX: 0x0004,
    Trouble.ROUTE_NET: 0x0008,
    Trouble.ROUTE_SMTP: 0x0010,
    Trouble.BLOCKED: 0x0020,
}


class Work:
    """One relay at work."""

    def __init__(self, mta: Mta, relay: Relay, contexts: Contexts) -> None:
        """Begin without tasks."""
        self.mta = mta
        self.relay = relay
        self.limits = mta.config.mta_limits(relay.domain)
        self.sessions: set[asyncio.Task[None]] = set()
        self.hops: Sequence[Hop] = ()
        self.sources: Sequence[str] = ()
        self.wait: Optional[Wait] = None
        self.wait_until = 0
        self.obstacles: dict[str, Obstacle] = {}  # by source, of the last look
        self.backlog = Backlog(self.limits)
        self.context = contexts.verified if relay.verify else contexts.lenient
        self.opening: set[Visit] = set()
        self.ready = 0  # sessions at mail, or resting
        self.idle: list[asyncio.Future[None]] = []
        self.bad_sources: dict[str, str] = {}
        self.credentials: Optional[Credentials] = None
        self._prepared: Optional[int] = None  # when
        self._preparing: Optional[asyncio.Task[None]] = None
        self._loop = asyncio.get_running_loop()
        self._timer: Optional[asyncio.Handle] = None
        self._soon = False

    @property
    def is_preparing(self) -> bool:
        """Tell whether the DNS is being asked."""
        return self._preparing is not None

    @property
    def holdq(self) -> str:
        """Give the name of its hold queue."""
        return f"{self.relay.action.name} {self.relay}"[:HOLDQ_MAX]

    # Tasks.

    def add(self, item: Item) -> None:
        """Take an envelope into a task, or give it to the hold queue."""
        mta, services = self.mta, self.mta.services
        sender = outgoing_sender(item.envelope, self.relay.action, mta.srs_keys, services.clock())
        was_on_hold = self.backlog.on_hold
        place = self.backlog.add(item, task_key(item, sender))
        if place is Place.HELD:
            if not was_on_hold:
                services.log("info", lines.holding(str(self.relay)))
            services.stats.add("mta.envelope", -1)
            services.queue.hold(item.evpid, self.holdq)
            return
        if place is Place.NEW:
            services.stats.add("mta.task")
        self.drive_soon()

    def take(self) -> Optional[Task]:
        """Give the next task to a session."""
        taken = self.backlog.take()
        if taken is None:
            return None
        services = self.mta.services
        if taken.off_hold:
            services.log("info", lines.releasing(str(self.relay)))
        if taken.release is not None:
            services.queue.release(self.holdq, taken.release)
        return taken.task

    def fail_all(self, found: Outcome, *, deferred: bool = False) -> None:
        """End every waiting task with an outcome; deferred ones are tried when things improve."""
        for task in self.backlog.clear():
            for item in task.items:
                self.mta.settle(item, found, NOWHERE)
                if deferred:
                    domain = item.envelope.dest.rpartition("@")[2]
                    self.mta.hoststats.defer(domain, item.evpid)
            self.mta.services.stats.add("mta.task", -1)
        self._release_all()

    def _release_all(self) -> None:
        if self.backlog.any_held:
            self.backlog.any_held = False
            self.mta.services.queue.release(self.holdq, 0)

    # Connections.

    def drive_soon(self, seconds: float = 0) -> None:
        """Look in a moment, or after so many seconds, whether a connection is to be opened."""
        if self._timer is not None:
            if self._soon:
                return
            self._timer.cancel()
        self._soon = not seconds
        loop = self._loop
        self._timer = (
            loop.call_later(seconds, self._drive) if seconds else loop.call_soon(self._drive)
        )

    def _drive(self) -> None:
        self._timer = None
        self._soon = False
        self.mta.sweep()
        self._wake_idle()
        while self._wants_connection():
            if not self._is_fresh():
                self._prepare_soon()
                return
            if not self._open_one():
                break
        self.mta.count_objects()
        if not (self.backlog or self.sessions or self._preparing or self._timer):
            self._release_all()
            self.mta.forget(self)

    def _wants_connection(self) -> bool:
        """Tell whether one more connection is worth it. Source: OpenSMTPD 7.8, mta_connect."""
        tasks, connections = len(self.backlog), len(self.sessions)
        if not tasks or self._preparing is not None:
            return False
        if len(self.opening) + self.ready >= tasks:
            return False
        return connections <= 2 or connections < tasks // 2

    def _wake_idle(self) -> None:
        """Wake as many resting sessions as there are tasks; all of them at the end."""
        wanted = len(self.idle) if self.mta.closing else len(self.backlog)
        for woken in self.idle[:wanted]:
            if not woken.done():
                woken.set_result(None)

    def _is_fresh(self) -> bool:
        now = self.mta.services.clock()
        return self._prepared is not None and self._prepared + FRESH_SECONDS > now

    def _prepare_soon(self) -> None:
        self._preparing = self._loop.create_task(self._prepare())
        self._preparing.add_done_callback(self._on_prepared)

    async def _prepare(self) -> None:
        """Ask tables and DNS for what connections need; when that fails, all tasks do."""
        mta = self.mta
        credentials = ask.answer(find_credentials(self.relay), mta.answer)
        sources = ask.answer(find_sources(self.relay.action), mta.answer)
        for found in (credentials, sources):
            if isinstance(found, Outcome):
                self.fail_all(found)
                return
        assert not isinstance(credentials, Outcome)
        assert not isinstance(sources, Outcome)
        hops = await self._find_hops()
        if isinstance(hops, Outcome):
            mta.services.log("info", lines.mx_failed(str(self.relay), hops.text))
            self.fail_all(hops)
            return
        self.credentials, self.sources, self.hops = credentials, sources, hops
        self.bad_sources = {}
        self._prepared = mta.services.clock()

    async def _find_hops(self) -> Union[tuple[Hop, ...], Outcome]:
        services = self.mta.services

        async def find(question: Find) -> Exchangers:
            resolver = services.resolver
            return await (resolver.host if question.is_host else resolver.mx)(question.name)

        asker = find_hops(self.relay, services.is_own, lambda line: services.log("warn", line))
        return await ask.answer_later(asker, find)

    def _on_prepared(self, done: asyncio.Task[None]) -> None:
        self._preparing = None
        self._look_at(done)
        if done.cancelled() or done.exception() is not None:
            self.fail_all(temporary("Temporary failure in MX lookup", "4.3.0"))
        self.drive_soon()

    def _look_at(self, done: asyncio.Task[None]) -> None:
        """Confess a mistake of ours that ended a task: nobody awaits it."""
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self.mta.services.confess(error)

    def way(self, source: str) -> Way:
        """Give the connector of a source."""
        return Way(self.relay, source, self.limits)

    def _open_one(self) -> bool:
        """Open a connection; False when none can be opened now, or none at all."""
        now = self.mta.services.clock()
        self.wait, self.obstacles = None, {}
        for source in list(self.sources):
            found: Union[Route, Wait, Obstacle]
            if source in self.bad_sources:
                found = Obstacle(Trouble.SOURCE, self.bad_sources[source])
            else:
                found = self.mta.limits.choose(self.way(source), self.hops, now)
            if isinstance(found, Route):
                self.sources = [each for each in self.sources if each != source] + [source]
                self._start_session(found, now)
                return True
            if isinstance(found, Obstacle):
                self.obstacles[source] = found
            elif self.wait is None or found.seconds < self.wait.seconds:
                self.wait = found
        if self.wait is not None:
            self.wait_until = now + self.wait.seconds
            self.drive_soon(self.wait.seconds)
        elif not self.sessions:  # a session that lives takes the tasks
            self._give_up()
        return False

    def _give_up(self) -> None:
        """Fail all tasks because no source has a route."""
        for source, each in self.obstacles.items():
            said = _TROUBLE_LINES.get(each.trouble, "No valid route for")
            spelled = lines.connector(source, str(self.relay), _FLAGS[each.trouble])
            self.mta.services.log("info", lines.no_route(said, spelled, each.reason))
        worst = gravest(list(self.obstacles.values()) or [Obstacle(Trouble.SOURCE)])
        text = worst.trouble.value + (f": {worst.reason}" if worst.reason else "")
        routes = worst.trouble in (Trouble.ROUTE_NET, Trouble.ROUTE_SMTP)
        self.fail_all(temporary(text, "4.4.1" if routes else "4.4.4"), deferred=routes)

    def _start_session(self, route: Route, now: int) -> None:
        self.mta.limits.connect(self.way(route.source), route, now)
        self.mta.services.stats.add("mta.session")
        hop = next(each for each in self.hops if (each.address, each.port) == route.end)
        visit = Visit(self, route, hop)
        self.opening.add(visit)
        task = self._loop.create_task(visit.run())
        self.sessions.add(task)
        task.add_done_callback(lambda _: self.opening.discard(visit))
        task.add_done_callback(self._on_session_end)

    def _on_session_end(self, done: asyncio.Task[None]) -> None:
        self.sessions.discard(done)
        self.mta.services.stats.add("mta.session", -1)
        self._look_at(done)
        self.drive_soon()
        self.mta.wake()

    # The end.

    def stop(self) -> None:
        """Fail what waits; sessions end after the mail they are at."""
        if self._preparing is not None:
            self._preparing.cancel()
        self.fail_all(temporary(SHUTTING_DOWN, "4.3.2"))
        self._wake_idle()

    def tasks_running(self) -> set[asyncio.Task[None]]:
        """Give what has to end before this work has ended."""
        preparing = {self._preparing} if self._preparing is not None else set()
        return self.sessions | preparing
