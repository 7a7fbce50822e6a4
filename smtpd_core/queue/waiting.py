"""What the scheduler needs to know of an envelope, read as fast as a start needs it."""

from __future__ import annotations

from smtpd_core import text
from smtpd_core.queue.envelope import FIELDS, TYPES, Envelope, EnvelopeError, parse_envelope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Union

FORMATS = (1, 2, 3)
_NAMES = frozenset(name.encode() for name in FIELDS)
_TYPES = {name.encode(): name for name in TYPES}
_VERSIONS = {b"2": 2, b"3": 3}
_NUMBER_DIGITS_MAX = 18
_CACHED_MAX = 10_000  # texts shared between envelopes; far more than dispatchers and big hosts


class Waiting:
    """One envelope that waits.

    `kind` is the type as stored, which in format 3 only says for sure that something is a
    bounce: the dispatcher tells local from relay. `ttl` is 0 in format 3, where the configuration
    decides. `destination` is what belongs together: the domain of a relayed recipient, the user
    or address of a local one, nothing for a bounce.
    """

    __slots__ = ("ctime", "destination", "dispatcher", "evpid", "kind", "retry", "ttl")

    def __init__(self, evpid: int, kind: str, dispatcher: str, destination: str) -> None:
        """Describe an envelope that was never tried."""
        self.evpid = evpid
        self.kind = kind
        self.dispatcher = dispatcher
        self.destination = destination
        self.ctime = 0
        self.retry = 0
        self.ttl = 0


def waiting_of(evpid: int, envelope: Envelope) -> Waiting:
    """Take from an envelope what the scheduler needs."""
    waiting = Waiting(
        evpid,
        envelope.type,
        envelope.dispatcher,
        destination_of(envelope.type, envelope.dest, envelope.mda_user),
    )
    waiting.ctime = envelope.ctime
    waiting.retry = envelope.retry
    waiting.ttl = envelope.ttl if envelope.version < 3 else 0
    return waiting


def destination_of(kind: str, dest: str, mda_user: str) -> str:
    """Give what groups an envelope with others; a domain in lower case."""
    if kind == "bounce":
        return ""
    if kind == "mda":
        return mda_user or dest
    return dest[dest.rfind("@") + 1 :].lower()


class WaitingReader:
    """Reads envelopes for the scheduler; texts that come again and again are kept once."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        """Start without any text seen."""
        self._texts: dict[str, str] = {}

    def read(self, evpid: int, octets: bytes) -> Waiting:
        """Read one envelope; raises EnvelopeError with all that is wrong with it.

        An ordinary text is looked at only as far as needed: what else may be wrong with it is
        found when it is delivered.
        """
        waiting = self._read_plain(evpid, octets)
        if waiting is None:
            parsed = parse_envelope(octets)
            if parsed.damage:
                raise EnvelopeError("; ".join(parsed.damage))
            if parsed.envelope.version not in FORMATS:
                raise EnvelopeError(f"no release writes format {parsed.envelope.version}")
            waiting = waiting_of(evpid, parsed.envelope)
        if len(self._texts) > _CACHED_MAX:
            self._texts.clear()
        kept = self._texts.setdefault
        waiting.dispatcher = kept(waiting.dispatcher, waiting.dispatcher)
        waiting.destination = kept(waiting.destination, waiting.destination)
        return waiting

    def _read_plain(self, evpid: int, octets: bytes) -> Union[Waiting, None]:
        """Read a text in which nothing is unusual; None for any other."""
        lines = octets.split(b"\n")
        if lines.pop():
            return None
        try:
            values = dict([line.split(b": ", 1) for line in lines])
            version = _VERSIONS[values[b"version"]]
            kind = _TYPES[values[b"type"]]
            ctime, retry, dest = values[b"ctime"], values[b"retry"], values[b"dest"]
            ttl = values[b"expire"] if version == 2 else b"0"
        except (KeyError, ValueError):
            return None
        if (
            len(values) != len(lines)
            or not values.keys() <= _NAMES
            or not (ctime.isdigit() and retry.isdigit() and ttl.isdigit() and b"@" in dest)
            or len(ctime) + len(retry) + len(ttl) > _NUMBER_DIGITS_MAX
            or dest[:1].isspace()
            or b"\0" in octets
        ):
            return None
        decode: Callable[[bytes], str] = text.decode
        waiting = Waiting(
            evpid,
            kind,
            decode(values.get(b"dispatcher", b"")),
            destination_of(kind, decode(dest), decode(values.get(b"mda-user", b""))),
        )
        waiting.ctime = int(ctime)
        waiting.retry = int(retry)
        waiting.ttl = int(ttl)
        return waiting
