from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core import text
from smtpd_core.queue import fields
from smtpd_core.queue.fields import FieldError
from tests.strategies import addresses


@pytest.mark.parametrize(
    ("value", "maximum", "number"),
    [
        ("0", 0, 0),
        ("7", 9, 7),
        ("+7", 9, 7),
        ("-0", 9, 0),
        ("007", 9, 7),
        ("0" * 3000 + "7", 9, 7),
        (str(fields.TIME_MAX), fields.TIME_MAX, fields.TIME_MAX),
    ],
)
def test_numbers(value: str, maximum: int, number: int) -> None:
    assert fields.parse_number(value, maximum) == number


@pytest.mark.parametrize(
    "value",
    ["", "+", "-", "x", "1x", " 1", "1 ", "1\r", "0x1", "1e3", "1.0", "--1", "\u0661", "1_0"],
)
def test_no_numbers(value: str) -> None:
    with pytest.raises(FieldError, match="is not a number"):
        fields.parse_number(value, 9)


@pytest.mark.parametrize("value", ["10", "-1", "-007", "9" * 5000, "1" + "0" * 40])
def test_numbers_out_of_range(value: str) -> None:
    with pytest.raises(FieldError, match="is not between 0 and 9"):
        fields.parse_number(value, 9)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("a@b", "a@b"),
        ("", "@"),
        ("@", "@"),
        ("@b", "@b"),
        ("a", "a@"),
        ("a@", "a@"),
        ("a@b@c", "a@b@c"),
        ("x" * 255 + "@" + "y" * 255, "x" * 255 + "@" + "y" * 255),
    ],
)
def test_addresses(value: str, stored: str) -> None:
    assert fields.parse_mailaddr(value) == stored


@pytest.mark.parametrize("value", ["x" * 256, "x" * 256 + "@b", "a@" + "x" * 256, "\udce9" * 256])
def test_long_addresses(value: str) -> None:
    with pytest.raises(FieldError, match="a part of the address is longer than 255 octets"):
        fields.parse_mailaddr(value)


@given(addresses())
def test_addresses_are_stable(address: str) -> None:
    assert fields.parse_mailaddr(address) == address


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        ("authenticated", 1),
        ("bounce,internal", 6),
        ("internal|authenticated bounce", 7),
        ("Authenticated AUTHENTICATED", 1),
        ("enqueued", 0),
    ],
)
def test_flags(value: str, flags: int) -> None:
    assert fields.parse_flags(value) == flags


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "an empty flag"),
        (" bounce", "an empty flag"),
        ("bounce ", "an empty flag"),
        ("bounce, internal", "an empty flag"),
        ("pending", "unknown flag 'pending'"),
        ("bounce\tinternal", "unknown flag 'bounce\tinternal'"),
        ("x" * 60, "unknown flag '" + "x" * 40 + r"\.\.\.'"),
    ],
)
def test_no_flags(value: str, reason: str) -> None:
    with pytest.raises(FieldError, match=reason):
        fields.parse_flags(value)


@pytest.mark.parametrize("flags", range(8))
def test_flags_are_written_in_order(flags: int) -> None:
    spelled = fields.format_flags(flags)
    assert spelled.split() == sorted(spelled.split())  # which their names happen to be in
    assert not flags or fields.parse_flags(spelled) == flags


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("local", ("local", "")),
        ("192.0.2.1", ("inet4", "192.0.2.1")),
        ("IPv6:2001:DB8:0:0::1", ("inet6", "2001:db8::1")),
        ("ipv6:::1", ("inet6", "::1")),
        ("[2001:db8::1]", ("inet6", "2001:db8::1")),
        ("[::ffff:192.0.2.1]", ("inet6", "::ffff:192.0.2.1")),
        ("[fe80::1%eth0]", ("inet6", "fe80::1%eth0")),
        ("[fe80::1%3]", ("inet6", "fe80::1%3")),
    ],
)
def test_clients(value: str, client: tuple[str, str]) -> None:
    assert fields.parse_sockaddr(value) == client


@pytest.mark.parametrize(
    "value",
    ["", "Local", "local ", "192.0.2", "192.0.2.256", "192.0.2.1 ", "::1", "[192.0.2.1]", "[]",
     "[::1", "IPv6:[::1]", "IPv6:fe80::1%eth0", "192.0.2.1\0", "[::1\0]", "\u0661.0.0.1",
     "\udce9"],
)  # fmt: skip
def test_no_clients(value: str) -> None:
    with pytest.raises(FieldError, match="is not a client address"):
        fields.parse_sockaddr(value)


@pytest.mark.parametrize("value", ["[fe80::1%]", "[fe80::1%a b]", "[fe80::1%\x1b]"])
def test_bad_scopes(value: str) -> None:
    with pytest.raises(FieldError, match="has no valid scope"):
        fields.parse_sockaddr(value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("mail.example.org", "smtp+tls://mail.example.org"),
        ("SMTP://mail.example.org:25", "smtp://mail.example.org:25"),
        ("lmtp://h:24", "lmtp://h:24"),
        ("tls://h", "tls://h"),
        ("ssl://h", "secure://h"),
        ("ssl+auth://label@h:465", "secure+auth://label@h:465"),
        ("smtps+auth://l@h", "smtps+auth://l@h"),
        ("backup://h", "backup://h"),
        ("tls+backup://h", "tls+backup://h"),
        ("smtp://[192.0.2.25]:587", "smtp://[192.0.2.25]:587"),
        ("smtp://[IPv6:2001:db8::1]", "smtp://[IPv6:2001:db8::1]"),
        ("smtp://h/ignored", "smtp://h"),
        ("smtp://h:25/ignored", "smtp://h:25"),
        ("smtp://h:", "smtp://h"),
        ("smtp://h:0025", "smtp://h:25"),
        ("smtp://a_b", "smtp://a_b"),
    ],
)
def test_relays(value: str, stored: str) -> None:
    assert fields.parse_relay_url(value) == stored
    assert fields.parse_relay_url(stored) == stored


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("gopher://h", "'gopher' is not a scheme of a relay"),
        ("://h", "'' is not a scheme"),
        ("smtp://label@h", "a label without"),
        ("smtp://@h", "a label without"),
        ("tls+auth://h", "a relay with tls.auth:// needs a label"),
        ("tls+auth://@h", "needs a label"),
        ("lmtp://h", "an LMTP relay needs a port"),
        ("smtp://", "the relay has no host"),
        ("smtp://:25", "the relay has no host"),
        ("smtp://[::1", "bracket of the relay's address is not closed"),
        ("smtp://h:0", "0 is not a port"),
        ("smtp://h:65536", "is not between 0 and 65535"),
        ("smtp://" + "h" * 1017, "the relay is longer than 1023 octets"),
    ],
)
def test_no_relays(value: str, reason: str) -> None:
    with pytest.raises(FieldError, match=reason):
        fields.parse_relay_url(value)


@given(st.binary(max_size=60).map(text.decode))
def test_any_value_gives_a_result_or_a_field_error(value: str) -> None:
    for parse in (
        lambda: fields.parse_number(value, 9),
        lambda: fields.parse_flags(value),
        lambda: fields.parse_sockaddr(value),
        lambda: fields.parse_relay_url(value),
        lambda: fields.parse_relay_url(f"smtp://{value}"),
        lambda: fields.parse_mailaddr(value),
    ):
        try:
            parse()
        except FieldError:
            pass
    assert fields.octet_length(value) == len(text.encode(value))
