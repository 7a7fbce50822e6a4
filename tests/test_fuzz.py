"""Any octets: a value or the module's own error, soon, in little memory, safe to look at."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pathlib
import re
import tempfile
import time
import tracemalloc
from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from smtpd_core.cli import output, queue
from smtpd_core.cli.context import Context
from smtpd_core.cli.options import Options
from smtpd_core.errors import AccessError, SmtpdError
from smtpd_core.queue import codec, layout, offline, releases, tar, unpack
from smtpd_core.queue.archive import ArchiveSource
from smtpd_core.queue.entries import Entry, read_entries
from smtpd_core.queue.envelope import Envelope, EnvelopeError, parse_envelope
from smtpd_core.queue.sources import Item, Unreadable
from tests import golden, running, strategies, trees

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SECONDS_MAX = 5.0  # for one input of some thousand octets, on a machine that is busy
_OCTETS_MAX = 48 << 20
_TAKEN_MAX = 32 << 20  # of a body; the rest of a bomb is a stream that goes on for ever
_LIMIT = 65536
_KEY = codec.parse_key(b"0123456789abcdef0123456789abcdef")
_NOW = 1800000000


@contextlib.contextmanager
def _bounds() -> Iterator[None]:
    """Allow only so much time and memory for what is done within."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < _OCTETS_MAX
    assert time.monotonic() - began < _SECONDS_MAX


# --- what is fed

_REAL = [
    octets
    for version, name in (("5.7.3", "dsn-1"), ("6.8", "bounce-1"), ("7.8", "auth-1"))
    for octets in list(golden.Stored(golden.SPOOLS / version / f"{name}.tar.gz").files.values())[:6]
    if octets
]
_WRAPPED = [
    octets
    for name in ("compress-1", "encrypt-1", "compress-encrypt-1")
    for octets in list(golden.Stored(golden.SPOOLS / "7.8" / f"{name}.tar.gz").files.values())[:4]
]
_ARCHIVES = [
    (golden.SPOOLS / "7.8" / name).read_bytes() for name in ("bounce-1.tar.gz", "dsn-1.tar.gz")
]

_RAW = st.one_of(st.binary(max_size=200), st.binary(max_size=3).map(lambda piece: piece * 3000))
_LINES = st.lists(
    st.tuples(
        st.sampled_from([*sorted(Envelope.__annotations__), "ttl", "x", ""]),
        st.sampled_from([b": ", b":", b" : ", b"", b":\t"]),
        st.one_of(st.binary(max_size=30), st.integers().map(lambda number: b"%d" % number)),
    ).map(lambda parts: parts[0].replace("_", "-").encode() + parts[1] + parts[2] + b"\n"),
    max_size=30,
).map(b"".join)
_NASTY = [
    b"version: 3\nctime: " + b"9" * 60000 + b"\n",
    b"version: 3\n" + b"a:\n" * 20000,
    b":" * 65000,
    b"\n" * 65000,
    b"version: 3\nflags: " + b"bounce|" * 9000 + b"\n",
    b"version: 3\nsockaddr: [" + b":" * 60000 + b"]\n",
    b"version: 2\nmta-relay: smtp://" + b"@" * 60000 + b"\n",
    b"version: 3\nsender: " + b"@" * 60000 + b"\n",
    b"version: 3\nerrorline: " + b"\\" * 60000 + b"\n",
    b"\x1f\x8b\x08\x1e" + b"\0" * 60000,
    gzip.compress(bytes(8 << 20)),
    gzip.compress(gzip.compress(bytes(8 << 20))),
    b"\x01" + bytes(60000),
    codec.encode(gzip.compress(bytes(8 << 20)), compress=True, key=_KEY, iv=bytes(12)),
    b"-t|" + b"-" * 60000 + b"\n",
    b"-t\nTo: " + b"(" * 60000 + b"\n",
    b"-t\nTo: " + b"<a>," * 15000 + b"\n",
    b"-t\n" + b"To: a@b\n" * 7000,
    b"|" * 65000 + b"\n",
]


def _near(real: list[bytes]) -> st.SearchStrategy[bytes]:
    """Draw real files that were changed in a few places."""
    return st.sampled_from(real).flatmap(strategies.mutations)


def _wrapped(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Draw files in layers that are right but for what they hold, or for their end."""
    return st.one_of(
        inner.map(gzip.compress),
        inner.map(lambda octets: codec.encode(octets, compress=False, key=_KEY, iv=bytes(12))),
        inner.map(lambda octets: codec.encode(octets, compress=True, key=_KEY, iv=bytes(12))),
        inner.map(lambda octets: gzip.compress(octets)[:-5]),
        inner.map(lambda octets: gzip.compress(octets) + octets[:9]),
    )


_ENVELOPES = st.sampled_from(["5.7.3", "6.8", "7.8"]).flatmap(
    lambda name: strategies.envelopes(name).map(
        lambda envelope: releases.format_envelope(envelope, releases.find_release(name))
    )
)
_TEXTS = st.one_of(_RAW, _LINES, _near(_REAL), _ENVELOPES, st.sampled_from(_NASTY))
_STORED = st.one_of(_TEXTS, _wrapped(_TEXTS), _near(_WRAPPED), _wrapped(_near(_WRAPPED)))

# --- formats


@given(_TEXTS)
def test_an_envelope(octets: bytes) -> None:
    with _bounds():
        try:
            parsed = parse_envelope(octets)
        except EnvelopeError:
            return
        assert parsed.octets == len(octets)
        assert len(parsed.damage) < 200
        assert sum(map(len, parsed.damage)) < 20_000
        releases.readers(parsed)
        releases.common_refusal(parsed)
        for name in ("5.7.3", "6.8", "7.8"):
            try:
                releases.format_envelope(parsed.envelope, releases.find_release(name))
            except EnvelopeError:
                continue


@given(_STORED, st.sampled_from([None, _KEY]))
def test_a_stored_envelope(octets: bytes, key: codec.Key | None) -> None:
    with _bounds():
        try:
            plain, form = codec.decode_envelope(octets, key, _LIMIT)
        except codec.CodecError:
            return
        assert len(plain) <= _LIMIT
        assert form in (codec.PLAIN, codec.GZIP, codec.ENCRYPTED, codec.GZIP_ENCRYPTED)


@given(_STORED, st.sampled_from([None, _KEY]), st.booleans())
def test_a_stored_message(octets: bytes, key: codec.Key | None, seekable: bool) -> None:
    stream = io.BytesIO(octets) if seekable else _Once(octets)
    with _bounds():
        taken = 0
        try:
            pieces, _ = codec.decode_message(stream, key)
            for piece in pieces:
                assert piece
                taken += len(piece)
                if taken > _TAKEN_MAX:
                    break
        except codec.CodecError:
            return


class _Once(io.BytesIO):
    """A stream that cannot be read twice, and gives little at a time."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        raise AssertionError((offset, whence))

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 1000))


@given(st.sampled_from(["envelope", "stray", "offline", "body"]), _STORED)
def test_an_item(kind: str, octets: bytes) -> None:
    item = Item(kind, "where/1700000000.x", "queue", 1 << 32 | 1, octets[: _LIMIT + 1])
    with _bounds():
        for entry in read_entries(item, lambda: _KEY):
            assert isinstance(entry, (Entry, Unreadable))


@given(st.one_of(_TEXTS, _near([b'-t|-f|a@b|--|c@d\nTo: x <a@b>, "y" <c@d>\nBcc: z\n\nhello\n'])))
def test_a_submission(octets: bytes) -> None:
    with _bounds():
        try:
            submission = offline.parse_submission(octets[:_LIMIT])
        except offline.OfflineError:
            return
        assert len(submission.recipients) <= offline.RECIPIENTS_MAX


_PARTS = st.sampled_from(
    [
        *layout.BUCKETS,
        *("..", "", ".", "1a", "1a2b3c4d", "1a2b3c4d.1", "1a2b3c4d5e6f7081", "1A2B3C4D5E6F7081"),
        *("message", "0" * 16, "envelopes", "4711", "envelope.tmp", "a\nb", "\udcff"),
    ]
)


@given(st.one_of(st.text(max_size=60), st.lists(_PARTS, max_size=7).map("/".join)))
def test_a_path(path: str) -> None:
    place = layout.find_place(path)
    assert place is None or place.kind in ("envelope", "message", "offline", "stray", "hidden")


# --- archives

_FIELDS = (  # of a tar header: where, how long
    (0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (148, 8), (156, 1), (157, 100),
    (257, 8), (265, 32), (329, 8), (345, 155), (386, 97), (482, 1), (483, 12),
)  # fmt: skip
_NUMBERS = (b"00000000000\0", b"77777777777\0", b"\x80" + b"\0" * 10 + b"\x09", b"\xff" * 12,
            b"\x80\x7f" + b"\xff" * 10, b"-1\0", b"9", b"", b" 1 ")  # fmt: skip


_KEYS = st.sampled_from(
    [
        *("path", "size", "mtime", "linkpath", "hdrcharset", "GNU.sparse.map", "GNU.sparse.size"),
        *("GNU.sparse.major", "GNU.sparse.realsize", "GNU.sparse.name"),
    ]
)
_KEY_VALUES = st.one_of(
    st.sampled_from(["0", "1", "9" * 20, "-1", "0,1,5,6", "x"]), st.text(max_size=20)
)
_TYPES = st.sampled_from([b"S", b"x", b"g", b"L", b"K", b"1", b"2", b"D"])


def _sum(block: bytes) -> bytes:
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


@st.composite
def _headers(draw: st.DrawFn) -> bytes:
    """Draw an archive of a few members whose headers are strange, with checksums that fit."""
    name = draw(st.sampled_from(["queue/1a/1a2b3c4d/1a2b3c4d00000001", "offline/1.a", "x"]))
    tree: trees.Tree = {name: trees.envelope(), "queue/1a/1a2b3c4d/message": b"body\n" * 200}
    octets = trees.pack_tree(tree, draw(st.sampled_from(["", "smtpd/", "./"])))
    blocks = [octets[at : at + 512] for at in range(0, len(octets), 512)]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, 6))
        start, length = draw(st.sampled_from(_FIELDS))
        value = draw(
            st.one_of(
                st.sampled_from(_NUMBERS),
                st.binary(max_size=length),
                st.sampled_from([b"S", b"x", b"g", b"L", b"K", b"1", b"2", b"D"]),
            )
        )
        block = blocks[at]
        value = value[:length].ljust(length, b"\0")
        blocks[at] = _sum(block[:start] + value + block[start + length :])
    records = draw(st.lists(st.tuples(_KEYS, _KEY_VALUES), max_size=4))
    if records:
        lines = b"".join(_record(key, value.encode("utf-8", "replace")) for key, value in records)
        header = bytearray(blocks[0])
        header[124:136] = b"%011o\0" % len(lines)
        header[156:157] = draw(st.sampled_from([b"x", b"g"]))
        blocks[:0] = [_sum(bytes(header)), lines.ljust(-(-len(lines) // 512) * 512, b"\0")]
    cut = draw(st.integers(0, 3)) or -len(octets)
    return b"".join(blocks)[: -cut * 100] if cut > 0 else b"".join(blocks)


def _record(key: str, value: bytes) -> bytes:
    rest = b" %b=%b\n" % (key.encode(), value)
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


_TARS = st.one_of(
    _headers(),
    _headers().flatmap(strategies.mutations),
    _headers().map(gzip.compress),
    _near(_ARCHIVES),
    _RAW,
    st.tuples(st.sampled_from([b"BZh9", b"\xfd7zXZ\0", b"(\xb5/\xfd", b"\x1f\x8b", b"\x1f\x9d"]),
              st.binary(max_size=300)).map(b"".join),
)  # fmt: skip


@given(_TARS)
def test_an_archive(octets: bytes) -> None:
    with _bounds():
        stream = io.BytesIO(octets)
        try:
            for member in tar.members(stream.read):
                if isinstance(member, tar.Member):
                    while member.read(65536):
                        pass
        except tar.TarError:
            return


@given(_TARS)
def test_an_archive_as_a_spool(octets: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(octets)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        with _bounds():
            source = ArchiveSource("x.tar", file.fileno())
            try:
                for unit in source.units(layout.BUCKETS):
                    for item in source.walk(unit, details=True):
                        assert isinstance(item, (Item, Unreadable))
                body = source.open_message(0x1A2B3C4D, layout.BUCKETS)
                while body is not None and body.read(65536):
                    pass
            except (AccessError, unpack.UnpackError):
                return


# --- the whole program

_NAMES = st.sampled_from([*layout.BUCKETS, "1a", "zz", "1a2b3c4d", "1a2b3c4d.1", "1A2B3C4D",
    "1a2b3c4d00000001", "1a2b3c4d00000002", "ffffffff00000001", "1A2B3C4D00000003", "message",
    "envelopes", "4711", "envelope.tmp", "1700000000.abc", "a\nb\x1b[31m", "\udcff\udc9b",
    "\u202e", "x" * 200])  # fmt: skip
_PATHS = st.one_of(
    st.lists(_NAMES, min_size=1, max_size=5).map("/".join),
    st.sampled_from(["queue/1a/1a2b3c4d/", "corrupt/1a2b3c4d/", "offline/", "incoming/1a2b3c4d/",
                     "purge/4711/1a2b3c4d/", "queue/4d/1a2b3c4d/envelopes/", "temporary/"]).flatmap(
        lambda directory: _NAMES.map(lambda name: directory + name)),
)  # fmt: skip
_CONTENTS: st.SearchStrategy[bytes | tuple[str] | int | None] = st.one_of(
    _STORED,
    _STORED,
    _ENVELOPES,
    st.none(),
    st.just(0),
    st.sampled_from(["/etc/passwd", "..", ".", "1a2b3c4d00000001"]).map(lambda target: (target,)),
)
_TREES = st.dictionaries(_PATHS, _CONTENTS, max_size=8)
_OPTIONS = st.lists(
    st.sampled_from(["--all", "--reverse", "--sort=age", "--sort=size", "--sort=domain",
        "--sort=error", "--limit=1", "--count", "--summary", "--sender=*a*", "--domain=[",
        "--older=1d", "--newer=1d", "--tries=+0", "--size=+1k", "--type=mta", "--flag=auth",
        "--error=45*", "--bucket=offline", "--format=json", "--format=json-pretty",
        "--format=csv", "--format=table", "--format=classic"]),
    max_size=4, unique=True)  # fmt: skip
_ROWS_ONLY = {"--format", "--sort", "--reverse"}
_EXCLUDE = {"--count": {"--summary", "--limit", *_ROWS_ONLY}, "--summary": _ROWS_ONLY}
_WORDS = st.sampled_from([
    ["show", "queue"], ["show", "queue"], ["show", "queue"], ["mailq"],
    ["show", "queue", "1a2b3c4d"], ["show", "queue", "1a2b3c4d00000001"],
    ["show", "envelope", "1a2b3c4d00000001"], ["show", "envelope", "1a2b3c4d00000002", "--all"],
    ["show", "message", "1a2b3c4d"], ["show", "message", "1a2b3c4d", "--all"],
])  # fmt: skip


def _write(tree: Iterable[tuple[str, bytes | tuple[str] | int | None]], top: pathlib.Path) -> None:
    """Make the files of a tree, as far as they can be beside each other."""
    for path, content in tree:
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            trees.write_tree({path: content}, top)


@contextlib.contextmanager
def _directory() -> Iterator[pathlib.Path]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield pathlib.Path(directory)


@given(_TREES, _WORDS, _OPTIONS)
def test_any_tree(
    tree: dict[str, bytes | tuple[str] | int | None], words: list[str], options: list[str]
) -> None:
    with _directory() as top:
        _write(tree.items(), top / "spool")
        (top / "spool").mkdir(exist_ok=True)
        (top / "key").write_bytes(b"0123456789abcdef0123456789abcdef")
        if "queue" not in words[1:] and words != ["mailq"]:
            options = []
        where = ["--spool", str(top / "spool"), "--key-file", str(top / "key")]
        began = time.monotonic()
        done = running.run(*words, *where, *options)
        assert time.monotonic() - began < _SECONDS_MAX
        names = {option.partition("=")[0] for option in options}
        excluding = any(name in names and names & others for name, others in _EXCLUDE.items())
        assert done.status in ((2,) if excluding else (0, 1)), done
        assert b"internal error" not in done.err, done
        assert done.err or done.status == 0, done
        assert words[1:2] == ["envelope"] or not done.err or done.status, done
        assert not re.search(rb"[\0-\x09\x0b-\x1f\x7f]", done.err), done
        done.err.decode()
        if "--format=json" in options and not {"--count", "--summary"}.intersection(options):
            chosen = [name for name in options if name.startswith("--format")][-1]
            if chosen == "--format=json":
                for line in done.out.split(b"\n")[:-1]:
                    assert json.loads(line)["schema"] == 1


@given(_TARS)
def test_any_archive(octets: bytes) -> None:
    done = running.run("show", "queue", "--spool", "-", "--all", given=octets)
    assert done.status in (0, 1)
    assert b"internal error" not in done.err, done
    assert not re.search(rb"[\0-\x09\x0b-\x1f\x7f]", done.err), done


# --- safe to look at

_COLOURS = re.compile(rb"\x1b\[(?:1|31|33)m([^\x1b\n]*)\x1b\[0m")
_UNSAFE = re.compile(
    "[\0-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_EVIL = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([
        b"\x1b[2J\x1b]0;pwned\x07", b"\x9b31m", b"\xc2\x9b31m", b"\xe2\x80\xae gpj.exe", b"a\rb",
        b"\x08\x08\x08", b"\x7f", b"\t", b"\xe2\x81\xa6", b"\xd8\x9c", b"\xe2\x80\xa8", b"\x0e",
        b"\xed\xa0\x80", b"\xff\xfe", b"\xc3\xa9\xe4\xb8\xad", b"\x1b(0", b"\x1b[31m\x1b[0m",
        b"x" * 300, b" " * 300, b"\xc2\x85 " * 60,
    ]),
).map(lambda octets: octets.translate(None, b"\n"))  # fmt: skip
_EVIL_NAMES = (
    *("sender", "rcpt", "dest", "errorline", "helo", "tag", "dispatcher", "dsn-envid"),
    *("mda-exec", "smtpname", "sockaddr", "type", "flags", "x-unknown", "ctime"),
)


def _at_a_terminal(spool: pathlib.Path, handler: str, *words: str, **options: str) -> list[bytes]:
    """Run a command whose output believes that it goes to a terminal with colours."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        shown = output.Output("smtpctl", {}, out.fileno(), err.fileno())
        shown.terminal = shown.colour = True
        given_options = Options({"spool": str(spool), "all": True, **options})
        context = Context(shown, given_options, {"SMTPCTL_QUEUE_KEY": "k" * 32}, _NOW)
        try:
            getattr(queue, handler)(context, list(words))
        except SmtpdError as error:
            shown.warn(str(error))
        shown.flush()
        out.seek(0)
        err.seek(0)
        return [out.read(), err.read()]


@given(
    st.lists(st.tuples(st.sampled_from(_EVIL_NAMES), _EVIL), max_size=8),
    st.lists(_EVIL, max_size=3),
    st.sampled_from(["classic", "table", "json", "json-pretty", "csv", "summary"]),
    st.sampled_from([b"a@b", b"\x1b[2J@\xc2\x9b", b"\xe2\x80\xae"]),
)
@example([("errorline", b"\x1b[31mx\x1b[0m \x9b")], [b"\x1b[2J"], "table", b"\x1b")
def test_no_envelope_controls_a_terminal(
    evil: list[tuple[str, bytes]], names: list[bytes], form: str, address: bytes
) -> None:
    lines = [b"version: 3\nhelo: h\nhostname: h\ndispatcher: d\ntype: mta\nctime: 7\n"]
    lines += [b"sender: " + address + b"\nrcpt: " + address + b"\ndest: a@" + address + b"\n"]
    lines += [name.encode() + b": " + value + b"\n" for name, value in evil]
    with _directory() as top:
        message = top / "queue/1a/1a2b3c4d"
        message.mkdir(parents=True)
        (top / "offline").mkdir()
        (message / "1a2b3c4d00000001").write_bytes(b"".join(lines))
        (message / "message").write_bytes(b"Subject: x\n\n" + b"\n".join(v for _, v in evil))
        (top / "offline/1.x").write_bytes(b"-f|" + b"|".join(v for _, v in evil) + b"\n\n")
        for name in names:
            kept = name.replace(b"/", b"").replace(b"\0", b"")[:200]
            if kept.strip(b"."):
                (message / os.fsdecode(kept)).write_bytes(b"".join(lines))
                (top / "queue" / os.fsdecode(kept)).mkdir(exist_ok=True)
        chosen = {"summary": True} if form == "summary" else {"format": form}
        listed = _at_a_terminal(top, "show_queue", **chosen)
        assert any(listed)
        for octets in listed:
            plain = _COLOURS.sub(rb"\1", octets) if form == "table" else octets
            assert not _UNSAFE.search(plain.decode()), octets
        texts = _at_a_terminal(top, "show_envelope", "1a2b3c4d00000001")
        texts += _at_a_terminal(top, "show_message", "1a2b3c4d")
        for octets in texts:
            assert not _UNSAFE.search(octets.replace(b"\t", b"").decode()), octets
