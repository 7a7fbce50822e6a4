"""One end of a socket pair between two roles: messages in and out, never waiting.

Whoever owns a Link watches its socket: a selector in the supervisor, an event loop behind
channel.Channel. Descriptors travel beside the first octet of their frame and are taken in order;
those received close on exec. Everything received is checked here, before anybody acts on it.

A process that may open nothing more gets no descriptor either: the system drops it and marks the
read. What came with it has then failed, and nothing else: an answer becomes Failed, a request is
answered so, and a message that wants no answer is lost, as when we died and were replaced.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Tuple, Type

from smtpd_core.errors import LocalError, RemoteError
from smtpd_core.ipc import frames, messages
from smtpd_core.ipc.frames import Frame, FrameError, FrameReader
from smtpd_core.ipc.messages import Message, MessageError, Role

MAX_QUEUED = 64 << 20  # octets a peer may leave unread before it counts as hung
_READ = 256 * 1024  # octets taken at once
_INT = struct.Struct("i")
_MAX_ANCILLARY = 16  # descriptors in one read; frames carry one each, and reads stop at them
_LOST = -1  # in place of a descriptor that the system could not give us
_NO_ROOM = "no descriptor can be taken: too many files are open"
_MAX_UNCLAIMED = 64  # descriptors that came before their frame was whole
_GIVES_DESCRIPTOR = frozenset({messages.OpenBody, messages.OpenMessage})


class LinkError(RemoteError):
    """The other end is gone, or worse; the link is of no use any more."""


class PeerError(LinkError):
    """The other end did what it must never do; it is not to be trusted any more."""


class Received(NamedTuple):
    """A message, checked. serial is 0 in one that wants no answer."""

    message: Message
    serial: int
    is_answer: bool
    descriptor: Optional[int]


def pair() -> Tuple[socket.socket, socket.socket]:
    """Make the two ends of a link; neither blocks nor outlives an exec."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setblocking(False)
    return ends


class Link:
    """An end of a link between two roles."""

    def __init__(self, end: socket.socket, me: Role, peer: Role) -> None:
        """Take over a socket; me and peer decide who may say what."""
        end.setblocking(False)
        self.me = me
        self.peer = peer
        self.queued = 0  # octets that wait to be sent
        self._socket = end
        self._reader = FrameReader()
        self._descriptors: Deque[int] = deque()
        self._out: Deque[Tuple[memoryview, Optional[int]]] = deque()
        self._asked: Dict[int, Type[Any]] = {}
        self._serial = 0

    def fileno(self) -> int:
        """Give the descriptor to watch; -1 when closed."""
        return self._socket.fileno()

    # ---- sending -----------------------------------------------------------------------

    def tell(self, message: Message, descriptor: Optional[int] = None) -> None:
        """Queue a message that wants no answer; a descriptor is closed once it is sent."""
        self._queue(message, 0, descriptor, is_answer=False)

    def ask(self, message: Message, descriptor: Optional[int] = None) -> int:
        """Queue a request; give the serial its answer will have."""
        self._serial = self._serial % frames.MAX_SERIAL + 1
        while self._serial in self._asked:
            self._serial = self._serial % frames.MAX_SERIAL + 1
        self._queue(message, self._serial, descriptor, is_answer=False)
        self._asked[self._serial] = type(message)
        return self._serial

    def reply(self, serial: int, message: Message, descriptor: Optional[int] = None) -> None:
        """Queue the answer to a request."""
        self._queue(message, serial, descriptor, is_answer=True)

    def _queue(
        self, message: Message, serial: int, descriptor: Optional[int], *, is_answer: bool
    ) -> None:
        try:
            number, payload = messages.encode_message(message)
            frame = Frame(number, payload, serial, is_answer, descriptor is not None)
            octets = frames.encode_frame(frame)
        except LocalError:
            if descriptor is not None:
                os.close(descriptor)
            raise
        self._out.append((memoryview(octets), descriptor))
        self.queued += len(octets)

    def flush(self) -> bool:
        """Send what the socket takes now; tell whether all is sent. Raises LinkError."""
        try:
            while self._out:
                octets, descriptor = self._out[0]
                ancillary = []
                if descriptor is not None:
                    packed = _INT.pack(descriptor)
                    ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, packed))
                sent = self._socket.sendmsg([octets], ancillary, socket.MSG_NOSIGNAL)
                self.queued -= sent
                if descriptor is not None:
                    os.close(descriptor)
                if sent == len(octets):
                    self._out.popleft()
                else:
                    self._out[0] = (octets[sent:], None)
        except (BlockingIOError, InterruptedError):
            if self.queued > MAX_QUEUED:
                raise PeerError(f"the {self.peer.value} does not read") from None
            return False
        except OSError as error:
            raise LinkError(f"the {self.peer.value} is gone: {error.strerror}") from None
        return True

    # ---- receiving ---------------------------------------------------------------------

    def receive(self) -> bool:
        """Take what has arrived; False when there was nothing. Raises LinkError."""
        try:
            octets, ancillary, flags, _ = self._socket.recvmsg(
                _READ,
                socket.CMSG_SPACE(_MAX_ANCILLARY * _INT.size),
                getattr(socket, "MSG_CMSG_CLOEXEC", 0),
            )
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise LinkError(f"the {self.peer.value} is gone: {error.strerror}") from None
        taken: List[int] = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                usable = len(data) - len(data) % _INT.size
                taken.extend(each for (each,) in _INT.iter_unpack(data[:usable]))
        self._descriptors.extend(taken)
        if flags & socket.MSG_CTRUNC and not taken:
            self._descriptors.append(_LOST)
        elif flags & socket.MSG_CTRUNC or len(self._descriptors) > _MAX_UNCLAIMED:
            raise PeerError(f"the {self.peer.value} sent too many descriptors")
        if not octets:
            raise LinkError(f"the {self.peer.value} is gone")
        self._reader.feed(octets)
        return True

    def next_message(self) -> Optional[Received]:
        """Give the next message that has arrived whole, or None. Raises LinkError."""
        while True:
            received = self._next_message()
            if received is None or received.descriptor != _LOST:
                return received
            if received.is_answer:
                return received._replace(message=messages.Failed(_NO_ROOM), descriptor=None)
            if received.serial:
                self.reply(received.serial, messages.Failed(_NO_ROOM))

    def _next_message(self) -> Optional[Received]:
        """Do so, with _LOST for a descriptor that there should be."""
        descriptor = None
        try:
            frame = self._reader.next_frame()
            if frame is None:
                return None
            if frame.has_descriptor:
                descriptor = self._claim()
            message = messages.decode_message(frame.type, frame.payload)
            self._check(frame, message)
        except (FrameError, MessageError) as error:
            if descriptor is not None and descriptor != _LOST:
                os.close(descriptor)
            raise PeerError(f"the {self.peer.value} broke the protocol: {error}") from None
        return Received(message, frame.serial, frame.is_answer, descriptor)

    def _claim(self) -> int:
        if not self._descriptors:
            raise MessageError("the descriptor of a message is missing")
        return self._descriptors.popleft()

    def _check(self, frame: Frame, message: Message) -> None:
        if not frame.is_answer:
            messages.check_received(
                message,
                self.peer,
                self.me,
                request=frame.serial != 0,
                descriptor=frame.has_descriptor,
            )
            return
        asked = self._asked.pop(frame.serial, None)
        if asked is None:
            raise MessageError("an answer to nothing")
        if type(message) not in messages.ANSWERS[asked]:
            raise MessageError(f"{type(message).__name__} does not answer {asked.__name__}")
        given = isinstance(message, messages.Done) and asked in _GIVES_DESCRIPTOR
        if frame.has_descriptor is not given:
            raise MessageError(f"{type(message).__name__}: a descriptor too many, or none")

    # ---- the end -----------------------------------------------------------------------

    def close(self) -> None:
        """Close the socket and every descriptor that waits; may be called again."""
        for _, descriptor in self._out:
            if descriptor is not None:
                os.close(descriptor)
        for descriptor in self._descriptors:
            if descriptor != _LOST:
                os.close(descriptor)
        self._out.clear()
        self._descriptors.clear()
        self._asked.clear()
        self.queued = 0
        self._socket.close()
