"""Whose turn it is: users take turns, each with a bounded number of deliveries at a time.

A user with too many waiting is put on hold: more of that user's envelopes stay with the scheduler,
in a hold queue, until few enough are left here. Nothing here knows what a delivery is.

Source: smtpd.conf(5), `mda limit`; OpenSMTPD 7.8.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Deque, Dict, Generic, NamedTuple, Optional, Tuple, TypeVar

from smtpd_core.errors import LocalError

if TYPE_CHECKING:
    from smtpd_core.config.settings import MdaLimits

Key = Tuple[str, str]  # user name and user base
Item = TypeVar("Item")
RELEASE_ALL = 0


class Turn(NamedTuple):
    """A delivery that may begin now."""

    key: Key
    number: int  # of the user, as long as anything of that user is here


class _User(Generic[Item]):
    """What one user has here."""

    __slots__ = ("held", "number", "ready", "running", "waiting")

    def __init__(self, number: int) -> None:
        self.number = number
        self.waiting: Deque[Item] = deque()
        self.running = 0
        self.held = 0  # as far as we know
        self.ready = False  # whether the user is in the row

    @property
    def count(self) -> int:
        return len(self.waiting) + self.running


class Turns(Generic[Item]):
    """All users that have mail to be delivered."""

    def __init__(self, limits: MdaLimits) -> None:
        self._limits = limits
        self._users: Dict[Key, _User[Item]] = {}
        self._ready: Deque[Key] = deque()  # users who may begin another delivery
        self._numbers = 0
        self.running = 0
        self.envelopes = 0

    @property
    def users(self) -> int:
        """Tell how many users have something here."""
        return len(self._users)

    @property
    def waiting(self) -> int:
        """Tell how many deliveries have not begun."""
        return self.envelopes - self.running

    def knows(self, key: Key) -> bool:
        """Tell whether a user has something here."""
        return key in self._users

    def add(self, key: Key, item: Item) -> bool:
        """Take a delivery; False when it is to be held instead."""
        user = self._users.get(key)
        if user is None:
            self._numbers += 1
            user = self._users[key] = _User(self._numbers)
        if user.count >= self._limits.task_hiwat:
            user.held += 1
            return False
        user.waiting.append(item)
        self.envelopes += 1
        self._make_ready(key, user)
        return True

    def begin(self) -> Optional[Tuple[Turn, Item]]:
        """Give the next delivery that may begin; None when there is none for now."""
        if self.running >= self._limits.max_session or not self._ready:
            return None
        key = self._ready.popleft()
        user = self._users[key]
        user.ready = False
        item = user.waiting.popleft()
        user.running += 1
        self.running += 1
        self._make_ready(key, user)
        return Turn(key, user.number), item

    def end(self, key: Key) -> Optional[int]:
        """Count a delivery as over; give how many held ones to release, RELEASE_ALL for all.

        None: none. A user with nothing left is forgotten.
        """
        user = self._users.get(key)
        if user is None or not user.running:
            raise LocalError(f"no delivery of {key[0]!r} is running")
        user.running -= 1
        self.running -= 1
        self.envelopes -= 1
        self._make_ready(key, user)
        if not user.count:
            del self._users[key]
            return RELEASE_ALL if user.held else None
        if not user.held or user.count > self._limits.task_lowat:
            return None
        released = self._limits.task_release
        user.held = max(1, user.held - released)  # the last are released when all else is done
        return released

    def drop_waiting(self) -> int:
        """Forget what has not begun; give how many that were."""
        dropped = 0
        for user in self._users.values():
            dropped += len(user.waiting)
            user.waiting.clear()
            user.ready = False
        self._ready.clear()
        self.envelopes -= dropped
        self._users = {key: user for key, user in self._users.items() if user.running}
        return dropped

    def _make_ready(self, key: Key, user: _User[Item]) -> None:
        """Put a user at the end of the row, if there is something to begin."""
        free = user.running < self._limits.max_session_per_user
        if user.waiting and free and not user.ready:
            user.ready = True
            self._ready.append(key)
