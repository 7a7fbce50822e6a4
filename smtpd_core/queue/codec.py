"""The layers around a stored object: gzip, encryption, both or none.

A daemon goes by its configuration and detects nothing; a rescue tool has only the file, so here
the first octets tell: 0x01 is an encrypted object, 1f 8b a gzip one, neither can begin a text.
Order: compressed, then encrypted.

Nothing that was decrypted leaves this module before its tag was verified. For a body that is too
large to keep, this takes two passes over the file; a checksum of each piece makes sure that both
passes saw the same octets.

Source: OpenSMTPD compress_gzip.c, crypto.c; RFC 1952.
"""

from __future__ import annotations

import struct
import zlib

from smtpd_core.errors import FormatError, LocalError
from smtpd_core.queue.aesgcm import IV_OCTETS, KEY_OCTETS, MAX_TEXT_OCTETS, TAG_OCTETS, AesGcm

TYPE_CHECKING = False  # typing costs 7 ms at run time; checkers know this name
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional, Protocol

    from smtpd_core.queue.aesgcm import Stream

    class Stored(Protocol):
        """A stored object: what open(path, "rb") gives will do.

        read may give less than asked for, and nothing only at the end; position 0 is the
        beginning of the object. seek is called only where seekable says yes.
        """

        def read(self, size: int, /) -> bytes: ...  # noqa: D102
        def seekable(self) -> bool: ...  # noqa: D102
        def seek(self, offset: int, /) -> int: ...  # noqa: D102


PLAIN = "plain"
GZIP = "gzip"
ENCRYPTED = "encrypted"
GZIP_ENCRYPTED = "gzip+encrypted"

_ENCRYPTED_MAGIC = b"\x01"  # the version of the format
_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_OCTETS = len(_ENCRYPTED_MAGIC) + IV_OCTETS
_LEAST_ENCRYPTED = _HEADER_OCTETS + TAG_OCTETS

# Deflate, no name, no time, no hint of the level, written on Unix: what zlib makes there.
_GZIP_HEADER = bytes.fromhex("1f8b0800000000000003")
_GZIP_WINDOW = 31  # gzip, and no other wrapping
_RAW_WINDOW = -15
_MEMORY_LEVEL = 8

_NOT_GZIP = ("incorrect header check", "unknown compression method", "unknown header flags set",
             "header crc mismatch")  # fmt: skip
_WRONG_SUM = ("incorrect data check", "incorrect length check")

_PIECE = 1 << 16  # octets read, or decompressed, at a time
_KEPT = 1 << 20  # up to here a second pass is over octets kept in memory
_SUM_OCTETS = 4
MAX_BUFFERED = 64 << 20  # encrypted octets kept of an object that can be read only once


class CodecError(FormatError):
    """A stored object that cannot be opened; the text does not name the object."""


class Key:
    """The key of an encrypted queue, from parse_key."""

    __slots__ = ("cipher",)

    def __init__(self, cipher: AesGcm) -> None:
        """Wrap the cipher, which holds the key."""
        self.cipher = cipher

    def __repr__(self) -> str:
        return "<secret>"


def parse_key(octets: bytes, backend: Optional[str] = None) -> Key:
    """Read a queue key as it comes from a file or a terminal: 32 octets, perhaps a line end.

    The octets themselves are the key; hexadecimal digits are not converted. The backend is one
    of aesgcm's. Raises CodecError.
    """
    if octets.endswith(b"\n"):
        octets = octets[: -2 if octets.endswith(b"\r\n") else -1]
    if len(octets) != KEY_OCTETS:
        raise CodecError(f"the queue key must be {KEY_OCTETS} octets, this one has {len(octets)}")
    return Key(AesGcm(octets, backend))


def detect(head: bytes) -> str:
    """Tell the outermost form from the first two octets: PLAIN, GZIP or ENCRYPTED."""
    if head.startswith(_ENCRYPTED_MAGIC):
        return ENCRYPTED
    return GZIP if head.startswith(_GZIP_MAGIC) else PLAIN


def encode(plain: bytes, compress: bool, key: Optional[Key], iv: Optional[bytes]) -> bytes:
    """Wrap an object as a daemon stores it; with a key, iv is 12 random octets never used before.

    The daemons cannot read an encrypted body without any octet in it.
    """
    stored = _gzip(plain) if compress else plain
    if key is None:
        return stored
    if iv is None:
        raise LocalError("encryption needs an IV")
    ciphertext, tag = key.cipher.encrypt(iv, stored)
    return b"".join((_ENCRYPTED_MAGIC, iv, ciphertext, tag))


def decode_envelope(stored: bytes, key: Optional[Key], limit: int) -> tuple[bytes, str]:
    """Unwrap an envelope; give its text, of at most limit octets, and its form.

    Like the daemon, takes the first gzip member and ignores what follows. Raises CodecError.
    """
    form = detect(stored)
    if form == ENCRYPTED:
        iv, cipher = _open_header(stored, key)
        plain = cipher.decrypt(iv, stored[_HEADER_OCTETS:-TAG_OCTETS], stored[-TAG_OCTETS:])
        if plain is None:
            raise _wrong_tag()
        stored = plain
        if detect(stored) == GZIP:
            form = GZIP_ENCRYPTED
    if form in (GZIP, GZIP_ENCRYPTED):
        inflater = zlib.decompressobj(_GZIP_WINDOW)
        try:
            stored = inflater.decompress(stored, limit + 1)  # never 0, which means no limit
        except zlib.error as error:
            raise _bad_gzip(error) from None
        if not inflater.eof and len(stored) <= limit:
            raise CodecError("the gzip data ends too early: the file was cut")
    if len(stored) > limit:
        raise CodecError(f"too large: more than {limit} octets")
    return stored, form


def decode_message(
    stored: Stored, key: Optional[Key], max_buffered: int = MAX_BUFFERED
) -> tuple[Iterator[bytes], str]:
    """Unwrap a message body of any size; give its text in pieces, and its form.

    Whatever encryption can be wrong with is found before this returns. Damaged or cut gzip data
    is found by the iterator, which first gives all that can be had. As for the daemon, a body may
    have several gzip members, and what follows them is ignored.
    Raises CodecError, also from the iterator.
    """
    pieces = _read_pieces(stored)
    first = next(pieces, b"")
    form = detect(first)
    if form == ENCRYPTED:
        pieces = _verify(stored, _prepend(first, pieces), key, max_buffered)
        first = next(pieces, b"")
        if detect(first) == GZIP:
            form = GZIP_ENCRYPTED
    pieces = _prepend(first, pieces)
    return (_gunzip(pieces) if form in (GZIP, GZIP_ENCRYPTED) else pieces), form


# --- encryption


def _open_header(head: bytes, key: Optional[Key]) -> tuple[bytes, AesGcm]:
    """Give the IV and the cipher for an encrypted object that begins so."""
    if len(head) < _LEAST_ENCRYPTED:
        raise CodecError(
            f"the file was cut: an encrypted one has at least {_LEAST_ENCRYPTED} octets, "
            f"this one has {len(head)}"
        )
    if key is None:
        raise CodecError("encrypted, and no queue key was given")
    return head[len(_ENCRYPTED_MAGIC) : _HEADER_OCTETS], key.cipher


def _wrong_tag() -> CodecError:
    return CodecError("cannot be decrypted: the queue key is wrong, or the file was damaged or cut")


class _Ciphertext:
    """The ciphertext of an encrypted object, in pieces; then its tag."""

    __slots__ = ("_pieces", "tag")

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.tag = b""

    def __iter__(self) -> Iterator[bytes]:
        held = next(self._pieces, b"")[_HEADER_OCTETS:]
        for piece in self._pieces:
            if len(held) > TAG_OCTETS:
                yield held[:-TAG_OCTETS]
            held = held[-TAG_OCTETS:] + piece
        if len(held) > TAG_OCTETS:
            yield held[:-TAG_OCTETS]
        self.tag = held[-TAG_OCTETS:]


def _verify(
    stored: Stored, pieces: Iterator[bytes], key: Optional[Key], max_buffered: int
) -> Iterator[bytes]:
    """Verify the tag of a whole object, then give an iterator that decrypts it."""
    first = next(pieces)
    iv, cipher = _open_header(first, key)
    verifier = cipher.verifier(iv, len(first))
    ciphertext = _Ciphertext(_prepend(first, pieces))
    seekable = stored.seekable()
    kept: list[bytes] = []
    sums = bytearray()
    total = 0
    for piece in ciphertext:
        verifier.feed(piece)
        sums += _sum(piece)
        total += len(piece)
        if total > MAX_TEXT_OCTETS:
            raise CodecError("too large: no encrypted file has more than 64 GiB")
        if not seekable and total > max_buffered:
            raise CodecError(
                f"too large: more than {max_buffered} encrypted octets, from a source that can be "
                "read only once; save it to a file first"
            )
        if seekable and total > _KEPT:
            kept.clear()
        else:
            kept.append(piece)
    if not verifier.matches(ciphertext.tag):
        raise _wrong_tag()
    if total > _KEPT and seekable:
        return _decrypt(_read_again(stored), cipher.decryptor(iv, total), bytes(sums))
    return _decrypt(iter(kept), cipher.decryptor(iv, total), bytes(sums))


def _read_again(stored: Stored) -> Iterator[bytes]:
    stored.seek(0)
    yield from _Ciphertext(_read_pieces(stored))


def _decrypt(ciphertext: Iterator[bytes], decryptor: Stream, sums: bytes) -> Iterator[bytes]:
    """Decrypt pieces whose checksums are those of the pieces that were verified."""
    done = 0
    for piece in ciphertext:
        if sums[done : done + _SUM_OCTETS] != _sum(piece):
            break
        yield decryptor.feed(piece)
        done += _SUM_OCTETS
    if done != len(sums):
        raise CodecError("the file changed while it was read")


def _sum(piece: bytes) -> bytes:
    return zlib.crc32(piece).to_bytes(_SUM_OCTETS, "big")


# --- gzip


def _gzip(plain: bytes) -> bytes:
    """Make one gzip member, byte for byte what a daemon with the same zlib makes."""
    deflater = zlib.compressobj(
        zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, _RAW_WINDOW, _MEMORY_LEVEL
    )
    data = deflater.compress(plain) + deflater.flush()
    end = struct.pack("<LL", zlib.crc32(plain), len(plain) & 0xFFFFFFFF)
    return _GZIP_HEADER + data + end


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress member after member."""
    member = None
    held = b""
    for piece in pieces:
        held += piece
        while held:
            if member is None:
                if len(held) < len(_GZIP_MAGIC):
                    break
                if not held.startswith(_GZIP_MAGIC):
                    return
                member = zlib.decompressobj(_GZIP_WINDOW)
            yield from _inflate(member, held)
            held = member.unused_data
            if member.eof:
                member = None
    if member is not None:
        raise CodecError("the gzip data ends too early: the file was cut")


def _inflate(member: zlib._Decompress, octets: bytes) -> Iterator[bytes]:
    """Decompress until the octets are used up or the member ends."""
    plain = b""
    while octets or len(plain) == _PIECE:  # a full piece: zlib may hold more
        before = member.copy()
        try:
            plain = member.decompress(octets, _PIECE)
        except zlib.error as error:
            plain = _salvage(before, octets)
            if plain:
                yield plain
            raise _bad_gzip(error) from None
        if plain:
            yield plain
        if member.eof:
            return
        octets = member.unconsumed_tail


def _salvage(member: zlib._Decompress, octets: bytes) -> bytes:
    """Give what one call of decompress lost because an error came after it, in tiny steps."""
    plain = bytearray()
    try:
        for at in range(len(octets) + 1):
            part = octets[at - 1 : at] if at else b""  # first what the member already holds
            while True:
                step = member.decompress(part, 1)
                plain += step
                part = member.unconsumed_tail
                if not step:
                    break
    except zlib.error:
        pass
    return bytes(plain)


def _bad_gzip(error: zlib.error) -> CodecError:
    """Turn zlib's words into ours."""
    reason = str(error).rpartition(": ")[2]
    if reason in _NOT_GZIP:
        return CodecError(f"begins like gzip data but is none ({reason})")
    if reason in _WRONG_SUM:
        return CodecError(f"the gzip data is damaged: its checksum does not match ({reason})")
    return CodecError(f"the gzip data is damaged ({reason})")


# --- pieces


def _read_pieces(stored: Stored) -> Iterator[bytes]:
    """Read to the end; all pieces but the last have the same size, however short the reads."""
    while True:
        parts = []
        missing = _PIECE
        while missing:
            part = stored.read(missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        if parts:
            yield b"".join(parts)
        if missing:
            return


def _prepend(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from pieces
