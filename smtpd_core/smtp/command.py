"""Command lines and their parameters, and the events a session makes of them.

A line becomes a verb and an argument; an argument becomes an event, or a CommandError that
carries the refusal. Nothing here knows the state of a session.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

from smtpd_core.errors import FormatError
from smtpd_core.mail.address import (
    NULL_ADDRESS,
    Address,
    AddressError,
    is_domain,
    parse_address,
    take_path,
)
from smtpd_core.smtp import answers
from smtpd_core.text import decode

if TYPE_CHECKING:
    from smtpd_core.smtp.reply import Reply
    from smtpd_core.smtp.sasl import Credentials

MAX_ENVID = 100  # octets, as sent
MAX_ORCPT = 500  # octets of `type;xtext`, as sent
MAX_SIZE_DIGITS = 20  # RFC 1870 section 4

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")  # RFC 3461 section 4
_XTEXT_ESCAPE = re.compile(rb"\+([0-9A-F]{2})")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?")


class CommandError(FormatError):
    """A command that is refused for its own sake; `reply` says so to the client."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Verb(enum.Enum):
    """What a line asks for; the last two are no lines, but are answered like commands."""

    HELO = "HELO"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"
    RSET = "RSET"
    NOOP = "NOOP"
    HELP = "HELP"
    QUIT = "QUIT"
    WIZ = "WIZ"
    CONNECT = "(connect)"
    END_OF_DATA = "(end of data)"


_WORDS = {
    verb.value.encode(): verb
    for verb in Verb
    if verb not in (Verb.MAIL, Verb.RCPT, Verb.CONNECT, Verb.END_OF_DATA)
}
_COLON_COMMANDS = ((b"MAIL FROM:", Verb.MAIL), (b"RCPT TO:", Verb.RCPT))


class CommandLine(NamedTuple):
    """A verb and what follows it, without blanks around; None where nothing follows."""

    verb: Verb
    argument: Optional[str]


def parse_line(line: bytes) -> CommandLine:
    """Split a command line whose CRLF has been removed. Raises CommandError."""
    for start, verb in _COLON_COMMANDS:
        if line[: len(start)].upper() == start:
            return CommandLine(verb, decode(line[len(start) :].strip(b" \t")))
    word, _, argument = line.partition(b" ")
    known = _WORDS.get(word.upper())
    if known is None:
        raise CommandError(answers.UNRECOGNIZED)
    return CommandLine(known, decode(argument.strip(b" \t")) or None)


# Events: what the policy decides, and what the session hands over.


@dataclass(frozen=True)
class Connect:
    """A client is here and nothing was said yet; the positive answer is the banner."""


@dataclass(frozen=True)
class Hello:
    """HELO or EHLO; the name is a domain or address literal, and proves nothing."""

    name: str
    extended: bool


@dataclass(frozen=True)
class StartTls:
    """STARTTLS; behind a positive answer the caller starts TLS, then calls tls_started."""


@dataclass(frozen=True)
class Authenticate:
    """The credentials of a finished AUTH exchange."""

    credentials: Credentials


class Notify(enum.Flag):
    """When the sender wants to be told. Source: RFC 3461 section 4.1; numbers of the spool."""

    SUCCESS = 1
    FAILURE = 2
    DELAY = 4
    NEVER = 8


@dataclass(frozen=True)
class Mail:
    """MAIL FROM with its parameters; envid is as sent, still xtext."""

    sender: Address
    size: Optional[int] = None
    eight_bit: bool = False
    smtputf8: bool = False
    ret: Optional[str] = None  # HDRS or FULL
    envid: str = ""
    auth: str = ""


@dataclass(frozen=True)
class Rcpt:
    """RCPT TO with its parameters; orcpt is as sent, `type;xtext`."""

    recipient: Address
    notify: Notify = field(default_factory=lambda: Notify(0))
    orcpt: str = ""


@dataclass(frozen=True)
class Data:
    """DATA; behind a positive answer the text comes in MessageText events."""


@dataclass(frozen=True)
class MessageText:
    """A piece of the message, LF line ends, dots unstuffed; it is not answered."""

    octets: bytes


@dataclass(frozen=True)
class EndOfMessage:
    """The final dot; refusal is set when the session itself cannot let the message pass."""

    size: int
    refusal: Optional[Reply]


@dataclass(frozen=True)
class Rset:
    """RSET."""


@dataclass(frozen=True)
class Noop:
    """NOOP."""


@dataclass(frozen=True)
class Quit:
    """QUIT."""


Command = Union[
    Connect,
    Hello,
    StartTls,
    Authenticate,
    Mail,
    Rcpt,
    Data,
    EndOfMessage,
    Rset,
    Noop,
    Quit,
]


# Arguments.


class Grammar(NamedTuple):
    """What the session's listener allows in arguments."""

    hostname: str  # completes addresses without a domain
    dsn: bool
    smtputf8: bool
    max_size: int  # octets; 0 is without limit


def parse_hello(verb: Verb, argument: Optional[str]) -> Hello:
    """Read the argument of HELO or EHLO. Raises CommandError."""
    if argument is None:
        raise CommandError(answers.name_missing(verb.value))
    if not is_domain(argument):
        raise CommandError(answers.BAD_DOMAIN)
    return Hello(argument, extended=verb is Verb.EHLO)


def is_xtext(value: str) -> bool:
    """Tell whether a value is xtext. Source: RFC 3461 section 4."""
    return _XTEXT.fullmatch(value) is not None


def decode_xtext(value: str) -> str:
    """Undo xtext; the octets may be anything, line ends included. Raises FormatError."""
    if not is_xtext(value):
        raise FormatError(f"{value[:64]!r} is not xtext")
    return decode(_XTEXT_ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), value.encode()))


def _split_options(rest: str) -> list[tuple[str, str, str]]:
    """Split parameters into (keyword in upper case, value, whole)."""
    options = []
    for whole in rest.split(" "):
        if whole:
            keyword, _, value = whole.partition("=")
            options.append((keyword.upper(), value, whole))
    return options


def parse_mail(argument: str, grammar: Grammar) -> Mail:
    """Read the argument of MAIL FROM. Raises CommandError."""
    try:
        path = take_path(argument)
        options = _split_options(path.rest)
        utf8 = grammar.smtputf8 and any(whole.upper() == "SMTPUTF8" for *_, whole in options)
        sender = (
            parse_address(path.address, default_domain=grammar.hostname, utf8=utf8)
            if path.address
            else NULL_ADDRESS
        )
    except AddressError:
        raise CommandError(answers.BAD_SENDER) from None
    values = _mail_options(options, grammar)
    if grammar.max_size and (values.size or 0) > grammar.max_size:
        raise CommandError(answers.ANNOUNCED_TOO_BIG)
    return Mail(
        sender,
        size=values.size,
        eight_bit=values.eight_bit,
        smtputf8=utf8,
        ret=values.ret,
        envid=values.envid,
        auth=values.auth,
    )


@dataclass
class _MailOptions:
    """The parameters of one MAIL, as they are read."""

    size: Optional[int] = None
    eight_bit: bool = False
    ret: Optional[str] = None
    envid: str = ""
    auth: str = ""

    def take(self, keyword: str, value: str) -> bool:
        """Take a parameter that every listener offers; False when there is no such thing."""
        if keyword == "SIZE":
            if not (value.isascii() and value.isdigit() and len(value) <= MAX_SIZE_DIGITS):
                return False
            self.size = int(value)
        elif keyword == "BODY":
            if value.upper() not in ("7BIT", "8BITMIME"):
                return False
            self.eight_bit = value.upper() == "8BITMIME"
        elif keyword == "AUTH":
            self.auth = value
        else:
            return False
        return True

    def take_dsn(self, keyword: str, value: str) -> bool:
        """Take a parameter of the DSN extension."""
        if keyword == "RET":
            # The original lets any other value pass, and keeps nothing of it.
            self.ret = value.upper() if value.upper() in ("HDRS", "FULL") else self.ret
        elif keyword == "ENVID":
            if len(value) > MAX_ENVID:
                raise CommandError(answers.envid_too_long(value))
            if not is_xtext(value):
                return False
            self.envid = value
        else:
            return False
        return True


def _mail_options(options: list[tuple[str, str, str]], grammar: Grammar) -> _MailOptions:
    values = _MailOptions()
    for keyword, value, whole in options:
        known = (
            values.take(keyword, value)
            or (grammar.dsn and values.take_dsn(keyword, value))
            or (grammar.smtputf8 and whole.upper() == "SMTPUTF8")
        )
        if not known:
            raise CommandError(answers.mail_option_unsupported(whole))
    return values


def parse_rcpt(argument: str, grammar: Grammar, *, utf8: bool) -> Rcpt:
    """Read the argument of RCPT TO; utf8 is that of the transaction. Raises CommandError."""
    try:
        path = take_path(argument)
        recipient = parse_address(path.address, default_domain=grammar.hostname, utf8=utf8)
    except AddressError:
        raise CommandError(answers.BAD_RECIPIENT) from None
    notify, orcpt = Notify(0), ""
    for keyword, value, whole in _split_options(path.rest):
        if grammar.dsn and keyword == "NOTIFY":
            notify = _parse_notify(value)
        elif grammar.dsn and keyword == "ORCPT":
            orcpt = _parse_orcpt(value)
        else:
            raise CommandError(answers.rcpt_option_unsupported(whole))
    return Rcpt(recipient, notify, orcpt)


def _parse_notify(value: str) -> Notify:
    """Read NOTIFY; words that mean nothing are passed over, as the original does."""
    notify = Notify(0)
    for word in value.upper().split(","):
        notify |= Notify.__members__.get(word, Notify(0))
    if notify & Notify.NEVER and notify is not Notify.NEVER:
        raise CommandError(answers.NEVER_MIXED)
    return notify


def _parse_orcpt(value: str) -> str:
    address_type, _, address = value.partition(";")
    if (
        len(value) > MAX_ORCPT
        or not address
        or not is_xtext(address)
        or _ADDRESS_TYPE.fullmatch(address_type) is None
    ):
        raise CommandError(answers.BAD_ORCPT)
    return value
