"""From stored objects to what a listing shows: unwrap, parse, judge."""

from __future__ import annotations

from smtpd_core import text
from smtpd_core.errors import FormatError, LocalError
from smtpd_core.queue.envelope import Envelope, EnvelopeError, parse_envelope
from smtpd_core.queue.layout import ENVELOPE_OCTETS_MAX
from smtpd_core.queue.releases import common_refusal, readers
from smtpd_core.queue.sources import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Optional, Union

    from smtpd_core.queue.codec import Key
    from smtpd_core.queue.envelope import Parsed
    from smtpd_core.queue.sources import Item

    KeySource = Callable[[], Optional[Key]]

_WRAPPED = (b"\x01", b"\x1f")  # how encrypted and compressed objects begin
_FOREIGN = "a file that does not belong to a spool"
_OFFLINE_STAMP_DIGITS = 10


class Entry:
    """One line of a listing: an envelope, or what stands in for one that does not exist.

    `evpid` has a lower half of 0 where there is no envelope. `problems` say what is wrong with
    it: what could not be read (`damaged` is true then), or why no release would read it.
    """

    __slots__ = ("damaged", "envelope", "evpid", "form", "item", "parsed", "problems")

    def __init__(self, item: Item, envelope: Envelope) -> None:
        """Describe an entry without problems."""
        self.item = item
        self.envelope = envelope
        self.evpid = item.evpid
        self.form = "plain"
        self.parsed: Optional[Parsed] = None
        self.problems: list[str] = list(item.notes)
        self.damaged = bool(item.notes)

    @property
    def read_by(self) -> list[str]:
        """Name the releases whose daemon would load it."""
        return [] if self.parsed is None or self.item.notes else readers(self.parsed)


def read_entries(item: Item, key: KeySource) -> Iterator[Union[Entry, Unreadable]]:
    """Turn an item into entries: one, or one for each recipient of an offline file.

    `key` is asked only when an encrypted object is met.
    """
    if item.kind == "offline":
        yield from _read_offline(item)
    elif item.kind == "body":
        yield _describe_body(item)
    else:
        yield _read_envelope(item, key)


def _read_envelope(item: Item, key: KeySource) -> Union[Entry, Unreadable]:
    stray = item.kind == "stray"
    if len(item.octets) > ENVELOPE_OCTETS_MAX:
        large = f"too large: more than {ENVELOPE_OCTETS_MAX} octets"
        return Unreadable(item.path, _FOREIGN if stray else large)
    wrong = ""
    try:
        octets, form, wrong = unwrap(item.octets, key)
        parsed = parse_envelope(octets)
    except EnvelopeError as error:
        return Unreadable(item.path, _FOREIGN if stray else wrong or str(error))
    except FormatError as error:  # of the compression or the encryption
        return Unreadable(item.path, str(error))
    if stray and not ("sender" in parsed.names or "rcpt" in parsed.names):
        return Unreadable(item.path, _FOREIGN)
    if wrong:
        parsed.damage.insert(0, wrong)
    entry = Entry(item, parsed.envelope)
    entry.parsed = parsed
    entry.form = form
    _judge(entry, parsed)
    return entry


def _judge(entry: Entry, parsed: Parsed) -> None:
    """Say what is wrong with an envelope."""
    entry.problems += parsed.damage
    if parsed.missing:
        entry.problems.append(f"it lacks {', '.join(parsed.missing)}")
    entry.damaged = entry.damaged or bool(parsed.damage or parsed.missing)
    refused = None if parsed.damage else common_refusal(parsed)
    if refused is not None:
        entry.problems.append(f"no release reads it: {refused}")


def unwrap(octets: bytes, key: KeySource) -> tuple[bytes, str, str]:
    """Undo compression and encryption of an envelope; give its text and its form.

    Of damaged gzip data, and of a file that is too large, gives what can be had of the text and,
    at last, what is wrong; that is empty otherwise. Raises CodecError when nothing can be had.
    """
    if not octets.startswith(_WRAPPED):
        wrong = f"too large: only its first {ENVELOPE_OCTETS_MAX} octets were read"
        fits = len(octets) <= ENVELOPE_OCTETS_MAX
        return octets[:ENVELOPE_OCTETS_MAX], "plain", "" if fits else wrong
    from smtpd_core.queue import codec

    wanted = key() if octets[:1] == b"\x01" else None
    try:
        return (*codec.decode_envelope(octets, wanted, ENVELOPE_OCTETS_MAX), "")
    except codec.CodecError as error:
        plain, form = _salvage(octets, wanted)
        if not plain or len(plain) > ENVELOPE_OCTETS_MAX:
            raise
        return plain, form, str(error)


class _Once:
    """Octets that are read once; see codec.Stored."""

    __slots__ = ("_rest",)

    def __init__(self, octets: bytes) -> None:
        self._rest = octets

    def read(self, size: int) -> bytes:
        octets, self._rest = self._rest[:size], self._rest[size:]
        return octets

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int) -> int:
        raise LocalError(f"seek({offset}) on what said that it cannot")


def _salvage(octets: bytes, key: Optional[Key]) -> tuple[bytes, str]:
    """Read an envelope as bodies are read, which gives what comes before the damage."""
    from smtpd_core.queue import codec

    found = b""
    form = ""
    try:
        pieces, form = codec.decode_message(_Once(octets), key)
        for piece in pieces:
            found += piece
            if len(found) > ENVELOPE_OCTETS_MAX:
                break
    except codec.CodecError:
        pass  # decode_envelope has said why
    return found, form


def _describe_body(item: Item) -> Entry:
    envelope = Envelope(type="?", ctime=item.mtime)
    if item.bucket == "temporary":
        envelope.errorline = "a message in reception; its envelopes are in incoming"
    else:
        envelope.errorline = "a message without envelopes"
    return Entry(item, envelope)


def _read_offline(item: Item) -> Iterator[Union[Entry, Unreadable]]:
    from smtpd_core.queue.offline import RECIPIENTS_MAX, OfflineError, parse_submission

    try:
        submission = parse_submission(item.octets)
    except OfflineError as error:
        yield Unreadable(item.path, str(error))
        return
    stamp = item.path.rpartition("/")[2].partition(".")[0]
    known = len(stamp) <= _OFFLINE_STAMP_DIGITS and stamp.isascii() and stamp.isdigit()
    created = int(stamp) if known else item.mtime
    for recipient in submission.recipients or [""]:
        envelope = Envelope(
            type="?",
            family="local",
            sender=_address(submission.sender),
            rcpt=_address(recipient),
            dest=_address(recipient),
            ctime=created,
        )
        entry = Entry(item, envelope)
        if not submission.recipients:
            entry.problems.append("it names no recipient: its submission will fail")
        elif submission.cut and recipient is submission.recipients[-1]:
            entry.problems.append(f"only its first {RECIPIENTS_MAX} recipients are shown")
        yield entry


def _address(typed: str) -> str:
    """Spell an address as envelopes do; one without domain gets that of the daemon later."""
    return text.decode(text.encode(typed)) if "@" in typed else f"{typed}@"
