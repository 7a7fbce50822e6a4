"""DNS messages: octets to values and back.

Names are text in the form of zone files, without the last dot; the root is ".". Octets of a label
that are not printable ASCII, its dots and its backslashes are escaped, so that no name can look
like another one. Source: RFC 1035 sections 4 and 5.1; RFC 6891 for EDNS; RFC 3596; RFC 2782.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Callable, NamedTuple, Optional, Union

from smtpd_core.cursor import Cursor, CursorError
from smtpd_core.errors import FormatError

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")

ROOT = "."
UDP_SIZE = 1232  # passes every path without fragments (DNS flag day 2020)
MAX_PACKET = 65535  # the length before a message over TCP has two octets
MAX_NAME = 255  # octets of a name on the wire
MAX_LABEL = 63
MAX_JUMPS = 32  # compression pointers in one name: ours never needs more than a few
MAX_RECORDS = 512  # per message: one full of long compressed names then costs some 60 ms
_MAX_TTL = 0x7FFFFFFF  # RFC 2181 section 8: a greater one counts as 0

_LETTER = re.compile(r"[A-Za-z]")
_ESCAPE = re.compile(r"\\([0-9]{3})|\\([^0-9])|([^\\])", re.DOTALL)
_PLAIN = re.compile(rb"[!-\-/-\[\]-~]*")  # printable, without blank, dot and backslash


class WireError(FormatError):
    """Octets that are no DNS message, or a name that has no place in one."""


class Question(NamedTuple):
    """What is asked: a name and the type of its records, in class IN."""

    name: str
    rtype: int


class Exchange(NamedTuple):
    """The data of an MX record."""

    preference: int
    host: str


class Service(NamedTuple):
    """The data of an SRV record."""

    priority: int
    weight: int
    port: int
    target: str


class Authority(NamedTuple):
    """The data of an SOA record."""

    primary: str
    mailbox: str
    serial: int
    refresh: int
    retry: int
    expire: int
    minimum: int


# A and AAAA hold the address as text; NS, CNAME and PTR a name; TXT its strings; a type we do not
# know, and every class but IN, the octets.
Data = Union[str, Exchange, Service, Authority, tuple[bytes, ...], bytes]


class Record(NamedTuple):
    """One resource record; see Data."""

    name: str
    rtype: int
    ttl: int
    data: Data
    rclass: int = IN


@dataclass(frozen=True)
class Message:
    """A query or a response. udp_size is None without EDNS."""

    ident: int
    question: Optional[Question]
    response: bool = False
    opcode: int = 0
    authoritative: bool = False
    truncated: bool = False
    recursion_desired: bool = True
    recursion_available: bool = False
    rcode: int = NOERROR
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    udp_size: Optional[int] = None


def query(question: Question, ident: int, *, case_bits: int = 0, edns: bool = True) -> Message:
    """Compose a recursive query.

    Bit n of case_bits makes the n-th letter of the name a capital: with a random number there, a
    forged response has more to guess than the 16 bits of ident (draft-vixie-dnsext-dns0x20).
    """
    name = mix_case(normal(question.name), case_bits)
    return Message(ident, Question(name, question.rtype), udp_size=UDP_SIZE if edns else None)


def mix_case(name: str, case_bits: int) -> str:
    """Spell the n-th letter of a name as a capital where bit n is set, small where it is not."""
    count = 0

    def spell(match: re.Match[str]) -> str:
        nonlocal count
        letter = match.group()
        capital = case_bits >> count & 1
        count += 1
        return letter.upper() if capital else letter.lower()

    return _LETTER.sub(spell, name)


def answers_to(asked: Message, received: Message) -> bool:
    """Tell whether a response belongs to a query: same id, same question, same capitals.

    A server too old to understand a query may leave the question out of its complaint.
    """
    if not received.response or received.ident != asked.ident or received.opcode != asked.opcode:
        return False
    if received.question is None:
        return received.rcode in (FORMERR, NOTIMP) and not received.answers
    return received.question == asked.question


def fold(name: str) -> str:
    """Give the form of a normal name that all its spellings in capitals share."""
    return name.lower()


def normal(name: str) -> str:
    """Give a name the spelling it has in messages: no last dot, no needless escape.

    Raises WireError for what no name can be.
    """
    return _name(Cursor(encode_name(name)))


def encode_name(name: str) -> bytes:
    """Encode a name, uncompressed. Raises WireError for what no name can be."""
    if name == ROOT:
        return b"\0"
    encoded = bytearray()
    for label in _split(name):
        if not 0 < len(label) <= MAX_LABEL:
            raise WireError(f"{name[:64]!r}: a label of {len(label)} octets")
        encoded.append(len(label))
        encoded += label
    encoded.append(0)
    if len(encoded) > MAX_NAME:
        raise WireError(f"{name[:64]!r}...: a name of {len(encoded)} octets")
    return bytes(encoded)


def _split(name: str) -> list[bytes]:
    if not name or not name.isascii() or len(name) > 4 * MAX_NAME:
        raise WireError(f"{name[:64]!r} is not a domain name")
    if "\\" not in name:
        labels = name.encode("ascii").split(b".")
    else:
        labels = [b""]
        position = 0
        while position < len(name):
            match = _ESCAPE.match(name, position)
            if match is None or (match.group(1) and int(match.group(1)) > 0xFF):
                raise WireError(f"{name[:64]!r}: a bad escape")
            position = match.end()
            code, escaped, plain = match.groups()
            if plain == ".":
                labels.append(b"")
            else:
                labels[-1] += bytes([int(code)]) if code else (escaped or plain).encode("ascii")
    if len(labels) > 1 and not labels[-1]:
        labels.pop()
    return labels


def _label_text(label: bytes) -> str:
    if _PLAIN.fullmatch(label):
        return label.decode("ascii")
    return "".join(
        chr(octet)
        if _PLAIN.fullmatch(bytes([octet]))
        else f"\\{chr(octet)}"
        if octet in b".\\"
        else f"\\{octet:03d}"
        for octet in label
    )


def _name(cursor: Cursor) -> str:
    """Read a name; a pointer in it leads backwards only, so that the walk always ends."""
    labels: list[str] = []
    length = 1
    jumps = 0
    start = cursor.position
    reader = cursor
    while True:
        size = reader.u8()
        if size >= 0xC0:
            target = (size & 0x3F) << 8 | reader.u8()
            jumps += 1
            if target >= start or jumps > MAX_JUMPS:
                raise WireError(
                    f"octet {reader.position - 2}: a name that points to octet {target}"
                )
            start = target
            reader = Cursor(cursor.octets, target)
            continue
        if size > MAX_LABEL:
            raise WireError(f"octet {reader.position - 1}: label type {size >> 6}")
        if size == 0:
            return ".".join(labels) or ROOT
        length += size + 1
        if length > MAX_NAME:
            raise WireError(f"octet {cursor.position}: a name of more than {MAX_NAME} octets")
        labels.append(_label_text(reader.take(size)))


def _strings(cursor: Cursor) -> tuple[bytes, ...]:
    strings = []
    while cursor.remaining:
        strings.append(cursor.take(cursor.u8()))
    return tuple(strings)


def _authority(cursor: Cursor) -> Authority:
    primary, mailbox = _name(cursor), _name(cursor)
    return Authority(
        primary, mailbox, cursor.u32(), cursor.u32(), cursor.u32(), cursor.u32(), cursor.u32()
    )


_DECODE: dict[int, Callable[[Cursor], Data]] = {
    A: lambda cursor: str(IPv4Address(cursor.take(4))),
    AAAA: lambda cursor: str(IPv6Address(cursor.take(16))),
    NS: _name,
    CNAME: _name,
    PTR: _name,
    MX: lambda cursor: Exchange(cursor.u16(), _name(cursor)),
    SRV: lambda cursor: Service(cursor.u16(), cursor.u16(), cursor.u16(), _name(cursor)),
    TXT: _strings,
    SOA: _authority,
}


def _record(cursor: Cursor) -> Record:
    name = _name(cursor)
    rtype, rclass, ttl = cursor.u16(), cursor.u16(), cursor.u32()
    data = cursor.part(cursor.u16())
    decode_data = _DECODE.get(rtype) if rclass == IN else None
    if decode_data is None:
        return Record(name, rtype, ttl, data.take(data.remaining), rclass)
    value = decode_data(data)
    data.finish()
    return Record(name, rtype, ttl if ttl <= _MAX_TTL else 0, value, rclass)


def decode(packet: bytes) -> Message:
    """Read a message. Raises WireError, and nothing else, whatever the octets.

    The records of a truncated message are not looked at: it will be asked again over TCP.
    """
    try:
        return _decode(packet)
    except CursorError as error:
        raise WireError(f"DNS message: {error}") from error


def _decode(packet: bytes) -> Message:
    if len(packet) > MAX_PACKET:
        raise WireError(f"a DNS message of {len(packet)} octets")
    cursor = Cursor(packet)
    ident, flags = cursor.u16(), cursor.u16()
    questions = cursor.u16()
    counts = (cursor.u16(), cursor.u16(), cursor.u16())
    if questions > 1 or sum(counts) > MAX_RECORDS:
        raise WireError(f"a DNS message with {questions} questions and {sum(counts)} records")
    question = None
    if questions:
        name, rtype, rclass = _name(cursor), cursor.u16(), cursor.u16()
        if rclass != IN:
            raise WireError(f"a question of class {rclass}")
        question = Question(name, rtype)
    truncated = bool(flags & 0x0200)
    sections: list[list[Record]] = [[], [], []]
    if not truncated:
        for section, count in zip(sections, counts):
            section += [_record(cursor) for _ in range(count)]
    options = [record for record in sections[2] if record.rtype == OPT]
    if len(options) > 1:
        raise WireError("a DNS message with two OPT records")
    rcode = flags & 0x0F
    if options:
        rcode |= options[0].ttl >> 24 << 4
    return Message(
        ident=ident,
        question=question,
        response=bool(flags & 0x8000),
        opcode=flags >> 11 & 0x0F,
        authoritative=bool(flags & 0x0400),
        truncated=truncated,
        recursion_desired=bool(flags & 0x0100),
        recursion_available=bool(flags & 0x0080),
        rcode=rcode,
        answers=tuple(sections[0]),
        authority=tuple(sections[1]),
        additional=tuple(record for record in sections[2] if record.rtype != OPT),
        udp_size=options[0].rclass if options else None,
    )


def _encode_data(rtype: int, data: Data) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        if rtype == A:
            return IPv4Address(data).packed
        return IPv6Address(data).packed if rtype == AAAA else encode_name(data)
    if isinstance(data, Exchange):
        return _numbers(2, data[:1]) + encode_name(data.host)
    if isinstance(data, Service):
        return _numbers(2, data[:3]) + encode_name(data.target)
    if isinstance(data, Authority):
        return encode_name(data.primary) + encode_name(data.mailbox) + _numbers(4, data[2:])
    if any(len(string) > 0xFF for string in data):
        raise WireError("a string of more than 255 octets in a TXT record")
    return b"".join(bytes([len(string)]) + string for string in data)


def _numbers(size: int, numbers: tuple[int, ...]) -> bytes:
    return b"".join(number.to_bytes(size, "big") for number in numbers)


def _encode_record(record: Record) -> bytes:
    data = _encode_data(record.rtype, record.data)
    return (
        encode_name(record.name)
        + _numbers(2, (record.rtype, record.rclass))
        + record.ttl.to_bytes(4, "big")
        + len(data).to_bytes(2, "big")
        + data
    )


def encode(message: Message) -> bytes:
    """Give the octets of a message, without compression. Raises WireError for a bad name."""
    flags = (
        message.response << 15
        | message.opcode << 11
        | message.authoritative << 10
        | message.truncated << 9
        | message.recursion_desired << 8
        | message.recursion_available << 7
        | message.rcode & 0x0F
    )
    additional = message.additional
    if message.udp_size is not None:
        options = Record(ROOT, OPT, message.rcode >> 4 << 24, b"", message.udp_size)
        additional = (*additional, options)
    question = message.question
    sections = (message.answers, message.authority, additional)
    pieces = [_numbers(2, (message.ident, flags, int(question is not None), *map(len, sections)))]
    if question is not None:
        pieces.append(encode_name(question.name) + _numbers(2, (question.rtype, IN)))
    pieces += [_encode_record(record) for section in sections for record in section]
    return b"".join(pieces)
