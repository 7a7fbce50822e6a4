"""PLAIN and LOGIN."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import LocalError
from smtpd_core.smtp.sasl import (
    Challenge,
    ClientExchange,
    Credentials,
    Mechanism,
    SaslError,
    ServerExchange,
    decode_base64,
    decode_plain,
)

b64 = base64.b64encode


@pytest.mark.parametrize(
    ("octets", "user", "password"),
    [
        (b"\0joe\0secret", "joe", "secret"),
        (b"other\0joe@d\0s p a c e", "joe@d", "s p a c e"),
        (b"\0j\0p", "j", "p"),
        (b"\0j\xff\0\xfe", "j\udcff", "\udcfe"),
        (b"\0" + b"u" * 255 + b"\0" + b"p" * 766, "u" * 255, "p" * 766),
    ],
)
def test_plain(octets: bytes, user: str, password: str) -> None:
    assert decode_plain(b64(octets)) == Credentials(user, password, Mechanism.PLAIN)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"*",
        b"=",
        b"AGE",
        b"AGEAYg",
        b"AGEAYg=",
        b"AGEA Yg==",
        b"AGEAYh==",  # stray bits
        b"AGEAYg==AAAA",
        b64(b"joe\0secret"),
        b64(b"\0joe\0"),
        b64(b"\0\0secret"),
        b64(b"\0joe\0a\0b"),
        b64(b"\0joe\0a\nb"),
        b64(b"\0joe\0a\rb"),
        b64(b"\0joe\n\0a"),
        b64(b"\0" + b"u" * 256 + b"\0p"),
        b64(b"\0u\0" + b"p" * 1021),
        b"A" * 100000,
    ],
)
def test_plain_refuses(response: bytes) -> None:
    with pytest.raises(SaslError):
        decode_plain(response)


def test_login() -> None:
    exchange = ServerExchange(Mechanism.LOGIN)
    assert exchange.challenge is Challenge.USERNAME
    assert exchange.receive(b64(b"joe")) is Challenge.PASSWORD
    assert exchange.receive(b64(b"x" * 2047)) == Credentials("joe", "x" * 2047, Mechanism.LOGIN)


@pytest.mark.parametrize("password", [b"", b"a\nb", b"a\0b", b"x" * 2048])
def test_login_refuses(password: bytes) -> None:
    exchange = ServerExchange(Mechanism.LOGIN)
    exchange.receive(b64(b"joe"))
    with pytest.raises(SaslError):
        exchange.receive(b64(password))


@pytest.mark.parametrize("user", [b"", b"a\nb", b"a\0b", b"x" * 256])
def test_login_refuses_users(user: bytes) -> None:
    with pytest.raises(SaslError):
        ServerExchange(Mechanism.LOGIN).receive(b64(user))


def test_secrets_do_not_show() -> None:
    assert "secret" not in repr(Credentials("joe", "secret"))
    with pytest.raises(SaslError) as caught:
        decode_plain(b"c2VjcmV0")
    assert "c2VjcmV0" not in str(caught.value)


def test_limits_of_the_client() -> None:
    with pytest.raises(SaslError):
        ClientExchange(Credentials("u", "p" * 1100))
    exchange = ClientExchange(Credentials("u", "p"))
    assert exchange.is_done
    with pytest.raises(LocalError):
        exchange.respond()


_WORDS = st.text(min_size=1, max_size=60).filter(
    lambda word: word.isprintable() and len(word.encode("utf-8", "replace")) < 200
)


@given(_WORDS, _WORDS, st.sampled_from(Mechanism))
def test_both_ends_understand_each_other(user: str, password: str, mechanism: Mechanism) -> None:
    credentials = Credentials(user, password, mechanism)
    client = ClientExchange(credentials)
    server = ServerExchange(mechanism)
    verb, name, *initial = client.command().split(b" ")
    assert (verb, name.decode()) == (b"AUTH", mechanism.value)
    found = server.receive(initial[0]) if initial else server.challenge
    while isinstance(found, Challenge):
        found = server.receive(client.respond())
    assert found == credentials
    assert client.is_done


@given(st.binary(max_size=100))
def test_any_response(response: bytes) -> None:
    try:
        octets = decode_base64(response, 60)
    except SaslError:
        return
    assert b64(octets) == response
