"""Commands: fed, listened to, ended."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mda.command import MAX_LINE, MAX_TAIL, LastLine
from smtpd_core.mda.execute import Running, collect, start, stop
from smtpd_core.mda.job import Ending, Job, JobResult, Method, exited, outcome_of

if TYPE_CHECKING:
    from pathlib import Path

    from smtpd_core.mda.host import Host

Run = Callable[..., JobResult]
MakeJob = Callable[..., Job]
BIG = b"Subject: x\n\n" + b"0123456789\n" * 100_000


def test_the_message_is_all_of_its_input(run: Run, make_job: MakeJob, home: Path) -> None:
    job = make_job(Method.COMMAND, script="cat > got; pwd > where", prefix="P: x\n")
    assert run(job, BIG) == exited(0)
    assert (home / "got").read_bytes() == b"P: x\n" + BIG
    assert (home / "where").read_bytes().strip() == os.fsencode(home)


def test_the_environment_is_what_the_job_says(run: Run, make_job: MakeJob, home: Path) -> None:
    environment = (("PATH", "/usr/bin:/bin"), ("SENDER", "a b\n$(id)\udcff"))
    job = make_job(Method.COMMAND, script="env -0 > got; cat", environment=environment)
    assert run(job).number == 0
    got = set((home / "got").read_bytes().split(b"\0")) - {b""}
    assert got >= {b"PATH=/usr/bin:/bin", b"SENDER=a b\n$(id)\xff"}
    # a shell adds its own
    names = {each.partition(b"=")[0] for each in got}
    assert names <= {b"PATH", b"SENDER", b"PWD", b"OLDPWD", b"SHLVL", b"_"}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_nothing_of_the_supervisor_is_inherited(run: Run, make_job: MakeJob, home: Path) -> None:
    with tempfile.TemporaryFile() as secret:
        os.set_inheritable(secret.fileno(), True)
        script = (
            "cat >/dev/null; ls -l /proc/self/fd > fds; ulimit -c > core; umask > mask;"
            " grep -E '^Sig(Ign|Blk)|^Groups|^[UG]id' /proc/self/status > status"
        )
        job = make_job(Method.COMMAND, script=script)
        assert run(job) == exited(0)
    lines = (home / "fds").read_text().splitlines()
    names = {line.split(" -> ")[0].split()[-1] for line in lines if " -> " in line}
    assert names <= {"0", "1", "2", "3"}  # 3 is that of ls itself, which lists
    assert (home / "core").read_text() == "0\n"
    assert int((home / "mask").read_text(), 8) == 0o077
    status = dict(line.split(":", 1) for line in (home / "status").read_text().splitlines())
    assert status["SigIgn"].strip("\t 0") == ""
    assert status["SigBlk"].strip("\t 0") == ""
    assert status["Uid"].split() == [str(job.uid)] * 4
    assert status["Gid"].split() == [str(job.gid)] * 4
    if os.geteuid() == 0:
        assert status["Groups"].split() == [str(job.gid)]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("cat; exit 0", exited(0, "Hello")),
        ("cat >/dev/null; exit 75", exited(75)),
        ("cat >/dev/null; echo a; echo 'no such user' >&2; exit 67", exited(67, "no such user")),
        ("cat >/dev/null; printf 'x\\n\\n \\n'; exit 1", exited(1, "x")),
        ("cat >/dev/null; kill -9 $$", JobResult(Ending.SIGNAL, 9)),
        ("cat >/dev/null; kill -11 $$", JobResult(Ending.SIGNAL, 11)),
        ("if then", exited(2)),
        ("no-such-command", exited(127)),
    ],
)
def test_how_it_ends(run: Run, make_job: MakeJob, script: str, expected: JobResult) -> None:
    result = run(make_job(Method.COMMAND, script=script))
    assert (result.ending, result.number) == (expected.ending, expected.number)
    if expected.text:
        assert result.text == expected.text


def test_a_message_that_is_not_taken_is_not_delivered(run: Run, make_job: MakeJob) -> None:
    for script in ("exit 0", "exec 0<&-; echo closed; exit 0", "head -c 10 >/dev/null; exit 0"):
        result = run(make_job(Method.COMMAND, script=script), BIG)
        assert (result.ending, result.number, result.consumed) == (Ending.EXIT, 0, False)
        assert outcome_of(result).text == "mda exited prematurely"


def test_much_output_is_no_matter(run: Run, make_job: MakeJob) -> None:
    script = "cat; cat /dev/zero | head -c 3000000; echo; echo last"
    assert run(make_job(Method.COMMAND, script=script), BIG) == exited(0, "last")


def test_what_stays_in_the_background_is_not_waited_for(
    run: Run, make_job: MakeJob, home: Path
) -> None:
    began = time.monotonic()
    job = make_job(Method.COMMAND, script="cat >/dev/null; sleep 60 & echo $! > pid; echo done")
    assert run(job) == exited(0, "done")
    assert time.monotonic() - began < 30
    os.kill(int((home / "pid").read_text()), 9)


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_when_its_time_is_over_all_of_it_is_killed(run: Run, make_job: MakeJob, home: Path) -> None:
    script = "trap '' TERM; sleep 60 & echo $! $$ > pids; wait"
    result = run(make_job(Method.COMMAND, script=script, timeout_seconds=1))
    assert result == JobResult(Ending.TIMEOUT)
    pids = [int(pid) for pid in (home / "pids").read_text().split()]
    assert len(pids) == 2
    assert not any(is_alive(pid) for pid in pids)


def begun(job: Job, host: Host, file: int, mark: Path) -> Running:
    """Start a job and wait until it has got somewhere."""
    running = start(job, file, host)
    deadline = time.monotonic() + 20
    while not mark.exists() and time.monotonic() < deadline:
        os.sched_yield()
    return running


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize("at_once", [False, True])
def test_it_can_be_stopped(make_job: MakeJob, host: Host, home: Path, at_once: bool) -> None:
    job = make_job(Method.COMMAND, script="echo $$ > x; mv x pid; sleep 60")
    with tempfile.TemporaryFile() as file:
        running = begun(job, host, file.fileno(), home / "pid")
        stop(running, at_once=at_once)
        result = collect(running, os.waitpid(running.pid, 0)[1])
    pid = int((home / "pid").read_text())
    if at_once:  # nobody was left to kill it
        assert result == JobResult(Ending.SIGNAL, 9)
        os.killpg(pid, 9)
    else:
        assert result == JobResult(Ending.KILLED, text="terminated; shutdown")
        assert not is_alive(pid)


def test_a_wrapper_changes_what_is_delivered(run: Run, make_job: MakeJob, home: Path) -> None:
    script = "(echo X-Filtered: yes; cat) | cat >&3"
    job = make_job(Method.MAILDIR, argument=f"{home}/Maildir", script=script, prefix="P: x\n")
    assert run(job, BIG) == exited(0)
    (stored,) = (home / "Maildir" / "new").iterdir()
    assert stored.read_bytes() == b"X-Filtered: yes\nP: x\n" + BIG


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("cat >&3; echo no; exit 69", exited(69, "no")),
        ("cat >&3; exit 75", exited(75)),
        ("exit 0", exited(0, consumed=False)),
        ("cat >&3; kill -9 $$", JobResult(Ending.SIGNAL, 9)),
    ],
)
def test_a_wrapper_that_fails_delivers_nothing(
    run: Run, make_job: MakeJob, home: Path, script: str, expected: JobResult
) -> None:
    job = make_job(Method.MAILDIR, argument=f"{home}/Maildir", script=script)
    assert run(job, BIG) == expected
    assert not (home / "Maildir").exists()


def test_what_a_wrapper_did_to_the_message_goes_by_its_own_result(
    run: Run, make_job: MakeJob, home: Path
) -> None:
    job = make_job(Method.MAILDIR, argument=f"{home}/Maildir", script="cat >&3")
    assert run(replace(job, argument="relative")).number == 75


@given(st.lists(st.binary(max_size=300)))
def test_the_last_line_however_it_is_cut(pieces: list[bytes]) -> None:
    whole, cut = LastLine(), LastLine()
    whole.feed(b"".join(pieces))
    for piece in pieces:
        cut.feed(piece)
    assert whole.text() == cut.text()
    assert "\n" not in whole.text()


def test_the_last_line_is_bounded() -> None:
    line = LastLine()
    for _ in range(100):
        line.feed(b"x" * MAX_TAIL)
    assert line.text() == "x" * MAX_LINE
