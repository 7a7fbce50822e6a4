"""Hand a message to an LMTP server on this machine or near it.

Source: RFC 2033; OpenSMTPD 7.8, mail.lmtp(8): 75 for what may get better, 69 for a refusal.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, NamedTuple, Optional

from smtpd_core.errors import FormatError
from smtpd_core.mail.address import NULL_ADDRESS, Address
from smtpd_core.mail.status import Result
from smtpd_core.mda.job import EX_TEMPFAIL, EX_UNAVAILABLE, exited
from smtpd_core.mda.stopping import settle
from smtpd_core.smtp.client import ClientSession
from smtpd_core.smtp.client_events import (
    ClientOptions,
    Closed,
    Failed,
    Ready,
    RecipientDone,
    TextWanted,
    TlsPolicy,
)
from smtpd_core.smtp.transaction import Recipient, Transaction

if TYPE_CHECKING:
    from smtpd_core.mail.status import Outcome
    from smtpd_core.mda.job import Job, JobResult
    from smtpd_core.mda.message import Message

PORT = 25
NAME = "localhost"  # what LHLO says
QUIT_SECONDS = 5  # the mail is delivered; politeness has its limit
CHUNK = 65536

_DESTINATION = re.compile(r"(?:\[([0-9A-Fa-f:.%A-Za-z]+)\]|([^:\[\]/\s]+))(?::([0-9]{1,5}))?")


class DestinationError(FormatError):
    """A text that names no LMTP server."""


class Destination(NamedTuple):
    """Where a server listens: at a path, or else at a port of a host."""

    path: str = ""
    host: str = ""
    port: int = PORT


class _UserName(Address):
    """A recipient without a domain, which is how the users of a machine are called in LMTP."""

    def __str__(self) -> str:
        return self.local_part


def parse_destination(text: str) -> Destination:
    """Read `/path`, `host`, `host:port` or `[address]:port`; raises DestinationError."""
    if text.startswith("/"):
        return Destination(path=text)
    match = _DESTINATION.fullmatch(text)
    port = int(match[3] or PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise DestinationError(f"{text[:80]!r} is no LMTP destination")
    return Destination(host=match[1] or match[2], port=port)


def deliver(job: Job, message: Message) -> JobResult:
    """Deliver a message to one recipient over a connection of its own.

    Raises DestinationError, and OSError when the server cannot be reached.
    """
    with _connect(parse_destination(job.argument)) as connection:
        return _Conversation(connection, _transaction(job), message).run()


def _connect(destination: Destination) -> socket.socket:
    if destination.path:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(destination.path)
        except BaseException:
            connection.close()
            raise
        return connection
    # Octets, because a name as text would load codecs, which a sealed process cannot.
    found = socket.getaddrinfo(destination.host.encode(), destination.port, type=socket.SOCK_STREAM)
    failure: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _transaction(job: Job) -> Transaction:
    """Make the mail: for the user's name, or for the address that led here."""
    recipient = _address(job.dest) if job.rcpt_to else _UserName(job.user, "")
    return Transaction(_address(job.sender), (Recipient(recipient),))


def _address(text: str) -> Address:
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain) if local_part else NULL_ADDRESS


class _Conversation:
    """One session, driven to its end; the outcome of the recipient is all that counts."""

    def __init__(self, connection: socket.socket, mail: Transaction, message: Message) -> None:
        self.connection = connection
        self.mail = mail
        self.message = message
        self.session = ClientSession(ClientOptions(NAME, lmtp=True, tls=TlsPolicy.NEVER))
        self.found: Optional[Outcome] = None

    def run(self) -> JobResult:
        while True:
            event = self.session.next_event()
            if event is None:
                self._exchange()
            elif isinstance(event, Ready):
                self._use_session()
            elif isinstance(event, TextWanted):
                self._send_text()
            elif isinstance(event, RecipientDone):
                self._note(event.outcome)
            elif isinstance(event, (Failed, Closed)):
                reason = event.text if isinstance(event, Failed) else "no outcome"
                return _result(self.found) if self.found else exited(EX_TEMPFAIL, reason)

    def _use_session(self) -> None:
        if self.found is None:
            self.session.send_mail(self.mail)
        else:
            self.session.quit()

    def _send_text(self) -> None:
        for chunk in self.message.chunks():
            self.session.send_text(chunk)
            if not self._send():
                return  # the server has seen enough, and may have said why
        self.session.end_text()

    def _send(self) -> bool:
        """Send what is to be sent; False when the server listens no more."""
        octets = self.session.outgoing()
        try:
            self.connection.sendall(octets)
        except (BrokenPipeError, ConnectionResetError):
            return not octets
        return True

    def _note(self, found: Outcome) -> None:
        self.found = found
        if found.result is Result.DELIVERED:
            settle()
            self.connection.settimeout(QUIT_SECONDS)

    def _exchange(self) -> None:
        """Send what is to be sent and wait for an answer."""
        self._send()
        octets = b""
        try:
            octets = self.connection.recv(CHUNK)
        except ConnectionResetError:
            pass
        except OSError:
            if self.found is None:
                raise
        if octets:
            self.session.feed(octets)
        else:
            self.session.connection_lost()


def _result(found: Outcome) -> JobResult:
    if found.result is Result.DELIVERED:
        return exited(0)
    status = EX_UNAVAILABLE if found.result is Result.PERMANENT else EX_TEMPFAIL
    replied = found.text[:3].isdigit()
    return exited(status, f"LMTP server error: {found.text}" if replied else found.text)
