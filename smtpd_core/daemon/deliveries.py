"""The local deliveries that run: each a process that became the user, with a result to collect."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable, Dict, Optional, Tuple

from smtpd_core.mda import execute
from smtpd_core.mda.job import EX_OSERR, EX_TEMPFAIL, Job, JobError, JobResult, refused

if TYPE_CHECKING:
    from smtpd_core.ipc.messages import RunDelivery
    from smtpd_core.mda.host import Host

MAX_DELIVERIES = 500  # in all; the dispatchers keep to the limits of the configuration

Done = Callable[[JobResult], None]


class Deliveries:
    """The deliveries of a process that forks."""

    def __init__(self, host: Host, monotonic: Callable[[], float]) -> None:
        self._host = host
        self._monotonic = monotonic
        self._running: Dict[int, Tuple[execute.Running, Done, float]] = {}  # by pid

    def __len__(self) -> int:
        return len(self._running)

    def run(self, request: RunDelivery, message_fd: int, done: Done) -> None:
        """Begin a delivery; done gets its result, once. The descriptor is closed."""
        try:
            result = self._start(request, message_fd, done)
        finally:
            os.close(message_fd)
        if result is not None:
            done(result)

    def _start(self, request: RunDelivery, message_fd: int, done: Done) -> Optional[JobResult]:
        try:
            job = Job.from_fields(request.fields)
        except JobError as error:
            return refused(EX_TEMPFAIL, str(error))
        result = execute.check(job)
        if result is not None:
            return result
        if len(self._running) >= MAX_DELIVERIES:
            return refused(EX_TEMPFAIL, "too many deliveries at once")
        try:
            running = execute.start(job, message_fd, self._host)
        except OSError as error:
            return refused(EX_OSERR, f"no process for a delivery: {error.strerror}")
        patience = job.timeout_seconds + execute.LOCK_SECONDS + execute.GRACE_SECONDS
        self._running[running.pid] = running, done, self._monotonic() + patience
        return None

    def ended(self, pid: int, status: int) -> bool:
        """Take the end of a child, if it was one of these."""
        found = self._running.pop(pid, None)
        if found is None:
            return False
        running, done, _ = found
        done(execute.collect(running, status))
        return True

    def pids(self) -> Tuple[int, ...]:
        """Give the processes at work."""
        return tuple(self._running)

    def stop(self, *, at_once: bool) -> None:
        """Ask all to end, or kill them; their ends come to ended as ever."""
        for running, _, _ in self._running.values():
            execute.stop(running, at_once=at_once)

    def next_deadline(self) -> Optional[float]:
        """Say when expire has something to do."""
        return min((deadline for _, _, deadline in self._running.values()), default=None)

    def expire(self) -> None:
        """Kill what did not end by itself in its time."""
        now = self._monotonic()
        for pid, (running, done, deadline) in self._running.items():
            if deadline <= now:
                execute.stop(running, at_once=True)
                self._running[pid] = running, done, now + execute.GRACE_SECONDS

    def forget(self) -> None:
        """Close the descriptors of all deliveries, in a process that was forked since."""
        for running, _, _ in self._running.values():
            os.close(running.result_fd)
        self._running.clear()
