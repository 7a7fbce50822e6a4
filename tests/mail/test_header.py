"""The header section, read and edited."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mail import header
from smtpd_core.mail.address import Address
from smtpd_core.mail.header import HeaderEditor, HeaderError, HeaderRules

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "mail" / "header").glob("*.in"))
RULES = HeaderRules("here.example")


def edit(pieces: list[bytes], rules: HeaderRules = RULES) -> bytes:
    editor = HeaderEditor(rules)
    return b"".join(map(editor.feed, pieces)) + editor.finish()


def cuts(octets: bytes) -> list[list[bytes]]:
    singly = [octets[at : at + 1] for at in range(len(octets))]
    twos = [[octets[:at], octets[at:]] for at in range(1, len(octets), 1 + len(octets) // 200)]
    return [[octets], singly if len(octets) < 2000 else [octets], *twos]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_same_header_however_it_arrives(vector: Path) -> None:
    refusal = vector.with_suffix(".err")
    for pieces in cuts(vector.read_bytes()):
        if refusal.exists():
            with pytest.raises(HeaderError) as caught:
                edit(pieces)
            assert type(caught.value).__name__ == refusal.read_text().strip()
        else:
            assert edit(pieces) == vector.with_suffix(".out").read_bytes()


def test_vectors_are_there() -> None:
    assert len(VECTORS) > 20


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"A: b\n\nx\n", b"A: b\nDate: D\nMessage-ID: <1@h>\n\nx\n"),
        (b"date: x\n\nx\n", b"date: x\nMessage-ID: <1@h>\n\nx\n"),
        (b"Message-Id: x\n\n", b"Message-Id: x\nDate: D\n\n"),
        (b"DATE: x\nMESSAGE-ID: y\n\n", b"DATE: x\nMESSAGE-ID: y\n\n"),
        (b"\nbody\n", b"Date: D\nMessage-ID: <1@h>\n\nbody\n"),
        (b"To: x@y\n", b"To: x@y\nDate: D\nMessage-ID: <1@h>\n"),
    ],
)
def test_missing_fields_go_to_the_end_of_the_section(message: bytes, expected: bytes) -> None:
    assert edit([message], HeaderRules("h", date="D", message_id="1@h")) == expected


def test_masquerade_replaces_from_alone() -> None:
    rules = HeaderRules("h", sender=Address("m", "n"))
    assert edit([b"From: Me <a@b>\nTo: c\n\n"], rules) == b"From: Me <m@n>\nTo: c@h\n\n"


def test_body_passes_at_once() -> None:
    editor = HeaderEditor(RULES)
    assert editor.feed(b"A: b\n\npart of a li") == b"A: b\n\npart of a li"
    assert editor.feed(b"ne") == b"ne"


def test_fields() -> None:
    message = b"A: 1\nB : two\n\tlines\nA: 3\n\nC: no\n"
    assert list(header.walk(message)) == [
        (b"A", b" 1"),
        (b"B", b" two\n\tlines"),
        (b"A", b" 3"),
    ]
    assert header.find(message, b"b") == b"two\tlines"
    assert header.find(message, b"C") is None
    assert list(header.walk(b" x\nA: b\n")) == []


def test_fold() -> None:
    folded = header.fold(b"References", b" ".join([b"<%030d@host.example>" % n for n in range(5)]))
    assert max(map(len, folded.splitlines())) <= 78
    assert header.unfold(folded[len(b"References:") :]).count(b"<") == 5
    assert header.fold(b"A", b"b c") == b"A: b c\n"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"Delivered-To: a@b", True),
        (b"delivered-TO: A@B", True),
        (b"Delivered-To:  a@b", False),
        (b"Delivered-To:a@b", False),
        (b"Delivered-To: xa@b", False),
        (b"X: y\n\nDelivered-To: a@b", False),
    ],
)
def test_delivered_to(line: bytes, found: bool) -> None:
    assert header.has_delivered_to(b"A: b\n" + line + b"\n\n", Address("a", "b")) is found


_LINE = st.sampled_from(
    [b"To: a, b", b"Bcc: x", b" folded", b"\t", b"", b"no colon", b"Subject: x", b"Received: y"]
)


@given(st.lists(_LINE, max_size=12), st.lists(st.integers(0, 60), max_size=4))
def test_any_cutting_gives_the_same(lines: list[bytes], places: list[int]) -> None:
    message = b"".join(line + b"\n" for line in lines)
    ends = sorted({0, len(message), *(place for place in places if place < len(message))})
    pieces = [message[start:end] for start, end in zip(ends, ends[1:])]
    assert _result(pieces) == _result([message])


def _result(pieces: list[bytes]) -> Optional[bytes]:
    try:
        return edit(pieces)
    except HeaderError:
        return None


@given(st.binary(max_size=200))
def test_any_octets_are_edited_or_refused(octets: bytes) -> None:
    result = _result([octets])
    assert (
        result is None
        or result.endswith(b"\n")
        or not result
        or b"\n\n" in octets
        or octets[:1] == b"\n"
    )
