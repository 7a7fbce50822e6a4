"""What a walk makes of odd trees is compared with archives in test_archive.py."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Union

import pytest

from smtpd_core.queue.sources import Item, Unreadable
from smtpd_core.queue.walk import Walk
from tests.trees import Tree, envelope, write_tree

if TYPE_CHECKING:
    import pathlib

E = envelope()


def message(tree: Tree, directory: pathlib.Path, bucket: str = "queue") -> list[tuple[object, ...]]:
    """Walk the directory of one message; give names with what was found."""
    write_tree(tree, directory)
    descriptor = os.open(directory, os.O_RDONLY)
    found = list(Walk(str(directory), bucket, True).message(descriptor, 0x11223344, str(directory)))
    os.close(descriptor)
    return [row(item, directory) for item in found]


def row(item: Union[Item, Unreadable], directory: pathlib.Path) -> tuple[object, ...]:
    name = item.path[len(str(directory)) + 1 :]
    if isinstance(item, Unreadable):
        return name, item.reason
    return name, item.kind, item.evpid & 0xFFFFFFFF, item.message_size


def test_message(tmp_path: pathlib.Path) -> None:
    tree: Tree = {"message": b"12345", "1122334400000002": E, "1122334400000001": b""}
    assert message(tree, tmp_path) == [
        ("1122334400000001", "envelope", 1, 5),
        ("1122334400000002", "envelope", 2, 5),
    ]


def test_message_of_521(tmp_path: pathlib.Path) -> None:
    tree: Tree = {"message": b"12345", "envelopes/1122334400000001": E, "envelopes/x": ("y",)}
    assert message(tree, tmp_path) == [
        ("envelopes/1122334400000001", "envelope", 1, 5),
        ("envelopes/x", "a symbolic link: not followed"),
    ]


@pytest.mark.parametrize(
    ("bucket", "tree", "found"),
    [
        ("queue", {}, []),
        ("queue", {"message": b"x"}, [("message", "a message of 1 octets without any envelope")]),
        ("corrupt", {"message": b""}, [("message", "a message of 0 octets without any envelope")]),
        ("incoming", {"message": b"x"}, [("message", "body", 0, 1)]),
        ("queue", {"message": b"x", "envelopes": None},
         [("message", "a message of 1 octets without any envelope")]),
        ("queue", {"1122334400000001": E}, [("1122334400000001", "envelope", 1, -1),
         ("message", "the message of these envelopes is missing")]),
        ("queue", {"notes": b"x"}, [("notes", "stray", 0, -1)]),
        ("queue", {"envelopes/1122334400000001": E}, [
         ("envelopes/1122334400000001", "envelope", 1, -1),
         ("message", "the message of these envelopes is missing")]),
        ("incoming", {"1122334400000001": E}, [("1122334400000001", "envelope", 1, -1)]),
        ("queue", {"1122334400000001": E, "message": b""}, [("1122334400000001", "envelope", 1, 0),
         ("message", "the message of these envelopes is empty")]),
        ("incoming", {"1122334400000001": E, "message": b""}, [
         ("1122334400000001", "envelope", 1, 0),
         ("message", "the message of these envelopes is empty")]),
        ("queue", {"message": ("x",)}, [("message", "a symbolic link: not followed")]),
        ("queue", {"message": 0}, [("message", "a FIFO: not opened")]),
        ("queue", {"z": 0, "a": ("b",), "message": b"x"},
         [("a", "a symbolic link: not followed"), ("z", "a FIFO: not opened")]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_message(
    bucket: str, tree: Tree, found: list[tuple[object, ...]], tmp_path: pathlib.Path
) -> None:
    assert message(tree, tmp_path, bucket) == found


@pytest.mark.parametrize("size", [8191, 8192, 8193, 65536, 65537, 200_000])
def test_large_files_are_read_up_to_the_limit(size: int, tmp_path: pathlib.Path) -> None:
    write_tree({"1122334400000001": b"x" * size, "message": b"x"}, tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    (item,) = Walk("d", "queue", True).message(descriptor, 0x11223344, "d")
    os.close(descriptor)
    assert isinstance(item, Item)
    assert (len(item.octets), item.size) == (min(size, 65537), size)


def test_names_of_any_octets(tmp_path: pathlib.Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9\x1b")).write_bytes(E)
    (tmp_path / "message").write_bytes(b"x")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    (item,) = Walk("d", "queue", False).message(descriptor, 0x11223344, "d")
    os.close(descriptor)
    assert isinstance(item, Item)
    assert (item.path, item.octets, item.kind) == ("d/caf\udce9\x1b", E, "stray")


def test_files_that_vanish_meanwhile_are_named(tmp_path: pathlib.Path) -> None:
    write_tree({"1122334400000001": E, "1122334400000002": E, "message": b"x"}, tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    walk = Walk("d", "queue", False).message(descriptor, 0x11223344, "d")
    assert isinstance(next(walk), Item)
    (tmp_path / "1122334400000002").unlink()
    gone = next(walk)
    os.close(descriptor)
    assert isinstance(gone, Unreadable)
    assert gone.reason == "No such file or directory"


def test_files_that_turn_into_something_else_are_not_followed(tmp_path: pathlib.Path) -> None:
    write_tree({"1122334400000001": E, "1122334400000002": E, "1122334400000003": E}, tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    walk = Walk("d", "queue", False).message(descriptor, 0x11223344, "d")
    next(walk)
    for number, content in ((2, ("/etc/passwd",)), (3, 0)):
        name = f"112233440000000{number}"
        (tmp_path / name).unlink()
        write_tree({name: content}, tmp_path)
    link, fifo = next(walk), next(walk)
    os.close(descriptor)
    assert isinstance(link, Unreadable)
    assert link.reason == "a symbolic link: not followed"
    assert not isinstance(fifo, Item) or fifo.octets == b""  # and it did not wait for a writer
