"""ServerSession: one SMTP conversation seen from the server, without any I/O.

The caller feeds octets and asks `next_command` until it answers None:

- a Reply is a refusal (or a prompt) that needs no policy: send it;
- a Command waits for a decision: give it to `respond`, and send what that returns. The state
  moves on a positive reply only: a refused command never happened;
- MessageText is a piece of the message, and waits for nothing.

Commands that came together are taken one after the other (PIPELINING), which is safe because
they are taken from whole lines that end in CRLF: a CR or LF elsewhere ends the session.
`must_flush` says when replies may not wait for company. What was received before TLS and not
taken is thrown away, and ends the session: it cannot have come from whom TLS will show.

Every refusal is counted; a client that only makes mistakes, or only passes the time, is sent
away. The limits stand in Options.
"""

from __future__ import annotations

from typing import Optional, Union

from smtpd_core.errors import LocalError
from smtpd_core.smtp import answers
from smtpd_core.smtp.command import (
    Authenticate,
    Command,
    CommandError,
    Connect,
    Data,
    EndOfMessage,
    Hello,
    Mail,
    MessageText,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Verb,
    parse_line,
)
from smtpd_core.smtp.conversation import (
    CHECKS,
    NEXT_STATE,
    Conversation,
    Options,
    State,
    check_auth,
)
from smtpd_core.smtp.data import DataError, DataReader, LineTooLongError
from smtpd_core.smtp.lines import LineReader
from smtpd_core.smtp.reply import Reply
from smtpd_core.smtp.sasl import Challenge, Credentials, Mechanism, SaslError, ServerExchange
from smtpd_core.text import decode, encode

IDLE_SECONDS = 300  # without an octet; then answers.IDLE_TOO_LONG, and the end

Event = Union[Command, MessageText, Reply]

_MAY_WAIT = frozenset((Verb.MAIL, Verb.RCPT, Verb.RSET))  # RFC 2920 section 3.2
_WITH_ARGUMENT = frozenset((Verb.HELO, Verb.EHLO, Verb.MAIL, Verb.RCPT))
_PROMPTS = {
    Challenge.RESPONSE: answers.EMPTY_PROMPT,
    Challenge.USERNAME: answers.USERNAME_PROMPT,
    Challenge.PASSWORD: answers.PASSWORD_PROMPT,
}
_SHOWN = {
    Challenge.RESPONSE: "(...)",
    Challenge.USERNAME: "(username)",
    Challenge.PASSWORD: "(password)",
}
_SUCCESS = {
    Verb.STARTTLS: answers.START_TLS,
    Verb.AUTH: answers.AUTHENTICATED,
    Verb.MAIL: answers.OK,
    Verb.RCPT: answers.RECIPIENT_OK,
    Verb.DATA: answers.START_DATA,
    Verb.RSET: answers.RESET,
    Verb.NOOP: answers.OK,
    Verb.QUIT: answers.BYE,
}


class ServerSession:
    """One conversation. See the module for how to drive it."""

    def __init__(self, options: Options) -> None:
        self.conversation = Conversation(options)
        self.command_text = ""  # the last command line, for logs; secrets are left out
        self.bad_input = False  # the session ended for the shape of what was received
        self.must_flush = False
        self._lines = LineReader()
        self._pending: Optional[tuple[Verb, Command]] = (Verb.CONNECT, Connect())
        self._given_out = False  # the pending command
        self._exchange: Optional[ServerExchange] = None
        self._reader: Optional[DataReader] = None

    @property
    def state(self) -> State:
        """Tell where the conversation is."""
        return self.conversation.state

    # Octets in.

    def feed(self, octets: bytes) -> None:
        """Take what was received; nothing is taken any more once the session is closed.

        Raises LocalError when next_command was not asked until it answered None.
        """
        if self.state is not State.CLOSED:
            self._lines.feed(octets)

    def tls_started(self, description: str) -> None:
        """Go on inside TLS; description is `version:cipher:bits:YES` or NO.

        Everything said before is forgotten. Octets that came in clear end the session.
        Raises LocalError when TLS was not due.
        """
        if self.state is not State.STARTTLS:
            raise LocalError("TLS was not due")
        self.conversation.tls = description
        self.conversation.secured = True
        self.conversation.hello = None
        if self._lines.is_empty:
            self.conversation.state = State.GREETED
        else:
            self._close(bad_input=True)

    # Events out.

    def next_command(self) -> Optional[Event]:
        """Give the next event; None when octets are missing, or the session is closed.

        Raises LocalError when the last command was not answered.
        """
        if self._pending is not None:
            if self._given_out:
                raise LocalError("a command waits for its reply")
            self._given_out = True
            return self._pending[1]
        if self.state is State.CLOSED:
            return None
        if self.conversation.counters.exhausted(self.conversation.options):
            return self._end(answers.TOO_MANY_ERRORS)
        if self.state is State.STARTTLS:
            return None if self._lines.is_empty else self._end(answers.EARLY_INPUT)
        if self._reader is not None:
            return self._next_text(self._reader)
        return self._next_line()

    def respond(self, reply: Reply) -> bytes:
        """Answer the pending command; return the octets to send.

        Raises LocalError when no command is waiting, or when a 3xx answers what has no more.
        """
        if self._pending is None or not self._given_out:
            raise LocalError("no command is waiting for a reply")
        verb, command = self._pending
        if reply.positive and (reply.code >= 300) is not (verb is Verb.DATA):
            raise LocalError(f"{reply.code} does not answer {verb.value}")
        self._pending = None
        self.must_flush = verb not in _MAY_WAIT
        if reply.positive:
            self._proceed(verb, command)
        else:
            self._refused(verb)
        if reply.closes:
            self._close()
        return reply.encode()

    def success(self) -> Reply:
        """Give the original's positive reply to the pending command.

        Raises LocalError when none waits, and for EndOfMessage, whose reply names the message.
        """
        if self._pending is None:
            raise LocalError("no command is waiting for a reply")
        verb, command = self._pending
        if isinstance(command, Connect):
            return answers.banner(self.conversation.options.name)
        if isinstance(command, Hello):
            return self.conversation.greeting(command)
        if verb not in _SUCCESS:
            raise LocalError("only the queue knows how to accept a message")
        return _SUCCESS[verb]

    def rewrite(self, argument: str) -> Event:
        """Replace the argument of the pending command, as a filter may; it is checked again.

        Return the command in its new form, or the refusal, which then has answered it.
        Raises LocalError when the pending command has no argument.
        """
        if self._pending is None or self._pending[0] not in _WITH_ARGUMENT:
            raise LocalError("no command with an argument is waiting")
        verb, self._pending = self._pending[0], None
        return self._check(verb, argument)

    # Lines.

    def _next_line(self) -> Optional[Event]:
        try:
            line = self._lines.next_line()
        except CommandError as error:
            return self._end(error.reply)
        if line is None:
            return None
        if self._exchange is not None:
            return self._continue_auth(self._exchange, line)
        self._note_command(line)
        self.must_flush = True
        try:
            verb, argument = parse_line(line)
        except CommandError as error:
            return self._refusal(error.reply)
        self.must_flush = verb not in _MAY_WAIT
        return self._check_auth(argument) if verb is Verb.AUTH else self._check(verb, argument)

    def _note_command(self, line: bytes) -> None:
        """Keep a line for logs; whatever may be a response of AUTH is left out."""
        if line[:4].upper() == b"AUTH":
            words = line.split(b" ", 2)
            line = b" ".join((*words[:2], b"(...)")) if len(words) > 2 else line
        self.command_text = decode(line)
        if line[:8].upper() != b"RCPT TO:":
            self.conversation.counters.commands += 1

    def _check(self, verb: Verb, argument: Optional[str]) -> Event:
        try:
            event = CHECKS[verb](self.conversation, argument)
        except CommandError as error:
            return self._refusal(error.reply, verb)
        if isinstance(event, Reply):
            return self._refusal(event, verb)
        if isinstance(event, StartTls) and not self._lines.is_empty:
            return self._end(answers.EARLY_INPUT)  # meant to be taken for said inside TLS
        return self._wait_for_reply(verb, event)

    def _wait_for_reply(self, verb: Verb, command: Command) -> Command:
        self._pending = verb, command
        self._given_out = True
        return command

    def _refusal(self, reply: Reply, verb: Optional[Verb] = None) -> Reply:
        """Count a reply that needs no policy, if it is a refusal."""
        if not reply.positive:
            self._refused(verb)
        return reply

    # AUTH.

    def _check_auth(self, argument: Optional[str]) -> Event:
        try:
            name, _, response = check_auth(self.conversation, argument).partition(" ")
        except CommandError as error:
            return self._refusal(error.reply)
        mechanism = Mechanism.__members__.get(name.upper())
        if mechanism is None:
            return self._refusal(answers.mechanism_unsupported(name))
        exchange = self._exchange = ServerExchange(mechanism)
        self.conversation.state = State.AUTH
        if response:
            return self._continue_auth(exchange, encode(response.strip(" ")))
        return _PROMPTS[exchange.challenge]

    def _continue_auth(self, exchange: ServerExchange, response: bytes) -> Event:
        self.command_text = f"AUTH {exchange.mechanism.value} {_SHOWN[exchange.challenge]}"
        self.must_flush = True
        try:
            found = exchange.receive(response)
        except SaslError:
            self._end_auth()
            return self._refusal(answers.SYNTAX_ERROR)
        if isinstance(found, Credentials):
            return self._wait_for_reply(Verb.AUTH, Authenticate(found))
        return _PROMPTS[found]

    def _end_auth(self) -> None:
        self._exchange = None
        self.conversation.state = State.READY

    # The text after DATA.

    def _next_text(self, reader: DataReader) -> Optional[Event]:
        if not reader.ended:
            try:
                text = reader.feed(self._lines.take_all())
            except LineTooLongError:
                return self._end(answers.LINE_TOO_LONG)
            except DataError:
                return self._end(answers.BAD_OCTET)
            if text:
                return MessageText(text)
        if not reader.ended:
            return None
        self._reader = None
        self._lines.feed(reader.rest)
        refusal = None
        if reader.too_big:
            refusal = answers.TOO_BIG
        elif reader.has_nul:
            refusal = answers.NOT_COMPLIANT
        return self._wait_for_reply(Verb.END_OF_DATA, EndOfMessage(reader.size, refusal))

    # Consequences.

    def _proceed(self, verb: Verb, command: Command) -> None:
        talk = self.conversation
        talk.state = NEXT_STATE.get((talk.state, verb), talk.state)
        if isinstance(command, Hello):
            talk.hello = command
        elif isinstance(command, Authenticate):
            talk.authenticated = True
            talk.user = command.credentials.user
            self._exchange = None
        elif isinstance(command, Mail):
            talk.mail = command
        elif isinstance(command, Rcpt):
            talk.recipients += 1
            talk.last_recipient = command.recipient
        elif isinstance(command, Data):
            self._reader = DataReader(talk.options.max_message_size)
        elif isinstance(command, EndOfMessage):
            talk.counters.message_accepted()
            talk.end_transaction()
        elif isinstance(command, Rset):
            talk.end_transaction()
        elif isinstance(command, Quit):
            self._close()

    def _refused(self, verb: Optional[Verb]) -> None:
        counters = self.conversation.counters
        if verb is Verb.RCPT:
            counters.failed_recipients += 1
        else:
            counters.errors += 1
        if verb is Verb.AUTH:
            counters.failed_logins += 1
            self._end_auth()
        elif verb is Verb.END_OF_DATA:
            self.conversation.state = State.READY
            self.conversation.end_transaction()

    def _end(self, reply: Reply) -> Reply:
        """Close with a last word."""
        self._close(bad_input=reply is not answers.TOO_MANY_ERRORS)
        return reply

    def _close(self, *, bad_input: bool = False) -> None:
        self.conversation.state = State.CLOSED
        self.must_flush = True
        self.bad_input = self.bad_input or bad_input
        self._lines.take_all()
        self._reader = None
        self._exchange = None
