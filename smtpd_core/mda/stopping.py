"""How a delivering process is stopped: by its own time-out, or by the supervisor's SIGTERM.

Both raise StoppedError wherever the process is, so that what was half done is undone on the way
out. settle() ends that: what follows it is not to be reported as failed any more.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from smtpd_core.errors import SmtpdError

if TYPE_CHECKING:
    from typing import NoReturn

_STOPPING = (signal.SIGTERM, signal.SIGALRM)


class StoppedError(SmtpdError):
    """The process has to end; by_timeout says that its time is over."""

    def __init__(self, *, by_timeout: bool) -> None:
        super().__init__("timeout" if by_timeout else "stopped")
        self.by_timeout = by_timeout


def block() -> None:
    """Keep back what would stop the process, while it forks."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def unblock() -> None:
    """Let come what was kept back: StoppedError, it may be, at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


def arm(seconds: int) -> None:
    """Raise StoppedError from SIGTERM and, after so many seconds, from SIGALRM."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(seconds)


def settle() -> None:
    """Go on to the end: the supervisor's SIGKILL remains for who never gets there."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(0)


def _stop(number: int, _frame: object) -> NoReturn:
    settle()  # a second one must not interrupt the undoing
    raise StoppedError(by_timeout=number == signal.SIGALRM)
