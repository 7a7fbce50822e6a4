"""The supervisor: forks the roles, answers what needs root, and takes everything down at the end.

Theory of operation. One process, no threads, no event loop but a selector: its forks are cheap
and safe. A generation is one configuration's set of dispatchers. At the start and at a reload a
generation is forked; when all of it is ready, and only then, the queue role hears of its members
and its configuration, and an older generation is told to finish what it has begun: no session,
no delivery and no mail is lost, and a configuration that cannot work changes nothing.

A dispatcher that dies is replaced, later each time it dies soon; the queue role gives its work
out again. Without the queue role nothing can go on: all end, and the service manager starts anew.
An orderly end goes from the outside inwards: dispatchers finish within a bound, deliveries too,
then the queue role, whose flushed spool is all that has to survive.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    List,
    Optional,
    Protocol,
    Sequence,
    Tuple,
)

from smtpd_core.daemon.deliveries import Deliveries
from smtpd_core.daemon.errands import Errands
from smtpd_core.daemon.processes import HANDLED, Instance, Processes
from smtpd_core.daemon.questions import KINDS, decode_answer
from smtpd_core.errors import SmtpdError
from smtpd_core.ipc import messages
from smtpd_core.ipc.link import Link, Received, pair
from smtpd_core.ipc.messages import Message, Role

if TYPE_CHECKING:
    from smtpd_core.config.model import Config
    from smtpd_core.daemon.log import Log
    from smtpd_core.daemon.sockets import Listening, Sockets
    from smtpd_core.mda.host import Host
    from smtpd_core.mda.job import JobResult

STOP_SECONDS = 60  # sessions and deliveries may take so long to finish when all is to end
KILL_SECONDS = 10  # and so long more once they were told that it is over
DRAIN_SECONDS = 600  # for an old generation: as long as a session can hold out, and its delivery
READY_SECONDS = 120  # for a new one: tables may be large
RESTART_SECONDS = 30  # the longest pause before a dispatcher that keeps dying is started again
SOON_SECONDS = 10  # who dies within it dies soon

EXIT_OK = 0
EXIT_FAILURE = 1


class Roles(Protocol):
    """What the forked processes do; each call returns the exit status of its process."""

    def run_queue(self, config: Config, end: socket.socket) -> int:
        """Be the queue role."""

    def run_dispatcher(
        self, config: Config, slot: int, listening: Sequence[Listening], ends: Ends
    ) -> int:
        """Be a dispatcher."""

    def policy(self, config: Config) -> messages.QueuePolicy:
        """Give what the queue role needs of a configuration."""

    def answer(self, request: Message) -> bytes:
        """Give an encoded answer to a question, in a process of its own, root where we are."""

    def load(self) -> Config:
        """Read the configuration again; raises SmtpdError."""


Ends = Tuple[socket.socket, socket.socket]  # of the links to the supervisor and to the queue


class Supervisor:
    """The process at the top."""

    def __init__(
        self, config: Config, roles: Roles, sockets: Sockets, log: Log, host: Host
    ) -> None:
        self._config = config
        self._roles = roles
        self._sockets = sockets
        self._log = log
        self.workers = 1
        self.on_ready: Callable[[], None] = lambda: None
        self.on_reload: Callable[[bool], None] = lambda _begins: None
        self._selector = selectors.DefaultSelector()
        self._now: Callable[[], float] = time.monotonic
        self._errands = Errands(self._selector, self._now, self._leave)
        self._deliveries = Deliveries(host, self._now)
        self._processes = Processes(self._selector, self._now, log, self._take)
        self._generation = 0
        self._pending: Optional[Config] = None  # of a generation that is not ready yet
        self._listening: List[Listening] = []
        self._before: List[Listening] = []  # while a generation is pending: the older one's
        self._restarts: Dict[int, Tuple[float, int]] = {}  # slot: when, how often so far
        self._deadline: Optional[float] = None  # of the present stage of stopping, or of READY
        self._stopping = 0  # stages: 0 no, 1 finishing, 2 told to end, 3 the queue's turn
        self._status: Optional[int] = None
        self._wake, self._waker = socket.socketpair()

    # ---- life --------------------------------------------------------------------------

    def run(self) -> int:
        """Run until all is over; give the exit status."""
        self._catch_signals()
        try:
            self._listening = self._sockets.bind(self._config)
            self._start_queue()
            self._start_generation(self._config)
            while self._status is None:
                self._turn()
        finally:
            self._sockets.close()
            self._deliveries.stop(at_once=True)
            self._processes.end_all()
            signal.set_wakeup_fd(-1)
        return self._status

    def _catch_signals(self) -> None:
        for end in (self._wake, self._waker):
            end.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, lambda _number, _frame: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._selector.register(self._wake, selectors.EVENT_READ, self._on_signal)

    def _turn(self) -> None:
        deadlines = [
            deadline
            for deadline in (
                self._deadline,
                self._errands.next_deadline(),
                self._deliveries.next_deadline(),
                self._processes.next_deadline(),
                *(when for when, _ in self._restarts.values()),
            )
            if deadline is not None
        ]
        timeout = max(0.0, min(deadlines) - self._now()) if deadlines else None
        for key, _ in self._selector.select(timeout):
            if self._status is None:  # what was closed meanwhile takes no notice
                key.data(key.fd)
        self._errands.expire()
        self._deliveries.expire()
        self._check_deadlines()

    def _check_deadlines(self) -> None:
        now = self._now()
        for slot in [slot for slot, (when, _) in self._restarts.items() if when <= now]:
            count = self._restarts.pop(slot)[1]
            if not self._stopping:
                self._start_dispatcher(self._config, slot, self._listening).deaths = count
        self._processes.kill_late()
        if self._deadline is not None and self._deadline <= now:
            self._deadline = None
            if self._stopping:
                self._stop_harder()
            elif self._pending is not None:
                self._fail_generation("a dispatcher does not get ready")
        if (
            self._stopping in (1, 2)
            and not self._processes.dispatchers
            and not len(self._deliveries)
        ):
            self._stop_queue()

    # ---- forking -----------------------------------------------------------------------

    def _leave(self) -> None:
        """Give up, in a forked process, all that is the supervisor's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # who ends is told by the supervisor
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        self._selector.close()
        self._wake.close()
        self._waker.close()
        self._errands.forget()
        self._deliveries.forget()
        self._processes.forget()

    def _start_queue(self) -> None:
        ours, theirs = pair()

        def child() -> int:
            ours.close()
            self._sockets.close()
            return self._roles.run_queue(self._config, theirs)

        pid = self._processes.fork(self._leave, child)
        theirs.close()
        link = Link(ours, Role.SUPERVISOR, Role.QUEUE)
        self._processes.queue = Instance("the queue role", 0, 0, pid, link, self._now())
        self._processes.watch(self._processes.queue)

    def _start_generation(self, config: Config) -> None:
        self._generation += 1
        self._pending = config
        self._deadline = self._now() + READY_SECONDS
        for slot in range(self.workers):
            self._start_dispatcher(config, slot, self._listening)

    def _start_dispatcher(
        self, config: Config, slot: int, listening: Sequence[Listening]
    ) -> Instance:
        ours, theirs = pair()
        queue_end, dispatcher_end = pair()

        def child() -> int:
            ours.close()
            queue_end.close()
            self._sockets.retain(listening)
            return self._roles.run_dispatcher(config, slot, listening, (theirs, dispatcher_end))

        pid = self._processes.fork(self._leave, child)
        theirs.close()
        dispatcher_end.close()
        instance = Instance(
            f"dispatcher {slot + 1}",
            slot,
            self._generation,
            pid,
            Link(ours, Role.SUPERVISOR, Role.DISPATCHER),
            self._now(),
            queue_end,
        )
        self._processes.dispatchers.append(instance)
        self._processes.watch(instance)
        return instance

    # ---- what is asked -----------------------------------------------------------------

    def _take(self, instance: Instance, received: Received) -> None:
        message = received.message
        if isinstance(message, messages.Ready):
            instance.ready = True
            self._check_ready()
        elif isinstance(message, messages.RunDelivery):
            assert received.descriptor is not None  # messages.check_received saw to it
            self._deliveries.run(
                message, received.descriptor, self._answer_delivery(instance, received.serial)
            )
        elif type(message) in KINDS:
            self._errands.run(
                KINDS[type(message)],
                lambda: self._roles.answer(message),
                lambda octets: self._processes.reply(
                    instance, received.serial, decode_answer(octets, type(message))
                ),
            )

    def _answer_delivery(self, instance: Instance, serial: int) -> Callable[[JobResult], None]:
        def done(result: JobResult) -> None:
            self._processes.reply(instance, serial, messages.DeliveryEnded(result.fields()))

        return done

    # ---- generations -------------------------------------------------------------------

    def _check_ready(self) -> None:
        """Put a generation into force once all of it, and the queue role, is ready."""
        if self._processes.queue is None or not self._processes.queue.ready:
            return
        current = [
            each for each in self._processes.dispatchers if each.generation == self._generation
        ]
        if self._pending is not None:
            if len(current) < self.workers or not all(each.ready for each in current):
                return
            self._enforce(self._pending)
        for each in current:
            if each.ready and each.queue_end is not None:
                end, each.queue_end = each.queue_end, None
                self._processes.tell(
                    self._processes.queue, messages.AddDispatcher(each.slot), end.detach()
                )

    def _enforce(self, config: Config) -> None:
        first = self._generation == 1
        self._pending = None
        self._deadline = None
        self._config = config
        self._sockets.retain(self._listening)
        self._restarts.clear()
        if not first:
            self._processes.tell(self._processes.queue, self._roles.policy(config))
        for each in self._processes.dispatchers:
            if each.generation < self._generation:
                self._drain(each, DRAIN_SECONDS)
        if first:
            self.on_ready()
        else:
            self._log("info", "info: configuration reloaded")
            self.on_reload(False)

    def _drain(self, instance: Instance, seconds: int) -> None:
        if not instance.draining:
            instance.draining = True
            instance.deadline = self._now() + seconds
            self._processes.tell(instance, messages.Drain())

    def _reload(self) -> None:
        if self._stopping or self._pending is not None:
            self._log.complain("reload: another change is under way; this one is left out")
            return
        self.on_reload(True)
        before = self._listening
        try:
            config = self._roles.load()
            self._listening = self._sockets.bind(config)
        except SmtpdError as error:
            self._listening = before
            for line in str(error).splitlines():
                self._log.complain(f"reload: {line}")
            self._log.complain("reload: the configuration stays as it was")
            self.on_reload(False)
            return
        self._before = before
        self._start_generation(config)

    def _fail_generation(self, why: str) -> None:
        """Give up a generation before it is in force: at the start all ends, later nothing does."""
        self._pending = None
        self._deadline = None
        for each in list(self._processes.dispatchers):
            if each.generation == self._generation:
                self._processes.kill(each)
        if self._generation == 1:
            self._log("crit", f"fatal: {why}")
            self._status = EXIT_FAILURE
            return
        self._listening = self._before
        self._sockets.retain(self._listening)
        self._generation -= 1
        self._log.complain(f"reload: {why}: the configuration stays as it was")
        self.on_reload(False)

    # ---- ends --------------------------------------------------------------------------

    def _on_signal(self, _fd: int) -> None:
        try:
            numbers = self._wake.recv(4096)
        except BlockingIOError:
            return
        if signal.SIGCHLD in numbers:
            self._reap()
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()
        elif signal.SIGHUP in numbers:
            self._reload()

    def _reap(self) -> None:
        """Take the ends of all children that have ended, those of orphans too (as process 1)."""
        while self._status is None:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            if self._errands.ended(found.si_pid):
                continue
            _, status = os.waitpid(found.si_pid, 0)
            if not self._deliveries.ended(found.si_pid, status):
                self._role_ended(found.si_pid, status)

    def _role_ended(self, pid: int, status: int) -> None:
        if self._processes.queue is not None and pid == self._processes.queue.pid:
            if self._stopping >= 3 and status == 0:
                self._status = EXIT_OK
            else:
                self._log("crit", f"fatal: the queue role ended ({_describe(status)})")
                self._status = EXIT_FAILURE
            return
        instance = self._processes.take_away(pid)
        if instance is None:
            return
        if instance.draining or self._stopping or instance.generation != self._generation:
            return
        if self._pending is not None:
            self._fail_generation(f"{instance.name} ended ({_describe(status)})")
            return
        soon = self._now() - instance.started < SOON_SECONDS
        deaths = instance.deaths + 1 if soon else 0
        pause = min(RESTART_SECONDS, 2 ** (deaths - 1) - 1) if soon else 0
        self._log.complain(f"{instance.name} ended ({_describe(status)}): replaced in {pause}s")
        self._restarts[instance.slot] = self._now() + pause, deaths

    def _stop(self) -> None:
        """Begin to stop; asked once more, end what runs at once."""
        if self._stopping:
            self._stop_harder()
            return
        self._stopping = 1
        self._deadline = self._now() + STOP_SECONDS
        self._restarts.clear()
        self._sockets.close()
        if self._pending is not None:
            self._pending = None
        for each in list(self._processes.dispatchers):
            if each.ready:
                self._drain(each, STOP_SECONDS + 2 * KILL_SECONDS)
            else:
                self._processes.kill(each)

    def _stop_harder(self) -> None:
        if self._stopping == 1:
            self._stopping = 2
            self._deadline = self._now() + KILL_SECONDS
            self._deliveries.stop(at_once=False)
        elif self._stopping == 2:
            self._deadline = self._now() + KILL_SECONDS
            self._deliveries.stop(at_once=True)
            for each in list(self._processes.dispatchers):
                self._processes.kill(each)
        else:
            self._log("crit", "fatal: the queue role does not end")
            self._status = EXIT_FAILURE

    def _stop_queue(self) -> None:
        self._stopping = 3
        self._deadline = self._now() + STOP_SECONDS
        self._processes.tell(self._processes.queue, messages.Drain())


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit {os.WEXITSTATUS(status)}"
