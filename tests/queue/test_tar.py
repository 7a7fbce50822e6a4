"""Reading tar archives as a stream, against those who write them and against damage."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING, Callable, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import FormatError, LocalError
from smtpd_core.queue import tar
from smtpd_core.queue.tar import Damage, Member, TarError, looks_like_tar, members
from smtpd_core.queue.tar_header import BLOCK

if TYPE_CHECKING:
    from pathlib import Path

END = bytes(2 * BLOCK)
LONG = 100  # octets of a name in a header
LAST_OCTAL = 8**11 - 1  # second of 2242 that eleven digits hold


def source(octets: bytes, *sizes: int) -> Callable[[int], bytes]:
    """Give octets in pieces of the sizes named, again and again; in one piece without any."""
    stream = io.BytesIO(octets)
    turn = 0

    def read(count: int) -> bytes:
        nonlocal turn
        turn += 1
        return stream.read(min(count, sizes[turn % len(sizes)]) if sizes else count)

    return read


Seen = tuple[object, ...]


def survey(octets: bytes, *sizes: int, want: int = 1) -> list[Seen]:
    """Everything an archive gives: members with their octets, damages, the error at the end.

    Of every `want` members the first is read, the others are passed over.
    """
    seen: list[Seen] = []
    count = 0
    try:
        for entry in members(source(octets, *sizes)):
            if isinstance(entry, Damage):
                seen.append(("damage", entry.offset, entry.reason))
                continue
            fields = (entry.kind, entry.name, entry.linkname, entry.size, entry.mode)
            owner = (entry.uid, entry.gid, entry.mtime, entry.offset)
            content: Optional[Union[bytes, str]] = None
            if count % want == 0:
                try:
                    content = entry.read_all(1 << 20)
                except TarError as error:
                    content = str(error)
            count += 1
            seen.append((*fields, *owner, content))
    except TarError as error:
        seen.append(("error", str(error)))
    return seen


def names(octets: bytes) -> list[object]:
    """Names of members; damages as their offset, and an error as its text."""
    short = []
    for entry in survey(octets):
        short.append(entry[1])
    return short


def block(
    name: bytes = b"a",
    size: Union[int, bytes] = 0,
    flag: bytes = b"0",
    *,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    ids: bytes = b"0000644\x000001750\x000001751\0",
    mtime: bytes = b"00000001000\0",
    linkname: bytes = b"",
    signed: bool = False,
) -> bytes:
    """Make a header with the right checksum."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    head = name.ljust(100, b"\0") + ids + field + mtime
    tail = flag + linkname.ljust(100, b"\0") + magic.ljust(88, b"\0") + prefix.ljust(155, b"\0")
    tail = tail.ljust(BLOCK - 156, b"\0")
    total = sum(head + b" " * 8 + tail)
    if signed:
        total -= 256 * sum(octet >= 128 for octet in head + tail)
    return head + b"%06o\0 " % total + tail


def file(name: bytes, content: bytes, flag: bytes = b"0", **fields: bytes) -> bytes:
    """Make a whole member."""
    padding = bytes(-len(content) % BLOCK)
    return block(name, len(content), flag, **fields) + content + padding  # type: ignore[arg-type]


def pax(records: bytes, flag: bytes = b"x") -> bytes:
    return file(b"PaxHeaders/a", records, flag)


def record(key: bytes, value: bytes) -> bytes:
    """Make a pax record: its length counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d" % length + rest


def only(octets: bytes) -> Member:
    """The only member of an archive in good order, not read yet."""
    first = next(members(source(octets)))
    assert isinstance(first, Member)
    assert len(survey(octets)) == 1
    return first


# What others write

KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.LNKTYPE: "hardlink",
    tarfile.SYMTYPE: "symlink",
    tarfile.DIRTYPE: "directory",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "device",
}


def oracle(octets: bytes) -> list[Seen]:
    """What the tarfile module makes of an archive, as survey() tells it."""
    seen: list[Seen] = []
    with tarfile.open(fileobj=io.BytesIO(octets), errors="surrogateescape") as archive:
        for info in archive:
            kind = KINDS[info.type]
            content = b""
            if kind == "file":
                handle = archive.extractfile(info)
                assert handle is not None
                content = handle.read()
            name = os.fsencode(info.name).rstrip(b"/")  # Python 3.9 leaves it at long names
            fields = (kind, name, os.fsencode(info.linkname), len(content), info.mode & 0o7777)
            seen.append((*fields, info.uid, info.gid, int(info.mtime), content))
    return seen


def agrees(octets: bytes) -> list[Seen]:
    """Assert that we and the oracle read the same; give what was read."""
    seen = [
        # The module removes the slash behind directories; offsets are not comparable.
        (entry[0], bytes(entry[1]).rstrip(b"/"), *entry[2:8], entry[9])  # type: ignore[call-overload]
        for entry in survey(octets)
    ]
    assert seen == oracle(octets)
    return seen


def tree(root: Path, *, deep: bool) -> None:
    """Fill a directory with what spools hold, and what they should not."""
    message = root / "queue" / "1f" / "1f2e3d4c"
    message.mkdir(parents=True)
    (message / "message").write_bytes(b"Subject: x\n\n" + b"line\n" * 300)
    (message / "1f2e3d4c00000001").write_bytes(b"version: 3\n" + b"x" * 501)  # a whole block
    (message / "1f2e3d4c00000002").write_bytes(b"")
    (message / "late").write_bytes(b"late")
    os.utime(message / "late", (LAST_OCTAL + 2, LAST_OCTAL + 2))
    (message / "link").symlink_to("message")
    os.link(message / "message", message / "same")
    os.mkfifo(message / "pipe")
    (root / "offline").mkdir(mode=0o770)
    (root / "offline" / os.fsdecode(b"caf\xe9 \xc3\xa9")).write_bytes(b"octets")
    if deep:
        path = root / ("d" * 70) / ("e" * 70)
        path.mkdir(parents=True)
        (path / "short").write_bytes(b"160")
        (path / ("f" * 60)).write_bytes(b"204")


def far(root: Path) -> None:
    """Add names that only GNU and pax archives hold."""
    path = root / ("g" * 200) / ("h" * 200)
    path.mkdir(parents=True)
    (path / ("i" * 200)).write_bytes(b"beyond")
    (path / "far").symlink_to("j" * 300)


def pack(root: Path, *options: str, program: tuple[str, ...] = ("tar",)) -> bytes:
    return subprocess.run(
        [*program, "-cf", "-", *options, "-C", str(root), "."],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    ).stdout


def is_gnu_tar() -> bool:
    if shutil.which("tar") is None:
        return False
    return b"GNU" in subprocess.run(["tar", "--version"], check=False, capture_output=True).stdout


needs_tar = pytest.mark.skipif(not is_gnu_tar(), reason="no GNU tar here")


@pytest.mark.system
@needs_tar
@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "pax"])
def test_gnu_tar(form: str, tmp_path: Path) -> None:
    tree(tmp_path, deep=form != "v7")
    if form == "v7":
        os.unlink(tmp_path / "queue/1f/1f2e3d4c/pipe")  # and has no fifos
    late = tmp_path / "queue/1f/1f2e3d4c/late"
    if form in ("v7", "ustar"):
        os.utime(late, (LAST_OCTAL, LAST_OCTAL))
    else:
        far(tmp_path)
    seen = agrees(pack(tmp_path, f"--format={form}"))
    kinds = {entry[0] for entry in seen}
    assert kinds >= {"file", "directory", "symlink", "hardlink"}
    assert ("fifo" in kinds) == (form != "v7")
    assert max(int(str(entry[7])) for entry in seen) == int(late.stat().st_mtime)
    longest = max(len(bytes(entry[1])) for entry in seen)  # type: ignore[call-overload]
    assert longest > {"v7": 30, "ustar": 200}.get(form, 600)


@pytest.mark.system
@pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox here")
def test_busybox_tar(tmp_path: Path) -> None:
    tree(tmp_path, deep=True)
    os.utime(tmp_path / "queue/1f/1f2e3d4c/late", (LAST_OCTAL, LAST_OCTAL))
    far(tmp_path)
    assert len(agrees(pack(tmp_path, program=("busybox", "tar")))) > 15


@pytest.mark.system
@needs_tar
@pytest.mark.parametrize(
    "options",
    [
        ("--format=oldgnu",),
        ("--format=gnu",),
        ("--format=pax", "--sparse-version=0.0"),
        ("--format=pax", "--sparse-version=0.1"),
        ("--format=pax", "--sparse-version=1.0"),
    ],
)
def test_files_with_holes_are_whole(options: tuple[str, ...], tmp_path: Path) -> None:
    with open(tmp_path / "many", "wb") as many:  # more runs than one header holds
        for place in range(60):
            many.seek(place * 65536)
            many.write(b"%d" % place)
        many.truncate(64 * 65536 + 5)
    with open(tmp_path / "hole", "wb") as hole:
        hole.truncate(100_000)
    (tmp_path / "solid").write_bytes(b"solid")
    octets = pack(tmp_path, "--sparse", *options)
    if len(octets) > 1 << 20:
        pytest.skip("this file system keeps no holes")
    for sizes in ((), (1000,)):
        content = {
            entry.name: entry.read_all(1 << 23)
            for entry in members(source(octets, *sizes))
            if isinstance(entry, Member) and entry.kind == "file"
        }
        assert content == {
            f"./{path.name}".encode(): path.read_bytes() for path in tmp_path.iterdir()
        }


def info(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tarfile_module(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as archive:
        archive.addfile(info("spool", type=tarfile.DIRTYPE, mode=0o711))
        for name in ("a", "n" * 100, "p/" * 60 + "q", "\udcff\udc80", "é/ü"):
            archive.addfile(info(name, size=5, mtime=77, uid=110, gid=65534), io.BytesIO(b"12345"))
        archive.addfile(info("ln", type=tarfile.SYMTYPE, linkname="t" * 100))
        archive.addfile(info("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3))
        if form != tarfile.USTAR_FORMAT:
            big = 1 << 33
            archive.addfile(info("big", uid=big, gid=big + 1, mtime=big + 2))
            archive.addfile(info("old", mtime=-86400 * 365))
            archive.addfile(info("x" * 300, type=tarfile.LNKTYPE, linkname="y" * 300))
    seen = agrees(out.getvalue())
    assert len(seen) == (8 if form == tarfile.USTAR_FORMAT else 11)


def test_global_records_hold_until_a_member_has_its_own() -> None:
    out = io.BytesIO()
    records = {"mtime": "5", "gid": "9", "comment": "made by hand"}
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=records
    ) as archive:
        archive.addfile(info("a", mtime=1))
        archive.addfile(info("b", mtime=1, pax_headers={"mtime": "6.75"}))
        archive.addfile(info("c", mtime=1))
    seen = survey(out.getvalue())
    assert [(entry[1], entry[6], entry[7]) for entry in seen] == [
        (b"a", 9, 5),
        (b"b", 9, 6),
        (b"c", 9, 5),
    ]


# Fields


def test_every_field_of_a_member() -> None:
    member = only(block(b"n", 3, linkname=b"l") + b"abc".ljust(BLOCK, b"\0") + END)
    assert (member.name, member.kind, member.size, member.linkname) == (b"n", "file", 3, b"l")
    assert (member.mode, member.uid, member.gid, member.mtime) == (0o644, 0o1750, 0o1751, 512)
    assert member.offset == 0


@pytest.mark.parametrize(
    ("flag", "name", "kind"),
    [
        (b"0", b"a", "file"),
        (b"\0", b"a", "file"),
        (b"7", b"a", "file"),
        (b"0", b"a/", "directory"),
        (b"\0", b"a/", "directory"),
        (b"1", b"a", "hardlink"),
        (b"2", b"a", "symlink"),
        (b"3", b"a", "device"),
        (b"4", b"a", "device"),
        (b"5", b"a", "directory"),
        (b"6", b"a", "fifo"),
        (b"V", b"a", "other"),
        (b"\xff", b"a", "other"),
    ],
)
def test_kinds(flag: bytes, name: bytes, kind: str) -> None:
    assert only(block(name, 0, flag) + END).kind == kind


@pytest.mark.parametrize("flag", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_links_and_such_have_no_octets_whatever_their_size(flag: bytes) -> None:
    seen = survey(block(b"a", 4096, flag) + file(b"b", b"x") + END)
    assert [(entry[1], entry[3], entry[-1]) for entry in seen] == [(b"a", 0, b""), (b"b", 1, b"x")]


def test_octets_of_an_incremental_dump_are_passed_over() -> None:
    seen = survey(file(b"a/", b"Ymessage\0\0", b"D") + file(b"b", b"x") + END)
    assert [(entry[0], entry[1]) for entry in seen] == [("directory", b"a/"), ("file", b"b")]


def test_prefix_is_a_prefix_only_in_ustar() -> None:
    assert only(block(b"a", prefix=b"p/q") + END).name == b"p/q/a"
    assert only(block(b"a", prefix=b"13245", magic=b"ustar  \0") + END).name == b"a"
    assert only(block(b"a", prefix=b"p", magic=b"") + END).name == b"a"


def test_full_fields_need_no_terminator() -> None:
    member = only(block(b"n" * LONG, prefix=b"p" * 155, linkname=b"l" * LONG, flag=b"2") + END)
    assert member.name == b"p" * 155 + b"/" + b"n" * LONG
    assert member.linkname == b"l" * LONG


def test_checksum_of_signed_octets() -> None:
    octets = block(b"\xe9\xff" * 40, signed=True) + END
    assert octets != block(b"\xe9\xff" * 40) + END
    assert only(octets).name == b"\xe9\xff" * 40


def test_long_names_win_over_the_header() -> None:
    octets = file(b"././@LongLink", b"n" * 700 + b"\0", b"L")
    octets += file(b"././@LongLink", b"l" * 300 + b"\0", b"K")
    octets += block(b"n" * LONG, 0, b"2", linkname=b"l" * LONG)
    seen = survey(octets + block(b"next") + END)
    assert [entry[:3] for entry in seen] == [
        ("symlink", b"n" * 700, b"l" * 300),
        ("file", b"next", b""),
    ]


def test_pax_records_win_over_the_header() -> None:
    records = [
        (b"path", b"p\n=q"),
        (b"linkpath", b"l"),
        (b"size", b"3"),
        (b"uid", b"8"),
        (b"gid", b"9"),
    ]
    octets = pax(b"".join(record(*pair) for pair in [*records, (b"mtime", b"-3.5")]))
    seen = survey(octets + block(b"a", 0) + b"abc".ljust(BLOCK, b"\0") + block(b"b") + END)
    assert seen[0] == ("file", b"p\n=q", b"l", 3, 0o644, 8, 9, -3, 1024, b"abc")
    assert seen[1][:3] == ("file", b"b", b"")


def test_empty_records_take_back_global_ones() -> None:
    octets = pax(record(b"path", b"all") + record(b"mtime", b"7"), b"g")
    octets += pax(record(b"path", b"") + record(b"mtime", b"")) + block(b"a") + block(b"b")
    assert [(entry[1], entry[7]) for entry in survey(octets + END)] == [(b"a", 512), (b"all", 7)]


# Reading


def test_reading_by_pieces_and_past_the_end() -> None:
    archive = members(source(file(b"a", b"0123456789") + END, 7))
    member = next(archive)
    assert isinstance(member, Member)
    assert [member.read(count) for count in (4, 0, 4, 4, 4)] == [b"0123", b"", b"4567", b"89", b""]
    assert member.read_all(10) == b""


def test_read_all_gives_what_is_left_and_keeps_a_limit() -> None:
    archive = members(source(file(b"a\x1b", b"0123456789") + END))
    member = next(archive)
    assert isinstance(member, Member)
    with pytest.raises(TarError, match=r"^a\\x1b: 10 octets, more than 9$"):
        member.read_all(9)
    assert member.read(3) + member.read_all(10) == b"0123456789"


def test_a_member_is_read_in_its_turn_only() -> None:
    archive = members(source(file(b"a", b"1") + file(b"b", b"2") + END))
    first = next(archive)
    second = next(archive)
    assert isinstance(first, Member)
    assert isinstance(second, Member)
    with pytest.raises(LocalError):
        first.read(1)
    assert second.read(1) == b"2"
    assert list(archive) == []
    with pytest.raises(LocalError):
        second.read(1)


def test_partly_read_members_are_passed_over() -> None:
    octets = b"".join(file(b"%d" % size, bytes(size)) for size in range(0, 2000, 97)) + END
    for count in (0, 1, 511, 512, 513):
        found = []
        for member in members(source(octets)):
            assert isinstance(member, Member)
            member.read(count)
            found.append(member.name)
        assert found == [b"%d" % size for size in range(0, 2000, 97)]


class SourceError(FormatError):
    pass


def test_errors_of_the_source_come_after_what_it_gave() -> None:
    stream = source(file(b"a", b"x" * 3000)[: BLOCK + 700], 512)

    def read(count: int) -> bytes:
        octets = stream(count)
        if not octets:
            raise SourceError("broken")
        return octets

    member = next(members(read))
    assert isinstance(member, Member)
    assert member.read(3000) == b"x" * 700
    with pytest.raises(SourceError):
        member.read(3000)
    with pytest.raises(SourceError):
        list(members(read))


# Ends


def test_what_follows_the_end_marker_is_left_alone() -> None:
    octets = file(b"a", b"1") + END + file(b"b", b"2") + b"garbage"
    assert names(octets) == [b"a"]


def test_an_archive_of_nothing() -> None:
    assert survey(END) == []
    with pytest.raises(TarError, match="not a tar archive"):
        list(members(source(b"")))
    with pytest.raises(TarError, match="not a tar archive"):
        list(members(source(b"Subject: no tar\n" * 100)))


@pytest.mark.parametrize("rest", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK - 1])
def test_a_missing_end_marker_is_reported(rest: int) -> None:
    octets = file(b"a", b"1") + bytes(rest)
    assert survey(octets)[1:] == [
        ("damage", len(octets), "the archive ends without its end marker: there may have been more")
    ]


def test_missing_padding_is_no_loss() -> None:
    assert names(file(b"a", b"1")[: BLOCK + 1]) == [b"a", BLOCK + 1]


def test_a_cut_says_where() -> None:
    octets = file(b"a", b"1") + file(b"dir/b", b"x" * 1000)
    assert survey(octets[: 3 * BLOCK + 999])[1][-1] == (
        f"the archive is cut at octet {3 * BLOCK + 999}, inside member dir/b"
    )
    passing = survey(octets[: 3 * BLOCK + 999], want=2)
    assert passing[-1] == ("error", "the archive is cut at octet 2535, inside member dir/b")
    assert survey(octets[: 2 * BLOCK + 9])[1:] == [
        ("error", "the archive is cut at octet 1033, inside a header")
    ]


@pytest.mark.parametrize("flag", [b"L", b"K", b"x", b"g"])
def test_a_cut_inside_what_describes_a_member(flag: bytes) -> None:
    octets = block(b"a") + file(b"long", b"9 uid=10\n", flag)
    for end in (BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 8):
        assert survey(octets[:end])[-1] == (
            ("error", f"the archive is cut at octet {end}, inside a header")
        )


# Damage


def test_the_walk_goes_on_behind_a_damaged_header() -> None:
    good = [file(b"%d" % place, b"x" * 700) for place in range(4)]
    bad = b"?" + good[1][1:]
    octets = good[0] + bad + good[2] + good[3] + END
    assert names(octets) == [b"0", 1536, b"2", b"3"]
    assert survey(octets)[1][2] == "no header, or a damaged one: 1536 octets passed over"
    assert names(bad + good[2] + END) == [0, b"2"]
    assert names(good[0] + bad + bad + good[3] + END) == [b"0", 1536, b"3"]
    assert names(good[0] + bad + END) == [b"0", 1536]
    assert names(good[0] + bad) == [b"0", 1536, 3072]
    assert names(good[0] + bad[:-100]) == [b"0", 1536, 2972]
    assert names(bad + END) == ["not a tar archive: it holds no header"]


def test_a_single_block_of_zeros_is_passed_over() -> None:
    octets = block(b"a") + bytes(BLOCK) + block(b"b") + END
    assert [entry[1] for entry in survey(octets)] == [b"a", BLOCK, b"b"]
    assert survey(octets)[1][2] == "a single block of zeros: 512 octets passed over"


@pytest.mark.parametrize("size", [b"99999999999\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"-1"])
def test_a_size_that_is_none_costs_one_member(size: bytes) -> None:
    octets = block(b"a", size.ljust(12, b"\0")) + b"text" * 128 + block(b"b") + END
    assert names(octets) == [0, BLOCK, b"b"]


def test_other_numbers_cost_no_member() -> None:
    ids = b"rw-r--r-root\0\0\0\0wheel\0\0\0"
    octets = file(b"a", b"1", ids=ids, mtime=b"yesterday\0\0\0") + END
    seen = survey(octets)
    assert [entry[0] for entry in seen] == ["damage"] * 4 + ["file"]
    assert seen[-1][4:8] == (0, 0, 0, 0)
    assert seen[-1][-1] == b"1"


def test_records_that_are_none_cost_no_member() -> None:
    octets = pax(record(b"path", b"p") + record(b"size", b"many") + b"99 x") + file(b"a", b"1")
    seen = survey(octets + END)
    assert [entry[0] for entry in seen] == ["damage", "file"]
    assert seen[1][1] == b"p"
    assert seen[1][-1] == b"1"


def test_a_description_without_a_member() -> None:
    octets = block(b"a") + pax(record(b"path", b"p")) + END
    assert survey(octets)[1:] == [
        ("damage", 3 * BLOCK, "a header that describes a member, and no member")
    ]


@pytest.mark.parametrize("flag", [b"L", b"K", b"x", b"g"])
def test_descriptions_have_a_limit(flag: bytes) -> None:
    size = tar.MAX_EXTENSION + 1
    octets = block(b"long", size, flag) + bytes(size + -size % BLOCK) + file(b"a", b"1") + END
    assert survey(octets)[0] == ("damage", 0, f"{size} octets about the next member: passed over")
    assert names(octets) == [0, b"a"]


def test_the_search_for_a_header_has_a_limit() -> None:
    asked = 0

    def read(count: int) -> bytes:
        nonlocal asked
        asked += count
        return block(b"a") if asked == count else b"?" * count

    seen = members(read)
    next(seen)
    with pytest.raises(TarError, match="octet 512: no header, or a damaged one, and none in"):
        next(seen)
    assert asked < 2 * tar.MAX_RESYNC


def test_a_map_of_holes_that_does_not_fit_makes_a_member_unreadable() -> None:
    records = record(b"GNU.sparse.map", b"0,9,4,2") + record(b"GNU.sparse.size", b"10")
    octets = pax(records) + file(b"a", b"1") + file(b"b", b"2") + END
    seen = survey(octets)
    assert [entry[0] for entry in seen] == ["damage", "sparse", "file"]
    assert seen[1][-1] == "a: its map of holes is damaged"
    assert seen[2][-1] == b"2"


def test_a_head_that_looks_like_tar() -> None:
    assert looks_like_tar(block())
    assert looks_like_tar(block() + b"more")
    assert looks_like_tar(END)
    assert not looks_like_tar(block()[:-1])
    assert not looks_like_tar(b"")
    assert not looks_like_tar(b"version: 3\n".ljust(BLOCK, b"\0"))


# Any octets


def mixture() -> bytes:
    """Make an archive that has something of everything."""
    out = file(b"queue/1f/1f2e3d4c/message", b"Subject: x\n" * 100)
    out += file(b"././@LongLink", b"n" * 150 + b"\0", b"L") + file(b"n" * LONG, b"abc")
    out += pax(record(b"mtime", b"1.5") + record(b"path", b"\xc3\xa9") + record(b"gid", b"7"))
    out += file(b"b", b"\xff" * 512) + block(b"dir/", 0, b"5") + block(b"s", 0, b"2", linkname=b"t")
    runs = record(b"GNU.sparse.offset", b"5") + record(b"GNU.sparse.numbytes", b"3")
    out += pax(record(b"GNU.sparse.size", b"600") + runs) + file(b"holes", b"xyz")
    out += pax(record(b"GNU.sparse.realsize", b"20") + record(b"GNU.sparse.name", b"real"))
    out += file(b"holes", b"1\n4\n6\n".ljust(BLOCK, b"\0") + b"uvwxyz")
    return out + block(b"p", 0, b"6") + file(b"last", b"1" * 513) + END


MIXTURE = mixture()


def test_the_mixture_is_in_good_order() -> None:
    assert [entry[0] for entry in survey(MIXTURE)] == (
        ["file"] * 3 + ["directory", "symlink", "file", "file", "fifo", "file"]
    )
    content = {entry[1]: entry[-1] for entry in survey(MIXTURE)}
    assert content[b"holes"] == b"\0\0\0\0\0xyz" + bytes(592)
    assert content[b"real"] == b"\0\0\0\0uvwxyz" + bytes(10)


@given(st.lists(st.integers(1, 1500), max_size=8), st.integers(1, 4))
def test_same_result_however_the_octets_arrive(sizes: list[int], want: int) -> None:
    assert survey(MIXTURE, *sizes, want=want) == survey(MIXTURE, want=want)


def test_same_result_octet_by_octet() -> None:
    assert survey(MIXTURE, 1) == survey(MIXTURE)


def test_every_cut_gives_the_same_members_then_says_so() -> None:
    whole = survey(MIXTURE)
    for end in range(0, len(MIXTURE) - BLOCK, 13):
        seen = survey(MIXTURE[:end])
        good = [entry for entry in seen if entry in whole]
        assert good == whole[: len(good)]
        assert len(seen) > len(good)


@given(st.integers(0, len(MIXTURE) - 1), st.integers(1, 255), st.integers(1, 3))
def test_one_wrong_octet_costs_little(place: int, change: int, want: int) -> None:
    octets = bytearray(MIXTURE)
    octets[place] ^= change
    seen = survey(bytes(octets), want=want)
    assert seen == survey(bytes(octets), 700, want=want)
    whole = survey(MIXTURE, want=1)
    assert sum(entry[1] in [other[1] for other in whole] for entry in seen) >= len(whole) - 2


PIECES = st.one_of(
    st.binary(max_size=1200),
    st.sampled_from([MIXTURE[at : at + BLOCK] for at in range(0, len(MIXTURE), BLOCK)]),
    st.builds(
        block,
        st.binary(max_size=LONG),
        st.one_of(st.integers(0, 2000), st.binary(min_size=12, max_size=12)),
        st.sampled_from([bytes([flag]) for flag in b"01257SLKxgX\0"]),
    ),
    st.builds(pax, st.binary(max_size=600)),
)


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_any_octets_give_members_damages_or_the_error(octets: bytes) -> None:
    seen = survey(octets)
    assert seen == survey(octets, 333)
    offsets = [entry[1] for entry in seen if entry[0] == "damage"]
    assert all(isinstance(offset, int) and 0 <= offset <= len(octets) for offset in offsets)


def test_modes_are_those_of_stat() -> None:
    assert only(block(ids=b"100640 \x000001750\x000001751\0") + END).mode == stat.S_IMODE(0o100640)
