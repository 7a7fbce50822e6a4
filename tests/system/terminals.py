"""Run a program at a pseudo terminal of its own, type to it, and see what it shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_SECONDS = 20  # only a test that fails waits as long
_COLUMNS = 100


class Terminal:
    """A terminal whose session is one program; all that it showed is in `shown`."""

    def __init__(self, command: list[str], descriptors: dict[int, int], **environ: str) -> None:
        """Start a program; some of its descriptors may be other ones than the terminal."""
        pid, master = pty.fork()
        if not pid:
            try:
                for descriptor, other in descriptors.items():
                    os.dup2(other, descriptor)
                os.execve(command[0], command, {**os.environ, "TERM": "xterm", **environ})
            finally:
                os._exit(127)
        self.pid = pid
        self.master = master
        self.shown = b""
        self.status = -1
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, _COLUMNS, 0, 0))

    def echoes(self) -> bool:
        """Tell whether what is typed is shown."""
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def look(self, seconds: float) -> bool:
        """Take what is shown, waiting for it at most so long; False once the session is over."""
        if select.select([self.master], [], [], seconds)[0]:
            try:
                octets = os.read(self.master, 65536)
            except OSError:  # how Linux says that nobody is left
                octets = b""
            self.shown += octets
            return bool(octets)
        return True

    def wait_for(self, wanted: Callable[[], bool]) -> None:
        """Look until something holds; raises AssertionError with what was shown instead."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not wanted():
            assert self.look(0.02), self.shown
            assert time.monotonic() < end, self.shown

    def wait_for_prompt(self, times: int) -> None:
        """Wait until a secret is asked for, the given time, in silence."""
        self.wait_for(lambda: self.shown.count(b"key: ") >= times)
        assert not self.echoes()

    def type(self, octets: bytes) -> None:
        """Type something; octet 3 is Ctrl-C."""
        os.write(self.master, octets)

    def finish(self) -> int:
        """Wait for the end; give the exit status, negative for a signal."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while self.look(0.02):
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.pid = 0
                self.status = os.waitstatus_to_exitcode(status)
                while select.select([self.master], [], [], 0)[0] and self.look(0):
                    pass
                return self.status
            assert time.monotonic() < end, self.shown
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return self.status

    def close(self) -> None:
        """End the program, should it still run, and the terminal."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)
