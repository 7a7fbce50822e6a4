"""The daemon in one event loop: the real queue role and dispatchers over socket pairs.

Only the supervisor is played: it knows users from a dict and takes deliveries into memory. The
spool is a real directory of the test. Time is a number; whoever moves it wakes the queue role.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Dict, List, NamedTuple, Optional, Tuple

from smtpd_core.config.grammar import parse_config
from smtpd_core.config.model import Config, Listener
from smtpd_core.config.problems import Place
from smtpd_core.daemon import dispatcher, queue, roles
from smtpd_core.daemon.dispatcher import Dispatcher
from smtpd_core.daemon.log import Log
from smtpd_core.daemon.privileges import Identity
from smtpd_core.daemon.setting import Setting
from smtpd_core.daemon.sockets import Endpoint, Listening
from smtpd_core.ipc import link, messages
from smtpd_core.ipc.channel import Channel
from smtpd_core.ipc.messages import Role
from smtpd_core.mda.job import Job, JobResult, exited
from smtpd_core.queue.disk import SystemDisk
from smtpd_core.queue.envelope import Envelope
from smtpd_core.queue.spool import Spool
from smtpd_core.queue.storing import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from smtpd_core.ipc.messages import Message

NOW = 1795357412
NAME = "mx.here.test"
DESCRIPTORS = 256
LIMIT_SECONDS = 20  # a scene that hangs fails instead


ENVELOPE = Envelope(
    version=3,
    type="mta",
    dispatcher="out",
    helo="x",
    hostname="x",
    smtpname="mx.here.test",
    sender="a@b.test",
    rcpt="c@d.test",
    dest="c@d.test",
    ctime=1,
)


class Delivered(NamedTuple):
    """A local delivery that was asked for."""

    job: Job
    text: bytes


class Lines:
    """A sink that keeps lines."""

    def __init__(self) -> None:
        self.lines: List[str] = []

    def write(self, severity: int, line: str) -> None:
        assert 2 <= severity <= 7
        self.lines.append(line)


class _Supervisor:
    """Answers what a supervisor would; the queue role only says Ready."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    async def answer(
        self, request: Message, descriptor: Optional[int]
    ) -> Tuple[Message, Optional[int]]:
        return self._answer(request, descriptor), None

    def _answer(self, request: Message, descriptor: Optional[int]) -> Message:
        daemon = self._daemon
        if isinstance(request, messages.FindUser):
            home = daemon.users.get(request.name)
            return messages.FoundUser(1000, 1000, home)
        if isinstance(request, messages.ReadForward):
            return messages.Contents(daemon.forwards.get(request.name))
        if isinstance(request, messages.CheckPassword):
            return messages.Checked(request.password == f"password of {request.user}")
        if isinstance(request, messages.RunDelivery):
            assert descriptor is not None
            job = Job.from_fields(request.fields)
            text = os.pread(descriptor, 1 << 24, 0)
            os.close(descriptor)
            result = daemon.deliver(job)
            if result.number == 0:
                daemon.delivered.append(Delivered(job, text))
            return messages.DeliveryEnded(result.fields())
        raise AssertionError(f"nobody asks {request!r}")

    def take(self, message: Message, descriptor: Optional[int]) -> None:
        assert message == messages.Ready()
        assert descriptor is None
        self._daemon.ready += 1

    def lost(self, why: str) -> None:
        self._daemon.lost.append(why)


class FakeDaemon:
    """A running daemon; port is where it listens."""

    def __init__(self, directory: Path, config: str, users: Optional[Dict[str, str]] = None):
        self.directory = directory
        self.users = users or {}
        self.forwards: Dict[str, bytes] = {}
        self.delivered: List[Delivered] = []
        self.deliver: Callable[[Job], JobResult] = lambda _: exited(0)
        self.now = NOW
        self.ready = 0
        self.lost: List[str] = []
        self.sink = Lines()
        self.log = Log(self.sink, verbose=True)
        self.config = parse_config(config, "smtpd.conf", self._no_file)
        self.dispatchers: List[Dispatcher] = []
        self.port = 0
        self._tasks: List[asyncio.Task[bool]] = []
        self._channels: List[Channel] = []
        self._queue_task: Optional[asyncio.Task[bool]] = None

    @staticmethod
    def _no_file(path: str) -> bytes:
        raise FileNotFoundError(2, "No such file", path)

    async def start(self, workers: int = 1) -> None:
        """Start the queue role and dispatchers on the spool, as it is."""
        me = Identity("_smtpd", os.geteuid(), os.getegid())
        spool = str(self.directory / "spool")
        self._lock = roles.prepare_spool(spool, me, privileged=False)
        self._setting = Setting(
            self.log,
            NAME,
            spool,
            "smtpd.conf",
            {},
            me,
            me,
            privileged=False,
            clock=lambda: self.now,
        )
        opened = Spool.open(SystemDisk.below(spool), Settings(), os.urandom)
        policy = roles.queue_policy(self.config, NAME)
        ours, theirs = link.pair()
        self.queue = queue.Queue(opened, policy, theirs, self.log, lambda: self.now)
        self.to_queue = self._channel(ours, Role.QUEUE)
        self._queue_task = asyncio.ensure_future(self.queue.run())
        for slot in range(workers):
            self.add_dispatcher(slot, self.config)

    def _channel(self, end: socket.socket, peer: Role) -> Channel:
        channel = Channel(end, (Role.SUPERVISOR, peer), _Supervisor(self), self.log.confess)
        self._channels.append(channel)
        return channel

    def add_dispatcher(self, slot: int, config: Config) -> Channel:
        """Start a dispatcher; give the supervisor's end of its link."""
        end = socket.create_server(("127.0.0.1", 0))
        end.setblocking(False)
        self.port = end.getsockname()[1]
        listener = Listener(Place("smtpd.conf", 1), "lo", self.port, ("127.0.0.1",))
        listening = [Listening(listener, Endpoint("127.0.0.1", self.port), end)]
        prepared = dispatcher.prepare(config, self._setting, listening, DESCRIPTORS)
        ours, theirs = link.pair()
        queue_end, dispatcher_end = link.pair()
        started = Dispatcher(prepared, theirs, dispatcher_end)
        self.dispatchers.append(started)
        channel = self._channel(ours, Role.DISPATCHER)
        self._tasks.append(asyncio.ensure_future(started.run()))
        self.to_queue.send(messages.AddDispatcher(slot), queue_end.detach())
        return channel

    async def stop(self) -> None:
        """End all in order."""
        for channel in self._channels[1:]:
            channel.send(messages.Drain())
        assert all(await asyncio.gather(*self._tasks))
        await self.stop_queue()

    async def stop_queue(self) -> None:
        """End the queue role; it must end well."""
        self.to_queue.send(messages.Drain())
        assert self._queue_task is not None
        assert await self._queue_task
        for channel in self._channels:
            channel.close()
        os.close(self._lock)
        errors = [line for line in self.sink.lines if line.startswith("internal error")]
        assert not errors, errors

    async def at(self, now: int) -> None:
        """Let it be later."""
        self.now = now
        self.queue.wake()

    # ---- talking to it

    async def send(self, recipient: str, text: str = "Subject: x\n\nhello\n", **how: Any) -> str:
        """Send a mail; give the last reply."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        sender = how.get("sender", "sender@far.test")
        try:
            replies = [await _reply(reader)]
            for line in (
                "EHLO client.far.test",
                f"MAIL FROM:<{sender}>{how.get('mail', '')}",
                f"RCPT TO:<{recipient}>{how.get('rcpt', '')}",
                "DATA",
            ):
                writer.write(f"{line}\r\n".encode())
                replies.append(await _reply(reader))
                if not replies[-1].startswith(("2", "3")):
                    return replies[-1]
            writer.write(text.replace("\n", "\r\n").encode() + b".\r\n")
            return await _reply(reader)
        finally:
            writer.close()

    def spooled(self) -> List[str]:
        """Give the names of the envelopes in the queue."""
        found = []
        for path in (self.directory / "spool" / "queue").rglob("*"):
            if path.is_file() and path.name != "message":
                found.append(path.name)
        return sorted(found)


async def _reply(reader: asyncio.StreamReader) -> str:
    while True:
        line = await reader.readline()
        if line[3:4] != b"-":
            return line.decode().rstrip("\r\n")


def play(scene: Coroutine[Any, Any, None]) -> None:
    """Run a scene to its end, in bounded time."""
    asyncio.run(asyncio.wait_for(scene, LIMIT_SECONDS))


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until a condition holds; the limit of play ends a vain wait."""
    while not condition():
        await asyncio.sleep(0.005)
