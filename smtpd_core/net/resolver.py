"""Put the questions of dns.resolve to real servers.

A datagram leaves from a port of its own, chosen by the kernel, and only that server's datagrams
come back to it; with the id and the capitals of the name, that is what a forger has to guess.
Whatever is no answer to the query is dropped, and the wait goes on. Lookups of the same thing
share one resolution; all share a cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from smtpd_core.ask import answer_later
from smtpd_core.dns import exchangers, resolve, reverse, wire
from smtpd_core.dns.cache import Cache
from smtpd_core.dns.exchangers import ADDRESS_TYPES, Exchangers, Verdict
from smtpd_core.dns.reverse import ClientName, Confirmation
from smtpd_core.dns.system import parse_hosts, parse_settings
from smtpd_core.net.stream import StreamError, connect

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable

    from smtpd_core.dns.resolve import Answer, Reply, Send

    Asker = Generator[Send, Reply, Any]

Result = TypeVar("Result")

MAX_IN_FLIGHT = 256  # queries at a time, each with a descriptor; the others wait their turn
MAX_LOOKUPS = 4096  # different ones under way; more fail at once, and are tried later
MAX_STRAYS = 64  # datagrams that are no answer; who sends more is forging, or broken
_STRAYS_AT_ONCE = 16  # then the others get a turn of the loop

_BUSY = "too many lookups under way"
# Any address of the wide world, of documentation (RFC 5737, RFC 3849): nothing is sent there.
_FAR = {wire.A: (socket.AF_INET, "192.0.2.1"), wire.AAAA: (socket.AF_INET6, "2001:db8::1")}


def usable_types() -> tuple[int, ...]:
    """Tell which kinds of address this machine has a route to; all when it has none at all."""
    return tuple(rtype for rtype in ADDRESS_TYPES if _has_route(*_FAR[rtype])) or ADDRESS_TYPES


def _has_route(family: int, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as end:
            end.connect((address, wire.MAX_PACKET))
    except OSError:
        return False
    return True


class Resolver:
    """The resolver of one process; make it where its event loop runs."""

    def __init__(
        self,
        resolv_conf: str,
        hosts: str,
        *,
        clock: Callable[[], int],
        draw: Callable[[int], int],
        types: tuple[int, ...] = ADDRESS_TYPES,
    ) -> None:
        """Take the two files as text; draw(n) gives an unpredictable number below n.

        types are the kinds of address to look for; see usable_types.
        """
        self._clock = clock
        self._draw = draw
        self._types = types
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()  # those begun before a reload included
        self._closed = False
        self.reload(resolv_conf, hosts)

    def reload(self, resolv_conf: str, hosts: str) -> None:
        """Go by new files from the next lookup on; answers known so far are forgotten."""
        self._resolver = resolve.Resolver(
            self._draw, parse_settings(resolv_conf), parse_hosts(hosts), Cache()
        )
        self._running = {}  # those end as they began, and are not joined any more

    async def mx(self, domain: str) -> Exchangers:
        """Find the hosts that take mail for a domain."""
        busy = Exchangers(Verdict.TEMPORARY, text=exchangers.LOOKUP_FAILED)
        asker = exchangers.find_exchangers(self._resolver, domain, self._clock(), self._types)
        return await self._join(("mx", wire.fold(domain)), asker, busy)

    async def host(self, name: str) -> Exchangers:
        """Find the one host of that name, by its addresses."""
        busy = Exchangers(Verdict.TEMPORARY, text=exchangers.LOOKUP_FAILED)
        asker = exchangers.find_host(self._resolver, name, self._clock(), self._types)
        return await self._join(("host", wire.fold(name)), asker, busy)

    async def addresses(self, host: str) -> list[str]:
        """Find the addresses of a host; none when all fails."""
        asker = exchangers.find_addresses(self._resolver, host, self._clock(), self._types)
        return list(await self._join(("addresses", wire.fold(host)), asker, []))

    async def ptr(self, address: str) -> ClientName:
        """Find the name of an address, and whether it leads back."""
        try:
            reverse.reverse_name(address.partition("%")[0])
        except ValueError:
            return ClientName(reverse.UNKNOWN, Confirmation.FAIL)
        busy = ClientName(reverse.UNKNOWN, Confirmation.ERROR)
        asker = reverse.find_client_name(self._resolver, address, self._clock())
        return await self._join(("ptr", address), asker, busy)

    async def lookup(self, name: str, rtype: int) -> Answer:
        """Find the records of one type, such as the TXT of a policy."""
        busy = resolve.Answer(resolve.Status.FAILED, name, why=_BUSY)
        asker = self._resolver.lookup(name, rtype, self._clock())
        return await self._join((rtype, wire.fold(name)), asker, busy)

    async def ask(
        self, make: Callable[[resolve.Resolver, int], Generator[Send, Reply, Result]]
    ) -> Result:
        """Drive another asker: make gets the resolver, and what the clock says."""
        return await answer_later(make(self._resolver, self._clock()), self._put)

    async def close(self) -> None:
        """Give up what is under way; who waits for it is told that it failed."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(
        self, key: Hashable, asker: Generator[Send, Reply, Result], busy: Result
    ) -> Result:
        """Drive an asker, or wait for one that was started earlier for the same thing."""
        task: Optional[asyncio.Task[Result]] = self._running.get(key)
        if task is None:
            if self._closed or len(self._tasks) >= MAX_LOOKUPS:
                asker.close()
                return busy
            task = asyncio.get_running_loop().create_task(answer_later(asker, self._put))
            running = self._running
            running[key] = task
            self._tasks.add(task)
            task.add_done_callback(lambda _: running.pop(key, None))
            task.add_done_callback(self._tasks.discard)
        else:
            asker.close()
        try:
            return await asyncio.shield(task)  # who waits may give up; others wait on
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            return busy

    async def _put(self, send: Send) -> Reply:
        async with self._slots:
            octets = await (_over_tcp(send) if send.tcp else _over_udp(send))
        return resolve.Reply(octets, self._clock())


async def _over_udp(send: Send) -> Optional[bytes]:
    """Send a datagram; wait for the one that answers it."""
    address = send.server.address
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        try:
            end = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            end.setblocking(False)
            end.connect((address, send.server.port))
            end.send(send.octets)
        except OSError:
            return None
        answered: asyncio.Future[Optional[bytes]] = loop.create_future()
        loop.add_reader(end, _Watch(end, send, answered).look)
        stack.callback(loop.remove_reader, end)
        timer = loop.call_later(send.timeout_seconds, _settle, answered, None)
        stack.callback(timer.cancel)
        return await answered


def _settle(answered: asyncio.Future[Optional[bytes]], octets: Optional[bytes]) -> None:
    if not answered.done():
        answered.set_result(octets)


class _Watch:
    """Looks at what comes to the port of one query."""

    def __init__(
        self, end: socket.socket, send: Send, answered: asyncio.Future[Optional[bytes]]
    ) -> None:
        self._end = end
        self._send = send
        self._answered = answered
        self._strays = 0

    def look(self) -> None:
        """Take datagrams until one is the answer."""
        for _ in range(_STRAYS_AT_ONCE):
            try:
                octets = self._end.recv(wire.MAX_PACKET)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # nobody listens there
                _settle(self._answered, None)
                return
            if self._is_answer(octets):
                _settle(self._answered, octets)
                return
            self._strays += 1
            if self._strays > MAX_STRAYS:
                _settle(self._answered, None)
                return

    def _is_answer(self, octets: bytes) -> bool:
        try:
            return wire.answers_to(self._send.query, wire.decode(octets))
        except wire.WireError:
            return False


async def _over_tcp(send: Send) -> Optional[bytes]:
    """Ask over a connection of its own, its time bounded as a whole."""
    try:
        return await asyncio.wait_for(_converse(send), send.timeout_seconds)
    except (StreamError, asyncio.TimeoutError):
        return None


async def _converse(send: Send) -> Optional[bytes]:
    server = send.server
    stream = await connect(server.address, server.port, timeout_seconds=send.timeout_seconds)
    try:
        stream.send(len(send.octets).to_bytes(2, "big") + send.octets)
        await stream.flush()
        received = b""
        while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2], "big"):
            octets = await stream.receive()
            if not octets:
                return None
            received += octets
        return received[2 : 2 + int.from_bytes(received[:2], "big")]
    finally:
        stream.abort()
