"""A machine of its own for servers: its network is a loopback, its users and mail are invented.

Everything happens in a forked process with a mount and a network namespace: /run and /home are in
memory, the spool's place, /etc/passwd, hosts and resolv.conf are files of the test. Every domain
leads to a loopback address. Programs end
with the block that runs them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from typing import TYPE_CHECKING, Dict, Iterator, List, NamedTuple

from tests.running import ROOT, in_child
from tests.system.namespace import mount

if TYPE_CHECKING:
    from collections.abc import Callable

USERS = {"alice": 2001, "bob": 2002, "carol": 2003, "dave": 2004, "vmail": 2005}
ORIGINAL = "/usr/sbin/smtpd"
ORIGINAL_CONTROL = "/usr/sbin/smtpctl"
SPOOL = pathlib.Path("/var/spool/smtpd")
HOMES = pathlib.Path("/home")
PATIENCE_SECONDS = 12.0  # only a test that fails waits as long
_NAMESPACES = 0x20000 | 0x40000000  # sched.h: CLONE_NEWNS, CLONE_NEWNET
_OURS = "import sys; sys.path.insert(0, {!r}); from {} import {} as run; sys.exit(run({}))"


def inside(place: pathlib.Path, action: Callable[[], bytes]) -> bytes:
    """Run a function on an island whose files are in a directory; give its answer.

    Raises RuntimeError with what went wrong there.
    """

    def entered() -> bytes:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_NAMESPACES):
            raise OSError(ctypes.get_errno(), "unshare")
        mount("--make-rprivate", "/")
        _furnish(place)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        _Names().start()
        return action()

    return in_child(entered)


def _furnish(place: pathlib.Path) -> None:
    passwd = pathlib.Path("/etc/passwd").read_text(encoding="utf-8")
    for name, uid in USERS.items():
        passwd += f"{name}:x:{uid}:{uid}::/home/{name}:/bin/sh\n"
    files = {
        "passwd": passwd,
        "hosts": "127.0.0.1 localhost island.example\n",
        "resolv.conf": "nameserver 127.0.0.1\n",
    }
    for name, text in files.items():
        (place / name).write_text(text, encoding="utf-8")
        mount("--bind", place / name, f"/etc/{name}")
    (place / "spool").mkdir(mode=0o711)
    mount("--bind", place / "spool", SPOOL)
    for directory in ("/run", "/home", "/var/mail"):
        mount(
            "-t",
            "tmpfs",
            "-o",
            "mode=1777" if "mail" in directory else "mode=755",
            "tmpfs",
            directory,
        )
    for name, uid in USERS.items():
        (HOMES / name).mkdir(mode=0o700)
        os.chown(HOMES / name, uid, uid)


class _Names(threading.Thread):
    """A name server: every name has an address of 127.1.0.0/16 of its own, and nothing else.

    Daemons pause between connections to one address; all mail to one would wait for minutes.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))

    def run(self) -> None:
        while True:
            asked, client = self._socket.recvfrom(4096)
            end = asked.index(b"\0", 12) + 5
            question = asked[12:end]
            is_address = question[-4:] == b"\0\1\0\1"
            flags = b"\x81\x80\0\1" + (b"\0\1" if is_address else b"\0\0") + bytes(4)
            digest = zlib.crc32(question.lower()).to_bytes(4, "big")
            address = b"\x7f\1" + digest[:2]
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + address if is_address else b""
            self._socket.sendto(asked[:2] + flags + question + answer, client)


class Taken(NamedTuple):
    """A mail that a sink took: the lines of its envelope as they came, and its text."""

    sender: str
    recipients: List[str]
    text: str


class Sink(threading.Thread):
    """A server that takes every mail, one client after the other being served at once."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.taken: List[Taken] = []
        self._listening = socket.create_server(("", port), backlog=64)
        self.start()

    @property
    def recipients(self) -> List[str]:
        """Give every recipient of every mail, sorted."""
        return sorted(each for mail in self.taken for each in mail.recipients)

    def run(self) -> None:
        while True:
            client, _ = self._listening.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rwb") as stream:

            def say(line: bytes) -> None:
                stream.write(line + b"\r\n")
                stream.flush()

            say(b"220 sink ESMTP")
            sender, recipients = "", list[str]()
            for octets in stream:
                line = octets.decode("utf-8", "surrogateescape").rstrip("\r\n")
                verb, path = line[:4].upper(), line[line.find("<") + 1 : line.rfind(">")]
                if verb == "EHLO":
                    say(b"250-sink\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000")
                    continue
                if verb == "MAIL":
                    sender, recipients = path, []
                elif verb == "RCPT":
                    recipients.append(path)
                elif verb == "DATA":
                    say(b"354 go on")
                    lines = list(iter(stream.readline, b".\r\n"))
                    text = b"".join(each[each[:1] == b"." :] for each in lines)
                    shown = text.replace(b"\r\n", b"\n").decode("utf-8", "surrogateescape")
                    self.taken.append(Taken(sender, recipients, shown))
                say(b"221 bye" if verb == "QUIT" else b"250 2.0.0 fine")
                if verb == "QUIT":
                    return


class Program:
    """A program that runs; its standard error is in a file."""

    def __init__(self, place: pathlib.Path, name: str, command: List[str]) -> None:
        self.log = place / f"{name}.log"
        with open(self.log, "wb") as file:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    def said(self) -> str:
        """Give what it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        """End it in order; give its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


@contextlib.contextmanager
def running(place: pathlib.Path, name: str, command: List[str], port: int) -> Iterator[Program]:
    """Run a server from when its port answers until the end of the block."""
    program = Program(place, name, command)
    try:
        until(lambda: answers(port) or program.process.poll() is not None, program.said)
        yield program
    except BaseException as error:
        raise RuntimeError(f"{error!r}\n{name} said:\n{program.said()[-6000:]}") from error
    finally:
        program.stop()


def answers(port: int) -> bool:
    """Tell whether somebody serves a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def until(condition: Callable[[], object], why: Callable[[], object] = str) -> None:
    """Look again and again, for a bounded time, until something holds."""
    last = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > last:
            raise TimeoutError(f"in vain: {why()}")
        time.sleep(0.02)


def ours(place: pathlib.Path, config: str, *more: str) -> List[str]:
    """Give the command line of our daemon for a configuration."""
    path = place / "ours.conf"
    path.write_text(config, encoding="utf-8")
    code = _OURS.format(str(ROOT), "smtpd_core.daemon.main", "run", "sys.argv[1:]")
    return [sys.executable, "-IBc", code, "-d", "-v", "-f", str(path), *more]


def our_control(*words: str) -> List[str]:
    """Run our smtpctl; give the lines it prints."""
    code = _OURS.format(str(ROOT), "smtpd_core.cli.main", "run", "'smtpctl', sys.argv[1:]")
    return _lines([sys.executable, "-ISBc", code, *words])


def original(place: pathlib.Path, config: str) -> List[str]:
    """Give the command line of OpenSMTPD's daemon for a configuration."""
    path = place / "original.conf"
    path.write_text(config, encoding="utf-8")
    return [ORIGINAL, "-d", "-f", str(path)]


def original_control(*words: str) -> List[str]:
    """Run OpenSMTPD's smtpctl; give the lines it prints."""
    return _lines([ORIGINAL_CONTROL, *words])


def _lines(command: List[str]) -> List[str]:
    done = subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=30
    )
    return done.stdout.decode("utf-8", "surrogateescape").splitlines()


def envelopes(spool: pathlib.Path = SPOOL) -> Dict[str, bytes]:
    """Give the envelopes of a spool by their names."""
    found = {}
    for path in (spool / "queue").glob("*/*/*"):
        if path.name != "message":
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.read_bytes()
    return found


def maildir(user: str, name: str = "Maildir") -> List[str]:
    """Give the mails in a user's maildir."""
    files = sorted((HOMES / user / name / "new").glob("*"))
    return [each.read_bytes().decode("utf-8", "surrogateescape") for each in files]
