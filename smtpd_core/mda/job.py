"""One local delivery as it is asked for, and what came of it.

A Job is everything the supervisor needs to run a delivery as a user; a JobResult is what it
answers. Both travel between roles as named fields, and a JobResult also from the delivering
process to the supervisor, as octets. Who decodes believes nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Mapping, Optional, Tuple

from smtpd_core.cursor import Cursor, CursorError
from smtpd_core.errors import FormatError
from smtpd_core.ipc.fields import FieldError, list_field, pair_field, text_field
from smtpd_core.mail.status import Outcome, Result, one_line, outcome
from smtpd_core.text import encode, escape

Fields = Tuple[Tuple[str, str], ...]

TIMEOUT_SECONDS = 300
MAX_FIELDS = 64
MAX_FIELD = 8192  # octets of a value; a script is the longest
MAX_ENVIRONMENT = 48  # variables
MAX_ID = 0x7FFFFFFF
MAX_TEXT = 1000  # characters of what a command printed last
MAX_RESULT = 4096  # octets of an encoded result: a pipe takes so much at once

EX_DATAERR = 65
EX_NOUSER = 67
EX_UNAVAILABLE = 69
EX_OSERR = 71
EX_TEMPFAIL = 75
EX_NOPERM = 77
EX_CONFIG = 78

# Exit statuses and their names. Source: sysexits(3), as the original's log spells them.
SYSEXITS = {
    64: "command line usage error",
    65: "data format error",
    66: "cannot open input",
    67: "user unknown",
    68: "host name unknown",
    69: "service unavailable",
    70: "internal software error",
    71: "system resource problem",
    72: "critical OS file missing",
    73: "can't create user output file",
    74: "input/output error",
    75: "temporary failure",
    76: "remote error in protocol",
    77: "permission denied",
    78: "local configuration error",
}
_TEMPORARY = frozenset((EX_OSERR, EX_TEMPFAIL))

_FIELDS = list_field(pair_field(text_field(64), text_field(MAX_FIELD)), MAX_FIELDS)
_ENVIRONMENT = "env."  # before the name of a variable


class JobError(FormatError):
    """Fields that are no job or no result."""


class Method(enum.Enum):
    """How a message is delivered; FILE appends to a file that a user or an alias names."""

    MBOX = "mbox"
    FILE = "file"
    MAILDIR = "maildir"
    LMTP = "lmtp"
    COMMAND = "command"


@dataclass(frozen=True)
class Job:
    """One delivery.

    user is the mailbox it is for; uid, gid and home are those it runs as. argument is a path or
    an LMTP destination. script is the command of COMMAND; with MAILDIR and LMTP it is a wrapper,
    which writes to descriptor 3 what is delivered. environment is that of the script. Addresses
    are `local@domain`, a null sender is empty. prefix stands before the message.
    """

    method: Method
    user: str
    uid: int
    gid: int
    home: str
    argument: str = ""
    script: str = ""
    environment: Tuple[Tuple[str, str], ...] = ()
    sender: str = ""
    rcpt: str = ""
    dest: str = ""
    sub_address: str = ""
    junk: bool = False
    rcpt_to: bool = False
    timeout_seconds: int = TIMEOUT_SECONDS
    prefix: str = ""

    def fields(self) -> Fields:
        """Spell the job for another role."""
        texts = tuple((name, getattr(self, name)) for name in _TEXTS)
        numbers = tuple((name, str(int(getattr(self, name)))) for name in _NUMBERS)
        variables = tuple((_ENVIRONMENT + name, value) for name, value in self.environment)
        return (("method", self.method.value), *texts, *numbers, *variables)

    @classmethod
    def from_fields(cls, fields: Fields) -> Job:
        """Read a job that another role spelled; raises JobError."""
        plain = {name: value for name, value in fields if not name.startswith(_ENVIRONMENT)}
        variables = tuple(
            (name[len(_ENVIRONMENT) :], value)
            for name, value in fields
            if name.startswith(_ENVIRONMENT)
        )
        if len(plain) + len(variables) != len(fields) or len(variables) > MAX_ENVIRONMENT:
            raise JobError("a job with a field twice, or with too many variables")
        if set(plain) != {"method", *_TEXTS, *_NUMBERS}:
            raise JobError("a job with other fields than a job has")
        if any("\0" in value or len(encode(value)) > MAX_FIELD for _, value in fields):
            raise JobError("a job with a NUL, or with a field that is too long")
        if any(not name or "=" in name or not name.isascii() for name, _ in variables):
            raise JobError("a job with a variable that has no proper name")
        numbers = {name: _number(name, plain[name], most) for name, most in _NUMBERS.items()}
        try:
            method = Method(plain["method"])
        except ValueError:
            raise JobError(f"no way to deliver is called {plain['method'][:40]!r}") from None
        texts = {name: plain[name] for name in _TEXTS}
        return cls(
            method=method,
            environment=variables,
            uid=numbers["uid"],
            gid=numbers["gid"],
            timeout_seconds=numbers["timeout_seconds"],
            junk=numbers["junk"] == 1,
            rcpt_to=numbers["rcpt_to"] == 1,
            **texts,
        )


_TEXTS = (
    *("user", "home", "argument", "script", "sender", "rcpt", "dest", "sub_address"),
    "prefix",
)
_NUMBERS: Mapping[str, int] = {
    "uid": MAX_ID,
    "gid": MAX_ID,
    "timeout_seconds": 86400,
    "junk": 1,
    "rcpt_to": 1,
}


def _number(name: str, value: str, most: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 10 and int(value) <= most):
        raise JobError(f"{name}: {value[:40]!r} is not a number up to {most}")
    return int(value)


class Ending(enum.Enum):
    """How a delivery ended: by itself, by a signal, by us, or before it began."""

    EXIT = "exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    KILLED = "killed"
    REFUSED = "refused"


@dataclass(frozen=True)
class JobResult:
    """What came of a delivery.

    number is the exit status (EXIT, REFUSED) or the signal. text is the last line that was
    printed (EXIT), or our own reason (KILLED, REFUSED). consumed: all of the message was taken.
    """

    ending: Ending
    number: int = 0
    text: str = ""
    consumed: bool = True

    def fields(self) -> Fields:
        """Spell the result for another role or process."""
        return (
            ("ending", self.ending.value),
            ("number", str(self.number)),
            ("text", one_line(self.text)[:MAX_TEXT]),
            ("consumed", str(int(self.consumed))),
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> JobResult:
        """Read a result that another role or process spelled; raises JobError."""
        plain = dict(fields)
        if len(plain) != len(fields) or set(plain) != {"ending", "number", "text", "consumed"}:
            raise JobError("a result with other fields than a result has")
        if len(plain["text"]) > MAX_TEXT:
            raise JobError("a result with a text that is too long")
        try:
            ending = Ending(plain["ending"])
        except ValueError:
            raise JobError(f"no delivery ends by {plain['ending'][:40]!r}") from None
        number = _number("number", plain["number"], 255)
        consumed = _number("consumed", plain["consumed"], 1) == 1
        return cls(ending, number, one_line(plain["text"]), consumed)

    def encode(self) -> bytes:
        """Spell the result as octets, less than a pipe takes at once."""
        return _FIELDS.encode(self.fields())

    @classmethod
    def decode(cls, octets: bytes) -> JobResult:
        """Read what encode gave; raises JobError."""
        if len(octets) > MAX_RESULT:
            raise JobError(f"a result of {len(octets)} octets")
        cursor = Cursor(octets)
        try:
            fields: Fields = _FIELDS.decode(cursor)
            cursor.finish()
        except (CursorError, FieldError) as error:
            raise JobError(str(error)) from error
        return cls.from_fields(fields)


def exited(status: int, text: str = "", *, consumed: bool = True) -> JobResult:
    """Make the result of a delivery that ended with an exit status."""
    return JobResult(Ending.EXIT, status, one_line(text)[:MAX_TEXT], consumed)


def refused(status: int, text: str) -> JobResult:
    """Make the result of a delivery that did not begin; status says whether it may later."""
    return JobResult(Ending.REFUSED, status, one_line(text)[:MAX_TEXT])


def refuse(job: Job) -> Optional[JobResult]:
    """Give the result of a job that must not run: as root there is nothing but root's mbox."""
    if job.uid == 0 and (job.method is not Method.MBOX or job.script):
        return refused(EX_NOPERM, f"MDA not allowed to deliver to: {job.user}")
    return None


def outcome_of(result: JobResult) -> Outcome:
    """Map a result to the outcome of the attempt.

    Source: OpenSMTPD 7.8: only 71 and 75 are worth another try, the status is always x.3.0.
    """
    if result.ending is Ending.SIGNAL:
        return _outcome(Result.TEMPORARY, f"terminated; signal {result.number}")
    if result.ending is Ending.TIMEOUT:
        return _outcome(Result.TEMPORARY, "terminated; timeout")
    if result.ending is Ending.KILLED:
        return _outcome(Result.TEMPORARY, result.text)
    if result.ending is Ending.EXIT and result.number == 0:
        if result.consumed:
            return outcome(Result.DELIVERED, "Delivered")
        return _outcome(Result.TEMPORARY, "mda exited prematurely")
    found = Result.TEMPORARY if result.number in _TEMPORARY else Result.PERMANENT
    if result.ending is Ending.REFUSED:
        return _outcome(found, result.text)
    return _outcome(found, f'"{escape(result.text)}"' if result.text else "exited abnormally")


def _outcome(found: Result, text: str) -> Outcome:
    return outcome(found, text, "5.3.0" if found is Result.PERMANENT else "4.3.0")


def stat_of(result: JobResult) -> str:
    """Give what the log says of a result behind `stat=`."""
    found = outcome_of(result)
    if found.result is Result.DELIVERED:
        return "Delivered"
    name = ""
    if result.ending in (Ending.EXIT, Ending.REFUSED):
        name = SYSEXITS.get(result.number, "")
    return f"Error ({name}: {found.text})" if name else f"Error ({found.text})"
