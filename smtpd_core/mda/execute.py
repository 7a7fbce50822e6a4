"""Run a job in a process of its own, as its user; and the supervisor's end of that.

`start` forks. The child leaves everything behind that it has of the supervisor: session, signals,
descriptors, groups, privileges; it then delivers, writes one JobResult to a pipe, and exits. The
supervisor waits for the pid and calls `collect`, which believes the pipe no further than a user
may be believed, whose process it is.

A mailbox in the mail directory needs a lock there, which users may not make: so for an mbox the
child stays privileged, makes the lock, forks a second child that becomes the user, and removes
the lock when that has ended.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Iterable, Optional, Tuple

from smtpd_core.errors import SmtpdError
from smtpd_core.mda import command, lmtp, maildir, mbox
from smtpd_core.mda.job import (
    EX_OSERR,
    EX_TEMPFAIL,
    MAX_RESULT,
    Ending,
    JobError,
    JobResult,
    Method,
    exited,
    refuse,
    refused,
)
from smtpd_core.mda.message import Message
from smtpd_core.mda.stopping import StoppedError, arm, block, settle, unblock
from smtpd_core.text import encode

if TYPE_CHECKING:
    from typing import NoReturn

    from smtpd_core.mda.host import Host
    from smtpd_core.mda.job import Job

GRACE_SECONDS = 30  # after its own time-out a child has so long before it is killed
MAX_DESCRIPTOR = 4096  # the highest that is closed where the system does not list them
UMASK = 0o077
LOCK_SECONDS = 20  # what waiting for a lock may add

_FIRST_KEPT = 10  # descriptors of ours are moved here, out of the way of 0 to 3
_STANDARD = 4  # 0, 1, 2, and 3, which is command's


class PrivilegeError(SmtpdError):
    """A process that is not who it must be."""


@dataclass(frozen=True)
class Running:
    """A child at work; its result comes through a pipe."""

    pid: int
    result_fd: int
    job: Job


def check(job: Job) -> Optional[JobResult]:
    """Give the result of a job that this process must not, or cannot, run."""
    refusal = refuse(job)
    if refusal is None and os.geteuid() not in (0, job.uid):
        return refused(EX_OSERR, f"cannot deliver as {job.user}: not running as root")
    return refusal


def start(job: Job, message_fd: int, host: Host) -> Running:
    """Fork a child that runs a job that check() let pass; message_fd stays open here.

    Raises OSError when there can be no process now.
    """
    result_fd, write_fd = os.pipe()
    os.set_blocking(result_fd, False)
    # No signal reaches the child before it has let go of the supervisor's handlers.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            run_child(job, message_fd, write_fd, host)
    except BaseException:
        os.close(result_fd)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(write_fd)
    return Running(pid, result_fd, job)


def stop(running: Running, *, at_once: bool = False) -> None:
    """Ask a child to end, or kill it; its end is then to be waited for."""
    number = signal.SIGKILL if at_once else signal.SIGTERM
    try:
        os.killpg(running.pid, number)
    except ProcessLookupError:  # it has no session of its own yet
        os.kill(running.pid, number)


def collect(running: Running, wait_status: int) -> JobResult:
    """Give the result of a child that was waited for, and close its pipe."""
    try:
        octets = os.read(running.result_fd, MAX_RESULT + 1)
    except BlockingIOError:
        octets = b""  # somebody else holds the pipe, who cannot tell us anything either
    finally:
        os.close(running.result_fd)
    if os.WIFSIGNALED(wait_status):
        return JobResult(Ending.SIGNAL, os.WTERMSIG(wait_status))
    if octets:
        try:
            return JobResult.decode(octets)
        except JobError:
            return exited(EX_TEMPFAIL, "the delivery gave no proper result")
    return exited(os.WEXITSTATUS(wait_status) or EX_TEMPFAIL)


def run_child(job: Job, message_fd: int, result_fd: int, host: Host) -> NoReturn:
    """Be the child: run the job, write its result, exit. Never returns, whatever happens."""
    status = EX_TEMPFAIL
    try:
        message_fd, result_fd = _leave_supervisor(message_fd, result_fd)
        if job.method is Method.MBOX:
            arm(job.timeout_seconds + LOCK_SECONDS)
            result = _guarded(lambda: _run_locked(job, message_fd, result_fd, host))
        else:
            arm(job.timeout_seconds)
            result = _guarded(lambda: _run_as_user(job, message_fd, host))
        if result is not None:
            os.write(result_fd, result.encode())
        status = 0
    finally:
        os._exit(status)


def _run_locked(job: Job, message_fd: int, result_fd: int, host: Host) -> Optional[JobResult]:
    """Deliver to a mailbox while holding its lock; as root by a second child.

    None: that one has written its result.
    """
    with mbox.prepared(job, host):
        if os.geteuid() != 0:
            return _run_as_user(job, message_fd, host)
        block()  # neither of the two may miss what is meant for both
        pid = os.fork()
        if pid == 0:
            _run_second(job, message_fd, result_fd, host)
        status = _wait(pid)
    if os.WIFSIGNALED(status):
        return JobResult(Ending.SIGNAL, os.WTERMSIG(status))
    return None


def _wait(pid: int) -> int:
    """Wait for the second child, and stop it when this one is stopped; give its wait status.

    From here on nothing stops this one: the second child's result is the only one.
    """
    try:
        unblock()
        _, status = os.waitpid(pid, 0)
        settle()
    except StoppedError:
        try:
            os.kill(pid, signal.SIGTERM)
            _, status = os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return 0  # it had been waited for when the signal came
    return status


def _run_second(job: Job, message_fd: int, result_fd: int, host: Host) -> NoReturn:
    """Be the second child, which appends as the user."""
    try:
        arm(job.timeout_seconds)
        result = _guarded(lambda: _run_unblocked(job, message_fd, host))
        assert result is not None
        os.write(result_fd, result.encode())
    finally:
        os._exit(0)


def _run_unblocked(job: Job, message_fd: int, host: Host) -> JobResult:
    unblock()
    return _run_as_user(job, message_fd, host)


def _guarded(deliver: Callable[[], Optional[JobResult]]) -> Optional[JobResult]:
    """Make a result of whatever a delivery does: it is the boundary of the process."""
    try:
        return deliver()
    except StoppedError as stopped:
        if stopped.by_timeout:
            return JobResult(Ending.TIMEOUT)
        return JobResult(Ending.KILLED, text="terminated; shutdown")
    except OSError as error:
        name = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return exited(EX_TEMPFAIL, f"{name}{error.strerror or error}")
    except SmtpdError as error:
        return exited(EX_TEMPFAIL, str(error))
    except Exception as error:  # noqa: BLE001  our own mistake must not lose mail either
        return exited(EX_TEMPFAIL, f"{type(error).__name__}: {error}")


def _run_as_user(job: Job, message_fd: int, host: Host) -> JobResult:
    _become(job)
    message = Message(encode(job.prefix), message_fd)
    if job.method is Method.COMMAND:
        return command.run(job.script, job.environment, message)
    if job.script:
        result, message = command.wrapped(job.script, job.environment, message)
        if (result.ending, result.number) != (Ending.EXIT, 0) or not result.consumed:
            return result
    if job.method is Method.MAILDIR:
        return maildir.deliver(job, message, host)
    if job.method is Method.LMTP:
        return lmtp.deliver(job, message)
    return mbox.deliver(job, message, host)


def _leave_supervisor(message_fd: int, result_fd: int) -> Tuple[int, int]:
    """Give up what was inherited, but for two descriptors, which are given under new numbers."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)  # errors here; subprocess undoes both for a shell
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    os.umask(UMASK)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # memory of the supervisor is in this one
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_KEPT) for fd in (message_fd, result_fd)]
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(_STANDARD):
        os.dup2(null, descriptor, inheritable=descriptor < _STANDARD - 1)
    for descriptor in _open_descriptors():
        if descriptor >= _STANDARD and descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:
                pass  # the one that listed them
    return kept[0], kept[1]


def _open_descriptors() -> Iterable[int]:
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(directory)]
        except (OSError, ValueError):
            continue
    return range(MAX_DESCRIPTOR)


def _become(job: Job) -> None:
    """Become the user for good, primary group only, and go home.

    Raises SmtpdError when root could be had back.
    """
    if os.geteuid() == 0:
        os.setgroups([job.gid])
        os.setresgid(job.gid, job.gid, job.gid)
        os.setresuid(job.uid, job.uid, job.uid)
        if job.uid != 0 and 0 in os.getresuid():
            raise PrivilegeError("root privileges were not given up")
    if (os.getuid(), os.geteuid()) != (job.uid, job.uid):
        raise PrivilegeError(f"this process is not {job.user}'s")
    try:
        os.chdir(job.home)
    except OSError:
        os.chdir("/")
