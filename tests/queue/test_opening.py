from __future__ import annotations

import bz2
import gzip
import lzma
import os
import threading
from typing import TYPE_CHECKING, Union

import pytest

from smtpd_core.errors import AccessError, UsageError
from smtpd_core.queue.archive import ArchiveSource
from smtpd_core.queue.directory import DirectorySource
from smtpd_core.queue.file import FileSource
from smtpd_core.queue.opening import open_source
from smtpd_core.queue.sources import Item, Unreadable
from tests.trees import Tree, envelope, pack_tree, write_tree

if TYPE_CHECKING:
    import pathlib

    from smtpd_core.queue.sources import Source

E = envelope()
TREE: Tree = {"queue/11/11223344/message": b"text\n", "queue/11/11223344/1122334400000001": E}


def found(source: Source) -> list[Union[Item, Unreadable]]:
    return [item for unit in source.units(["queue"]) for item in source.walk(unit, details=True)]


def test_directory(tmp_path: pathlib.Path) -> None:
    write_tree(TREE, tmp_path)
    source = open_source(str(tmp_path), None, 0)
    assert isinstance(source, DirectorySource)
    assert len(found(source)) == 1


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_archive(pack: type[bytes], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "any name"
    path.write_bytes(pack(pack_tree(TREE)))
    source = open_source(str(path), None, 0)
    assert isinstance(source, ArchiveSource)
    (item,) = found(source)
    assert item.path == f"{path}: queue/11/11223344/1122334400000001"


def test_archive_on_standard_input() -> None:
    receiving, sending = os.pipe()
    os.write(sending, pack_tree(TREE))
    os.close(sending)
    (item,) = found(open_source("-", None, receiving))
    assert item.path == "standard input: queue/11/11223344/1122334400000001"
    os.close(receiving)


def test_root_of_standard_input(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="--root means nothing to an archive on standard input"):
        open_source("-", str(tmp_path), 0)


def test_fifo_that_the_operator_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(pack_tree(TREE),))
    writer.start()
    assert len(found(open_source(str(path), None, 0))) == 1
    writer.join()


@pytest.mark.parametrize("stored", [E, gzip.compress(E), b"\1" * 60, b"", b"rubbish"])
@pytest.mark.parametrize(
    ("name", "evpid", "notes"),
    [
        ("1122334400000001", 0x1122334400000001, 0),
        ("copy.txt", 0, 1),
        ("queue/11/11223344/1122334400000001", 0x1122334400000001, 0),
        ("queue/11/11223344/1122335500000001", 0x1122335500000001, 1),
    ],
)
def test_envelope(stored: bytes, name: str, evpid: int, notes: int, tmp_path: pathlib.Path) -> None:
    write_tree({name: stored}, tmp_path)
    source = open_source(str(tmp_path / name), None, 0)
    assert isinstance(source, FileSource)
    (item,) = found(source)
    assert isinstance(item, Item)
    assert (item.octets, item.evpid, len(item.notes)) == (stored, evpid, notes)
    assert (item.size, item.mtime, item.path) == (len(stored), 1700000000, str(tmp_path / name))
    assert list(source.walk_message(0x11223344, details=False)) == []
    assert source.open_message(0x11223344, ["queue"]) is None


def test_large_file_that_is_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 100_000)
    (unreadable,) = found(open_source(str(tmp_path / "x"), None, 0))[:1]
    assert isinstance(unreadable, Unreadable)
    assert unreadable.path == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("path", "reason"), [("nowhere", "No such file or directory"), ("a/b", "Not a directory")]
)
def test_what_is_not_there(path: str, reason: str, tmp_path: pathlib.Path) -> None:
    write_tree({"a": b""}, tmp_path)
    with pytest.raises(AccessError, match=f"{tmp_path}/{path}: {reason}"):
        open_source(str(tmp_path / path), None, 0)


def test_device() -> None:
    with pytest.raises(AccessError, match="/dev/null: a device: not opened"):
        open_source("/dev/null", None, 0)


def test_below_a_root(tmp_path: pathlib.Path) -> None:
    write_tree({f"disk/data/smtpd/{name}": content for name, content in TREE.items()}, tmp_path)
    write_tree({"disk/var/spool": ("/data",), "disk/var/up": ("/../../data/smtpd",)}, tmp_path)
    for path in ("/var/spool/smtpd", "var/spool/smtpd", "/var/up"):
        source = open_source(path, str(tmp_path / "disk"), 0)
        assert source.path == str(tmp_path / "disk/data/smtpd")
        assert len(found(source)) == 1
    with pytest.raises(AccessError, match=f"{tmp_path}/disk/etc: No such file"):
        open_source("/etc", str(tmp_path / "disk"), 0)
