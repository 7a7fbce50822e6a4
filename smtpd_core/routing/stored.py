"""The action of an envelope: named by its dispatcher, or, in formats 1 and 2, spelled out in it.

Those formats hold what their release had decided: the file or command, with every %{...} in it
replaced, the relay's URL, the names of tables. That is what is done, whatever today's
configuration says about the recipient. Source: OpenSMTPD 5.7, envelope.c, to.c and mda.c.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Mapping, Optional

from smtpd_core.config.model import Action, LocalAction, Method, RelayAction
from smtpd_core.config.problems import Place

if TYPE_CHECKING:
    from smtpd_core.queue.envelope import Envelope

SPELLED_OUT = ""  # the name of such an action; no configuration gives one so short
FILE_METHOD = "filename"  # appended to, like a file of a .forward
_OLD_FORMATS = (1, 2)
_HERE = Place("", 0)
_METHODS = {
    "mbox": Method.MBOX,
    "maildir": Method.MAILDIR,
    "mda": Method.MDA,
    FILE_METHOD: Method.MDA,
    "lmtp": Method.LMTP,
}


def is_spelled_out(envelope: Envelope) -> bool:
    """Tell whether an envelope says by itself how it is delivered."""
    return envelope.version in _OLD_FORMATS


def literal(text: str) -> str:
    """Spell a text so that expanding it gives it back."""
    return text.replace("%", "%%")


def action_of(envelope: Envelope, actions: Mapping[str, Action]) -> Optional[Action]:
    """Find the action of an envelope; None when it names none that there is.

    Tables that an old envelope names are kept as they are: who asks them says which is missing.
    """
    if not is_spelled_out(envelope):
        return actions.get(envelope.dispatcher)
    return _relay(envelope) if envelope.type == "mta" else _local(envelope)


def _local(envelope: Envelope) -> Optional[LocalAction]:
    method = _METHODS.get(envelope.mda_method)
    if method is None:
        return None
    return LocalAction(
        SPELLED_OUT,
        _HERE,
        method,
        # An mbox is where the system has it: what is stored beside that was never looked at.
        "" if method is Method.MBOX else literal(envelope.mda_buffer),
        user=envelope.mda_delivery_user or None,
        userbase=envelope.mda_usertable or None,
    )


def _relay(envelope: Envelope) -> RelayAction:
    return RelayAction(
        SPELLED_OUT,
        _HERE,
        helo=envelope.mta_relay_heloname or None,
        helo_src=envelope.mta_relay_helotable or None,
        src=envelope.mta_relay_source or None,
        auth=envelope.mta_relay_auth or envelope.mta_relay_authmap or None,
    )


def without_missing(action: RelayAction, tables: Mapping[str, object]) -> RelayAction:
    """Leave out the tables of addresses and names that are no longer there.

    Most were inline lists, numbered anew at every start: a mail is better sent from the address
    the system chooses than not at all. Who authenticates still has to.
    """
    src = action.src if action.src in tables else None
    helo_src = action.helo_src if src is not None and action.helo_src in tables else None
    return replace(action, src=src, helo_src=helo_src)
