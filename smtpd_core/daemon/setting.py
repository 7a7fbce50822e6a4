"""What holds for one start of the daemon, whatever configuration is in force."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, FrozenSet, Mapping, Optional, Tuple

from smtpd_core.mda.host import Host

if TYPE_CHECKING:
    from smtpd_core.daemon.log import Log
    from smtpd_core.daemon.privileges import Identity
    from smtpd_core.queue.codec import Key


def clock() -> int:
    """Give the seconds since the epoch: the clock of the daemon."""
    return int(time.time())  # noqa: TID251 - below daemon, time is a parameter


def zone(now: int) -> Tuple[int, str]:
    """Give how many seconds local time is east of UTC, and what it is called."""
    local = time.localtime(now)
    return local.tm_gmtoff, local.tm_zone


def draw(below: int) -> int:
    """Give a number below another that nobody can guess."""
    octets = (below.bit_length() + 7) // 8 + 8
    return int.from_bytes(os.urandom(octets), "big") % below


@dataclass(frozen=True)
class Setting:
    """One start: who, where, with what.

    daemon and queue are the users of the roles; without root both are whoever started us, and
    nobody changes anything.
    """

    log: Log
    server_name: str
    spool: str
    config_path: str
    macros: Mapping[str, str]
    daemon: Identity
    queue: Identity
    privileged: bool
    key: Optional[Key] = None
    clock: Callable[[], int] = clock
    paused: FrozenSet[str] = frozenset()  # of smtp, mta, mda: what does not run at the start

    def host(self) -> Host:
        """Describe the machine for deliveries."""
        return Host(self.server_name, self.clock, os.urandom, time.sleep)
