"""The TLS contexts of relay actions: two each, made before the files are out of reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from smtpd_core.config.model import RelayAction
from smtpd_core.config.problems import Place
from smtpd_core.net.contexts import ClientTls, ContextError, client_context
from smtpd_core.routing.stored import SPELLED_OUT

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from smtpd_core.config.model import Config


class Contexts(NamedTuple):
    """For relays whose certificate has to be good, and for the others."""

    verified: ssl.SSLContext
    lenient: ssl.SSLContext


def relay_tls(action: RelayAction, config: Config) -> ClientTls:
    """Say what the TLS of an action is made from. Raises ContextError for an unknown name."""
    pki = config.pkis.get(action.pki) if action.pki else None
    if action.pki and (pki is None or pki.cert is None or pki.key is None):
        raise ContextError(f'client pki "{action.pki}" not found')
    ca = config.cas.get(action.ca) if action.ca else None
    if action.ca and ca is None:
        raise ContextError(f'ca "{action.ca}" not found')
    return ClientTls(
        cert=pki.cert if pki else None,
        key=pki.key if pki else None,
        ca=ca.cert if ca else None,
        ciphers=action.ciphers or config.smtp.ciphers,
        protocols=action.protocols,
    )


def prepare(config: Config) -> Mapping[str, Contexts]:
    """Make the contexts of every relay action, by its name; equal ones are shared.

    Under SPELLED_OUT are those for envelopes that name no action. Raises ContextError.
    """
    made: dict[ClientTls, Contexts] = {}
    contexts = {}
    spelled_out = RelayAction(SPELLED_OUT, Place("", 0))
    for name, action in (*config.actions.items(), (SPELLED_OUT, spelled_out)):
        if not isinstance(action, RelayAction):
            continue
        options = relay_tls(action, config)
        if options not in made:
            made[options] = Contexts(
                client_context(options, verify=True), client_context(options, verify=False)
            )
        contexts[name] = made[options]
    return contexts
