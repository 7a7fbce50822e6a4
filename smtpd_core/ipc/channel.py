"""A link within an event loop: questions that are awaited, messages that are not.

A channel takes up to MAX_SERVING requests of its peer at a time and then stops reading: a peer
that asks faster than we answer waits in its own socket. Sending never waits; who sends much calls
drain now and then. A peer that breaks the protocol is closed, and everybody who waits for one of
its answers gets a ChannelError.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Awaitable, Callable, Dict, Optional, Protocol, Set, Tuple

from smtpd_core.errors import RemoteError, SmtpdError
from smtpd_core.ipc import messages
from smtpd_core.ipc.link import Link, LinkError, Received

if TYPE_CHECKING:
    import socket

    from smtpd_core.ipc.messages import Message, Role

MAX_SERVING = 512  # requests of the peer under way at once
HIGH_WATER = 4 << 20  # octets waiting to be sent at which drain begins to wait
LOW_WATER = 1 << 20
_READS = 16  # reads in one turn of the loop, so that one channel cannot starve the others

Answer = Tuple["Message", Optional[int]]


class ChannelError(RemoteError):
    """The peer cannot be asked any more."""


class Service(Protocol):
    """Who is at this end. A descriptor given to it is its own to close."""

    def answer(self, request: Message, descriptor: Optional[int]) -> Awaitable[Answer]:
        """Answer a request; an SmtpdError becomes a Failed with its text."""

    def take(self, message: Message, descriptor: Optional[int]) -> None:
        """Take a message that wants no answer."""

    def lost(self, why: str) -> None:
        """Hear that the channel is closed, but not by us."""


class Channel:
    """This end of a socket pair, in the running event loop."""

    def __init__(
        self,
        end: socket.socket,
        sides: Tuple[Role, Role],
        service: Service,
        confess: Callable[[BaseException], None],
    ) -> None:
        """Begin to read; sides are we and the peer, confess is told of our own mistakes."""
        self._link = Link(end, *sides)
        self._service = service
        self._confess = confess
        self._loop = asyncio.get_running_loop()
        self._waiting: Dict[int, asyncio.Future[Answer]] = {}
        self._serving: Set[asyncio.Task[None]] = set()
        self._drained: Optional[asyncio.Future[None]] = None
        self._writing = False
        self._reading = True
        self.closed = False
        self._loop.add_reader(self._link.fileno(), self._on_readable)

    # ---- sending -----------------------------------------------------------------------

    def send(self, message: Message, descriptor: Optional[int] = None) -> None:
        """Send a message that wants no answer; the descriptor is closed afterwards.

        To a channel that is closed it is lost, as it would be in a peer that is dying.
        """
        if self.closed:
            if descriptor is not None:
                os.close(descriptor)
            return
        self._link.tell(message, descriptor)
        self._flush()

    async def request(self, message: Message, descriptor: Optional[int] = None) -> Answer:
        """Ask, and give the answer and its descriptor. Raises ChannelError."""
        if self.closed:
            if descriptor is not None:
                os.close(descriptor)
            raise ChannelError(f"the {self._link.peer.value} is gone")
        serial = self._link.ask(message, descriptor)
        waiting: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[serial] = waiting
        self._flush()
        return await waiting

    async def drain(self, limit: int = HIGH_WATER) -> None:
        """Wait while more than so many octets are waiting to be sent; 0 waits for all."""
        while self._link.queued > limit and not self.closed:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def _flush(self) -> None:
        try:
            done = self._link.flush()
        except LinkError as error:
            self._fail(str(error))
            return
        if done and self._writing:
            self._loop.remove_writer(self._link.fileno())
        elif not done and not self._writing:
            self._loop.add_writer(self._link.fileno(), self._flush)
        self._writing = not done
        if self._link.queued <= LOW_WATER:
            self._wake()

    def _wake(self) -> None:
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.set_result(None)

    # ---- receiving ---------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            for _ in range(_READS):
                if not self._reading or not self._link.receive():
                    break
                self._take_messages()
        except LinkError as error:
            self._fail(str(error))

    def _take_messages(self) -> None:
        """Act on all that has arrived, unless too many requests are under way."""
        while not self.closed:
            if len(self._serving) >= MAX_SERVING:
                if self._reading:
                    self._reading = False
                    self._loop.remove_reader(self._link.fileno())
                return
            received = self._link.next_message()
            if received is None:
                break
            self._take(received)
        if not self._reading and not self.closed:
            self._reading = True
            self._loop.add_reader(self._link.fileno(), self._on_readable)

    def _take(self, received: Received) -> None:
        if received.is_answer:
            waiting = self._waiting.pop(received.serial, None)
            if waiting is not None and not waiting.done():
                waiting.set_result((received.message, received.descriptor))
            elif received.descriptor is not None:  # who asked has stopped waiting
                os.close(received.descriptor)
        elif received.serial:
            task = self._loop.create_task(self._serve(received))
            self._serving.add(task)
            task.add_done_callback(self._served)
        else:
            try:
                self._service.take(received.message, received.descriptor)
            except Exception as error:  # noqa: BLE001 - one bad message must not stop the rest
                self._confess(error)

    async def _serve(self, received: Received) -> None:
        try:
            message, descriptor = await self._service.answer(received.message, received.descriptor)
        except SmtpdError as error:
            message, descriptor = messages.Failed(str(error)[: messages.MAX_ERROR // 4]), None
        except Exception as error:  # noqa: BLE001 - the boundary of one request
            self._confess(error)
            message, descriptor = messages.Failed("internal error"), None
        if self.closed:
            if descriptor is not None:
                os.close(descriptor)
            return
        self._link.reply(received.serial, message, descriptor)
        self._flush()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            assert error is not None
            self._confess(error)
        if not self._reading and not self.closed:
            try:
                self._take_messages()
            except LinkError as error:
                self._fail(str(error))

    # ---- the end -----------------------------------------------------------------------

    def _fail(self, why: str) -> None:
        if not self.closed:
            self.close()
            self._service.lost(why)

    def close(self) -> None:
        """Close, and tell everybody who waits; may be called again."""
        if self.closed:
            return
        self.closed = True
        if self._reading:
            self._loop.remove_reader(self._link.fileno())
        if self._writing:
            self._loop.remove_writer(self._link.fileno())
        self._link.close()
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            if not each.done():
                each.set_exception(ChannelError(f"the {self._link.peer.value} is gone"))
        self._wake()
