"""What a ClientSession is told at its start, and the events by which it tells what happens."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from smtpd_core.mail.status import Outcome


class TlsPolicy(enum.Enum):
    """When to ask for TLS with STARTTLS; smtps is a session that starts `secured`."""

    NEVER = "never"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"


@dataclass(frozen=True)
class ClientOptions:
    """How to speak to one peer."""

    name: str  # what EHLO or LHLO says
    lmtp: bool = False
    tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC
    secured: bool = False
    user: str = ""  # authenticate when not empty
    password: str = field(default="", repr=False)
    max_failures: int = 25  # refused recipients in a row; the rest of the mail then waits


@dataclass(frozen=True)
class TlsWanted:
    """The peer is ready for a handshake."""


@dataclass(frozen=True)
class Ready:
    """A mail may be sent."""


@dataclass(frozen=True)
class TextWanted:
    """The text of the message is due."""


@dataclass(frozen=True)
class RecipientDone:
    """What became of one recipient; index counts in the transaction's recipients."""

    index: int
    outcome: Outcome


@dataclass(frozen=True)
class MailDone:
    """Every recipient of the mail has its outcome."""


@dataclass(frozen=True)
class Failed:
    """The session is over; text says why, in one safe line."""

    text: str


@dataclass(frozen=True)
class Closed:
    """The session is over because we said QUIT."""


Event = Union[TlsWanted, Ready, TextWanted, RecipientDone, MailDone, Failed, Closed]
