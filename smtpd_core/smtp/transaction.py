"""One mail for a ClientSession to send: who it is from, who it is for, and their parameters.

Envelopes may come from old spools, from other programs and from rescued disks; so addresses and
parameters are looked at once more before they become a command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from smtpd_core import text
from smtpd_core.mail.status import Outcome, Result, outcome
from smtpd_core.smtp.command import MAX_ENVID, MAX_ORCPT, Notify, is_xtext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smtpd_core.mail.address import Address

MAX_PATH = 512  # octets; the parts of an address have 255 each

# What could end a path, a parameter or a line. The grammar of addresses is not checked here: the
# peer does that; a quoted local part from elsewhere may pass when it holds none of these.
_UNFIT = re.compile("[\x00-\x20\x7f<>\u0080-\u00a0\u2028\u2029\udc80-\udcff]")


@dataclass(frozen=True)
class Recipient:
    """One recipient; orcpt is `type;xtext` as it came."""

    address: Address
    notify: Notify = Notify(0)  # noqa: RUF009 - an immutable flag
    orcpt: str = ""


@dataclass(frozen=True)
class Transaction:
    """One mail; `size` is that of the stored message, `eight_bit` and `smtputf8` its needs."""

    sender: Address
    recipients: tuple[Recipient, ...]
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: Optional[str] = None
    envid: str = ""

    @property
    def needs_utf8(self) -> bool:
        """Tell whether the sender, or whoever gave the mail, needs SMTPUTF8."""
        return self.smtputf8 or not str(self.sender).isascii()


def _is_fit(address: Address) -> bool:
    path = str(address)
    return len(text.encode(path)) <= MAX_PATH and _UNFIT.search(path) is None


def refuse_mail(mail: Transaction, extensions: Mapping[str, str]) -> Optional[Outcome]:
    """Give the outcome of a mail that cannot be offered to a peer of these extensions."""
    if not _is_fit(mail.sender):
        return outcome(Result.PERMANENT, "Sender address cannot be sent", "5.1.7")
    limit = extensions.get("SIZE", "")
    if limit.isascii() and limit.isdigit() and 0 < int(limit[:20]) < mail.size:
        return outcome(Result.PERMANENT, "message too large for peer", "5.3.4")
    if mail.needs_utf8 and "SMTPUTF8" not in extensions:
        return outcome(Result.PERMANENT, "SMTPUTF8 required but not offered by peer", "5.6.7")
    return None


def refuse_recipient(
    mail: Transaction, recipient: Recipient, extensions: Mapping[str, str]
) -> Optional[Outcome]:
    """Give the outcome of a recipient that cannot be offered to a peer of these extensions."""
    address = recipient.address
    if address.is_null or not _is_fit(address):
        return outcome(Result.PERMANENT, "Recipient address cannot be sent", "5.1.3")
    if not str(address).isascii() and not (mail.needs_utf8 and "SMTPUTF8" in extensions):
        return outcome(Result.PERMANENT, "SMTPUTF8 required for this recipient", "5.6.7")
    return None


def mail_command(mail: Transaction, extensions: Mapping[str, str]) -> bytes:
    """Compose MAIL FROM; a parameter that is not fit to be sent is left out."""
    line = f"MAIL FROM:<{mail.sender}>"
    if "DSN" in extensions:
        if mail.ret in ("HDRS", "FULL"):
            line += f" RET={mail.ret}"
        if mail.envid and len(mail.envid) <= MAX_ENVID and is_xtext(mail.envid):
            line += f" ENVID={mail.envid}"
    if mail.eight_bit and "8BITMIME" in extensions:
        line += " BODY=8BITMIME"
    if mail.needs_utf8:
        line += " SMTPUTF8"
    return text.encode(line)


def rcpt_command(recipient: Recipient, extensions: Mapping[str, str]) -> bytes:
    """Compose RCPT TO; a parameter that is not fit to be sent is left out."""
    line = f"RCPT TO:<{recipient.address}>"
    if "DSN" in extensions:
        words = [word.name or "" for word in Notify if word in recipient.notify]
        if words:
            line += f" NOTIFY={','.join(['NEVER'] if 'NEVER' in words else words)}"
        kind, _, original = recipient.orcpt.partition(";")
        if kind and original and len(recipient.orcpt) <= MAX_ORCPT and is_xtext(kind + original):
            line += f" ORCPT={recipient.orcpt}"
    return text.encode(line)
