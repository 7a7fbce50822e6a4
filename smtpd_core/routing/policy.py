"""What an expansion asks, and what it is told of the configuration."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional, Union

from smtpd_core.routing.rules import Failure, Match, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class User(NamedTuple):
    """A user of a user base."""

    name: str
    uid: int
    gid: int
    home: str


class FindAlias(NamedTuple):
    """The value of a key of an alias or virtual table; None when there is none."""

    table: str
    key: str


class FindUser(NamedTuple):
    """The user of that name; None when there is none."""

    userbase: str
    name: str


class ReadForward(NamedTuple):
    """The text of a user's .forward; None when there is none. The reader checks its safety."""

    user: User


class ReadInclude(NamedTuple):
    """The text of an include file; None when it cannot be read."""

    path: str


Question = Union[Match, FindAlias, FindUser, ReadForward, ReadInclude]
Answer = Union[bool, str, User, Failure, None]  # a Failure answers any of them


class Forwarding(enum.Enum):
    """What an action does with a user who has a .forward, and with one who has none."""

    NORMAL = "deliver"
    FORWARD_ONLY = "forward-only"
    EXPAND_ONLY = "expand-only"


@dataclass(frozen=True)
class Action:
    """What expansion has to know of an action. user is the one deliveries run as, if named."""

    name: str
    relay: bool = False
    alias: str = ""
    virtual: str = ""
    userbase: str = "<getpwnam>"
    user: str = ""
    forwarding: Forwarding = Forwarding.NORMAL


@dataclass(frozen=True)
class Policy:
    """The configuration of expansion. decode_srs undoes a rewritten sender, or gives None."""

    rules: Sequence[Rule]
    actions: Mapping[str, Action]
    delimiter: str = "+"
    daemon_user: str = "_smtpd"
    decode_srs: Optional[Callable[[str], Optional[str]]] = None
