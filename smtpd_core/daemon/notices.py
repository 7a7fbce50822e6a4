"""Notices to senders: bounce envelopes that are due are gathered, composed, and sent as new mail.

A notice goes to a dispatcher, which hands it to its own listener as local mail with the null
sender. Once that has taken it, the bounce envelopes are done; when it refuses for good, nobody is
told: that would be a notice about a notice.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import TYPE_CHECKING, Iterator, List

from smtpd_core.daemon.setting import zone
from smtpd_core.ids import format_msgid
from smtpd_core.ipc import messages
from smtpd_core.ipc.channel import ChannelError
from smtpd_core.mail.dsn import compose
from smtpd_core.mail.received import format_date
from smtpd_core.mail.status import Outcome, Result, StatusError, one_line, outcome
from smtpd_core.queue.bounce import Gathering, Group
from smtpd_core.queue.disk import SpoolError

if TYPE_CHECKING:
    from smtpd_core.daemon.queue import Queue

MAX_AT_ONCE = 2  # notices under way, as the original
MAX_HEADER = 256 * 1024  # octets of a header section that are returned
SEND_SECONDS = 120.0  # for a dispatcher to take a notice
_PIECE = 65536


class Notices:
    """All notices of the queue role."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._gathering = Gathering()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    async def take(self, evpids: List[int]) -> None:
        """Take bounce envelopes that are due, and send what has waited long enough."""
        queue = self._queue
        for evpid, envelope in (await queue.read(evpids)).items():
            self._gathering.add(evpid, envelope, self._queue.clock())
            queue.stats.add("bounce.envelope")
        while True:
            wake = self._gathering.wake_time()
            if wake is None:
                return
            if wake > self._queue.clock():
                await asyncio.sleep(0.2)
                if queue.ending:
                    return
                continue
            for group in self._gathering.take(self._queue.clock()):
                queue.stats.add("bounce.envelope", -len(group.evpids))
                queue.begin(self._send(group))

    async def _send(self, group: Group) -> None:
        """Send one notice, and settle its bounce envelopes."""
        queue = self._queue
        async with self._slots:
            if queue.ending:
                return
            queue.stats.add("bounce.session")
            queue.stats.add("bounce.message")
            try:
                found = await asyncio.wait_for(self._attempt(group), SEND_SECONDS)
            except asyncio.TimeoutError:
                found = outcome(Result.TEMPORARY, "nobody takes the notice")
            finally:
                queue.stats.add("bounce.session", -1)
                queue.stats.add("bounce.message", -1)
        if found.result in (Result.DELIVERED, Result.PERMANENT):
            if found.result is Result.PERMANENT:
                self._complain("PermFail", group, found)
            await queue.outcomes.drop(group.evpids)
            return
        self._complain("TempFail", group, found)
        for evpid, envelope in zip(group.evpids, group.envelopes):
            await queue.outcomes.settle(evpid, envelope, found)

    def _complain(self, result: str, group: Group, found: Outcome) -> None:
        self._queue.log.complain(
            f"{result} injecting failure report on message {format_msgid(group.msgid)} to"
            f" <{group.envelopes[0].sender}> for {len(group.evpids)} envelope(s): {found.text}"
        )

    async def _attempt(self, group: Group) -> Outcome:
        queue = self._queue
        peer = queue.peers.any()
        if peer is None or peer.channel is None:
            return outcome(Result.TEMPORARY, "no dispatcher is there")
        try:
            original = await queue.open_message(group.msgid)
        except SpoolError as error:
            queue.log.complain(str(error))
            original = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            notice = await asyncio.get_running_loop().run_in_executor(
                None, self._compose, group, original
            )
        finally:
            os.close(original)
        request = messages.Inject(group.envelopes[0].sender)
        try:
            answer, _ = await peer.channel.request(request, notice)
            if isinstance(answer, messages.Failed):
                return outcome(Result.TEMPORARY, answer.text)
            return outcome(Result(answer.result), one_line(answer.text))
        except (ChannelError, ValueError, StatusError) as error:
            return outcome(Result.TEMPORARY, str(error))

    def _compose(self, group: Group, original: int) -> int:
        """Write a notice to a file without a name; give its descriptor. Runs in a thread."""
        now = self._queue.clock()
        head = _read_header(original)
        pieces = _pieces(original) if group.full else iter((head,))
        report = group.report(
            boundary=f"{os.urandom(12).hex()}/{group.envelopes[0].smtpname[:32]}",
            date=format_date(now, *zone(now)),
            relayed=group.envelopes[0].dispatcher not in self._queue.local,
            eightbit=_has_eight_bits(_pieces(original) if group.full else iter((head,))),
        )
        descriptor = _unnamed_file()
        try:
            for piece in compose(report, pieces, full=group.full):
                view = memoryview(piece)
                while view:
                    view = view[os.write(descriptor, view) :]
            os.lseek(descriptor, 0, os.SEEK_SET)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("notice", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _pieces(descriptor: int) -> Iterator[bytes]:
    offset = 0
    while True:
        piece = os.pread(descriptor, _PIECE, offset)
        if not piece:
            return
        yield piece
        offset += len(piece)


def _read_header(descriptor: int) -> bytes:
    """Read the header section, its end left out; of one that is too long the beginning."""
    octets = b""
    for piece in _pieces(descriptor):
        octets += piece
        end = octets.find(b"\n\n")
        if end >= 0:
            return octets[: end + 1]
        if len(octets) > MAX_HEADER:
            return octets[: octets.rfind(b"\n", 0, MAX_HEADER) + 1]
    return octets


def _has_eight_bits(pieces: Iterator[bytes]) -> bool:
    return any(not piece.isascii() for piece in pieces)
