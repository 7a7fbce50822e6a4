"""Local delivery in a dispatcher: from due envelopes to outcomes.

Envelopes wait for their users' turns. An attempt looks the user up, plans a job, opens the
message, looks for a loop, has the supervisor run the job, and ends in exactly one report to the
queue and one line in the log; whatever goes wrong in between is an outcome of that attempt alone.

Source: OpenSMTPD 7.8.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Awaitable, Callable, NamedTuple, Optional, Protocol, Set, Union

from smtpd_core.config.model import LocalAction
from smtpd_core.config.settings import MdaLimits
from smtpd_core.errors import LocalError, SmtpdError
from smtpd_core.ids import format_evpid, msgid_of
from smtpd_core.mail.header import has_delivered_to
from smtpd_core.mail.status import Outcome, Result, loop_detected, outcome
from smtpd_core.mda.job import Job, JobResult, outcome_of, stat_of
from smtpd_core.mda.message import Message
from smtpd_core.mda.plan import Site, Users, address_of, plan
from smtpd_core.mda.turns import Turn, Turns
from smtpd_core.routing.policy import User
from smtpd_core.routing.stored import action_of
from smtpd_core.text import escape

if TYPE_CHECKING:
    from typing import Mapping

    from smtpd_core.config.model import Action
    from smtpd_core.queue.envelope import Envelope
    from smtpd_core.routing.rules import Failure

SYSTEM_USERS = "<getpwnam>"
MAX_LOG_FIELD = 512  # characters of an address in the log

FindUser = Callable[[str, str], Awaitable[Union[User, "Failure", None]]]  # user base, name
Log = Callable[[str, str], None]  # level, line

_RESULTS = {
    Result.DELIVERED: "Ok",
    Result.TEMPORARY: "TempFail",
    Result.PERMANENT: "PermFail",
    Result.LOOP: "PermFail",
}


class QueueService(Protocol):
    """What is asked of the queue role."""

    async def open_message(self, msgid: int) -> int:
        """Open the plain text of a message."""

    def report(self, evpid: int, outcome: Outcome, *, peer_reports: bool = False) -> None:
        """Tell how an attempt ended."""

    def hold(self, evpid: int, holdq: str) -> None:
        """Give an envelope back until its hold queue is released."""

    def release(self, holdq: str, count: int) -> None:
        """Have so many held envelopes given out again; 0 is all."""


class SupervisorService(Protocol):
    """What is asked of the supervisor."""

    async def run(self, job: Job, message_fd: int) -> JobResult:
        """Run a job to its end."""


class Stats(Protocol):
    """Where counters are kept."""

    def set(self, key: str, value: int) -> None:
        """Say how many there are now."""


@dataclass(frozen=True)
class Services:
    """Whom deliveries talk to; find_user answers as for an expansion, clock is in seconds."""

    queue: QueueService
    supervisor: SupervisorService
    find_user: FindUser
    log: Log
    stats: Stats
    clock: Callable[[], int]


@dataclass(frozen=True)
class Settings:
    """What is configured; daemon_user runs the commands of alias tables."""

    actions: Mapping[str, Action]
    limits: MdaLimits = field(default_factory=MdaLimits)
    site: Site = field(default_factory=Site)
    daemon_user: str = "_smtpd"


class Due(NamedTuple):
    """An envelope whose time has come."""

    evpid: int
    envelope: Envelope


class _Ended(NamedTuple):
    """How an attempt ended, and what the log says of it."""

    outcome: Outcome
    stat: str


class Deliveries:
    """All local deliveries of one dispatcher."""

    def __init__(self, services: Services, settings: Settings, objects: Callable[[], int]) -> None:
        """Prepare; objects() gives 64 bit ids for the log, one for each user at work."""
        self._services = services
        self._settings = settings
        self._turns: Turns[Due] = Turns(settings.limits)
        self._tasks: Set[asyncio.Task[None]] = set()
        self._objects = objects
        self._ids: dict[int, int] = {}  # number of a user in _turns: id in the log
        self._closed = False

    def take(self, evpid: int, envelope: Envelope) -> None:
        """Take a due local envelope; it is reported or held, never forgotten until close()."""
        if self._closed:
            return  # the queue knows it as due when it starts again
        action = action_of(envelope, self._settings.actions)
        userbase = SYSTEM_USERS
        if isinstance(action, LocalAction) and not self._runs_as_daemon(envelope):
            userbase = action.userbase or SYSTEM_USERS
        key = (envelope.mda_user, userbase)
        if not self._turns.add(key, Due(evpid, envelope)):
            self._services.queue.hold(evpid, hold_queue(key))
            return
        self._begin()

    async def close(self) -> None:
        """Begin nothing more, and wait for what runs: its results are not to be lost."""
        self._closed = True
        self._turns.drop_waiting()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._count()

    def _runs_as_daemon(self, envelope: Envelope) -> bool:
        """Tell whether it is a command of an alias table: no user base knows its user."""
        return bool(envelope.mda_exec) and envelope.mda_user == self._settings.daemon_user

    def _begin(self) -> None:
        """Start what may be started."""
        while not self._closed:
            begun = self._turns.begin()
            if begun is None:
                break
            turn, due = begun
            if turn.number not in self._ids:
                self._ids[turn.number] = self._objects()
            task = asyncio.ensure_future(self._deliver(turn, due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._count()

    async def _deliver(self, turn: Turn, due: Due) -> None:
        """Make one attempt, and tell everybody how it ended."""
        try:
            try:
                ended = await self._attempt(turn, due)
            except Exception as error:  # noqa: BLE001  one envelope must not stop the others
                self._services.log("warn", f"mda: {escape(f'{type(error).__name__}: {error}')}")
                ended = _temporary("Internal error")
            self._services.queue.report(due.evpid, ended.outcome)
            self._services.log("info", self._line(turn, due, ended))
        finally:
            released = self._turns.end(turn.key)
            if not self._turns.knows(turn.key):
                self._ids.pop(turn.number, None)
            if released is not None and not self._closed:
                self._services.queue.release(hold_queue(turn.key), released)
            self._begin()

    async def _attempt(self, turn: Turn, due: Due) -> _Ended:
        envelope = due.envelope
        action = action_of(envelope, self._settings.actions)
        if not isinstance(action, LocalAction):
            return _temporary(f"no local action is called {envelope.dispatcher!r} any more")
        recipient = await self._services.find_user(turn.key[1], turn.key[0])
        if recipient is None:
            text = "Permanent failure in user lookup"
            return _Ended(outcome(Result.PERMANENT, text, "5.3.0"), text)
        if not isinstance(recipient, User):
            return _temporary("Temporary failure in user lookup")
        named: Optional[User] = None
        if action.user is not None and not envelope.mda_exec:
            found = await self._services.find_user(SYSTEM_USERS, action.user)
            if found is not None and not isinstance(found, User):
                return _temporary("Temporary failure in user lookup")
            named = found
        planned = plan(envelope, action, Users(recipient, named), self._settings.site)
        if isinstance(planned, JobResult):
            return _Ended(outcome_of(planned), stat_of(planned))
        return await self._run(planned, due)

    async def _run(self, job: Job, due: Due) -> _Ended:
        try:
            descriptor = await self._services.queue.open_message(msgid_of(due.evpid))
        except (SmtpdError, OSError):
            return _temporary("Cannot get message fd")
        try:
            header = Message(b"", descriptor).header()
            if has_delivered_to(header, address_of(due.envelope.dest)):
                found = loop_detected()
                return _Ended(found, found.text)
            result = await self._services.supervisor.run(job, descriptor)
        except LocalError:
            raise
        except (SmtpdError, OSError) as error:
            return _temporary(f"Cannot run the delivery: {error}")
        finally:
            os.close(descriptor)
        return _Ended(outcome_of(result), stat_of(result))

    def _line(self, turn: Turn, due: Due, ended: _Ended) -> str:
        envelope = due.envelope
        age = max(0, self._services.clock() - envelope.ctime)
        sender = "" if envelope.sender == "@" else envelope.sender
        return (
            f"{self._ids[turn.number]:016x} mda delivery evpid={format_evpid(due.evpid)}"
            f" from=<{_shown(sender)}> to=<{_shown(envelope.dest)}> rcpt=<{_shown(envelope.rcpt)}>"
            f" user={_shown(envelope.mda_user)} delay={delay_text(age)}"
            f" result={_RESULTS[ended.outcome.result]} stat={escape(ended.stat)}"
        )

    def _count(self) -> None:
        stats, turns = self._services.stats, self._turns
        stats.set("mda.envelope", turns.envelopes)
        stats.set("mda.user", turns.users)
        stats.set("mda.pending", turns.waiting)
        stats.set("mda.running", turns.running)


def hold_queue(key: tuple[str, str]) -> str:
    """Name the hold queue of a user of a user base."""
    return f"mda {key[1]} {key[0]}"


def delay_text(seconds: int) -> str:
    """Spell a duration as the log has it: `0s`, `1h2m3s`, `2d1h`, parts of zero left out."""
    text = ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _temporary(text: str) -> _Ended:
    found = outcome(Result.TEMPORARY, text, "4.3.0")
    return _Ended(found, found.text)


def _shown(value: str) -> str:
    return escape(value[:MAX_LOG_FIELD])
