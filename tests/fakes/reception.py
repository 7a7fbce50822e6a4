"""A whole listener over loopback sockets, with fakes behind it, and callers in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional

from smtpd_core.config.draft import Machine
from smtpd_core.config.grammar import parse_config
from smtpd_core.config.model import BUILTIN_TABLES, SYSTEM_USERS, TableKind
from smtpd_core.listener.accept import Acceptor
from smtpd_core.listener.authentication import Authenticator
from smtpd_core.listener.limits import Clients, Guesses
from smtpd_core.listener.site import Services, Site, Timeouts, make_site, tls_contexts
from smtpd_core.net.stream import Stream, connect
from tests.fakes.certificates import client_context
from tests.fakes.services import (
    FakeLookups,
    FakeNames,
    FakeQueue,
    FakeSupervisor,
    FakeSurroundings,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from smtpd_core.config.model import Config, Listener

SERVER = "mx.example"
RULES = """
action "local" maildir
action "out" relay
match from any for domain "mx.example" action "local"
match from local for any action "out"
match from auth for any action "out"
"""
PLAIN = "listen on 127.0.0.1\n" + RULES


def read_config(text: str) -> Config:
    def read(path: str) -> bytes:
        raise FileNotFoundError(2, "No such file or directory", path)

    machine = Machine(addresses=lambda name: (name,))
    return parse_config(text, "smtpd.conf", read, None, machine)


class Endpoint(NamedTuple):
    address: str
    port: int


class Listening(NamedTuple):
    listener: Listener
    endpoint: Endpoint
    socket: socket.socket


def listen(listener: Listener, port: Optional[int] = None) -> Listening:
    """Bind a free port of the listener's address; port is the one sessions are told."""
    address = listener.addresses[0]
    end = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    end.bind((address, 0))
    end.listen(512)
    end.setblocking(False)
    real = int(end.getsockname()[1])
    return Listening(listener, Endpoint(address, port or real), end)


class Reception:
    """Everything of one test; put what it should differ in before `async with open()`."""

    def __init__(self, text: str = PLAIN, **tables: Any) -> None:
        self.config = read_config(text)
        self.around = FakeSurroundings()
        self.queue = FakeQueue()
        self.supervisor = FakeSupervisor("joe", "root", "ann")
        self.names = FakeNames()
        self.guesses = Guesses(delay_seconds=0)
        self.clients = Clients()
        self.timeouts = Timeouts()
        self.max_sessions = 1000
        self.port: Optional[int] = None  # what sessions think they came to
        self.listening: List[Listening] = []
        self._tables = tables

    @property
    def log(self) -> List[str]:
        return self.around.log

    def lines(self, word: str) -> List[str]:
        """Give the lines of the log that have a word, without the session's id."""
        return [line.partition(" ")[2] for line in self.log if f" {word}" in line]

    def lookups(self) -> FakeLookups:
        tables: Dict[str, Any] = {
            "<anyhost>": ["local", "0.0.0.0/0", "::/0"],
            "<localhost>": ["local"],
            "<localnames>": ["localhost", SERVER],
            "<anydestination>": ["*"],
        }
        for name, table in self.config.tables.items():
            if name not in BUILTIN_TABLES and name != SYSTEM_USERS:
                mapping = table.kind is TableKind.MAPPING
                tables[name] = dict(table.entries) if mapping else [key for key, _ in table.entries]
        return FakeLookups({**tables, **self._tables})

    def site(self, contexts: Optional[Mapping[Listener, ssl.SSLContext]] = None) -> Site:
        surroundings = self.around.surroundings()
        authenticator = Authenticator(surroundings, self.supervisor, self.guesses)
        services = Services(self.queue, self.supervisor, authenticator, surroundings)
        names = (SERVER, "_smtpd")
        found = tls_contexts(self.config) if contexts is None else contexts
        site = make_site(self.config, names, self.lookups(), services, found)
        return replace(site, timeouts=self.timeouts)

    def acceptor(self) -> Acceptor:
        surroundings = self.around.surroundings()
        return Acceptor(
            self.names, surroundings, max_sessions=self.max_sessions, clients=self.clients
        )

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Acceptor]:
        """Listen; at the end everybody has to be able to leave, and nothing of ours failed."""
        acceptor = self.acceptor()
        self.listening = [listen(each, self.port) for each in self.config.listeners]
        site = self.site()
        acceptor.open(site, self.listening)
        try:
            yield acceptor
        finally:
            await acceptor.stop(5)
            site.services.authenticator.close()
        assert acceptor.session_count == 0
        assert self.around.confessed == []
        assert self.around.stats.values.get("smtp.session", 0) == 0
        assert self.queue.opened == {}

    async def call(self, place: int = 0, *, greet: bool = True) -> Caller:
        """Connect to the listener of a place; greet reads the banner and says EHLO."""
        end = self.listening[place].socket
        name = end.getsockname()
        caller = Caller(await connect(name[0], name[1], timeout_seconds=5))
        if greet:
            assert (await caller.hear())[0].startswith("220 ")
            await caller.ask("EHLO client.example")
        return caller


class Caller:
    """A client that takes nothing on trust."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._octets = b""

    async def say(self, *lines: str) -> None:
        self.stream.send("".join(f"{line}\r\n" for line in lines).encode())
        await self.stream.flush(5)

    async def put(self, octets: bytes) -> None:
        self.stream.send(octets)
        await self.stream.flush(5)

    async def line(self) -> str:
        """Give the next line; empty when the server has closed."""
        while b"\r\n" not in self._octets:
            octets = await self.stream.receive(10)
            if not octets:
                assert self._octets == b""
                return ""
            self._octets += octets
        line, _, self._octets = self._octets.partition(b"\r\n")
        return line.decode("utf-8", "surrogateescape")

    async def hear(self) -> List[str]:
        """Give the lines of the next reply."""
        lines = [await self.line()]
        while lines[-1][3:4] == "-":
            lines.append(await self.line())
        return lines

    async def ask(self, *lines: str) -> str:
        """Say lines, then give the last line of the reply to the last of them."""
        answer = ""
        for line in lines:
            await self.say(line)
            answer = (await self.hear())[-1]
        return answer

    async def mail(self, text: str = "Subject: x\n\nbody\n", *recipients: str) -> str:
        """Send a mail of one go; give the reply to its end."""
        await self.ask("MAIL FROM:<a@b.example>")
        for recipient in recipients or ("joe@mx.example",):
            assert (await self.ask(f"RCPT TO:<{recipient}>")).startswith("250 ")
        assert (await self.ask("DATA")).startswith("354 ")
        await self.put(text.replace("\n", "\r\n").encode() + b".\r\n")
        return (await self.hear())[-1]

    async def secure(self, context: Optional[ssl.SSLContext] = None, name: str = SERVER) -> None:
        await self.stream.start_tls(
            context or client_context(), server_side=False, hostname=name, timeout_seconds=5
        )

    async def quit(self) -> None:
        await self.say("QUIT")
        while await self.line():
            pass
        await self.stream.close()

    async def is_closed(self) -> bool:
        return await self.line() == ""


async def settle() -> None:
    """Let what was started go as far as it can without octets."""
    for _ in range(20):
        await asyncio.sleep(0)
