"""Mailboxes: appended to by one at a time, and never through what leads elsewhere."""

from __future__ import annotations

import fcntl
import mailbox
import os
import resource
import subprocess
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Tuple

import pytest

from smtpd_core.mda import mbox
from smtpd_core.mda.execute import collect, start
from smtpd_core.mda.job import Job, JobResult, Method, exited
from smtpd_core.mda.mbox import LOCK_STALE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from smtpd_core.mda.host import Host

Run = Callable[..., JobResult]
MakeJob = Callable[..., Job]

TEXT = b"Subject: x\n\nFrom me\nFrom you\n"


def hasty(host: Host) -> Host:
    """Give the same machine, where nobody waits for a lock."""
    return replace(host, pause=lambda _: None)


def deliver(job: Job, host: Host, text: bytes = TEXT) -> JobResult:
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.flush()
        running = start(job, file.fileno(), host)
        return collect(running, os.waitpid(running.pid, 0)[1])


def bodies(path: Path) -> list[bytes]:
    """Read a mailbox as others do."""
    box = mailbox.mbox(path, create=False)
    try:
        return [bytes(box.get_bytes(key)) for key in box.iterkeys()]
    finally:
        box.close()


def test_a_mailbox_is_made_for_its_user_and_appended_to(
    run: Run, make_job: MakeJob, mail: Path, owner: Tuple[int, int]
) -> None:
    job = make_job(Method.MBOX, prefix="Delivered-To: bob@example.org\n")
    assert run(job, TEXT) == exited(0)
    assert run(replace(job, sender="", prefix=""), b"no line end") == exited(0)
    path = mail / "bob"
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (*owner, 0o600)
    lines = path.read_bytes().split(b"\n")
    assert lines[0].startswith(b"From alice@example.com ")
    assert lines[1:6] == [
        b"Delivered-To: bob@example.org",
        b"Subject: x",
        b"",
        b">From me",
        b"From you",
    ]
    assert lines[6] == b""
    assert lines[7].startswith(b"From MAILER-DAEMON ")
    assert lines[8:] == [b"no line end", b"", b""]
    assert sorted(each.name for each in mail.iterdir()) == ["bob"]


def test_a_file_by_name_is_made_and_every_line_is_looked_at(
    run: Run, make_job: MakeJob, home: Path, owner: Tuple[int, int]
) -> None:
    job = make_job(Method.FILE, argument=f"{home}/archive")
    assert run(job, TEXT) == exited(0)
    assert run(job, TEXT) == exited(0)
    path = home / "archive"
    found = path.stat()
    assert (found.st_uid, found.st_mode & 0o7777) == (owner[0], 0o600)
    assert path.read_bytes().count(b"\n>From me\n>From you\n\n") == 2


def test_the_null_device_takes_everything(run: Run, make_job: MakeJob) -> None:
    assert run(make_job(Method.FILE, argument="/dev/null")) == exited(0)


@pytest.mark.parametrize(
    ("there", "between"), [(b"x", b"\n\n"), (b"x\n", b"\n"), (b"x\n\n", b""), (b"", b"")]
)
def test_a_message_begins_behind_an_empty_line(
    run: Run, make_job: MakeJob, mail: Path, there: bytes, between: bytes
) -> None:
    path = mail / "bob"
    job = make_job(Method.MBOX)
    path.write_bytes(there)
    os.chown(path, job.uid, job.gid)
    assert run(job) == exited(0)
    assert path.read_bytes().startswith(there + between + b"From alice")


def plant(kind: str, path: Path, victim: Path) -> None:
    """Put something into the way of a delivery."""
    if kind == "symlink":
        path.symlink_to(victim)
    elif kind == "dangling":
        path.symlink_to(victim.parent / "new")
    elif kind == "hard link":
        os.link(victim, path)
    elif kind == "fifo":
        os.mkfifo(path, 0o666)
        path.chmod(0o666)
    else:
        path.mkdir()
    if kind in ("fifo", "directory"):
        os.chown(path, victim.stat().st_uid, victim.stat().st_gid)


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo", "directory"])
@pytest.mark.parametrize("method", [Method.MBOX, Method.FILE])
def test_what_leads_elsewhere_is_not_followed(
    make_job: MakeJob, host: Host, top: Path, method: Method, kind: str
) -> None:
    """The victim is the user's own: the user's rights alone would not stop it."""
    victim = top / "victim"
    victim.write_bytes(b"precious")
    where = top / ("mail" if method is Method.MBOX else "home") / "bob"
    job = make_job(method, argument=str(where))
    os.chown(victim, job.uid, job.gid)
    plant(kind, where, victim)
    result = deliver(job, hasty(host))
    assert (result.number, bool(result.text)) == (75, True)
    assert victim.read_bytes() == b"precious"
    assert not (top / "new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
@pytest.mark.parametrize("method", [Method.MBOX, Method.FILE])
def test_a_file_of_somebody_else_is_not_touched(
    make_job: MakeJob, host: Host, top: Path, method: Method
) -> None:
    where = top / ("mail" if method is Method.MBOX else "home") / "bob"
    where.write_bytes(b"")
    where.chmod(0o666)
    os.chown(where, 1, 1)
    result = deliver(make_job(method, argument=str(where)), hasty(host))
    assert (result.number, result.text) == (75, f"{where}: belongs to somebody else")
    assert where.read_bytes() == b""


@pytest.mark.parametrize("user", ["", "../bob", "a/b", ".", "..", ".bob", "bob.lock", "a\udcff/"])
def test_names_that_are_none(make_job: MakeJob, host: Host, mail: Path, user: str) -> None:
    result = deliver(make_job(Method.MBOX, user=user), hasty(host))
    assert result.number == 75
    assert list(mail.iterdir()) == []


def test_a_lock_beside_the_mailbox_is_waited_for_and_respected(
    make_job: MakeJob, host: Host, mail: Path
) -> None:
    lock = mail / "bob.lock"
    lock.write_bytes(b"")
    result = deliver(make_job(Method.MBOX), hasty(host))
    assert (result.number, result.text) == (75, "bob.lock: still locked")
    assert lock.exists()
    assert not (mail / "bob").exists()


def test_a_lock_of_the_dead_is_broken(make_job: MakeJob, host: Host, mail: Path) -> None:
    lock = mail / "bob.lock"
    lock.write_bytes(b"")
    then = host.clock() - LOCK_STALE_SECONDS - 1
    os.utime(lock, (then, then))
    assert deliver(make_job(Method.MBOX), hasty(host)) == exited(0)
    assert not lock.exists()


def test_a_lock_is_never_followed_nor_removed_when_it_is_not_ours(
    make_job: MakeJob, host: Host, mail: Path, top: Path
) -> None:
    victim = top / "victim"
    victim.write_bytes(b"precious")
    lock = mail / "bob.lock"
    lock.symlink_to(victim)
    assert deliver(make_job(Method.MBOX), hasty(host)).number == 75
    assert victim.read_bytes() == b"precious"
    lock.unlink()
    with mbox.prepared(make_job(Method.MBOX), hasty(host)):
        lock.unlink()
        lock.write_bytes(b"somebody's")
    assert lock.exists()


def test_a_mailbox_that_a_reader_has_locked_is_waited_for(
    make_job: MakeJob, host: Host, mail: Path, owner: Tuple[int, int]
) -> None:
    path = mail / "bob"
    path.write_bytes(b"")
    os.chown(path, *owner)
    with path.open("r+b") as reader:
        fcntl.lockf(reader, fcntl.LOCK_EX)
        result = deliver(make_job(Method.MBOX), hasty(host))
    assert (result.number, result.text) == (75, f"{path}: still locked")
    assert path.read_bytes() == b""
    assert deliver(make_job(Method.MBOX), hasty(host)) == exited(0)


@pytest.mark.parametrize("method", [Method.MBOX, Method.FILE])
def test_appends_at_the_same_time_lose_nothing(
    make_job: MakeJob, host: Host, mail: Path, home: Path, method: Method
) -> None:
    count, size = 12, 150_000
    job = make_job(method, argument=f"{home}/bob")
    with tempfile.TemporaryFile() as file:
        file.write(b"Subject: x\n\n" + b"0123456789abcdef\n" * (size // 17))
        file.flush()
        running = [start(job, file.fileno(), host) for _ in range(count)]
        results = [collect(each, os.waitpid(each.pid, 0)[1]) for each in running]
    assert results == [exited(0)] * count
    found = bodies((mail if method is Method.MBOX else home) / "bob")
    assert len(found) == count
    assert len(set(found)) == 1
    assert not (mail / "bob.lock").exists()


@pytest.mark.parametrize("method", [Method.MBOX, Method.FILE])
def test_an_append_that_fails_is_cut_off_again(
    run: Run, make_job: MakeJob, mail: Path, home: Path, method: Method
) -> None:
    job = make_job(method, argument=f"{home}/bob")
    path = (mail if method is Method.MBOX else home) / "bob"
    assert run(job, TEXT) == exited(0)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (99_000, limits[1]))
    try:
        result = run(job, b"x" * 99_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (result.number, result.text) == (75, "File too large")
    assert path.read_bytes() == before
    assert not (mail / "bob.lock").exists()
    assert run(job, TEXT) == exited(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk(run: Run, make_job: MakeJob, mail: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mail)]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("cannot mount here")
    try:
        assert run(make_job(Method.MBOX), TEXT) == exited(0)
        before = (mail / "bob").read_bytes()
        result = run(make_job(Method.MBOX), b"x" * 400_000)
        assert (result.number, result.text) == (75, "No space left on device")
        assert (mail / "bob").read_bytes() == before
        assert [path.name for path in mail.iterdir()] == ["bob"]
    finally:
        subprocess.run(["umount", str(mail)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
def test_root_has_a_mailbox(run: Run, make_job: MakeJob, mail: Path) -> None:
    assert run(make_job(Method.MBOX, user="root", uid=0, gid=0, home="/root")) == exited(0)
    assert (mail / "root").stat().st_uid == 0
