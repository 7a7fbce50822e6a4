"""Message and envelope ids: 32 and 64 bit numbers with a fixed hexadecimal spelling."""

from __future__ import annotations

from smtpd_core.errors import FormatError

TYPE_CHECKING = False  # typing costs 7 ms at run time; checkers know this name
if TYPE_CHECKING:
    from typing import Optional

MSGID_DIGITS = 8
EVPID_DIGITS = 16
MSGID_MAX = 0xFFFFFFFF
EVPID_MAX = 0xFFFFFFFFFFFFFFFF

_HEX = frozenset("0123456789abcdefABCDEF")
_LOWER_HEX = frozenset("0123456789abcdef")
_C_SPACE = " \t\n\v\f\r"


class IdError(FormatError):
    """A text that is not an id."""


def _strtoull(text: str) -> Optional[int]:
    """Read a whole string as C's strtoull does in base 16; None when something is left over."""
    text = text.lstrip(_C_SPACE)
    negative = text.startswith("-")
    if text[:1] in ("-", "+"):
        text = text[1:]
    if text[:2] in ("0x", "0X") and text[2:3] in _HEX:
        text = text[2:]
    if not text or not _HEX.issuperset(text):
        return None
    number = int(text, 16)
    return (-number & EVPID_MAX) if negative else number


def parse_msgid(text: str) -> int:
    """Read a message id as a user types it: exactly 8 characters.

    Signs, blanks and 0x are accepted where they fit, as the original accepts them.
    Raises IdError otherwise, and for 0.
    """
    number = _strtoull(text) if len(text) == MSGID_DIGITS else None
    if not number or number > MSGID_MAX:
        raise IdError(f"{text!r} is not a message id (8 hexadecimal digits)")
    return number


def parse_evpid(text: str) -> int:
    """Read an envelope id as a user types it: exactly 16 characters; see parse_msgid."""
    number = _strtoull(text) if len(text) == EVPID_DIGITS else None
    if not number:
        raise IdError(f"{text!r} is not an envelope id (16 hexadecimal digits)")
    return number


def is_msgid_name(name: str) -> bool:
    """Tell whether a file name is a message id the way daemons write it: lower case, not 0."""
    return len(name) == MSGID_DIGITS and _LOWER_HEX.issuperset(name) and name != "0" * MSGID_DIGITS


def is_evpid_name(name: str) -> bool:
    """Tell whether a file name is an envelope id the way daemons write it."""
    return len(name) == EVPID_DIGITS and _LOWER_HEX.issuperset(name) and name != "0" * EVPID_DIGITS


def format_msgid(msgid: int) -> str:
    """Spell a message id: 8 lower case digits."""
    return f"{msgid:08x}"


def format_evpid(evpid: int) -> str:
    """Spell an envelope id: 16 lower case digits."""
    return f"{evpid:016x}"


def msgid_of(evpid: int) -> int:
    """Give the message an envelope belongs to."""
    return evpid >> 32


class Selector:
    """What a command is about: one envelope, all envelopes of one message, or everything."""

    __slots__ = ("evpid", "msgid")

    def __init__(self, msgid: Optional[int] = None, evpid: Optional[int] = None) -> None:
        """Select an evpid, or else a msgid, or else everything."""
        self.evpid = evpid
        self.msgid = msgid_of(evpid) if evpid is not None else msgid

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read `all`, a message id or an envelope id; IdError when it is none of them."""
        if text == "all":
            return cls()
        if len(text) == MSGID_DIGITS:
            return cls(msgid=parse_msgid(text))
        return cls(evpid=parse_evpid(text))

    def matches(self, evpid: int) -> bool:
        """Tell whether an envelope is selected."""
        if self.evpid is not None:
            return evpid == self.evpid
        return self.msgid is None or msgid_of(evpid) == self.msgid
