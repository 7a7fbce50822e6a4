"""The way to Ready, step by step; whole openings are tested with ClientSession."""

from __future__ import annotations

import pytest

from smtpd_core.errors import LocalError
from smtpd_core.smtp.client_events import ClientOptions, Failed, Ready, TlsPolicy, TlsWanted
from smtpd_core.smtp.opening import MAX_EXTENSIONS, Opening
from smtpd_core.smtp.reply import Reply

BANNER = Reply(220, None, ("hi",))
OFFERS_TLS = Reply(250, None, ("hi", "STARTTLS", "Size 10", "size 20"))


def test_what_was_said_before_tls_is_forgotten() -> None:
    opening = Opening(ClientOptions("c.example"))
    assert opening.take(BANNER) == b"EHLO c.example"
    assert opening.take(OFFERS_TLS) == b"STARTTLS"
    assert opening.extensions == {"STARTTLS": "", "SIZE": "10"}
    assert opening.take(BANNER) == TlsWanted()
    assert opening.tls_started() == b"EHLO c.example"
    assert opening.secured
    assert opening.extensions == {}
    assert opening.take(OFFERS_TLS) == Ready()


def test_tls_is_not_asked_for_where_it_is_not_wanted() -> None:
    opening = Opening(ClientOptions("c.example", tls=TlsPolicy.NEVER))
    opening.take(BANNER)
    assert opening.take(OFFERS_TLS) == Ready()


def test_extensions_are_bounded() -> None:
    opening = Opening(ClientOptions("c.example", tls=TlsPolicy.NEVER))
    opening.take(BANNER)
    opening.take(Reply(250, None, ("hi", *(f"X{number}" for number in range(500)))))
    assert len(opening.extensions) == MAX_EXTENSIONS


def test_reasons_are_one_line() -> None:
    opening = Opening(ClientOptions("c.example"))
    step = opening.take(Reply(554, None, ("a\x0b\u2028b", "c")))
    assert step == Failed("BANNER rejected: 554-a??b c")


def test_own_name() -> None:
    with pytest.raises(LocalError):
        Opening(ClientOptions("a b"))
