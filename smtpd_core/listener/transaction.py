"""One mail on its way in: its envelopes, its text, and the one commit that makes it ours.

The text is edited as it comes and kept in memory up to MAX_BODY octets; a longer one goes to a
file that the queue opened. Whatever is wrong with it is remembered and told after the final dot,
because nobody listens before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional, Protocol, Sequence, Union

from smtpd_core import text
from smtpd_core.errors import SmtpdError
from smtpd_core.mail.header import HeaderEditor, HeaderError, HeaderRules, RoutingLoopError
from smtpd_core.mail.received import Trace, received
from smtpd_core.queue.envelope import HOST_NAME_MAX_LINUX, LINE_LENGTH_MAX, Envelope
from smtpd_core.queue.fields import FLAG_AUTHENTICATED
from smtpd_core.routing.expand import Delivery, Method
from smtpd_core.smtp import answers

if TYPE_CHECKING:
    from smtpd_core.smtp.command import Mail, Rcpt
    from smtpd_core.smtp.reply import Reply

MAX_BODY = 131_072  # octets in memory, of each session; most mail is smaller
MAX_ENVELOPES = 20_000  # of one mail, some 40 megabytes; aliases make many of few recipients
_SPAM = b"X-Spam: Yes\n"
_MAILBOX_FILE = "{}/mail.mboxfile -f %{{mbox.from}} {}"  # how the original spells a file


class Queue(Protocol):
    """Who stores mail. Every call raises an SmtpdError when it cannot, for now."""

    async def new_msgid(self) -> int:
        """Give an id that no other message has."""

    async def open_body(self, msgid: int) -> int:
        """Give the descriptor of a new file, the caller's to close."""

    async def commit(
        self, msgid: int, envelopes: Sequence[Envelope], body: Union[bytes, int]
    ) -> Sequence[int]:
        """Give the ids of the envelopes once all is on disk."""

    async def abandon(self, msgid: int) -> None:
        """Forget a message that was opened and will not be committed."""


@dataclass(frozen=True)
class Origin:
    """What all envelopes of a session's mail have in common."""

    tag: str
    smtpname: str
    helo: str
    hostname: str
    username: str
    family: str  # local, inet4 or inet6
    address: str  # without brackets
    authenticated: bool

    def fields(self) -> Dict[str, object]:
        """Give them by the names of an envelope's attributes.

        Names are cut where releases on Linux cut them: they refuse to read longer ones.
        """
        return {
            "version": 3,
            "tag": self.tag,
            "smtpname": _cut(self.smtpname),
            "helo": _cut(self.helo),
            "hostname": _cut(self.hostname),
            "username": self.username,
            "family": self.family,
            "address": self.address,
            "flags": FLAG_AUTHENTICATED if self.authenticated else 0,
        }


class Accepted(NamedTuple):
    """A recipient that was accepted, and the place of its last envelope."""

    address: str
    last: int


class Stored(NamedTuple):
    """What a commit came to: the reply, and, where a message was stored, its envelopes' ids."""

    reply: Reply
    evpids: Sequence[int] = ()
    accepted: bool = False
    trouble: str = ""


class Transaction:
    """A mail from MAIL to its end."""

    def __init__(self, queue: Queue, msgid: int, mail: Mail, origin: Origin) -> None:
        """Begin a mail whose sender was accepted."""
        self._queue = queue
        self.msgid = msgid
        self.sender = str(mail.sender)
        self.recipients: List[Accepted] = []
        self.envelopes: List[Envelope] = []
        self.size = 0  # octets stored
        self.junk = False
        self.refusal: Optional[Reply] = None
        self.loops = False
        self.trouble = ""  # why the text could not be kept
        self._committing = False  # from here on the queue decides what becomes of it
        self._common = {
            **origin.fields(),
            "sender": self.sender or "@",
            "dsn_ret": mail.ret or "",
            "dsn_envid": mail.envid,
        }
        self._editor: Optional[HeaderEditor] = None
        self._pieces: List[bytes] = []
        self._file: Optional[int] = None

    # Recipients.

    def add(self, rcpt: Rcpt, deliveries: Sequence[Delivery], now: int, libexec: str) -> bool:
        """Take the envelopes of an accepted recipient; False when one cannot be written.

        libexec is where the original keeps its programs: it stands in the envelope of a file.
        """
        common = {
            **self._common,
            "rcpt": str(rcpt.recipient),
            "ctime": now,
            "dsn_notify": rcpt.notify.value,
            "dsn_orcpt": _stored_orcpt(rcpt.orcpt),
        }
        added = []
        for delivery in deliveries:
            envelope = Envelope(**common, dispatcher=delivery.action, dest=delivery.recipient)
            if delivery.method is Method.RELAY:
                envelope.type = "mta"
            else:
                envelope.mda_user = delivery.user
                envelope.mda_subaddress = delivery.sub_address
                if delivery.method is Method.PIPE:
                    envelope.mda_exec = delivery.target
                elif delivery.method is Method.FILE:
                    envelope.mda_exec = _MAILBOX_FILE.format(libexec, delivery.target)
                if len(text.encode(envelope.mda_exec)) > LINE_LENGTH_MAX:
                    return False
            added.append(envelope)
        self.envelopes += added
        self.recipients.append(Accepted(str(rcpt.recipient), len(self.envelopes) - 1))
        return True

    # The text.

    def begin(self, trace: Trace, rules: HeaderRules) -> None:
        """Begin the text with the fields of our own."""
        self._editor = HeaderEditor(rules)
        if self.junk:
            self._keep(_SPAM)
        self._keep(received(trace))

    async def write(self, octets: bytes) -> None:
        """Take some of the text; what is wrong with it is kept in refusal."""
        assert self._editor is not None
        if self.refusal is not None:
            return
        try:
            self._keep(self._editor.feed(octets))
            if self.size > MAX_BODY:
                await self._write_out()
        except HeaderError as error:
            self._spoil(error)
        except (SmtpdError, OSError) as error:
            self._fail(error)

    def _keep(self, octets: bytes) -> None:
        if octets:
            self._pieces.append(octets)
            self.size += len(octets)

    async def _write_out(self) -> None:
        if self._file is None:
            self._file = await self._queue.open_body(self.msgid)
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(self._file, view) :]

    def _spoil(self, error: HeaderError) -> None:
        self.loops = isinstance(error, RoutingLoopError)
        self._pieces.clear()
        self.refusal = answers.LOOP_DETECTED if self.loops else answers.NOT_COMPLIANT

    def _fail(self, error: Exception) -> None:
        self._pieces.clear()
        self.trouble = str(error)
        self.refusal = answers.TEMPORARY_ERROR

    # The end.

    async def commit(self) -> Stored:
        """Store the mail; the reply says that it is ours, or that it is not."""
        assert self._editor is not None
        if self.refusal is None:
            try:
                self._keep(self._editor.finish())
                if self._file is not None:
                    await self._write_out()
            except HeaderError as error:
                self._spoil(error)
            except OSError as error:
                self._fail(error)
        if self.refusal is not None:
            return Stored(self.refusal, trouble=self.trouble)
        body: Union[bytes, int] = b"".join(self._pieces) if self._file is None else self._file
        self._pieces.clear()
        self._committing = True
        try:
            evpids = await self._queue.commit(self.msgid, self.envelopes, body)
        except SmtpdError as error:
            self._committing = False
            return Stored(answers.TEMPORARY_FAILURE_CLOSING, trouble=str(error))
        return Stored(answers.message_accepted(self.msgid), evpids, accepted=True)

    async def abandon(self) -> None:
        """Let go of what the mail holds; one that was not stored is given up."""
        self._pieces.clear()
        opened = self._file is not None
        self._close_file()
        if opened and not self._committing:
            try:
                await self._queue.abandon(self.msgid)
            except SmtpdError:
                pass  # the queue finds what nobody wants when it starts

    def _close_file(self) -> None:
        if self._file is not None:
            handle, self._file = self._file, None
            os.close(handle)


def _cut(name: str) -> str:
    """Cut a host name, which is ASCII, to what releases read."""
    return name[:HOST_NAME_MAX_LINUX]


def _stored_orcpt(orcpt: str) -> str:
    """Give the original recipient as releases 6.7 to 7.4 keep it: `rfc822;` goes without saying.

    What is no address they do not keep.
    """
    kind, _, address = orcpt.partition(";")
    stored = address if kind.lower() == "rfc822" else orcpt
    local, _, domain = stored.rpartition("@")
    return stored if local and domain else ""
