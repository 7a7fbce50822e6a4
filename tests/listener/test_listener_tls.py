"""The contexts of listeners: which certificate, which versions, and what cannot be used."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional

import pytest

from smtpd_core.config.model import Ca, Config, Listener, ListenTls, Pki, SocketListener
from smtpd_core.config.problems import Place
from smtpd_core.listener.tls import (
    certificate_names,
    description,
    find_by_name,
    server_context,
)
from smtpd_core.net.contexts import ContextError
from smtpd_core.net.stream import TlsFacts
from tests.fakes.certificates import AUTHORITY, MX_EXAMPLE, OTHER_EXAMPLE, client_context

if TYPE_CHECKING:
    from pathlib import Path

HERE = Place("smtpd.conf", 1)

# Its password is "test", which nobody will be asked for.
ENCRYPTED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjP35ijYq14/QICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEAZ8s53UxdvCgbzPWc3kg/0EgZDj
Lrd0I8W+U8XTGDTRxUwREfiYwidZTCATp+XEyEipeDJHcIhN8chCi12TN3YImvCR
wIpDg0ZInwykHBxLzYt1aAp5+NmDcoZ+RH+sYxJxz32yvubwUTx+fT7ta2KSYgUu
bQAvx76J9kWqdP0qK/PXQz8mPYeg/OnAa68D59WTKjt/aGdfuosTXsrSi35Cx0U=
-----END ENCRYPTED PRIVATE KEY-----
"""


def der(pem: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERT") :])


def parts(directory: Path, **changes: Any) -> tuple[Listener, Config]:
    """A listener with two certificates."""
    pkis = {}
    for name, pem in (("mx.example", MX_EXAMPLE), ("other.example", OTHER_EXAMPLE)):
        file = directory / f"{name}.pem"
        file.write_text(pem)
        pkis[name] = Pki(name, HERE, str(file), str(file))
    authority = directory / "ca.pem"
    authority.write_text(AUTHORITY)
    listener = Listener(HERE, "lo", tls=ListenTls.OFFERED, pki=tuple(pkis))
    config = Config(
        "smtpd.conf",
        SocketListener(HERE),
        pkis=pkis,
        cas={"us": Ca("us", HERE, str(authority))},
    )
    return replace(listener, **changes), config


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, name: Optional[str]
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Let two ends speak in memory; raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=name),
    )
    for _ in range(10):
        done = 0
        for end in reversed(ends):
            try:
                end.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
        if done == 2:
            return ends
    raise AssertionError("no end to the handshake")


def unverified() -> ssl.SSLContext:
    return client_context(verify=False)


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        (None, MX_EXAMPLE),
        ("mx.example", MX_EXAMPLE),
        ("other.example", OTHER_EXAMPLE),
        ("OTHER.example", OTHER_EXAMPLE),
        ("strange.example", MX_EXAMPLE),
    ],
)
def test_the_name_asked_for_chooses_the_certificate(
    tmp_path: Path, asked: Optional[str], served: str
) -> None:
    server = server_context(*parts(tmp_path))
    _, client = shake_hands(server, unverified(), asked)
    assert client.getpeercert(binary_form=True) == der(served)


def test_names_stand_in_the_certificate_too(tmp_path: Path) -> None:
    listener, config = parts(tmp_path, pki=("first", "second"))
    pkis = {"first": config.pkis["mx.example"], "second": config.pkis["other.example"]}
    server = server_context(listener, replace(config, pkis=pkis))
    _, client = shake_hands(server, unverified(), "other.example")
    assert client.getpeercert(binary_form=True) == der(OTHER_EXAMPLE)


def test_a_wildcard_stands_for_one_label() -> None:
    context = unverified()
    by_name = {"*.example.org": context}
    assert find_by_name(by_name, "mx.Example.org") is context
    assert find_by_name(by_name, "example.org") is None
    assert find_by_name(by_name, "a.b.example.org") is None
    assert find_by_name(by_name, "") is None


def test_certificate_names() -> None:
    assert certificate_names(der(MX_EXAMPLE)) == ["mx.example"]
    assert certificate_names(der(AUTHORITY)) == []
    whole = der(MX_EXAMPLE)
    place = whole.index(b"\x06\x03\x55\x1d\x11")
    for end in range(place, place + 25):
        assert certificate_names(whole[:end]) == []


@pytest.mark.parametrize(
    ("protocols", "client_version", "agreed"),
    [
        (None, ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        (None, ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ("tlsv1.3", ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ("tlsv1.3", ssl.TLSVersion.TLSv1_2, None),
        ("tlsv1.2", ssl.TLSVersion.TLSv1_3, None),
    ],
)
def test_versions(
    tmp_path: Path, protocols: Optional[str], client_version: ssl.TLSVersion, agreed: Optional[str]
) -> None:
    server = server_context(*parts(tmp_path, protocols=protocols))
    client = unverified()
    client.minimum_version = client.maximum_version = client_version
    if agreed is None:
        with pytest.raises(ssl.SSLError):
            shake_hands(server, client, None)
    else:
        assert shake_hands(server, client, None)[0].version() == agreed


def test_ciphers(tmp_path: Path) -> None:
    server = server_context(
        *parts(tmp_path, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256", protocols="tlsv1.2")
    )
    cipher = shake_hands(server, unverified(), None)[0].cipher()
    assert cipher is not None
    assert cipher[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    with pytest.raises(ContextError):
        server_context(*parts(tmp_path, ciphers="none such"))


def test_verify_wants_a_certificate_of_the_authority(tmp_path: Path) -> None:
    listener, config = parts(tmp_path, verify=True, ca="us", protocols="tlsv1.2")
    server = server_context(listener, config)
    with pytest.raises(ssl.SSLError):
        shake_hands(server, unverified(), None)
    client = unverified()
    client.load_cert_chain(str(tmp_path / "other.example.pem"))
    assert shake_hands(server, client, None)[0].getpeercert(binary_form=True) == der(OTHER_EXAMPLE)


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nnothing\n", AUTHORITY])
def test_what_cannot_be_loaded_is_told_with_its_name(
    tmp_path: Path, content: Optional[str]
) -> None:
    listener, config = parts(tmp_path)
    file = tmp_path / "mx.example.pem"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(ContextError, match=r"pki mx\.example: "):
        server_context(listener, config)


def test_a_key_behind_a_password_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    listener, config = parts(tmp_path)
    certificate = MX_EXAMPLE[MX_EXAMPLE.index("-----BEGIN CERT") :]
    (tmp_path / "mx.example.pem").write_text(ENCRYPTED_KEY + certificate)
    with pytest.raises(ContextError):
        server_context(listener, config)


def test_no_certificate_at_all(tmp_path: Path) -> None:
    with pytest.raises(ContextError):
        server_context(*parts(tmp_path, pki=()))


def test_description() -> None:
    facts = TlsFacts("TLSv1.3", "X", 256, verified=False, fingerprint=None)
    assert description(facts, required=False) == "TLSv1.3:X:256:NO"
    assert description(facts, required=True) == "TLSv1.3:X:256:YES"
