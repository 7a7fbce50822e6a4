"""What becomes of each command of one session: the policy behind ServerSession.

Every decision is a reply, or None for the positive one that the protocol has for the command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from smtpd_core.errors import SmtpdError
from smtpd_core.listener import lines
from smtpd_core.listener.transaction import MAX_ENVELOPES, Origin, Stored, Transaction
from smtpd_core.mail.header import HeaderRules
from smtpd_core.mail.received import UNKNOWN_HOST, format_date
from smtpd_core.routing import rules
from smtpd_core.smtp import answers
from smtpd_core.smtp.command import Authenticate, Command, Data, EndOfMessage, Mail, Rcpt, Rset
from smtpd_core.smtp.reply import ReplyError, parse_refusal
from smtpd_core.tables.lines import LineError, parse_senders
from smtpd_core.tables.matching import MatchError, Patterns

if TYPE_CHECKING:
    from smtpd_core.listener.session import Client
    from smtpd_core.listener.site import Entrance, Site
    from smtpd_core.routing.expand import Expansion
    from smtpd_core.smtp.conversation import Conversation
    from smtpd_core.smtp.reply import Reply


class Decisions:
    """The decisions of one session, and the mail it has under way."""

    def __init__(
        self, session: int, site: Site, entrance: Entrance, client: Client, talk: Conversation
    ) -> None:
        self._id = session
        self._site = site
        self._entrance = entrance
        self._client = client
        self._talk = talk
        self._log = site.services.surroundings.log
        self._clock = site.services.surroundings.clock
        self._mail: Optional[Transaction] = None
        self._sender = rules.Session(client.address)
        self.accepted: Optional[int] = None  # a mail whose acceptance was decided, not yet said

    async def decide(self, event: Command) -> Optional[Reply]:
        """Decide about a command that the protocol allows."""
        if isinstance(event, Rcpt):
            return await self._add(event)
        if isinstance(event, Mail):
            return await self._begin(event)
        if isinstance(event, Data):
            self._open_text()
        elif isinstance(event, EndOfMessage):
            return await self._commit(event)
        elif isinstance(event, Authenticate):
            return await self._authenticate(event)
        elif isinstance(event, Rset):
            await self.end_mail()
        return None

    async def write(self, octets: bytes) -> None:
        """Take some of the text of the mail."""
        assert self._mail is not None  # DATA was accepted
        await self._mail.write(octets)

    async def end_mail(self) -> None:
        """Forget the mail under way, if there is one."""
        if self._mail is not None:
            mail, self._mail = self._mail, None
            await mail.abandon()

    # AUTH.

    async def _authenticate(self, event: Authenticate) -> Optional[Reply]:
        credentials, client = event.credentials, self._client
        good = await self._site.services.authenticator.check(
            credentials, self._site.lookups, self._entrance.auth_table, client.key
        )
        result = {True: "ok", False: "permfail", None: "tempfail"}[good]
        line = lines.authentication(self._id, credentials.user, result, client.address)
        self._log("info", line)
        if good:
            return None
        return answers.TEMPORARY_FAILURE if good is None else answers.AUTH_FAILED

    # MAIL.

    async def _begin(self, event: Mail) -> Optional[Reply]:
        refusal = self._check_sender(str(event.sender))
        if refusal is not None:
            return refusal
        queue = self._site.services.queue
        try:
            msgid = await queue.new_msgid()
        except SmtpdError as error:
            self._complain(str(error))
            return answers.TEMPORARY_ERROR_CLOSING
        talk = self._talk
        self._mail = Transaction(queue, msgid, event, self._origin())
        self._sender = rules.Session(
            source=self._client.address,
            name=talk.options.peer_host or UNKNOWN_HOST,
            helo=self._hello_name,
            tag=self._entrance.tag,
            user=talk.user if talk.authenticated else None,
            tls=talk.secured,
        )
        return None

    def _check_sender(self, sender: str) -> Optional[Reply]:
        """Compare a sender with those that the authenticated user may write as."""
        table, talk = self._entrance.senders, self._talk
        if table is None or not talk.authenticated:
            return None
        value = self._site.lookups.fetch(table, "mailaddrmap", talk.user)
        if isinstance(value, rules.Failure):
            return answers.TEMPORARY_ERROR
        if value is None:
            return answers.SENDER_REJECTED
        try:
            delimiter = self._site.config.smtp.sub_addr_delim
            allowed = Patterns("mailaddr", parse_senders(value), delimiter)
            found = allowed.find(sender or rules.NULL_SENDER)
        except (LineError, MatchError) as error:
            self._complain(f"table {table}: {error}")
            return answers.TEMPORARY_ERROR
        return None if found is not None else answers.SENDER_REJECTED

    @property
    def _hello_name(self) -> str:
        assert self._talk.hello is not None  # MAIL comes behind it
        return self._talk.hello.name

    def _origin(self) -> Origin:
        talk, client = self._talk, self._client
        return Origin(
            tag=self._entrance.tag,
            smtpname=talk.options.name,
            helo=self._hello_name,
            hostname=talk.options.peer_host or UNKNOWN_HOST,
            username=talk.user,
            family=client.family,
            address=client.bare,
            authenticated=talk.authenticated,
        )

    # RCPT.

    async def _add(self, event: Rcpt) -> Optional[Reply]:
        mail, site = self._mail, self._site
        assert mail is not None  # RCPT comes behind MAIL
        recipient = str(event.recipient)
        envelope = rules.Envelope(self._sender, mail.sender, recipient)
        expansion = await site.router.expand(envelope, site.services.supervisor)
        for note in expansion.notes:
            self._note(note)
        if expansion.refusal:
            return self._refuse(expansion, recipient)
        most = max(MAX_ENVELOPES, self._talk.options.max_recipients)
        if len(mail.envelopes) + len(expansion.deliveries) > most:
            return answers.TOO_MANY_RECIPIENTS
        if not mail.add(event, expansion.deliveries, self._clock(), site.libexec):
            return answers.expansion_failed(recipient, temporary=True)
        return None

    def _refuse(self, expansion: Expansion, recipient: str) -> Reply:
        try:
            return parse_refusal(expansion.reply(recipient))
        except ReplyError as error:
            self._complain(str(error))
            return answers.INTERNAL_ERROR

    def _note(self, note: str) -> None:
        level = "warn" if note.startswith("warn:") else "info"
        self._log(level, f"{self._id:016x} smtp expand {note}")

    # The text.

    def _open_text(self) -> None:
        mail, talk, entrance = self._mail, self._talk, self._entrance
        assert mail is not None
        assert talk.mail is not None
        now = self._clock()
        surroundings = self._site.services.surroundings
        date = format_date(now, *surroundings.zone(now))
        hostname = talk.options.hostname
        masked = entrance.masquerade and talk.authenticated and not talk.mail.sender.is_null
        completes = entrance.completes
        header = HeaderRules(
            domain=hostname,
            date=date if completes else None,
            message_id=f"{surroundings.new_id():016x}@{hostname}" if completes else None,
            sender=talk.mail.sender if masked else None,
        )
        mail.begin(talk.trace(mail.msgid, date), header)

    async def _commit(self, event: EndOfMessage) -> Reply:
        mail = self._mail
        assert mail is not None
        if mail.refusal is None:
            mail.refusal = event.refusal
        stored = await mail.commit()
        if stored.trouble:
            self._complain(stored.trouble)
        if mail.loops:
            self._log("warn", f"warn: loop detected: {self._id:016x} from {self._client.address}")
        if stored.accepted:
            self.accepted = mail.msgid
            self._log_accepted(mail, stored)
        await self.end_mail()
        return stored.reply

    def _log_accepted(self, mail: Transaction, stored: Stored) -> None:
        extended = self._talk.hello is not None and self._talk.hello.extended
        number = len(mail.recipients)
        line = lines.message(self._id, mail.msgid, mail.size, number, extended=extended)
        self._log("info", line)
        for recipient in mail.recipients:
            known = recipient.last < len(stored.evpids)  # the mail is ours whatever is missing
            evpid = stored.evpids[recipient.last] if known else None
            self._log("info", lines.envelope(self._id, evpid, mail.sender, recipient.address))

    def _complain(self, why: str) -> None:
        """Log trouble of our own, with whom it met."""
        self._log("warn", f"warn: {self._id:016x} smtp {why} address={self._client.address}")
