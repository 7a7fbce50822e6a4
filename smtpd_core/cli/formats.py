"""The formats of a queue listing beside the classic line: json, json-pretty, csv, table.

Each is a class as classic.Format describes it, whose methods give text. Machine formats carry
`schema` numbers: within one, fields may be added; none disappears, and none changes its meaning.
"""

from __future__ import annotations

import time

from smtpd_core import ids, text, units
from smtpd_core.cli.classic import Classic
from smtpd_core.queue import fields
from smtpd_core.queue.envelope import ATTRIBUTES
from smtpd_core.queue.releases import RELEASES, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from smtpd_core.queue.entries import Entry


SCHEMA = 1
_YEAR_10000 = 253402300800
_NOTIFY = ((1, "success"), (2, "failure"), (4, "delay"), (8, "never"))
_MTA_FLAGS = tuple(dict.fromkeys(fields.RELAY_FLAGS + fields.RELAY_FLAGS_521))


def format_utc(seconds: int) -> str:
    """Spell a time as ISO 8601 in UTC; empty for 0 and for times beyond the year 9999."""
    if not 0 < seconds < _YEAR_10000:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def format_local(seconds: int) -> str:
    """Spell a time as ISO 8601 with the zone of this host; see format_utc."""
    if not 0 < seconds < _YEAR_10000:
        return ""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
    return f"{stamp[:-2]}:{stamp[-2:]}"


def describe(entry: Entry) -> dict[str, Any]:
    """Give everything that is known about an entry, by the names of the schema.

    Times are seconds since the epoch, with a spelled twin that ends in `_time`; None is what is
    not known. `expiry` is None for format 3, which does not store it: its `ttl` is 0, or that of
    a bounce, and neither is what a daemon goes by.
    """
    envelope, item = entry.envelope, entry.item
    known_expiry = envelope.version in (1, 2) and not entry.damaged
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "evpid": ids.format_evpid(entry.evpid),
        "msgid": ids.format_msgid(ids.msgid_of(entry.evpid)),
        "bucket": item.bucket,
        "kind": "envelope" if item.kind == "stray" else item.kind,
        "state": "offline",
        "path": item.path,
        "form": entry.form,
        "file_time": format_utc(item.mtime) or None,
        "file_size": item.size,
        "message_size": item.message_size if item.message_size >= 0 else None,
        "expiry": envelope.expiry if known_expiry else None,
        "expiry_time": (format_utc(envelope.expiry) or None) if known_expiry else None,
        "ctime_time": format_utc(envelope.ctime) or None,
    }
    for attribute in ATTRIBUTES:
        facts[attribute] = getattr(envelope, attribute)
    facts["flags"] = fields.format_flags(envelope.flags).split()
    facts["mta_relay_flags"] = fields.format_flags(envelope.mta_relay_flags, _MTA_FLAGS).split()
    facts["dsn_notify"] = [name for bit, name in _NOTIFY if envelope.dsn_notify & bit]
    facts["unknown_fields"] = dict(entry.parsed.unknown) if entry.parsed else {}
    refused_by = explain_refusals(entry)
    read = entry.parsed is not None and not entry.item.notes
    facts["read_by"] = [name for name in _RELEASE_NAMES if name not in refused_by and read]
    facts["refused_by"] = refused_by
    facts["problems"] = entry.problems
    return facts


_RELEASE_NAMES = [release.name for release in RELEASES]


def explain_refusals(entry: Entry) -> dict[str, str]:
    """Say why the daemons of releases would not load an entry, by release, oldest first.

    Empty for what is no envelope: no daemon takes it for one. A wrong name or place is enough
    for each of them.
    """
    if entry.parsed is None:
        return {}
    if entry.item.notes:
        return dict.fromkeys(_RELEASE_NAMES, entry.item.notes[0])
    found = [(release.name, refusal(entry.parsed, release)) for release in RELEASES]
    return {name: reason for name, reason in found if reason is not None}


_ESCAPES = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    **{code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)},
    0x22: '\\"',
    0x5C: "\\\\",
    0x0A: "\\n",
    0x0D: "\\r",
    0x09: "\\t",
    # Line ends to JavaScript, and the controls that reorder text on a terminal.
    **{code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F),
                                           *range(0x2066, 0x206A))},
}  # fmt: skip


def format_json(value: Any, indent: str = "") -> str:
    """Spell a value in JSON (RFC 8259); octets that are not UTF-8 become lone surrogates.

    With an indent, objects and lists are spread over lines that begin with it.
    """
    kind = type(value)
    if kind is str:
        return _quote(value)
    if kind is int:
        return str(value)
    if value is None or kind is bool:
        return "null" if value is None else str(value).lower()
    inner = indent and indent + "  "
    if kind is dict:
        brackets = "{}"
        parts = [
            f"{_NAMES.get(name) or _quote(name)}: {format_json(below, inner)}"
            for name, below in value.items()
        ]
    else:
        brackets = "[]"
        parts = [format_json(below, inner) for below in value]
    if indent and parts:
        lines = f",\n{inner}".join(parts)
        return f"{brackets[0]}\n{inner}{lines}\n{indent}{brackets[1]}"
    return brackets[0] + ", ".join(parts) + brackets[1]


def _quote(value: str) -> str:
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
    return f'"{value.translate(_ESCAPES)}"'


_NAMES = {name: f'"{name}"' for name in ATTRIBUTES}  # most of what describe() names


class Json(Classic):
    """One object per line."""

    details = True
    fast = False
    safe = True

    def row(self, entry: Entry) -> str:
        """Give one object."""
        return format_json(describe(entry)) + "\n"


class JsonPretty:
    """One list of objects, for reading."""

    details = True
    fast = False
    safe = True
    separator = ",\n"

    def head(self) -> str:
        """Open the list."""
        return "["

    def heading(self) -> str:
        """Let the first object begin on a line of its own."""
        return "\n"

    def row(self, entry: Entry) -> str:
        """Give one object, without a line end: a comma may follow."""
        return f"  {format_json(describe(entry), '  ')}"

    def tail(self, rows: bool) -> str:
        """Close the list."""
        return "\n]\n" if rows else "]\n"


_CSV_COLUMNS = (
    "evpid", "msgid", "bucket", "type", "family", "address", "sender", "rcpt", "dest", "ctime",
    "ctime_time", "expiry", "last_try", "retry", "flags", "tag", "dispatcher", "message_size",
    "form", "version", "errorline", "path", "problems",
)  # fmt: skip


class Csv:
    """Comma separated values with a line of names (RFC 4180, with LF as line end)."""

    details = True
    fast = False
    safe = False
    separator = ""

    def head(self) -> str:
        """Give the names of the columns."""
        return ",".join(_CSV_COLUMNS) + "\n"

    def heading(self) -> str:
        """Give nothing: the names of the columns stand there without rows too."""
        return ""

    def row(self, entry: Entry) -> str:
        """Give one line."""
        facts = describe(entry)
        return ",".join([_csv(facts[column]) for column in _CSV_COLUMNS]) + "\n"

    def tail(self, rows: bool) -> str:  # noqa: ARG002  (all formats are asked alike)
        """Give nothing."""
        return ""


def _csv(value: Any) -> str:
    if value is None:
        return ""
    spelled = "; ".join(value) if isinstance(value, list) else str(value)
    # A spreadsheet takes what begins so for a formula, and runs it.
    if isinstance(value, str) and spelled[:1] in ("=", "+", "-", "@") and spelled != "@":
        spelled = "'" + spelled
    if any(letter in spelled for letter in ',"\r\n'):
        return '"' + spelled.replace('"', '""') + '"'
    return spelled


_INDENT = "    "
_COLUMNS_LEAST = 30  # an id, an age and a size
_COLUMNS_FOR_TRIES = 36
_COLUMNS_FOR_ADDRESSES = 60  # below, addresses stand on lines of their own
_FIXED = 16 + 2 + 6 + 1 + 5 + 1 + 5 + 2  # id, age, size, tries, and the gaps behind them
_ROLES = ("  from ", "    to ")  # before addresses on lines of their own


class Table:
    """Columns for people, wrapped to a width; what failed last stands below each entry."""

    details = True
    fast = False
    safe = True
    separator = ""

    def __init__(self, columns: int, now: int, colour: bool) -> None:
        """Fit into so many columns; ages are those at `now`."""
        self._columns = max(columns, _COLUMNS_LEAST)
        self._wide = self._columns >= _COLUMNS_FOR_ADDRESSES
        self._sender = (self._columns - _FIXED - 2) // 2
        self._recipient = self._columns - _FIXED - 2 - self._sender
        self._now = now
        self._colour = colour

    def head(self) -> str:
        """Give nothing: an empty queue has no heading."""
        return ""

    def heading(self) -> str:
        """Name the columns."""
        names = self._fixed("ENVELOPE", "AGE", "SIZE", "TRIES")
        if self._wide:
            names += f"  {'SENDER':{self._sender}}  RECIPIENT"
        return f"\x1b[1m{names}\x1b[0m\n" if self._colour else f"{names}\n"

    def _fixed(self, evpid: str, age: str, size: str, tries: str) -> str:
        columns = f"{evpid:16}  {age:>6} {size:>5}"
        return f"{columns} {tries:>5}" if self._columns >= _COLUMNS_FOR_TRIES else columns

    def row(self, entry: Entry) -> str:
        """Give one entry: a line of columns, and as many below as its texts need."""
        envelope, item = entry.envelope, entry.item
        age = _age(self._now - envelope.ctime) if envelope.ctime else "?"
        size = units.format_size(item.message_size) if item.message_size >= 0 else "?"
        recipient = envelope.dest or envelope.rcpt
        if envelope.rcpt not in ("", recipient):
            recipient = f"{recipient} (for {envelope.rcpt})"
        addresses = _shown_address(envelope.sender), _shown_address(recipient)
        fixed = self._fixed(f"{entry.evpid:016x}", age, size, str(envelope.retry))
        lines = self._beside(fixed, *addresses) if self._wide else self._below(fixed, addresses)
        lines += [_INDENT + line for line in self._notes(entry)]
        return "\n".join(lines) + "\n"

    def _beside(self, fixed: str, sender: str, recipient: str) -> list[str]:
        """Put addresses into columns."""
        senders = _wrap(sender, self._sender)
        recipients = _wrap(recipient, self._recipient)
        lines = []
        for index in range(max(len(senders), len(recipients))):
            left = senders[index] if index < len(senders) else ""
            right = recipients[index] if index < len(recipients) else ""
            start = fixed if index == 0 else " " * (_FIXED - 2)
            lines.append(f"{start}  {left:{self._sender}}  {right}".rstrip())
        return lines

    def _below(self, fixed: str, addresses: tuple[str, str]) -> list[str]:
        """Put addresses on lines of their own."""
        lines = [fixed]
        for role, address in zip(_ROLES, addresses):
            first, *more = _wrap(address, self._columns - len(role))
            lines += [role + first, *(" " * len(role) + line for line in more)]
        return lines

    def _notes(self, entry: Entry) -> list[str]:
        width = self._columns - len(_INDENT)
        lines = _wrap(", ".join(self._about(entry)), width)
        if not entry.evpid & 0xFFFFFFFF:  # no id tells it from others
            lines += _wrap(entry.item.path, width)
        for colour, noted in ((31, [entry.envelope.errorline]), (33, _warnings(entry))):
            for line in [line for note in noted if note for line in _wrap(note, width)]:
                lines.append(f"\x1b[{colour}m{line}\x1b[0m" if self._colour else line)
        return lines

    def _about(self, entry: Entry) -> list[str]:
        envelope, item = entry.envelope, entry.item
        about = [f"{envelope.type}, since {format_local(envelope.ctime) or 'an unknown time'}"]
        if self._columns < _COLUMNS_FOR_TRIES:
            about.append(f"tries: {envelope.retry}")
        if item.bucket != "queue":
            about.append(f"in {item.bucket}")
        if entry.form != "plain":
            about.append(entry.form)
        if envelope.type == "bounce":
            about.append(f"notice: {envelope.bounce_type}")
        return about

    def tail(self, rows: bool) -> str:  # noqa: ARG002  (all formats are asked alike)
        """Give nothing."""
        return ""


def _warnings(entry: Entry) -> list[str]:
    """Say what is wrong with an entry, or else that the newest release would not read it."""
    if entry.problems or entry.parsed is None or refusal(entry.parsed, RELEASES[-1]) is None:
        return entry.problems
    refused = explain_refusals(entry)
    read_by = [name for name in _RELEASE_NAMES if name not in refused]
    span = read_by[0] if len(read_by) == 1 else f"{read_by[0]} to {read_by[-1]}"
    return [f"read by {span} only"]


def _age(seconds: int) -> str:
    """Spell an age in the six characters of its column."""
    age = units.format_duration(seconds)
    if len(age) > 6:
        age = age.partition("d")[0] + "d"
    if len(age) > 6:
        age = "future" if seconds < 0 else "?"
    return age


def _shown_address(address: str) -> str:
    return "<>" if address in ("", "@") else address.removesuffix("@")


def _wrap(foreign: str, width: int) -> list[str]:
    """Break a text into lines of a width, at blanks where there are some; escapes it first."""
    rest = text.escape(foreign)
    lines = []
    while len(rest) > width:
        cut = rest.rfind(" ", 0, width + 1)
        if cut <= 0:
            lines.append(rest[:width])
            rest = rest[width:]
        else:
            lines.append(rest[:cut])
            rest = rest[cut + 1 :]
    lines.append(rest)
    return lines
