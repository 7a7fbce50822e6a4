"""What the server says: every fixed reply, and the few that are composed.

The texts are those of OpenSMTPD 7.8, compared octet for octet by clients, scripts and filters;
those marked "ours" answer what the original does not know or does not refuse.
"""

from __future__ import annotations

from smtpd_core import text
from smtpd_core.ids import format_msgid
from smtpd_core.mail.received import bracketed
from smtpd_core.smtp.reply import Reply

MAX_ECHO = 256  # characters of a client's own words in a reply


def _reply(code: int, status: str, *lines: str) -> Reply:
    return Reply(code, status or None, lines)


def _closing(code: int, status: str, line: str) -> Reply:
    return Reply(code, status or None, (line,), closes=True)


def _echo(words: str) -> str:
    return text.escape(words[:MAX_ECHO])


# Success.
OK = _reply(250, "2.0.0", "Ok")
RECIPIENT_OK = _reply(250, "2.1.5", "Destination address valid: Recipient ok")
RESET = _reply(250, "2.0.0", "Reset state")
BYE = _closing(221, "2.0.0", "Bye")
START_TLS = _reply(220, "2.0.0", "Ready to start TLS")
START_DATA = _reply(354, "", 'Enter mail, end with "." on a line by itself')
AUTHENTICATED = _reply(235, "2.0.0", "Authentication succeeded")
HELP = _reply(
    *(214, "2.0.0"),
    "This is OpenSMTPD",
    "To report bugs in the implementation, please contact bugs@openbsd.org",
    "with full details",
    "End of HELP info",
)

# Order and spelling of commands.
UNRECOGNIZED = _reply(500, "5.5.1", "Invalid command: Command unrecognized")
WIZ = _reply(500, "5.5.1", "Invalid command: this feature is not supported yet ;-)")
NOT_ALLOWED = _reply(503, "5.5.1", "Invalid command: Command not allowed at this point.")
ALREADY_IDENTIFIED = _reply(503, "5.5.1", "Invalid command: Already identified")
NOT_SUPPORTED = _reply(503, "5.5.1", "Invalid command: Command not supported")
ALREADY_SECURED = _reply(503, "5.5.1", "Invalid command: Channel already secured")
ALREADY_AUTHENTICATED = _reply(503, "5.5.1", "Invalid command: Already authenticated")
BAD_DOMAIN = _reply(501, "5.5.4", "Invalid command arguments: Invalid domain name")
NO_ARGUMENTS = _reply(500, "5.5.4", "Invalid command arguments: command does not accept arguments.")
NO_PARAMETERS_ALLOWED = _reply(501, "5.5.4", "Invalid command arguments: No parameters allowed")
NO_PARAMETERS_GIVEN = _reply(501, "5.5.4", "Invalid command arguments: No parameters given")
NO_RECIPIENT = _reply(503, "5.5.4", "Invalid command arguments: No recipient specified")
SYNTAX_ERROR = _reply(501, "5.5.2", "Syntax error: Syntax error")

# MAIL and RCPT.
TLS_FIRST = _reply(530, "5.5.1", "Invalid command: Must issue a STARTTLS command first")
AUTH_FIRST = _reply(530, "5.5.1", "Invalid command: Must issue an AUTH command first")
TOO_MANY_MESSAGES = _reply(452, "4.5.3", "Too many recipients: Too many messages sent")
TOO_MANY_RECIPIENTS = _reply(451, "4.5.3", "Too many recipients: Too many recipients")
BAD_SENDER = _reply(553, "5.1.0", "Sender address syntax error")
BAD_RECIPIENT = _reply(501, "5.1.3", "Recipient address syntax error")
SENDER_REJECTED = _reply(530, "", "Sender rejected")
NEVER_MIXED = _reply(553, "", "NOTIFY option NEVER cannot be combined with other options")
BAD_ORCPT = _reply(553, "", "ORCPT address syntax error")
ANNOUNCED_TOO_BIG = _reply(  # ours: RFC 1870 section 6.1
    552, "5.3.4", "Message too big for system: Transaction failed, message too big"
)

# The end of a message.
TOO_BIG = _reply(554, "5.3.4", "Message too big for system: Transaction failed, message too big")
LOOP_DETECTED = _reply(500, "5.4.6", "Routing loop detected: Loop detected")
NOT_COMPLIANT = _reply(
    *(550, "5.7.1"),
    "Delivery not authorized, message refused: Message is not RFC 2822 compliant",
)

# Trouble of our own.
TEMPORARY_ERROR = _reply(421, "4.3.0", "Temporary Error")
TEMPORARY_FAILURE = _reply(421, "4.3.0", "Temporary failure")
INTERNAL_ERROR = _reply(421, "", "Internal server error")
TEMPORARY_ERROR_CLOSING = _closing(421, "4.3.0", "Temporary Error")
TEMPORARY_FAILURE_CLOSING = _closing(421, "4.3.0", "Temporary failure")
INTERNAL_ERROR_CLOSING = _closing(421, "", "Internal server error")

# Credentials.
AUTH_FAILED = _reply(535, "", "Authentication failed")
USERNAME_PROMPT = _reply(334, "", "VXNlcm5hbWU6")
PASSWORD_PROMPT = _reply(334, "", "UGFzc3dvcmQ6")
EMPTY_PROMPT = _reply(334, "", "")

# Input that ends the session.
LINE_TOO_LONG = _closing(500, "5.0.0", "Line too long")
COMMAND_TOO_LONG = _closing(500, "5.0.0", "Command line too long")
EARLY_INPUT = _closing(500, "5.5.1", "Invalid command: Pipelining not supported")
BAD_OCTET = _closing(500, "5.5.2", "Syntax error: bare CR or LF, or NUL")  # ours
TOO_MANY_ERRORS = _closing(421, "4.7.0", "Too many errors")  # ours
TOO_MANY_CLIENTS = _closing(421, "4.7.0", "Too many connections from your host")  # ours
IDLE_TOO_LONG = _closing(421, "4.4.2", "Timeout")  # ours; the original closes in silence


def banner(server: str) -> Reply:
    """Greet a client."""
    return _reply(220, "", f"{server} ESMTP OpenSMTPD")


def hello(server: str, name: str, address: str) -> str:
    """Compose the line that answers HELO, and starts the answer to EHLO."""
    return f"{server} Hello {name} {bracketed(address)}, pleased to meet you"


def name_missing(verb: str) -> Reply:
    """Refuse HELO or EHLO without an argument."""
    return _reply(501, "5.5.1", f"Invalid command: {verb} requires domain name")


def mail_option_unsupported(option: str) -> Reply:
    """Refuse a parameter of MAIL."""
    return _reply(503, "5.5.4", f"Invalid command arguments: Unsupported option {_echo(option)}")


def rcpt_option_unsupported(option: str) -> Reply:
    """Refuse a parameter of RCPT."""
    return _reply(503, "", f"Unsupported option {_echo(option)}")


def envid_too_long(value: str) -> Reply:
    """Refuse an ENVID past its limit."""
    return _reply(
        *(503, "5.5.4"),
        f"Invalid command arguments: option too large, truncated: {_echo(value)}",
    )


def mechanism_unsupported(mechanism: str) -> Reply:
    """Refuse a SASL mechanism."""
    return _reply(
        *(504, "5.7.4"),
        f'Security features not supported: AUTH method "{_echo(mechanism)}" not supported',
    )


def message_accepted(msgid: int) -> Reply:
    """Take responsibility for a message."""
    return _reply(250, "2.0.0", f"{format_msgid(msgid)} Message accepted for delivery")


def invalid_recipient(address: str) -> Reply:
    """Refuse a recipient that no rule or no user takes."""
    return _reply(550, "", f"Invalid recipient: <{_echo(address)}>")


def recipient_temporary_failure(address: str) -> Reply:
    """Put off a recipient that could not be looked up."""
    return _reply(451, "", f"Temporary failure: <{_echo(address)}>")


def expansion_failed(address: str, *, temporary: bool) -> Reply:
    """Refuse, or put off, a recipient whose aliases do not lead to a mailbox."""
    code, status = (424, "4.2.4") if temporary else (524, "5.2.4")
    return _reply(code, status, f"Mailing list expansion problem: <{_echo(address)}>")
