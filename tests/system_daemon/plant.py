"""The whole daemon as an ordinary user's processes: started, killed, looked at from outside.

Run by root, a test starts the daemon as a user who owns nothing but the plant's directory. Every
mail carries an id; where it may turn up is the spool, a Maildir, and a sink on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

from smtpd_core.queue.disk import SystemDisk
from smtpd_core.queue.recovery import Trouble
from smtpd_core.queue.spool import Spool
from smtpd_core.queue.storing import Settings
from tests import running

if TYPE_CHECKING:
    from collections.abc import Sequence

UID = os.getuid() or running.NOBODY
PATIENCE_SECONDS = 25.0  # only a test that fails waits as long
LOCAL, FAR = "alice@here.test", "bob@far.test"
_CODE = (
    f"import sys; sys.path.insert(0, {str(running.ROOT)!r});"
    " from smtpd_core.daemon.main import run; sys.exit(run(sys.argv[1:]))"
)
_ID = re.compile(rb"^X-Id: (\S+)\r?$", re.MULTILINE)
_UNFINISHED = re.compile(r"/spool/(incoming|purge)/")
_DEST = re.compile(rb"^dest: (\S+)$", re.MULTILINE)

Copy = Tuple[str, str]  # the id of a mail, its recipient


def now() -> float:
    """Tell the time as files do."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def until(condition: Callable[[], object], why: Callable[[], object] = str) -> None:
    """Look again and again, for a bounded time, until something holds."""
    last = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > last:
            raise TimeoutError(f"in vain: {why()}")
        time.sleep(0.01)


def free_port() -> int:
    """Give a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def find_python() -> str:
    """Give an interpreter that the user of the daemon may run."""
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            command = [python, "-Ic", "import asyncio, ssl"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL, **as_user())
            return python
    raise RuntimeError("no interpreter for another user")


def as_user() -> Dict[str, Any]:
    """Give what subprocess needs to start a program as the user of the daemon."""
    return {"user": UID, "group": UID, "extra_groups": []} if os.getuid() == 0 else {}


def mail(name: str, size: int = 0) -> bytes:
    """Compose a mail with an id, and about so many octets of text."""
    return f"X-Id: {name}\r\n\r\n".encode() + b"0123456789abcdef\r\n" * (size // 18 + 1)


def id_of(octets: bytes) -> str:
    """Give the id of a mail."""
    found = _ID.search(octets)
    assert found is not None, octets[:500]
    return found[1].decode()


class Plant:
    """A directory with a configuration, a spool, a Maildir; and the daemon, while it runs."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.spool = directory / "spool"
        self.maildir = directory / "Maildir"
        self.config = directory / "smtpd.conf"
        self.log = directory / "log"
        self.port = free_port()
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.python = find_python()

    def configure(self, text: str) -> None:
        """Write the configuration: where to listen, a user base `users`, and more."""
        self.config.write_text(
            f"listen on 127.0.0.1 port {self.port}\n"
            f'table users {{ "alice" = "{UID}:{UID}:{self.directory}" }}\n{text}'
        )

    @property
    def to_maildir(self) -> str:
        """Give what makes mail for here.test go to the Maildir."""
        return (
            f'action "local" maildir "{self.maildir}" userbase <users>\n'
            'match from any for domain "here.test" action "local"\n'
        )

    def command(self) -> List[str]:
        """Give the command line of the daemon."""
        place = ["-f", str(self.config), "--spool", str(self.spool)]
        local = ["--socket", str(self.directory / "smtpd.sock")]
        return [self.python, "-IBc", _CODE, "-d", "-v", *place, *local, "--workers", "2"]

    def start(self, *before: str, wait: bool = True) -> subprocess.Popen[bytes]:
        """Start the daemon, perhaps below another program, in a group of its own."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*before, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **as_user(),
            )
        if wait:
            self.wait_for_lines("smtpctl 0.1.0 ready")
        return self.process

    def said(self) -> str:
        """Give all that has been logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for_lines(self, words: str, count: int = 1) -> None:
        """Wait until so many lines hold these words."""
        until(lambda: self.said().count(words) >= count, lambda: words + "\n" + self.said())

    def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """End the daemon in order; give its exit status."""
        assert self.process is not None
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """Kill all of it but deliveries, which have sessions of their own; wait for the end."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if not self.spool.exists():
            return
        lock = os.open(self.spool, os.O_RDONLY | os.O_DIRECTORY)
        try:
            until(lambda: _locks(lock))
        finally:
            os.close(lock)

    def roles(self) -> Dict[str, int]:
        """Give the processes of the roles by their names."""
        assert self.process is not None
        found = {"supervisor": self.process.pid}
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in children.read_text().split():
            with contextlib.suppress(FileNotFoundError):  # a delivery that has just ended
                name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
                if name.startswith("smtpd-"):
                    found[name] = int(pid)
        return found

    # What there is to see.

    def delivered(self) -> Dict[str, List[float]]:
        """Give, by id, when each copy came into the Maildir."""
        found: Dict[str, List[float]] = {}
        for path in (self.maildir / "new").glob("*"):
            found.setdefault(id_of(path.read_bytes()), []).append(path.stat().st_ctime)
        return found

    def queued_now(self) -> List[str]:
        """Name the envelopes in the queue of a daemon that runs."""
        paths = self.spool.glob("queue/*/*/*")
        return [path.name for path in paths if path.name != "message"]

    def queued(self) -> Set[Copy]:
        """Give what waits in the queue; every message must be whole."""
        found = set()
        for message in self.spool.glob("queue/*/*/message"):
            name = id_of(message.read_bytes())
            for path in message.parent.glob(message.parent.name + "?" * 8):
                dest = _DEST.search(path.read_bytes())
                assert dest is not None, path
                found.add((name, dest[1].decode()))
        return found

    def unfinished(self) -> List[str]:
        """Name what is not in the queue, nor on its way out of it."""
        return [str(each) for name in ("incoming", "temporary") for each in self._below(name)]

    def _below(self, name: str) -> Iterator[pathlib.Path]:
        return (self.spool / name).glob("*")

    def check_spool(self) -> None:
        """Hold the spool of a daemon that does not run against its rules."""
        evpids = {path.name for path in self.spool.glob("queue/*/*/*") if path.name != "message"}
        where = ("--spool", str(self.spool))
        listing = running.run("show", "queue", *where)
        assert (listing.status, listing.err) == (0, b"")
        assert {line.split(b"|")[0].decode() for line in listing.lines} == evpids
        everything = running.run("show", "queue", "--all", *where)
        assert set(listing.lines) <= set(everything.lines)
        # Only a commit that was not finished, and is perhaps put away, may have half an envelope.
        strange = [each for each in everything.warnings if not _UNFINISHED.search(each)]
        assert not strange
        with tempfile.TemporaryDirectory(dir=self.directory) as place:
            copy = pathlib.Path(place) / "spool"
            shutil.copytree(self.spool, copy, copy_function=os.link)
            disk = SystemDisk.below(str(copy))
            try:
                walked = list(Spool.open(disk, Settings(), os.urandom).walk())
            finally:
                disk.release()
            troubles = [each for each in walked if isinstance(each, Trouble)]
            assert not troubles, [f"{each.path}: {each.reason}" for each in troubles]
            assert len(walked) == len(evpids)
            assert not list((copy / "incoming").iterdir())


def _locks(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def plant(directory: Optional[str] = None) -> Iterator[Plant]:
    """Lay out a plant; whatever runs at the end is killed, and a failure shows the log."""
    with tempfile.TemporaryDirectory(prefix="plant.", dir=directory) as place:
        os.chmod(place, 0o755)
        if os.getuid() == 0:
            os.chown(place, UID, UID)
        made = Plant(pathlib.Path(place))
        try:
            yield made
        except BaseException:
            if made.log.exists():
                print(made.said()[-8000:])
            raise
        finally:
            if made.process is not None:
                made.kill()


class Sink:
    """A server in the running event loop that takes every mail, after a pause."""

    def __init__(self) -> None:
        self.taken: Dict[str, List[float]] = {}
        self.pause_seconds = 0.0
        self.waiting = 0  # clients whose mail is here and not yet answered
        self.port = 0

    async def start(self) -> None:
        """Begin to listen."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 22)
        self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink\r\n")
        while True:
            verb = (await reader.readuntil(b"\r\n"))[:4].upper()
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                name = id_of(await reader.readuntil(b"\r\n.\r\n"))
                self.taken.setdefault(name, []).append(now())
                self.waiting += 1
                await asyncio.sleep(self.pause_seconds)
                self.waiting -= 1
            writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 2.0.0 fine\r\n")
            await writer.drain()
            if verb == b"QUIT":
                return


class Client:
    """A client that says what it is told to, and hears one answer to each."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        await self._answer()
        await self.say("EHLO client.test")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def say(self, line: str) -> str:
        """Say a line; give the last line of the answer."""
        return await self.send(line.encode() + b"\r\n")

    async def send(self, octets: bytes) -> str:
        """Send octets; give the last line of the answer. Raises ConnectionError."""
        self._writer.write(octets)
        await self._writer.drain()
        return await self._answer()

    async def _answer(self) -> str:
        line = b"   -"
        while line[3:4] == b"-":
            line = await asyncio.wait_for(self._reader.readline(), PATIENCE_SECONDS)
            if not line.endswith(b"\n"):
                raise ConnectionResetError
        return line.decode()

    async def begin(self, recipients: Sequence[str]) -> str:
        """Say everything up to DATA; give the answer that is not as it should be, or that one."""
        for line in ("MAIL FROM:<sender@far.test>", *(f"RCPT TO:<{each}>" for each in recipients)):
            answer = await self.say(line)
            if answer[:1] != "2":
                return answer
        return await self.say("DATA")

    async def mail(self, octets: bytes, *recipients: str) -> str:
        """Send a mail; give the answer to it, or what came instead."""
        answer = await self.begin(recipients or [LOCAL])
        if answer[:3] != "354":
            await self.say("RSET")
            return answer
        return await self.send(octets + b".\r\n")
