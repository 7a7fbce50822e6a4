"""The service manager: readiness, sockets that are passed at the start, and the PID file.

Source: sd_notify(3), sd_listen_fds(3).
"""

from __future__ import annotations

import os
import socket
from typing import List, Mapping, MutableMapping

FIRST_DESCRIPTOR = 3
MAX_DESCRIPTORS = 256


def notify(state: str, environ: Mapping[str, str]) -> bool:
    """Tell the service manager a state such as `READY=1`; False when there is none to tell."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
        try:
            end.connect(address)
            end.send(state.encode("utf-8", "replace"))
        except OSError:
            return False
    return True


def take_sockets(environ: MutableMapping[str, str], pid: int) -> List[socket.socket]:
    """Take the listening sockets that were passed to this process; other ones are left alone.

    The variables are removed: no child may think the sockets are its own.
    """
    count, owner = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if not count.isdigit() or owner != str(pid) or int(count) > MAX_DESCRIPTORS:
        return []
    sockets = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
        try:
            passed = socket.socket(fileno=descriptor)
        except OSError:  # not a socket
            continue
        if passed.type == socket.SOCK_STREAM and passed.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            passed.set_inheritable(False)
            passed.setblocking(False)
            sockets.append(passed)
        else:
            passed.detach()
    return sockets


def write_pid_file(path: str, pid: int) -> None:
    """Write the PID file, replacing what is there; raises OSError."""
    temporary = f"{path}.{pid}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644)
    try:
        os.write(descriptor, f"{pid}\n".encode("ascii"))
    finally:
        os.close(descriptor)
    os.replace(temporary, path)


def remove_file(path: str) -> None:
    """Remove a PID file or socket; one that is gone, or cannot go, is let be."""
    try:
        os.unlink(path)
    except OSError:
        pass
