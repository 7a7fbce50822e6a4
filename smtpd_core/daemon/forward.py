"""Read a user's .forward as that user, or a file an alias table includes.

Runs in a short-lived process that has become that user: an ill-mannered home directory can hold
up or mislead nobody else. Everything is checked on open descriptors, from the home downwards, and
no link is followed. Source: OpenSMTPD 7.8; what is refused is refused there.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Union

from smtpd_core.ipc.messages import MAX_FORWARD, MAX_INCLUDE, Contents, Refused

NAME = ".forward"
_BESIDES_OWNER = stat.S_IWGRP | stat.S_IWOTH
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LATER = frozenset({errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.ESTALE})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})

Answer = Union[Contents, Refused]


def read_forward(home: str, uid: int) -> Answer:
    """Give the text of the .forward in a home; one of MAX_FORWARD octets or more is cut there."""
    if not home.startswith("/") or "\0" in home:
        return Refused(f"{home}: not an absolute path", permanent=True)
    try:
        directory = os.open(home, _DIRECTORY)
    except OSError as error:
        return _explain(home, error)
    try:
        mode = os.fstat(directory)
        if mode.st_mode & stat.S_ISVTX:  # the owner says: not now
            return Refused(f"{home}: is sticky", permanent=False)
        try:
            file = os.open(NAME, _FILE, dir_fd=directory)
        except OSError as error:
            return _explain(f"{home}/{NAME}", error)
        try:
            if mode.st_uid not in (0, uid) or mode.st_mode & _BESIDES_OWNER:
                return Refused(f"{home}: insecure directory", permanent=True)
            return _read(file, f"{home}/{NAME}", uid)
        finally:
            os.close(file)
    finally:
        os.close(directory)


def _read(file: int, path: str, uid: int) -> Answer:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != uid:
        return Refused(f"{path}: insecure file", permanent=True)
    if status.st_mode & _BESIDES_OWNER:
        return Refused(f"{path}: insecure file", permanent=True)
    return _contents(file, path, MAX_FORWARD)


def read_include(path: str) -> Answer:
    """Give the text of a file that an alias table includes; links are followed to it."""
    if not path.startswith("/") or "\0" in path:
        return Refused(f"{path}: not an absolute path", permanent=True)
    try:
        file = os.open(path, _FILE & ~os.O_NOFOLLOW)
    except OSError as error:
        return _explain(path, error)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_INCLUDE:
            return Refused(f"{path}: not a file of at most {MAX_INCLUDE} octets", permanent=True)
        return _contents(file, path, MAX_INCLUDE)
    finally:
        os.close(file)


def _contents(file: int, path: str, limit: int) -> Answer:
    octets = b""
    try:
        while len(octets) < limit:
            piece = os.read(file, limit - len(octets))
            if not piece:
                break
            octets += piece
    except OSError as error:
        return Refused(f"{path}: {error.strerror}", permanent=False)
    return Contents(octets)


def _explain(path: str, error: OSError) -> Answer:
    if error.errno in _ABSENT:
        return Contents(None)
    return Refused(f"{path}: {error.strerror}", permanent=error.errno not in _LATER)
