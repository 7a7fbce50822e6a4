"""The `listen` statement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, List

import pytest

from smtpd_core.config.draft import Machine
from smtpd_core.config.model import Config, ListenAuth, Listener, ListenTls
from smtpd_core.config.problems import Place

DECLARED = """table list { a }
table map { a = b }
pki Pk cert "/c" key "/k"
ca Us cert "/a"
filter f phase connect match fcrdns junk
"""
LINE = DECLARED.count("\n") + 1
PLAIN = Listener(Place("smtpd.conf", LINE), "192.0.2.1", addresses=("192.0.2.1",))
SECURE = "tls pki pk"


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ("", {}),
        ("inet4", {"family": 4}),
        ("port 2525", {"port": 2525}),
        ("port smtp", {"port": 25}),
        ("port smtps", {"port": 465}),
        ("port submission", {"port": 587}),
        ("port submissions", {"port": 465}),
        ("tag T", {"tag": "T"}),
        (f"tag {'t' * 32}", {"tag": "t" * 32}),
        ("hostname h", {"hostname": "h"}),
        ("hostnames <map>", {"hostnames": "map"}),
        ("senders <map>", {"senders": "map"}),
        ("senders <map> masquerade", {"senders": "map", "masquerade": True}),
        ("mask-src", {"mask_src": True}),
        ("received-auth", {"received_auth": True}),
        ("no-dsn", {"dsn": False}),
        ("proxy-v2", {"proxy_v2": True}),
        ("filter f", {"filter": "f"}),
        ("ca us", {"ca": "us"}),
        ("ca US", {"ca": "us"}),
        ("ciphers HIGH", {"ciphers": "HIGH"}),
        ("protocols tlsv1.3", {"protocols": "tlsv1.3"}),
    ],
)
def test_options(options: str, changes: Dict[str, Any], parse: Callable[..., Config]) -> None:
    config = parse(f"{DECLARED}listen on 192.0.2.1 {options}")
    assert config.listeners == (replace(PLAIN, **changes),)
    assert not config.warnings


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ("tls", {"tls": ListenTls.OFFERED}),
        ("tls-require", {"tls": ListenTls.REQUIRED}),
        ("tls-require verify", {"tls": ListenTls.REQUIRED, "verify": True}),
        ("smtps", {"tls": ListenTls.IMMEDIATE, "port": 465}),
        ("smtps verify port 25", {"tls": ListenTls.IMMEDIATE, "verify": True}),
        ("tls auth", {"auth": ListenAuth.REQUIRED}),
        ("tls auth-optional", {"auth": ListenAuth.OPTIONAL}),
        ("tls auth <map>", {"auth": ListenAuth.REQUIRED, "auth_table": "map"}),
        ("tls auth-optional <map>", {"auth": ListenAuth.OPTIONAL, "auth_table": "map"}),
        ("tls pki pk", {"pki": ("pk", "pk")}),
    ],
)
def test_secure_options(
    options: str, changes: Dict[str, Any], parse: Callable[..., Config]
) -> None:
    config = parse(f"{DECLARED}listen on 192.0.2.1 {options} pki PK")
    expected = replace(PLAIN, tls=ListenTls.OFFERED, pki=("pk",))
    assert config.listeners == (replace(expected, **changes),)


TWICE = [
    ("inet4", "inet6", "address family"),
    ("port 25", "port smtp", "port"),
    ("filter f", "filter { f }", "filter"),
    ("tls", "smtps verify", "TLS mode"),
    ("ciphers a", "ciphers b", "ciphers"),
    ("protocols a", "protocols b", "protocols"),
    ("ca us", "ca us", "ca"),
    ("auth", "auth-optional", "auth"),
    ("tag a", "tag b", "tag"),
    ("hostname a", "hostname b", "hostname"),
    ("hostnames <map>", "hostnames <map>", "hostnames"),
    ("mask-src", "mask-src", "mask-source"),
    ("received-auth", "received-auth", "received-auth"),
    ("no-dsn", "no-dsn", "no-dsn"),
    ("proxy-v2", "proxy-v2", "proxy-v2"),
    ("senders <map>", "senders <map> masquerade", "senders"),
]


@pytest.mark.parametrize(("once", "again", "option"), TWICE)
def test_options_stand_once(
    once: str, again: str, option: str, refused: Callable[..., List[str]]
) -> None:
    text = f"{DECLARED}listen on 192.0.2.1 {once} {again}"
    assert refused(text) == [f"{LINE}: {option} already specified"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("port 0", "invalid port: 0"),
        ("port 65536", "invalid port: 65536"),
        ("port -1", "invalid port: -1"),
        ("port nope", "invalid port: nope"),
        ("port", "syntax error"),
        (f"tag {'t' * 33}", "tag name too long"),
        ("hostname local", "syntax error"),
        ("hostnames <list>", 'invalid use of table "list" as HOSTNAMES parameter'),
        ("senders <list>", 'invalid use of table "list" as SENDERS parameter'),
        ("filter nope", "no filter exist with that name: nope"),
        ("filter", "syntax error"),
        ("auth <nope>", "no such table: nope"),
        ("pki pk tls verify", "syntax error"),
        ("foo", "syntax error"),
        ("pki pk " * 33 + "tls", "too many pki specified"),
        # what the original calls fatal
        ("auth", "invalid listen option: auth requires tls/smtps"),
        ("pki pk", "invalid listen option: pki requires tls/smtps"),
        ("tls", "invalid listen option: pki required for tls/smtps"),
        ("tls pki nope", "pki name not found: nope"),
        ("ca nope", "ca name not found: nope"),
        ("inet6", "invalid virtual ip or interface: 192.0.2.1"),
    ],
)
def test_refused_options(options: str, expected: str, refused: Callable[..., List[str]]) -> None:
    assert refused(f"{DECLARED}listen on 192.0.2.1 {options}") == [f"{LINE}: {expected}"]


def test_thirty_two_certificates_are_enough(parse: Callable[..., Config]) -> None:
    config = parse(f"{DECLARED}listen on 192.0.2.1 tls {'pki pk ' * 32}")
    assert len(config.listeners[0].pki) == 32


def test_a_list_of_users_is_told_to_be_useless(parse: Callable[..., Config]) -> None:
    config = parse(f"{DECLARED}listen on 192.0.2.1 {SECURE} auth <list>")
    assert [str(warning) for warning in config.warnings] == [
        f'smtpd.conf:{LINE}: table "list" holds no credentials: nobody can log in'
    ]


def test_socket(parse: Callable[..., Config], refused: Callable[..., List[str]]) -> None:
    config = parse(f"{DECLARED}listen on socket tag T no-dsn mask-src filter f")
    assert config.socket.where.line == LINE
    assert (config.socket.tag, config.socket.dsn) == ("T", False)
    assert (config.socket.mask_src, config.socket.filter) == (True, "f")
    assert refused("listen on socket\nlisten on socket") == [
        "2: socket listener already configured"
    ]
    assert refused("listen on socket tls") == ["1: syntax error"]
    assert refused("listen socket") == ["1: syntax error"]


def test_names_are_asked_for(
    parse: Callable[..., Config], refused: Callable[..., List[str]]
) -> None:
    machine = Machine(lambda name: ["127.0.0.1", "::1"] if name == "lo" else [], {"x": 7}.get)
    both, six = parse("listen on lo port x\nlisten on lo inet6", machine=machine).listeners
    assert (both.interface, both.addresses, both.port) == ("lo", ("127.0.0.1", "::1"), 7)
    assert six.addresses == ("::1",)
    assert refused("listen on all", machine=machine) == ["1: invalid virtual ip or interface: all"]
    assert refused("listen on 127.0.0.1 port smtp", machine=machine) == ["1: invalid port: smtp"]
    assert parse("listen on all").listeners[0].addresses == ()
    assert parse("listen on ::").listeners[0].addresses == ("::",)
