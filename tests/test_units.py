"""Durations and sizes, read and spelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.units import (
    UnitError,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("30m", 1800),
        ("4h", 14400),
        ("1d12h", 129600),
        ("2W", 1209600),
        (" 5s ", 5),
        ("1d1d", 172800),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "4x", "-1h", "1.5h", "4h3", "٤h", "9" * 19, "1 h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UnitError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (16200, "4h30m"),
        (86400, "1d"),
        (266400, "3d2h"),
        (-90, "-1m"),
    ],
)
def test_durations_spelled(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("0", 0),
        ("4096", 4096),
        ("20k", 20480),
        ("1.5m", 1572864),
        ("1KiB", 1024),
        ("2kb", 2048),
        ("7b", 7),
        ("1G", 1 << 30),
        ("1t", 1 << 40),
    ],
)
def test_sizes(text: str, octets: int) -> None:
    assert parse_size(text) == octets


@pytest.mark.parametrize("text", ["", "k", ".5k", "1.k", "-1", "1x", "1 k", "1kk", "9" * 19, "0x1"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UnitError):
        parse_size(text)


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0k"),
        (10188, "9.9k"),
        (10190, "10k"),
        (1 << 20, "1.0m"),
        (1 << 40, "1.0t"),
        (1 << 50, "1.0p"),
        (1 << 62, "4.0e"),
        ((1 << 63) - 1, "8.0e"),
    ],
)
def test_sizes_spelled(octets: int, text: str) -> None:
    assert format_size(octets) == text


@given(st.integers(min_value=0, max_value=(1 << 63) - 1))
def test_a_size_never_takes_more_than_five_characters(octets: int) -> None:
    assert len(format_size(octets)) <= 5


@given(st.integers(min_value=0, max_value=10**9))
def test_a_spelled_duration_is_read_back_but_for_its_smallest_units(seconds: int) -> None:
    read = parse_duration(format_duration(seconds))
    assert 0 <= seconds - read < (3600 if seconds >= 86400 else 60)


@given(st.text())
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except UnitError:
            pass
