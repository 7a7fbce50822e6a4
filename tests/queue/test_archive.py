from __future__ import annotations

import gzip
import os
import pathlib
import tarfile
import tempfile
import tracemalloc
from typing import TYPE_CHECKING, Any, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_core.errors import AccessError
from smtpd_core.queue.archive import KEPT_OCTETS_MAX, ArchiveSource
from smtpd_core.queue.directory import DirectorySource
from smtpd_core.queue.layout import BUCKETS
from smtpd_core.queue.sources import Item, Unreadable
from tests.trees import Tree, envelope, pack_tree, write_tree

if TYPE_CHECKING:
    from smtpd_core.queue.sources import Source


def open_archive(octets: bytes, kept_max: int = KEPT_OCTETS_MAX) -> ArchiveSource:
    with tempfile.TemporaryFile() as stream:
        stream.write(octets)
        stream.flush()
        descriptor = os.dup(stream.fileno())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return ArchiveSource("a.tar", descriptor, kept_max)


Found = tuple[Any, ...]


def walked(source: Source, prefix: str, buckets: tuple[str, ...] = BUCKETS) -> list[Found]:
    """Give all that a source holds, with paths below the spool."""
    found: list[Union[Item, Unreadable]] = []
    for unit in source.units(buckets):
        found += source.walk(unit, details=True)
    rows: list[Found] = []
    for item in found:
        assert item.path.startswith(prefix)
        path = item.path[len(prefix) :]
        if isinstance(item, Unreadable):
            rows.append((path, item.reason))
        else:
            times = (item.mtime, item.size, item.message_size)
            rows.append((path, item.kind, item.bucket, item.evpid, item.octets, item.notes, times))
    return rows


def both(tree: Tree, buckets: tuple[str, ...] = BUCKETS) -> tuple[list[Found], list[Found]]:
    """Walk a tree as a directory and as an archive."""
    with tempfile.TemporaryDirectory() as name:
        write_tree(tree, pathlib.Path(name))
        source = DirectorySource(name)
        directory = walked(source, f"{name}/", buckets)
        os.close(source._fd)
    source_of_archive = open_archive(pack_tree(tree, "smtpd/"))
    archived = walked(source_of_archive, "a.tar: smtpd/", buckets)
    os.close(source_of_archive._descriptor)
    return directory, archived


GOOD: Tree = {
    "queue/11/11223344/message": b"text\n",
    "queue/11/11223344/1122334400000001": envelope(),
    "queue/11/11223344/1122334400000002": envelope("carol@example.org"),
}
E = envelope()
M = "queue/11/11223355"
# What is wrong -> what else is in the spool.
ODD_TREES: dict[str, Tree] = {
    "nothing": {},
    "an envelope in queue/": {"queue/1122334400000009": E},
    "an envelope in a bucket": {"queue/11/1122334400000009": E},
    "a message outside of a bucket": {"queue/11223355/message": b"x", "queue/11223355/1": E},
    "a foreign directory": {"queue/zz/11223355/1122335500000001": E, "queue/zz/x/y": b"z"},
    "an empty foreign directory": {"queue/zz": None, "queue/12": None},
    "the wrong bucket": {"queue/12/11223355/1122335500000001": E, "queue/12/11223355/x": E},
    "another message's envelope": {"queue/11/11223344/1122335500000001": E},
    "a directory in a message": {"queue/11/11223344/dir/1122334400000003": E},
    "an empty directory in a message": {"queue/11/11223344/dir": None},
    "a directory as an envelope": {f"{M}/1122335500000001": None},
    "a directory as a body": {f"{M}/message/x": b"", f"{M}/1122335500000001": E},
    "a link as an envelope": {f"{M}/1122335500000001": ("/etc/passwd",),
                              f"{M}/message": b"x"},
    "a link as a body": {f"{M}/message": ("x",), f"{M}/1122335500000001": E},
    "a link as a message": {"queue/11/11223355": ("11223344",)},
    "a link as a bucket": {"queue/12": ("11",)},
    "a FIFO as an envelope": {f"{M}/1122335500000001": 0},
    "a body alone": {f"{M}/message": b"x"},
    "an empty body": {f"{M}/message": b"", f"{M}/1122335500000001": E},
    "no body": {f"{M}/1122335500000001": E},
    "names in upper case": {"queue/11/1122AABB/1122AABB00000001": E, "queue/AB/11223355/x": E},
    "files beside": {"queue/11/11223344/core": b"\1", "queue/11/x": b"", "queue/y": b"", "z": b""},
    "a message of zeros": {"queue/00/00000000/message": b"", "queue/00/00000000/" + "0" * 16: E},
    "a transaction": {"incoming/11223355/1122335500000001": E, "incoming/envelope.tmp": E},
    "a transaction with a body": {"incoming/11223355/message": b"x"},
    "a body in reception": {"temporary/11223355": b"x", "temporary/11223356.comp": b"",
                            "temporary/smtpd.0123456789": b"x"},
    "purged": {"purge/123/11223355/1122335500000001": E, "purge/45/11223355": b"x",
               "purge/11223366": b"x", "purge/67/x": b"", "purge/x/y": E},
    "set aside": {"corrupt/11223355.0/1122335500000001": E, "corrupt/11223355/message": b"x"},
    "handed in": {"offline/1700000001.abc": b"a@b\n\nx\n", "offline/0123456789abcdef/2.x": b"-t\n",
                  "offline/a/b/c": b"", "offline/empty": b"", "offline/link": ("x",)},
    "no envelope": {f"{M}/core": E},
    "no body in 5.2.1": {"queue/55/11223355/envelopes/1122335500000001": E},
    "5.2.1": {"queue/44/11223344/envelopes/1122334400000001": E},
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_TREES)
def test_archive_gives_what_its_directory_gives(name: str) -> None:
    directory, archived = both({**ODD_TREES[name], **GOOD})
    assert archived == directory
    backwards = dict(reversed({**ODD_TREES[name], **GOOD}.items()))
    assert both(backwards)[1] == directory


def test_envelopes_of_521_are_in_the_order_of_messages() -> None:
    tree: Tree = {}
    for msgid in ("11223344", "22334411", "33441122", "44112233"):
        tree[f"queue/{msgid[6:]}/{msgid}/envelopes/{msgid}00000001"] = E
        tree[f"queue/{msgid[6:]}/{msgid}/message"] = b"x"
    directory, archived = both(tree)
    assert archived == directory
    assert [row[3] >> 32 for row in directory] == [0x11223344, 0x22334411, 0x33441122, 0x44112233]


NAMES = st.sampled_from(
    ["11", "12", "zz", "11223344", "11223355", "11223344.0", "1122AABB", "12345678",
     "1122334400000001", "1122334400000002", "1122335500000001", "1122AABB00000001", "message",
     "envelopes", "x"]
)  # fmt: skip
PATHS = st.one_of(
    st.tuples(st.just("queue"), st.lists(NAMES, min_size=1, max_size=4)),
    st.tuples(
        st.sampled_from(["queue/11", "queue/11/11223344", "queue/11/11223355", "queue/12"]),
        st.lists(NAMES, min_size=1, max_size=2),
    ),
    st.tuples(st.sampled_from(BUCKETS[1:]), st.lists(NAMES, min_size=1, max_size=3)),
).map(lambda path: "/".join([path[0], *path[1]]))
CONTENTS = st.sampled_from([E, b"", b"x", b"-t\nTo: a@b\n", None, ("x",), 0])


def consistent(tree: dict[str, Any]) -> Tree:
    """Leave out what cannot be in one directory with what came before it."""
    kept: Tree = {}
    for path, content in tree.items():
        parents = [path.rsplit("/", n)[0] for n in range(1, path.count("/") + 1)]
        if all(kept.get(parent) is None for parent in parents if parent in kept) and not any(
            other.startswith(path + "/") for other in kept
        ):
            kept[path] = content
    return kept


@settings(max_examples=300)
@given(st.dictionaries(PATHS, CONTENTS, max_size=7))
def test_any_archive_gives_what_its_directory_gives(tree: Tree) -> None:
    directory, archived = both(consistent({"queue/11/11223377/1122337700000001": E, **tree}))
    assert archived == directory


def test_only_wanted_buckets() -> None:
    tree = {**GOOD, **ODD_TREES["a transaction"], **ODD_TREES["handed in"]}
    for buckets in (("queue",), ("incoming",), ("offline", "queue")):
        directory, archived = both(tree, buckets)
        assert archived == directory


def test_the_later_of_two_members_counts() -> None:
    first = pack_tree({**GOOD, "queue/11/11223344/message": b""})
    second = pack_tree({"queue/11/11223344/1122334400000001": b"version: 3\n",
                        "queue/11/11223344/1122334400000002": ("x",),
                        "./queue/11/11223344/message": b"longer\n"})  # fmt: skip
    members = first.rstrip(b"\0")  # without its end
    source = open_archive(members + bytes(-len(members) % 512) + second)
    rows = walked(source, "a.tar: ", ("queue",))
    by_path = {row[0].rpartition("/")[2]: row for row in rows}
    assert by_path["1122334400000001"][4] == b"version: 3\n"
    assert by_path["1122334400000001"][6][2] == 7
    assert by_path["1122334400000002"][1] == "a symbolic link: not followed"
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("tree", "paths"),
    [
        ({"1122334400000001": E}, ["1122334400000001"]),
        ({"x/11223344/1122334400000001": E, "x/11223344/message": b"x"},
         ["x/11223344/1122334400000001"]),
        ({"home/bob/spool/queue/11/11223344/1122334400000001": E, "home/bob/notes/queue/x": b"",
          "home/bob/spool/queue/11/11223344/message": b"x", "srv/offline/page": b"x\n"},
         ["home/bob/spool/queue/11/11223344/1122334400000001"]),
        ({f"{spool}/queue/11/11223344/{name}": E for spool in ("b", "a")
          for name in ("1122334400000001", "message")},
         ["a/queue/11/11223344/1122334400000001", "b/queue/11/11223344/1122334400000001"]),
        ({"etc/passwd": b"x"}, [""]),
        ({}, [""]),
    ],
    ids=["an envelope", "a message", "among other things", "two spools", "none", "empty"],
)  # fmt: skip
def test_parts_of_spools_and_more(tree: Tree, paths: list[str]) -> None:
    rows = walked(open_archive(pack_tree(tree)), "a.tar")
    assert [row[0][2:] for row in rows] == paths
    assert (rows[0][1] == "no spool of OpenSMTPD is in this archive") == (paths == [""])


def test_an_empty_spool_is_a_spool() -> None:
    assert walked(open_archive(pack_tree({"smtpd": None, "smtpd/queue": None})), "a.tar") == []


def test_a_colon_in_the_name_of_the_archive() -> None:
    source = open_archive(pack_tree(GOOD))
    source.path = "monday: noon: x"
    sizes = [row[6][2] for row in walked(source, "monday: noon: x: ")]
    assert sizes == [5, 5]


def test_cut_archive_gives_what_comes_first() -> None:
    octets = pack_tree(GOOD)
    for cut in (700, 1500, 2500, 3000):
        rows = walked(open_archive(octets[:cut]), "a.tar")
        assert rows[0][0] == ""  # the archive itself is named
        assert len(rows) >= 1
    damaged = bytearray(octets)
    at = octets.index(b"queue/11/11223344/1122334400000001")
    damaged[at + 148 : at + 156] = b"7777777\0"  # the checksum of a header
    rows = walked(open_archive(bytes(damaged)), "a.tar")
    assert "octet 1024: " in rows[0][1]
    assert [row[0] for row in rows[1:]] == [": queue/11/11223344/1122334400000002"]


def test_what_is_kept_is_bounded() -> None:
    tree: Tree = {}
    for number in range(60):
        msgid = f"{11000000 + number * 7919:08x}"
        tree[f"queue/{msgid[:2]}/{msgid}/{msgid}00000001"] = E
        tree[f"queue/{msgid[:2]}/{msgid}/message"] = b"x"
    rows = walked(open_archive(pack_tree(tree), 20_000), "a.tar")
    told = [row for row in rows if len(row) == 2]
    assert {row[1] for row in told} == {"too many envelopes to sort: more follow behind these"}
    assert len(told) >= 2
    assert len(rows) - len(told) == 60


def test_what_was_cut_apart_is_not_missing() -> None:
    tree: Tree = {f"{M}/1122335500000001": E, "queue/22/22334455/message": b"x"}
    tree.update({f"queue/33/33445566/33445566{number:08x}": E for number in range(9)})
    tree.update({"queue/22/22334455/2233445500000001": E, f"{M}/message": b"x"})
    rows = walked(open_archive(pack_tree(tree), 9000), "a.tar")
    assert {row[1] for row in rows if len(row) == 2} == {
        "too many envelopes to sort: more follow behind these"
    }
    assert len([row for row in rows if len(row) != 2]) == 11


def peak_of_walk(octets: bytes, kept_max: int) -> int:
    source = open_archive(octets, kept_max)
    (unit,) = source.units(["queue"])
    tracemalloc.start()
    try:
        for _ in source.walk(unit, details=True):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "pattern",
    ["queue/{0:02x}/{1:08x}", "queue/11/{1:08x}/message/x", "x{1}/message",
     "queue/{0:02x}/{1:08x}/message"],
)  # fmt: skip
def test_memory_for_a_hostile_archive_is_bounded(pattern: str) -> None:
    content = None if pattern.endswith("}") else b""
    tree: Tree = {pattern.format(n % 256, n + 0x10000000): content for n in range(6000)}
    reading = peak_of_walk(pack_tree(GOOD), 1 << 20)  # any archive
    assert peak_of_walk(pack_tree(tree), 1 << 20) < reading + (1 << 20) + (300 << 10)


def test_spools_are_bounded() -> None:
    tree: Tree = {f"s{n:05}/{M}/1122335500000001": E for n in range(1100)}
    source = open_archive(pack_tree(tree))
    (unit,) = source.units(["queue"])
    found = [item for item in source.walk(unit, details=False) if isinstance(item, Item)]
    assert len(found) == 1100  # none is lost for being one too many


BARE = {"message": b"text\n", "1122334400000001": E, "1122334400000002": E}


@pytest.mark.parametrize("prefix", ["./", "", "saved/", "./a/b/"])
@pytest.mark.parametrize("backwards", [False, True])
def test_archive_made_inside_of_a_message(prefix: str, backwards: bool) -> None:
    tree: Tree = dict(reversed(BARE.items())) if backwards else dict(BARE)
    octets = pack_tree({"other/message": b"not this", **tree}, prefix)
    rows = walked(open_archive(octets), "a.tar: ")
    assert [(row[3], row[6][2]) for row in rows] == [
        (0x1122334400000001, 5), (0x1122334400000002, 5),
    ]  # fmt: skip
    source = open_archive(gzip.compress(octets))
    body = source.open_message(0x11223344, ["queue"])
    assert body is not None
    assert body.path == f"a.tar: {prefix}message"
    assert body.read(99) == b"text\n"
    assert source.open_message(0x11223355, ["queue"]) is None
    assert source.open_message(0x11223344, ["corrupt"]) is None


def test_archive_made_inside_of_a_message_of_521() -> None:
    source = open_archive(pack_tree({"message": b"text\n", "envelopes/1122334400000001": E}, "./"))
    (row,) = walked(source, "a.tar: ")
    assert row[6][2] == 5
    body = source.open_message(0x11223344, ["queue"])
    assert body is not None
    assert body.read(99) == b"text\n"


def test_a_body_without_envelopes_beside_it_is_nothing() -> None:
    (row,) = walked(open_archive(pack_tree({"mail/message": b"x"})), "a.tar")
    assert row[1] == "no spool of OpenSMTPD is in this archive"


def test_body_of_a_message() -> None:
    big = os.urandom(300_000)
    tree: Tree = {**GOOD, f"{M}/message": big, "temporary/11223366": b"coming"}
    source = open_archive(gzip.compress(pack_tree(tree)))
    body = source.open_message(0x11223355, ["queue"])
    assert body is not None
    assert body.path == f"a.tar: {M}/message"
    assert body.peek() == big[:2]
    assert b"".join(iter(lambda: body.read(7000), b"")) == big
    assert not body.seekable()
    with pytest.raises(AccessError, match="it can be read only once"):
        body.seek(0)
    body.close()
    found = source.open_message(0x11223366, ["temporary"])
    assert found is not None
    assert found.read(99) == b"coming"
    assert source.open_message(0x11223366, ["queue"]) is None
    assert source.open_message(0x99999999, BUCKETS) is None


def test_body_behind_damage_is_told() -> None:
    octets = pack_tree(GOOD)
    source = open_archive(octets[:1100])
    with pytest.raises(AccessError, match=r"a\.tar: "):
        source.open_message(0x99999999, ["queue"])
    source = open_archive(octets[:515])
    body = source.open_message(0x11223344, ["queue"])
    assert body is not None
    assert body.read(9) == b"tex"
    with pytest.raises(AccessError, match=r"a\.tar: queue/11/11223344/message: "):
        body.read(9)


def test_a_stream_is_read_once() -> None:
    receiving, sending = os.pipe()
    os.write(sending, pack_tree(GOOD))
    os.close(sending)
    source = ArchiveSource("-", receiving)
    assert len(walked(source, "standard input: ")) == 2
    with pytest.raises(AccessError, match="standard input: it can be read only once"):
        walked(source, "standard input: ")
    os.close(receiving)


def test_each_member_is_told_while_nothing_can_be_given_yet() -> None:
    path = pathlib.Path(__file__).parent.parent / "spools" / "demo.tar.gz"
    source = ArchiveSource(str(path), os.open(path, os.O_RDONLY))
    told: list[int] = []
    source.on_read = lambda: told.append(0)
    items = source.walk(source.units(["queue"])[0], details=False)
    next(items)
    with tarfile.open(path) as oracle:
        assert len(told) == len(oracle.getmembers())
