"""Contexts of clients: what options mean, and which are refused."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from smtpd_core.net.contexts import ClientTls, ContextError, client_context, restrict
from tests.fakes.certificates import AUTHORITY, MX_EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path


def test_defaults() -> None:
    strict, lax = (client_context(ClientTls(), verify=verify) for verify in (True, False))
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)
    assert strict.minimum_version is lax.minimum_version is ssl.TLSVersion.TLSv1_2


def test_files(tmp_path: Path) -> None:
    pki, ca = tmp_path / "pki.pem", tmp_path / "ca.pem"
    pki.write_text(MX_EXAMPLE)
    ca.write_text(AUTHORITY)
    options = ClientTls(cert=str(pki), key=str(pki), ca=str(ca), protocols="tlsv1.3")
    context = client_context(options, verify=True)
    assert context.cert_store_stats()["x509_ca"] == 1
    assert context.minimum_version is context.maximum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (ClientTls(ciphers="NO-SUCH"), "no cipher"),
        (ClientTls(protocols="ssl9"), "failed to parse protocols"),
        (ClientTls(ca="/nonexistent/ca.pem"), "/nonexistent/ca.pem: No such file"),
        (ClientTls(cert="/nonexistent/c.pem", key="/k"), "/nonexistent/c.pem: No such file"),
    ],
)
def test_what_cannot_be_used(options: ClientTls, why: str) -> None:
    with pytest.raises(ContextError, match=why):
        client_context(options, verify=True)


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("hello\n")
    with pytest.raises(ContextError, match=r"ca\.pem: "):
        client_context(ClientTls(ca=str(file)), verify=True)


def test_named_ciphers() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    restrict(context, "secure", "tlsv1.2,tlsv1.3")
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert all("GCM" in name or "CHACHA20" in name for name in names)
