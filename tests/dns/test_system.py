"""resolv.conf and hosts files as they are found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.dns import system
from smtpd_core.dns.system import Server, Settings, parse_hosts, parse_settings

REAL = """\
# nameserver 192.0.2.9
; comment
search example.org
nameserver\t192.0.2.1 # first
nameserver 2001:DB8::0:1
nameserver 192.0.2.1
nameserver fe80::1%eth0
nameserver 192.0.2.4
options timeout:1 attempts:3 ndots:2
options edns0 rotate
"""


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", Settings()),
        ("nameserver 192.0.2.1\n", Settings(servers=(Server("192.0.2.1"),))),
        (
            REAL,
            Settings(
                servers=(Server("192.0.2.1"), Server("2001:db8::1"), Server("fe80::1%eth0")),
                timeout_seconds=1,
                attempts=3,
                rotate=True,
            ),
        ),
        ("nameserver [::1]:5353\n", Settings(servers=(Server("::1", 5353),))),
        ("nameserver [127.0.0.1]\n", Settings(servers=(Server("127.0.0.1"),))),
        ("nameserver\nnameserver ns.example\nnameserver [::1]5\nnameserver [::1]:0", Settings()),
        ("nameserver [::1]:99999\nnameserver 1.2.3.4%lo\nbogus", Settings()),
        ("options timeout:999 attempts:0", Settings(timeout_seconds=30, attempts=1)),
        ("options timeout:x attempts:-1 timeout", Settings()),
        ("options use-vc no-edns0", Settings(tcp_only=True, edns=False)),
    ],
)
def test_settings(text: str, settings: Settings) -> None:
    assert parse_settings(text) == settings


def test_hosts() -> None:
    hosts = parse_hosts(
        "127.0.0.1\tlocalhost loghost # the loopback\n\n# 192.0.2.1 no\n"
        "::1 localhost\n192.0.2.2 Mail.Example.org. mail\n192.0.2.2 other\nname 192.0.2.3\n"
        "2001:DB8:0::5 six\n192.0.2.4\n"
    )
    assert hosts.addresses("localhost") == ["127.0.0.1", "::1"]
    assert hosts.addresses("mail.example.ORG") == ["192.0.2.2"]
    assert hosts.addresses("name") is None
    assert hosts.name("192.0.2.2") == "Mail.Example.org"
    assert hosts.name("2001:db8::5") == "six"
    assert hosts.name("192.0.2.4") is None


def test_a_huge_hosts_file_is_cut() -> None:
    text = "".join(f"0.0.0.0 a{n}.example\n" for n in range(system.MAX_HOSTS + 5))
    hosts = parse_hosts(text)
    assert hosts.addresses("a0.example") == ["0.0.0.0"]
    assert hosts.addresses(f"a{system.MAX_HOSTS}.example") is None


@given(
    st.text(), st.lists(st.sampled_from(["nameserver ", "options ", "[", "]", ":", "::1", "\n"]))
)
def test_any_text_gives_settings_and_hosts(text: str, words: list[str]) -> None:
    settings = parse_settings(text + "".join(words))
    assert 1 <= len(settings.servers) <= system.MAX_SERVERS
    assert settings.timeout_seconds >= 1
    parse_hosts(text)
