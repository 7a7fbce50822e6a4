"""Short work in a process of its own: what may hang, weigh much, or must run as somebody else.

An errand gives its result through a pipe and ends. One that takes too long is killed, and its
result is None. So many of a kind run at a time; some more wait; the rest is turned away at once.
"""

from __future__ import annotations

import os
import selectors
import signal
from collections import deque
from typing import Callable, Deque, Dict, NamedTuple, Optional, Tuple

MAX_RESULT = (1 << 20) - 1  # octets; an include file is the longest
MAX_WAITING = 200  # errands of a kind that wait their turn

Work = Callable[[], bytes]
Done = Callable[[Optional[bytes]], None]


class Kind(NamedTuple):
    """A kind of errand: how many at once, how long one may take."""

    name: str
    at_once: int
    seconds: int


class _Errand:
    __slots__ = ("deadline", "done", "kind", "octets", "pid")

    def __init__(self, kind: Kind, pid: int, done: Done, deadline: float) -> None:
        self.kind = kind
        self.pid = pid
        self.done = done
        self.deadline = deadline
        self.octets = b""


class Errands:
    """The errands of a process that has a selector."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        monotonic: Callable[[], float],
        leave: Callable[[], None],
    ) -> None:
        """Take leave, which gives up what a forked process has of its parent."""
        self._selector = selector
        self._monotonic = monotonic
        self._leave = leave
        self._running: Dict[int, _Errand] = {}  # by descriptor
        self._count: Dict[Kind, int] = {}
        self._waiting: Dict[Kind, Deque[Tuple[Work, Done]]] = {}

    def run(self, kind: Kind, work: Work, done: Done) -> None:
        """Do some work elsewhere; done gets its result, or None, once."""
        if self._count.get(kind, 0) < kind.at_once:
            self._start(kind, work, done)
            return
        waiting = self._waiting.setdefault(kind, deque())
        if len(waiting) >= MAX_WAITING:
            done(None)
        else:
            waiting.append((work, done))

    def ended(self, pid: int) -> bool:
        """Finish the errand of a child that has ended and was not waited for, if it is one."""
        for descriptor, errand in self._running.items():
            if errand.pid == pid:
                self._read(descriptor)
                if descriptor in self._running:
                    self._end(descriptor)
                return True
        return False

    def _start(self, kind: Kind, work: Work, done: Done) -> None:
        try:
            descriptor, write_end = os.pipe()
        except OSError:
            done(None)
            return
        try:
            pid = os.fork()
        except OSError:
            os.close(descriptor)
            os.close(write_end)
            done(None)
            return
        if pid == 0:
            self._work(work, descriptor, write_end)
        os.close(write_end)
        os.set_blocking(descriptor, False)
        self._running[descriptor] = _Errand(kind, pid, done, self._monotonic() + kind.seconds)
        self._count[kind] = self._count.get(kind, 0) + 1
        self._selector.register(descriptor, selectors.EVENT_READ, self._read)

    def _work(self, work: Work, read_end: int, write_end: int) -> None:
        """Be the child."""
        status = 1
        try:
            os.close(read_end)
            self._leave()
            octets = work()
            if len(octets) <= MAX_RESULT:
                while octets:
                    octets = octets[os.write(write_end, octets) :]
                status = 0
        finally:
            os._exit(status)

    def _read(self, descriptor: int) -> None:
        errand = self._running.get(descriptor)
        if errand is None:
            return
        try:
            piece = os.read(descriptor, MAX_RESULT + 1)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        errand.octets += piece
        if len(errand.octets) > MAX_RESULT:
            os.kill(errand.pid, signal.SIGKILL)
        elif piece:
            return
        self._end(descriptor)

    def _end(self, descriptor: int) -> None:
        errand = self._running.pop(descriptor)
        self._selector.unregister(descriptor)
        os.close(descriptor)
        try:
            _, status = os.waitpid(errand.pid, 0)  # its pipe is closed: it has ended, or was killed
        except ChildProcessError:
            status = 1
        self._count[errand.kind] -= 1
        errand.done(errand.octets if status == 0 else None)
        waiting = self._waiting.get(errand.kind)
        if waiting and self._count[errand.kind] < errand.kind.at_once:
            work, done = waiting.popleft()
            self._start(errand.kind, work, done)

    def next_deadline(self) -> Optional[float]:
        """Say when expire has something to do."""
        return min((each.deadline for each in self._running.values()), default=None)

    def expire(self) -> None:
        """Kill what takes too long."""
        now = self._monotonic()
        for descriptor in [fd for fd, each in self._running.items() if each.deadline <= now]:
            os.kill(self._running[descriptor].pid, signal.SIGKILL)
            self._end(descriptor)

    def forget(self) -> None:
        """Close the descriptors of all errands, in a process that was forked since."""
        for descriptor in self._running:
            os.close(descriptor)
        self._running.clear()
