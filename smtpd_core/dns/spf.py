"""SPF records: their terms, and the walk from a domain to all networks that may send for it.

The walk is that of `smtpctl spf walk`: it does not judge anything. Lookups run side by side, so
its asker yields the questions to put now, perhaps none, and is sent one finished lookup, of
those put so far: the first one that is done. Source: RFC 7208 for the syntax; OpenSMTPD 6.4 and
later for what the walk does with it.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import NamedTuple, Optional

from smtpd_core.dns import wire
from smtpd_core.dns.wire import Question, Record
from smtpd_core.errors import FormatError
from smtpd_core.text import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

VERSION = "v=spf1 "
MAX_RECORD = 4095  # octets, as in the original
MAX_LOOKUPS = 5_000  # in one walk: records that include ever more records
MIN_LINE = 2  # characters of a line that names a domain

_NETWORK = re.compile(r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?")
_BITS = re.compile(r"[0-9]{1,3}")
_TERM = re.compile(
    r"(?P<qualifier>[-~+?]?)(?P<name>[^:=/]*)(?:(?P<mark>[:=])(?P<value>.*)|(?P<bits>/.*))?",
    re.DOTALL,
)


class SpfError(FormatError):
    """A text that is no SPF record."""


class Term(NamedTuple):
    """A mechanism or a modifier; mark is `:` or `=` or empty, bits what follows `a/` directly."""

    text: str
    qualifier: str
    name: str
    mark: str = ""
    value: str = ""
    bits: str = ""


class Target(NamedTuple):
    """A domain whose addresses are meant, and the prefix lengths to put behind them."""

    domain: str
    bits4: Optional[int] = None
    bits6: Optional[int] = None


class Looked(NamedTuple):
    """A finished lookup; without records when it failed."""

    question: Question
    records: tuple[Record, ...] = ()


class Walked(NamedTuple):
    """Networks in the order of the answers, and what to warn of."""

    networks: list[str]
    warnings: list[str]


def parse_record(record: str) -> list[Term]:
    """Read the terms of a record; a dot at the end of a term is left out.

    Raises SpfError for a text that is no SPF record.
    """
    if record[: len(VERSION)].lower() != VERSION or len(record) > MAX_RECORD:
        raise SpfError(f"{record[:40]!r} is no SPF record")
    terms = []
    for word in record[len(VERSION) :].split(" "):
        text = word[:-1] if word[-1:] == "." else word
        match = _TERM.fullmatch(text)
        assert match is not None  # it matches every text
        if text:
            qualifier, name, mark, value, bits = match.groups(default="")
            terms.append(Term(text, qualifier, name.lower(), mark, value, bits))
    return terms


def parse_target(value: str) -> Target:
    """Read `domain[/bits4[/bits6]]`, and the `/bits4//bits6` of the RFC; SpfError otherwise."""
    domain, slash, bits = value.partition("/")
    if not slash:
        return Target(domain)
    text4, slash, text6 = bits.partition("/")
    if text4 and text6.startswith("/"):
        text6 = text6[1:]
    return Target(
        domain,
        _bits(text4, 32) if text4 else None,
        _bits(text6, 128) if slash else None,
    )


def _bits(text: str, most: int) -> int:
    if not _BITS.fullmatch(text) or int(text) > most:
        raise SpfError(f"{text[:40]!r} is no prefix length")
    return int(text)


def _is_network(text: str, version: int) -> bool:
    if not _NETWORK.fullmatch(text):
        return False
    try:
        return ip_network(text, strict=False).version == version
    except ValueError:
        return False


def walk(lines: Iterable[str]) -> Generator[tuple[Question, ...], Looked, Walked]:
    """Find all networks for the domains in some lines; those of less than two letters are none."""
    walker = _Walker()
    for line in lines:
        domain = line.rstrip()
        if len(domain) >= MIN_LINE:
            walker.ask(Target(domain), wire.TXT)
    while walker.waiting:
        questions, walker.questions = tuple(walker.questions), []
        looked = yield questions
        for record in looked.records:
            for target in walker.waiting.get(looked.question, ()):
                walker.read(record, target)
        walker.waiting.pop(looked.question, None)
    return Walked(walker.networks, walker.warnings)


class _Walker:
    """One walk under way."""

    def __init__(self) -> None:
        self.networks: list[str] = []
        self.warnings: list[str] = []
        self.questions: list[Question] = []  # not put yet
        self.waiting: dict[Question, list[Target]] = {}  # put, or about to be
        self._seen: set[str] = set()
        self._lookups = 0

    def ask(self, target: Target, *rtypes: int) -> None:
        """Put questions about a domain, unless the walk has become too long."""
        if "%" in target.domain:
            name = "".join(chr(o) if 0x20 <= o < 0x7F else "?" for o in encode(target.domain))
            self.warnings.append(f"lookup_record: {name} contains macros and can't be resolved")
            return
        for rtype in rtypes:
            self._lookups += 1
            if self._lookups > MAX_LOOKUPS:
                if self._lookups == MAX_LOOKUPS + 1:
                    self.warnings.append(f"more than {MAX_LOOKUPS} lookups, the rest is left out")
                return
            question = Question(target.domain, rtype)
            if question not in self.waiting:
                self.questions.append(question)
            self.waiting.setdefault(question, []).append(target)

    def read(self, record: Record, target: Target) -> None:
        """Go on from one record."""
        if isinstance(record.data, wire.Exchange):
            if record.data.host != wire.ROOT:
                self.ask(target._replace(domain=record.data.host), wire.A, wire.AAAA)
        elif record.rtype in (wire.A, wire.AAAA) and isinstance(record.data, str):
            bits = target.bits4 if record.rtype == wire.A else target.bits6
            self.networks.append(record.data if bits is None else f"{record.data}/{bits}")
        elif record.rtype == wire.TXT and isinstance(record.data, tuple):
            strings = (part for part in record.data if isinstance(part, bytes))
            self._read_terms(decode(b"".join(strings)), record.name)

    def _read_terms(self, text: str, own: str) -> None:
        try:
            terms = parse_record(text)
        except SpfError:
            return
        for term in terms:
            if term.text in self._seen:
                continue  # the guard against records that include each other
            self._seen.add(term.text)
            if term.qualifier not in ("-", "~"):
                try:
                    self._follow(term, own)
                except SpfError:
                    continue

    def _follow(self, term: Term, own: str) -> None:
        kind = term.name + term.mark
        if term.bits:
            return
        if kind in ("ip4:", "ip6:"):
            if _is_network(term.value, int(term.name[2])):
                self.networks.append(term.value)
        elif kind in ("a", "a:"):
            target = parse_target(term.value) if term.mark else Target(own)
            self.ask(target, wire.A, wire.AAAA)
        elif kind in ("mx", "mx:"):
            self.ask(parse_target(term.value) if term.mark else Target(own), wire.MX)
        elif kind == "exists:":
            self.ask(Target(term.value), wire.A)
        elif kind in ("include:", "redirect="):
            self.ask(Target(term.value), wire.TXT)
