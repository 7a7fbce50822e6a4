"""A DNS server on loopback that answers from a dict, and misbehaves where it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Optional, Union

from smtpd_core.dns import wire
from smtpd_core.dns.wire import Exchange, Message, Question, Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

# What a query brings: the datagrams (or the one TCP message) to send back.
Behaviour = Callable[["DnsServer", Message, bool], "Iterable[bytes]"]
SOA = Record("example", wire.SOA, 300, wire.Authority("ns.example", "h.example", 1, 1, 1, 1, 300))
_BOTH_TRIES = 50  # ports to try until one is free for datagrams and connections


class DnsServer:
    """Records by name and type; `behaviours` take over for single names."""

    def __init__(self) -> None:
        self.records: dict[Question, list[Record]] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.asked: list[tuple[str, int, bool]] = []  # name in small letters, type, TCP
        self.sources: list[int] = []
        self.port = 0
        self.delay_seconds = 0.0  # before each datagram

    def add(self, name: str, rtype: int, *data: Union[str, Exchange], ttl: int = 60) -> None:
        """Add records of a name."""
        known = self.records.setdefault(Question(name, rtype), [])
        known += [Record(name, rtype, ttl, each) for each in data]

    def mx(self, name: str, *hosts: tuple[int, str]) -> None:
        """Add MX records."""
        self.add(name, wire.MX, *(Exchange(*host) for host in hosts))

    @property
    def resolv_conf(self) -> str:
        """Give a resolv.conf that leads here and to nobody else."""
        return f"nameserver [127.0.0.1]:{self.port}\noptions timeout:1 attempts:1\n"

    def response(self, query: Message) -> Message:
        """Compose the honest answer, aliases followed."""
        assert query.question is not None
        name, rtype = query.question.name.lower(), query.question.rtype
        found: list[Record] = []
        for _ in range(20):
            here = self.records.get(Question(name, rtype), [])
            alias = self.records.get(Question(name, wire.CNAME), [])
            found += here or alias
            if here or not alias:
                break
            name = str(alias[0].data)
        known = any(question.name == name for question in self.records)
        return Message(
            query.ident,
            query.question,
            response=True,
            recursion_available=True,
            rcode=wire.NOERROR if known else wire.NXDOMAIN,
            answers=tuple(found),
            authority=() if found else (SOA,),
            udp_size=query.udp_size,
        )

    def answer(self, octets: bytes, *, tcp: bool) -> list[bytes]:
        """Answer one query."""
        query = wire.decode(octets)
        assert query.question is not None
        name = query.question.name.lower()
        self.asked.append((name, query.question.rtype, tcp))
        behaviour = self.behaviours.get(name, honest)
        return list(behaviour(self, query, tcp))


def honest(server: DnsServer, query: Message, _tcp: bool) -> Sequence[bytes]:
    """Answer what is so."""
    return [wire.encode(server.response(query))]


def truncated(server: DnsServer, query: Message, tcp: bool) -> Sequence[bytes]:
    """Answer over TCP only."""
    response = server.response(query)
    if not tcp:
        response = replace(response, answers=(), truncated=True)
    return [wire.encode(response)]


def silent(_server: DnsServer, _query: Message, _tcp: bool) -> Sequence[bytes]:
    """Say nothing."""
    return []


def refusing(rcode: int) -> Behaviour:
    """Answer with a response code."""

    def behave(_server: DnsServer, query: Message, _tcp: bool) -> Sequence[bytes]:
        return [wire.encode(Message(query.ident, query.question, response=True, rcode=rcode))]

    return behave


def lying(lies: int = 3, *, then_true: bool = True) -> Behaviour:
    """Send forgeries first: a wrong id, wrong capitals, another name, garbage."""

    def behave(server: DnsServer, query: Message, _tcp: bool) -> Sequence[bytes]:
        assert query.question is not None
        name, rtype = query.question
        fake = Record(name, wire.A, 60, "203.0.113.66")
        true = server.response(query)
        bad = [
            wire.encode(replace(true, ident=query.ident ^ 1, answers=(fake,))),
            wire.encode(replace(true, question=Question(name.swapcase(), rtype), answers=(fake,))),
            wire.encode(replace(true, question=Question("x." + name, rtype), answers=(fake,))),
            b"\xff" * 7,
            wire.encode(replace(query, answers=(fake,))),  # a query, not a response
        ]
        sent = [bad[index % len(bad)] for index in range(lies)]
        return [*sent, wire.encode(true)] if then_true else sent

    return behave


@contextlib.asynccontextmanager
async def serving(server: Optional[DnsServer] = None) -> AsyncIterator[DnsServer]:
    """Serve on one free port, datagrams and connections, until the block ends."""
    server = server or DnsServer()
    loop = asyncio.get_running_loop()
    udp, tcp = _sockets()
    server.port = udp.getsockname()[1]

    def readable() -> None:
        octets, source = udp.recvfrom(65535)
        server.sources.append(source[1])
        for answer in server.answer(octets, tcp=False):
            if server.delay_seconds:
                loop.call_later(server.delay_seconds, udp.sendto, answer, source)
            else:
                udp.sendto(answer, source)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        for answer in server.answer(await reader.readexactly(length), tcp=True):
            for octet in len(answer).to_bytes(2, "big") + answer:  # in single octets
                writer.write(bytes([octet]))
                await writer.drain()
        writer.close()

    loop.add_reader(udp, readable)
    listener = await asyncio.start_server(converse, sock=tcp)
    try:
        yield server
    finally:
        loop.remove_reader(udp)
        udp.close()
        listener.close()
        await asyncio.sleep(0)


def _sockets() -> tuple[socket.socket, socket.socket]:
    for _ in range(_BOTH_TRIES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        try:
            return udp, socket.create_server(("127.0.0.1", udp.getsockname()[1]))
        except OSError:
            udp.close()
    raise AssertionError("no port is free for both")
