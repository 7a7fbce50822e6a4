"""What is known of a conversation with a client, and which command may come when.

The checks stand in the original's order, which decides what a client is told when more than one
thing is wrong. A check returns the event of a command that may come, or raises CommandError.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Optional, Union

from smtpd_core.errors import LocalError
from smtpd_core.mail.received import Trace, protocol_name
from smtpd_core.smtp import answers
from smtpd_core.smtp.command import (
    Command,
    CommandError,
    Data,
    Grammar,
    Hello,
    Mail,
    Noop,
    Quit,
    Rset,
    StartTls,
    Verb,
    parse_hello,
    parse_mail,
    parse_rcpt,
)
from smtpd_core.smtp.reply import Reply

if TYPE_CHECKING:
    from smtpd_core.mail.address import Address


@dataclass(frozen=True)
class Options:
    """What a session knows of its listener and its peer."""

    hostname: str  # completes addresses
    server: str = ""  # the name in banner and greeting; hostname when empty
    peer_address: str = "local"  # as in the envelope: IPv4, [IPv6] or local
    peer_host: str = ""  # reverse name; the trace field says <unknown> when there is none
    local: bool = False  # the Unix socket: authenticated, without a user name
    secured: bool = False  # TLS from the first octet
    tls: str = ""  # then its version:cipher:bits:YES or NO
    tls_available: bool = False
    tls_required: bool = False
    auth_available: bool = False
    auth_required: bool = False
    dsn: bool = True
    smtputf8: bool = True
    mask_source: bool = False
    received_auth: bool = False
    max_message_size: int = 36700160  # octets
    max_recipients: int = 1000  # accepted, per message
    max_messages: int = 100  # accepted, per session
    max_errors: int = 20  # refused commands since the last message; a person types fewer
    max_failed_recipients: int = 50  # since the last message; as OpenSMTPD 5.7 allows
    max_failed_logins: int = 5  # per session: guessing needs a new connection
    max_idle_commands: int = 100  # commands other than RCPT since the last message

    @property
    def name(self) -> str:
        """Give the name in banner and greeting."""
        return self.server or self.hostname

    @property
    def grammar(self) -> Grammar:
        """Give what the arguments of MAIL and RCPT may hold."""
        return Grammar(self.hostname, self.dsn, self.smtputf8, self.max_message_size)


class State(enum.Enum):
    """Where a conversation is."""

    CONNECT = "connect"  # no banner was sent
    GREETED = "greeted"  # the client has not said its name
    READY = "ready"
    MAIL = "mail"  # a sender, no recipient
    RCPT = "rcpt"
    DATA = "data"
    AUTH = "auth"
    STARTTLS = "starttls"  # between the 220 and the end of the handshake
    CLOSED = "closed"


NEXT_STATE = {
    (State.CONNECT, Verb.CONNECT): State.GREETED,
    (State.GREETED, Verb.HELO): State.READY,
    (State.GREETED, Verb.EHLO): State.READY,
    (State.READY, Verb.STARTTLS): State.STARTTLS,
    (State.AUTH, Verb.AUTH): State.READY,
    (State.READY, Verb.MAIL): State.MAIL,
    (State.MAIL, Verb.RCPT): State.RCPT,
    (State.RCPT, Verb.RCPT): State.RCPT,
    (State.RCPT, Verb.DATA): State.DATA,
    (State.READY, Verb.RSET): State.READY,
    (State.MAIL, Verb.RSET): State.READY,
    (State.RCPT, Verb.RSET): State.READY,
    (State.DATA, Verb.END_OF_DATA): State.READY,
}
_IN_TRANSACTION = (State.MAIL, State.RCPT)


@dataclass
class Counters:
    """What a client did; all but messages and failed logins start again at a message."""

    messages: int = 0
    failed_logins: int = 0
    errors: int = 0
    failed_recipients: int = 0
    commands: int = 0

    def message_accepted(self) -> None:
        """Count a message, and forgive."""
        self.messages += 1
        self.errors = self.failed_recipients = self.commands = 0

    def exhausted(self, options: Options) -> bool:
        """Tell whether the client has used up our patience."""
        return (
            self.errors > options.max_errors
            or self.failed_recipients > options.max_failed_recipients
            or self.failed_logins >= options.max_failed_logins
            or self.commands > options.max_idle_commands
        )


@dataclass
class Conversation:
    """The facts; only ServerSession changes them."""

    options: Options
    state: State = State.CONNECT
    secured: bool = False
    tls: str = ""
    authenticated: bool = False
    user: str = ""
    hello: Optional[Hello] = None
    mail: Optional[Mail] = None  # of the open transaction
    recipients: int = 0  # accepted, of the open transaction
    last_recipient: Optional[Address] = None
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self.secured = self.options.secured
        self.tls = self.options.tls
        self.authenticated = self.options.local

    @property
    def offers_auth(self) -> bool:
        """Tell whether AUTH is announced: never in clear, and once."""
        return self.options.auth_available and self.secured and not self.authenticated

    @property
    def protocol(self) -> str:
        """Name the protocol spoken, as the trace field does."""
        return protocol_name(
            extended=self.hello is not None and self.hello.extended,
            secured=self.secured,
            authenticated=self.authenticated,
        )

    def greeting(self, hello: Hello) -> Reply:
        """Answer HELO, or EHLO with what is offered now."""
        options = self.options
        lines = [answers.hello(options.name, hello.name, options.peer_address)]
        if not hello.extended:
            return Reply(250, None, tuple(lines))
        lines += ("8BITMIME", "ENHANCEDSTATUSCODES", f"SIZE {options.max_message_size}")
        lines += ["DSN"] if options.dsn else []
        lines += ["PIPELINING"]
        lines += ["SMTPUTF8"] if options.smtputf8 else []
        lines += ["STARTTLS"] if options.tls_available and not self.secured else []
        lines += ["AUTH PLAIN LOGIN"] if self.offers_auth else []
        return Reply(250, None, (*lines, "HELP"))

    def trace(self, msgid: int, date: str) -> Trace:
        """Describe the message being received for its Received field."""
        if self.hello is None:
            raise LocalError("no message is being received")
        options = self.options
        return Trace(
            helo="" if options.mask_source else self.hello.name,
            host=options.peer_host,
            address=options.peer_address,
            server=options.name,
            protocol=self.protocol,
            msgid=msgid,
            date=date,
            tls=self.tls or None,
            user=self.user if options.received_auth else None,
            recipient=self.last_recipient if self.recipients == 1 else None,
        )

    def end_transaction(self) -> None:
        """Forget sender and recipients."""
        self.mail = None
        self.recipients = 0
        self.last_recipient = None

    def require(self, *states: State) -> None:
        """Refuse a command that is out of order."""
        if self.state not in states:
            raise CommandError(answers.NOT_ALLOWED)


def _check_name(talk: Conversation, verb: Verb, argument: Optional[str]) -> Hello:
    if talk.state is State.CONNECT:
        raise CommandError(answers.NOT_ALLOWED)
    if talk.hello is not None:
        raise CommandError(answers.ALREADY_IDENTIFIED)
    return parse_hello(verb, argument)


def _check_helo(talk: Conversation, argument: Optional[str]) -> Hello:
    return _check_name(talk, Verb.HELO, argument)


def _check_ehlo(talk: Conversation, argument: Optional[str]) -> Hello:
    return _check_name(talk, Verb.EHLO, argument)


def _check_starttls(talk: Conversation, argument: Optional[str]) -> StartTls:
    talk.require(State.READY)
    if not talk.options.tls_available:
        raise CommandError(answers.NOT_SUPPORTED)
    if talk.secured:
        raise CommandError(answers.ALREADY_SECURED)
    if argument is not None:
        raise CommandError(answers.NO_PARAMETERS_ALLOWED)
    return StartTls()


def check_auth(talk: Conversation, argument: Optional[str]) -> str:
    """Check AUTH; return its argument, which names the mechanism and perhaps holds a response."""
    talk.require(State.READY)
    if talk.authenticated:
        raise CommandError(answers.ALREADY_AUTHENTICATED)
    if not talk.offers_auth:
        raise CommandError(answers.NOT_SUPPORTED)
    if argument is None:
        raise CommandError(answers.NO_PARAMETERS_GIVEN)
    return argument


def _check_mail(talk: Conversation, argument: Optional[str]) -> Command:
    talk.require(State.READY)
    options = talk.options
    if options.tls_required and not talk.secured:
        raise CommandError(answers.TLS_FIRST)
    if options.auth_required and not talk.authenticated:
        raise CommandError(answers.AUTH_FIRST)
    if talk.counters.messages >= options.max_messages:
        raise CommandError(answers.TOO_MANY_MESSAGES)
    return parse_mail(argument or "", options.grammar)


def _check_rcpt(talk: Conversation, argument: Optional[str]) -> Command:
    talk.require(*_IN_TRANSACTION)
    if talk.recipients >= talk.options.max_recipients:
        raise CommandError(answers.TOO_MANY_RECIPIENTS)
    assert talk.mail is not None
    return parse_rcpt(argument or "", talk.options.grammar, utf8=talk.mail.smtputf8)


def _refuse_argument(argument: Optional[str]) -> None:
    if argument is not None:
        raise CommandError(answers.NO_ARGUMENTS)


def _check_data(talk: Conversation, argument: Optional[str]) -> Data:
    _refuse_argument(argument)
    talk.require(*_IN_TRANSACTION)
    if not talk.recipients:
        raise CommandError(answers.NO_RECIPIENT)
    return Data()


def _check_rset(talk: Conversation, argument: Optional[str]) -> Rset:
    _refuse_argument(argument)
    talk.require(State.READY, *_IN_TRANSACTION)
    return Rset()


def _check_noop(_talk: Conversation, _argument: Optional[str]) -> Noop:
    return Noop()


def _check_quit(_talk: Conversation, argument: Optional[str]) -> Quit:
    _refuse_argument(argument)
    return Quit()


def _check_help(_talk: Conversation, argument: Optional[str]) -> Reply:
    _refuse_argument(argument)
    return answers.HELP


def _check_wiz(_talk: Conversation, argument: Optional[str]) -> Reply:
    _refuse_argument(argument)
    return answers.WIZ


CHECKS: dict[Verb, Callable[[Conversation, Optional[str]], Union[Command, Reply]]] = {
    Verb.HELO: _check_helo,
    Verb.EHLO: _check_ehlo,
    Verb.STARTTLS: _check_starttls,
    Verb.MAIL: _check_mail,
    Verb.RCPT: _check_rcpt,
    Verb.DATA: _check_data,
    Verb.RSET: _check_rset,
    Verb.NOOP: _check_noop,
    Verb.HELP: _check_help,
    Verb.QUIT: _check_quit,
    Verb.WIZ: _check_wiz,
}
