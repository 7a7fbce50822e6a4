"""Versions of TLS."""

from __future__ import annotations

from typing import Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.config.protocols import ALL, DEFAULT, ProtocolsError, parse_protocols


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("all", set(ALL)),
        ("legacy", set(ALL)),
        ("default", set(DEFAULT)),
        ("Secure", set(DEFAULT)),
        ("tlsv1", set(ALL)),
        ("tlsv1.0", {"TLSv1"}),
        ("TLSv1.1, tlsv1.2", {"TLSv1.1", "TLSv1.2"}),
        ("tlsv1.2:tlsv1.3", {"TLSv1.2", "TLSv1.3"}),
        ("!tlsv1.3", {"TLSv1", "TLSv1.1", "TLSv1.2"}),
        ("secure,!tlsv1.2", {"TLSv1.3"}),
    ],
)
def test_versions(text: str, versions: Set[str]) -> None:
    assert parse_protocols(text) == versions


@pytest.mark.parametrize("text", ["", "ssl3", "tlsv1.2,", "tlsv1.2 tlsv1.3", "!", "tlsv1.2 "])
def test_no_versions(text: str) -> None:
    with pytest.raises(ProtocolsError):
        parse_protocols(text)


@given(st.text(max_size=30))
def test_any_text_names_versions_or_is_refused(text: str) -> None:
    try:
        assert parse_protocols(text) <= ALL
    except ProtocolsError:
        pass
