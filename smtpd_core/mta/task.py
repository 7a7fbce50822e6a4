"""A task: the envelopes of one message that can share one mail transaction.

They do when sender, RET and ENVID are the same as they will be sent, and when all or none of
them need SMTPUTF8; so one address in other letters does not keep back the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Optional

from smtpd_core.ids import msgid_of
from smtpd_core.mail import srs
from smtpd_core.mail.address import Address
from smtpd_core.smtp.command import Notify
from smtpd_core.smtp.transaction import Recipient, Transaction

if TYPE_CHECKING:
    from smtpd_core.config.model import RelayAction
    from smtpd_core.mail.srs import Keys
    from smtpd_core.queue.envelope import Envelope

MAX_RECIPIENTS = 100  # in one transaction: every server takes so many (RFC 5321 4.5.3.1.8)
_NOTIFY = 0x0F


class TaskKey(NamedTuple):
    """What envelopes of one task have in common."""

    msgid: int
    sender: Address
    ret: str
    envid: str
    utf8: bool


class Item(NamedTuple):
    """One envelope with its id."""

    evpid: int
    envelope: Envelope


@dataclass(eq=False)
class Task:
    """Envelopes to be sent together; an item that is settled leaves `open`."""

    key: TaskKey
    items: list[Item] = field(default_factory=list)
    open: set[int] = field(default_factory=set)

    def add(self, item: Item) -> None:
        """Take another envelope."""
        self.open.add(len(self.items))
        self.items.append(item)

    @property
    def is_full(self) -> bool:
        """Tell whether further envelopes need another transaction."""
        return len(self.items) >= MAX_RECIPIENTS

    def transaction(self, size: int) -> Transaction:
        """Give the mail to send; size is that of the stored message."""
        key = self.key
        return Transaction(
            sender=key.sender,
            recipients=tuple(_recipient(item.envelope) for item in self.items),
            size=size,
            smtputf8=key.utf8,
            ret=key.ret or None,
            envid=key.envid,
        )


def task_key(item: Item, sender: Address) -> TaskKey:
    """Give the key of an envelope's task; sender is as it will be sent."""
    envelope = item.envelope
    utf8 = not (str(sender) + envelope.dest).isascii()
    return TaskKey(msgid_of(item.evpid), sender, envelope.dsn_ret, envelope.dsn_envid, utf8)


def _recipient(envelope: Envelope) -> Recipient:
    return Recipient(
        split_address(envelope.dest), Notify(envelope.dsn_notify & _NOTIFY), envelope.dsn_orcpt
    )


def split_address(stored: str) -> Address:
    """Split an address as an envelope has it; what checks it is the transaction."""
    local_part, _, domain = stored.rpartition("@")
    return Address(local_part, domain)


def outgoing_sender(
    envelope: Envelope, action: RelayAction, keys: Optional[Keys], now: int
) -> Address:
    """Give the sender a relay is told: as the action says, else rewritten when it forwards.

    `mail-from` replaces the parts it has; a null sender stays. Both do not add up: an address
    that the administrator chose needs no rewriting.
    """
    sender = split_address(envelope.sender)
    if sender.is_null:
        return sender
    if action.mail_from is not None:
        local_part, at, domain = action.mail_from.rpartition("@")
        if not at:
            local_part, domain = domain, ""
        return Address(local_part or sender.local_part, domain or sender.domain)
    if action.srs and keys is not None and envelope.rcpt != envelope.dest:
        own = envelope.rcpt.rpartition("@")[2]
        return split_address(srs.rewrite(str(sender), own, keys, now)) if own else sender
    return sender
