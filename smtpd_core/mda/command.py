"""Run a shell script that is fed a message: a delivery command, or a wrapper around a delivery.

Descriptor 3 of the process belongs to this module: it must hold nothing that is needed.
The script has a session of its own, so that all it started can be killed when its time is over.
What it prints is kept only as far as it may be the last line. Output goes through a pipe that
closes with the delivery: a program left in the background can print no more after that.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Tuple

from smtpd_core.errors import SmtpdError
from smtpd_core.mda.job import Ending, JobResult, exited
from smtpd_core.mda.message import Message, write_all
from smtpd_core.mda.stopping import block, unblock
from smtpd_core.text import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELL = "/bin/sh"
DELIVERED_TO = 3  # the descriptor to which a wrapper's %{mda} writes
MAX_LINE = 1000  # octets kept of the last line printed
MAX_TAIL = 4096  # octets of output kept while waiting
MAX_WRAPPED = 512 << 20  # octets that a wrapper may make of a message
READ = 65536
MAX_DRAINED = 64  # reads after the end: who prints on in the background is not listened to


class WrapperError(SmtpdError):
    """A wrapper that did what no wrapper should."""


class LastLine:
    """A feeder: keeps the end of an output, for its last line."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, octets: bytes) -> None:
        """Take a piece of output."""
        self._tail = (self._tail + octets)[-MAX_TAIL:]

    def text(self) -> str:
        """Give the last line that holds anything, at most MAX_LINE octets of it."""
        line = self._tail.rstrip(b"\r\n \t").rpartition(b"\n")[2]
        return decode(line[:MAX_LINE])


class _Ended(NamedTuple):
    """How a script ended, and whether the message was all written."""

    status: int
    text: str
    consumed: bool


def run(script: str, environment: Tuple[Tuple[str, str], ...], message: Message) -> JobResult:
    """Run a script with a message as its input. Raises StoppedError; nothing runs then."""
    return _result(_Shell(script, environment, message).run(None))


def wrapped(
    script: str, environment: Tuple[Tuple[str, str], ...], message: Message
) -> Tuple[JobResult, Message]:
    """Run a wrapper; give its result, and the message that it wrote to DELIVERED_TO.

    Raises StoppedError, and OSError when what it writes cannot be kept.
    """
    with tempfile.TemporaryFile() as kept:
        ended = _Shell(script, environment, message).run(kept.fileno())
        return _result(ended), Message(b"", os.dup(kept.fileno()))


def _result(ended: _Ended) -> JobResult:
    if ended.status < 0:
        return JobResult(Ending.SIGNAL, -ended.status, ended.text)
    return exited(ended.status, ended.text, consumed=ended.consumed)


class _Shell:
    """One script at work."""

    def __init__(
        self, script: str, environment: Tuple[Tuple[str, str], ...], message: Message
    ) -> None:
        self.script = script
        self.environment = {encode(name): encode(value) for name, value in environment}
        self.chunks: Iterator[bytes] = message.chunks()
        self.chunk = memoryview(b"")
        self.consumed = False
        self.printed = LastLine()
        self.kept: Optional[int] = None
        self.room = MAX_WRAPPED
        self.selector = selectors.DefaultSelector()
        self.opened: List[int] = []
        self.fed = -1  # the input of the script, while it is open

    def run(self, kept: Optional[int]) -> _Ended:
        """Feed the script and listen to it until it ends; kept takes what it delivers."""
        self.kept = kept
        child: Optional[subprocess.Popen[bytes]] = None
        try:
            wake_read, wake_write = self._pipe()
            os.set_blocking(wake_write, False)
            signal.signal(signal.SIGCHLD, lambda *_: None)
            signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
            block()  # until we know whom to kill
            try:
                child = self._start()
            finally:
                unblock()
            self.selector.register(wake_read, selectors.EVENT_READ, self._wake)
            while child.poll() is None:
                self._serve(None)
            self._stop_feeding()
            for _ in range(MAX_DRAINED):  # what was written before the script ended
                if not self._serve(0):
                    break
            return _Ended(child.returncode, self.printed.text(), self.consumed)
        except BaseException:
            if child is not None:
                _kill(child)
            raise
        finally:
            signal.set_wakeup_fd(-1)
            self.selector.close()
            for descriptor in self.opened:
                os.close(descriptor)

    def _pipe(self) -> Tuple[int, int]:
        pair = os.pipe()
        self.opened += pair
        os.set_blocking(pair[0], False)
        return pair

    def _close(self, descriptor: int) -> None:
        self.opened.remove(descriptor)
        os.close(descriptor)

    def _start(self) -> subprocess.Popen[bytes]:
        stdin_read, stdin_write = self._pipe()
        os.set_blocking(stdin_read, True)
        os.set_blocking(stdin_write, False)
        source, output = self._pipe()
        sink: Optional[int] = None
        passed: Tuple[int, ...] = ()
        if self.kept is not None:
            sink, delivered = self._pipe()
            os.dup2(delivered, DELIVERED_TO)
            self._close(delivered)
            self.opened.append(DELIVERED_TO)
            passed = (DELIVERED_TO,)
        child = subprocess.Popen(  # noqa: S603  the user's own command, by the user's own shell
            [SHELL, "-c", encode(self.script)],
            stdin=stdin_read,
            stdout=output,
            stderr=output,
            env=self.environment,
            pass_fds=passed,
            start_new_session=True,
            preexec_fn=unblock,  # noqa: PLW1509  there are no threads in this process
        )
        for descriptor in (stdin_read, output, *passed):
            self._close(descriptor)
        self.selector.register(source, selectors.EVENT_READ, self._take_output)
        self.selector.register(stdin_write, selectors.EVENT_WRITE, self._feed)
        self.fed = stdin_write
        if sink is not None:
            self.selector.register(sink, selectors.EVENT_READ, self._keep)
        return child

    def _serve(self, wait_seconds: Optional[float]) -> bool:
        """Carry what can be carried now; False when there is nothing."""
        ready = self.selector.select(wait_seconds)
        for key, _ in ready:
            key.data(key.fd)
        return bool(ready)

    def _wake(self, descriptor: int) -> None:
        os.read(descriptor, READ)

    def _feed(self, descriptor: int) -> None:
        """Write what fits; the script may stop reading, which is told at the end."""
        try:
            if self.chunk:
                self.chunk = self.chunk[os.write(descriptor, self.chunk) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._stop_feeding()
            return
        if not self.chunk:
            chunk = next(self.chunks, b"")
            self.chunk = memoryview(chunk)
            if not chunk:
                self.consumed = True
                self._stop_feeding()

    def _stop_feeding(self) -> None:
        if self.fed >= 0:
            self._hang_up(self.fed)
            self.fed = -1

    def _take_output(self, descriptor: int) -> None:
        octets = os.read(descriptor, READ)
        if octets:
            self.printed.feed(octets)
        else:
            self._hang_up(descriptor)

    def _keep(self, descriptor: int) -> None:
        octets = os.read(descriptor, READ)
        if not octets:
            self._hang_up(descriptor)
            return
        self.room -= len(octets)
        if self.room < 0:
            raise WrapperError(f"a wrapper made more than {MAX_WRAPPED} octets of a message")
        assert self.kept is not None
        write_all(self.kept, octets)

    def _hang_up(self, descriptor: int) -> None:
        self.selector.unregister(descriptor)
        self._close(descriptor)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill everything in the session that has not left it."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
