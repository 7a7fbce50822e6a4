"""The comparisons of table lookups."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.tables import matching
from smtpd_core.tables.matching import MatchError, Patterns, match_domain, parse_network

SERVICES = ["string", "domain", "netaddr", "mailaddr", "regex", "alias"]


@pytest.mark.parametrize(
    ("domain", "pattern", "matches"),
    [
        ("Example.org", "eXample.ORG", True),
        ("a.d", "*.d", True),
        ("a.b.d", "*.d", False),
        (".d", "*.d", True),
        ("xz", "x*z", True),
        ("xyz", "x*z", True),
        ("xzz", "x*z", False),
        ("anything", "*", True),
        ("", "*", False),
        ("", "", True),
        ("abc", "ab*", True),
        ("ab", "ab*", False),
        ("a.b.c", "*.*.*", True),
        ("a.b.c", "**.b.*", True),
        ("mail.example.org", "mail*.org", False),
        ("mail.example.org", "mail*.example.org", True),
        ("x", "xy", False),
        ("xy", "x", False),
        ("abab", "*ab", False),
    ],
)
def test_domains_with_the_wildcard_of_the_original(
    domain: str, pattern: str, matches: bool
) -> None:
    assert match_domain(domain, pattern) is matches
    assert (Patterns("domain", [pattern]).find(domain) is not None) is matches


def skip_octet_by_octet(subject: str, pattern: str) -> bool:
    """Tell the same in the words of the reference: one character after the other."""
    at = here = 0
    while at < len(pattern) and here < len(subject):
        if pattern[at] == "*":
            while pattern[at : at + 1] == "*":
                at += 1
            while here < len(subject) and subject[here] != pattern[at : at + 1]:
                here += 1
        elif pattern[at] != subject[here]:
            return False
        else:
            at, here = at + 1, here + 1
    return at == len(pattern) and here == len(subject)


@given(st.text("ab.", max_size=8), st.text("ab.*", max_size=6))
def test_wildcards_skip_to_the_first_occurrence(subject: str, pattern: str) -> None:
    assert match_domain(subject, pattern) is skip_octet_by_octet(subject, pattern)


@pytest.mark.parametrize(
    ("key", "entry", "matches"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.0/24", True),
        ("192.0.3.1", "192.0.2.0/24", False),
        ("10.1.2.3", "10/8", True),
        ("10.1.2.3", "10", True),
        ("192.168.4.5", "192.168/16", True),
        ("192.168.4.5", "192.168", False),
        ("192.168.0.5", "192.168", True),
        ("192.0.2.77", "192.0.2.1/24", True),
        ("1.2.3.4", "0.0.0.0/0", True),
        ("[2001:db8::1]", "2001:db8::/32", True),
        ("2001:db8::1", "[2001:DB8::/32]", True),
        ("2001:db8::1", "[2001:DB8::]/32", True),
        ("[::1]", "IPv6:::1", True),
        ("[IPv6:::1]", "::1", True),
        ("::1", "0.0.0.0/0", False),
        ("1.2.3.4", "::/0", False),
        ("::ffff:1.2.3.4", "1.2.3.4", False),
        ("local", "LOCAL", True),
        ("local", "0.0.0.0/0", False),
        ("host.example", "host.example", True),
        ("host.example", "*.example", False),
        ("1.2.3.4", "1.2.3.4/33", False),
        ("1.2.3.4", "1.2.3.256/0", False),
        ("::1", "::1/129", False),
        ("::1", "[::1", False),
        ("1.2.3.4", "1.2.3.4/", False),
    ],
)
def test_networks(key: str, entry: str, matches: bool) -> None:
    assert (Patterns("netaddr", [entry]).find(key) is not None) is matches


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_networks_agree_with_the_standard_library(key: object, base: object, bits: int) -> None:
    key, base = ip_address(str(key)), ip_address(str(base))
    bits = min(bits, base.max_prefixlen)
    expected = key.version == base.version and key in ip_network((base, bits), strict=False)
    assert (Patterns("netaddr", [f"{base}/{bits}"]).find(str(key)) is not None) is expected


@pytest.mark.parametrize(
    ("key", "entry", "matches"),
    [
        ("Bob@Example.org", "bob@example.ORG", True),
        ("bob+x@example.org", "bob@example.org", True),
        ("bob+x@example.org", "bob+x@example.org", True),
        ("bob@example.org", "bob+x@example.org", False),
        ("bob+y@example.org", "bob+x@example.org", False),
        ("bob@example.org", "bob", True),
        ("bob+x@example.org", "bob", True),
        ("bob@example.org", "@example.org", True),
        ("bob@a.example.org", "@*.example.org", True),
        ("bob+x@a.example.org", "bob@*.example.org", True),
        ("bob+x@a.example.org", "bob+y@*.example.org", False),
        ("eve@a.example.org", "bob@*.example.org", False),
        ("bob@example.org", "@", True),
        ("@", "@", True),
        ("@", "", True),
        ("@", "<>", False),
        ("@", "@*", False),
        ("bob@example.org", "*@example.org", False),
    ],
)
def test_addresses(key: str, entry: str, matches: bool) -> None:
    assert (Patterns("mailaddr", [entry]).find(key) is not None) is matches


def test_another_delimiter() -> None:
    assert Patterns("mailaddr", ["bob"], "_").find("bob_x@example.org") == 0
    assert Patterns("mailaddr", ["bob"], "_").find("bob+x@example.org") is None


def test_regular_expressions_know_small_letters_only() -> None:
    patterns = Patterns("regex", ["(", "^A.*@", "(?i)^B", r"\S{20}"])
    assert patterns.find("Abc@d") == 1
    assert patterns.find("BX") == 2
    assert patterns.find("x" * 30) is None


def test_the_first_entry_counts() -> None:
    assert Patterns("domain", ["x*", "*", "xa", "xa"]).find("xa") == 0
    assert Patterns("domain", ["y*", "xa", "*"]).find("xa") == 1
    assert Patterns("netaddr", ["10.0.0.0/16", "10/8", "0/0"]).find("10.0.1.1") == 0
    assert Patterns("mailaddr", ["@", "a@b"]).find("a@b") == 0
    assert Patterns("string", ["a", "b", "A"]).find("A") == 0


@pytest.mark.parametrize("service", SERVICES)
def test_a_long_key_is_refused(service: str) -> None:
    patterns = Patterns(service, ["a"])
    assert patterns.find("b" * matching.MAX_KEY) is None or service == "regex"
    with pytest.raises(MatchError):
        patterns.find("b" * (matching.MAX_KEY + 1))


@given(st.sampled_from(SERVICES), st.lists(st.text("ab.@*+/:[]1%\xe9", max_size=8)), st.text())
def test_any_text_can_be_compared(service: str, entries: list[str], key: str) -> None:
    found = Patterns(service, entries).find(key)
    assert found is None or 0 <= found < len(entries)


@given(st.text("0123456789abcdef:./[]%", max_size=24))
def test_any_text_is_a_network_or_not(text: str) -> None:
    network = parse_network(text)
    assert network is None or 0 <= network.bits <= network.width
