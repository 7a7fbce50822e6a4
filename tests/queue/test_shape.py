from __future__ import annotations

import pathlib
from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_core import text
from smtpd_core.cli.classic import format_fast, format_line
from smtpd_core.queue.entries import Entry
from smtpd_core.queue.envelope import EnvelopeError, parse_envelope
from smtpd_core.queue.releases import common_refusal, find_release, format_envelope
from smtpd_core.queue.shape import LISTED, Shapes
from smtpd_core.queue.sources import Item
from tests import golden
from tests.strategies import envelopes, mutations

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "envelope"
EXAMPLES = [path.read_bytes() for path in sorted(VECTORS.glob("*.in"))]
SHAPES = Shapes()
EVPID = 0x1111111100000002


def fast(octets: bytes) -> Optional[bytes]:
    return format_fast(SHAPES, EVPID, octets)


def slow(octets: bytes) -> bytes:
    item = Item("envelope", "x", "queue", EVPID, octets)
    return text.encode(format_line(Entry(item, parse_envelope(octets).envelope))) + b"\n"


def check(octets: bytes) -> bool:
    """What the patterns accept, the parser reads without complaint, to the same line."""
    line = fast(octets)
    if line is None:
        return False
    parsed = parse_envelope(octets)  # raises EnvelopeError for what is none
    assert (parsed.damage, parsed.missing, parsed.unknown) == ([], [], [])
    assert common_refusal(parsed) is None
    assert line == slow(octets)
    return True


def test_ordinary_envelopes_are_accepted() -> None:
    assert [check(octets) for octets in EXAMPLES] == [False, *[True] * (len(EXAMPLES) - 1)]


def test_values_are_those_listed() -> None:
    values = SHAPES.match(EXAMPLES[-1])
    assert values is not None
    assert dict(zip(LISTED, values)) == {
        "type": b"bounce",
        "errorline": b"451 4.7.1 Greylisted",
        "sockaddr": b"198.51.100.4",
        "sender": b"dave@example.org",
        "rcpt": b"carol@example.com",
        "dest": b"carol@example.com",
        "ctime": b"1700010000",
        "last-try": b"0",
        "ttl": b"604800",
        "retry": b"0",
        "flags": b"authenticated",
    }
    assert SHAPES.family(b"198.51.100.4") == b"inet4"
    assert SHAPES.family(b"") == b"?"
    assert SHAPES.family(b"nobody") == b""


def test_nearly_all_envelopes_of_real_daemons_are_accepted() -> None:
    accepted = []
    for version in golden.VERSIONS:
        for tar in sorted((golden.SPOOLS / version).glob("*.tar.gz")):
            for octets in golden.Stored(tar).envelopes.values():
                if octets.startswith(b"version: "):
                    accepted.append(check(octets))
    assert sum(accepted) > 0.95 * len(accepted)


def test_no_damaged_envelope_is_accepted() -> None:
    for version in golden.VERSIONS:
        for tar in sorted((golden.SPOOLS / version).glob("corrupt-?/*.tar.gz")):
            for octets in golden.Stored(tar).envelopes.values():
                check(octets)


@settings(max_examples=60)
@given(st.sampled_from(["5.7.3", "6.4", "6.8", "7.8"]).flatmap(
    lambda name: envelopes(name).map(
        lambda envelope: format_envelope(envelope, find_release(name)))
))  # fmt: skip
def test_whatever_is_accepted_is_read_alike(octets: bytes) -> None:
    check(octets)


@settings(max_examples=500)
@given(st.sampled_from(EXAMPLES).flatmap(mutations))
def test_whatever_is_left_of_a_damaged_one_is_read_alike(octets: bytes) -> None:
    try:
        check(octets)
    except EnvelopeError:
        pytest.fail("the patterns accept what is no envelope")


LINES = sorted({line + b"\n" for octets in EXAMPLES[1:] for line in octets.splitlines()})
VALUES = [b"0", b"007", b"-0", b"+1", b"99999", b"9" * 20, b"", b"@", b"a@", b" a@b", b"a b@c ",
          b"x" * 256 + b"@", b"x" * 65, b"FULL", b"full", b"[::1]", b"IPv6:::1", b"IPV6:::1",
          b"[fe80::1%eth0]", b"local", b"1.2.3", b"error", b"failed", b"authenticated bounce",
          b"bounce authenticated", b"internal,bounce", b"enqueued", b"smtp://h", b"lmtp://h",
          b"ssl://h", b"tls+backup://h:25", b"tls+auth://l@[::1]:587", b"smtp://h:99999",
          b"smtp://h:0", b"back\\slash", b"tab\there", b"256", b"65536"]  # fmt: skip


@settings(max_examples=600)
@given(
    octets=st.sampled_from(EXAMPLES[1:]),
    changes=st.lists(st.tuples(st.integers(0, 30), st.sampled_from(VALUES)), max_size=2),
    added=st.lists(st.tuples(st.integers(0, 30), st.sampled_from(LINES)), max_size=1),
    dropped=st.lists(st.integers(0, 30), max_size=1),
)
def test_unusual_values_are_read_alike(
    octets: bytes,
    changes: list[tuple[int, bytes]],
    added: list[tuple[int, bytes]],
    dropped: list[int],
) -> None:
    lines = octets.splitlines(keepends=True)
    for at, value in changes:
        name = lines[at % len(lines)].partition(b":")[0]
        lines[at % len(lines)] = name + b": " + value + b"\n"
    for at, line in added:
        lines.insert(at % len(lines), line)
    for at in dropped:
        del lines[at % len(lines)]
    check(b"".join(lines))


def test_remembered_addresses_are_bounded() -> None:
    shapes = Shapes()
    for number in range(9000):
        address = b"10.0.%d.%d" % divmod(number % 0x10000, 256)
        assert shapes.family(address) == b"inet4"
    assert len(shapes._families) <= 4097
    assert shapes.family(b"") == b"?"
