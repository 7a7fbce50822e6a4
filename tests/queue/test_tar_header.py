"""Numbers, checksums and pax records of tar archives."""

from __future__ import annotations

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.queue.tar_header import (
    BLOCK,
    is_header,
    parse_decimal,
    parse_number,
    parse_pax,
    parse_seconds,
)


@pytest.mark.parametrize(
    ("field", "number"),
    [
        (b"0000644\0", 0o644),
        (b"000644 \0", 0o644),
        (b"   644 \0", 0o644),
        (b"644\0junk", 0o644),
        (b"   644 x", 0o644),
        (b"77777777", 0o77777777),
        (b"\0\0\0\0\0\0\0\0", 0),
        (b"        ", 0),
        (b"\x80\0\0\0\0\0\1\0", 256),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff", (1 << 56) - 1),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        (b"\xc0\0\0\0\0\0\0\0", -(1 << 62)),
    ],
)
def test_numbers(field: bytes, number: int) -> None:
    assert parse_number(field) == number


@pytest.mark.parametrize("field", [b"0000648\0", b"-1\0\0\0\0\0\0", b"6_4\0", b"0o644\0", b"rw\0"])
def test_what_is_no_number(field: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a number|invalid literal"):
        parse_number(field)


@given(st.integers(-(1 << 80), 1 << 80))
def test_numbers_in_base_256(number: int) -> None:
    octets = number.to_bytes(12, "big", signed=True)
    assert parse_number(bytes([octets[0] | 0x80]) + octets[1:]) == number


@given(st.binary(min_size=8, max_size=8))
def test_any_field_is_a_number_or_refused(field: bytes) -> None:
    try:
        number = parse_number(field)
    except ValueError:
        return
    assert abs(number) < 1 << 63


def test_decimals() -> None:
    assert parse_decimal(b"0") == 0
    assert parse_decimal(b"9" * 18) == 10**18 - 1
    for text in (b"", b"-1", b"+1", b" 1", b"1_0", b"0x1", b"9" * 19):
        with pytest.raises(ValueError, match="not a number"):
            parse_decimal(text)


def test_seconds() -> None:
    assert [parse_seconds(text) for text in (b"7", b"7.", b"7.999", b"-7.5")] == [7, 7, 7, -7]
    for text in (b"", b".5", b"-", b"1.5.5", b"1e3", b"--1"):
        with pytest.raises(ValueError, match="not a"):
            parse_seconds(text)


def test_pax_records() -> None:
    octets = b"11 path=ab\n14 comment=no\n9 mtime=\n10 size=3\n"
    assert parse_pax(octets) == ({b"path": b"ab", b"mtime": b"", b"size": b"3"}, "")
    assert parse_pax(b"") == ({}, "")
    assert parse_pax(b"9 uid=10\n\0\0\0") == ({b"uid": b"10"}, "")


def test_a_map_of_holes_in_pieces() -> None:
    octets = b"23 GNU.sparse.offset=5\n25 GNU.sparse.numbytes=3\n"
    assert parse_pax(octets * 2) == ({b"GNU.sparse.map": b"5,3,5,3"}, "")


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (b"x", "no record at octet 0"),
        (b"9 uid=10\n9", "no record at octet 9"),
        (b"9 uid=10\n8 uid=10\n", "no record at octet 9"),
        (b"9 uid=10\n99 uid=10\n", "no record at octet 9"),
        (b"9 uid=10\n0 uid=10\n", "no record at octet 9"),
        (b"9 uid=10\n1 uid=10\n", "no record at octet 9"),
        (b"9 uid=10\n2 \n", "no record at octet 9"),
        (b"9 uid=10\n" + b"0" * 30 + b"9 uid=10\n", "no record at octet 9"),
        (b"9 uid=10\n9 gid=-1\n", "gid is not a number"),
        (b"9 uid=10\n11 mtime=x\n", "mtime is not a number"),
    ],
)
def test_bad_pax_records_keep_the_good_ones_before(octets: bytes, problem: str) -> None:
    good = {} if problem.endswith("octet 0") else {b"uid": b"10"}
    assert parse_pax(octets) == (good, problem)


@given(st.binary(max_size=300))
def test_any_octets_give_records(octets: bytes) -> None:
    records, _ = parse_pax(octets)
    assert sum(map(len, records.values())) <= len(octets)


def header(name: bytes) -> bytes:
    made = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
    return made.tobuf(tarfile.USTAR_FORMAT, errors="surrogateescape")


@given(
    st.binary(min_size=1, max_size=90).filter(lambda name: not {0, 47} & set(name)),
    st.integers(0, BLOCK - 1),
    st.integers(1, 255),
)
def test_checksum(name: bytes, place: int, change: int) -> None:
    octets = bytearray(header(name))
    assert is_header(bytes(octets))
    octets[place] ^= change
    if not 148 <= place < 156:
        assert not is_header(bytes(octets))


def test_a_checksum_next_to_the_right_one() -> None:
    octets = header(b"a")
    stored = int(octets[148:154], 8)
    for number in (stored - 1, stored + 1, stored + 256, stored - 256, 0):
        assert not is_header(octets[:148] + b"%06o\0 " % number + octets[156:])
    assert is_header(octets[:148] + b"%07o\0" % stored + octets[156:])
    assert not is_header(octets[:-1])
    assert not is_header(bytes(BLOCK))
