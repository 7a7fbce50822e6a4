"""Undoing the compression around a stream, by modules and by programs of the host."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import sys
import threading
import zlib
from typing import TYPE_CHECKING, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_core.queue.unpack import MAX_PIECE, Stream, UnpackError, open_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN = b"".join(b"%d: %d\n" % (turn, turn**3) for turn in range(20_000))
MODULES = ["gzip", "xz", "bzip2"]
PROGRAMS = [name for name in ("gzip", "xz", "bzip2", "zstd") if shutil.which(name)]


def compress(kind: str, octets: bytes) -> bytes:
    if kind == "gzip":
        return gzip.compress(octets, 6)
    if kind == "xz":
        return lzma.compress(octets, preset=0)
    if kind == "bzip2":
        return bz2.compress(octets, 1)
    return subprocess.run([kind, "-q"], input=octets, check=True, capture_output=True).stdout


def ways() -> Iterator[object]:
    """Each compression this machine can undo, by a module and by a program."""
    for kind in MODULES:
        yield pytest.param(kind, False, id=f"{kind}-module")
    if sys.version_info >= (3, 14) and "zstd" in PROGRAMS:
        yield pytest.param("zstd", False, id="zstd-module")
    for kind in PROGRAMS:
        yield pytest.param(kind, True, id=f"{kind}-program", marks=pytest.mark.system)


each_way = pytest.mark.parametrize(("kind", "programs_only"), list(ways()))


def unpack(octets: bytes, *, programs_only: bool = False, count: int = 65536) -> bytes:
    with open_stream(io.BytesIO(octets), programs_only=programs_only) as stream:
        return b"".join(iter(lambda: stream.read(count), b""))


def rescue(octets: bytes, *, programs_only: bool = False) -> tuple[bytes, str]:
    """Everything a stream gives, and why there is no more or ""."""
    return rescue_from(io.BytesIO(octets), programs_only=programs_only)


def rescue_from(source: BinaryIO, *, programs_only: bool) -> tuple[bytes, str]:
    out = b""
    with open_stream(source, programs_only=programs_only) as stream:
        try:
            for piece in iter(lambda: stream.read(MAX_PIECE), b""):
                out += piece
        except UnpackError as error:
            with pytest.raises(UnpackError):  # and it stays so
                stream.read(1)
            return out, str(error)
    return out, ""


def children() -> bool:
    """Tell whether a child process of ours is left, running or not."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


@each_way
@pytest.mark.parametrize("plain", [b"", b"x", PLAIN], ids=["empty", "one", "many"])
def test_each_compression(kind: str, programs_only: bool, plain: bytes) -> None:
    octets = compress(kind, plain)
    for count in (1000, 65536, 1 << 24):
        assert unpack(octets, programs_only=programs_only, count=count) == plain
    assert open_stream(io.BytesIO(octets), programs_only=programs_only).kind == kind


@each_way
def test_streams_one_after_another(kind: str, programs_only: bool) -> None:
    octets = compress(kind, PLAIN) + compress(kind, b"") + compress(kind, b"more")
    assert unpack(octets, programs_only=programs_only) == PLAIN + b"more"


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("zeros", [4, 512, 100_000])
def test_zeros_that_fill_up_a_tape_block(kind: str, zeros: int) -> None:
    octets = compress(kind, PLAIN) + bytes(zeros)
    assert unpack(octets) == PLAIN
    assert unpack(octets + compress(kind, b"more")) == PLAIN + b"more"


@pytest.mark.parametrize("kind", MODULES)
def test_other_octets_behind_a_stream_come_as_an_error(kind: str) -> None:
    octets = compress(kind, PLAIN)
    out, reason = rescue(octets + b"garbage")
    assert out == PLAIN
    assert reason == f"{kind}: the stream ends at octet {len(octets)}, other octets follow"


@pytest.mark.parametrize(
    "plain",
    [b"", b"a", PLAIN, b"BZh9 is no archive", b"\x1f\x8b", b"BZh91AY&S", b"P*M", b"\xfd7zXZ"],
)
def test_no_compression(plain: bytes) -> None:
    with open_stream(io.BytesIO(plain)) as stream:
        assert stream.kind == ""
        assert b"".join(iter(lambda: stream.read(1000), b"")) == plain


def test_a_descriptor_is_read_from_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before" + compress("gzip", PLAIN))
    fd = os.open(path, os.O_RDONLY)
    try:
        os.lseek(fd, 6, os.SEEK_SET)
        with open_stream(fd) as stream:
            assert b"".join(iter(lambda: stream.read(4096), b"")) == PLAIN
        os.fstat(fd)  # still open
    finally:
        os.close(fd)


@each_way
def test_a_pipe(kind: str, programs_only: bool) -> None:
    octets = compress(kind, PLAIN)
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            pipe.write(octets[:1])  # the magic comes in pieces, too
            pipe.write(octets[1:5])
            for start in range(5, len(octets), 3000):
                pipe.write(octets[start : start + 3000])

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with open_stream(reading, programs_only=programs_only) as stream:
            assert stream.kind == kind
            assert b"".join(iter(lambda: stream.read(65536), b"")) == PLAIN
    finally:
        os.close(reading)
        feeder.join()


def test_a_descriptor_that_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    octets = compress("gzip", PLAIN)

    def feed() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for start in range(0, len(octets), 5000):
                pipe.write(octets[start : start + 5000])

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with open_stream(reading) as stream:
            assert b"".join(iter(lambda: stream.read(65536), b"")) == PLAIN
    finally:
        os.close(reading)
        feeder.join()


def test_what_cannot_be_read(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(UnpackError, match="cannot read past octet 0: Is a directory"):
            open_stream(fd)
    finally:
        os.close(fd)


# Stream


def test_peek_takes_nothing() -> None:
    with open_stream(io.BytesIO(compress("gzip", PLAIN))) as stream:
        assert stream.peek(5) == PLAIN[:5]
        assert stream.read(3) == PLAIN[:3]
        size = MAX_PIECE + 100
        assert stream.peek(size) == PLAIN[3 : 3 + size]
        assert b"".join(iter(lambda: stream.read(1000), b"")) == PLAIN[3:]
        assert stream.peek(5) == b""


def test_peek_leaves_errors_to_reading() -> None:
    with open_stream(io.BytesIO(compress("gzip", b"abc")[:-1])) as stream:
        assert stream.peek(512) == b"abc"
        assert stream.read(512) == b"abc"
        with pytest.raises(UnpackError):
            stream.read(512)


def test_drain_comes_to_the_checksum_at_the_end() -> None:
    octets = bytearray(compress("gzip", PLAIN))
    octets[-6] ^= 1
    with open_stream(io.BytesIO(bytes(octets))) as stream:
        stream.read(100)
        assert MAX_PIECE <= stream.drain(MAX_PIECE) + 100 < 2 * MAX_PIECE
        with pytest.raises(UnpackError, match="incorrect data check"):
            stream.drain(1 << 30)
    with open_stream(io.BytesIO(compress("gzip", PLAIN))) as stream:
        assert stream.drain(1 << 30) == len(PLAIN)


# Damage


@each_way
def test_a_cut_comes_after_what_is_there(kind: str, programs_only: bool) -> None:
    octets = compress(kind, PLAIN)
    for end in (10, len(octets) // 2, len(octets) - 1):
        out, reason = rescue(octets[:end], programs_only=programs_only)
        assert reason
        assert PLAIN.startswith(out)
        if kind == "bzip2":  # gives whole blocks only
            assert len(out) > len(PLAIN) * end // len(octets) - 120_000
        elif kind != "zstd":  # has blocks, too, and one is enough here
            assert len(out) > len(PLAIN) * (end - 5000) // len(octets) - 5000
        if not programs_only:
            assert reason == f"{kind}: cut at octet {end}"


def test_every_cut_of_gzip_gives_all_there_is() -> None:
    plain = PLAIN[:3000] + b"z" * 600_000  # the end is many pieces from few octets
    octets = compress("gzip", plain)
    for end in range(10, len(octets)):
        out, reason = rescue(octets[:end])
        assert out == zlib.decompressobj(31).decompress(octets[:end])
        assert reason == f"gzip: cut at octet {end}"


def test_damage_in_gzip_takes_only_what_is_behind_it() -> None:
    first = zlib.compressobj(6, zlib.DEFLATED, 31)
    octets = first.compress(PLAIN) + first.flush(zlib.Z_FULL_FLUSH)
    out, reason = rescue(octets + b"\xff" * 100)
    assert out == PLAIN
    assert reason.startswith("gzip: damaged before octet ")
    assert "invalid block type" in reason


@given(st.integers(10, 5000), st.integers(1, 255))
def test_damage_in_gzip_takes_no_more_than_octet_by_octet(place: int, change: int) -> None:
    octets = bytearray(compress("gzip", PLAIN[:8000] + bytes(100_000)))
    octets[place % len(octets)] ^= change
    decoder = zlib.decompressobj(31)
    expected = b""
    try:
        for octet in octets:
            expected += decoder.decompress(bytes([octet]))
    except zlib.error:
        pass
    assert rescue(bytes(octets))[0] == expected


def test_a_wrong_checksum_comes_after_all_octets() -> None:
    octets = bytearray(compress("gzip", PLAIN))
    octets[-8] ^= 1  # before the length
    out, reason = rescue(bytes(octets))
    assert out == PLAIN
    assert reason.startswith(f"gzip: damaged before octet {len(octets)} ")


def test_a_wrong_checksum_in_xz_costs_only_what_the_last_octets_made() -> None:
    octets = bytearray(compress("xz", PLAIN))
    octets[-32] ^= 1  # before an index of 12 octets and a footer of 12
    out, reason = rescue(bytes(octets))
    assert out == PLAIN[: len(out)]
    assert len(out) > len(PLAIN) - 1000
    assert reason.startswith("xz: damaged before octet ")


@pytest.mark.parametrize("kind", MODULES)
@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_one_wrong_octet(kind: str, place: int, change: int) -> None:
    plain = PLAIN[:8000]
    octets = bytearray(compress(kind, plain))
    octets[place % len(octets)] ^= change
    out, reason = rescue(bytes(octets))
    # Some octets of a gzip header mean nothing here; a spoilt magic makes it no compression.
    assert reason or out in (plain, bytes(octets))


@given(st.sampled_from([compress(kind, b"abc" * 100) for kind in MODULES]), st.binary(max_size=99))
def test_any_octets_behind_any_beginning(beginning: bytes, rest: bytes) -> None:
    for end in (10, len(beginning) // 2, len(beginning)):
        rescue(beginning[:end] + rest)


@pytest.mark.system
@pytest.mark.skipif(not PROGRAMS, reason="no program here")
@settings(max_examples=10)
@given(st.binary(max_size=99))
def test_any_octets_through_a_program(rest: bytes) -> None:
    for kind in PROGRAMS:
        octets = compress("gzip", b"abc" * 100) if kind == "gzip" else MAGIC[kind]
        rescue(octets + rest, programs_only=True)
    assert not children()


MAGIC = {"xz": b"\xfd7zXZ\0", "bzip2": b"BZh91AY&SY", "zstd": b"\x28\xb5\x2f\xfd"}


# Bounds


@pytest.mark.parametrize("kind", MODULES)
def test_a_bomb_comes_in_small_pieces(kind: str) -> None:
    octets = compress(kind, bytes(1 << 25))
    assert len(octets) < 1 << 16
    with open_stream(io.BytesIO(octets)) as stream:
        sizes = [len(piece) for piece in iter(lambda: stream.read(1 << 30), b"")]
    assert sum(sizes) == 1 << 25
    assert max(sizes) <= MAX_PIECE


def thirsty() -> bytes:
    """Make an xz stream that asks for a dictionary of 1 GiB: its header, with its checksum."""
    octets = bytearray(lzma.compress(b"abc", preset=0))
    size = (octets[12] + 1) * 4
    header = octets[12 : 12 + size]
    assert header[2:4] == b"\x21\x01"  # LZMA2, one octet of properties
    header[4] = 36
    header[-4:] = zlib.crc32(bytes(header[:-4])).to_bytes(4, "little")
    octets[12 : 12 + size] = header
    return bytes(octets)


def test_xz_takes_a_bounded_dictionary() -> None:
    assert rescue(thirsty()) == (b"", "xz: unpacking takes more than 256 MiB of memory")


@pytest.mark.system
@pytest.mark.skipif("xz" not in PROGRAMS, reason="no xz here")
def test_the_program_takes_a_bounded_dictionary() -> None:
    out, reason = rescue(thirsty(), programs_only=True)
    assert out == b""
    assert "emory usage limit" in reason


# Programs


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "zstd"])
def test_a_missing_program_is_named(kind: str, tmp_path: Path) -> None:
    octets = MAGIC.get(kind, b"") or compress(kind, b"abc")
    with pytest.raises(UnpackError, match=f"compressed with {kind}: to read it, install {kind}$"):
        open_stream(io.BytesIO(octets), programs_only=True, directories=(str(tmp_path),))


@pytest.mark.system
@pytest.mark.parametrize("kind", PROGRAMS)
def test_no_child_is_left(kind: str) -> None:
    octets = compress(kind, random.Random(2).randbytes(1 << 20))
    for count in (0, 1, 1 << 30):
        stream = open_stream(io.BytesIO(octets), programs_only=True)
        passed = 0
        while passed < count and stream.read(1000):
            passed += 1000
        stream.close()
        stream.close()
        assert stream.read(1) == b""
        assert not children()


@pytest.mark.system
@pytest.mark.skipif("xz" not in PROGRAMS, reason="no xz here")
def test_a_source_that_fails_behind_a_program(tmp_path: Path) -> None:
    octets = compress("xz", PLAIN)

    class Disk(io.BytesIO):
        def read(self, count: object = -1, /) -> bytes:
            assert isinstance(count, int)
            piece = super().read(count)
            if not piece:
                raise OSError(5, "Input/output error")
            return piece

    out, reason = rescue_from(Disk(octets), programs_only=True)
    assert out == PLAIN
    assert reason == f"cannot read past octet {len(octets)}: Input/output error"
    assert not children()


@pytest.mark.system
@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2"])
@pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox here")
def test_programs_of_busybox(kind: str, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    assert busybox is not None
    (tmp_path / kind).symlink_to(busybox)
    source = io.BytesIO(compress(kind, PLAIN))
    with open_stream(source, programs_only=True, directories=(str(tmp_path),)) as stream:
        assert b"".join(iter(lambda: stream.read(65536), b"")) == PLAIN


def test_a_stream_is_not_read_before_it_is_asked() -> None:
    source = io.BytesIO(compress("gzip", PLAIN))
    stream: Stream = open_stream(source)
    assert source.tell() <= 10
    stream.close()
