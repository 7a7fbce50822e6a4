"""AES-256-GCM with a 96 bit IV and no additional data: what an encrypted queue is written in.

Two backends give the same octets. `openssl` calls libcrypto through ctypes: fast, constant time,
but it costs some 6 ms to load, and hosts without ctypes do not have it. `pure` is Python alone. It
looks secrets up in tables, so its timing depends on them: good for reading a spool on one's
own machine, not for a daemon, which therefore names `openssl`.

The pure cipher works on many blocks at once. A row of the AES state of n blocks is one string of
4n octets: bytes.translate does the substitution, whose tables have the round key folded in, and
integers of 4n octets do the mixing. GHASH has one table of 256 products for each place in a block.

Longer than other modules: the two backends are one noun, and easier to trust side by side.
Source: FIPS 197; NIST SP 800-38D.
"""

from __future__ import annotations

import struct
from _operator import _compare_digest as same_octets  # hmac has it too, but needs more

from smtpd_core.errors import LocalError, SmtpdError

TYPE_CHECKING = False  # typing costs 7 ms at run time; checkers know this name
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Optional, Protocol

    class Stream(Protocol):
        """One text on its way through the cipher, in pieces of any size.

        tag is for what was encrypted, matches for what was verified; either ends the stream.
        """

        def feed(self, octets: bytes) -> bytes: ...  # noqa: D102
        def tag(self) -> bytes: ...  # noqa: D102
        def matches(self, tag: bytes) -> bool: ...  # noqa: D102


KEY_OCTETS = 32
IV_OCTETS = 12
TAG_OCTETS = 16
MAX_TEXT_OCTETS = (1 << 36) - 32  # the block counter has 32 bits: SP 800-38D section 5.2.1.1

OPENSSL = "openssl"
PURE = "pure"

_ENCRYPT = "encrypt"
_DECRYPT = "decrypt"  # text only: for a text that was verified before
_VERIFY = "verify"  # tag only

_BLOCK = 16
_ROUNDS = 14
_PIECE = 1 << 16  # octets worked on at a time, in either backend: bounds the memory

# When pure Python has done about as much work as loading OpenSSL would have been, it pays to
# load it: at worst the two together take twice what the better one takes alone. Measured:
# loading 5 to 9 ms, pure 0.1 ms a text and another 0.1 ms for each 1000 octets.
_PURE_UNTIL = 1 << 16
_STREAM_COST = 700  # what starting a stream is worth, in octets; a text is verified, then decrypted

_KNOWN_TAG = bytes.fromhex("530f8afbc74536b9a963b4f1c4cb738b")  # key 0, IV 0, no text


class BackendError(SmtpdError):
    """The backend that was asked for does not work on this host."""


class AesGcm:
    """One key. An IV must never serve two texts under the same key.

    The backend is chosen by itself unless one is named; BackendError when that one is missing.
    """

    __slots__ = ("_backend", "_key", "_pure", "_spent")

    def __init__(self, key: bytes, backend: Optional[str] = None) -> None:
        """Take the 32 octets of a key, and perhaps the name of a backend."""
        if len(key) != KEY_OCTETS:
            raise LocalError(f"an AES-256 key has {KEY_OCTETS} octets, not {len(key)}")
        if backend not in (None, OPENSSL, PURE):
            raise LocalError(f"there is no cipher backend {backend!r}")
        if backend == OPENSSL and _openssl() is None:
            raise BackendError("no libcrypto with AES-256-GCM can be loaded by this Python")
        self._key = bytes(key)
        self._backend = backend
        self._pure: Optional[_PureKey] = None
        self._spent = 0

    def __repr__(self) -> str:
        return "<secret>"

    def encryptor(self, iv: bytes, octets: int = 0) -> Stream:
        """Start to encrypt; octets, here and below, is how long the text may be, when known."""
        return self._stream(_ENCRYPT, iv, octets)

    def verifier(self, iv: bytes, octets: int = 0) -> Stream:
        """Start to verify a ciphertext; feed gives nothing back."""
        return self._stream(_VERIFY, iv, octets)

    def decryptor(self, iv: bytes, octets: int = 0) -> Stream:
        """Start to decrypt a ciphertext that was verified; it has no tag to ask for."""
        return self._stream(_DECRYPT, iv, octets)

    def encrypt(self, iv: bytes, text: bytes) -> tuple[bytes, bytes]:
        """Give the ciphertext of a whole text, and its tag."""
        stream = self.encryptor(iv, len(text))
        return stream.feed(text), stream.tag()

    def decrypt(self, iv: bytes, ciphertext: bytes, tag: bytes) -> Optional[bytes]:
        """Give the text of a whole ciphertext, or None when the tag does not belong to it."""
        verifier = self.verifier(iv, len(ciphertext))
        verifier.feed(ciphertext)
        if not verifier.matches(tag):
            return None
        return self.decryptor(iv).feed(ciphertext)

    def _stream(self, purpose: str, iv: bytes, octets: int) -> Stream:
        if len(iv) != IV_OCTETS:
            raise LocalError(f"the IV has {IV_OCTETS} octets, not {len(iv)}")
        self._spent += octets + _STREAM_COST
        if self._backend == OPENSSL or (self._backend is None and self._spent > _PURE_UNTIL):
            library = _openssl()
            if library is not None:
                return _OpenSslStream(library, purpose, self._key, iv)
        if self._pure is None:
            self._pure = _PureKey(self._key)
        return _PureStream(self._pure, purpose, iv)


# --- pure Python


def _make_substitutions() -> bytes:
    """Compute the S-box: inversion in GF(2^8), then an affine map.

    Source: FIPS 197 section 5.1.1.
    """
    powers = [1]  # of 3, which generates all elements but 0
    for _ in range(254):
        last = powers[-1]
        powers.append(last ^ last << 1 ^ (0x11B if last & 0x80 else 0))
    box = bytearray([0x63] * 256)
    for exponent, element in enumerate(powers):
        inverse = powers[-exponent % 255]
        spread = inverse ^ inverse << 1 ^ inverse << 2 ^ inverse << 3 ^ inverse << 4
        box[element] ^= (spread ^ spread >> 8) & 0xFF
    return bytes(box)


def _expand_key(key: bytes, box: bytes) -> bytes:
    """Give the 15 round keys of 16 octets, one after the other. Source: FIPS 197 section 5.2."""
    words = [key[start : start + 4] for start in range(0, KEY_OCTETS, 4)]
    constant = 1
    while len(words) < 4 * (_ROUNDS + 1):
        word = words[-1]
        if len(words) % 8 == 0:
            word = (word[1:] + word[:1]).translate(box)
            word = bytes([word[0] ^ constant]) + word[1:]
            constant <<= 1  # 256 bit keys need seven of them: none leaves the octet
        elif len(words) % 8 == 4:
            word = word.translate(box)
        words.append(bytes(map(int.__xor__, word, words[-8])))
    return b"".join(words)


def _make_products(factor: int) -> tuple[list[int], ...]:
    """Make one table for each octet of a block: its 256 products with a GHASH key.

    Blocks are integers whose highest bit is the coefficient of x^0.
    Source: SP 800-38D section 6.3.
    """
    tables = []
    for _ in range(_BLOCK):
        shifted = []
        for _ in range(8):
            shifted.append(factor)
            factor = factor >> 1 ^ (0xE1 << 120 if factor & 1 else 0)
        table = [0]
        for product in reversed(shifted):  # the lowest bit of an octet is its highest power
            table += [product ^ other for other in table]
        tables.append(table)
    return tuple(tables)


_HEAD_BLOCKS = 64  # enough for the tag of any text and for an envelope: made in one go
_RAMP = bytes(range(256))
_ONES = int.from_bytes(b"\1" * 256, "little")


class _PureKey:
    """The tables made from one key, and the two functions that use them."""

    __slots__ = ("_head", "_head_iv", "_products", "_rounds")

    def __init__(self, key: bytes) -> None:
        box = _make_substitutions()
        round_keys = _expand_key(key, box)
        ramp = int.from_bytes(_RAMP, "little")
        tables = [  # the table of octet i in a round: what becomes of it once the key is added
            (ramp ^ octet * _ONES).to_bytes(256, "little").translate(box)
            for octet in round_keys[: _ROUNDS * _BLOCK]
        ]
        # The last round adds one more key, which meets the octets after their rows shifted.
        for place, octet in enumerate(round_keys[-_BLOCK:]):
            source = (place + 4 * (place % 4)) % _BLOCK - _BLOCK
            table = int.from_bytes(tables[source], "little") ^ octet * _ONES
            tables[source] = table.to_bytes(256, "little")
        self._rounds = [tables[at : at + _BLOCK] for at in range(0, len(tables), _BLOCK)]
        self._head_iv = b""
        self._head = b""
        zero = self.keystream(bytes(IV_OCTETS), 0, 1)
        self._products = _make_products(int.from_bytes(zero, "big"))

    def head(self, iv: bytes) -> bytes:
        """Give the keystream from counter 1 on: the mask of the tag, then that of the text.

        The last one is kept, since a text is first verified, then decrypted.
        """
        if iv != self._head_iv:
            self._head = self.keystream(iv, 1, _HEAD_BLOCKS)
            self._head_iv = iv
        return self._head

    def keystream(self, iv: bytes, counter: int, blocks: int) -> bytes:
        """Encrypt a run of counter blocks. Source: FIPS 197 section 5.1; SP 800-38D 6.5."""
        # Octet i of a block is in row i % 4, column i // 4; a row is kept column after column.
        rows = [
            b"".join(bytes([octet]) * blocks for octet in iv[row::4])
            + _count(counter, blocks, 24 - 8 * row)
            for row in range(4)
        ]
        tops = int.from_bytes(b"\x80" * (4 * blocks), "little")
        for tables in self._rounds[:-1]:
            numbers = [int.from_bytes(row, "little") for row in _substitute(rows, tables, blocks)]
            whole = numbers[0] ^ numbers[1] ^ numbers[2] ^ numbers[3]
            rows = []
            for row in range(4):
                # MixColumns: 2a + 3b + c + d is a + (a + b + c + d) + 2(a + b)
                pair = numbers[row] ^ numbers[row - 3]
                top = pair & tops
                mixed = numbers[row] ^ whole ^ (pair ^ top) << 1 ^ (top >> 7) * 0x1B
                rows.append(mixed.to_bytes(4 * blocks, "little"))
        rows = _substitute(rows, self._rounds[-1], blocks)
        stream = bytearray(_BLOCK * blocks)
        for place in range(_BLOCK):
            start = place // 4 * blocks
            stream[place::_BLOCK] = rows[place % 4][start : start + blocks]
        return bytes(stream)

    def ghash(self, state: int, octets: bytes) -> int:
        """Add whole blocks to a GHASH. Source: SP 800-38D section 6.4."""
        t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, ta, tb, tc, td, te, tf = self._products
        for high, low in struct.iter_unpack(">QQ", octets):
            o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, oa, ob, oc, od, oe, of = (
                state ^ (high << 64 | low)
            ).to_bytes(_BLOCK, "big")
            state = (
                t0[o0] ^ t1[o1] ^ t2[o2] ^ t3[o3] ^ t4[o4] ^ t5[o5] ^ t6[o6] ^ t7[o7]
                ^ t8[o8] ^ t9[o9] ^ ta[oa] ^ tb[ob] ^ tc[oc] ^ td[od] ^ te[oe] ^ tf[of]
            )  # fmt: skip
        return state


def _substitute(rows: list[bytes], tables: list[bytes], blocks: int) -> list[bytes]:
    """Add the round key, substitute, and shift row n by n columns."""
    shifted = []
    for row, octets in enumerate(rows):
        columns = [
            octets[column * blocks : (column + 1) * blocks].translate(tables[4 * column + row])
            for column in range(4)
        ]
        shifted.append(b"".join(columns[row:] + columns[:row]))
    return shifted


def _count(counter: int, blocks: int, shift: int) -> bytes:
    """Give one octet, the one shift bits up, of each number from counter on."""
    runs = range(counter >> 8, (counter + blocks + 255) >> 8)
    octets = [bytes([run << 8 >> shift & 0xFF]) * 256 if shift else _RAMP for run in runs]
    return b"".join(octets)[counter & 0xFF :][:blocks]


class _PureStream:
    """A Stream over _PureKey."""

    __slots__ = ("_counter", "_iv", "_key", "_length", "_mask", "_part", "_purpose", "_ready",
                 "_state")  # fmt: skip

    def __init__(self, key: _PureKey, purpose: str, iv: bytes) -> None:
        head = key.head(iv)
        self._key = key
        self._purpose = purpose
        self._iv = iv
        self._mask = head[:_BLOCK]
        self._ready = head[_BLOCK:]  # keystream not used yet
        self._counter = 1 + _HEAD_BLOCKS
        self._state = 0
        self._part = b""  # ciphertext of a block not complete
        self._length = 0

    def feed(self, octets: bytes) -> bytes:
        done = []
        for piece in _pieces(octets):
            if self._purpose == _VERIFY:
                self._absorb(piece)
                continue
            done.append(self._apply(piece))
            if self._purpose == _ENCRYPT:
                self._absorb(done[-1])
        return b"".join(done)

    def tag(self) -> bytes:
        if self._part:
            self._state = self._key.ghash(self._state, self._part.ljust(_BLOCK, b"\0"))
        lengths = struct.pack(">QQ", 0, 8 * self._length)
        digest = self._key.ghash(self._state, lengths)
        return (digest ^ int.from_bytes(self._mask, "big")).to_bytes(TAG_OCTETS, "big")

    def matches(self, tag: bytes) -> bool:
        return same_octets(self.tag(), tag)

    def _apply(self, piece: bytes) -> bytes:
        missing = len(piece) - len(self._ready)
        if missing > 0:
            blocks = max((missing + _BLOCK - 1) // _BLOCK, _HEAD_BLOCKS)
            self._ready += self._key.keystream(self._iv, self._counter, blocks)
            self._counter += blocks
        used = self._ready[: len(piece)]
        self._ready = self._ready[len(piece) :]
        mixed = int.from_bytes(piece, "little") ^ int.from_bytes(used, "little")
        return mixed.to_bytes(len(piece), "little")

    def _absorb(self, piece: bytes) -> None:
        self._length += len(piece)
        piece = self._part + piece
        whole = len(piece) - len(piece) % _BLOCK
        self._state = self._key.ghash(self._state, piece[:whole])
        self._part = piece[whole:]


def _pieces(octets: bytes) -> Iterator[bytes]:
    for start in range(0, len(octets), _PIECE):
        yield octets[start : start + _PIECE]


# --- libcrypto


_loaded: dict[str, Optional[_OpenSsl]] = {}  # what _openssl() found; empty until it looked


def _openssl() -> Optional[_OpenSsl]:
    """Load libcrypto at the first call; None where it, ctypes or the cipher is missing."""
    if OPENSSL not in _loaded:
        _loaded[OPENSSL] = next(_find_openssl(), None)
    return _loaded[OPENSSL]


def _find_openssl() -> Iterator[_OpenSsl]:
    """Yield each libcrypto that gives a known answer.

    A handle on the module that hashlib uses also searches what that module is linked to.
    """
    try:
        import ctypes
    except ImportError:
        return
    names = ["libcrypto.so.3", "libcrypto.so.1.1"]
    try:
        import _hashlib
    except ImportError:
        pass
    else:
        if getattr(_hashlib, "__file__", None):  # not where it is part of the program
            names.insert(0, _hashlib.__file__)
    for name in names:
        try:
            library = _OpenSsl(ctypes, name)
            answer = _OpenSslStream(library, _ENCRYPT, bytes(KEY_OCTETS), bytes(IV_OCTETS)).tag()
        except (OSError, AttributeError, LocalError):  # no such file, no such function, refused
            continue
        if answer == _KNOWN_TAG:
            yield library


# Name -> result and arguments. Source: EVP_EncryptInit(3).
_FUNCTIONS = {
    "EVP_CIPHER_CTX_new": "pointer",
    "EVP_CIPHER_CTX_free": "none pointer",
    "EVP_CIPHER_CTX_ctrl": "number pointer number number octets",
    "EVP_aes_256_gcm": "pointer",
    "EVP_EncryptInit_ex": "number pointer pointer pointer octets octets",
    "EVP_DecryptInit_ex": "number pointer pointer pointer octets octets",
    "EVP_EncryptUpdate": "number pointer octets count octets number",
    "EVP_DecryptUpdate": "number pointer octets count octets number",
    "EVP_EncryptFinal_ex": "number pointer octets count",
    "EVP_DecryptFinal_ex": "number pointer octets count",
}
_GET_TAG = 0x10
_SET_TAG = 0x11


class _OpenSsl:
    """One libcrypto, its functions declared, and what calling them takes."""

    __slots__ = ("buffer", "functions", "number", "text_at")

    def __init__(self, ctypes: Any, name: str) -> None:
        types = {
            "none": None,
            "pointer": ctypes.c_void_p,
            "number": ctypes.c_int,
            "count": ctypes.POINTER(ctypes.c_int),
            "octets": ctypes.c_char_p,
        }
        library = ctypes.CDLL(name)
        self.functions: dict[str, Any] = {}
        for function, signature in _FUNCTIONS.items():
            found = getattr(library, function)
            found.restype, *found.argtypes = [types[word] for word in signature.split()]
            self.functions[function] = found
        self.buffer = ctypes.create_string_buffer
        self.number = ctypes.c_int
        self.text_at = ctypes.string_at


class _OpenSslStream:
    """A Stream over libcrypto."""

    __slots__ = ("_call", "_context", "_free", "_library", "_out", "_verb", "_verifying")

    def __init__(self, library: _OpenSsl, purpose: str, key: bytes, iv: bytes) -> None:
        self._library = library
        self._call = library.functions
        self._verb = "EVP_Encrypt" if purpose == _ENCRYPT else "EVP_Decrypt"
        self._verifying = purpose == _VERIFY
        self._out = library.buffer(_PIECE)
        self._free = self._call["EVP_CIPHER_CTX_free"]  # for __del__, which may run very late
        self._context = self._call["EVP_CIPHER_CTX_new"]()
        _check(self._context is not None)
        cipher = self._call["EVP_aes_256_gcm"]()  # expects an IV of 96 bits
        _check(self._call[self._verb + "Init_ex"](self._context, cipher, None, key, iv))

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._free(self._context)  # wipes the key as well
            self._context = None

    def feed(self, octets: bytes) -> bytes:
        update = self._call[self._verb + "Update"]
        written = self._library.number()
        done = []
        for piece in _pieces(octets):
            _check(update(self._context, self._out, written, piece, len(piece)))
            if not self._verifying:
                done.append(self._library.text_at(self._out, written.value))
        return b"".join(done)

    def tag(self) -> bytes:
        _check(self._end())
        _check(self._control(_GET_TAG, self._out))
        return bytes(self._library.text_at(self._out, TAG_OCTETS))

    def matches(self, tag: bytes) -> bool:
        _check(self._control(_SET_TAG, tag))
        return self._end() == 1

    def _control(self, what: int, octets: Any) -> int:
        return int(self._call["EVP_CIPHER_CTX_ctrl"](self._context, what, TAG_OCTETS, octets))

    def _end(self) -> int:
        end = self._call[self._verb + "Final_ex"]
        return int(end(self._context, self._out, self._library.number()))


def _check(result: int) -> None:
    """Every function in use returns 1 when it did what it should."""
    if result != 1:
        raise LocalError("libcrypto refused a call")
