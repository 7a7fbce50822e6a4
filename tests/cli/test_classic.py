from __future__ import annotations

from typing import Any

import pytest

from smtpd_core.cli.classic import Classic, format_fast, format_flags, format_line
from smtpd_core.queue.entries import Entry
from smtpd_core.queue.envelope import Envelope, parse_envelope
from smtpd_core.queue.shape import Shapes
from smtpd_core.queue.sources import Item
from tests.trees import envelope


def line(bucket: str = "queue", **values: object) -> str:
    item = Item("envelope", "x", bucket, 0x1111111100000002, b"")
    return format_line(Entry(item, Envelope(**{"version": 3, **values})))


def test_the_example_of_the_original() -> None:
    values: dict[str, Any] = {"rcpt": "r@d.e", "dest": "d@e.f", "ctime": 1700000000, "ttl": 604800}
    shown = line(type="bounce", family="inet6", sender="@", **values)
    assert (
        shown == "1111111100000002|inet6|bounce||@|r@d.e|d@e.f|1700000000|1700604800|0|0|offline||"
    )


def test_what_is_not_known() -> None:
    assert line() == "1111111100000002|?|mda||@|@|@|0|0|0|0|offline||"
    assert line("corrupt", type="?") == "1111111100000002|?|?||@|@|@|0|0|0|0|corrupt||"


@pytest.mark.parametrize(
    ("flags", "spelled"),
    [(0, ""), (1, "auth"), (2, "bounce"), (4, "internal"), (7, "bounce,auth,internal")],
)
def test_flags(flags: int, spelled: str) -> None:
    assert format_flags(flags) == spelled
    assert line(flags=flags).split("|")[3] == spelled


@pytest.mark.parametrize(("version", "raw"), [(1, True), (2, True), (3, False), (0, False)])
def test_errors_are_spelled_as_each_release_does(version: int, raw: bool) -> None:
    error = "back\\slash \x1b[m \udce9 tab\t"
    shown = line(version=version, errorline=error).partition("||@|@|@|")[2].split("|", 6)[6]
    assert shown == (error if raw else "back\\\\slash \\^[[m \\M-i tab\t")


def test_long_errors_are_cut_in_the_new_form_alone() -> None:
    assert line(version=3, errorline="e" * 3000).endswith("|" + "e" * 2047)
    assert line(version=2, errorline="e" * 3000).endswith("|" + "e" * 3000)


@pytest.mark.parametrize(
    "octets",
    [
        envelope(),
        envelope(errorline="450 4.2.0 come | back", flags="authenticated internal", retry=9999),
        envelope(ttl=604800, last_try=1700000001),
        envelope("a|b@c"),
        envelope("@"),
        envelope(sockaddr="[2001:db8::1]"),
        envelope(sockaddr="local"),
    ],
)
def test_the_fast_way_is_the_same(octets: bytes) -> None:
    item = Item("envelope", "x", "queue", 0x1111111100000002, octets)
    slow = Classic().row(Entry(item, parse_envelope(octets).envelope))
    assert format_fast(Shapes(), 0x1111111100000002, octets) == slow.encode()


@pytest.mark.parametrize(
    "octets", [envelope(sockaddr="1.2.3"), envelope(errorline="\\"), envelope() + b"x: y\n", b""]
)
def test_the_fast_way_leaves_what_is_unusual(octets: bytes) -> None:
    assert format_fast(Shapes(), 1, octets) is None
