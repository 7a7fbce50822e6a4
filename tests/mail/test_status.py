"""Status codes, safe lines and outcomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import LocalError
from smtpd_core.mail.status import (
    MAX_ERRORLINE,
    EnhancedStatus,
    Outcome,
    Result,
    StatusError,
    leading_status,
    loop_detected,
    one_line,
    outcome,
    parse_status,
    result_of_code,
)


def test_statuses() -> None:
    assert parse_status("5.1.10") == EnhancedStatus(5, 1, 10)
    assert str(EnhancedStatus(4, 4, 6)) == "4.4.6"
    for bad in ("", "5.1", "3.1.1", "5.1.1 ", "5.1.1000", "5.1.x", "\u0665.1.1"):
        with pytest.raises(StatusError):
            parse_status(bad)


def test_code_as_the_envelope_stores_it() -> None:
    assert EnhancedStatus(5, 4, 7).code == 47
    assert EnhancedStatus(5, 7, 26).code == 70
    assert EnhancedStatus(5, 0, 0).code == 0
    assert EnhancedStatus(5, 10, 3).code == 0


def test_leading_status() -> None:
    assert leading_status("5.1.1 no") == "5.1.1"
    assert leading_status("5.1.1") == "5.1.1"
    assert leading_status("5.1.1no") is None
    assert leading_status("no 5.1.1 x") is None


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (250, Result.DELIVERED),
        (299, Result.DELIVERED),
        (354, Result.TEMPORARY),
        (421, Result.TEMPORARY),
        (451, Result.TEMPORARY),
        (550, Result.PERMANENT),
        (199, Result.TEMPORARY),
        (600, Result.TEMPORARY),
    ],
)
def test_first_digit_decides(code: int, result: Result) -> None:
    assert result_of_code(code) is result


def test_status_of_another_class_does_not_count() -> None:
    assert str(outcome(Result.PERMANENT, "x", "2.0.0").status) == "5.0.0"
    assert str(outcome(Result.TEMPORARY, "x", "4.7.1").status) == "4.7.1"
    assert str(outcome(Result.DELIVERED, "x").status) == "2.0.0"


def test_loop() -> None:
    found = loop_detected()
    assert (found.text, str(found.status), found.is_final) == ("Loop detected", "4.4.6", True)


def test_outcome_refuses_what_is_not_one_safe_line() -> None:
    with pytest.raises(LocalError):
        Outcome(Result.PERMANENT, EnhancedStatus(5, 0, 0), "a\ntype: mda")
    with pytest.raises(LocalError):
        Outcome(Result.PERMANENT, EnhancedStatus(2, 0, 0), "a")


def test_cut_is_not_inside_a_character() -> None:
    cut = one_line("x" * (MAX_ERRORLINE - 4) + "é" * 10)
    assert cut == "x" * (MAX_ERRORLINE - 4) + "..."
    assert one_line("x" * MAX_ERRORLINE) == "x" * MAX_ERRORLINE


@given(st.binary(max_size=5000))
def test_any_octets_make_one_bounded_line(octets: bytes) -> None:
    line = one_line(octets.decode("utf-8", "surrogateescape"))
    assert len(line.splitlines()) <= 1
    assert "\0" not in line
    assert len(line.encode("utf-8", "surrogateescape")) <= MAX_ERRORLINE
    assert one_line(line) == line
