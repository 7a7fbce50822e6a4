"""The queue role: the spool, what is due, and what became of it.

Theory of operation. Dispatchers commit mail; a commit is answered when the Desk has brought it to
the disk. The scheduler knows every envelope by when something is to be done with it; `_drive`
takes what is due and gives it to the dispatcher of its destination. Each envelope given out comes
back as a report or a hold, or because its dispatcher ended. Outcomes are settled by Outcomes,
notices to senders made by Notices; the spool is changed by the Desk alone.

At the start the spool is loaded in the background, by another thread, while commits are served
and what is known already is delivered.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import (
    TYPE_CHECKING,
    Any,
    Awaitable,
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Tuple,
    Union,
)

from smtpd_core.daemon.desk import Desk
from smtpd_core.daemon.notices import Notices
from smtpd_core.daemon.outcomes import Outcomes
from smtpd_core.daemon.peers import Peer, Peers
from smtpd_core.daemon.requests import DispatcherSide
from smtpd_core.daemon.services import encode_envelope
from smtpd_core.daemon.setting import clock
from smtpd_core.daemon.stats import GAUGES, Stats
from smtpd_core.errors import LocalError
from smtpd_core.ipc import messages
from smtpd_core.ipc.channel import Channel
from smtpd_core.ipc.messages import Role
from smtpd_core.mail.status import Result, outcome
from smtpd_core.queue import retry, scheduled, scheduler
from smtpd_core.queue.disk import SpoolError, refused
from smtpd_core.queue.envelope import EnvelopeError
from smtpd_core.queue.recovery import Trouble
from smtpd_core.queue.scheduler import Scheduler
from smtpd_core.queue.waiting import Waiting, waiting_of

if TYPE_CHECKING:
    from smtpd_core.daemon.log import Log
    from smtpd_core.ipc.messages import Message
    from smtpd_core.queue.envelope import Envelope
    from smtpd_core.queue.scheduled import Batch
    from smtpd_core.queue.spool import Spool

    Answer = Tuple[Message, Optional[int]]

TICK_SECONDS = 1.0  # between two looks at counters
SYNC_SECONDS = 2.0  # between two flushes of what was removed; bounds what a crash delivers twice
PURGE_SECONDS = 600.0
PURGE_PAUSE_SECONDS = 0.2  # between two handfuls of files
LOAD_BATCH = 256  # envelopes taken from the walk at once
MAX_CACHED = 10_000  # envelopes remembered until they are delivered: most go at once
MAX_TROUBLES = 100  # lines about damage in the spool; the rest is counted
IDLE_SECONDS = 60.0  # the longest sleep: a clock that is set wakes nobody


class Queue:
    """The role in the running event loop."""

    def __init__(
        self,
        spool: Spool,
        policy: messages.QueuePolicy,
        end: socket.socket,
        log: Log,
        clock: Callable[[], int] = clock,
    ) -> None:
        """Begin to listen to the supervisor."""
        self.log = log
        self.clock = clock
        self.policy = policy
        self.ttls = dict(policy.action_ttls)
        self.local = frozenset(policy.local_actions)
        self.stats = Stats()
        self.scheduler = Scheduler(policy.max_inflight, policy.max_schedule)
        self.peers = Peers()
        self.desk = Desk(spool, log.confess)
        self._spool = spool
        # Reading needs none of the spool's state, so it need not wait for a flush.
        self._readers = ThreadPoolExecutor(2, "reader")
        self._cache: Dict[int, Envelope] = {}
        self.outcomes = Outcomes(self)
        self.notices = Notices(self)
        self._wake = asyncio.Event()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._removed = False
        self.ending = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._supervisor = Channel(
            end, (Role.QUEUE, Role.SUPERVISOR), _SupervisorSide(self), log.confess
        )

    # ---- life --------------------------------------------------------------------------

    async def run(self) -> bool:
        """Serve until told to stop; True for an orderly end."""
        self._supervisor.send(messages.Ready())
        background = [
            asyncio.ensure_future(task)
            for task in (self._load(), self._drive(), self._sync(), self._purge(), self._count())
        ]
        for task in background:
            task.add_done_callback(self._watch)
        try:
            why = await self._ended
        finally:
            for task in background:
                task.cancel()
        await self._finish()
        if why:
            self.log.complain(f"queue: {why}")
        return not why

    async def _finish(self) -> None:
        """Bring to the disk what was begun."""
        for peer in list(self.peers.all):
            if peer.channel is not None:
                peer.channel.close()
        while self._tasks:
            await asyncio.wait(self._tasks)
        try:
            await self.desk.sync()
        except SpoolError as error:
            self.log.complain(str(error))
        await self.desk.close()
        self._readers.shutdown(wait=False)
        self._supervisor.close()

    def end(self, why: str = "") -> None:
        """End run."""
        self.ending = True
        if not self._ended.done():
            self._ended.set_result(why)

    def _watch(self, task: asyncio.Task[None]) -> None:
        """End all when one of the loops that must run for ever does not."""
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            assert error is not None
            self.log.confess(error)
            self.end("a task of the role has ended")

    def begin(self, work: Awaitable[None]) -> None:
        """Do something beside; the end of the role waits for it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            assert error is not None
            self.log.confess(error)

    def reconfigure(self, policy: messages.QueuePolicy) -> None:
        """Go by another configuration; lifetimes count for what comes from now on."""
        self.policy = policy
        self.ttls = dict(policy.action_ttls)
        self.local = frozenset(policy.local_actions)

    # ---- start -------------------------------------------------------------------------

    async def _load(self) -> None:
        """Take in what is in the spool."""
        loop = asyncio.get_running_loop()
        walk = self._spool.walk()
        count = troubles = 0
        while True:
            found = await loop.run_in_executor(self._readers, _take_some, walk)
            for item in found:
                if isinstance(item, Waiting):
                    count += self._schedule(item)
                elif isinstance(item, Trouble):
                    troubles += 1
                    if troubles <= MAX_TROUBLES:
                        self.log.complain(f"{item.path}: {item.reason}")
            self.wake()
            if len(found) < LOAD_BATCH:
                break
        if troubles > MAX_TROUBLES:
            self.log.complain(f"{troubles - MAX_TROUBLES} more things are wrong in the spool")
        self.log.remark(f"queue: {count} envelopes loaded")

    def _schedule(self, waiting: Waiting) -> bool:
        kind = waiting.kind
        if kind != retry.BOUNCE and waiting.dispatcher:  # formats 1 and 2 name none
            kind = retry.LOCAL if waiting.dispatcher in self.local else retry.RELAY
        return self.scheduler.add(waiting, waiting.ttl or self.ttl_of(waiting.dispatcher), kind)

    def ttl_of(self, action: str) -> int:
        """Give the lifetime of what an action delivers."""
        return self.ttls.get(action, self.policy.ttl_seconds)

    def add(self, evpid: int, envelope: Envelope) -> None:
        """Take in an envelope that was just written."""
        if len(self._cache) < MAX_CACHED:
            self._cache[evpid] = envelope
        self._schedule(waiting_of(evpid, envelope))
        self.wake()

    # ---- what is due -------------------------------------------------------------------

    def wake(self) -> None:
        """Look again at what is due."""
        self._wake.set()

    async def _drive(self) -> None:
        while True:
            self._wake.clear()
            batches = self.scheduler.take(self.clock()) if self.peers else []
            for batch in batches:
                self._begin_batch(batch)
            if batches:
                await asyncio.sleep(0)  # commits and reports go on
                continue
            now = self.clock()
            due = self.scheduler.wake_time(now) if self.peers else None
            patience = IDLE_SECONDS if due is None else min(max(due - now, 0.05), IDLE_SECONDS)
            try:
                await asyncio.wait_for(self._wake.wait(), patience)
            except asyncio.TimeoutError:
                continue

    def _begin_batch(self, batch: Batch) -> None:
        if batch.line == scheduler.REMOVE:
            self.begin(self.outcomes.remove(batch.evpids))
        elif batch.line == scheduler.EXPIRE:
            self.begin(self.outcomes.expire(batch.evpids))
        elif batch.line == retry.BOUNCE:
            self.begin(self.notices.take(batch.evpids))
        else:
            self.begin(self._give_out(batch))

    async def _give_out(self, batch: Batch) -> None:
        """Give due envelopes to the dispatcher of their destination."""
        envelopes = await self.read(batch.evpids)
        if not self.peers:  # the last one has just gone
            for evpid in envelopes:
                self.scheduler.give_back(evpid, self.clock())
            return
        peer = self.peers.choose(batch.destination)
        told = []
        for evpid, envelope in envelopes.items():
            try:
                told.append((evpid, encode_envelope(envelope)))
            except EnvelopeError as error:
                self.outcomes.forget_unreadable(evpid, str(error))
                continue
            peer.give(evpid, envelope)
        if told and peer.channel is not None:
            peer.channel.send(messages.Deliver(tuple(told)))
            await peer.channel.drain()

    async def read(self, evpids: List[int]) -> Dict[int, Envelope]:
        """Read envelopes that were taken; those that cannot be read are dealt with here."""
        found: Dict[int, Envelope] = {}
        wanted = []
        for evpid in evpids:
            cached = self._cache.pop(evpid, None)
            if cached is not None:
                found[evpid] = cached
                self.stats.add("queue.evpcache.load.hit")
            else:
                wanted.append(evpid)
        if wanted:
            self.stats.add("queue.evpcache.load.missed", len(wanted))
            loop = asyncio.get_running_loop()
            read = await loop.run_in_executor(self._readers, _read_all, self._spool, wanted)
            for evpid, envelope in zip(wanted, read):
                if not isinstance(envelope, SpoolError):
                    found[evpid] = envelope
                elif envelope.temporary:
                    self.log.complain(str(envelope))
                    self.scheduler.try_later(evpid, 1, self.clock())
                else:
                    self.outcomes.forget_unreadable(evpid, str(envelope))
        return found

    async def open_message(self, msgid: int) -> int:
        """Open the plain text of a message. Raises SpoolError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._spool.open_message, msgid)

    # ---- dispatchers -------------------------------------------------------------------

    def add_dispatcher(self, slot: int, end: socket.socket) -> None:
        """Begin to work with a dispatcher."""
        peer = Peer(slot)
        side = DispatcherSide(self, peer)
        peer.channel = Channel(end, (Role.QUEUE, Role.DISPATCHER), side, self.log.confess)
        self.peers.add(peer)
        self.wake()

    def lose(self, peer: Peer, why: str) -> None:
        """Give out anew what a dispatcher had when it ended.

        One that ended before its time may have died of what it was given: that counts as an
        attempt, and waits like any other.
        """
        self.peers.remove(peer)
        if not peer.leaving and not self.ending:
            self.log.complain(f"queue: {why}")
        for evpid in list(peer.in_flight):
            envelope = peer.take(evpid)
            if not peer.leaving and envelope is not None:
                found = outcome(Result.TEMPORARY, "The delivering process ended", "4.3.0")
                self.begin(self.outcomes.settle(evpid, envelope, found))
            else:
                self.scheduler.give_back(evpid, self.clock())
        for holdq in peer.holdqs:
            self.scheduler.release(holdq, 0, self.clock())
        for msgid in list(peer.opened):
            self.begin(self.discard(msgid))
        for key, value in peer.counted.items():
            if key in GAUGES:
                self.stats.add(key, -value)
        self.wake()

    def hold(self, evpid: int, envelope: Envelope, holdq: str) -> None:
        """Put an envelope behind others."""
        if len(self._cache) < MAX_CACHED:
            self._cache[evpid] = envelope
        if not self.scheduler.hold(evpid, holdq, self.clock()):
            self.stats.add("scheduler.ramqueue.hold-overflow")
            self.stats.add("scheduler.envelope.updated")
        self.wake()

    async def discard(self, msgid: int) -> None:
        """Throw away a body that will not be committed."""
        await self.desk.call(lambda spool: spool.discard_body(msgid))

    # ---- in the background -------------------------------------------------------------

    def note_removal(self) -> None:
        """Remember that something was removed, which the next sync makes sure of."""
        self._removed = True

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            if self._removed:
                self._removed = False
                try:
                    await self.desk.sync()
                except SpoolError as error:
                    self._removed = True
                    self.log.complain(str(error))

    async def _purge(self) -> None:
        """Delete, a little at a time, what earlier starts put away."""
        while True:
            try:
                deleting = await self.desk.call(lambda spool: spool.purge(self.clock()))
                await self._go_through(deleting)
            except SpoolError as error:
                self.log.complain(f"purge: {error}")
            await asyncio.sleep(PURGE_SECONDS)

    async def _go_through(self, deleting: Iterator[None]) -> None:
        while await self.desk.call(lambda _: _advance(deleting)):
            await asyncio.sleep(PURGE_PAUSE_SECONDS)

    async def _count(self) -> None:
        stats = self.stats
        while True:
            counts = self.scheduler.counts()
            stats.set("scheduler.envelope", len(self.scheduler))
            stats.set("scheduler.ramqueue.envelope", len(self.scheduler))
            stats.set("scheduler.envelope.inflight", counts[scheduled.IN_FLIGHT])
            stats.set("scheduler.ramqueue.hold", counts[scheduled.HELD])
            stats.set("queue.evpcache.size", len(self._cache))
            await asyncio.sleep(TICK_SECONDS)


def _take_some(
    walk: Iterator[Union[Waiting, Trouble]],
) -> List[Union[Waiting, Trouble]]:
    """Take a batch from a walk, in a thread."""
    found = []
    for item in walk:
        found.append(item)
        if len(found) == LOAD_BATCH:
            break
    return found


def _advance(deleting: Iterator[None]) -> bool:
    """Delete a handful; False when there is nothing more."""
    try:
        next(deleting)
    except StopIteration:
        return False
    except OSError as error:
        raise refused("purge", error) from None
    return True


def _read_all(spool: Spool, evpids: List[int]) -> List[Union[Envelope, SpoolError]]:
    """Read envelopes, in a thread."""
    read: List[Union[Envelope, SpoolError]] = []
    for evpid in evpids:
        try:
            read.append(spool.read_envelope(evpid))
        except SpoolError as error:
            read.append(error)
    return read


class _SupervisorSide:
    """What the supervisor says to the queue role."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def answer(
        self,
        request: Message,
        descriptor: Optional[int],  # noqa: ARG002 - none here
    ) -> Tuple[Message, Optional[int]]:
        raise LocalError(f"nobody answers {type(request).__name__}")

    def take(self, message: Message, descriptor: Optional[int]) -> None:
        if isinstance(message, messages.AddDispatcher):
            self._queue.add_dispatcher(message.slot, socket.socket(fileno=descriptor))
        elif isinstance(message, messages.QueuePolicy):
            self._queue.reconfigure(message)
        elif isinstance(message, messages.Drain):
            self._queue.end()

    def lost(self, why: str) -> None:
        self._queue.end(why)
