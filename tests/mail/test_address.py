"""Mailboxes and paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mail.address import (
    NULL_ADDRESS,
    Address,
    AddressError,
    is_address_literal,
    is_domain,
    is_local_part,
    parse_address,
    take_path,
)


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("a@b", Address("a", "b")),
        ("a.b+c@d.example", Address("a.b+c", "d.example")),
        ("!#$%&'*/?^`{|}~+-=_@d", Address("!#$%&'*/?^`{|}~+-=_", "d")),
        ("Case@Kept.Example", Address("Case", "Kept.Example")),
        ("@relay,@other:joe@host", Address("joe", "host")),
        ("joe", Address("joe", "here")),
        ("joe@", Address("joe", "here")),
        ("a@[192.0.2.1]", Address("a", "[192.0.2.1]")),
        ("a@[2001:db8::1]", Address("a", "[2001:db8::1]")),
        ("a@[IPv6:2001:db8::1]", Address("a", "[IPv6:2001:db8::1]")),
        ("a@x_y", Address("a", "x_y")),
        ("a" * 255 + "@" + "b" * 255, Address("a" * 255, "b" * 255)),
    ],
)
def test_reads(given_text: str, expected: Address) -> None:
    assert parse_address(given_text, default_domain="here") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@dom",
        "a..b@c",
        ".a@c",
        "a.@c",
        '"a b"@c',
        "a b@c",
        "a@b@c",
        "@a:b:c@d",
        "a:@c",
        "a@b.",
        "a@.b",
        "a@b..c",
        "a@b c",
        "a@[1.2.3]",
        "a@[1.2.3.4",
        "a@[IPv6:1.2.3.4]",
        "a@[fe80::1%eth0]",
        "a" * 256 + "@b",
        "a@" + "b" * 256,
        "a(b)@c",
        "a\\b@c",
        "é@c",
        "a@é",
        "\udcff@c",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text, default_domain="here")


@pytest.mark.parametrize(
    "sender",
    [
        "a;b@c",
        "a$(id)\n@c",
        "a\nb@c",
        "root;sh\r\n@",
        ";for i in 0 1;do read r;done;sh;@x",
        "a\0@c",
    ],
)
def test_the_hole_of_2020_sender_local_part_is_checked_before_its_domain(sender: str) -> None:
    # An unchecked local part with no domain reached a shell as root (fixed in 6.6.2).
    with pytest.raises(AddressError):
        parse_address(sender, default_domain="here")
    with pytest.raises(AddressError):
        parse_address(sender.partition("@")[0], default_domain="")


def test_utf8_only_on_request() -> None:
    assert parse_address("jösé@münchen", utf8=True) == Address("jösé", "münchen")
    assert not is_local_part("jösé")
    for hostile in ("a\u202eb", "a\x85b", "a\u2028b", "a\udc80", "a\u00a0b"):
        assert not is_local_part(hostile, utf8=True)
    assert not is_domain("a\u3002b", utf8=True)
    assert not is_local_part("é" * 128, utf8=True)  # 256 octets


def test_null_address() -> None:
    assert NULL_ADDRESS.is_null
    assert str(NULL_ADDRESS) == ""
    assert str(Address("a", "b")) == "a@b"


def test_paths() -> None:
    assert take_path("<a@b>") == ("a@b", "")
    assert take_path("  <a@b> SIZE=1") == ("a@b", " SIZE=1")
    assert take_path("<>") == ("", "")
    assert take_path("<a>b>".replace("b>", " b>")) == ("a", " b>")
    for bad in ("", "a@b", "x<a@b>", "<a@b", "<a@b>x", "<a>\tb"):
        with pytest.raises(AddressError):
            take_path(bad)


@given(st.text(max_size=40))
def test_any_text_gives_an_address_that_is_one_or_an_error(text: str) -> None:
    try:
        address = parse_address(text)
    except AddressError:
        return
    assert parse_address(str(address)) == address
    assert not set(str(address)) & set("\r\n\0 <>")


@given(st.text("0123456789abcdef:.[]%IPv", max_size=30))
def test_literals_never_raise(text: str) -> None:
    assert is_address_literal(text) in (True, False)
