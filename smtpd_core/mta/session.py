"""One connection to a host: octets between a net.Stream and a smtp.ClientSession.

open() connects, and returns when mail may be sent; send() carries one mail and tells what became
of each recipient as soon as it is known; rest() waits between mails and notices when the host
has enough; quit() takes leave. What goes wrong before mail may be sent is a SessionError; after
that, every recipient gets its outcome and `failure` says why the session is over.

TLS from the first octet and STARTTLS use the same context. Where TLS is only opportunistic, and
nowhere else, a handshake that fails is followed by a second connection in clear.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from smtpd_core.errors import LocalError, RemoteError
from smtpd_core.mail.address import is_domain
from smtpd_core.mta import lines
from smtpd_core.net.stream import (
    ClearTextError,
    SourceError,
    Stream,
    StreamError,
    StreamTimeoutError,
    connect,
)
from smtpd_core.smtp.client import IDLE_SECONDS, ClientSession, State
from smtpd_core.smtp.client_events import (
    ClientOptions,
    Closed,
    Event,
    Failed,
    MailDone,
    Ready,
    RecipientDone,
    TextWanted,
    TlsPolicy,
    TlsWanted,
)
from smtpd_core.tables.lines import Tls

if TYPE_CHECKING:
    import ssl

    from smtpd_core.mail.status import Outcome
    from smtpd_core.mta.lines import Here
    from smtpd_core.mta.targets import Hop, Relay
    from smtpd_core.smtp.transaction import Transaction
    from smtpd_core.tables.lines import Credentials

CHUNK = 65536  # octets of a message read at a time
QUIT_SECONDS = 10  # for the answer to QUIT: nothing depends on it any more

_POLICIES = {
    Tls.OPPORTUNISTIC: TlsPolicy.OPPORTUNISTIC,
    Tls.STARTTLS: TlsPolicy.REQUIRED,
    Tls.SMTPS: TlsPolicy.REQUIRED,
    Tls.NONE: TlsPolicy.NEVER,
}


class SessionError(RemoteError):
    """No mail can be sent over this connection; the text is what envelopes are told."""


class Plan(NamedTuple):
    """How to talk to one address of a relay."""

    relay: Relay
    hop: Hop
    source: str
    helo: str
    context: ssl.SSLContext
    credentials: Optional[Credentials]
    max_failures: int


def client_options(plan: Plan) -> ClientOptions:
    """Say how to speak to the host. Raises SessionError when our own name cannot be said."""
    credentials = plan.credentials
    options = ClientOptions(
        name=plan.helo,
        lmtp=plan.relay.lmtp,
        tls=_POLICIES[plan.relay.tls],
        secured=plan.relay.tls is Tls.SMTPS,
        user=credentials.user if credentials else "",
        password=credentials.secret if credentials else "",
        max_failures=plan.max_failures,
    )
    try:
        ClientSession(options)
    except LocalError as error:
        raise SessionError(f"Failed to retrieve helo string: {error}") from error
    return options


class Session:
    """One connection. Its methods are called one at a time."""

    def __init__(self, here: Here, plan: Plan, log: Callable[[str, str], None]) -> None:
        """Prepare; raises SessionError when our own name cannot be said."""
        self.here = here
        self.plan = plan
        self.failure: Optional[str] = None  # why it is over, when it should not be
        self.messages = 0  # mails of which the host took something
        self._log = log
        self._options = client_options(plan)
        self._talk = ClientSession(self._options)
        self._stream: Optional[Stream] = None
        self._deadline = 0.0

    @property
    def is_ready(self) -> bool:
        """Tell whether a mail may be sent."""
        return self._talk.state is State.READY

    @property
    def peer_reports(self) -> bool:
        """Tell whether the host offers DSN: then success is for it to report."""
        return "DSN" in self._talk.extensions

    async def open(self) -> None:
        """Connect, and go on until mail may be sent. Raises SourceError and SessionError."""
        try:
            await self._open()
        except _DowngradeError as error:
            self._log("info", lines.downgrading(self.here, str(error)))
            self._options = replace(self._options, tls=TlsPolicy.NEVER)
            await self._open()

    async def _open(self) -> None:
        plan, hop = self.plan, self.plan.hop
        self.abort()
        self._talk = ClientSession(self._options)
        self._log("info", lines.connecting(self.here, plan.relay.scheme))
        try:
            stream = await connect(
                hop.address, hop.port, source=plan.source, timeout_seconds=IDLE_SECONDS
            )
        except SourceError:
            raise
        except StreamError as error:
            raise SessionError(_reason(error)) from error
        self._stream = stream
        self.here = self.here._replace(source=stream.local.address)
        self._log("info", lines.connected(self.here))
        if self._options.secured:
            try:
                await self._start_tls(stream)
            except StreamError as error:
                self._talk.connection_lost(_reason(error))
        await self._follow_opening(stream)

    async def _follow_opening(self, stream: Stream) -> None:
        while True:
            event = await self._next(stream)
            if isinstance(event, TlsWanted):
                await self._answer_tls(stream)
            elif isinstance(event, Ready):
                return
            else:
                self.abort()
                raise SessionError(event.text if isinstance(event, Failed) else "closed")

    async def _answer_tls(self, stream: Stream) -> None:
        """Start TLS because the host agreed to it."""
        try:
            await self._start_tls(stream)
        except ClearTextError:
            self._talk.feed(stream.take())  # which ends the session: it is no answer
        except StreamError as error:
            if self._options.tls is TlsPolicy.OPPORTUNISTIC:
                raise _DowngradeError(_reason(error)) from error
            self._talk.connection_lost(_reason(error))
        else:
            self._talk.tls_started()

    async def _start_tls(self, stream: Stream) -> None:
        host = self.plan.hop.host
        name: Optional[str] = self.plan.hop.address if host.startswith("[") else host
        if not self.plan.relay.verify and not is_domain(host):
            name = None  # odd names in MX records are no reason to do without TLS
        try:
            facts = await stream.start_tls(
                self.plan.context,
                server_side=False,
                hostname=name,
                timeout_seconds=IDLE_SECONDS,
            )
        finally:
            self._extend()
        self._log("info", lines.tls(self.here, facts))
        if facts.fingerprint:
            self._log("info", lines.certificate(self.here, facts))

    async def send(
        self, mail: Transaction, descriptor: int, done: Callable[[int, Outcome], None]
    ) -> None:
        """Send a mail whose text is read from a descriptor; done is told of each recipient."""
        stream = self._stream
        assert stream is not None
        accepted = False
        self._talk.send_mail(mail)
        while True:
            event = await self._next(stream)
            if isinstance(event, TextWanted):
                await self._send_text(stream, descriptor)
            elif isinstance(event, RecipientDone):
                accepted = accepted or event.outcome.status.status_class == 2
                done(event.index, event.outcome)
            elif isinstance(event, MailDone):
                break
        self.messages += accepted
        await self._settle(stream)

    async def _settle(self, stream: Stream) -> None:
        """Wait until another mail may be sent, or the session is over."""
        while self.failure is None:
            event = await self._next(stream)
            if isinstance(event, Ready):
                return
            if isinstance(event, (Failed, Closed)):
                self.failure = event.text if isinstance(event, Failed) else "closed"
                stream.abort()

    async def rest(self, woken: asyncio.Future[None], seconds: float) -> None:
        """Wait to be woken, at most so long; a host that says anything meanwhile ends it."""
        stream = self._stream
        assert stream is not None
        receiving = asyncio.ensure_future(stream.receive())
        either: set[asyncio.Future[Any]] = {receiving, woken}
        try:
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            receiving.cancel()
            results = await asyncio.gather(receiving, return_exceptions=True)
        if isinstance(results[0], asyncio.CancelledError):
            return
        if isinstance(results[0], bytes) and results[0]:
            self._talk.feed(results[0])
        else:
            self._talk.connection_lost()
        if self._talk.state is State.CLOSED:
            await self._settle(stream)

    async def quit(self) -> None:
        """Take leave."""
        stream = self._stream
        if stream is None or not self.is_ready:
            self.abort()
            return
        self._talk.quit()
        self._log("info", lines.disconnected(self.here, self.messages))
        try:
            await asyncio.wait_for(self._leave(stream), QUIT_SECONDS)
        except asyncio.TimeoutError:
            self.abort()
        await stream.close()

    async def _leave(self, stream: Stream) -> None:
        while not isinstance(await self._next(stream), (Failed, Closed)):
            pass

    def abort(self) -> None:
        """Close at once."""
        if self._stream is not None:
            self._stream.abort()

    # Octets.

    async def _next(self, stream: Stream) -> Event:
        """Give the next event, carrying octets until there is one."""
        while True:
            event = self._talk.next_event()
            if event is not None:
                return event
            await self._flush(stream)
            if self._talk.state is State.CLOSED:
                continue
            try:
                octets = await stream.receive(self._left())
            except StreamError as error:
                self._talk.connection_lost(_reason(error))
                continue
            if octets:
                self._talk.feed(octets)
            else:
                self._talk.connection_lost()

    async def _flush(self, stream: Stream) -> None:
        """Send what is to be sent; a new time begins for the answer."""
        octets = self._talk.outgoing()
        if not octets:
            return
        self._extend()
        stream.send(octets)
        try:
            await stream.flush(self._left())
        except StreamError as error:
            self._talk.feed(stream.take())  # its last words say more than that it went away
            self._talk.connection_lost(_reason(error))

    async def _send_text(self, stream: Stream, descriptor: int) -> None:
        while self._talk.state is State.TEXT:
            try:
                octets = os.read(descriptor, CHUNK)
            except OSError:
                self._talk.connection_lost("Error reading content file")
                stream.abort()  # half a message must not look like a whole one
                return
            if not octets:
                self._talk.end_text()
                return
            self._talk.send_text(octets)
            await self._flush(stream)
            await asyncio.sleep(0)  # others get their turn, and early replies come in
            early = stream.take()
            if early:
                self._talk.feed(early)

    def _extend(self) -> None:
        self._deadline = asyncio.get_running_loop().time() + IDLE_SECONDS

    def _left(self) -> float:
        """Give the time that is left for an answer as a whole, however it drips in."""
        now = asyncio.get_running_loop().time()
        if not self._deadline:
            self._deadline = now + IDLE_SECONDS
        return self._deadline - now


class _DowngradeError(Exception):
    """TLS failed, and may be done without."""


def _reason(error: StreamError) -> str:
    return str(error) if isinstance(error, StreamTimeoutError) else f"IO Error: {error}"
