"""Deliver into a maildir.

The message is written and synced under tmp, linked into new, and new is synced: what was reported
as delivered survives a crash, and what is in new is whole. Folders are opened without following
links below the maildir itself: in one that several users share, none leads mail elsewhere.

Source: maildir(5); OpenSMTPD 7.8, mail.maildir(8).
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from smtpd_core.mail import header
from smtpd_core.mda.job import EX_TEMPFAIL, exited
from smtpd_core.mda.message import write_all
from smtpd_core.mda.stopping import settle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smtpd_core.mda.host import Host
    from smtpd_core.mda.job import Job, JobResult
    from smtpd_core.mda.message import Message

JUNK_FOLDER = ".Junk"
FOLDERS = ("cur", "tmp", "new")
MODE = 0o700
MAX_FOLDER = 255  # octets of a name in a directory

_NAME_TOO_LONG = 1  # exit status
_UNSAFE = str.maketrans(dict.fromkeys("!#$%&'*/?^`{|}~", ":"))
_SPAM_FIELDS = (b"x-spam", b"x-spam-flag")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def deliver(job: Job, message: Message, host: Host) -> JobResult:
    """Deliver a message; raises OSError where that cannot be done now."""
    path = job.argument
    if not path.startswith("/"):
        return exited(EX_TEMPFAIL, f"{path or 'a maildir'}: not an absolute path")
    try:
        _make_path(path)
        with _opened(os.open(path, _DIRECTORY)) as maildir:
            folder = _choose_folder(job, message, maildir)
            if folder:
                with _opened(_subdirectory(folder, maildir)) as opened:
                    _store(message, opened, _file_name(host))
            else:
                _store(message, maildir, _file_name(host))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return exited(_NAME_TOO_LONG, f"{path}: {error.strerror}")
        raise
    return exited(0)


def sub_folder(sub_address: str) -> str:
    """Give the name of the folder for a sub-address; empty when it can have none."""
    name = "." + sub_address.translate(_UNSAFE)
    fit = "\0" not in name and len(os.fsencode(name)) <= MAX_FOLDER
    return name if fit and name not in (".", "..") else ""


def is_junk(head: bytes) -> bool:
    """Tell whether a header section says, in so many words, that the message is spam."""
    return any(
        field.name.lower() in _SPAM_FIELDS and field.value.lower() == b" yes"
        for field in header.walk(head)
    )


def _choose_folder(job: Job, message: Message, maildir: int) -> str:
    """Make the folders that always are there; name the one to use, empty for the maildir."""
    _make_folders(maildir)
    if job.junk:
        with _opened(_subdirectory(JUNK_FOLDER, maildir)) as junk:
            _make_folders(junk)
        if is_junk(message.header()):
            return JUNK_FOLDER
    folder = sub_folder(job.sub_address)
    if folder:
        try:
            with _opened(os.open(folder, _DIRECTORY | os.O_NOFOLLOW, dir_fd=maildir)) as opened:
                _make_folders(opened)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:  # a link is no folder: ELOOP, and EMLINK on FreeBSD
            if error.errno not in (errno.ELOOP, errno.EMLINK):
                raise
            return ""
    return folder


def _make_path(path: str) -> None:
    """Make a directory and those above it, so that they last."""
    made = ""
    for name in filter(None, path.split("/")):
        above, made = made or "/", f"{made}/{name}"
        if os.path.isdir(made):
            continue
        try:
            os.mkdir(made, MODE)
        except FileExistsError:
            continue  # another delivery was faster, or it is no directory: then opening fails
        with _opened(os.open(above, _DIRECTORY)) as directory:
            os.fsync(directory)


def _make_folders(directory: int) -> None:
    for name in FOLDERS:
        os.close(_subdirectory(name, directory))


def _subdirectory(name: str, directory: int) -> int:
    """Open a directory in another one, making it if it is not there; a link is refused."""
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(name, MODE, dir_fd=directory)
        os.fsync(directory)
    except FileExistsError:
        pass  # another delivery was faster
    return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)


def _file_name(host: Host) -> str:
    name = host.name.replace("/", "\\057").replace(":", "\\072")
    return f"{host.clock()}.{host.entropy(4).hex()}.{name}"


def _store(message: Message, folder: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _opened(_subdirectory("tmp", folder)) as tmp, _opened(_subdirectory("new", folder)) as new:
        with _opened(os.open(name, flags, 0o600, dir_fd=tmp)) as written:
            try:
                for chunk in message.chunks():
                    write_all(written, chunk)
                os.fsync(written)
                settle()  # whoever reads new may have it before we come to know
                _publish(name, tmp, new)
            except BaseException:
                os.unlink(name, dir_fd=tmp)
                raise
        try:
            os.unlink(name, dir_fd=tmp)
        except FileNotFoundError:
            pass  # it was renamed


def _publish(name: str, tmp: int, new: int) -> None:
    """Make the message visible, and lasting; it is gone again if that cannot be had."""
    try:
        os.link(name, name, src_dir_fd=tmp, dst_dir_fd=new, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(name, name, src_dir_fd=tmp, dst_dir_fd=new)
    try:
        os.fsync(new)
    except OSError:
        os.rename(name, name, src_dir_fd=new, dst_dir_fd=tmp)
        raise


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end, whatever happens."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)
