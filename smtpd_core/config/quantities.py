"""Delays and sizes in the only spellings that smtpd.conf takes.

They are not those of smtpd_core.units: here a delay is one number and one unit, a size one letter.
"""

from __future__ import annotations

import re

from smtpd_core.errors import FormatError

MAX_SECONDS = (1 << 31) - 1  # what the original keeps a delay in
MAX_OCTETS = (1 << 63) - 1

_DELAY_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DELAY = re.compile(r"[ \t]*\+?([0-9]{1,18})([smhd])")
_SIZE = re.compile(r"[ \t]*\+?([0-9]{0,18})(?:\.([0-9]{0,18}))?([BKMGTPEbkmgtpe]?)")


class QuantityError(FormatError):
    """A text that is no delay or no size."""


def parse_delay(text: str) -> int:
    """Read a delay such as `4h` into seconds: at least 1, with the unit s, m, h or d.

    Raises QuantityError.
    """
    match = _DELAY.fullmatch(text)
    if match is None:
        raise QuantityError(f"{text!r} is not a delay (such as 30m, 4h or 2d)")
    seconds = int(match.group(1)) * _DELAY_SECONDS[match.group(2)]
    if not 0 < seconds <= MAX_SECONDS:
        raise QuantityError(f"{text!r} is not between 1s and {MAX_SECONDS}s")
    return seconds


def parse_size(text: str) -> int:
    """Read a size such as `35M` or `1.5g` into octets; units are powers of 1024 up to E.

    Digits may be missing on either side of the point, as the original's scan_scaled has it.
    Raises QuantityError.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise QuantityError(f"{text!r} is not a size (such as 4096, 20K or 1.5M)")
    whole, part, letter = match.groups()
    scale = 1 << 10 * "bkmgtpe".index(letter.lower() or "b")
    octets = int(whole or 0) * scale
    if part:
        octets += int(part) * scale // 10 ** len(part)
    if octets > MAX_OCTETS:
        raise QuantityError(f"{text!r} is too large")
    return octets
