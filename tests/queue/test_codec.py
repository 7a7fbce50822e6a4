"""The layers around stored objects: files of real daemons, refusals, bounds."""

from __future__ import annotations

import gzip
import io
import json
import pathlib
import random
import subprocess
import sys
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import LocalError
from smtpd_core.queue import codec
from smtpd_core.queue.codec import (
    ENCRYPTED,
    GZIP,
    GZIP_ENCRYPTED,
    PLAIN,
    CodecError,
    Key,
    decode_envelope,
    decode_message,
    detect,
    encode,
    parse_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
VECTORS = ROOT / "tests/vectors/codec"
INDEX = json.loads((VECTORS / "index.json").read_text())

KEY = parse_key(b"0123456789abcdef0123456789abcdef")
IV = bytes.fromhex("000102030405060708090a0b")
LIMIT = 1 << 16

# The test vector that a 6.8 client opens.
TEXT = b"Received: from x\n\nhello world\n"
ENCRYPTED_TEXT = bytes.fromhex(
    "01000102030405060708090a0b7f80d819b06eb7c892fc17cc1ea2f17cec026be2"
    "50d01bab57b3c9d8dc2f08ccacf84dc5ee13de266c6f73c4f157"
)
GZIP_TEXT = encode(TEXT, True, None, None)
NOISE = random.Random(3).randbytes(400_000)  # hardly compresses


class Stored(io.BytesIO):
    """A stored object whose reads may be short, and which may be a stream."""

    def __init__(self, octets: bytes, seekable: bool = True, most: int = 1 << 30) -> None:
        super().__init__(octets)
        self.is_seekable = seekable
        self.most = most

    def seekable(self) -> bool:
        return self.is_seekable

    def seek(self, offset: int, whence: int = 0, /) -> int:
        assert self.is_seekable
        return super().seek(offset, whence)

    def read(self, size: Optional[int] = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        return super().read(min(size, self.most))


def message(octets: bytes, key: Optional[Key] = None) -> tuple[bytes, str]:
    pieces, form = decode_message(Stored(octets), key)
    return b"".join(pieces), form


def until_error(pieces: Iterator[bytes]) -> tuple[bytes, str]:
    """Collect what an iterator gives before it fails, and how it fails."""
    got = []
    try:
        for piece in pieces:
            got.append(piece)
    except CodecError as error:
        return b"".join(got), str(error)
    return b"".join(got), ""


# --- what daemons wrote


@pytest.mark.parametrize("name", INDEX)
def test_files_of_real_daemons(name: str) -> None:
    stored = (VECTORS / f"{name}.stored").read_bytes()
    plain = (VECTORS / f"{name}.plain").read_bytes()
    form, digits = INDEX[name]["form"], INDEX[name]["key"]
    key = parse_key(digits.encode()) if digits else None
    assert decode_envelope(stored, key, LIMIT) == (plain, form)
    assert message(stored, key) == (plain, form)
    if form == ENCRYPTED:
        assert encode(plain, False, key, stored[1:13]) == stored
    elif form == GZIP:
        assert stored[:10] == encode(plain, True, None, None)[:10]


def test_the_known_encrypted_text() -> None:
    assert encode(TEXT, False, KEY, IV) == ENCRYPTED_TEXT
    assert decode_envelope(ENCRYPTED_TEXT, KEY, LIMIT) == (TEXT, ENCRYPTED)
    assert message(ENCRYPTED_TEXT, KEY) == (TEXT, ENCRYPTED)


def test_gzip_is_what_zlib_makes_with_the_daemons_settings() -> None:
    deflater = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, 31, 8)
    expected = deflater.compress(NOISE) + deflater.flush()
    stored = encode(NOISE, True, None, None)
    assert stored[:10].hex() == "1f8b0800000000000003"
    assert stored[10:] == expected[10:]  # the tenth octet names the system


# --- forms


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"", PLAIN),
        (b"version: 3\n", PLAIN),
        (b"\x1f", PLAIN),
        (b"\x8b\x1f", PLAIN),
        (b"\x00\x01", PLAIN),
        (b"\x1f\x8b", GZIP),
        (b"\x01", ENCRYPTED),
        (b"\x01\x1f\x8b", ENCRYPTED),
    ],
)
def test_detect(head: bytes, form: str) -> None:
    assert detect(head) == form


@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_decode_undoes_encode(plain: bytes, compress: bool, encrypt: bool) -> None:
    if not compress and detect(plain) != PLAIN:
        plain = b"x" + plain
    key = KEY if encrypt else None
    form = {
        (False, False): PLAIN,
        (True, False): GZIP,
        (False, True): ENCRYPTED,
        (True, True): GZIP_ENCRYPTED,
    }[compress, encrypt]
    stored = encode(plain, compress, key, IV)
    assert decode_envelope(stored, KEY, 301) == (plain, form)
    assert message(stored, KEY) == (plain, form)


@pytest.mark.parametrize("size", [0, 1, 65507, 65508, 65536, 131043, 1_048_576, 1_200_000])
@pytest.mark.parametrize("most", [1 << 30, 5000])
@pytest.mark.parametrize("seekable", [True, False])
@pytest.mark.parametrize("compress", [True, False])
def test_bodies_of_any_size(size: int, most: int, seekable: bool, compress: bool) -> None:
    plain = (NOISE * 4)[:size]
    stored = Stored(encode(plain, compress, KEY, IV), seekable, most)
    pieces, form = decode_message(stored, KEY)
    got = list(pieces)
    assert b"".join(got) == plain
    assert max(map(len, got), default=0) <= 1 << 17
    assert all(got)
    assert form == (GZIP_ENCRYPTED if compress else ENCRYPTED)


def test_an_empty_body_that_the_daemons_cannot_read() -> None:
    stored = encode(b"", False, KEY, IV)
    assert len(stored) == 29
    assert message(stored, KEY) == (b"", ENCRYPTED)
    assert message(b"") == (b"", PLAIN)


@given(
    st.one_of(
        st.binary(),
        st.binary().map(b"\x01".__add__),
        st.binary().map(b"\x1f\x8b".__add__),
        st.binary().map((GZIP_TEXT[:10]).__add__),
        st.binary().map(lambda octets: encode(b"\x1f\x8b" + octets, False, KEY, IV)),
    )
)
def test_any_octets_give_a_value_or_the_one_error(octets: bytes) -> None:
    for key in (None, KEY):
        try:
            plain, form = decode_envelope(octets, key, 500)
        except CodecError:
            pass
        else:
            assert len(plain) <= 500
            assert form in (PLAIN, GZIP, ENCRYPTED, GZIP_ENCRYPTED)
        try:
            pieces, form = decode_message(Stored(octets), key)
            list(pieces)
        except CodecError:
            pass


# --- keys


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_one_line_end_after_the_key_is_dropped(end: bytes) -> None:
    key = parse_key(b"0123456789abcdef0123456789abcdef" + end)
    assert decode_envelope(ENCRYPTED_TEXT, key, LIMIT)[0] == TEXT


@pytest.mark.parametrize(
    ("octets", "length"),
    [(b"", 0), (b"\n", 0), (b"s" * 31, 31), (b"s" * 33, 33), (b"s" * 32 + b"\n\n", 33),
     (b"s" * 32 + b"\r", 33), (b"s" * 31 + b"\n", 31)],
)  # fmt: skip
def test_keys_of_another_length(octets: bytes, length: int) -> None:
    with pytest.raises(CodecError) as caught:
        parse_key(octets)
    assert str(caught.value) == f"the queue key must be 32 octets, this one has {length}"


def test_the_key_is_not_shown() -> None:
    assert repr(KEY) == str(KEY) == repr(KEY.cipher) == "<secret>"


def test_encryption_needs_an_iv() -> None:
    with pytest.raises(LocalError):
        encode(b"text", False, KEY, None)


# --- refusals


WRONG = "cannot be decrypted: the queue key is wrong, or the file was damaged or cut"
CUT = "the gzip data ends too early: the file was cut"
OTHER_KEY = parse_key(b"fedcba9876543210fedcba9876543210")


@pytest.mark.parametrize(
    ("stored", "key", "sentence"),
    [
        (ENCRYPTED_TEXT, None, "encrypted, and no queue key was given"),
        (ENCRYPTED_TEXT, OTHER_KEY, WRONG),
        (ENCRYPTED_TEXT[:-1], KEY, WRONG),
        (ENCRYPTED_TEXT[:29], KEY, WRONG),
        (ENCRYPTED_TEXT + b"\n", KEY, WRONG),
        (ENCRYPTED_TEXT[:-1] + b"\x00", KEY, WRONG),
        (
            ENCRYPTED_TEXT[:28],
            KEY,
            "the file was cut: an encrypted one has at least 29 octets, this one has 28",
        ),
        (
            b"\x01",
            None,
            "the file was cut: an encrypted one has at least 29 octets, this one has 1",
        ),
        (GZIP_TEXT[:-1], None, CUT),
        (GZIP_TEXT[:20], None, CUT),
        (GZIP_TEXT[:2], None, CUT),
        (encode(GZIP_TEXT[:-1], False, KEY, IV), KEY, CUT),
        (
            GZIP_TEXT[:-8] + b"\x00" * 4 + GZIP_TEXT[-4:],
            None,
            "the gzip data is damaged: its checksum does not match (incorrect data check)",
        ),
        (
            GZIP_TEXT[:-4] + b"\x00" * 4,
            None,
            "the gzip data is damaged: its checksum does not match (incorrect length check)",
        ),
        (
            GZIP_TEXT[:10] + b"\xff" + GZIP_TEXT[11:],
            None,
            "the gzip data is damaged (invalid block type)",
        ),
        (
            b"\x1f\x8b\x09" + GZIP_TEXT[3:],
            None,
            "begins like gzip data but is none (unknown compression method)",
        ),
    ],
)
def test_each_refusal_says_why(stored: bytes, key: Optional[Key], sentence: str) -> None:
    with pytest.raises(CodecError) as caught:
        decode_envelope(stored, key, LIMIT)
    assert str(caught.value) == sentence
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    with pytest.raises(CodecError) as caught:
        message(stored, key)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("place", [0, 13, 1000, 700_000, -17, -1])
@pytest.mark.parametrize("seekable", [True, False])
def test_nothing_unverified_is_given(place: int, seekable: bool) -> None:
    stored = bytearray(encode((NOISE * 4)[:1_400_000], False, KEY, IV))
    stored[13 + place if place >= 0 else place] ^= 1
    with pytest.raises(CodecError, match="cannot be decrypted"):
        decode_message(Stored(bytes(stored), seekable), KEY)  # at the call: before any piece


class Changing(Stored):
    """A file that holds other octets once somebody goes back to its beginning."""

    def __init__(self, octets: bytes, later: bytes) -> None:
        super().__init__(octets)
        self.later = later

    def seek(self, offset: int, whence: int = 0, /) -> int:
        super().seek(0)
        self.truncate()
        self.write(self.later)
        return super().seek(offset, whence)


BODY = (NOISE * 4)[:1_400_000]
STORED_BODY = encode(BODY, False, KEY, IV)


@pytest.mark.parametrize(
    "later",
    [
        STORED_BODY[:900_000] + b"\x00" + STORED_BODY[900_001:],
        STORED_BODY[:900_000],
        STORED_BODY[: 13 << 16],  # a whole number of pieces
        STORED_BODY + b"more",
        ENCRYPTED_TEXT,
        b"",
    ],
    ids=["damaged", "cut", "cut between pieces", "longer", "another", "emptied"],
)
def test_a_file_that_changes_between_the_passes(later: bytes) -> None:
    try:
        pieces, _ = decode_message(Changing(STORED_BODY, later), KEY)
        got, sentence = until_error(pieces)
    except CodecError as error:  # already at the first piece
        got, sentence = b"", str(error)
    assert sentence == "the file changed while it was read"
    assert BODY.startswith(got)
    assert len(got) < len(BODY)


def test_a_stream_is_kept_up_to_a_bound() -> None:
    stored = encode(NOISE[:300_000], False, KEY, IV)
    pieces, _ = decode_message(Stored(stored, seekable=False), KEY, 300_000)
    assert b"".join(pieces) == NOISE[:300_000]
    with pytest.raises(CodecError) as caught:
        decode_message(Stored(stored, seekable=False), KEY, 299_999)
    assert str(caught.value) == (
        "too large: more than 299999 encrypted octets, from a source that can be read only once; "
        "save it to a file first"
    )
    pieces, _ = decode_message(Stored(stored), KEY, 0)  # a file needs no keeping
    assert b"".join(pieces) == NOISE[:300_000]


# --- gzip


def test_the_limit_of_an_envelope_is_exact() -> None:
    for compress in (False, True):
        for key in (None, KEY):
            stored = encode(TEXT, compress, key, IV)
            assert decode_envelope(stored, key, len(TEXT))[0] == TEXT
            with pytest.raises(CodecError) as caught:
                decode_envelope(stored, key, len(TEXT) - 1)
            assert str(caught.value) == f"too large: more than {len(TEXT) - 1} octets"


@pytest.mark.parametrize("more", [b"\n", b"\x00" * 600, b"\x1f", b"rubbish"])
def test_octets_after_the_gzip_data_are_ignored(more: bytes) -> None:
    assert decode_envelope(GZIP_TEXT + more, None, LIMIT) == (TEXT, GZIP)
    assert message(GZIP_TEXT + more) == (TEXT, GZIP)


def test_members_of_a_gzip_file() -> None:
    members = GZIP_TEXT + gzip.compress(b"") + gzip.compress(NOISE) + GZIP_TEXT
    assert message(members) == (TEXT + NOISE + TEXT, GZIP)
    assert decode_envelope(members, None, LIMIT) == (TEXT, GZIP)
    pieces, _ = decode_message(Stored(GZIP_TEXT + b"\x1f\x8brubbish"), None)
    assert until_error(pieces)[0] == TEXT


@pytest.mark.parametrize("cut", [300, 70_000, 200_000])
def test_a_cut_body_gives_what_it_has(cut: int) -> None:
    stored = encode(NOISE, True, None, None)[:cut]
    pieces, _ = decode_message(Stored(stored), None)
    got, sentence = until_error(pieces)
    assert sentence == CUT
    assert NOISE.startswith(got)
    assert got == zlib.decompressobj(31).decompress(stored)


def test_a_cut_bomb_gives_all_it_has() -> None:
    bomb = encode(bytes(1 << 20), True, None, None)
    for cut in range(80, 300):  # some leave output inside zlib when a piece is just full
        pieces, _ = decode_message(Stored(bomb[:cut]), None)
        assert until_error(pieces) == (zlib.decompressobj(31).decompress(bomb[:cut]), CUT)


def test_a_damaged_body_gives_what_came_before() -> None:
    text = b"".join(b"line %d of a text\n" % (number * 7919 % 100_003) for number in range(60_000))
    stored = bytearray(encode(text, True, None, None))
    stored[120_000:120_040] = b"\xff" * 40
    pieces, _ = decode_message(Stored(bytes(stored)), None)
    got, sentence = until_error(pieces)
    assert sentence.startswith("the gzip data is damaged")
    before = zlib.decompressobj(31).decompress(bytes(stored[:120_000]))
    assert got.startswith(before)
    assert text.startswith(before)
    assert len(before) > 300_000


DAMAGED = bytearray(encode(NOISE[:30_000] + TEXT * 3000, True, None, None))
DAMAGED[29_000:29_030] = bytes(30)


@given(
    st.sampled_from(
        [
            encode(TEXT * 6000, True, None, None) + GZIP_TEXT + b"\x1f",
            encode(NOISE[:70_000], True, None, None)[:-3],
            bytes(DAMAGED),
        ]
    ),
    st.lists(st.integers(1, 70_000), max_size=5),
)
def test_same_text_however_the_octets_arrive(stored: bytes, cuts: list[int]) -> None:
    ends = [0, *sorted(cut for cut in cuts if cut < len(stored)), len(stored)]
    pieces = [stored[start:end] for start, end in zip(ends, ends[1:])]
    assert until_error(codec._gunzip(iter(pieces))) == until_error(codec._gunzip(iter([stored])))


# --- bounds


def peak_of(stored: bytes, envelope: bool) -> int:
    tracemalloc.start()
    try:
        if envelope:
            with pytest.raises(CodecError, match="too large"):
                decode_envelope(stored, KEY, 8192)
        else:
            for _ in decode_message(Stored(stored), KEY)[0]:
                pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("envelope", [False, True])
def test_a_gzip_bomb_does_no_harm(encrypt: bool, envelope: bool) -> None:
    bomb = encode(bytes(10 << 20), True, KEY if encrypt else None, IV)
    peak_of(bomb, envelope)  # tables and libraries are loaded now
    assert peak_of(bomb, envelope) < 1 << 20


def test_a_large_encrypted_body_is_not_kept() -> None:
    stored = encode(bytes(8 << 20), False, KEY, IV)
    peak_of(stored, False)
    assert peak_of(stored, False) < 3 << 20


def test_a_plain_spool_needs_few_modules() -> None:
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from smtpd_core.queue import codec
codec.decode_envelope(codec.encode(b"text", True, None, None), None, 100)
print(*(name for name in ("ctypes", "typing", "re", "gzip", "hashlib") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-S", "-c", script], check=True, capture_output=True)
    assert done.stdout.split() == []
