"""Octets and text, and the escapes that make foreign text safe to print."""

from __future__ import annotations

_VIS_LIMIT = 2047  # the original's buffer for one error text, less its terminator

# Octet -> its vis(3) spelling with no flags; printable ASCII, space, TAB and LF stand for
# themselves.
_VIS = {}
for _octet in range(256):
    if _octet == 0x5C:
        _VIS[_octet] = "\\\\"
    elif _octet in (0x09, 0x0A) or 0x20 <= _octet < 0x7F:
        _VIS[_octet] = chr(_octet)
    elif _octet == 0xA0:  # meta-space has no other spelling
        _VIS[_octet] = "\\240"
    else:
        _low = _octet & 0x7F
        _control = _low < 0x20 or _low == 0x7F
        _letter = "?" if _low == 0x7F else chr(_low + 64) if _control else chr(_low)
        _VIS[_octet] = "\\" + ("M" if _octet & 0x80 else "") + ("^" if _control else "-") + _letter

# What must not reach a terminal raw: C0, DEL, C1, and the controls that reorder text, which can
# make one line look like another (Unicode TR 36). Octets that are not UTF-8 arrive as lone
# surrogates and are shown as the octets they are.
_UNSAFE = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    0x0A: "\\n",
    0x0D: "\\r",
    0x09: "\\t",
    **{
        code: f"\\u{code:04x}"
        for code in (
            0x061C,
            0x200E,
            0x200F,
            0x2028,
            0x2029,
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
        )
    },
    **{0xDC00 + octet: f"\\x{octet:02x}" for octet in range(0x80, 0x100)},
}
_UNSAFE_LINES = {code: spelling for code, spelling in _UNSAFE.items() if code not in (0x09, 0x0A)}


def decode(octets: bytes) -> str:
    """Turn octets into text, keeping those that are not UTF-8; encode undoes it exactly."""
    return octets.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Give back the octets that decode received."""
    return text.encode("utf-8", "surrogateescape")


def vis(text: str) -> str:
    """Spell octets in the vis notation, no flags; cut at 2047 octets, never inside an escape.

    Source: vis(3); OpenSMTPD 6.4 and later, error column of `show queue`.
    """
    if text.isascii() and text.isprintable() and "\\" not in text and len(text) <= _VIS_LIMIT:
        return text
    spelled = [_VIS[octet] for octet in encode(text)]
    length = sum(map(len, spelled))
    while length > _VIS_LIMIT:
        length -= len(spelled.pop())
    return "".join(spelled)


def escape(text: str) -> str:
    """Make one line of foreign text safe for a terminal or a log; ordinary text is unchanged."""
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_UNSAFE)


def escape_lines(text: str) -> str:
    """Escape like escape(), but keep line ends and tabs: for a message shown on a terminal."""
    return text.translate(_UNSAFE_LINES)
