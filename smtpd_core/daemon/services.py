"""What a dispatcher asks of the other roles, as calls: the queue's service, the supervisor's.

Message ids are leased in batches, so that a new message costs no question. Envelopes travel in
a text form that holds all of them: format 3 as release 6.8 writes it, formats 1 and 2 as theirs.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING, Callable, Deque, List, Optional, Sequence, Tuple, Union

from smtpd_core import text
from smtpd_core.errors import LocalError
from smtpd_core.ipc import messages
from smtpd_core.ipc.channel import Channel, ChannelError
from smtpd_core.ipc.messages import QueueError
from smtpd_core.mda.job import EX_TEMPFAIL, Job, JobError, JobResult, refused
from smtpd_core.queue.envelope import Envelope, EnvelopeError, parse_envelope
from smtpd_core.queue.releases import find_release, format_envelope
from smtpd_core.routing.policy import User
from smtpd_core.routing.rules import Failure

if TYPE_CHECKING:
    from smtpd_core.ipc.messages import Message
    from smtpd_core.mail.status import Outcome

LEASE = 200  # ids asked for at once
LEASE_LOW = 50  # ids left when more are asked for
ENVELOPE_OCTETS = 448 * 1024  # of envelopes in one message; the body of a Commit fits beside them
_RELEASE = find_release("6.8")
_OLD_RELEASE = find_release("5.7")  # it reads format 1 too, and writes format 2
_OLDEST_RELEASE = find_release("5.2.1")  # its format 1 has fields that no other knows


def encode_envelope(envelope: Envelope) -> bytes:
    """Give an envelope's text form. Raises EnvelopeError for what must not be written."""
    if envelope.mta_relay_host:
        return format_envelope(envelope, _OLDEST_RELEASE)
    return format_envelope(envelope, _RELEASE if envelope.version == 3 else _OLD_RELEASE)


def decode_envelope(octets: bytes) -> Envelope:
    """Read an envelope another role sent. Raises EnvelopeError for the slightest damage."""
    parsed = parse_envelope(octets)
    if parsed.damage:
        raise EnvelopeError("; ".join(parsed.damage))
    return parsed.envelope


class QueueClient:
    """The queue role, asked through a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._leased: Deque[int] = deque()
        self._leasing: Optional[asyncio.Task[None]] = None

    async def new_msgid(self) -> int:
        """Give an id that no other message has. Raises QueueError."""
        if len(self._leased) < LEASE_LOW and self._leasing is None:
            self._leasing = asyncio.ensure_future(self._lease())
        if not self._leased:
            assert self._leasing is not None
            await asyncio.shield(self._leasing)
        if not self._leased:
            raise QueueError("no message id can be had")
        return self._leased.popleft()

    async def _lease(self) -> None:
        try:
            answer, _ = await self._ask(messages.LeaseIds(LEASE))
            self._leased.extend(answer.msgids)
        except QueueError:
            pass  # whoever waits finds none
        finally:
            self._leasing = None

    async def open_body(self, msgid: int) -> int:
        """Give the descriptor of a new file for a large body. Raises QueueError."""
        _, descriptor = await self._ask(messages.OpenBody(msgid))
        assert descriptor is not None
        return descriptor

    async def open_message(self, msgid: int) -> int:
        """Give a descriptor at the beginning of the plain text of a message. Raises QueueError."""
        _, descriptor = await self._ask(messages.OpenMessage(msgid))
        assert descriptor is not None
        return descriptor

    async def commit(
        self, msgid: int, envelopes: Sequence[Envelope], body: Union[bytes, int]
    ) -> Sequence[int]:
        """Give the ids of the envelopes once a message is on disk.

        A body is its octets, or the descriptor of open_body, which stays the caller's to close.
        Raises QueueError.
        """
        try:
            encoded = [encode_envelope(envelope) for envelope in envelopes]
        except EnvelopeError as error:
            await self.abandon(msgid)
            raise QueueError(f"an envelope that cannot be stored: {error}") from error
        carried, octets = None, 0
        if not isinstance(body, bytes):
            octets = os.fstat(body).st_size
        elif len(body) > messages.MAX_BODY:
            await self._write_body(msgid, body)
            octets = len(body)
        else:
            carried, octets = body, len(body)
        *before, last = _batches(encoded)
        for batch in before:
            self._channel.send(messages.AddEnvelopes(msgid, batch))
        await self._channel.drain()
        answer, _ = await self._ask(messages.Commit(msgid, last, carried, octets))
        evpids: Sequence[int] = answer.evpids
        return evpids

    async def _write_body(self, msgid: int, body: bytes) -> None:
        descriptor = await self.open_body(msgid)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError as error:
            await self.abandon(msgid)
            raise QueueError(f"cannot write a body: {error.strerror}") from error
        finally:
            os.close(descriptor)

    async def abandon(self, msgid: int) -> None:
        """Give up a message that was opened and will not be committed."""
        self._channel.send(messages.Abandon(msgid))

    def report(self, evpid: int, outcome: Outcome, *, peer_reports: bool = False) -> None:
        """Tell what an attempt came to."""
        told = messages.Report(
            evpid, outcome.result.value, str(outcome.status), outcome.text, peer_reports
        )
        self._channel.send(told)

    def hold(self, evpid: int, holdq: str) -> None:
        """Give an envelope back until its hold queue is released."""
        self._channel.send(messages.Hold(evpid, holdq))

    def release(self, holdq: str, count: int) -> None:
        """Ask for envelopes of a hold queue again; count 0 is all."""
        self._channel.send(messages.Release(holdq, count))

    def schedule(self, evpid: int) -> None:
        """Ask for an envelope before its time."""
        self._channel.send(messages.Schedule(evpid))

    def leave(self) -> None:
        """Say that what was given to us and not reported was not tried."""
        self._channel.send(messages.Leaving())

    def tell_counters(self, changes: Sequence[Tuple[str, int]]) -> None:
        """Tell how counters changed."""
        for start in range(0, len(changes), messages.MAX_COUNTERS):
            part = tuple(changes[start : start + messages.MAX_COUNTERS])
            self._channel.send(messages.Count(part))

    async def _ask(self, request: Message) -> Tuple[Message, Optional[int]]:
        try:
            answer, descriptor = await self._channel.request(request)
        except ChannelError as error:
            raise QueueError(str(error)) from error
        if isinstance(answer, messages.Failed):
            raise QueueError(answer.text)
        return answer, descriptor


def _batches(encoded: Sequence[bytes]) -> List[Tuple[bytes, ...]]:
    """Part envelopes into what fits a message each; at least one part."""
    batches: List[Tuple[bytes, ...]] = []
    batch: List[bytes] = []
    octets = 0
    for each in encoded:
        if batch and (octets + len(each) > ENVELOPE_OCTETS or len(batch) == messages.MAX_ENVELOPES):
            batches.append(tuple(batch))
            batch, octets = [], 0
        batch.append(each)
        octets += len(each) + 4
    return [*batches, tuple(batch)]


class SupervisorClient:
    """The supervisor, asked through a channel."""

    def __init__(self, channel: Channel, log: Callable[[str, str], None]) -> None:
        self._channel = channel
        self._log = log

    async def read_forward(self, user: User) -> Union[str, Failure, None]:
        """Give the text of a user's .forward; None when there is none."""
        return await self._read(messages.ReadForward(*user))

    async def read_include(self, path: str) -> Union[str, Failure, None]:
        """Give the text of a file that an alias table includes; None when there is none."""
        return await self._read(messages.ReadInclude(path))

    async def _read(self, request: Message) -> Union[str, Failure, None]:
        try:
            answer, _ = await self._channel.request(request)
        except (ChannelError, LocalError) as error:
            return Failure(str(error))
        if isinstance(answer, messages.Refused):
            self._log("warn", f"warn: {answer.why}")
            return Failure(answer.why, answer.permanent)
        if isinstance(answer, messages.Failed):
            return Failure(answer.text)
        return None if answer.text is None else text.decode(answer.text)

    async def find_user(self, name: str) -> Union[User, Failure, None]:
        """Give a user of the system; None when there is none of that name."""
        try:
            answer, _ = await self._channel.request(messages.FindUser(name))
        except ChannelError as error:
            return Failure(str(error))
        except LocalError:  # longer than any name may be
            return None
        if isinstance(answer, messages.Failed):
            return Failure(answer.text)
        return None if answer.home is None else User(name, answer.uid, answer.gid, answer.home)

    async def check_password(self, user: str, password: str) -> Optional[bool]:
        """Tell whether a password is a system user's; None when it cannot be known now."""
        try:
            answer, _ = await self._channel.request(messages.CheckPassword(user, password))
        except ChannelError:
            return None
        except LocalError:  # longer than any password may be
            return False
        good: Optional[bool] = answer.good if isinstance(answer, messages.Checked) else None
        return good

    async def run(self, job: Job, message_fd: int) -> JobResult:
        """Run one local delivery; the descriptor of the message stays the caller's."""
        descriptor = os.dup(message_fd)
        try:
            answer, _ = await self._channel.request(messages.RunDelivery(job.fields()), descriptor)
        except (ChannelError, LocalError) as error:
            return refused(EX_TEMPFAIL, str(error))
        if isinstance(answer, messages.Failed):
            return refused(EX_TEMPFAIL, answer.text)
        try:
            return JobResult.from_fields(answer.fields)
        except JobError as error:
            return refused(EX_TEMPFAIL, str(error))
