"""Selftest: the layout, what it finds in an altered archive, who could replace a file."""

from __future__ import annotations

import io
import os
import zipfile
from typing import TYPE_CHECKING, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.cli import selftest
from smtpd_core.cli.context import EXIT_FAILURE, EXIT_OK, Context
from smtpd_core.cli.options import Options
from smtpd_core.cli.output import Output
from smtpd_core.cli.selftest import (
    MANIFEST_HEADING,
    MANIFEST_MEMBER,
    ArchiveError,
    Member,
    check_contents,
    check_path,
    layout,
    manifest_line,
    take_apart,
)
from smtpd_core.errors import AccessError

if TYPE_CHECKING:
    import pathlib

HEADER = b"#!/bin/sh\nexec python3\n"
CONTENTS = {"__main__.py": b"pass\n", "site-packages/a.py": b"", "site-packages/b.py": b"b = 1\n"}
ANYBODY = 12345


def sealed(contents: dict[str, bytes], listed: dict[str, bytes]) -> bytes:
    """Lay out an archive whose manifest lists other contents than it has."""
    lines = [MANIFEST_HEADING, "version 1", "commit c", "", manifest_line("header", HEADER)]
    lines += [manifest_line(name, octets) for name, octets in listed.items()]
    members = {**contents, MANIFEST_MEMBER: "\n".join([*lines, ""]).encode()}
    return layout(HEADER, [Member(name, members[name]) for name in sorted(members)])


GOOD = sealed(CONTENTS, CONTENTS)


def changed(name: str, octets: bytes) -> dict[str, bytes]:
    return {**CONTENTS, name: octets}


def test_layout_is_a_zip_file_that_others_read() -> None:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted([*CONTENTS, MANIFEST_MEMBER])
        for name, octets in CONTENTS.items():
            assert archive.read(name) == octets
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.external_attr >> 16 == 0o100644
            assert (entry.create_system, entry.compress_type, entry.extra) == (3, 0, b"")


@given(st.binary(), st.dictionaries(st.text("abc/.", min_size=1), st.binary()))
def test_taking_apart_undoes_layout(header: bytes, contents: dict[str, bytes]) -> None:
    members = [Member(name, octets) for name, octets in contents.items()]
    found_header, found = take_apart(layout(header, members))
    assert [(member.name, member.octets) for member in found] == list(contents.items())
    assert found_header == header


@given(st.binary(max_size=200))
def test_any_octets_are_an_archive_or_an_archive_error(octets: bytes) -> None:
    for candidate in (octets, octets + GOOD[-22:], GOOD[:-40] + octets + GOOD[-22:]):
        try:
            take_apart(candidate)
        except ArchiveError:
            continue
    assert list(check_contents(octets)) != []


def test_nothing_is_said_about_what_was_built() -> None:
    assert list(check_contents(GOOD)) == []


def test_every_altered_octet_is_found() -> None:
    for position in range(len(GOOD)):
        altered = bytearray(GOOD)
        altered[position] ^= 1
        assert list(check_contents(bytes(altered))) != [], f"octet {position}"


def test_every_truncation_is_found() -> None:
    for length in range(len(GOOD)):
        assert list(check_contents(GOOD[:length])) != [], f"{length} octets"


@pytest.mark.parametrize("rest", [b"\0", b"PK\5\6" + bytes(18)])
def test_appended_octets_are_found(rest: bytes) -> None:
    assert list(check_contents(GOOD + rest)) != []


@pytest.mark.parametrize(
    ("archive", "complaint"),
    [
        (
            sealed(changed("site-packages/b.py", b"b = 2\n"), CONTENTS),
            "site-packages/b.py: its SHA-256 is not that of the manifest",
        ),
        (
            sealed(changed("site-packages/b.py", b"b = 10\n"), CONTENTS),
            "site-packages/b.py: its size is not that of the manifest",
        ),
        (
            sealed(changed("site-packages/c.py", b""), CONTENTS),
            "site-packages/c.py: not in the manifest",
        ),
        (
            sealed(CONTENTS, changed("site-packages/c.py", b"")),
            "site-packages/c.py: missing from the archive",
        ),
        (
            layout(HEADER, [Member("a", b"")]),
            "the archive is damaged: its manifest is missing",
        ),
        (b"", "the archive is damaged: its directory is damaged"),
        (bytes(22), "the archive is damaged: its end is missing"),
        (
            GOOD[:40] + b"x" + GOOD[41:],
            "the archive is damaged: its members are not laid out as they were built",
        ),
        (b"\n" + GOOD[1:], "header: its SHA-256 is not that of the manifest"),
    ],
)
def test_what_differs_is_named(archive: bytes, complaint: str) -> None:
    assert complaint in list(check_contents(archive))


def test_members_in_another_order_are_found() -> None:
    header, members = take_apart(GOOD)
    assert list(check_contents(layout(header, reversed(members)))) == [
        "the archive is damaged: its members are not laid out as they were built"
    ]


def test_a_member_that_is_there_twice_is_found() -> None:
    header, members = take_apart(GOOD)
    twice = layout(header, [members[0], Member(members[0].name, b"evil"), *members[1:]])
    assert list(check_contents(twice)) != []


def test_a_wrong_crc_is_found() -> None:
    header, members = take_apart(GOOD)
    members[0].crc ^= 1
    assert "__main__.py: its CRC-32 is not that of the archive's directory" in list(
        check_contents(layout(header, members))
    )


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory below one of mode 0755, with a file in it."""
    directory = tmp_path / "place"
    directory.mkdir(mode=0o755)
    (directory / "file").write_bytes(b"")
    (directory / "file").chmod(0o755)
    return directory


def complaints(path: pathlib.Path, uid: int, below: pathlib.Path) -> list[str]:
    """What is said about `below` and what is in it: the directories above are the host's."""
    return [line for line in check_path(str(path), uid) if line.startswith(str(below))]


def test_own_directories_are_safe(place: pathlib.Path) -> None:
    assert complaints(place / "file", os.getuid(), place) == []


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [(0o777, "every user may write to it"), (0o775, f"group {os.getgid()} may write to it")],
)
def test_who_may_write_is_named(place: pathlib.Path, mode: int, complaint: str) -> None:
    place.chmod(mode)
    assert complaints(place / "file", os.getuid(), place) == [f"{place}: {complaint}"]
    place.chmod(0o755)
    (place / "file").chmod(mode)
    assert complaints(place / "file", os.getuid(), place) == [f"{place / 'file'}: {complaint}"]


def test_a_sticky_directory_is_safe(place: pathlib.Path) -> None:
    place.chmod(0o1777)
    assert complaints(place / "file", os.getuid(), place) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_other_owners_are_named(place: pathlib.Path) -> None:
    os.chown(place / "file", ANYBODY, -1)
    assert complaints(place / "file", 0, place) == [f"{place / 'file'}: belongs to user {ANYBODY}"]
    assert complaints(place / "file", ANYBODY, place) == []
    os.chown(place, ANYBODY + 1, -1)
    assert complaints(place / "file", ANYBODY, place) == [f"{place}: belongs to user {ANYBODY + 1}"]


def test_a_link_leads_to_its_target(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("place/../place")
    place.chmod(0o777)
    assert (
        complaints(tmp_path / "link" / "file", os.getuid(), place)
        == [f"{place}: every user may write to it"] * 2
    )  # it is passed twice


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_the_owner_of_a_link_is_named(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(place / "file")
    os.chown(link, ANYBODY, -1, follow_symlinks=False)
    assert complaints(link, 0, link) == [f"{link}: a symbolic link of user {ANYBODY}"]


def test_links_in_a_circle_end(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "too many symbolic links" in list(check_path(str(tmp_path / "a"), os.getuid()))[-1]


def run(arguments: list[str], archive: Optional[str] = None) -> tuple[int, str, str]:
    """Run the command with pipes for its output; return status, output, warnings."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    output = Output("smtpctl", {}, out_write, err_write)
    try:
        status = selftest.selftest(Context(output, Options({}), {}, 0, archive), arguments)
        output.flush()
    finally:
        os.close(out_write)
        os.close(err_write)
        with open(out_read, encoding="utf-8") as out, open(err_read, encoding="utf-8") as err:
            said, warned = out.read(), err.read()
    return status, said, warned


def test_the_report(place: pathlib.Path) -> None:
    path = place / "file"
    path.write_bytes(GOOD)
    exposed = list(check_path(str(path), os.geteuid())) != []  # where the tests' files are
    status, said, warned = run([], str(path))
    assert said.splitlines() == [
        f"archive: {path}, {len(GOOD)} octets",
        f"sha256: {selftest.digest(GOOD)}",
        "version: 1",
        "commit: c",
        "contents: as built",
        f"place: {'EXPOSED' if exposed else 'safe from other users'}",
    ]
    assert status == (EXIT_FAILURE if exposed else EXIT_OK)
    assert (warned != "") == exposed


def test_the_report_on_damage(place: pathlib.Path) -> None:
    path = place / "file"
    path.write_bytes(GOOD[:-1])
    status, said, warned = run([str(path)])
    assert status == EXIT_FAILURE
    assert "contents: DAMAGED" in said
    assert "smtpctl: the archive is damaged: its end is missing\n" in warned


def test_sources_are_no_archive() -> None:
    with pytest.raises(AccessError, match="there is no archive to check"):
        run([])


def test_an_archive_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(AccessError, match="No such file or directory"):
        run([str(tmp_path / "missing")])
