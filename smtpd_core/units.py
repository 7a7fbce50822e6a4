"""Durations and sizes as people write them."""

from __future__ import annotations

from smtpd_core.errors import FormatError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_OCTETS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DIGITS = frozenset("0123456789")
_MAX_DIGITS = 18  # keeps every value in 63 bits, and int() away from hostile lengths


class UnitError(FormatError):
    """A text that is no duration or no size."""


def parse_duration(text: str) -> int:
    """Read a duration such as `90`, `4h`, `1d12h` into seconds.

    Units are s, m, h, d, w; a bare number is seconds. Raises UnitError.
    """
    total = 0
    digits = ""
    parts = 0
    for letter in text.strip().lower():
        if letter in _DIGITS:
            digits += letter
        elif letter in _SECONDS and 0 < len(digits) <= _MAX_DIGITS:
            total += int(digits) * _SECONDS[letter]
            digits = ""
            parts += 1
        else:
            raise UnitError(f"{text!r} is not a duration (such as 30m, 4h or 1d12h)")
    if digits and parts == 0 and len(digits) <= _MAX_DIGITS:
        return int(digits)
    if digits or parts == 0:
        raise UnitError(f"{text!r} is not a duration (such as 30m, 4h or 1d12h)")
    return total


def format_duration(seconds: int) -> str:
    """Spell a duration in its two largest units: `45s`, `12m`, `4h30m`, `3d2h`."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m"
    if seconds < 86400:
        minutes = seconds % 3600 // 60
        return f"{seconds // 3600}h{minutes}m" if minutes else f"{seconds // 3600}h"
    hours = seconds % 86400 // 3600
    return f"{seconds // 86400}d{hours}h" if hours else f"{seconds // 86400}d"


def parse_size(text: str) -> int:
    """Read a size such as `4096`, `20k`, `1.5m` into octets; units are powers of 1024.

    Raises UnitError.
    """
    lowered = text.strip().lower()
    if lowered.endswith("ib") and len(lowered) > 2:
        lowered = lowered[:-2]
    elif len(lowered) > 1 and lowered.endswith("b") and lowered[-2] in _OCTETS:
        lowered = lowered[:-1]
    unit = lowered[-1:] if lowered[-1:] in _OCTETS and not lowered[-1:].isdigit() else ""
    number = lowered[: len(lowered) - len(unit)]
    whole, point, part = number.partition(".")
    if (
        not whole
        or not _DIGITS.issuperset(whole + part)
        or (point and not part)
        or len(number) > _MAX_DIGITS
    ):
        raise UnitError(f"{text!r} is not a size (such as 4096, 20k or 1.5m)")
    octets = int(whole) * _OCTETS[unit]
    return octets + int(part) * _OCTETS[unit] // 10 ** len(part) if part else octets


def format_size(octets: int) -> str:
    """Spell a size in at most five characters: `812`, `4.0k`, `731k`, `1.2m`."""
    if octets < 1024:
        return str(octets)
    value = float(octets)
    for unit in "kmgtpe":
        value /= 1024
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if value < 1023.5:
            return f"{value:.0f}{unit}"
    return f"{value:.0f}e"
