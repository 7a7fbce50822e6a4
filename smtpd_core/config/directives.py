"""The statements that set something for the whole server.

Differs from the original in these points: a name of `pki` or `ca` may have 255 octets and not
only 64; a negative limit is refused, where the original makes a huge one of it; a `bounce
warn-interval` past the fourth is told to be left out; a delay that is refused is shown whole, where
the original has cut its unit off.

Source: smtpd.conf(5).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Dict, FrozenSet, Iterator

from smtpd_core.config.lexer import NUMBER, STRING
from smtpd_core.config.model import Ca, Dhe, Pki
from smtpd_core.config.quantities import QuantityError, parse_delay, parse_size
from smtpd_core.config.settings import DAY_SECONDS, SrsSettings
from smtpd_core.text import decode

if TYPE_CHECKING:
    from smtpd_core.config.draft import Draft
    from smtpd_core.config.tokens import TokenStream

MAX_WARN_INTERVALS = 4  # delays that a bounce is told about
MAX_FILES_OPEN = 16  # includes inside includes
MAX_FILES = 256  # includes in all: files that include files twice grow fast
MAX_FILE = 4 << 20  # octets: far more than a configuration, less than a mistake costs

_NAME = re.compile(r"\*|(?!-)(?=.{0,254}\Z)[A-Za-z0-9_-]{0,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")

_SMTP_LIMITS = frozenset({"max-rcpt", "max-mails"})
_MDA_LIMITS = frozenset(
    {"max-session", "max-session-per-user", "task-lowat", "task-hiwat", "task-release"}
)
_SCHEDULER_LIMITS = frozenset(
    {"max-inflight", "max-evp-batch-size", "max-msg-batch-size", "max-schedule"}
)
_MTA_LIMITS = frozenset(
    {
        "max-conn-per-host",
        "max-conn-per-route",
        "max-conn-per-source",
        "max-conn-per-connector",
        "max-conn-per-relay",
        "max-conn-per-domain",
        "conn-delay-host",
        "conn-delay-route",
        "conn-delay-source",
        "conn-delay-connector",
        "conn-delay-relay",
        "conn-delay-domain",
        "reconn-delay-route",
        "session-mail-max",
        "session-transaction-delay",
        "session-keepalive",
        "max-failures-per-session",
        "task-hiwat",
        "task-lowat",
        "task-release",
    }
)


def include(tokens: TokenStream, draft: Draft) -> None:
    """Read an `include` statement and go on in its file."""
    name = tokens.string()
    reason = ""
    octets = b""
    draft.included += 1
    if tokens.lexer.depth > MAX_FILES_OPEN or draft.included > MAX_FILES:
        reason = "too many files are included"
    else:
        try:
            octets = draft.read(name)
        except (OSError, ValueError) as error:  # ValueError: no such name can exist
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
        if len(octets) > MAX_FILE:
            reason = f"more than {MAX_FILE} octets"
    if reason:
        raise tokens.refuse(f"failed to include file {name}", f"{name}: {reason}")
    tokens.lexer.include(name, decode(octets))


def macro(tokens: TokenStream, draft: Draft) -> None:  # noqa: ARG001 - all statements have it
    """Read `name = value`, from the sign on if the name was taken."""
    name = tokens.string()
    tokens.expect("=")
    value = tokens.string()
    if any(char.isspace() for char in name):
        raise tokens.refuse("macro name cannot contain whitespace")
    tokens.lexer.define(name, value)


def admd(tokens: TokenStream, draft: Draft) -> None:
    """Read an `admd` statement."""
    name = tokens.string()
    if not (name.isascii() and name.isprintable()):
        raise tokens.refuse("not a valid admd")
    draft.admd = name


def bounce(tokens: TokenStream, draft: Draft) -> None:
    """Read `bounce warn-interval` with its delays."""
    tokens.expect("warn-interval")
    delays = [_delay(tokens, "invalid bounce delay: {}")]
    while tokens.accept(","):
        delays.append(_delay(tokens, "invalid bounce delay: {}"))
    if len(delays) > MAX_WARN_INTERVALS:
        tokens.warn(f"only the first {MAX_WARN_INTERVALS} delays are used")
    draft.bounce_warn_seconds = tuple(delays[:MAX_WARN_INTERVALS])


def ca(tokens: TokenStream, draft: Draft) -> None:
    """Read a `ca` statement."""
    name = _host_name(tokens)
    draft.cas.setdefault(name, Ca(name, tokens.statement, ""))  # its uses are not blamed, too
    tokens.expect("cert")
    draft.cas[name] = Ca(name, tokens.statement, tokens.string())


def pki(tokens: TokenStream, draft: Draft) -> None:
    """Read a `pki` statement; several of one name add up."""
    name = _host_name(tokens)
    read = draft.pkis.setdefault(name, Pki(name, tokens.statement))
    while tokens.peek() in ("cert", "key", "dhe"):
        option = tokens.take().kind
        value = tokens.string()
        if option == "cert":
            read = replace(read, cert=value)
        elif option == "key":
            read = replace(read, key=value)
        else:
            read = replace(read, dhe=_dhe(tokens, value))
        draft.pkis[name] = read


def mda(tokens: TokenStream, draft: Draft) -> None:
    """Read `mda limit` or `mda wrapper`."""
    if tokens.accept("wrapper"):
        name = tokens.string()
        command = tokens.string()
        if name in draft.wrappers:
            raise tokens.refuse(f"mda wrapper already declared with that name: {name}")
        draft.wrappers[name] = command
        return
    tokens.expect("limit")
    # The original says "scheduler" here, too.
    for limit in _limits(tokens, _MDA_LIMITS, "invalid scheduler limit keyword: {}"):
        draft.mda = replace(draft.mda, **limit)


def mta(tokens: TokenStream, draft: Draft) -> None:
    """Read `mta max-deferred` or `mta limit`, the latter for a domain or for all others."""
    if tokens.accept("max-deferred"):
        draft.mta_max_deferred = tokens.number()
        return
    tokens.expect("limit")
    domain = None
    if tokens.accept("for"):
        tokens.expect("domain")
        domain = tokens.string()
    limits = draft.mta if domain is None else draft.mta_domains.get(domain, draft.mta)
    while tokens.peek() in ("inet4", "inet6", STRING):
        if tokens.peek() == STRING:
            for limit in _limits(tokens, _MTA_LIMITS, "invalid mta limit keyword: {}"):
                limits = replace(limits, **limit)
        else:
            limits = replace(limits, family=int(tokens.take().kind[-1]))
    if domain is None:
        draft.mta = limits
    else:
        draft.mta_domains[domain] = limits


def queue(tokens: TokenStream, draft: Draft) -> None:
    """Read a `queue` statement."""
    if tokens.accept("compression"):
        draft.queue = replace(draft.queue, compression=True)
    elif tokens.accept("encryption"):
        key = tokens.optional_string()
        if key is not None and key.lower() in ("stdin", "-"):
            key = "stdin"
        draft.queue = replace(
            draft.queue, encryption=True, key=draft.queue.key if key is None else key
        )
    else:
        tokens.expect("ttl")
        ttl_seconds = _delay(tokens, "invalid ttl delay: {}")
        draft.queue = replace(draft.queue, ttl_seconds=ttl_seconds)


def scheduler(tokens: TokenStream, draft: Draft) -> None:
    """Read `scheduler limit`."""
    tokens.expect("limit")
    for limit in _limits(tokens, _SCHEDULER_LIMITS, "invalid scheduler limit keyword: {}"):
        draft.scheduler = replace(draft.scheduler, **limit)


def smtp(tokens: TokenStream, draft: Draft) -> None:
    """Read an `smtp` statement."""
    if tokens.accept("limit"):
        for limit in _limits(tokens, _SMTP_LIMITS, "invalid session limit keyword: {}"):
            draft.smtp = replace(draft.smtp, limits=replace(draft.smtp.limits, **limit))
    elif tokens.accept("ciphers"):
        draft.smtp = replace(draft.smtp, ciphers=tokens.string())
    elif tokens.accept("max-message-size"):
        draft.smtp = replace(draft.smtp, max_message_size=_size(tokens))
    else:
        tokens.expect("sub-addr-delim")
        draft.smtp = replace(draft.smtp, sub_addr_delim=_sub_addr_delim(tokens))


def srs(tokens: TokenStream, draft: Draft) -> None:
    """Read an `srs` statement."""
    if tokens.accept("key"):
        backup = tokens.accept("backup")
        key = tokens.string()
        draft.srs = replace(draft.srs, backup_key=key) if backup else replace(draft.srs, key=key)
        return
    tokens.expect("ttl")
    draft.srs = _srs_ttl(tokens, draft.srs)


def _srs_ttl(tokens: TokenStream, settings: SrsSettings) -> SrsSettings:
    text = tokens.string()
    try:
        ttl_seconds = parse_delay(text)
    except QuantityError:
        raise tokens.refuse(f'ttl delay "{text}" is invalid') from None
    if ttl_seconds < DAY_SECONDS:
        raise tokens.refuse(f'ttl delay "{text}" is too short')
    return replace(settings, ttl_seconds=ttl_seconds - ttl_seconds % DAY_SECONDS)


def _host_name(tokens: TokenStream) -> str:
    name = tokens.string()
    if not _NAME.fullmatch(name):
        raise tokens.refuse(f"not a valid domain name: {name}")
    return name.lower()


def _dhe(tokens: TokenStream, word: str) -> Dhe:
    try:
        return Dhe(word.lower())
    except ValueError:
        raise tokens.refuse(f"invalid DHE keyword: {word}") from None


def _delay(tokens: TokenStream, message: str) -> int:
    text = tokens.string()
    try:
        return parse_delay(text)
    except QuantityError:
        raise tokens.refuse(message.format(text)) from None


def _size(tokens: TokenStream) -> int:
    if tokens.peek() == NUMBER:
        number = tokens.take().number
        if number < 0:
            raise tokens.refuse(f"invalid size: {number}")
        return number
    text = tokens.string()
    try:
        return parse_size(text)
    except QuantityError:
        raise tokens.refuse(f"invalid size: {text}") from None


def _sub_addr_delim(tokens: TokenStream) -> str:
    delimiter = tokens.string()
    if len(delimiter) != 1:
        raise tokens.refuse("subaddressing-delimiter must be one character")
    if delimiter in " @" or not (delimiter.isascii() and delimiter.isprintable()):
        raise tokens.refuse("sub-addr-delim uses invalid character")
    return delimiter


def _limits(
    tokens: TokenStream, keywords: FrozenSet[str], message: str
) -> Iterator[Dict[str, int]]:
    """Read limits, each a keyword and a number; give each as a field of the model."""
    while tokens.peek() == STRING:
        keyword = tokens.string()
        number = tokens.number()
        if keyword not in keywords:
            raise tokens.refuse(message.format(keyword))
        yield {keyword.replace("-", "_"): number}
