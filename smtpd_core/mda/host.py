"""What the delivering process needs of its machine: names, time, chance, patience."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable

MAIL_DIRECTORY = "/var/mail"
SEARCH_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"  # what a command gets as PATH


@dataclass(frozen=True)
class Host:
    """This machine; entropy(n) gives n random octets, pause(seconds) waits."""

    name: str
    clock: Callable[[], int]
    entropy: Callable[[int], bytes]
    pause: Callable[[float], None]
    mail_directory: str = MAIL_DIRECTORY

    def date(self) -> str:
        """Spell this moment as C's ctime does, in the zone of the machine."""
        return time.asctime(time.localtime(self.clock()))
