"""Reply classes, enhanced status codes, and the outcome of a delivery attempt."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import NamedTuple, Optional

from smtpd_core.errors import FormatError, LocalError

MAX_ERRORLINE = 2047  # octets; the envelope's field holds no more

_STATUS = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})")
_LEADING_STATUS = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)")

# Controls and separators that could end a line, or make one look like another. Octets that are
# not UTF-8 (lone surrogates) stay: whoever prints them escapes them.
_CONTROLS = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


class StatusError(FormatError):
    """A text that is not an enhanced status code."""


class EnhancedStatus(NamedTuple):
    """An enhanced status code such as 5.1.1."""

    status_class: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.status_class}.{self.subject}.{self.detail}"

    @property
    def code(self) -> int:
        """Give subject and detail as the envelope stores them; a detail past 9 has no place."""
        subject = self.subject if self.subject <= 9 else 0
        return 10 * subject + (self.detail if self.detail <= 9 and subject else 0)


def parse_status(text: str) -> EnhancedStatus:
    """Read an enhanced status code. Raises StatusError. Source: RFC 3463 section 2."""
    match = _STATUS.fullmatch(text)
    if match is None:
        raise StatusError(f"{text[:64]!r} is not an enhanced status code")
    status_class, subject, detail = match.groups()
    return EnhancedStatus(int(status_class), int(subject), int(detail))


def leading_status(text: str) -> Optional[str]:
    """Give the enhanced status code that a reply's text starts with, if any."""
    match = _LEADING_STATUS.match(text)
    return match[1] if match else None


def one_line(text: str) -> str:
    """Make foreign text fit for one field of an envelope: one line of at most 2047 octets.

    TAB becomes a space and any other control a question mark; a longer text ends in `...`.
    This is the check that keeps a hostile answer from adding fields to an envelope.
    """
    safe = _CONTROLS.sub("?", text.replace("\t", " "))
    octets = safe.encode("utf-8", "surrogateescape")
    if len(octets) <= MAX_ERRORLINE:
        return safe
    cut = octets[: MAX_ERRORLINE - 3]
    while octets[len(cut)] & 0xC0 == 0x80 and len(cut) > MAX_ERRORLINE - 7:
        cut = cut[:-1]  # not inside a character
    return cut.decode("utf-8", "surrogateescape") + "..."


class Result(enum.Enum):
    """What an attempt came to."""

    DELIVERED = "delivered"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"
    LOOP = "loop"


_DEFAULT_STATUS = {
    Result.DELIVERED: EnhancedStatus(2, 0, 0),
    Result.TEMPORARY: EnhancedStatus(4, 0, 0),
    Result.PERMANENT: EnhancedStatus(5, 0, 0),
    Result.LOOP: EnhancedStatus(4, 4, 6),
}


@dataclass(frozen=True)
class Outcome:
    """How one delivery attempt ended; the text is one line, safe to store and to log.

    The status class always agrees with the result: a peer that says `550 2.0.0` has refused.
    """

    result: Result
    status: EnhancedStatus
    text: str

    def __post_init__(self) -> None:
        if self.text != one_line(self.text):
            raise LocalError("the text of an outcome must be one line of printable text")
        if self.status.status_class != _DEFAULT_STATUS[self.result].status_class:
            raise LocalError(f"status {self.status} does not fit {self.result.value}")

    @property
    def is_final(self) -> bool:
        """Tell whether there is nothing left to try."""
        return self.result is not Result.TEMPORARY


def outcome(result: Result, text: str, status: Optional[str] = None) -> Outcome:
    """Make an Outcome of foreign text; a status missing or of another class becomes x.0.0."""
    default = _DEFAULT_STATUS[result]
    found = parse_status(status) if status else default
    if found.status_class != default.status_class:
        found = default
    return Outcome(result, found, one_line(text))


def loop_detected() -> Outcome:
    """Make the outcome of a message that already came by here."""
    return outcome(Result.LOOP, "Loop detected")


def result_of_code(code: int) -> Result:
    """Map a reply code: 2xx delivered, 5xx permanent, all else temporary.

    Source: OpenSMTPD 7.8, where only the first digit counts.
    """
    if 200 <= code <= 299:
        return Result.DELIVERED
    if 500 <= code <= 599:
        return Result.PERMANENT
    return Result.TEMPORARY
