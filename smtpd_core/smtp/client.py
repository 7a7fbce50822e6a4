"""ClientSession: one SMTP or LMTP conversation seen from the client, without any I/O.

The caller feeds what it receives, sends what `outgoing` gives, and asks `next_event` until it
answers None. Events tell it what to do, or what became of a recipient:

- TlsWanted: start TLS, then call tls_started; Ready: call send_mail, or quit;
- TextWanted: give the message to send_text, piece by piece, then call end_text;
- RecipientDone: the outcome of one recipient; each has exactly one, however the session ends;
- MailDone: all have theirs, and Ready follows when the connection can be used again;
- Failed: the connection is of no more use; Closed: it ended as we wished.

Every command that was sent has its place in a queue of what its reply will mean. A reply that
nobody waits for ends the session, as do octets in clear behind the reply to STARTTLS: they were
meant to be taken for something said inside TLS. MAIL and RCPT go out together where the peer
offers PIPELINING; DATA always waits for a recipient, so that no mail without one is ever sent.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Callable, Optional

from smtpd_core.errors import LocalError
from smtpd_core.mail.status import Result, one_line, outcome
from smtpd_core.smtp.client_events import (
    ClientOptions,
    Closed,
    Event,
    Failed,
    MailDone,
    Ready,
    RecipientDone,
    TextWanted,
    TlsWanted,
)
from smtpd_core.smtp.data import DataWriter
from smtpd_core.smtp.opening import Opening, Step
from smtpd_core.smtp.reply import (
    Reply,
    ReplyError,
    ReplyReader,
    ReplyTooLongError,
    errorline,
    outcome_of,
    refused,
)
from smtpd_core.smtp.transaction import (
    mail_command,
    rcpt_command,
    refuse_mail,
    refuse_recipient,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from smtpd_core.mail.status import Outcome
    from smtpd_core.smtp.transaction import Transaction

IDLE_SECONDS = 300  # for every step, the connection included
MAX_OUTSTANDING = 100  # commands without a reply: neither side's window fills
_TOO_MUCH = "Remote host sent too much data"


class State(enum.Enum):
    """Where a conversation is."""

    OPENING = "opening"  # banner, names, TLS, authentication
    HANDSHAKE = "handshake"  # TlsWanted was given
    READY = "ready"
    COMMANDS = "commands"  # MAIL, RCPT, DATA, RSET
    TEXT = "text"  # TextWanted was given
    ENDING = "ending"  # the final dot was sent
    QUITTING = "quitting"
    CLOSED = "closed"


class ClientSession:
    """One conversation. See the module for how to drive it."""

    def __init__(self, options: ClientOptions) -> None:
        """Prepare to meet a peer; LocalError when our own name cannot be said."""
        self.options = options
        self.state = State.OPENING
        self._out: list[bytes] = []
        self._opening = Opening(options)
        self._reader = ReplyReader()
        self._expected: deque[Callable[[Reply], None]] = deque((self._on_opening,))
        self._events: deque[Event] = deque()
        self._mail: Optional[Transaction] = None
        self._to_send: Iterator[int] = iter(())  # recipients whose RCPT was not sent
        self._unsent = False  # whether that iterator has more
        self._accepted: list[int] = []
        self._open: set[int] = set()  # recipients without an outcome
        self._failures = 0  # refused recipients in a row
        self._mail_refused = False
        self._writer = DataWriter()

    @property
    def extensions(self) -> Mapping[str, str]:
        """Give what the peer offers: keyword to parameters, in upper case."""
        return self._opening.extensions

    @property
    def banner(self) -> str:
        """Give the first line of the banner; empty before it came."""
        return self._opening.banner

    @property
    def secured(self) -> bool:
        """Tell whether the conversation is inside TLS."""
        return self._opening.secured

    # What the caller does.

    def feed(self, octets: bytes) -> None:
        """Take what was received; ask for events after each piece."""
        if self.state is State.CLOSED:
            return
        try:
            self._reader.feed(octets)
            self._take_replies()
        except ReplyTooLongError as error:
            self._take_replies()
            self._fail(str(error))
        except ReplyError as error:
            self._take_replies()
            self._fail(f"Bad response: {error}")

    def outgoing(self) -> bytes:
        """Give the octets to send, once."""
        octets = b"".join(self._out)
        self._out.clear()
        return octets

    def next_event(self) -> Optional[Event]:
        """Give the next event, or None when octets are missing."""
        return self._events.popleft() if self._events else None

    def tls_started(self) -> None:
        """Go on inside TLS; what the peer said before is forgotten."""
        if self.state is not State.HANDSHAKE:
            raise LocalError("TLS was not due")
        self.state = State.OPENING
        self._follow(self._opening.tls_started())

    def connection_lost(self, reason: str = "Connection closed unexpectedly") -> None:
        """End the session for a reason of the caller's: lost, timed out, no TLS."""
        self._fail(reason)

    def send_mail(self, mail: Transaction) -> None:
        """Begin a mail. Raises LocalError when the session is not READY."""
        if self.state is not State.READY:
            raise LocalError("the session is not ready for a mail")
        if not mail.recipients:
            raise LocalError("a mail needs a recipient")
        self.state = State.COMMANDS
        self._mail = mail
        self._mail_refused = False
        self._accepted = []
        self._open = set(range(len(mail.recipients)))
        refusal = refuse_mail(mail, self.extensions)
        if refusal is not None:
            self._settle_all(refusal)
            self._end_mail(reset=False)
            return
        for index, recipient in enumerate(mail.recipients):
            found = refuse_recipient(mail, recipient, self.extensions)
            if found is not None:
                self._settle(index, found)
        if not self._open:
            self._end_mail(reset=False)
            return
        self._to_send = iter(sorted(self._open))
        self._unsent = True
        self._command(mail_command(mail, self.extensions), self._on_mail)
        if "PIPELINING" in self.extensions:
            self._send_recipients()

    def send_text(self, octets: bytes) -> None:
        """Send a piece of the message as stored, LF line ends; see DataWriter for the rest."""
        if self.state is not State.TEXT:
            raise LocalError("no text is due")
        self._out.append(self._writer.feed(octets))

    def end_text(self) -> None:
        """Send the end of the message."""
        if self.state is not State.TEXT:
            raise LocalError("no text is due")
        self._out.append(self._writer.finish())
        self.state = State.ENDING
        if self.options.lmtp:  # RFC 2033 section 4.2: one reply per accepted recipient
            for index in self._accepted:
                self._expected.append(self._lmtp_reply_for(index))
        else:
            self._expected.append(self._on_end_of_data)

    def quit(self) -> None:
        """Take leave; raises LocalError in the middle of a mail."""
        if self.state is not State.READY:
            raise LocalError("the session is not ready to quit")
        self.state = State.QUITTING
        self._command(b"QUIT", self._on_quit)

    # Replies.

    def _take_replies(self) -> None:
        while self.state is not State.CLOSED:
            reply = self._reader.next_reply()
            if reply is None:
                if not self._expected and not self._reader.is_idle:
                    self._fail(_TOO_MUCH)
                return
            if reply.code == 421 and self.state is not State.QUITTING:
                self._fail(errorline(reply), refused(reply))
            elif self._expected:
                take = self._expected.popleft()
                unasked = not self._expected and not self._reader.is_idle
                take(reply)
                if unasked:  # an answer to what was not said yet
                    self._fail(_TOO_MUCH)
            elif self.state is State.TEXT and not reply.positive:
                self._fail(errorline(reply), refused(reply))  # it has seen enough of the message
            else:
                self._fail(_TOO_MUCH)

    def _command(self, line: bytes, then: Callable[[Reply], None]) -> None:
        self._out.append(line + b"\r\n")
        self._expected.append(then)

    def _on_opening(self, reply: Reply) -> None:
        self._follow(self._opening.take(reply))

    def _follow(self, step: Step) -> None:
        """Do what the opening asks for."""
        if isinstance(step, bytes):
            self._command(step, self._on_opening)
        elif isinstance(step, TlsWanted):
            self.state = State.HANDSHAKE
            self._events.append(step)
        elif isinstance(step, Ready):
            self._become_ready()
        else:
            self._fail(step.text)

    def _become_ready(self) -> None:
        self.state = State.READY
        self._events.append(Ready())

    # A mail.

    def _on_mail(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._send_recipients()
            return
        self._mail_refused = True
        self._unsent = False
        self._settle_all(refused(reply))
        self._after_recipients()

    def _send_recipients(self) -> None:
        """Send RCPTs: all that fit where the peer offers PIPELINING, else the next one."""
        assert self._mail is not None
        room = MAX_OUTSTANDING if "PIPELINING" in self.extensions else 1
        while self._unsent and len(self._expected) < room:
            index = next(self._to_send, None)
            if index is None:
                self._unsent = False
                break
            recipient = self._mail.recipients[index]
            self._command(rcpt_command(recipient, self.extensions), self._rcpt_reply_for(index))
        self._after_recipients()

    def _rcpt_reply_for(self, index: int) -> Callable[[Reply], None]:
        def take(reply: Reply) -> None:
            if self._mail_refused:
                self._after_recipients()
                return
            if reply.code // 100 == 2:
                self._accepted.append(index)
                self._failures = 0
            else:
                self._settle(index, refused(reply))
                self._failures += 1
            if self._failures >= self.options.max_failures:
                self._unsent = False
            self._send_recipients()

        return take

    def _after_recipients(self) -> None:
        """Go on once every command has its reply."""
        if self._expected or self._unsent or self.state is not State.COMMANDS:
            return
        if self._failures >= self.options.max_failures:
            self._fail("Too many consecutive errors, closing connection")
        elif self._accepted and not self._mail_refused:
            self._command(b"DATA", self._on_data)
        else:
            self._end_mail(reset=True)

    def _on_data(self, reply: Reply) -> None:
        if reply.code // 100 == 3:
            self.state = State.TEXT
            self._writer = DataWriter()
            self._events.append(TextWanted())
        else:
            self._settle_all(refused(reply))
            self._end_mail(reset=True)

    def _on_end_of_data(self, reply: Reply) -> None:
        self._settle_all(outcome_of(reply))
        self._end_mail(reset=reply.code // 100 != 2)

    def _lmtp_reply_for(self, index: int) -> Callable[[Reply], None]:
        def take(reply: Reply) -> None:
            self._settle(index, outcome_of(reply))
            if not self._open:
                self._end_mail(reset=False)

        return take

    def _settle(self, index: int, found: Outcome) -> None:
        if index in self._open:
            self._open.remove(index)
            self._events.append(RecipientDone(index, found))

    def _settle_all(self, found: Outcome) -> None:
        for index in sorted(self._open):
            self._settle(index, found)

    def _end_mail(self, *, reset: bool) -> None:
        self._mail = None
        self._events.append(MailDone())
        if reset:
            self.state = State.COMMANDS
            self._command(b"RSET", self._on_reset)
        else:
            self._become_ready()

    def _on_reset(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._become_ready()
        else:
            self._fail_with(reply, "RSET rejected: ")

    # Endings.

    def _on_quit(self, _reply: Reply) -> None:
        self._shut(Closed())

    def _fail_with(self, reply: Reply, context: str = "") -> None:
        self._fail(context + errorline(reply))

    def _fail(self, reason: str, found: Optional[Outcome] = None) -> None:
        """End the session; who has no outcome yet gets this one, or is tried again later."""
        if self.state is State.CLOSED:
            return
        safe = one_line(reason)
        # What we were invited to do cannot be done any more.
        self._events = deque(
            event for event in self._events if isinstance(event, (RecipientDone, MailDone))
        )
        if self._mail is not None:
            self._settle_all(found or outcome(Result.TEMPORARY, safe))
            self._mail = None
            self._events.append(MailDone())
        self._shut(Closed() if self.state is State.QUITTING else Failed(safe))

    def _shut(self, event: Event) -> None:
        self.state = State.CLOSED
        self._expected.clear()
        self._out.clear()
        self._events.append(event)
