from __future__ import annotations

import errno
import os
import pathlib
import socket
import stat
import tempfile
from typing import TYPE_CHECKING

import pytest

from smtpd_core.errors import AccessError
from smtpd_core.queue import access
from tests import running

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = os.getuid() == 0


@pytest.fixture
def odd(tmp_path: pathlib.Path) -> pathlib.Path:
    """Make a directory with one of everything that is not a regular file."""
    (tmp_path / "file").write_bytes(b"octets")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        directory = os.open(tmp_path, os.O_RDONLY)
        bound.bind(f"/proc/self/fd/{directory}/socket")  # its own path may be too long
        os.close(directory)
    if ROOT:
        os.mknod(tmp_path / "character", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        os.mknod(tmp_path / "block", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    return tmp_path


KINDS = {
    "directory": "a directory where a file is expected",
    "link": "a symbolic link: not followed",
    "dangling": "a symbolic link: not followed",
    "fifo": "a FIFO: not opened",
    "socket": "a socket: not opened",
    **({"character": "a device: not opened", "block": "a device: not opened"} if ROOT else {}),
}


@pytest.fixture
def parent(odd: pathlib.Path) -> Iterator[int]:
    descriptor = os.open(odd, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_file_is_opened(parent: int) -> None:
    descriptor = access.open_file("file", parent)
    assert os.read(descriptor, 99) == b"octets"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("name", KINDS)
def test_nothing_else_is_opened(name: str, parent: int) -> None:
    with pytest.raises(OSError, match=KINDS[name]):
        access.open_file(name, parent)


def test_a_fifo_is_not_even_opened_for_a_moment(parent: int, odd: pathlib.Path) -> None:
    before = os.open(odd / "fifo", os.O_RDWR | os.O_NONBLOCK)  # lets a writer come in
    os.close(before)
    with pytest.raises(OSError, match="a FIFO"):
        access.open_file("fifo", parent)
    with pytest.raises(OSError, match="No such device") as refused:  # there was never a reader
        os.open(odd / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    assert refused.value.errno == errno.ENXIO


def test_what_entries_are(parent: int) -> None:
    entries = {entry.name: entry for entry in access.entries_of(parent)}
    assert list(entries) == sorted(["file", *KINDS])
    assert access.is_file(entries["file"])
    assert access.is_directory(entries["directory"])
    for name, reason in KINDS.items():
        assert not access.is_file(entries[name])
        assert access.is_directory(entries[name]) == (name == "directory")
        assert access.describe(entries[name]) == reason


def test_an_entry_that_is_gone(parent: int, odd: pathlib.Path) -> None:
    entry = next(entry for entry in access.entries_of(parent) if entry.name == "file")
    (odd / "file").unlink()
    assert access.describe(entry) in ("No such file or directory", "not a regular file")


def test_reasons() -> None:
    assert access.why(OSError(errno.ELOOP, "whatever")) == "a symbolic link: not followed"
    assert access.why(OSError(errno.EACCES, "Permission denied")) == "Permission denied"
    assert access.why(OSError("without a number")) == "cannot be read"


def test_links_are_not_followed_on_opening(parent: int) -> None:
    with pytest.raises(OSError, match="symbolic"):
        access.open_below("link", access.FILE_FLAGS, parent)
    with pytest.raises(NotADirectoryError):
        access.open_below("file", access.DIRECTORY_FLAGS, parent)


@pytest.mark.skipif(not ROOT, reason="only root can give a file to somebody else")
def test_file_of_somebody_else_is_opened_without_noatime() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        path = pathlib.Path(name, "file")
        path.write_bytes(b"octets")
        path.chmod(0o644)

        def look() -> bytes:
            with pytest.raises(PermissionError):  # what the fallback is for
                os.open(path, os.O_RDONLY | os.O_NOATIME)
            descriptor = access.open_file(str(path), None)
            return os.read(descriptor, 99)

        assert running.in_child(look, running.NOBODY) == b"octets"
        path.chmod(0)
        said = running.in_child(lambda: refusal_of(path), running.NOBODY)
        assert said == b"Permission denied"


def refusal_of(path: pathlib.Path) -> bytes:
    with pytest.raises(PermissionError) as refused:
        access.open_file(str(path), None)
    return access.why(refused.value).encode()


def test_time_of_access_is_left_alone(odd: pathlib.Path, parent: int) -> None:
    os.utime(odd / "file", (1, 2))
    descriptor = access.open_file("file", parent)
    os.read(descriptor, 99)
    os.close(descriptor)
    assert (odd / "file").stat().st_atime == 1


# (links below the root as name: target, path asked for, where it leads below the root)
WAYS: list[tuple[dict[str, str], str, str]] = [
    ({}, "/var/spool", "/var/spool"),
    ({}, "var//./spool/", "/var/spool"),
    ({}, "/../../etc", "/etc"),
    ({}, "/a/../b", "/b"),
    ({}, "/", ""),
    ({}, "", ""),
    ({"var": "/data"}, "/var/spool", "/data/spool"),
    ({"var": "/../../../etc"}, "/var/spool", "/etc/spool"),
    ({"var": "../../.."}, "/var/etc", "/etc"),
    ({"a/b": "../c"}, "/a/b/d", "/c/d"),
    ({"a/b": "c"}, "/a/b/d", "/a/c/d"),
    ({"a/b": "c/e"}, "/a/b/../d", "/a/c/d"),
    ({"a": "b", "b": "/c", "c": "d"}, "/a", "/d"),
    ({"a": "/"}, "/a/x", "/x"),
]


@pytest.mark.parametrize(("links", "path", "wanted"), WAYS)
def test_paths_below_a_root(
    links: dict[str, str], path: str, wanted: str, tmp_path: pathlib.Path
) -> None:
    for name, target in links.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).symlink_to(target)
    assert access.resolve_below(str(tmp_path), path) == f"{tmp_path}{wanted}"
    assert access.resolve_below(f"{tmp_path}/", path) == f"{tmp_path}{wanted}"


@pytest.mark.parametrize(
    "links", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "/a/x"}, {"a": "./a"}, {"a": "b/../a"}]
)
def test_links_without_end(links: dict[str, str], tmp_path: pathlib.Path) -> None:
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    with pytest.raises(AccessError, match="/a/b: too many symbolic links below"):
        access.resolve_below(str(tmp_path), "/a/b")


def test_root_of_this_host() -> None:
    assert access.resolve_below("/", "/") == "/"
    assert access.resolve_below("/", "/..") == "/"
