"""One client, from its connection to its end: carries octets, and puts decisions into effect.

What a client may say is ServerSession's to know; what is done about it stands in decisions. Here
are the waits: for names before the banner, for TLS, for octets, for replies to be taken. Each is
bounded by Timeouts, and a client that sends an octet now and then gains nothing: the time for a
command runs from the last one.

Replies are gathered, and leave together just before we wait, or when the protocol wants it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Optional, Protocol, Union

from smtpd_core.config.model import ListenTls
from smtpd_core.dns.reverse import UNKNOWN, ClientName, Confirmation
from smtpd_core.listener import lines
from smtpd_core.listener.decisions import Decisions
from smtpd_core.listener.tls import description
from smtpd_core.net.stream import StreamError, StreamTimeoutError, TlsError
from smtpd_core.smtp import answers
from smtpd_core.smtp.command import MessageText, StartTls
from smtpd_core.smtp.conversation import Options, State
from smtpd_core.smtp.reply import Reply, errorline
from smtpd_core.smtp.server import ServerSession

if TYPE_CHECKING:
    from smtpd_core.listener.site import Entrance, Site
    from smtpd_core.net.stream import Stream, TlsFacts
    from smtpd_core.smtp.command import Command

EVENTS_AT_ONCE = 64  # events of one client before others get their turn
SHUTTING_DOWN = Reply(421, "4.3.2", ("Service shutting down",), closes=True)

_IDLE_STATES = (State.GREETED, State.READY, State.AUTH)


class Names(Protocol):
    """Who finds the names of clients."""

    async def ptr(self, address: str) -> ClientName:
        """Find the name of an IP address, and whether it leads back."""


@dataclass(frozen=True)
class Client:
    """Who connected. address is as in envelopes: IPv4, [IPv6], or local."""

    address: str
    family: str  # local, inet4 or inet6
    key: str  # what its sessions and failures are counted under
    uid: Optional[int] = None  # of the process behind a local session

    @property
    def bare(self) -> str:
        """Give the address without brackets; nothing for a local client."""
        return "" if self.family == "local" else self.address.strip("[]")


class _GoneError(Exception):
    """The client ended the connection."""


class Session:
    """One client; run() is its whole life."""

    def __init__(self, site: Site, entrance: Entrance, client: Client, stream: Stream) -> None:
        self.id = site.services.surroundings.new_id()
        self._site = site
        self._entrance = entrance
        self._client = client
        self._stream = stream
        self._log = site.services.surroundings.log
        self._stats = site.services.surroundings.stats
        self._smtp: Optional[ServerSession] = None
        self._decisions: Optional[Decisions] = None
        self._now = asyncio.get_running_loop().time
        self._deadline = self._now() + site.timeouts.idle  # for the next event
        self._message_deadline: Optional[float] = None
        self._task: Optional[asyncio.Task[None]] = None
        self._waiting = False  # for a command that has not begun
        self._leaving = False
        self._secured_key = ""  # the gauge that counts this session's TLS

    def leave(self) -> None:
        """Send the client away as soon as it has no mail under way."""
        self._leaving = True
        if self._waiting and self._task is not None:
            self._task.cancel()

    async def run(self, names: Names) -> None:
        """Serve the client; nothing it does is raised."""
        self._task = asyncio.current_task()
        self._stats.add("smtp.session")
        self._stats.add(f"smtp.session.{self._client.family}")
        reason = "quit"
        try:
            await self._open(names)
            await self._converse()
        except _GoneError:
            reason = "disconnect"
        except StreamTimeoutError:
            reason = "timeout"
            self._say_last(answers.IDLE_TOO_LONG)
        except TlsError:
            reason = "tls-accept-failed"
        except StreamError as error:
            reason = f"io-error: {error}"
        except asyncio.CancelledError:
            if not self._leaving:
                self._stream.abort()
                raise
            self._say_last(SHUTTING_DOWN)
        except Exception as error:  # noqa: BLE001 - one session must not stop the others
            self._site.services.surroundings.confess(error)
            self._say_last(answers.INTERNAL_ERROR_CLOSING)
        finally:
            await self._close(reason)

    async def _close(self, reason: str) -> None:
        if self._decisions is not None:
            await self._decisions.end_mail()
        address = "" if reason in ("quit", "disconnect") else self._client.address
        self._log("info", lines.disconnected(self.id, reason, address))
        self._stats.add("smtp.session", -1)
        if self._secured_key:
            self._stats.add(self._secured_key, -1)
        await self._stream.close()

    def _say_last(self, reply: Reply) -> None:
        """Say something that the client may be there to hear."""
        if self._smtp is not None and self._smtp.state is not State.STARTTLS:
            self._stream.send(reply.encode())

    # The beginning.

    async def _open(self, names: Names) -> None:
        """Learn what must be known before the banner; TLS and names go on side by side."""
        entrance, client = self._entrance, self._client
        if entrance.local:
            self._log("info", lines.connected(self.id, "local", self._site.server, client.uid))
            self._begin(replace(entrance.options, peer_address="local"))
            return
        finding = asyncio.ensure_future(names.ptr(client.bare))
        facts: Optional[TlsFacts] = None
        try:
            if entrance.tls is ListenTls.IMMEDIATE:
                facts = await self._shake_hands()
            await asyncio.wait({finding}, timeout=self._site.timeouts.name)
        except BaseException:
            finding.cancel()
            self._log("info", lines.connected(self.id, client.address, UNKNOWN))
            raise
        found = self._name_found(finding)
        self._log("info", lines.connected(self.id, client.address, found.name))
        options = replace(
            entrance.options,
            server=self._server_name(),
            peer_address=client.address,
            peer_host=found.name,
            secured=facts is not None,
            tls=self._describe(facts) if facts is not None else "",
        )
        if facts is not None:
            self._log_tls(facts, "smtp.smtps")
        self._begin(options)

    def _begin(self, options: Options) -> None:
        self._smtp = ServerSession(options)
        self._decisions = Decisions(
            self.id, self._site, self._entrance, self._client, self._smtp.conversation
        )

    def _name_found(self, finding: asyncio.Future[ClientName]) -> ClientName:
        """Give the name that was found, and stop looking for it."""
        if finding.done():
            found = finding.result()
        else:
            finding.cancel()
            found = ClientName(UNKNOWN, Confirmation.ERROR)
        if found.name == UNKNOWN and found.confirmed is Confirmation.ERROR:
            self._log("warn", f"warn: getnameinfo: {self._client.address}: temporary failure")
        return found

    def _server_name(self) -> str:
        """Give the name we go by at the address the client came to."""
        entrance = self._entrance
        if entrance.hostnames is not None:
            name = self._site.lookups.fetch(entrance.hostnames, "addrname", entrance.address)
            if isinstance(name, str) and name:
                return name
        return entrance.options.hostname

    # TLS.

    async def _shake_hands(self) -> TlsFacts:
        context = self._entrance.context
        assert context is not None  # the entrance offers TLS
        return await self._stream.start_tls(
            context, server_side=True, timeout_seconds=self._site.timeouts.handshake
        )

    def _describe(self, facts: TlsFacts) -> str:
        return description(facts, required=self._entrance.verify)

    def _log_tls(self, facts: TlsFacts, gauge: str) -> None:
        self._secured_key = gauge
        self._stats.add(gauge)
        self._log("info", lines.tls(self.id, facts.description))
        if facts.fingerprint is not None:
            line = lines.certificate(self.id, facts.fingerprint, verified=facts.verified)
            self._log("info", line)

    async def _start_tls(self, smtp: ServerSession) -> None:
        """Answer STARTTLS; what came in clear behind it is shown to the session first."""
        smtp.feed(self._stream.hold())
        ready = smtp.respond(smtp.success())
        refusal = smtp.next_command()
        if isinstance(refusal, Reply):  # in the place of the 220
            self._log_refusal(smtp, refusal)
            self._stream.send(refusal.encode())
            return
        self._stream.send(ready)
        facts = await self._shake_hands()
        smtp.tls_started(self._describe(facts))
        self._log_tls(facts, "smtp.tls")

    # The conversation.

    async def _converse(self) -> None:
        smtp, decisions = self._smtp, self._decisions
        assert smtp is not None
        assert decisions is not None
        events = 0
        while smtp.state is not State.CLOSED:
            event = smtp.next_command()
            if event is None:
                await self._receive(smtp)
                events = 0
                continue
            if isinstance(event, MessageText):
                await decisions.write(event.octets)
            else:
                await self._take(smtp, decisions, event)
                self._message_deadline = None
                self._deadline = self._now() + self._site.timeouts.idle
            events += 1
            if events >= EVENTS_AT_ONCE:
                events = 0
                await asyncio.sleep(0)
        try:
            await self._stream.flush(self._site.timeouts.idle)
        except StreamTimeoutError:
            raise
        except StreamError:
            pass  # a client that does not wait for the last word

    async def _take(
        self, smtp: ServerSession, decisions: Decisions, event: Union[Command, Reply]
    ) -> None:
        """Answer one event."""
        stream = self._stream
        if isinstance(event, StartTls):
            await self._start_tls(smtp)
            return
        if isinstance(event, Reply):
            if not event.positive:
                self._log_refusal(smtp, event)
            stream.send(event.encode())
        else:
            reply = await decisions.decide(event) or smtp.success()
            if not reply.positive:
                self._log_refusal(smtp, reply)
            stream.send(smtp.respond(reply))
        if smtp.must_flush and smtp.state is not State.CLOSED:
            await self._flush(decisions)

    async def _flush(self, decisions: Decisions) -> None:
        """Let replies go; somebody has to know when the acceptance of a mail was not heard."""
        accepted, decisions.accepted = decisions.accepted, None
        try:
            await self._stream.flush(self._site.timeouts.idle)
        except StreamError:
            if accepted is not None:
                self._log("info", lines.unheard(self.id, accepted, self._client.address))
            raise

    async def _receive(self, smtp: ServerSession) -> None:
        """Wait for octets; the time for a whole message is bounded, and that for a command."""
        now = self._now()
        timeouts = self._site.timeouts
        if smtp.state is State.DATA:
            if self._message_deadline is None:
                self._message_deadline = now + timeouts.message
            patience = min(timeouts.idle, self._message_deadline - now)
        else:
            patience = self._deadline - now
            self._waiting = smtp.state in _IDLE_STATES
            if self._waiting and self._leaving:
                raise asyncio.CancelledError
        try:
            await self._stream.flush(patience)
            if patience <= 0:
                raise StreamTimeoutError("an unfinished command took too long")
            octets = await self._stream.receive(patience)
        finally:
            self._waiting = False
        if not octets:
            raise _GoneError
        smtp.feed(octets)

    def _log_refusal(self, smtp: ServerSession, reply: Reply) -> None:
        address = self._client.address
        if smtp.bad_input:
            self._log("info", lines.bad_input(self.id, errorline(reply), address))
        else:
            command = smtp.command_text
            self._log("info", lines.failed_command(self.id, command, errorline(reply), address))
