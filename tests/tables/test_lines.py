"""What table values mean, refusals included."""

from __future__ import annotations

from typing import Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.tables import lines
from smtpd_core.tables.lines import Credentials, LineError, RelayHost, Tls, UserInfo


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("bob:secret", Credentials("bob", "secret")),
        ("bob:a:b", Credentials("bob", "a:b")),
        ("$6$hash", Credentials("key", "$6$hash")),
        ("ab", None),
        ("x" * 2048, None),
        (":secret", None),
        ("bob:", None),
    ],
)
def test_credentials(value: str, found: Optional[Credentials]) -> None:
    if found is None:
        with pytest.raises(LineError):
            lines.parse_credentials("key", value)
    else:
        assert lines.parse_credentials("key", value) == found


def test_a_secret_is_not_shown() -> None:
    assert "hush" not in repr(Credentials("bob", "hush"))
    with pytest.raises(LineError) as caught:
        lines.parse_credentials("bob", ":hush")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("1000:100:/home/bob", UserInfo("bob", 1000, 100, "/home/bob")),
        ("0:0:/a:b", UserInfo("bob", 0, 0, "/a:b")),
        ("1000:100", None),
        ("1000:100:", None),
        ("1000:100:home", None),
        ("-1:100:/home", None),
        ("x:1:/home", None),
        ("2147483648:1:/home", None),
        ("\u0661:1:/home", None),
        ("1:1:/h\0", None),
        ("1:1:/" + "h" * 1023, None),
    ],
)
def test_users(value: str, found: Optional[UserInfo]) -> None:
    if found is None:
        with pytest.raises(LineError):
            lines.parse_userinfo("bob", value)
    else:
        assert lines.parse_userinfo("bob", value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("IPv6:2001:db8::1", "2001:db8::1"),
        ("[IPv6:::1]", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("192.0.2.1/32", ""),
        ("IPv6:192.0.2.1", ""),
        ("host", ""),
        ("", ""),
    ],
)
def test_sources(value: str, found: str) -> None:
    if not found:
        with pytest.raises(LineError):
            lines.parse_source(value)
    else:
        assert lines.parse_source(value) == found


def test_names_of_addresses() -> None:
    assert lines.parse_addrname("mx-1.example.org") == "mx-1.example.org"
    for value in ("", "a b", "a..b", "a\n", "x" * 256):
        with pytest.raises(LineError):
            lines.parse_addrname(value)


def test_senders() -> None:
    assert lines.parse_senders(" a@b, @c ,, d,@") == ["a@b", "@c", "d", "@"]
    for value in ("", " , ", "a b@c", "a@b\x07", ",".join(["a@b"] * 1001)):
        with pytest.raises(LineError):
            lines.parse_senders(value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("mx.example", RelayHost("mx.example", 25, Tls.OPPORTUNISTIC)),
        ("smtp://mx.example:2525", RelayHost("mx.example", 2525, Tls.OPPORTUNISTIC)),
        ("SMTP+TLS://l@mx.example", RelayHost("mx.example", 25, Tls.STARTTLS, label="l")),
        ("smtps://l@[::1]:465", RelayHost("[::1]", 465, Tls.SMTPS, label="l")),
        ("smtps://[IPv6:::1]", RelayHost("[IPv6:::1]", 465, Tls.SMTPS)),
        ("smtp+notls://192.0.2.1", RelayHost("192.0.2.1", 25, Tls.NONE)),
        ("lmtp://localhost:24", RelayHost("localhost", 24, Tls.NONE, lmtp=True)),
        ("mx.example/path", RelayHost("mx.example", 25, Tls.OPPORTUNISTIC)),
        ("lmtp://localhost", None),
        ("lmtp://l@localhost:24", None),
        ("l@mx.example", None),
        ("smtp+notls://l@mx.example", None),
        ("smtp+tls://@mx.example", None),
        ("ftp://mx.example", None),
        ("smtp://smtp://x", None),
        ("mx.example:0", None),
        ("mx.example:65536", None),
        ("mx.example:x", None),
        ("mx.example:25x", None),
        ("[mx]", None),
        ("[::1", None),
        ("a..b", None),
        ("", None),
        ("smtp://" + "x" * 1024, None),
    ],
)
def test_relays(value: str, found: Optional[RelayHost]) -> None:
    if found is None:
        with pytest.raises(LineError):
            lines.parse_relayhost(value)
    else:
        assert lines.parse_relayhost(value) == found


@given(
    st.sampled_from(
        [
            lambda value: lines.parse_credentials("k", value),
            lambda value: lines.parse_userinfo("k", value),
            lines.parse_source,
            lines.parse_addrname,
            lines.parse_senders,
            lines.parse_relayhost,
        ]
    ),
    st.text() | st.text("smtp+ls://@[]:0123.,a", max_size=30),
)
def test_any_text_means_something_or_is_refused(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except LineError:
        pass
