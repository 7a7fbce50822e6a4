"""One resolution: a question put to servers until one of them answers it.

Theory of operation. `Resolver.lookup` is an asker. It looks in the hosts file and in the cache;
then it yields one Send after the other, each a query for one server, and is sent a Reply with
the octets that came back, or None, and the clock. Every server gets its turn, as many rounds as
the settings say. What a server does decides where the query goes next:

    nothing, nonsense, SERVFAIL, REFUSED, ...   the next server
    a truncated answer                          the same server over TCP
    FORMERR or NOTIMP to EDNS                   the same server without EDNS
    records, no such records, no such name      the answer

An alias whose target the answer leaves out is followed with a new query. All of it is bounded
by the numbers below.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, Optional

from smtpd_core.dns import wire
from smtpd_core.dns.wire import Message, Question, Record, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from smtpd_core.dns.cache import Cache
    from smtpd_core.dns.system import Hosts, Server, Settings

FOREVER_SECONDS = 0x7FFFFFFF  # the longest lifetime a record can have
MAX_ALIASES = 12  # CNAME records from the name asked to the records wanted
_FAMILY = {wire.A: 4, wire.AAAA: 6}
_CASE_BITS = 64  # letters whose case is a secret; more make no forger's life harder


class Send(NamedTuple):
    """Put these octets to a server; a datagram that is no answer_to the query is not a reply."""

    server: Server
    query: Message
    octets: bytes
    tcp: bool
    timeout_seconds: int


class Reply(NamedTuple):
    """What came back, without the length of TCP; None when nothing did. now is the clock."""

    octets: Optional[bytes]
    now: int


class Status(enum.Enum):
    """How a resolution ended."""

    FOUND = "found"
    NO_DATA = "no such records"
    NO_NAME = "no such name"
    INVALID = "not a domain name"
    FAILED = "temporary failure"


@dataclass(frozen=True)
class Answer:
    """The records asked for, all of one type; name is the one that has them, aliases resolved."""

    status: Status
    name: str
    records: tuple[Record, ...] = ()
    why: str = ""

    @property
    def texts(self) -> list[str]:
        """The addresses of an A or AAAA answer, the names of a PTR, CNAME or NS answer."""
        return [record.data for record in self.records if isinstance(record.data, str)]


class _Outcome(NamedTuple):
    """What one response says: an answer, how long it holds, and where an alias leads on."""

    answer: Answer
    ttl_seconds: int
    follow: bool = False


@dataclass(frozen=True)
class Resolver:
    """What all resolutions share. draw(n) gives a random number below n."""

    draw: Callable[[int], int]
    settings: Settings
    hosts: Hosts
    cache: Cache

    def lookup(self, name: str, rtype: int, now: int) -> Generator[Send, Reply, Answer]:
        """Find the records of a name; see Status for what else may happen."""
        try:
            name = wire.normal(name)
        except WireError as error:
            return Answer(Status.INVALID, name, why=str(error))
        question = Question(name, rtype)
        local = self._local(question) or self.cache.get(question, now)
        if local is not None:
            return local
        ttl_seconds = FOREVER_SECONDS
        for _ in range(MAX_ALIASES):
            response = yield from self._exchange(Question(name, rtype))
            if isinstance(response, str):
                return Answer(Status.FAILED, name, why=response)
            message, now = response
            outcome = read(message, Question(name, rtype))
            ttl_seconds = min(ttl_seconds, outcome.ttl_seconds)
            if not outcome.follow:
                if outcome.answer.status is not Status.FAILED:
                    self.cache.put(question, outcome.answer, ttl_seconds, now)
                return outcome.answer
            name = outcome.answer.name
        return Answer(Status.FAILED, question.name, why="too many aliases")

    def _local(self, question: Question) -> Optional[Answer]:
        """Answer from the hosts file. A name it knows has no other addresses than those there."""
        family = _FAMILY.get(question.rtype)
        addresses = self.hosts.addresses(question.name) if family is not None else None
        if addresses is None:
            return None
        separator = "." if family == 4 else ":"
        records = tuple(
            Record(question.name, question.rtype, 0, address)
            for address in addresses
            if separator in address
        )
        status = Status.FOUND if records else Status.NO_DATA
        return Answer(status, question.name, records)

    def _exchange(self, question: Question) -> Generator[Send, Reply, tuple[Message, int] | str]:
        """Ask the servers in turn; give the first real answer, or why there is none."""
        servers = self.settings.servers
        if self.settings.rotate:
            first = self.draw(len(servers))
            servers = servers[first:] + servers[:first]
        why = "no server"
        for server in servers * self.settings.attempts:
            result = yield from self._ask(server, question)
            if not isinstance(result, str):
                return result
            why = f"{server.address}: {result}"
        return why

    def _ask(
        self, server: Server, question: Question
    ) -> Generator[Send, Reply, tuple[Message, int] | str]:
        """Ask one server, once more over TCP or without EDNS where that is the remedy."""
        tcp, edns = self.settings.tcp_only, self.settings.edns
        why = "no answer"
        for _ in range(3):  # the first try and each remedy
            asked = wire.query(
                question,
                self.draw(0x10000),
                case_bits=self.draw(1 << _CASE_BITS),
                edns=edns,
            )
            octets = wire.encode(asked)
            reply = yield Send(server, asked, octets, tcp, self.settings.timeout_seconds)
            if reply.octets is None:
                return "no answer over TCP" if tcp else "no answer"
            try:
                message = wire.decode(reply.octets)
            except WireError as error:
                return str(error)
            if not wire.answers_to(asked, message):
                return "an answer to something else"
            if message.truncated and not tcp:
                tcp = True
            elif message.rcode in (wire.FORMERR, wire.NOTIMP) and edns:
                edns = False
            elif message.truncated:
                return "a truncated answer over TCP"
            elif message.rcode in (wire.NOERROR, wire.NXDOMAIN):
                return message, reply.now
            else:
                return _rcode_text(message.rcode)
            why = _rcode_text(message.rcode)
        return why


def _rcode_text(rcode: int) -> str:
    return wire.RCODES[rcode] if rcode < len(wire.RCODES) else f"response code {rcode}"


def read(message: Message, question: Question) -> _Outcome:
    """Find the answer to a question in a response, going along its aliases.

    Only records of the names on the way count; whatever else a server sends is not looked at.
    """
    owned: dict[str, list[Record]] = {}
    for record in message.answers:
        if record.rclass == wire.IN:
            owned.setdefault(wire.fold(record.name), []).append(record)
    name = question.name
    ttl_seconds = FOREVER_SECONDS
    for _ in range(MAX_ALIASES):
        records = owned.get(wire.fold(name), [])
        wanted = tuple(record for record in records if record.rtype == question.rtype)
        if wanted:
            ttl_seconds = min(ttl_seconds, *(record.ttl for record in wanted))
            return _Outcome(Answer(Status.FOUND, name, wanted), ttl_seconds)
        alias = next((record for record in records if record.rtype == wire.CNAME), None)
        if alias is None:
            break
        assert isinstance(alias.data, str)
        name = alias.data
        ttl_seconds = min(ttl_seconds, alias.ttl)
    else:
        return _Outcome(Answer(Status.FAILED, name, why="too many aliases"), 0)
    negative = _negative_seconds(message)
    if message.rcode == wire.NXDOMAIN:
        return _Outcome(Answer(Status.NO_NAME, name), min(ttl_seconds, negative))
    if name != question.name and negative == 0:
        return _Outcome(Answer(Status.NO_DATA, name), ttl_seconds, follow=True)
    return _Outcome(Answer(Status.NO_DATA, name), min(ttl_seconds, negative))


def _negative_seconds(message: Message) -> int:
    """How long the absence of records holds; 0 without an SOA. Source: RFC 2308 section 5."""
    return max(
        (
            min(record.ttl, record.data.minimum)
            for record in message.authority
            if isinstance(record.data, wire.Authority)
        ),
        default=0,
    )
