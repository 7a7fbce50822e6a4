"""Message and envelope ids, as typed and as written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core import ids


@pytest.mark.parametrize(
    ("text", "msgid"),
    [
        ("12345678", 0x12345678),
        ("ABCDEF01", 0xABCDEF01),
        ("0x111111", 0x111111),  # the original's test is C's strtoull
        ("+1111111", 0x1111111),
        (" 1111111", 0x1111111),
    ],
)
def test_message_ids(text: str, msgid: int) -> None:
    assert ids.parse_msgid(text) == msgid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "1234567",
        "123456789",
        "00000000",
        "1234567g",
        "-1111111",
        "0x",
        "zzzzzzzz",
        "1_234567",
    ],
)
def test_no_message_ids(text: str) -> None:
    with pytest.raises(ids.IdError):
        ids.parse_msgid(text)


@pytest.mark.parametrize(
    ("text", "evpid"),
    [
        ("12345678abcdef01", 0x12345678ABCDEF01),
        ("12345678ABCDEF01", 0x12345678ABCDEF01),
        ("-000000000000001", 0xFFFFFFFFFFFFFFFF),  # it wraps, as in the original
    ],
)
def test_envelope_ids(text: str, evpid: int) -> None:
    assert ids.parse_evpid(text) == evpid


@pytest.mark.parametrize(
    "text", ["", "12345678", "0" * 16, "12345678zzzzzzzz", "0x12345678abcdef01"]
)
def test_no_envelope_ids(text: str) -> None:
    with pytest.raises(ids.IdError):
        ids.parse_evpid(text)


@given(st.integers(min_value=1, max_value=ids.EVPID_MAX))
def test_spelling_is_read_back(evpid: int) -> None:
    spelled = ids.format_evpid(evpid)
    assert ids.parse_evpid(spelled) == evpid
    assert ids.is_evpid_name(spelled)
    assert ids.format_msgid(ids.msgid_of(evpid)) == spelled[:8]


@pytest.mark.parametrize("name", ["1234567", "123456789", "ABCDEF01", "1234567g", "00000000", ""])
def test_no_names_of_messages(name: str) -> None:
    assert not ids.is_msgid_name(name)


def test_selectors() -> None:
    everything = ids.Selector.parse("all")
    message = ids.Selector.parse("12345678")
    one = ids.Selector.parse("12345678abcdef01")
    assert [
        [selector.matches(evpid) for selector in (everything, message, one)]
        for evpid in (0x12345678ABCDEF01, 0x1234567800000001, 0x8765432100000001)
    ] == [[True, True, True], [True, True, False], [True, False, False]]
    assert one.msgid == 0x12345678
    with pytest.raises(ids.IdError):
        ids.Selector.parse("every")
