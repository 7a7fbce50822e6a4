"""Append to a mailbox of the mbox format: a user's in the mail directory, or a file by name.

A mailbox is locked twice: by `NAME.lock` beside it, for readers on other machines and of the old
school, and by fcntl, for all others. The lock beside it, and a mailbox that is not there yet, are
made by `prepared` with the rights of the supervisor's child, since users may not write to the
mail directory; everything else is done as the user. What is opened must be a regular file of the
user (or of root, for a file by name) with one name only, so that no link and no FIFO leads mail
elsewhere. An append that fails is cut off again.

Source: OpenSMTPD 7.8, mail.local(8), lockspool(1) and the helper for files.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Optional, Tuple

from smtpd_core.errors import SmtpdError
from smtpd_core.mda.fromline import FromEscaper, from_line
from smtpd_core.mda.job import Method, exited
from smtpd_core.mda.message import write_all
from smtpd_core.mda.stopping import settle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smtpd_core.mda.host import Host
    from smtpd_core.mda.job import Job, JobResult
    from smtpd_core.mda.message import Message

LOCK_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 2.0, 3.0, 4.0, 5.0)  # seconds between two tries
LOCK_STALE_SECONDS = 600  # twice what a delivery may take: who made that lock is dead
MAX_REOPENS = 5  # a reader that replaces the mailbox faster than that is none
NULL_DEVICE = "/dev/null"  # a file that aliases name, where mail is to vanish

_LOCK_SUFFIX = ".lock"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Not to wait for the other end of a FIFO is what O_NONBLOCK is for.
_APPEND = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


class MailboxError(SmtpdError):
    """A mailbox that cannot be appended to now; its text says why."""


@contextmanager
def prepared(job: Job, host: Host) -> Iterator[None]:
    """Hold the lock beside a user's mailbox, and make the mailbox if it is not there.

    Without the right to write to the mail directory both are left out. Raises MailboxError and
    OSError.
    """
    name = _mailbox_name(job.user)
    directory = os.open(host.mail_directory, _DIRECTORY)
    try:
        lock = _make_lock(name + _LOCK_SUFFIX, directory, host)
        try:
            _make_mailbox(job, name, directory)
            yield
        finally:
            if lock is not None:
                _remove_lock(name + _LOCK_SUFFIX, directory, lock)
    finally:
        os.close(directory)


def deliver(job: Job, message: Message, host: Host) -> JobResult:
    """Append to the user's mailbox, or to the file that the job names.

    Raises MailboxError and OSError; nothing was appended then.
    """
    owners: Tuple[int, ...]
    if job.method is Method.FILE:
        if job.argument == NULL_DEVICE:
            return exited(0)
        path, owners, every_line = job.argument, (job.uid, 0), True
        if not path.startswith("/"):
            raise MailboxError(f"{path}: not an absolute path")
        _make_file(path)
    else:
        path = os.path.join(host.mail_directory, _mailbox_name(job.user))
        owners, every_line = (job.uid,), False
    mailbox = _open_locked(path, owners, host)
    try:
        line = from_line(job.sender, host.date())
        _append(mailbox, line, message, FromEscaper(every_line=every_line))
    finally:
        os.close(mailbox)
    return exited(0)


def _mailbox_name(user: str) -> str:
    """Give the name of a user's mailbox; one that names something else is refused."""
    if not user or "/" in user or "\0" in user or user.startswith("."):
        raise MailboxError(f"{user[:64]!r} is no name for a mailbox")
    if user.endswith(_LOCK_SUFFIX):
        raise MailboxError(f"{user[:64]!r} is the name of a lock")
    return user


def _make_lock(name: str, directory: int, host: Host) -> Optional[int]:
    """Make the lock, and give it opened; None where this process has no right to."""
    for pause in (*LOCK_PAUSES, None):
        try:
            return os.open(name, _CREATE, 0o600, dir_fd=directory)
        except FileExistsError:
            if not _break_stale_lock(name, directory, host):
                if pause is None:
                    raise MailboxError(f"{name}: still locked") from None
                host.pause(pause)
        except OSError as error:
            if error.errno in _NO_RIGHT:
                return None
            raise
    raise MailboxError(f"{name}: broken more often than made")


def _break_stale_lock(name: str, directory: int, host: Host) -> bool:
    """Remove a lock whose maker must be dead; tell whether another try may follow at once."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if host.clock() - found.st_mtime < LOCK_STALE_SECONDS:
            return False
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    return True


def _remove_lock(name: str, directory: int, lock: int) -> None:
    """Remove our lock, not one that somebody made after breaking ours.

    Ours stays open until then, so that the other one cannot have its number.
    """
    try:
        there, ours = os.stat(name, dir_fd=directory, follow_symlinks=False), os.fstat(lock)
        if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    finally:
        os.close(lock)


def _make_mailbox(job: Job, name: str, directory: int) -> None:
    try:
        made = os.open(name, _CREATE, 0o600, dir_fd=directory)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno in _NO_RIGHT:
            return  # it may be there
        raise
    try:
        if os.geteuid() == 0:
            os.fchown(made, job.uid, job.gid)
        os.fsync(directory)
    finally:
        os.close(made)


def _make_file(path: str) -> None:
    try:
        os.close(os.open(path, _CREATE, 0o600))
    except FileExistsError:
        return
    directory = os.open(os.path.dirname(path), _DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _open_locked(path: str, owners: Tuple[int, ...], host: Host) -> int:
    """Open a mailbox and lock it; a reader may have put another file in its place meanwhile."""
    for _ in range(MAX_REOPENS):
        mailbox = os.open(path, _APPEND)
        try:
            _check(path, os.fstat(mailbox), owners)
            _lock(path, mailbox, host)
            opened, there = os.fstat(mailbox), os.stat(path, follow_symlinks=False)
            if (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino):
                _check(path, opened, owners)
                return mailbox
        except BaseException:
            os.close(mailbox)
            raise
        os.close(mailbox)
    raise MailboxError(f"{path}: replaced again and again")


def _check(path: str, found: os.stat_result, owners: Tuple[int, ...]) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise MailboxError(f"{path}: not a regular file")
    if found.st_uid not in owners:
        raise MailboxError(f"{path}: belongs to somebody else")
    if found.st_nlink != 1:
        raise MailboxError(f"{path}: has {found.st_nlink} names")


def _lock(path: str, mailbox: int, host: Host) -> None:
    for pause in (*LOCK_PAUSES, None):
        try:
            fcntl.lockf(mailbox, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        else:
            return
        if pause is not None:
            host.pause(pause)
    raise MailboxError(f"{path}: still locked")


def _append(mailbox: int, line: bytes, message: Message, escaper: FromEscaper) -> None:
    """Append one message, in one piece with what makes it begin at an empty line."""
    size = os.fstat(mailbox).st_size
    try:
        tail = os.pread(mailbox, 2, max(size - 2, 0))
        missing = b"" if not tail or tail == b"\n\n" else b"\n" if tail[-1:] == b"\n" else b"\n\n"
        write_all(mailbox, missing + line)
        for chunk in message.chunks():
            write_all(mailbox, escaper.feed(chunk))
        write_all(mailbox, escaper.finish())
        os.fsync(mailbox)
        settle()
    except BaseException:
        os.ftruncate(mailbox, size)
        os.fsync(mailbox)
        raise
