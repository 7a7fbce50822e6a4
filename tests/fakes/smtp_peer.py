"""A scripted SMTP or LMTP server on loopback.

By itself it accepts everything and remembers it. A script is a dict from a verb (or `BANNER`,
`TEXT` for the final dot, `CONNECT`) to what to say there instead: a reply, or a list of them of
which the last one stays, or one of the actions below.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional, Union

from smtpd_core.net.stream import Stream, StreamError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

CLOSE = "\0close"  # end the connection
RESET = "\0reset"  # and not even politely
STALL = "\0stall"  # say nothing
Say = Union[str, "list[str]"]
_PATH = re.compile(r"<([^>]*)>")


@dataclass
class Mail:
    """One mail that was accepted, or LMTP's share of it."""

    sender: str
    recipients: list[str]
    text: bytes
    session: int


@dataclass
class Peer:
    """What the server says, and what it was told."""

    script: Mapping[str, Say] = field(default_factory=dict)
    extensions: tuple[str, ...] = ("8BITMIME", "SIZE 35000000")
    tls: Optional[ssl.SSLContext] = None
    smtps: bool = False
    lmtp: bool = False
    name: str = "peer.example"
    host: str = "127.0.0.1"
    port: int = 0
    behind_starttls: bytes = b""  # said in clear together with the 220
    sessions: int = 0
    open: int = 0
    most_open: int = 0
    mails: list[Mail] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)  # their addresses
    seen: set[str] = field(default_factory=set)  # the places that were come to
    _said: dict[str, int] = field(default_factory=dict)

    def say(self, place: str, otherwise: str) -> str:
        """Give what the script says at a place; a list goes on with every session."""
        self.seen.add(place)
        found = self.script.get(place, otherwise)
        if isinstance(found, str):
            return found
        count = self._said.get(place, 0)
        self._said[place] = count + 1
        return found[min(count, len(found) - 1)]


class _Talk:
    """One session."""

    def __init__(self, peer: Peer, stream: Stream, number: int) -> None:
        self.peer = peer
        self.stream = stream
        self.number = number
        self.buffer = b""
        self.secured = False
        self.sender = ""
        self.recipients: list[str] = []

    async def run(self) -> None:
        if self.peer.smtps:
            await self.start_tls()
        if not await self.reply(self.peer.say("BANNER", f"220 {self.peer.name} ESMTP")):
            return
        while True:
            line = await self.line()
            if line is None:
                return
            self.peer.commands.append(line)
            verb = line.partition(" ")[0].upper().partition(":")[0]
            if not await self.obey(verb, line):
                return

    async def obey(self, verb: str, line: str) -> bool:
        path = _PATH.search(line)
        if verb in ("EHLO", "LHLO"):
            return await self.hello()
        if verb == "STARTTLS":
            return await self.upgrade()
        if verb == "MAIL":
            self.sender, self.recipients = path[1] if path else "", []
            return await self.reply(self.peer.say("MAIL", "250 2.1.0 Ok"))
        if verb == "RCPT":
            text = self.peer.say(f"RCPT {path[1] if path else ''}", "")
            text = text or self.peer.say("RCPT", "250 2.1.5 Ok")
            if text.startswith("2") and path:
                self.recipients.append(path[1])
            return await self.reply(text)
        if verb == "DATA":
            return await self.data()
        if verb == "AUTH":
            return await self.auth(line)
        if verb == "QUIT":
            await self.reply(self.peer.say("QUIT", "221 2.0.0 Bye"))
            return False
        return await self.reply(self.peer.say(verb, "250 2.0.0 Ok"))

    async def hello(self) -> bool:
        lines = [self.peer.name, *self.peer.extensions]
        if self.peer.tls and not self.secured and not self.peer.smtps:
            lines.append("STARTTLS")
        said = "\r\n".join(f"250-{line}" for line in lines[:-1])
        whole = f"{said}\r\n250 {lines[-1]}" if said else f"250 {lines[-1]}"
        return await self.reply(self.peer.say("LHLO" if self.peer.lmtp else "EHLO", whole))

    async def upgrade(self) -> bool:
        text = self.peer.say("STARTTLS", "220 2.0.0 Go")
        if not text.startswith("220") or self.peer.tls is None:
            return await self.reply(text)
        self.stream.hold()
        self.stream.send(text.encode() + b"\r\n" + self.peer.behind_starttls)
        handshake = self.peer.say("HANDSHAKE", "")
        if handshake:
            await self.stream.flush()
            return await self.reply(handshake)
        await self.start_tls()
        self.secured = True
        return True

    async def start_tls(self) -> None:
        assert self.peer.tls is not None
        await self.stream.start_tls(self.peer.tls, server_side=True, timeout_seconds=5)

    async def auth(self, line: str) -> bool:
        if line.upper() == "AUTH LOGIN":
            for prompt in ("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"):
                if not await self.reply(prompt):
                    return False
                word = await self.line()
                self.peer.commands.append(base64.b64decode(word or "").decode())
        return await self.reply(self.peer.say("AUTH", "235 2.7.0 Welcome"))

    async def data(self) -> bool:
        text = self.peer.say("DATA", "354 Go on")
        if not text.startswith("3"):
            return await self.reply(text)
        if not await self.reply(text):
            return False
        early = self.peer.say("EARLY", "")
        if early:
            await self.octets()
            return await self.reply(early)
        while not self.buffer.endswith(b"\r\n.\r\n") and self.buffer != b".\r\n":
            if not await self.octets():
                return False
        body, self.buffer = self.buffer[:-3], b""
        mail = Mail(self.sender, self.recipients, body, self.number)
        if self.peer.lmtp:
            return await self.lmtp_replies(mail)
        text = self.peer.say("TEXT", "250 2.0.0 Accepted")
        if text.startswith("2"):
            self.peer.mails.append(mail)
        return await self.reply(text)

    async def lmtp_replies(self, mail: Mail) -> bool:
        for recipient in mail.recipients:
            text = self.peer.say(f"TEXT {recipient}", "250 2.0.0 Accepted")
            if text.startswith("2"):
                self.peer.mails.append(Mail(mail.sender, [recipient], mail.text, self.number))
            if not await self.reply(text):
                return False
        return True

    async def reply(self, text: str) -> bool:
        """Say something, or do it; False ends the session."""
        words, _, action = text.partition("\0")
        if words:
            self.stream.send(words.encode("latin-1") + b"\r\n")
            await self.stream.flush()
        if action == "reset":
            self.stream.abort()
        elif action == "stall":
            await asyncio.Event().wait()
        return not action

    async def line(self) -> Optional[str]:
        while b"\r\n" not in self.buffer:
            if not await self.octets():
                return None
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode("latin-1")

    async def octets(self) -> bool:
        octets = await self.stream.receive()
        self.buffer += octets
        return bool(octets)


@contextlib.asynccontextmanager
async def serving(peer: Peer) -> AsyncIterator[Peer]:
    """Serve until the block ends; what is still open then is closed."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def talk(stream: Stream) -> None:
        peer.sessions += 1
        peer.open += 1
        peer.most_open = max(peer.most_open, peer.open)
        peer.clients.append(stream.peer.address)
        try:
            if peer.script.get("CONNECT") == CLOSE:
                return
            with contextlib.suppress(StreamError):
                await _Talk(peer, stream, peer.sessions).run()
        finally:
            peer.open -= 1
            if stream.is_lost:
                stream.abort()
            else:
                await stream.close(1)

    def accept(stream: Stream) -> None:
        task = loop.create_task(talk(stream))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await loop.create_server(lambda: Stream(accept), peer.host, peer.port)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
