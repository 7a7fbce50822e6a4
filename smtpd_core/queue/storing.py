"""How objects are put into the form in which they are stored, and taken out of it."""

from __future__ import annotations

from smtpd_core import text
from smtpd_core.queue import codec
from smtpd_core.queue.disk import FILE_MODE, SpoolError, refused
from smtpd_core.queue.envelope import Envelope, EnvelopeError, parse_envelope
from smtpd_core.queue.layout import ENVELOPE_OCTETS_MAX
from smtpd_core.queue.releases import find_release, format_envelope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Optional

    from smtpd_core.queue.codec import Key
    from smtpd_core.queue.disk import Disk

    Entropy = Callable[[int], bytes]

_IV_OCTETS = 12
_ELLIPSIS = "..."
# By format: the release whose writer we are; formats 1 and 2 are written as 5.7 did.
_WRITERS = {1: find_release("5.7"), 2: find_release("5.7"), 3: find_release("6.8")}
# By format written: the longest text that every release reads which knows the format.
_OCTETS_MAX = {2: find_release("5.7").octets, 3: find_release("7.8").octets}


class Settings:
    """How objects are stored, as `queue compression` and `queue encryption` say.

    They are for what is written; what is read tells by itself. server_name stands in where an
    envelope of format 1 lacks the name that format 2 wants.
    """

    __slots__ = ("compress", "key", "server_name")

    def __init__(
        self, compress: bool = False, key: Optional[Key] = None, server_name: str = ""
    ) -> None:
        """Store objects as they are, unless told otherwise."""
        self.compress = compress
        self.key = key
        self.server_name = server_name

    @property
    def wraps(self) -> bool:
        """Tell whether objects are stored in another form than their own."""
        return self.compress or self.key is not None


def wrap(octets: bytes, settings: Settings, entropy: Entropy) -> bytes:
    """Put an object into its stored form."""
    iv = None if settings.key is None else entropy(_IV_OCTETS)
    return codec.encode(octets, settings.compress, settings.key, iv)


def format_stored(envelope: Envelope, settings: Settings, entropy: Entropy) -> bytes:
    """Write an envelope in its own format, short enough for every release that knows it.

    Raises SpoolError, not temporary, for what must not or cannot be written.
    """
    if envelope.mta_relay_host:  # of 5.2.1 only: the later writers of format 1 would drop it
        raise SpoolError("an envelope of release 5.2.1 is not rewritten", temporary=False)
    release = _WRITERS.get(envelope.version)
    if release is None:
        raise SpoolError(f"an envelope of format {envelope.version}", temporary=False)
    try:
        bare = Envelope(**vars(envelope))
        bare.errorline = ""
        octets = format_envelope(bare, release, settings.server_name)
        room = _OCTETS_MAX[release.writes] - len(octets) - len("errorline: \n")
        if envelope.errorline:
            octets = format_envelope(
                _shortened(bare, envelope, room), release, settings.server_name
            )
    except EnvelopeError as error:
        raise SpoolError(f"the envelope cannot be written: {error}", temporary=False) from None
    if len(octets) > _OCTETS_MAX[release.writes]:
        raise SpoolError("the envelope is too long for any release", temporary=False)
    return wrap(octets, settings, entropy)


def _shortened(bare: Envelope, envelope: Envelope, room: int) -> Envelope:
    """Give an envelope as much of its error text as there is room for: it can be spared."""
    error = text.encode(envelope.errorline)
    if len(error) > room:
        error = error[: max(0, room - len(_ELLIPSIS))] + _ELLIPSIS.encode()
        bare.errorline = text.decode(error[: max(0, room)])
    else:
        bare.errorline = envelope.errorline
    return bare


def parse_stored(octets: bytes, key: Optional[Key]) -> Envelope:
    """Read the stored form of an envelope; SpoolError, not temporary, when it is damaged."""
    try:
        plain, _ = codec.decode_envelope(octets, key, ENVELOPE_OCTETS_MAX)
        parsed = parse_envelope(plain)
    except (codec.CodecError, EnvelopeError) as error:
        raise SpoolError(str(error), temporary=False) from None
    if parsed.damage:
        raise SpoolError("; ".join(parsed.damage), temporary=False)
    return parsed.envelope


class StoredBody:
    """An open body as codec.decode_message reads it."""

    __slots__ = ("_disk", "_handle", "_offset")

    def __init__(self, disk: Disk, handle: int) -> None:
        """Start at the beginning; the handle stays the caller's."""
        self._disk = disk
        self._handle = handle
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        """Read at most so many octets; none at the end. Raises OSError."""
        octets = self._disk.read(self._handle, size, self._offset)
        self._offset += len(octets)
        return octets

    def seekable(self) -> bool:
        """Say yes: it is a file."""
        return True

    def seek(self, offset: int, /) -> int:
        """Continue at another place."""
        self._offset = offset
        return offset

    def pieces(self, size: int) -> Iterator[bytes]:
        """Give all octets as they are stored, in pieces."""
        while True:
            piece = self.read(size)
            if not piece:
                return
            yield piece


def open_plain(disk: Disk, path: str, key: Optional[Key], copy_path: str) -> int:
    """Open a stored body as the text it holds; copy_path is for one that has to be unwrapped.

    The copy loses its name at once. Raises SpoolError, not temporary when the body is missing
    or damaged.
    """
    handle = -1
    try:
        handle = disk.open(path)
        plain = handle
        if codec.detect(disk.read(handle, 2, 0)) != codec.PLAIN:
            plain = _unwrap(disk, handle, key, copy_path)
        else:
            handle = -1
        disk.rewind(plain)
    except FileNotFoundError:
        raise SpoolError(f"{path}: the message is missing", temporary=False) from None
    except OSError as error:
        raise refused(path, error) from None
    except codec.CodecError as error:
        raise SpoolError(f"{path}: {error}", temporary=False) from None
    finally:
        if handle >= 0:
            disk.close(handle)
    return plain


def _unwrap(disk: Disk, handle: int, key: Optional[Key], path: str) -> int:
    copy = disk.create(path, FILE_MODE)
    try:
        disk.unlink(path)
        pieces, _ = codec.decode_message(StoredBody(disk, handle), key)
        for piece in pieces:
            disk.write(copy, piece)
    except (OSError, codec.CodecError):
        disk.close(copy)
        raise
    return copy
