"""A configuration in use: what its entrances are like."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from smtpd_core.config.model import ListenTls
from smtpd_core.listener.site import Entrance, tls_contexts
from smtpd_core.net.contexts import ContextError
from smtpd_core.smtp.conversation import Options
from tests.fakes.certificates import MX_EXAMPLE
from tests.fakes.reception import RULES, Reception, read_config

if TYPE_CHECKING:
    from pathlib import Path


def entrance(options: str, address: str = "192.0.2.1", port: int = 25) -> Entrance:
    site = Reception(f"{options}\n{RULES}").site({})
    return site.entrance(site.config.listeners[0], address, port)


@pytest.mark.parametrize(
    ("address", "port", "completes"),
    [
        ("192.0.2.1", 25, False),
        ("192.0.2.1", 587, True),
        ("127.0.0.1", 25, True),
        ("::1", 25, True),
        ("2001:db8::1", 25, False),
        ("fe80::1%eth0", 25, False),
    ],
)
def test_where_mail_is_completed(address: str, port: int, completes: bool) -> None:
    assert entrance("listen on 192.0.2.1", address, port).completes is completes


def test_the_local_socket() -> None:
    site = Reception('listen on socket tag "here" mask-src no-dsn\n' + RULES).site()
    found = site.local_entrance()
    assert found.completes
    assert found.tag == "here"
    assert found.options == replace(
        Options(hostname="mx.example", server="mx.example"),
        peer_host="mx.example",
        local=True,
        dsn=False,
        mask_source=True,
    )


def test_options_of_a_listener() -> None:
    found = entrance(
        'listen on 192.0.2.1 tag "t" hostname h.example mask-src no-dsn proxy-v2', "2001:db8::1"
    )
    assert found.address == "[2001:db8::1]"
    assert found.tag == "t"
    assert found.proxy
    assert found.options.hostname == found.options.server == "h.example"
    assert found.options.mask_source
    assert not found.options.dsn


@pytest.mark.parametrize(
    ("options", "available", "required", "auth"),
    [
        ("tls", True, False, (False, False)),
        ("tls-require auth", True, True, (True, True)),
        ("smtps auth-optional", False, True, (True, False)),
    ],
)
def test_tls_and_auth(
    options: str, available: bool, required: bool, auth: tuple[bool, bool]
) -> None:
    pki = 'pki "p.example" cert "/c"\npki "p.example" key "/k"\n'
    found = entrance(f'{pki}listen on 192.0.2.1 {options} pki "p.example"').options
    assert found.tls_available is available
    assert found.tls_required is required
    assert (found.auth_available, found.auth_required) == auth


def test_contexts_of_those_that_need_one(tmp_path: Path) -> None:
    file = tmp_path / "p.pem"
    file.write_text(MX_EXAMPLE)
    text = (
        f'pki "p.example" cert "{file}"\npki "p.example" key "{file}"\n'
        'listen on 192.0.2.1\nlisten on 192.0.2.1 smtps pki "p.example"\n'
    )
    config = read_config(text + RULES)
    assert [each.tls for each in tls_contexts(config)] == [ListenTls.IMMEDIATE]
    file.unlink()
    with pytest.raises(ContextError):
        tls_contexts(config)
