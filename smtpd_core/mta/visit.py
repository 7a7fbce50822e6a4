"""One connection on behalf of a work: from the first octet to the last, with tasks in between."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Callable, Optional

from smtpd_core import ask
from smtpd_core.dns.reverse import UNKNOWN
from smtpd_core.errors import SmtpdError
from smtpd_core.mta import lines
from smtpd_core.mta.limits import bracket_source, bracketed
from smtpd_core.mta.lines import Here
from smtpd_core.mta.session import Plan, Session, SessionError
from smtpd_core.mta.targets import find_helo, temporary
from smtpd_core.net.stream import SourceError

if TYPE_CHECKING:
    from smtpd_core.mail.status import Outcome
    from smtpd_core.mta.limits import Route
    from smtpd_core.mta.targets import Hop
    from smtpd_core.mta.task import Task
    from smtpd_core.mta.work import Work

PTR_SECONDS = 2  # to wait for the name of a host, which only logs show
MAX_VAIN = 10  # mails of which a host took none before we believe that it takes none at all
SHUTTING_DOWN = "Server is shutting down"


class Visit:
    """A session and the route it is on. Whatever happens, the route's place is given back."""

    def __init__(self, work: Work, route: Route, hop: Hop) -> None:
        """Prepare to go to the host of a route; hop is what the work knows it as."""
        self.work = work
        self.route = route
        self._hop = hop
        self._mta = work.mta
        self._log = work.mta.services.log
        self._session: Optional[Session] = None

    async def run(self) -> None:
        """Open the session and let it take tasks."""
        route, services = self.route, self._mta.services
        failure: Optional[str] = "Internal error"
        here = Here(services.new_id(), route.source, route.address, route.port)
        try:
            here = here._replace(name=await self._name())
            session = self._session = Session(here, self._plan(), self._log)
            await session.open()
            self._mta.limits.ready(route)
            await self._serve(session)
            failure = session.failure
        except SourceError as error:
            failure = None
            self.work.bad_sources[route.source] = str(error)
            self._log("warn", lines.source_failed(str(route), str(error)))
        except SessionError as error:
            failure = str(error)
        except asyncio.CancelledError:
            failure = None
            raise
        finally:
            if self._session is not None:
                self._session.abort()
                here = self._session.here
            self._end(here, failure)

    def _end(self, here: Here, failure: Optional[str]) -> None:
        mta = self._mta
        if failure is not None:
            messages = self._session.messages if self._session else 0
            self._log("info", lines.failed(here, failure, messages))
            failure = f"{bracketed(here.address)}: {failure}"
        way, now = self.work.way(self.route.source), mta.services.clock()
        self._tell_disabled(mta.limits.disconnect(way, self.route, now, failure))

    def _tell_disabled(self, seconds: int) -> None:
        if seconds:
            self._log("info", lines.disabling(str(self.route), seconds))

    async def _name(self) -> str:
        """Find the name of the host, for logs and listings."""
        route, name = self.route, UNKNOWN
        with contextlib.suppress(asyncio.TimeoutError):
            asked = self._mta.services.resolver.ptr(route.address)
            name = (await asyncio.wait_for(asked, PTR_SECONDS)).name
        if name != UNKNOWN:
            route.name = self._mta.limits.hosts.of(route.address).name = name
        return name

    def _plan(self) -> Plan:
        """Say how to talk to the host. Raises SourceError when the source has no name to say."""
        work, route = self.work, self.route
        asker = find_helo(work.relay.action, route.source, self._mta.config.name)
        helo = ask.answer(asker, self._mta.answer)
        if helo is None:
            where = bracket_source(route.source)
            raise SourceError(f"Failed to retrieve helo string for {where}")
        return Plan(
            relay=work.relay,
            hop=self._hop,
            source=route.source,
            helo=helo,
            context=work.context,
            credentials=work.credentials,
            max_failures=work.limits.max_failures_per_session,
        )

    async def _serve(self, session: Session) -> None:
        """Send tasks until there are none, or the session has had its share."""
        self.work.opening.discard(self)
        self.work.ready += 1
        self.work.drive_soon()  # the route is good: others may be opened beside it
        try:
            await self._send_tasks(session)
        finally:
            self.work.ready -= 1
        await session.quit()

    async def _send_tasks(self, session: Session) -> None:
        limits = self.work.limits
        sent = 0
        while session.is_ready and sent < limits.session_mail_max:
            task = self.work.take()
            if task is None:
                if await self._rest(session):
                    continue
                return
            text = await self._send(session, task)
            sent += 1
            if session.messages:
                self._mta.limits.delivered(self.route)
            elif sent >= MAX_VAIN:
                self._reject(session, text)
                return
            if limits.session_transaction_delay and session.is_ready:
                await asyncio.sleep(limits.session_transaction_delay)

    def _reject(self, session: Session, text: str) -> None:
        self._log("info", lines.rejects_all(session.here))
        reason = f"{bracketed(self.route.address)}: {text}"
        now = self._mta.services.clock()
        self._tell_disabled(self._mta.limits.reject(self.route, reason, now))

    async def _rest(self, session: Session) -> bool:
        """Keep the last connection for a while; True when there is a task again."""
        work = self.work
        seconds = work.limits.session_keepalive
        if len(work.sessions) > 1 or not seconds or self._mta.closing:
            return False
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        work.idle.append(woken)
        try:
            await session.rest(woken, seconds)
        finally:
            work.idle.remove(woken)
        return bool(work.backlog) and session.is_ready

    async def _send(self, session: Session, task: Task) -> str:
        """Send one task; each of its envelopes gets its outcome. Give the last text."""
        mta = self._mta
        mta.services.stats.add("mta.task.running")
        last = ""

        def done(index: int, found: Outcome) -> None:
            nonlocal last
            if index in task.open:
                task.open.discard(index)
                last = found.text
                reports = session.peer_reports
                mta.settle(task.items[index], found, session.here, peer_reports=reports)

        try:
            await self._send_open(session, task, done)
        finally:
            why = SHUTTING_DOWN if mta.closing else "Internal error"
            _all_done(task, temporary(why, "4.3.2" if mta.closing else "4.3.0"), done)
            mta.services.stats.add("mta.task.running", -1)
            mta.services.stats.add("mta.task", -1)
        return last

    async def _send_open(
        self, session: Session, task: Task, done: Callable[[int, Outcome], None]
    ) -> None:
        """Send one task once its message can be read."""
        try:
            descriptor = await self._mta.services.queue.open_message(task.key.msgid)
        except (SmtpdError, OSError) as error:
            self._log("warn", f"warn: smtp-out: no message to send: {error}")
            _all_done(task, temporary("Could not get message fd", "4.3.0"), done)
            return
        try:
            size = os.fstat(descriptor).st_size
        except OSError:
            _all_done(task, temporary("Could not stat message fd", "4.3.0"), done)
            return
        try:
            await session.send(task.transaction(size), descriptor, done)
        finally:
            os.close(descriptor)


def _all_done(task: Task, found: Outcome, done: Callable[[int, Outcome], None]) -> None:
    for index in sorted(task.open):
        done(index, found)
