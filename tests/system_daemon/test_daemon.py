"""The whole daemon in one event loop: mail in, mail out, notices, restarts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Callable, Coroutine, List

import pytest

from smtpd_core.mda.job import Ending, JobResult, exited
from tests.fakes import daemon as fakes
from tests.fakes.daemon import NOW, FakeDaemon, until

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
action "local" maildir
action "out" relay host "smtp+notls://[127.0.0.1]:{port}"
match from any for domain "here.test" action "local"
match from any for any action "out"
bounce warn-interval 1h
"""


class Sink:
    """A server that takes mail, and refuses who is called nobody."""

    def __init__(self) -> None:
        self.taken: List[str] = []
        self.refusal = "550 5.1.1 nobody here"
        self.port = 0

    async def start(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())

        say("220 sink")
        text: List[str] = []
        while True:
            line = (await reader.readline()).decode()
            verb = line[:4].upper()
            if not line or verb == "QUIT":
                break
            if verb == "RCPT" and "nobody" in line:
                say(self.refusal)
            elif verb == "DATA":
                say("354 go on")
                text = []
                while line != ".\r\n":
                    line = (await reader.readline()).decode()
                    text.append(line)
                self.taken.append("".join(text[:-1]).replace("\r\n", "\n"))
                say("250 2.0.0 taken")
            else:
                say("250 fine")
        writer.close()


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sink = Sink()

    async def start(self, workers: int = 1, **fields: Any) -> FakeDaemon:
        if not self.sink.port:
            await self.sink.start()
        config = CONFIG.format(port=self.sink.port)
        self.daemon = FakeDaemon(self.directory, config, {"user": "/home/user"})
        for name, value in fields.items():
            setattr(self.daemon, name, value)
        await self.daemon.start(workers)
        return self.daemon


Scene = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scene], None]:
    def begin(scene: Scene) -> None:
        world = World(tmp_path)
        try:
            fakes.play(scene(world))
        finally:
            print(*world.daemon.sink.lines, sep="\n")

    return begin


def test_in_and_out(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start(workers=2)
        assert (await daemon.send("user@here.test")).startswith("250 2.0.0")
        assert (await daemon.send("else@far.test")).startswith("250 2.0.0")
        assert (await daemon.send("unknown@here.test")).startswith("550")
        await until(lambda: daemon.delivered and world.sink.taken and not daemon.spooled())
        assert daemon.delivered[0].job.user == "user"
        assert daemon.delivered[0].text.endswith(b"\n\nhello\n")
        assert "\nhello\n" in world.sink.taken[0]
        await daemon.stop()

    play(scene)


def test_a_large_message(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start()
        body = "0123456789abcdef\n" * 100_000
        answer = await daemon.send("user@here.test", "Subject: large\n\n" + body)
        assert answer.startswith("250 2.0.0")
        await until(lambda: daemon.delivered)
        assert daemon.delivered[0].text.partition(b"\n\n")[2] == body.encode()
        await daemon.stop()

    play(scene)


def test_a_failure_is_reported_to_the_sender(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start()
        assert (await daemon.send("nobody@far.test")).startswith("250")
        await until(lambda: daemon.queue.stats.get("bounce.envelope"))
        await daemon.at(NOW + 2)
        await until(lambda: world.sink.taken and not daemon.spooled())
        notice = world.sink.taken[0]
        assert "Subject: Delivery status notification: failed" in notice
        assert "Diagnostic-Code: smtp; 550 5.1.1 nobody here" in notice
        assert daemon.queue.stats.get("scheduler.delivery.permfail") == 1
        assert daemon.queue.stats.get("scheduler.delivery.ok") == 1
        await daemon.stop()

    play(scene)


def test_a_notice_that_fails_ends_there(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start()
        assert (await daemon.send("nobody@far.test", sender="nobody@far.test")).startswith("250")
        await until(lambda: daemon.queue.stats.get("bounce.envelope"))
        await daemon.at(NOW + 2)
        await until(lambda: daemon.queue.stats.get("scheduler.delivery.permfail") == 2)
        await until(lambda: not daemon.spooled())
        assert world.sink.taken == []
        assert "warn: queue: no return path!" in daemon.sink.lines
        await daemon.stop()

    play(scene)


def test_a_temporary_failure_is_tried_again(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start()
        daemon.deliver = lambda _: exited(75, "disk full")
        assert (await daemon.send("user@here.test")).startswith("250")
        await until(lambda: daemon.queue.stats.get("scheduler.delivery.tempfail") == 1)
        (evpid,) = daemon.spooled()
        await until(lambda: "retry: 1" in stored(daemon, evpid))
        assert 'errorline: "disk full"' in stored(daemon, evpid)
        daemon.deliver = lambda _: exited(0)
        daemon.now += 20  # the file counts from the real clock of the session
        await until(lambda: wake(daemon) and daemon.delivered and not daemon.spooled())
        await daemon.stop()

    play(scene)


def stored(daemon: FakeDaemon, evpid: str) -> str:
    path = daemon.directory / "spool" / "queue" / evpid[:2] / evpid[:8] / evpid
    return path.read_text()


def wake(daemon: FakeDaemon) -> bool:
    daemon.now += 1
    daemon.queue.wake()
    return True


def test_mail_survives_a_restart(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start()
        daemon.deliver = lambda _: JobResult(Ending.SIGNAL, 9)
        assert (await daemon.send("user@here.test")).startswith("250")
        await until(lambda: daemon.queue.stats.get("scheduler.delivery.tempfail") == 1)
        await daemon.stop()
        assert len(daemon.spooled()) == 1
        daemon = await world.start()
        await until(lambda: wake(daemon) and daemon.delivered and not daemon.spooled())
        assert len(daemon.delivered) == 1
        await daemon.stop()

    play(scene)


def test_a_dispatcher_that_dies_with_work(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start()
        dying = daemon.dispatchers[0]
        daemon.deliver = lambda _: dying.queue._channel.close() or exited(75)  # type: ignore[func-returns-value]
        assert (await daemon.send("user@here.test")).startswith("250")
        await until(lambda: daemon.queue.stats.get("scheduler.delivery.tempfail") == 1)
        daemon.deliver = lambda _: exited(0)
        daemon.add_dispatcher(0, daemon.config)
        await until(lambda: wake(daemon) and daemon.delivered and not daemon.spooled())
        await daemon.stop()

    play(scene)


def test_an_old_dispatcher_drains_while_the_new_one_works(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start()
        old_port = daemon.port
        reader, writer = await asyncio.open_connection("127.0.0.1", old_port)
        await reader.readline()
        writer.write(b"EHLO x\r\nMAIL FROM:<sender@far.test>\r\n")
        await until(lambda: reader._buffer.count(b"2.0.0") == 1)  # type: ignore[attr-defined]
        daemon.add_dispatcher(0, daemon.config)
        from smtpd_core.ipc import messages

        daemon._channels[1].send(messages.Drain())
        assert (await daemon.send("user@here.test")).startswith("250")
        writer.write(b"RCPT TO:<user@here.test>\r\nDATA\r\n")
        await until(lambda: b"354" in reader._buffer)  # type: ignore[attr-defined]
        writer.write(b"Subject: late\r\n\r\nlate\r\n.\r\n")
        await until(lambda: len(daemon.delivered) == 2)
        writer.close()
        await daemon.stop()

    play(scene)


def test_expired_mail_is_returned(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start()
        daemon.deliver = lambda _: exited(75, "try later")
        assert (await daemon.send("user@here.test")).startswith("250")
        await until(lambda: daemon.queue.stats.get("scheduler.delivery.tempfail") == 1)
        daemon.now += 5 * 86400
        await until(lambda: wake(daemon) and world.sink.taken and not daemon.spooled())
        assert "Status: 5.4.7" in world.sink.taken[0]
        assert any("Expire for" in line for line in daemon.sink.lines)
        await daemon.stop()

    play(scene)


def test_a_delay_is_told_once(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start()
        daemon.deliver = lambda _: exited(75, "try later")
        assert (await daemon.send("user@here.test")).startswith("250")
        await until(lambda: daemon.queue.stats.get("scheduler.delivery.tempfail") == 1)
        daemon.now += 7200
        await until(lambda: wake(daemon) and world.sink.taken)
        assert "Subject: Delivery status notification: delayed" in world.sink.taken[0]
        daemon.now += 3600
        tried = daemon.queue.stats.get("scheduler.delivery.tempfail")
        await until(
            lambda: wake(daemon) and daemon.queue.stats.get("scheduler.delivery.tempfail") > tried
        )
        assert len(world.sink.taken) == 1
        await daemon.stop()

    play(scene)


def test_success_is_reported_when_asked_for(play: Callable[[Scene], None]) -> None:
    async def scene(world: World) -> None:
        daemon = await world.start()
        answer = await daemon.send("user@here.test", rcpt=" NOTIFY=SUCCESS")
        assert answer.startswith("250")
        await until(lambda: daemon.delivered and daemon.queue.stats.get("bounce.envelope"))
        await until(lambda: wake(daemon) and world.sink.taken and not daemon.spooled())
        assert "Subject: Delivery status notification: delivered" in world.sink.taken[0]
        await daemon.stop()

    play(scene)
