"""Answers of errands."""

from __future__ import annotations

import pytest

from smtpd_core.daemon.questions import KINDS, decode_answer, encode_answer
from smtpd_core.ipc import messages


def test_there_and_back() -> None:
    answer = messages.FoundUser(1000, 1000, "/home/user")
    assert decode_answer(encode_answer(answer), messages.FindUser) == answer


@pytest.mark.parametrize(
    "octets",
    [None, b"", b"\xff", b"\x2f", encode_answer(messages.Checked(True)), b"x" * 100],
)
def test_no_answer(octets: bytes) -> None:
    assert isinstance(decode_answer(octets, messages.FindUser), messages.Failed)


def test_each_question_has_its_bounds() -> None:
    for kind in KINDS.values():
        assert 0 < kind.at_once <= 32
        assert 0 < kind.seconds <= 30
