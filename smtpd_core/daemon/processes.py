"""The processes of the roles, as the supervisor holds them: forked, talked to, parted with."""

from __future__ import annotations

import os
import selectors
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Iterator, List, Optional

from smtpd_core.ipc.link import Link, LinkError, PeerError, Received

if TYPE_CHECKING:
    import socket

    from smtpd_core.daemon.log import Log
    from smtpd_core.ipc.messages import Message

PART_SECONDS = 10  # for a process whose link has ended to end too
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
EXIT_FAILURE = 1


@dataclass(eq=False)
class Instance:
    """A role's process; generation counts configurations. queue_end waits until it is ready."""

    name: str
    slot: int
    generation: int
    pid: int
    link: Link
    started: float
    queue_end: Optional[socket.socket] = None
    ready: bool = False
    draining: bool = False
    deadline: Optional[float] = None  # when it is killed
    deaths: int = 0  # how often in a row the one in this slot ended soon


class Processes:
    """The processes that run, and their links in a selector."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        now: Callable[[], float],
        log: Log,
        take: Callable[[Instance, Received], None],
    ) -> None:
        """Give what is received to take."""
        self._selector = selector
        self._now = now
        self._log = log
        self._take = take
        self.queue: Optional[Instance] = None
        self.dispatchers: List[Instance] = []

    def __iter__(self) -> Iterator[Instance]:
        """Go through all of them; some may leave meanwhile."""
        return iter([*self.dispatchers, *([self.queue] if self.queue is not None else [])])

    def fork(self, leave: Callable[[], None], child: Callable[[], int]) -> int:
        """Fork a role; leave gives up what is the supervisor's. No signal comes in between."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        pid = os.fork()
        if pid == 0:
            status = EXIT_FAILURE
            try:
                leave()
                status = child()
            except BaseException as error:  # noqa: BLE001 - the boundary of a process
                self._log.confess(error)
            finally:
                os._exit(status)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return pid

    def forget(self) -> None:
        """Close the links of all, in a process that was forked since."""
        for each in self:
            each.link.close()
            if each.queue_end is not None:
                each.queue_end.close()

    def watch(self, instance: Instance) -> None:
        """Begin to listen to a process."""
        self._selector.register(
            instance.link, selectors.EVENT_READ, lambda _fd: self._on_link(instance)
        )

    def _on_link(self, instance: Instance) -> None:
        if instance.link.fileno() < 0:
            return
        try:
            instance.link.flush()
            if instance.link.receive():
                received = instance.link.next_message()
                while received is not None:
                    self._take(instance, received)
                    received = instance.link.next_message()
        except PeerError as error:
            self._log.complain(str(error))
            self.kill(instance)
            return
        except LinkError:
            self.part(instance)
            return
        self._send(instance)

    def tell(
        self, instance: Optional[Instance], message: Message, descriptor: Optional[int] = None
    ) -> None:
        """Send a message, if there is still somebody to hear it; the descriptor is closed."""
        if instance is None or instance.link.fileno() < 0:
            if descriptor is not None:
                os.close(descriptor)
            return
        instance.link.tell(message, descriptor)
        self._send(instance)

    def reply(self, instance: Instance, serial: int, message: Message) -> None:
        """Send an answer, if there is still somebody to hear it."""
        if instance.link.fileno() >= 0:
            instance.link.reply(serial, message)
            self._send(instance)

    def _send(self, instance: Instance) -> None:
        """Send what waits; watch for room when not all could be sent."""
        if instance.link.fileno() < 0:
            return
        try:
            done = instance.link.flush()
        except LinkError:
            self.part(instance)
            return
        events = selectors.EVENT_READ | (0 if done else selectors.EVENT_WRITE)
        key = self._selector.get_key(instance.link)
        if key.events != events:
            self._selector.modify(instance.link, events, key.data)

    def part(self, instance: Instance) -> None:
        """Hear no more of a process that is about to end, and give it a moment to do so."""
        if instance.link.fileno() >= 0:
            self._selector.unregister(instance.link)
            instance.link.close()
        if instance.deadline is None:
            instance.deadline = self._now() + PART_SECONDS

    def kill(self, instance: Instance) -> None:
        """End a process that cannot be talked to; its end is noticed as any other."""
        self.part(instance)
        instance.deadline = None
        try:
            os.kill(instance.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def kill_late(self) -> None:
        """End those whose time is over."""
        now = self._now()
        for each in self:
            if each.deadline is not None and each.deadline <= now:
                self._log.complain(f"{each.name} did not finish in its time")
                self.kill(each)

    def next_deadline(self) -> Optional[float]:
        """Say when kill_late has something to do."""
        deadlines = [each.deadline for each in self if each.deadline is not None]
        return min(deadlines, default=None)

    def take_away(self, pid: int) -> Optional[Instance]:
        """Strike out a dispatcher that has ended; None when it was none."""
        for each in self.dispatchers:
            if each.pid == pid:
                self.dispatchers.remove(each)
                self.part(each)
                if each.queue_end is not None:
                    each.queue_end.close()
                return each
        return None

    def end_all(self) -> None:
        """Leave nobody behind."""
        everybody = list(self)
        for each in everybody:
            self.kill(each)
        for each in everybody:
            try:
                os.waitpid(each.pid, 0)
            except ChildProcessError:
                continue  # it was the first to end
