"""Maildirs: where a message goes, and where none can be made to go."""

from __future__ import annotations

import os
import re
import resource
from typing import TYPE_CHECKING, Callable, Tuple

import pytest

from smtpd_core.mda.job import Job, JobResult, Method, exited
from smtpd_core.mda.maildir import is_junk, sub_folder

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., JobResult]
MakeJob = Callable[..., Job]

SPAM = b"Subject: x\nX-Spam-Flag: YES\n\nHello\n"


def messages(folder: Path) -> list[bytes]:
    """Give what is in a folder; nothing may be left in tmp."""
    assert list((folder / "tmp").iterdir()) == []
    return [path.read_bytes() for path in sorted((folder / "new").iterdir())]


def test_everything_is_made_and_the_message_is_whole(
    run: Run, make_job: MakeJob, home: Path, owner: Tuple[int, int]
) -> None:
    job = make_job(Method.MAILDIR, argument=f"{home}/a/b/Maildir", prefix="Delivered-To: x\n")
    body = b"Subject: x\n\n" + bytes(range(256)) * 1000
    assert run(job, body) == exited(0)
    maildir = home / "a" / "b" / "Maildir"
    assert messages(maildir) == [b"Delivered-To: x\n" + body]
    (stored,) = (maildir / "new").iterdir()
    assert re.fullmatch(r"[0-9]{10}\.[0-9a-f]{8}\.mx\.example\.org", stored.name)
    found = stored.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (*owner, 0o600)
    assert found.st_nlink == 1
    for folder in (home / "a", maildir, *(maildir / name for name in ("cur", "tmp", "new"))):
        assert (folder.stat().st_uid, folder.stat().st_mode & 0o7777) == (owner[0], 0o700)


def test_two_messages_are_two_files(run: Run, make_job: MakeJob, home: Path) -> None:
    job = make_job(Method.MAILDIR, argument=f"{home}/Maildir")
    run(job, b"1")
    run(job, b"2")
    assert sorted(messages(home / "Maildir")) == [b"1", b"2"]


def test_a_folder_for_the_sub_address_is_used_and_never_made(
    run: Run, make_job: MakeJob, home: Path, owner: Tuple[int, int]
) -> None:
    job = make_job(Method.MAILDIR, argument=f"{home}/Maildir", sub_address="li/sts")
    assert run(job, b"1") == exited(0)
    assert messages(home / "Maildir") == [b"1"]
    folder = home / "Maildir" / ".li:sts"
    folder.mkdir()
    os.chown(folder, *owner)
    assert run(job, b"2") == exited(0)
    assert messages(folder) == [b"2"]
    assert messages(home / "Maildir") == [b"1"]


@pytest.mark.parametrize("spam", [True, False])
@pytest.mark.parametrize("junk", [True, False])
def test_junk_goes_to_its_folder_where_that_is_asked_for(
    run: Run, make_job: MakeJob, home: Path, spam: bool, junk: bool
) -> None:
    text = SPAM if spam else b"Subject: x\n\nX-Spam: yes\n"
    job = make_job(Method.MAILDIR, argument=f"{home}/Maildir", junk=junk)
    assert run(job, text) == exited(0)
    assert (home / "Maildir" / ".Junk" / "cur").is_dir() is junk
    where = home / "Maildir" / ".Junk" if spam and junk else home / "Maildir"
    assert messages(where) == [text]


@pytest.mark.parametrize(
    ("head", "junk"),
    [
        (b"X-Spam: yes\n\n", True),
        (b"A: b\nx-SPAM: Yes\n\n", True),
        (b"X-Spam-Flag: YES\n", True),
        (b"X-Spam: yes \n\n", False),
        (b"X-Spam:yes\n\n", False),
        (b"X-Spam: yes\n no\n\n", False),
        (b"X-Spam-Status: yes\n\n", False),
        (b"A: b\n\nX-Spam: yes\n", False),
        (b"", False),
    ],
)
def test_what_says_spam_in_so_many_words(head: bytes, junk: bool) -> None:
    assert is_junk(head) is junk


@pytest.mark.parametrize(
    ("sub_address", "folder"),
    [
        ("lists", ".lists"),
        ("a.b", ".a.b"),
        ("../x", "...:x"),
        ("./x", "..:x"),
        (".", ""),
        ("", ""),
        ("..", "..."),
        ("a\0", ""),
        ("x" * 255, ""),
        ("x" * 254, "." + "x" * 254),
        ("!#$%&'*/?^`{|}~", "." + ":" * 15),
    ],
)
def test_the_folder_of_a_sub_address(sub_address: str, folder: str) -> None:
    assert sub_folder(sub_address) == folder


@pytest.mark.parametrize("name", ["Maildir", "Maildir/tmp", "Maildir/new", "Maildir/.Junk"])
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "file"])
def test_nothing_but_a_directory_is_gone_into(
    run: Run, make_job: MakeJob, home: Path, name: str, kind: str
) -> None:
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    path = home / name
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o777)
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "dangling":
        path.symlink_to(elsewhere / "none")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(b"")
    result = run(make_job(Method.MAILDIR, argument=f"{home}/Maildir", junk=True), SPAM)
    if (name, kind) == ("Maildir", "link"):  # one may keep one's mail on another disk
        assert result == exited(0)
        assert messages(elsewhere / ".Junk") == [SPAM]
        return
    assert (result.number, list(elsewhere.iterdir())) == (75, [])
    assert result.text


def test_a_link_is_no_folder_of_a_sub_address(
    run: Run, make_job: MakeJob, home: Path, top: Path
) -> None:
    job = make_job(Method.MAILDIR, argument=f"{home}/Maildir", sub_address="out")
    run(job, b"1")
    elsewhere = top / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    (home / "Maildir" / ".out").symlink_to(elsewhere)
    assert run(job, b"2") == exited(0)
    assert list(elsewhere.iterdir()) == []
    assert sorted(messages(home / "Maildir")) == [b"1", b"2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_the_user_may_not_write_where_the_user_may_not_write(
    run: Run, make_job: MakeJob, top: Path
) -> None:
    result = run(make_job(Method.MAILDIR, argument=f"{top}/Maildir"))
    assert (result.number, "Permission denied" in result.text) == (75, True)
    assert not (top / "Maildir").exists()


@pytest.mark.parametrize(("path", "status"), [("Maildir", 75), ("", 75), ("/{}/" + "x" * 300, 1)])
def test_paths_that_are_none(
    run: Run, make_job: MakeJob, home: Path, path: str, status: int
) -> None:
    result = run(make_job(Method.MAILDIR, argument=path.format(str(home))))
    assert result.number == status


def test_a_full_disk_leaves_nothing_behind(run: Run, make_job: MakeJob, home: Path) -> None:
    job = make_job(Method.MAILDIR, argument=f"{home}/Maildir")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        text = b"x" * 99_000
        assert run(job, text) == exited(0)
        result = run(make_job(Method.MAILDIR, argument=f"{home}/Maildir", prefix="y" * 2000), text)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (result.number, result.text) == (75, "File too large")
    assert messages(home / "Maildir") == [text]
