"""The fields that messages are made of, each of bounded size, in network order."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from smtpd_core import text
from smtpd_core.errors import FormatError, LocalError

if TYPE_CHECKING:
    from smtpd_core.cursor import Cursor


class FieldError(FormatError):
    """A value that its field cannot hold."""


class Field(NamedTuple):
    """How one value is written to octets and read back; both sides check its bounds."""

    encode: Callable[[Any], bytes]
    decode: Callable[[Cursor], Any]


def _number(octets: int, *, signed: bool = False) -> Field:
    def encode(value: int) -> bytes:
        try:
            return value.to_bytes(octets, "big", signed=signed)
        except OverflowError:
            raise LocalError(f"{value} does not fit {octets} octets") from None

    def decode(cursor: Cursor) -> int:
        return int.from_bytes(cursor.take(octets), "big", signed=signed)

    return Field(encode, decode)


U8 = _number(1)
U16 = _number(2)
U32 = _number(4)
U64 = _number(8)
I64 = _number(8, signed=True)


def _encode_flag(value: bool) -> bytes:
    return b"\1" if value else b"\0"


def _decode_flag(cursor: Cursor) -> bool:
    value = cursor.u8()
    if value > 1:
        raise FieldError(f"{value} is neither yes nor no")
    return value == 1


FLAG = Field(_encode_flag, _decode_flag)


def octets_field(limit: int) -> Field:
    """Make a field of octets, at most so many."""

    def encode(value: bytes) -> bytes:
        if len(value) > limit:
            raise LocalError(f"{len(value)} octets in a field of {limit}")
        return struct.pack("!I", len(value)) + value

    def decode(cursor: Cursor) -> bytes:
        length = cursor.u32()
        if length > limit:
            raise FieldError(f"{length} octets in a field of {limit}")
        return cursor.take(length)

    return Field(encode, decode)


def text_field(limit: int) -> Field:
    """Make a field of text, of at most so many octets; what is not UTF-8 is kept."""
    inner = octets_field(limit)
    return Field(
        lambda value: inner.encode(text.encode(value)),
        lambda cursor: text.decode(inner.decode(cursor)),
    )


def optional_field(inner: Field) -> Field:
    """Make a field that may also be None."""

    def encode(value: Any) -> bytes:
        return b"\0" if value is None else b"\1" + inner.encode(value)

    def decode(cursor: Cursor) -> Any:
        return inner.decode(cursor) if _decode_flag(cursor) else None

    return Field(encode, decode)


def list_field(inner: Field, limit: int) -> Field:
    """Make a field of a tuple of equal fields, at most so many."""

    def encode(values: tuple[Any, ...]) -> bytes:
        if len(values) > limit:
            raise LocalError(f"{len(values)} items in a list of {limit}")
        return struct.pack("!I", len(values)) + b"".join(map(inner.encode, values))

    def decode(cursor: Cursor) -> tuple[Any, ...]:
        count = cursor.u32()
        if count > limit:
            raise FieldError(f"{count} items in a list of {limit}")
        return tuple(inner.decode(cursor) for _ in range(count))

    return Field(encode, decode)


def pair_field(first: Field, second: Field) -> Field:
    """Make a field of two values."""

    def encode(value: tuple[Any, Any]) -> bytes:
        return first.encode(value[0]) + second.encode(value[1])

    def decode(cursor: Cursor) -> tuple[Any, Any]:
        return first.decode(cursor), second.decode(cursor)

    return Field(encode, decode)
