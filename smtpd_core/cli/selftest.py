"""Selftest: is the archive what was built, and can nobody else replace it?

The sealed archive is a shell header and a ZIP file of stored members without dates, extra fields
or gaps. So its octets follow from the header, the names in their order and the contents; the
builder writes them with `layout`, and the check lays them out anew and compares. Whatever changed,
in a member or between members, is found. What the contents must be says the manifest, itself a
member. All this finds accidents and foreign hands on the file; who can write a new archive with a
new manifest is found by comparing the SHA-256 printed here with the published one.

Source: PKWARE APPNOTE.TXT 6.3, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import os
import stat
import struct

from smtpd_core import version
from smtpd_core.cli.context import EXIT_FAILURE, EXIT_OK
from smtpd_core.errors import AccessError, FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Optional

    from smtpd_core.cli.context import Context

MANIFEST_MEMBER = f"site-packages/smtpd_core/{version.MANIFEST_NAME}"
MANIFEST_HEADING = "smtpctl manifest 1"
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
LOCAL_OCTETS = _LOCAL.size  # what precedes the name and the contents of each member
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_NEEDS = 20  # version 2.0 of the format reads it
_UNIX = 3 << 8  # made on Unix: the external attributes are a mode
_DATE = 1 << 5 | 1  # 1980-01-01, the first day the format knows
_MODE = 0o100644 << 16
_MAX_OCTETS = 1 << 28  # far above any archive of ours, far below what memory holds
_MAX_LINKS = 40  # the kernel's own limit for one path


class ArchiveError(FormatError):
    """Octets that are no archive of ours."""


class Member:
    """One file in the archive, and where its contents lie."""

    __slots__ = ("crc", "name", "octets")

    def __init__(self, name: str, octets: bytes, crc: Optional[int] = None) -> None:
        """Take what the archive says is the CRC; by default it is computed."""
        self.name = name
        self.octets = octets
        self.crc = _crc32(octets) if crc is None else crc


def layout(header: bytes, members: Iterable[Member]) -> bytes:
    """Lay out an archive: the header, the members in the order given, their directory."""
    pieces = [header]
    directory: list[bytes] = []
    offset = len(header)
    for member in members:
        name = member.name.encode("ascii")
        size = len(member.octets)
        common = (_NEEDS, 0, 0, 0, _DATE, member.crc, size, size, len(name), 0)
        pieces += (_LOCAL.pack(b"PK\3\4", *common), name, member.octets)
        directory += (
            _CENTRAL.pack(b"PK\1\2", _UNIX | _NEEDS, *common, 0, 0, 0, _MODE, offset),
            name,
        )
        offset += _LOCAL.size + len(name) + size
    count = len(directory) // 2
    length = sum(len(piece) for piece in directory)
    end = _END.pack(b"PK\5\6", 0, 0, count, count, length, offset, 0)
    return b"".join((*pieces, *directory, end))


def take_apart(archive: bytes) -> tuple[bytes, list[Member]]:
    """Find the header and the members of an archive through its directory.

    Raises ArchiveError when there is no directory, or it points outside the archive.
    """
    try:
        *_, count, length, start, _ = _END.unpack(archive[-_END.size :])
        if archive[-_END.size :][:4] != b"PK\5\6" or start + length + _END.size != len(archive):
            raise ArchiveError("its end is missing")
        members = []
        header = start
        position = start
        for _ in range(count):
            entry = _CENTRAL.unpack_from(archive, position)
            crc, size, length, offset = entry[7], entry[9], entry[10], entry[16]
            position += _CENTRAL.size
            name = archive[position : position + length].decode("ascii")
            position += length
            contents = offset + _LOCAL.size + length
            if contents + size > start:
                raise ArchiveError(f"{name}: it ends outside the archive")
            header = min(header, offset)
            members.append(Member(name, archive[contents : contents + size], crc))
    except (struct.error, UnicodeDecodeError):
        raise ArchiveError("its directory is damaged") from None
    return archive[:header], members


def _crc32(octets: bytes) -> int:
    from binascii import crc32  # zlib is missing from some interpreters

    return crc32(octets)


def digest(octets: bytes) -> str:
    """Give the SHA-256 of octets in hexadecimal."""
    from hashlib import sha256

    return sha256(octets).hexdigest()


def manifest_line(name: str, octets: bytes) -> str:
    """Spell the manifest's line about one member, or about the header under the name `header`."""
    return f"{digest(octets)} {_crc32(octets):08x} {len(octets)} {name}"


def selftest(context: Context, arguments: list[str]) -> int:
    """Check the running archive, or the one named, and say what was found.

    The status is 1 when the archive is not what its manifest says, or when somebody other than
    root and the user could replace it.
    """
    path = arguments[0] if arguments else context.archive
    if path is None:
        raise AccessError("there is no archive to check: this runs from a directory of sources")
    path = os.path.abspath(path)
    archive = _read(path)
    damage = list(check_contents(archive))
    try:
        exposure = list(check_path(path, os.geteuid()))
    except OSError as error:  # a directory on the way that may not be looked at, or was moved
        raise AccessError(f"{error.filename}: {error.strerror}") from None
    context.output.line(f"archive: {path}, {len(archive)} octets")
    context.output.line(f"sha256: {digest(archive)}")
    for line in _heading(archive):
        context.output.line(line)
    context.output.line(f"contents: {'DAMAGED' if damage else 'as built'}")
    context.output.line(f"place: {'EXPOSED' if exposure else 'safe from other users'}")
    for line in damage + exposure:
        context.warn(line)
    return EXIT_FAILURE if damage or exposure else EXIT_OK


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            archive = file.read(_MAX_OCTETS + 1)
    except OSError as error:
        raise AccessError(f"{path}: {error.strerror}") from None
    if len(archive) > _MAX_OCTETS:
        raise AccessError(f"{path}: too large to be an archive of this program")
    return archive


def _heading(archive: bytes) -> Iterator[str]:
    """Repeat what the manifest says before its list: version, commit, builder's interpreters."""
    try:
        manifest = _manifest(take_apart(archive)[1])
    except ArchiveError:
        return
    for line in manifest[1:]:
        if not line:
            return
        key, _, value = line.partition(" ")
        yield f"{key}: {value}"


def _manifest(members: Iterable[Member]) -> list[str]:
    for member in members:
        if member.name == MANIFEST_MEMBER:
            lines = member.octets.decode("ascii", "replace").splitlines()
            if lines[:1] == [MANIFEST_HEADING] and "" in lines:
                return lines
    raise ArchiveError("its manifest is missing")


def check_contents(archive: bytes) -> Iterator[str]:
    """Compare an archive with its own manifest; yield a sentence for each difference."""
    try:
        header, members = take_apart(archive)
        lines = _manifest(members)
    except ArchiveError as error:
        yield f"the archive is damaged: {error}"
        return
    expected = {line.split(" ")[-1]: line for line in lines[lines.index("") + 1 :]}
    found = {member.name: member.octets for member in members}
    manifest = found.pop(MANIFEST_MEMBER)
    yield from _check_members(expected, {"header": header, **found})
    for member in members:
        if member.crc != _crc32(member.octets):
            yield f"{member.name}: its CRC-32 is not that of the archive's directory"
    whole = [Member(name, octets) for name, octets in found.items()]
    whole.append(Member(MANIFEST_MEMBER, manifest))
    whole.sort(key=lambda member: member.name)
    if layout(header, whole) != archive:
        yield "the archive is damaged: its members are not laid out as they were built"


def _check_members(expected: Mapping[str, str], found: Mapping[str, bytes]) -> Iterator[str]:
    for name, octets in found.items():
        line = manifest_line(name, octets)
        if name not in expected:
            yield f"{name}: not in the manifest"
        elif line != expected[name]:
            wrong = "size" if line.split(" ")[2] != expected[name].split(" ")[2] else "SHA-256"
            yield f"{name}: its {wrong} is not that of the manifest"
    for name in expected:
        if name not in found:
            yield f"{name}: missing from the archive"


def check_path(path: str, uid: int) -> Iterator[str]:
    """Look for users, other than root and `uid`, who could replace a file; say how, for each.

    Every directory on the way is looked at, through symbolic links as the kernel follows them.
    """
    todo = path.split("/")[::-1]
    place = "/"
    links = 0
    yield from _check_place(place, os.lstat(place), uid)
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            place = os.path.dirname(place)
            continue
        entry = os.path.join(place, name)
        status = os.lstat(entry)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                yield f"{entry}: too many symbolic links"
                return
            if _foreign(status, uid):
                yield f"{entry}: a symbolic link of user {status.st_uid}"
            target = os.readlink(entry)
            todo += target.split("/")[::-1]
            place = "/" if target.startswith("/") else place
        else:
            yield from _check_place(entry, status, uid)
            place = entry


def _foreign(status: os.stat_result, uid: int) -> bool:
    return status.st_uid not in (0, uid)


def _check_place(path: str, status: os.stat_result, uid: int) -> Iterator[str]:
    """Check a directory or the file itself.

    In a sticky directory others may write, but not touch an entry that they do not own; that the
    entry is owned by root or `uid` is checked when the walk comes to it.
    """
    if _foreign(status, uid):
        yield f"{path}: belongs to user {status.st_uid}"
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return
    if status.st_mode & stat.S_IWOTH:
        yield f"{path}: every user may write to it"
    elif status.st_mode & stat.S_IWGRP:
        yield f"{path}: group {status.st_gid} may write to it"
