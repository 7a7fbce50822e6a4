"""The supervisor, with roles of a few lines in real processes."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional, Sequence

import pytest

from smtpd_core.config.model import Config, Listener, SocketListener
from smtpd_core.config.problems import Place
from smtpd_core.daemon import supervisor as module
from smtpd_core.daemon.log import Log
from smtpd_core.daemon.questions import encode_answer
from smtpd_core.daemon.sockets import Listening, Sockets
from smtpd_core.daemon.supervisor import Supervisor
from smtpd_core.errors import SmtpdError
from smtpd_core.ipc import messages
from smtpd_core.ipc.link import Link, LinkError
from smtpd_core.ipc.messages import Role
from smtpd_core.mda.host import Host
from smtpd_core.mda.job import Ending, Job, JobResult, Method

if TYPE_CHECKING:
    import socket

WHERE = Place("smtpd.conf", 1)
CONFIG = Config("smtpd.conf", SocketListener(WHERE))


class Lines:
    """A sink that writes lines to a file, which processes share."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def write(self, severity: int, line: str) -> None:
        assert 0 <= severity <= 7
        with self.path.open("a") as file:
            file.write(line + "\n")

    def read(self) -> list[str]:
        return self.path.read_text().splitlines()


class Blocking:
    """A link whose owner waits for each message."""

    def __init__(self, end: socket.socket, me: Role, peer: Role = Role.SUPERVISOR) -> None:
        self.link = Link(end, me, peer)
        self.end = end
        end.setblocking(True)

    def next(self) -> Any:
        while True:
            self.link.flush()
            received = self.link.next_message()
            if received is not None:
                return received.message
            self.link.receive()


class FakeRoles:
    """A queue that says what it hears, and dispatchers that do as their configuration is called."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.next_config: Optional[Config] = None

    def say(self, line: str) -> None:
        self.lines.write(0, line)

    def run_queue(self, config: Config, end: socket.socket) -> int:
        link = Blocking(end, Role.QUEUE)
        link.link.tell(messages.Ready())
        self.say(f"queue: {config.name}")
        try:
            while True:
                message = link.next()
                self.say(f"queue: {type(message).__name__}")
                if isinstance(message, messages.Drain):
                    return 0
        except LinkError:
            return 1

    def run_dispatcher(
        self, config: Config, slot: int, listening: Sequence[Listening], ends: Any
    ) -> int:
        if config.name == "dies":
            return 3
        link = Blocking(ends[0], Role.DISPATCHER)
        if config.name == "lies":
            number, payload = messages.encode_message(messages.Drain())
            from smtpd_core.ipc.frames import Frame, encode_frame

            ends[0].send(encode_frame(Frame(number, payload)))
        else:
            link.link.tell(messages.Ready())
        self.say(f"dispatcher {slot} {config.name}: listens {len(listening)}")
        if config.name == "asks":
            self.ask(link)
        try:
            message = link.next()
        except LinkError:
            return 1
        self.say(f"dispatcher {slot} {config.name}: {type(message).__name__}")
        return 0

    def ask(self, link: Blocking) -> None:
        link.link.ask(messages.ReadForward("user", 1, 1, "/home"))
        self.say(f"answer {link.next()}")
        link.link.ask(messages.CheckPassword("user", "hangs"))
        self.say(f"answer {link.next()}")
        job = Job(Method.COMMAND, "user", os.geteuid(), os.getegid(), "/", script="exit 3")
        read_end, write_end = os.pipe()
        os.close(write_end)
        link.link.ask(messages.RunDelivery(job.fields()), read_end)
        answer = link.next()
        self.say(f"answer {JobResult.from_fields(answer.fields).ending}")

    def policy(self, config: Config) -> messages.QueuePolicy:
        return messages.QueuePolicy(config.name, 0, (), (), (), 1, 1)

    def answer(self, message: Any) -> bytes:
        if isinstance(message, messages.CheckPassword):
            os._exit(1)  # without an answer
        return encode_answer(messages.Contents(b"other@example.org\n"))

    def load(self) -> Config:
        if self.next_config is None:
            raise SmtpdError("smtpd.conf:1: syntax error")
        return self.next_config


class Daemon:
    """A supervisor in a process of its own."""

    def __init__(self, tmp_path: Path, config: Config, workers: int = 1) -> None:
        self.lines = Lines(tmp_path / "log")
        self.next_path = tmp_path / "next"
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                status = self._run(config, workers)
            except Exception:  # noqa: BLE001 - for the assertion that then fails
                self.lines.write(0, traceback.format_exc())
            finally:
                os._exit(status)

    def _run(self, config: Config, workers: int) -> int:
        roles = FakeRoles(self.lines)
        host = Host("here", lambda: 0, os.urandom, time.sleep)
        supervisor = Supervisor(config, roles, Sockets(), Log(self.lines), host)
        supervisor.workers = workers
        supervisor.on_ready = lambda: roles.say("ready")

        def reloading(begins: bool) -> None:
            if begins and self.next_path.exists():
                roles.next_config = replace(config, name=self.next_path.read_text())
            roles.say(f"reloading {begins}")

        supervisor.on_reload = reloading
        return supervisor.run()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_for(self, part: str, count: int = 1) -> None:
        deadline = time.monotonic() + 10
        while sum(part in line for line in self.lines.read()) < count:
            assert time.monotonic() < deadline, self.lines.read()
            os.sched_yield()

    def end(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Daemon] = []

    def begin(name: str = "waits", workers: int = 1, **fields: Any) -> Daemon:
        assert threading.active_count() == 1, "a fork from here would be unsafe"
        daemon = Daemon(tmp_path, replace(CONFIG, name=name, **fields), workers)
        running.append(daemon)
        return daemon

    yield begin
    for daemon in running:
        if daemon.pid:
            daemon.signal(signal.SIGKILL)
            daemon.end()


def test_an_orderly_life(start: Start) -> None:
    listener = Listener(WHERE, "lo", 0, ("127.0.0.1",))
    daemon = start(workers=2, listeners=(listener,))
    daemon.wait_for("AddDispatcher", 2)
    daemon.signal(signal.SIGTERM)
    assert daemon.end() == 0, daemon.lines.read()
    lines = daemon.lines.read()
    assert sum("listens 1" in line for line in lines) == 2
    assert "ready" in lines
    assert lines[-1] == "queue: Drain"
    assert sorted(line for line in lines[-3:-1]) == [
        "dispatcher 0 waits: Drain",
        "dispatcher 1 waits: Drain",
    ]


def test_questions_for_root(start: Start) -> None:
    daemon = start("asks")
    daemon.wait_for("answer", 3)
    answers = [line for line in daemon.lines.read() if line.startswith("answer")]
    assert answers[0] == "answer Contents(text=b'other@example.org\\n')"
    assert answers[1] == "answer Failed(text='it cannot be known now')"
    assert answers[2] in (f"answer {Ending.EXIT}", f"answer {Ending.REFUSED}")
    daemon.signal(signal.SIGINT)
    assert daemon.end() == 0, daemon.lines.read()


def test_a_dispatcher_that_dies_is_replaced(start: Start) -> None:
    daemon = start()
    daemon.wait_for("AddDispatcher")
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    daemon.wait_for("dispatcher 1 ended (signal 9)")
    daemon.wait_for("AddDispatcher", 2)
    daemon.signal(signal.SIGTERM)
    assert daemon.end() == 0, daemon.lines.read()


def test_a_dead_queue_takes_all_down(start: Start) -> None:
    daemon = start()
    daemon.wait_for("AddDispatcher")
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert daemon.end() == 1
    assert "fatal: the queue role ended (signal 9)" in daemon.lines.read()


@pytest.mark.parametrize("name", ["dies", "lies"])
def test_a_start_that_cannot_work(start: Start, name: str) -> None:
    daemon = start(name)
    assert daemon.end() == 1
    assert any(line.startswith("fatal: dispatcher 1 ended") for line in daemon.lines.read())


def test_a_reload(start: Start) -> None:
    daemon = start()
    daemon.wait_for("AddDispatcher")
    daemon.next_path.write_text("second")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("dispatcher 0 waits: Drain")
    daemon.wait_for("AddDispatcher", 2)
    lines = daemon.lines.read()
    assert "info: configuration reloaded" in lines
    assert lines.index("queue: QueuePolicy") < len(lines) - 1
    daemon.signal(signal.SIGTERM)
    assert daemon.end() == 0, daemon.lines.read()
    assert "dispatcher 0 second: Drain" in daemon.lines.read()


@pytest.mark.parametrize("name", ["", "dies"])
def test_a_reload_that_cannot_work_changes_nothing(start: Start, name: str) -> None:
    daemon = start()
    daemon.wait_for("AddDispatcher")
    if name:
        daemon.next_path.write_text(name)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("the configuration stays as it was")
    daemon.signal(signal.SIGTERM)
    assert daemon.end() == 0, daemon.lines.read()
    lines = daemon.lines.read()
    assert "dispatcher 0 waits: Drain" in lines
    assert lines.count("queue: AddDispatcher") == 1


def test_limits_are_finite() -> None:
    assert module.STOP_SECONDS + 2 * module.KILL_SECONDS < 330  # TimeoutStopSec of the unit
