"""Put a notice into the queue by the same door as any other mail: a session over a socket pair.

At one end sits a listener's session for a local client, at the other one of our client sessions;
rules, limits, trace fields and log lines are those of local mail.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Union

from smtpd_core.listener.session import Client, Session
from smtpd_core.mail.address import NULL_ADDRESS, AddressError, parse_address
from smtpd_core.mail.status import Outcome, Result, outcome
from smtpd_core.net.stream import Stream, StreamError, adopt
from smtpd_core.smtp.client import ClientSession
from smtpd_core.smtp.client_events import (
    ClientOptions,
    Closed,
    Failed,
    MailDone,
    Ready,
    RecipientDone,
    TextWanted,
    TlsPolicy,
)
from smtpd_core.smtp.transaction import Recipient, Transaction

if TYPE_CHECKING:
    from smtpd_core.listener.session import Names
    from smtpd_core.listener.site import Site

STEP_SECONDS = 60  # for each wait; the other end is this process
_PIECE = 65536
_LOCAL = Client("local", "local", "")


async def inject(recipient: str, text: int, site: Site, names: Names) -> Outcome:
    """Send the text of a descriptor with the null sender; give what came of it."""
    try:
        address = parse_address(recipient)
    except AddressError as error:
        return outcome(Result.PERMANENT, f"not an address: {error}")
    ours, theirs = socket.socketpair()
    served = await adopt(theirs)
    session = Session(site, site.local_entrance(), _LOCAL, served)
    serving = asyncio.ensure_future(session.run(names))
    stream = await adopt(ours)
    options = ClientOptions(site.server, tls=TlsPolicy.NEVER)
    mail = Transaction(NULL_ADDRESS, (Recipient(address),), os.fstat(text).st_size)
    conversation = _Conversation(ClientSession(options), stream, mail, text)
    try:
        return await conversation.run()
    except StreamError as error:
        return outcome(Result.TEMPORARY, f"the notice could not be handed over: {error}")
    finally:
        stream.abort()
        await asyncio.wait([serving], timeout=STEP_SECONDS)
        if not serving.done():
            serving.cancel()


class _Conversation:
    def __init__(
        self, session: ClientSession, stream: Stream, mail: Transaction, text: int
    ) -> None:
        self._session = session
        self._stream = stream
        self._mail = mail
        self._text = text
        self._sent = False
        self._found: Union[Outcome, None] = None

    async def run(self) -> Outcome:
        while True:
            event = self._session.next_event()
            if event is None:
                await self._exchange()
            elif isinstance(event, Ready) and not self._sent:
                self._sent = True
                self._session.send_mail(self._mail)
            elif isinstance(event, TextWanted):
                await self._send_text()
            elif isinstance(event, RecipientDone):
                self._found = event.outcome
            elif isinstance(event, (MailDone, Closed, Failed)):
                if isinstance(event, MailDone):
                    await self._quit()
                return self._found or outcome(Result.TEMPORARY, "the notice was not taken")

    async def _quit(self) -> None:
        """Take leave, without waiting for an answer."""
        self._session.quit()
        self._stream.send(self._session.outgoing())
        await self._stream.flush(STEP_SECONDS)

    async def _exchange(self) -> None:
        self._stream.send(self._session.outgoing())
        await self._stream.flush(STEP_SECONDS)
        octets = await self._stream.receive(STEP_SECONDS)
        if octets:
            self._session.feed(octets)
        else:
            self._session.connection_lost()

    async def _send_text(self) -> None:
        offset = 0
        while True:
            piece = os.pread(self._text, _PIECE, offset)
            if not piece:
                break
            offset += len(piece)
            self._session.send_text(piece)
            self._stream.send(self._session.outgoing())
            await self._stream.flush(STEP_SECONDS)
        self._session.end_text()
