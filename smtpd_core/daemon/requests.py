"""What a dispatcher says to the queue role, checked against what it may say now.

A dispatcher touches only what it was given: ids it leased, bodies it opened, messages it has work
with, envelopes that are out to it. One that was taken over can harm the mail it has, and no other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable, List, Mapping, Optional, Tuple, Type, Union

from smtpd_core.daemon.peers import MAX_LEASED, MAX_OPENED, Peer
from smtpd_core.daemon.services import decode_envelope
from smtpd_core.errors import LocalError
from smtpd_core.ids import Selector, format_evpid, format_msgid
from smtpd_core.ipc import messages
from smtpd_core.mail.status import Result, StatusError, one_line, outcome
from smtpd_core.queue.disk import SpoolError
from smtpd_core.queue.envelope import Envelope, EnvelopeError
from smtpd_core.queue.spool import NewMessage

if TYPE_CHECKING:
    from smtpd_core.daemon.queue import Queue
    from smtpd_core.ipc.messages import Message

    Answer = Tuple[Message, Optional[int]]


class DispatcherSide:
    """The queue role's end of a channel to a dispatcher."""

    def __init__(self, queue: Queue, peer: Peer) -> None:
        self._queue = queue
        self._peer = peer

    async def answer(self, request: Message, descriptor: Optional[int]) -> Answer:
        """Answer a request; no request comes with a descriptor."""
        assert descriptor is None
        if isinstance(request, messages.Commit):
            return await self._commit(request)
        if isinstance(request, messages.LeaseIds):
            return await self._lease(request.number)
        if isinstance(request, messages.OpenBody):
            return await self._open_body(request.msgid)
        if isinstance(request, messages.OpenMessage):
            return await self._open_message(request.msgid)
        raise LocalError(f"nobody answers {type(request).__name__}")

    def take(self, message: Message, descriptor: Optional[int]) -> None:
        """Take a message; none comes with a descriptor."""
        assert descriptor is None
        _TAKERS[type(message)](self, message)

    def lost(self, why: str) -> None:
        """Hear that the dispatcher is gone."""
        self._queue.lose(self._peer, why)

    # ---- mail coming in ----------------------------------------------------------------

    async def _lease(self, number: int) -> Answer:
        if len(self._peer.leased) + number > MAX_LEASED:
            raise SpoolError("too many message ids without messages")
        msgids = await self._queue.desk.call(
            lambda spool: [spool.new_msgid() for _ in range(number)]
        )
        self._peer.leased.update(msgids)
        return messages.Leased(tuple(msgids)), None

    async def _open_body(self, msgid: int) -> Answer:
        peer, queue = self._peer, self._queue
        if msgid not in peer.leased or msgid in peer.opened or len(peer.opened) >= MAX_OPENED:
            raise SpoolError(f"message {format_msgid(msgid)} cannot have a body now")
        peer.opened.add(msgid)
        try:
            descriptor = await queue.desk.call(lambda spool: os.dup(spool.open_body(msgid)))
        except SpoolError:
            peer.opened.discard(msgid)
            raise
        if peer not in queue.peers.all:  # it ended meanwhile
            queue.begin(queue.discard(msgid))
        return messages.Done(), descriptor

    async def _commit(self, request: messages.Commit) -> Answer:
        queue, peer, msgid = self._queue, self._peer, request.msgid
        opened = msgid in peer.opened
        if msgid not in peer.leased or (request.body is None) is not opened:
            raise SpoolError(f"message {format_msgid(msgid)} was not begun")
        body: Union[bytes, int] = request.octets if request.body is None else request.body
        try:
            envelopes = _decode([*peer.forget(msgid), *request.envelopes], body)
            evpids = await self._store(NewMessage(msgid, body, envelopes))
        except SpoolError:
            if opened:  # the spool has it still, unless it was the spool that failed
                queue.begin(queue.discard(msgid))
            raise
        for evpid, envelope in zip(evpids, envelopes):
            queue.add(evpid, envelope)
        return messages.Committed(tuple(evpids)), None

    async def _store(self, message: NewMessage) -> List[int]:
        stats, count = self._queue.stats, len(message.envelopes)
        stats.add("scheduler.envelope.incoming", count)
        try:
            return await self._queue.desk.commit(message)
        finally:
            stats.add("scheduler.envelope.incoming", -count)

    def _add_envelopes(self, message: messages.AddEnvelopes) -> None:
        peer = self._peer
        if not peer.add(message.msgid, message.envelopes):
            if peer.channel is not None:
                peer.channel.close()
            self.lost("a dispatcher sent too many envelopes")

    def _abandon(self, message: messages.Abandon) -> None:
        opened = message.msgid in self._peer.opened
        self._peer.forget(message.msgid)
        if opened:
            self._queue.begin(self._queue.discard(message.msgid))

    # ---- mail going out ----------------------------------------------------------------

    async def _open_message(self, msgid: int) -> Answer:
        if not self._peer.may_read(msgid):
            raise SpoolError(f"message {format_msgid(msgid)} is not at work there")
        return messages.Done(), await self._queue.open_message(msgid)

    def _report(self, message: messages.Report) -> None:
        queue = self._queue
        envelope = self._peer.take(message.evpid)
        if envelope is None:
            queue.log.remark(f"queue: a report on {format_evpid(message.evpid)}, which is not out")
            return
        try:
            found = outcome(Result(message.result), one_line(message.text), message.status)
        except (ValueError, StatusError):
            found = outcome(Result.TEMPORARY, "the delivering process does not make sense")
        queue.begin(queue.outcomes.settle(message.evpid, envelope, found, message.peer_reports))

    def _hold(self, message: messages.Hold) -> None:
        envelope = self._peer.take(message.evpid)
        if envelope is not None:
            self._peer.holdqs.add(message.holdq)
            self._queue.hold(message.evpid, envelope, message.holdq)

    def _release(self, message: messages.Release) -> None:
        self._queue.scheduler.release(message.holdq, message.number, self._queue.clock())
        self._queue.wake()

    def _schedule(self, message: messages.Schedule) -> None:
        self._queue.scheduler.schedule(Selector(evpid=message.evpid), self._queue.clock())
        self._queue.wake()

    def _count(self, message: messages.Count) -> None:
        stats, counted = self._queue.stats, self._peer.counted
        for key, change in message.changes:
            if stats.takes(key):
                stats.add(key, change)
                counted[key] = counted.get(key, 0) + change

    def _leave(self, _message: messages.Leaving) -> None:
        self._peer.leaving = True


def _decode(encoded: List[bytes], body: Union[bytes, int]) -> List[Envelope]:
    """Read the envelopes of a commit, whose body is not to be empty. Raises SpoolError."""
    if not body:
        raise SpoolError("a message without text")
    if not encoded or len(encoded) > messages.MAX_COMMITTED:
        raise SpoolError(f"a message with {len(encoded)} envelopes")
    try:
        return [decode_envelope(octets) for octets in encoded]
    except EnvelopeError as error:
        raise SpoolError(f"an envelope that cannot be read: {error}") from None


_Taker = Callable[[DispatcherSide, "Message"], None]
_TAKERS: Mapping[Type[Message], _Taker] = {
    messages.Report: DispatcherSide._report,  # noqa: SLF001 - the table of this class
    messages.Hold: DispatcherSide._hold,  # noqa: SLF001
    messages.Release: DispatcherSide._release,  # noqa: SLF001
    messages.Schedule: DispatcherSide._schedule,  # noqa: SLF001
    messages.Count: DispatcherSide._count,  # noqa: SLF001
    messages.Leaving: DispatcherSide._leave,  # noqa: SLF001
    messages.Abandon: DispatcherSide._abandon,  # noqa: SLF001
    messages.AddEnvelopes: DispatcherSide._add_envelopes,  # noqa: SLF001
}
