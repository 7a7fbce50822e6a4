"""The contexts of actions: from names in the configuration, shared where equal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from smtpd_core.config.model import Ca, Config, Pki, SocketListener
from smtpd_core.mta.contexts import prepare, relay_tls
from smtpd_core.net.contexts import ClientTls, ContextError
from tests.fakes.certificates import AUTHORITY, MX_EXAMPLE
from tests.fakes.relaying import HERE, smarthost

if TYPE_CHECKING:
    from pathlib import Path


def config(*actions: Any, **values: Any) -> Config:
    return Config(
        "here.example",
        SocketListener(HERE),
        actions={action.name: action for action in actions},
        **values,
    )


def test_equal_options_share_contexts() -> None:
    contexts = prepare(
        config(smarthost(name="a"), smarthost(name="b"), smarthost(name="c", protocols="tlsv1.3"))
    )
    assert contexts["a"] is contexts["b"]
    assert contexts["a"] is not contexts["c"]


def test_files_by_name(tmp_path: Path) -> None:
    pki, ca = tmp_path / "pki.pem", tmp_path / "ca.pem"
    pki.write_text(MX_EXAMPLE)
    ca.write_text(AUTHORITY)
    action = smarthost(pki="p", ca="c", ciphers="HIGH")
    whole = config(
        action,
        pkis={"p": Pki("p", HERE, cert=str(pki), key=str(pki))},
        cas={"c": Ca("c", HERE, cert=str(ca))},
    )
    expected = ClientTls(cert=str(pki), key=str(pki), ca=str(ca), ciphers="HIGH")
    assert relay_tls(action, whole) == expected
    assert prepare(whole)["out"].verified.cert_store_stats()["x509_ca"] == 1
    with pytest.raises(ContextError, match='client pki "q" not found'):
        relay_tls(replace(action, pki="q"), whole)
    with pytest.raises(ContextError, match='ca "d" not found'):
        relay_tls(replace(action, ca="d"), whole)
