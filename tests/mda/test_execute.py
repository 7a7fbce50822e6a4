"""The child of the supervisor: who it is, and what is believed of what it says."""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
from typing import TYPE_CHECKING, Callable, Tuple

import pytest

from smtpd_core.mda.execute import Running, check, collect, start, stop
from smtpd_core.mda.job import Ending, Job, JobResult, Method, exited

if TYPE_CHECKING:
    from pathlib import Path

    from smtpd_core.mda.host import Host

Run = Callable[..., JobResult]
MakeJob = Callable[..., Job]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def said(octets: bytes, status: int) -> JobResult:
    """Give what is believed of a child that wrote octets and ended with a wait status."""
    result_fd, write_fd = os.pipe()
    os.set_blocking(result_fd, False)
    os.write(write_fd, octets)
    os.close(write_fd)
    return collect(Running(0, result_fd, Job(Method.MBOX, "bob", 1, 1, "/")), status)


@pytest.mark.parametrize(
    ("octets", "status", "result"),
    [
        (exited(69, "no").encode(), 0, exited(69, "no")),
        (exited(0).encode(), 9, JobResult(Ending.SIGNAL, 9)),
        (b"", 11, JobResult(Ending.SIGNAL, 11)),
        (b"", 0, exited(75)),
        (b"", 75 << 8, exited(75)),
        (b"rubbish", 0, exited(75, "the delivery gave no proper result")),
        (exited(0).encode() * 2, 0, exited(75, "the delivery gave no proper result")),
        (b"x" * 10_000, 0, exited(75, "the delivery gave no proper result")),
    ],
)
def test_what_is_believed(octets: bytes, status: int, result: JobResult) -> None:
    assert said(octets, status) == result


def test_a_pipe_that_somebody_keeps_open_is_not_waited_for(make_job: MakeJob) -> None:
    result_fd, write_fd = os.pipe()
    os.set_blocking(result_fd, False)
    assert collect(Running(0, result_fd, make_job(Method.MBOX)), 0) == exited(75)
    os.close(write_fd)


def test_the_descriptors_of_the_supervisor_stay(host: Host, make_job: MakeJob) -> None:
    before = set(os.listdir("/dev/fd"))
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
        file.flush()
        running = start(make_job(Method.COMMAND, script="cat"), file.fileno(), host)
        _, status = os.waitpid(running.pid, 0)
        assert collect(running, status) == exited(0, "x")
        assert os.pread(file.fileno(), 10, 0) == b"x"
    assert set(os.listdir("/dev/fd")) == before


def test_handlers_and_masks_of_the_supervisor_end_with_it(
    run: Run, make_job: MakeJob, home: Path
) -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))
    try:
        job = make_job(Method.COMMAND, script="cat >/dev/null; kill -HUP $$; touch survived")
        assert run(job) == JobResult(Ending.SIGNAL, signal.SIGHUP)
        job = make_job(Method.COMMAND, script="cat >/dev/null; kill -USR1 $$; touch survived")
        assert run(job) == JobResult(Ending.SIGNAL, signal.SIGUSR1)
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGHUP, old)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert not (home / "survived").exists()


def test_a_home_that_cannot_be_entered_is_no_obstacle(
    run: Run, make_job: MakeJob, home: Path
) -> None:
    script = "cat >/dev/null; pwd"
    assert run(make_job(Method.COMMAND, script=script, home="/no/such")) == exited(0, "/")
    assert run(make_job(Method.COMMAND, script=script)) == exited(0, str(home))


@needs_root
def test_there_is_no_way_back_to_root(run: Run, make_job: MakeJob, top: Path) -> None:
    (top / "secret").write_bytes(b"x")
    (top / "secret").chmod(0o600)
    job = make_job(Method.COMMAND, script=f"cat >/dev/null; id -G; cat {top}/secret && exit 9")
    result = run(job)
    assert (result.number, "Permission denied" in result.text) == (1, True)


def test_who_may_run(make_job: MakeJob) -> None:
    assert check(make_job(Method.COMMAND, script="x")) is None
    refusal = check(make_job(Method.COMMAND, script="x", uid=0))
    assert refusal is not None
    assert refusal.text == "MDA not allowed to deliver to: bob"


@pytest.mark.skipif(os.geteuid() == 0, reason="is about those who are not root")
def test_who_is_not_root_delivers_to_nobody_else(make_job: MakeJob) -> None:
    refusal = check(make_job(Method.COMMAND, script="x", uid=os.getuid() + 1))
    assert refusal is not None
    assert refusal.number == 71


def test_stopping_who_waits_for_a_lock_removes_no_lock_of_others(
    host: Host, make_job: MakeJob, mail: Path
) -> None:
    lock = mail / "bob.lock"
    lock.write_bytes(b"")
    with tempfile.TemporaryFile() as file:
        running = start(make_job(Method.MBOX), file.fileno(), host)
        stop(running)
        _, status = os.waitpid(running.pid, 0)
        result = collect(running, status)
    assert result in (
        JobResult(Ending.KILLED, text="terminated; shutdown"),
        JobResult(Ending.SIGNAL, signal.SIGTERM),  # it had not yet begun
    )
    assert lock.exists()
    assert not (mail / "bob").exists()


def test_stopping_who_holds_the_lock_gives_it_back(
    host: Host, make_job: MakeJob, mail: Path, owner: Tuple[int, int]
) -> None:
    path = mail / "bob"
    path.write_bytes(b"before\n")
    os.chown(path, *owner)
    with path.open("r+b") as reader, tempfile.TemporaryFile() as file:
        fcntl.lockf(reader, fcntl.LOCK_EX)
        running = start(make_job(Method.MBOX), file.fileno(), host)
        while not (mail / "bob.lock").exists():
            os.sched_yield()
        stop(running)
        _, status = os.waitpid(running.pid, 0)
        result = collect(running, status)
    assert result.ending in (Ending.KILLED, Ending.SIGNAL)
    assert not (mail / "bob.lock").exists()
    assert path.read_bytes() == b"before\n"
