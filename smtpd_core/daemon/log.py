"""Lines for the operator: `session subsystem event key=value ...`, to syslog or standard error.

Foreign text never ends a line or begins another one: everything is escaped here, once, on the way
out. Names of secrets print as <secret>, whoever logs them.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Mapping, Optional, Protocol

from smtpd_core import text

MAX_LINE = 4096  # octets: no line of ours is longer, and syslog daemons cut at 8192 or earlier
LEVELS: Mapping[str, int] = {"crit": 2, "err": 3, "warn": 3, "info": 6, "debug": 7}
SECRETS = frozenset({"password", "secret", "key", "credentials", "token"})
SYSLOG_PATHS = ("/dev/log", "/var/run/syslog", "/var/run/log")
_FACILITY_MAIL = 2 << 3
_RETRY_SECONDS = 5


class Sink(Protocol):
    """Where lines go; writing never waits and never fails."""

    def write(self, severity: int, line: str) -> None:
        """Take one line, already safe."""


class DescriptorSink:
    """A descriptor, such as standard error with -d: no time, no name."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, severity: int, line: str) -> None:  # noqa: ARG002 - syslog alone has them
        """Write a line in one go, so that those of several processes do not mix."""
        try:
            os.write(self._descriptor, text.encode(line) + b"\n")
        except OSError:
            pass  # nobody is left to tell


class SyslogSink:
    """The local syslog daemon; a line it cannot take at once is lost, as everywhere."""

    def __init__(self, paths: tuple[str, ...] = SYSLOG_PATHS, tag: str = "smtpd") -> None:
        """Connect now: later the socket may be out of reach."""
        self._paths = paths
        self._tag = tag
        self._socket: Optional[socket.socket] = None
        self._tried = float("-inf")
        self._connect()

    @property
    def connected(self) -> bool:
        """Tell whether a syslog daemon listens."""
        return self._socket is not None

    def write(self, severity: int, line: str) -> None:
        """Send a line, to a new daemon when the old one went away."""
        now = time.localtime()
        month = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * now.tm_mon - 3 : 3 * now.tm_mon]
        stamp = f"{month} {now.tm_mday:2} {time.strftime('%H:%M:%S', now)}"
        octets = text.encode(
            f"<{_FACILITY_MAIL | severity}>{stamp} {self._tag}[{os.getpid()}]: {line}"
        )
        if not self._send(octets):
            self._connect()
            self._send(octets)

    def _send(self, octets: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send(octets, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True  # full: lost
        except OSError:
            self._socket.close()
            self._socket = None
            return False
        return True

    def _connect(self) -> None:
        if self._socket is not None or time.monotonic() < self._tried + _RETRY_SECONDS:
            return
        self._tried = time.monotonic()
        for path in self._paths:
            end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                end.connect(path)
            except OSError:
                end.close()
                continue
            self._socket = end
            return


def format_event(session: int, subsystem: str, event: str, fields: Mapping[str, object]) -> str:
    """Spell an event; session 0 stands for none. Values with a blank or a quote are quoted."""
    words = [f"{session:016x} {subsystem} {event}"]
    for name, value in fields.items():
        words.append(f"{name}={_spell(name, str(value))}")
    return " ".join(words)


def _spell(name: str, value: str) -> str:
    if name in SECRETS:
        return "<secret>"
    if value and not any(each in value for each in ' "\t\n\r'):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Log:
    """Where a role writes; called with a level and a line, it takes lines made elsewhere."""

    def __init__(self, sink: Sink, *, verbose: bool = False) -> None:
        self.sink = sink
        self.verbose = verbose

    def __call__(self, level: str, line: str) -> None:
        """Write a line of a level of LEVELS; one of an unknown level counts as err."""
        severity = LEVELS.get(level, LEVELS["err"])
        if severity == LEVELS["debug"] and not self.verbose:
            return
        safe = text.escape(line)
        octets = text.encode(safe)
        if len(octets) > MAX_LINE:
            safe = octets[: MAX_LINE - 3].decode("utf-8", "ignore") + "..."
        self.sink.write(severity, safe)

    def info(self, session: int, subsystem: str, event: str, **fields: object) -> None:
        """Write an event of a session."""
        self("info", format_event(session, subsystem, event, fields))

    def complain(self, sentence: str) -> None:
        """Write what the operator should look at."""
        self("warn", f"warn: {sentence}")

    def remark(self, sentence: str) -> None:
        """Write what only the curious want, with -v."""
        self("debug", f"debug: {sentence}")

    def confess(self, error: BaseException) -> None:
        """Write down a mistake of our own, and where it happened."""
        import traceback

        self("crit", f"internal error: {type(error).__name__}: {error}")
        for frame in traceback.extract_tb(error.__traceback__)[-12:]:
            self("crit", f"internal error: {frame.filename}:{frame.lineno} {frame.name}")
