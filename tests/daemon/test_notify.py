"""The service manager."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from smtpd_core.daemon import notify

if TYPE_CHECKING:
    from pathlib import Path


def test_readiness(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        assert notify.notify("READY=1", {"NOTIFY_SOCKET": path})
        assert server.recv(100) == b"READY=1"
    assert not notify.notify("READY=1", {"NOTIFY_SOCKET": path + "x"})
    assert not notify.notify("READY=1", {})


def test_an_abstract_name() -> None:
    name = f"smtpd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0" + name)
        assert notify.notify("READY=1", {"NOTIFY_SOCKET": "@" + name})


def test_sockets_for_somebody_else() -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x", "KEPT": "1"}
    assert notify.take_sockets(environ, 2) == []
    assert environ == {"KEPT": "1"}
    assert notify.take_sockets({"LISTEN_FDS": "many", "LISTEN_PID": "2"}, 2) == []


def test_passed_sockets() -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            listening = socket.create_server(("127.0.0.1", 0))
            plain = socket.socket()
            os.dup2(listening.fileno(), 3)
            os.dup2(plain.fileno(), 4)
            os.dup2(write_end, 5)
            environ = {"LISTEN_FDS": "3", "LISTEN_PID": str(os.getpid())}
            taken = notify.take_sockets(environ, os.getpid())
            names = [each.getsockname() == listening.getsockname() for each in taken]
            os.write(write_end if write_end < 3 else 5, repr(names).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(pid, 0)
    assert os.read(read_end, 100) == b"[True]"
    os.close(read_end)


def test_the_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "smtpd.pid"
    path.write_text("an older one")
    notify.write_pid_file(str(path), 42)
    assert path.read_text() == "42\n"
    assert os.listdir(tmp_path) == ["smtpd.pid"]
    notify.remove_file(str(path))
    notify.remove_file(str(path))
    assert not path.exists()
