"""Which envelopes a listing shows, and in which order: the options of selection and order."""

from __future__ import annotations

from smtpd_core import units
from smtpd_core.errors import UsageError
from smtpd_core.queue import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from smtpd_core.cli.options import Options
    from smtpd_core.queue.entries import Entry

    Test = Callable[[Entry], bool]

_FLAGS = {
    "auth": fields.FLAG_AUTHENTICATED,
    "authenticated": fields.FLAG_AUTHENTICATED,
    "bounce": fields.FLAG_BOUNCE,
    "internal": fields.FLAG_INTERNAL,
}
_MAGIC = ("*", "?", "[")
_COMPARISONS: tuple[tuple[str, Callable[[int, int], bool]], ...] = (
    (">=", lambda value, wanted: value >= wanted),
    ("<=", lambda value, wanted: value <= wanted),
    (">", lambda value, wanted: value > wanted),
    ("<", lambda value, wanted: value < wanted),
    ("=", lambda value, wanted: value == wanted),
    ("+", lambda value, wanted: value > wanted),
    ("-", lambda value, wanted: value < wanted),
)


class Selection:
    """All tests an entry must pass; made from the options of a listing."""

    __slots__ = ("_tests", "details")

    def __init__(self, options: Options, now: int) -> None:
        """Read the options; raises UsageError for a value that cannot be understood."""
        self._tests: list[Test] = []
        self.details = bool(options.texts("size"))
        for name, make in _TESTS.items():
            for value in options.texts(name):
                try:
                    self._tests.append(make(value, now))
                except units.UnitError as error:
                    raise UsageError(f"--{name}: {error}") from None

    def __bool__(self) -> bool:
        return bool(self._tests)

    def accepts(self, entry: Entry) -> bool:
        """Tell whether an entry passes all tests."""
        return all(test(entry) for test in self._tests)


def _glob(pattern: str) -> Callable[[str], bool]:
    """Make a test for a shell pattern, without regard to case."""
    import fnmatch
    import re

    compiled = re.compile(fnmatch.translate(pattern.lower()))
    return lambda value: compiled.match(value.lower()) is not None


def _address_test(pattern: str) -> Callable[[str], bool]:
    """Match a whole address; a pattern without @ is about the local part, `@x` the domain."""
    if pattern in ("", "<>", "@"):
        return lambda address: address in ("", "@")
    matches = _glob(pattern if "@" in pattern or pattern.startswith("*") else f"{pattern}@*")
    if pattern.startswith("@"):
        matches = _glob("*" + pattern)
    # One without a domain is stored as `local@`.
    return lambda address: matches(address) or matches(address.removesuffix("@"))


def _sender(pattern: str, now: int) -> Test:  # noqa: ARG001  (all tests are made alike)
    matches = _address_test(pattern)
    return lambda entry: matches(entry.envelope.sender)


def _recipient(pattern: str, now: int) -> Test:  # noqa: ARG001
    matches = _address_test(pattern)
    return lambda entry: matches(entry.envelope.rcpt) or matches(entry.envelope.dest)


def domain_of(address: str) -> str:
    """Give the domain of an address in lower case."""
    return address.rpartition("@")[2].lower()


def _domain(pattern: str, now: int) -> Test:  # noqa: ARG001
    matches = _glob(pattern.lstrip("@"))
    return lambda entry: (
        matches(domain_of(entry.envelope.dest)) or matches(domain_of(entry.envelope.rcpt))
    )


def _error(pattern: str, now: int) -> Test:  # noqa: ARG001
    anywhere = pattern if any(letter in pattern for letter in _MAGIC) else f"*{pattern}*"
    matches = _glob(anywhere)
    return lambda entry: matches(entry.envelope.errorline)


def _type(wanted: str, now: int) -> Test:  # noqa: ARG001
    return lambda entry: entry.envelope.type == wanted


def _flag(name: str, now: int) -> Test:  # noqa: ARG001
    bit = _FLAGS.get(name.lower())
    if bit is None:
        raise UsageError(f"--flag: {name!r} is not one of {', '.join(_FLAGS)}")
    return lambda entry: bool(entry.envelope.flags & bit)


def _older(duration: str, now: int) -> Test:
    limit = now - units.parse_duration(duration)
    return lambda entry: entry.envelope.ctime < limit


def _newer(duration: str, now: int) -> Test:
    limit = now - units.parse_duration(duration)
    return lambda entry: entry.envelope.ctime > limit


def _compare(expression: str, parse: Callable[[str], int]) -> Callable[[int], bool]:
    for sign, compare in _COMPARISONS:
        if expression.startswith(sign):
            wanted = parse(expression[len(sign) :])
            return lambda value: compare(value, wanted)
    wanted = parse(expression)
    return lambda value: value == wanted


def _tries(expression: str, now: int) -> Test:  # noqa: ARG001
    compare = _compare(expression, _parse_count)
    return lambda entry: compare(entry.envelope.retry)


def _parse_count(digits: str) -> int:
    try:
        return fields.parse_number(digits, 0xFFFF)
    except fields.FieldError as error:
        raise UsageError(f"--tries: {error}") from None


def _size(expression: str, now: int) -> Test:  # noqa: ARG001
    compare = _compare(expression, units.parse_size)
    return lambda entry: entry.item.message_size >= 0 and compare(entry.item.message_size)


_TESTS: dict[str, Callable[[str, int], Test]] = {
    "sender": _sender,
    "recipient": _recipient,
    "domain": _domain,
    "error": _error,
    "type": _type,
    "flag": _flag,
    "older": _older,
    "newer": _newer,
    "tries": _tries,
    "size": _size,
}

# Key of --sort: what it sorts by, then by envelope id. Age and size begin with the largest,
# which is what somebody who sorts by them is looking for.
SORT_KEYS: dict[str, Callable[[Entry], Any]] = {
    "id": lambda entry: entry.evpid,
    "age": lambda entry: entry.envelope.ctime,
    "size": lambda entry: -entry.item.message_size,
    "sender": lambda entry: entry.envelope.sender.lower(),
    "recipient": lambda entry: entry.envelope.dest.lower(),
    "domain": lambda entry: domain_of(entry.envelope.dest),
    "tries": lambda entry: -entry.envelope.retry,
    "error": lambda entry: entry.envelope.errorline,
}
