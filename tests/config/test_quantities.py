"""Delays and sizes, refusals included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.config.quantities import (
    MAX_OCTETS,
    MAX_SECONDS,
    QuantityError,
    parse_delay,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("2m", 120),
        ("3h", 10800),
        ("4d", 345600),
        (" 4d", 345600),
        ("+4d", 345600),
        ("004s", 4),
        (f"{MAX_SECONDS}s", MAX_SECONDS),
    ],
)
def test_delays(text: str, seconds: int) -> None:
    assert parse_delay(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d",
        "4",
        "0d",
        "-1d",
        "4w",
        "4D",
        "4 d",
        "4dd",
        "1d2h",
        "1.5h",
        "24856d",
        "4d ",
        "\u0664d",
        "9" * 30 + "s",
        f"{MAX_SECONDS + 1}s",
    ],
)
def test_no_delays(text: str) -> None:
    with pytest.raises(QuantityError):
        parse_delay(text)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("0", 0),
        ("12", 12),
        ("12B", 12),
        ("1k", 1024),
        ("35M", 35 << 20),
        ("1.5g", 3 << 29),
        ("1T", 1 << 40),
        ("1p", 1 << 50),
        ("7E", 7 << 60),
        ("", 0),
        (".5K", 512),
        ("1.M", 1 << 20),
        (" 5K", 5120),
        ("+5", 5),
    ],
)
def test_sizes(text: str, octets: int) -> None:
    assert parse_size(text) == octets


@pytest.mark.parametrize(
    "text", ["5X", "10KB", "-1K", "9E", "1.5.5M", "M5", "5 K", "5K ", "\u0665", "9" * 30]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(QuantityError):
        parse_size(text)


@given(st.integers(1, MAX_SECONDS), st.sampled_from(["s", "m", "h", "d"]))
def test_delays_round_trip(number: int, unit: str) -> None:
    seconds = number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    if seconds <= MAX_SECONDS:
        assert parse_delay(f"{number}{unit}") == seconds
    else:
        with pytest.raises(QuantityError):
            parse_delay(f"{number}{unit}")


@given(st.integers(0, MAX_OCTETS), st.sampled_from("BKMGTPE"))
def test_sizes_round_trip(octets: int, unit: str) -> None:
    power = 1 << 10 * "BKMGTPE".index(unit)
    if octets < 10**18:
        assert parse_size(str(octets)) == octets
    if octets // power < 10**18:
        assert parse_size(f"{octets // power}{unit}") == octets // power * power


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    for parse in (parse_delay, parse_size):
        try:
            assert parse(text) >= 0
        except QuantityError:
            pass
