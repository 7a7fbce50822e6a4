"""Share the units of a listing between two processes, and put their results back in order.

Theory of operation. The child takes every second unit and sends what it makes of them through a
pipe, as frames; the parent does the others itself and takes the child's frames in between, so
that all is consumed in the order of the units. A pipe holds little: neither side gets far ahead
of the other, and memory stays flat. What is made of a unit are steps, the same whoever makes it:
when the child dies, whatever the reason, the parent makes the steps of its unit that did not
arrive, and all units that follow, and nothing is lost or doubled.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Optional, TypeVar

    Unit = TypeVar("Unit")
    Step = tuple[bytes, bytes]  # what kind of result, one octet; the result
    Produce = Callable[[Unit], Iterator[Step]]
    Consume = Callable[[bytes, bytes], None]

_FRAME = struct.Struct("!cI")  # kind, octets that follow
_END = b"."  # the unit is complete
_FRAME_MAX = 1 << 24  # far above any; a larger one is no frame of ours
_PIPE_OCTETS = 1 << 20  # room for the child to work ahead while the parent is busy
_SIGKILL = 9  # importing signal costs 4 ms
_F_SETPIPE_SZ = 1031  # Linux; the fcntl module names it from 3.10 on


class _ChildGoneError(Exception):
    """The child ended without finishing its unit."""


def run_shared(units: list[Unit], produce: Produce[Unit], consume: Consume) -> None:
    """Consume what `produce` makes of each unit, in order, made by two processes.

    Without a second process, all is made here. What `consume` raises ends it all.
    """
    child = _start(units[1::2], produce)
    if child is None:
        run_alone(units, produce, consume)
        return
    pid, descriptor = child
    try:
        alive = True
        for index, unit in enumerate(units):
            done = 0
            if index % 2 and alive:
                try:
                    for kind, result in _receive_unit(descriptor):
                        consume(kind, result)
                        done += 1
                    continue
                except _ChildGoneError:
                    alive = False
            _make(unit, produce, consume, done)
    finally:
        os.close(descriptor)
        _end(pid)


def run_alone(units: list[Unit], produce: Produce[Unit], consume: Consume) -> None:
    """Consume what `produce` makes of each unit, in order."""
    for unit in units:
        _make(unit, produce, consume, 0)


def _make(unit: Unit, produce: Produce[Unit], consume: Consume, done: int) -> None:
    """Make one unit here, except for the steps that were consumed already."""
    for index, (kind, result) in enumerate(produce(unit)):
        if index >= done:
            consume(kind, result)


def _start(units: list[Unit], produce: Produce[Unit]) -> Optional[tuple[int, int]]:
    """Fork the child; None when the system does not allow it, and one process must do."""
    try:
        receiving, sending = os.pipe()
    except OSError:
        return None
    try:
        pid = os.fork()
    except OSError:
        os.close(receiving)
        os.close(sending)
        return None
    if pid:
        os.close(sending)
        _widen(receiving)
        return pid, receiving
    status = 1
    try:
        os.close(receiving)
        for unit in units:
            for kind, result in produce(unit):
                _send(sending, kind, result)
            _send(sending, _END, b"")
        status = 0
    finally:  # whatever it was, the parent sees the pipe end and does the work itself
        os._exit(status)  # never run what the parent has to run at its exit


def _widen(descriptor: int) -> None:
    try:
        import fcntl

        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_OCTETS)
    except (ImportError, OSError):
        pass  # it works with the room there is


def _send(descriptor: int, kind: bytes, result: bytes) -> None:
    view = memoryview(_FRAME.pack(kind, len(result)) + result)
    while view:
        view = view[os.write(descriptor, view) :]


def _receive_unit(descriptor: int) -> Iterator[Step]:
    """Give the results of one unit of the child; raises _ChildGoneError."""
    while True:
        kind, size = _FRAME.unpack(_receive(descriptor, _FRAME.size))
        if size > _FRAME_MAX:
            raise _ChildGoneError
        if kind == _END:
            return
        yield kind, _receive(descriptor, size)


def _receive(descriptor: int, size: int) -> bytes:
    pieces = []
    while size:
        try:
            piece = os.read(descriptor, size)
        except OSError:
            piece = b""
        if not piece:
            raise _ChildGoneError
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _end(pid: int) -> None:
    """End the child, which has nothing left to say, even if a dead disk holds it up."""
    try:
        os.kill(pid, _SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError, PermissionError):
        pass
