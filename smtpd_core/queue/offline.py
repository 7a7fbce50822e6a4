"""Mail handed in while the daemon was down: the files of offline/.

The first line holds the arguments of the `sendmail` that was run, joined by `|`; the message
follows. Source: OpenSMTPD enqueue.c, smtpctl.c; spool layout of 5.3 to 7.8.
"""

from __future__ import annotations

from smtpd_core import text
from smtpd_core.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RECIPIENTS_MAX = 1000  # shown of one file; more stay unread and are said so

_WITH_ARGUMENT = frozenset("ABbeFfLNopRVr")
_ATTACHED_ARGUMENT = frozenset("EJ")
_RECIPIENT_FIELDS = ("to", "cc", "bcc")


class OfflineError(FormatError):
    """A file that is not what `sendmail` leaves in offline/."""


class Submission:
    """What is known of a mail in offline/; an empty sender means the user who handed it in."""

    __slots__ = ("arguments", "cut", "from_header", "recipients", "sender")

    def __init__(self, arguments: list[str]) -> None:
        """Start from the arguments; recipients and sender come from reading them."""
        self.arguments = arguments
        self.sender = ""
        self.recipients: list[str] = []
        self.from_header = False
        self.cut = False  # whether there are more recipients


def parse_submission(head: bytes) -> Submission:
    """Read sender and recipients from the beginning of a file in offline/.

    Raises OfflineError when the first line is missing or not ended.
    """
    if not head:
        raise OfflineError("the file is empty: a `sendmail` that failed leaves such")
    line, end, message = head.partition(b"\n")
    if not end:
        raise OfflineError("its first line is not ended: the `sendmail` that wrote it failed")
    submission = Submission(text.decode(line).split("|"))
    _read_arguments(submission)
    if submission.from_header:
        for value in _header_values(text.decode(message)):
            submission.recipients += _addresses(value)
    submission.cut = len(submission.recipients) > RECIPIENTS_MAX
    del submission.recipients[RECIPIENTS_MAX:]
    return submission


def _read_arguments(submission: Submission) -> None:
    """Understand the arguments as the original's getopt does: options may stand anywhere."""
    arguments = iter(submission.arguments)
    for argument in arguments:
        if argument == "--":
            submission.recipients += arguments
            return
        if not argument.startswith("-") or argument == "-":
            submission.recipients.append(argument)
            continue
        letters = argument[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _WITH_ARGUMENT:
                value = letters or next(arguments, "")
                if letter in "fr":
                    submission.sender = value
                break
            if letter in _ATTACHED_ARGUMENT:
                break
            if letter == "t":
                submission.from_header = True


def _header_values(message: str) -> Iterator[str]:
    """Give the values of To, Cc and Bcc, unfolded."""
    value = ""
    for line in message.split("\n"):
        if line[:1] in (" ", "\t"):
            value += line if value else ""
            continue
        if value:
            yield value
            value = ""
        name, colon, rest = line.partition(":")
        if not colon:
            return  # the header ends at the first line that is none of its fields
        if name.strip().lower() in _RECIPIENT_FIELDS:
            value = rest + " "
    if value:
        yield value


def _addresses(value: str) -> list[str]:
    """Take the addresses out of one header value: `<a@b>` of each part, or its bare words."""
    found = []
    for part in _split_list(value):
        inner, closed = part.rpartition("<")[2].partition(">")[:2]
        address = inner if "<" in part and closed else part.rpartition(":")[2]
        address = address.strip(" \t\r;")
        if address:
            found.append(address)
    return found


def _split_list(value: str) -> list[str]:
    """Split at commas that stand in no quotes and no comment; comments are left out."""
    parts = [""]
    quoted = False
    depth = 0
    escaped = False
    for letter in value:
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == '"' and not depth:
            quoted = not quoted
        elif letter == "(" and not quoted:
            depth += 1
            continue
        elif letter == ")" and depth:
            depth -= 1
            continue
        elif letter == "," and not quoted and not depth:
            parts.append("")
            continue
        if not depth:
            parts[-1] += letter
    return parts
