from __future__ import annotations

import os
import pathlib
import tempfile
from typing import TYPE_CHECKING, Union

import pytest

from smtpd_core.errors import AccessError
from smtpd_core.queue.directory import DirectorySource
from smtpd_core.queue.layout import BUCKETS
from smtpd_core.queue.sources import Item, Unreadable
from tests import running
from tests.trees import Tree, envelope, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

E = envelope()
M = "queue/11/11223344"
SPOOL: Tree = {
    f"{M}/message": b"text\n",
    f"{M}/1122334400000001": E,
    f"{M}/1122334400000002": E,
    "queue/22/22334455/message": b"other\n",
    "queue/22/22334455/2233445500000001": E,
    "incoming/33445566/3344556600000001": E,
    "temporary/33445566": b"coming",
    "corrupt/44556677/message": b"bad\n",
    "corrupt/44556677/4455667700000001": E,
    "purge/123/55667788": b"gone",
    "purge/456/66778899/message": b"gone too",
    "offline/1700000000.x": b"a@b\nmail\n",
}


@pytest.fixture
def spool(tmp_path: pathlib.Path) -> pathlib.Path:
    write_tree(SPOOL, tmp_path)
    return tmp_path


def walk(source: DirectorySource, *buckets: str) -> list[Union[Item, Unreadable]]:
    found: list[Union[Item, Unreadable]] = []
    for unit in source.units(buckets or BUCKETS):
        found += source.walk(unit, details=False)
    return found


def ids(found: list[Union[Item, Unreadable]]) -> list[int]:
    return [item.evpid for item in found if isinstance(item, Item)]


def test_buckets_in_their_order(spool: pathlib.Path) -> None:
    found = walk(DirectorySource(str(spool)))
    assert [item.bucket for item in found if isinstance(item, Item)] == [
        "queue", "queue", "queue", "incoming", "temporary", "corrupt", "purge", "purge", "offline",
    ]  # fmt: skip
    assert ids(walk(DirectorySource(f"{spool}/"), "queue")) == [
        0x1122334400000001, 0x1122334400000002, 0x2233445500000001,
    ]  # fmt: skip
    assert walk(DirectorySource(str(spool)), "queue")[0].path == f"{spool}/{M}/1122334400000001"


# Part of the spool: how many envelopes are in it
PARTS = {"queue": 3, "queue/11": 2, M: 2, "queue/22/22334455": 1, "incoming": 1, "corrupt": 1,
         "purge": 2, "temporary": 1, "offline": 1, "incoming/33445566": 1}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_part_of_a_spool(part: str, spool: pathlib.Path) -> None:
    found = walk(DirectorySource(str(spool / part)))
    assert len(ids(found)) == PARTS[part]
    assert all(item.path.startswith(f"{spool}/{part}/") for item in found)


def test_part_under_another_name(spool: pathlib.Path) -> None:
    (spool / "queue").rename(spool / "saved")
    assert len(ids(walk(DirectorySource(str(spool / "saved"))))) == 3
    (spool / "link").symlink_to("saved")  # the operator named it: it is followed
    assert len(ids(walk(DirectorySource(str(spool / "link"))))) == 3


@pytest.mark.parametrize("name", ["x", "empty"])
def test_no_part_of_a_spool(name: str, tmp_path: pathlib.Path) -> None:
    write_tree({"x/notes": b"", "empty": None}, tmp_path)
    with pytest.raises(AccessError, match=f"{tmp_path}/{name}: not a spool of OpenSMTPD, nor a"):
        DirectorySource(str(tmp_path / name))
    with pytest.raises(AccessError, match="nowhere: No such file or directory"):
        DirectorySource(str(tmp_path / "nowhere"))


def test_spool_without_queue(tmp_path: pathlib.Path) -> None:
    (tmp_path / "incoming").mkdir()
    assert walk(DirectorySource(str(tmp_path))) == []


def test_one_message(spool: pathlib.Path) -> None:
    for path in (spool, spool / "queue", spool / "queue/11"):
        found = list(DirectorySource(str(path)).walk_message(0x11223344, details=False))
        assert ids(found) == [0x1122334400000001, 0x1122334400000002]
    source = DirectorySource(str(spool))
    assert list(source.walk_message(0x99999999, details=False)) == []
    assert list(DirectorySource(str(spool / M)).walk_message(0x11223344, details=False)) == []


def test_details(spool: pathlib.Path) -> None:
    source = DirectorySource(str(spool))
    (unit, *_) = source.units(["queue"])
    item = next(source.walk(unit, details=True))
    assert isinstance(item, Item)
    assert (item.mtime, item.size, item.message_size) == (1700000000, len(E), 5)


# Message id: the buckets looked into, and the body found
BODIES = [
    (0x11223344, ("queue",), b"text\n"),
    (0x33445566, ("temporary",), b"coming"),
    (0x33445566, ("queue",), None),
    (0x44556677, BUCKETS, b"bad\n"),
    (0x55667788, BUCKETS, b"gone"),
    (0x66778899, BUCKETS, b"gone too"),
    (0x99999999, BUCKETS, None),
]


@pytest.mark.parametrize(("msgid", "buckets", "wanted"), BODIES)
def test_body(msgid: int, buckets: tuple[str, ...], wanted: bytes, spool: pathlib.Path) -> None:
    body = DirectorySource(str(spool)).open_message(msgid, buckets)
    assert (body is None) == (wanted is None)
    if body is not None:
        assert body.seekable()
        assert body.peek() == wanted[:2]
        assert body.read(99) == wanted
        assert body.read(99) == b""
        assert body.seek(0) == 0
        assert body.read(2) == wanted[:2]
        body.close()


@pytest.mark.parametrize(
    "path",
    ["queue/zz/77889900/message", "queue/77889900/message", "queue/12/77889900.0/message",
     "queue/00/77889900/message"],
)  # fmt: skip
def test_misplaced_body_is_found(path: str, spool: pathlib.Path) -> None:
    write_tree({path: b"lost\n"}, spool)
    body = DirectorySource(str(spool)).open_message(0x77889900, ["queue"])
    assert body is not None
    assert (body.path, body.read(9)) == (f"{spool}/{path}", b"lost\n")


def test_body_of_a_directory_of_a_message(spool: pathlib.Path) -> None:
    source = DirectorySource(str(spool / M))
    body = source.open_message(0x11223344, ["queue"])
    assert body is not None
    assert body.read(9) == b"text\n"
    assert source.open_message(0x11223355, ["queue"]) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [(("/etc/passwd",), "a symbolic link: not followed"), (0, "a FIFO: not opened"),
     (None, "a directory where a file is expected")],
)  # fmt: skip
def test_body_that_is_no_file(content: object, reason: str, tmp_path: pathlib.Path) -> None:
    tree: Tree = {f"{M}/1122334400000001": E, f"{M}/message": content}  # type: ignore[dict-item]  # one of its kinds
    write_tree(tree, tmp_path)
    source = DirectorySource(str(tmp_path))
    with pytest.raises(AccessError, match=f"{M}/message: {reason}"):
        source.open_message(0x11223344, ["queue"])
    said = [item.reason for item in walk(source) if isinstance(item, Unreadable)]
    assert said == [reason]


def test_no_link_is_followed_on_the_way(spool: pathlib.Path, tmp_path: pathlib.Path) -> None:
    write_tree({"queue/33": ("22",), "queue/11/11223355": ("11223344",)}, spool)
    source = DirectorySource(str(spool))
    said = {item.path[len(str(spool)) :]: item.reason for item in walk(source, "queue")
            if isinstance(item, Unreadable)}  # fmt: skip
    link = "a symbolic link: not followed"
    assert said == {"/queue/33": link, "/queue/11/11223355": link}
    assert len(ids(walk(source, "queue"))) == 3
    assert list(source.walk_message(0x11223355, details=False)) == []
    with pytest.raises(AccessError, match=f"11223355: {link}"):
        source.open_message(0x11223355, ["queue"])
    (spool / "queue").rename(spool / "moved")
    (spool / "queue").symlink_to("moved")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(("moved",), "a symbolic link: not followed"), (0, "a FIFO: not opened")],
)
def test_queue_that_is_no_directory(
    content: Union[tuple[str], int], reason: str, spool: pathlib.Path
) -> None:
    (spool / "queue").rename(spool / "moved")
    write_tree({"queue": content}, spool)
    source = DirectorySource(str(spool))
    found = walk(source)
    assert [(item.path, item.reason) for item in found if isinstance(item, Unreadable)] == [
        (f"{spool}/queue", reason)
    ]
    assert len(ids(found)) == 6
    (told,) = source.walk_message(0x11223344, details=False)
    assert isinstance(told, Unreadable)
    assert (told.path, told.reason) == (f"{spool}/{M}", reason)
    with pytest.raises(AccessError, match=f"{spool}/queue: {reason}"):
        source.open_message(0x11223344, ["queue"])
    body = source.open_message(0x44556677, BUCKETS)
    assert body is not None
    assert body.read(9) == b"bad\n"


def test_queue_that_is_a_file(spool: pathlib.Path) -> None:
    (spool / "queue").rename(spool / "moved")
    write_tree({"queue": b"notes"}, spool)
    source = DirectorySource(str(spool))
    found = walk(source)
    assert isinstance(found[0], Item)
    assert (found[0].path, found[0].kind, found[0].octets) == (f"{spool}/queue", "stray", b"notes")
    assert len(found) == 7
    with pytest.raises(AccessError, match=f"{spool}/queue: Not a directory"):
        source.open_message(0x11223344, ["queue"])


def test_body_only_in_the_wanted_buckets(spool: pathlib.Path) -> None:
    write_tree({"corrupt/11223344/message": b"aside\n"}, spool)
    source = DirectorySource(str(spool))
    for buckets, wanted in ((["corrupt"], b"aside\n"), (["queue", "corrupt"], b"text\n")):
        body = source.open_message(0x11223344, buckets)
        assert body is not None
        assert body.read(9) == wanted
    assert source.open_message(0x11223344, ["incoming"]) is None


def test_only_a_directory_is_a_bucket(tmp_path: pathlib.Path) -> None:
    write_tree({"x/e1": b"", "x/notes": b"", "y/e1": ("/",), "z/e1": None}, tmp_path)
    for name in ("x", "y"):
        with pytest.raises(AccessError, match="not a spool of OpenSMTPD"):
            DirectorySource(str(tmp_path / name))
    assert walk(DirectorySource(str(tmp_path / "z"))) == []
    write_tree({f"x/{name}": E for name in ("message", "1122334400000001")}, tmp_path)
    found = walk(DirectorySource(str(tmp_path / "x")))
    assert ids(found)[0] == 0x1122334400000001
    assert not [item for item in found if isinstance(item, Unreadable)]


def snapshot(directory: pathlib.Path) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for path in [directory, *directory.rglob("*")]:
        status = path.lstat()
        times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
        found[str(path)] = (status.st_mode, status.st_size, *times)
    return found


def test_nothing_is_changed_or_stamped(spool: pathlib.Path) -> None:
    for path in [spool, *spool.rglob("*")]:
        os.utime(path, (1, 2))
    before = snapshot(spool)
    source = DirectorySource(str(spool))
    assert len(walk(source)) == 9
    body = source.open_message(0x55667788, BUCKETS)
    assert body is not None
    body.read(99)
    body.close()
    assert snapshot(spool) == before


@pytest.fixture
def open_spool() -> Iterator[pathlib.Path]:
    """Give a spool that another user owns."""
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        write_tree(SPOOL, directory)
        for path in [directory, *directory.rglob("*")]:
            if os.getuid() == 0:
                os.chown(path, running.NOBODY, running.NOBODY)
        yield directory
        for path in directory.rglob("*"):
            path.chmod(0o700)


def test_what_may_not_be_read_is_named(open_spool: pathlib.Path) -> None:
    for path in ("queue/22", M, "incoming", "offline/1700000000.x", "corrupt/44556677/message"):
        (open_spool / path).chmod(0)

    def look() -> bytes:
        source = DirectorySource(str(open_spool))
        found = walk(source)
        assert len(ids(found)) == 4  # of purge, temporary and corrupt
        with pytest.raises(AccessError, match="corrupt/44556677/message: Permission denied"):
            source.open_message(0x44556677, BUCKETS)
        with pytest.raises(AccessError, match=f"{M}/message: Permission denied"):
            source.open_message(0x11223344, BUCKETS)
        unreadable = [item for item in found if isinstance(item, Unreadable)]
        assert {item.reason for item in unreadable} == {"Permission denied"}
        return "\n".join(item.path[len(str(open_spool)) + 1 :] for item in unreadable).encode()

    said = running.in_child(look, running.NOBODY).decode().split("\n")
    assert said == [M, "queue/22", "incoming", "offline/1700000000.x"]


def test_spool_that_may_be_passed_but_not_listed(open_spool: pathlib.Path) -> None:
    open_spool.chmod(0o111)

    def look() -> bytes:
        return b"%d" % len(ids(walk(DirectorySource(str(open_spool)))))

    assert running.in_child(look, running.NOBODY) == b"9"
    open_spool.chmod(0o700)
    (open_spool / "queue").chmod(0)

    def look_again() -> bytes:
        source = DirectorySource(str(open_spool))
        with pytest.raises(AccessError, match="queue: Permission denied"):
            source.open_message(0x11223344, BUCKETS)
        with pytest.raises(AccessError, match="queue: Permission denied"):
            DirectorySource(f"{open_spool}/queue")
        (told, *found) = walk(source)
        assert isinstance(told, Unreadable)
        assert (told.path, told.reason) == (f"{open_spool}/queue", "Permission denied")
        (unit,) = source.units(["queue"])
        (open_spool / "queue").chmod(0o700)
        return b"%d %d" % (len(ids(found)), len(ids(list(source.walk(unit, details=False)))))

    assert running.in_child(look_again, running.NOBODY) == b"6 3"


def test_no_descriptor_is_left_open(spool: pathlib.Path) -> None:
    source = DirectorySource(str(spool))
    before = os.listdir("/proc/self/fd")
    walk(source)
    for unit in source.units(BUCKETS):
        found = source.walk(unit, details=False)
        next(found)
        del found  # a listing with a limit stops in the middle
    assert os.listdir("/proc/self/fd") == before
