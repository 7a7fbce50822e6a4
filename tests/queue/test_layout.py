from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.queue import layout
from smtpd_core.queue.layout import find_place

NOT_AN_ID = "its name is not a message id (8 lower case hexadecimal digits): daemons pass it over"
NOT_AN_ENVELOPE = (
    "its name is not an envelope id (16 lower case hexadecimal digits): daemons pass it over"
)
ANOTHER = "it is in the directory of another message: daemons pass it over"


def test_paths() -> None:
    assert layout.message_path(0x01020304) == "queue/01/01020304"
    assert layout.message_path_521(0x01020304) == "queue/04/01020304"


@pytest.mark.parametrize("name", ["00", "ff", "a0"])
def test_names_of_buckets(name: str) -> None:
    assert layout.is_bucket_name(name)


@pytest.mark.parametrize("name", ["", "0", "000", "FF", "zz", "0x", "\u0661\u0661"])
def test_no_names_of_buckets(name: str) -> None:
    assert not layout.is_bucket_name(name)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("11223344", (0x11223344, None)),
        ("11223344.0", (0x11223344, None)),
        ("11223344.17", (0x11223344, None)),
        ("11223344.comp", (0x11223344, None)),
        ("11223344.enc", (0x11223344, None)),
        ("11223344.bak", (0x11223344, NOT_AN_ID)),
        ("1122AABB", (0x1122AABB, NOT_AN_ID)),
        ("00000000", (0, NOT_AN_ID)),
        ("1122334", (0, NOT_AN_ID)),
        ("112233445", (0, NOT_AN_ID)),
        ("112233445.0", (0, NOT_AN_ID)),
        ("1122334g", (0, NOT_AN_ID)),
        ("0x112233", (0, NOT_AN_ID)),
        ("+1122334", (0, NOT_AN_ID)),
        ("1122_344", (0, NOT_AN_ID)),
        ("", (0, NOT_AN_ID)),
    ],
)
def test_directories_of_messages(name: str, found: tuple[int, Optional[str]]) -> None:
    assert layout.message_of(name) == found


@pytest.mark.parametrize(
    ("name", "msgid", "found"),
    [
        ("1122334400000001", 0x11223344, (0x1122334400000001, None)),
        ("1122334400000001", 0, (0x1122334400000001, None)),
        ("1122334400000001", 0x11223355, (0x1122334400000001, ANOTHER)),
        ("112233440000000A", 0x11223344, (0x112233440000000A, NOT_AN_ENVELOPE)),
        ("0000000000000000", 0x11223344, (0, NOT_AN_ENVELOPE)),
        ("112233440000001", 0x11223344, (0x1122334400000000, NOT_AN_ENVELOPE)),
        ("11223344000000012", 0x11223344, (0x1122334400000000, NOT_AN_ENVELOPE)),
        ("112233440000000g", 0x11223344, (0x1122334400000000, NOT_AN_ENVELOPE)),
        ("core", 0, (0, NOT_AN_ENVELOPE)),
    ],
)
def test_names_of_envelopes(name: str, msgid: int, found: tuple[int, Optional[str]]) -> None:
    assert layout.envelope_of(name, msgid) == found


def test_buckets_of_messages() -> None:
    assert layout.wrong_bucket(0x11223344, "11") is None
    assert layout.wrong_bucket(0x11223344, "44") is None  # 5.2.1
    said = layout.wrong_bucket(0x11223344, "12")
    assert said == "it is in the wrong bucket: daemons look for it in queue/11"


Q = "queue/11/11223344"
# Path -> kind, bucket, message id, what is wrong with the file, with directories.
PLACES = [
    (f"{Q}/1122334400000001", ("envelope", "queue", 0x11223344, 0, 0)),
    (f"{Q}/message", ("message", "queue", 0x11223344, 0, 0)),
    (f"/mnt/a/b/{Q}/message", ("message", "queue", 0x11223344, 0, 0)),
    (f"./smtpd//{Q}/./message", ("message", "queue", 0x11223344, 0, 0)),
    (f"queue/queue/{Q}/message", ("message", "queue", 0x11223344, 0, 0)),
    ("queue/44/11223344/envelopes/1122334400000001", ("envelope", "queue", 0x11223344, 0, 0)),
    (f"{Q}/core", ("stray", "queue", 0x11223344, 1, 0)),
    (f"{Q}/1122335500000001", ("envelope", "queue", 0x11223344, 1, 0)),
    ("queue/12/11223344/message", ("message", "queue", 0x11223344, 0, 1)),
    ("queue/zz/11223344/message", ("message", "queue", 0x11223344, 0, 1)),
    ("queue/11223344/message", ("message", "queue", 0x11223344, 0, 1)),
    ("queue/11/junk/1122334400000001", ("envelope", "queue", 0, 0, 1)),
    ("queue/11/1122334400000001", ("stray", "queue", 0, 1, 0)),
    ("queue/x", ("stray", "queue", 0, 1, 0)),
    (f"{Q}/a/b", ("hidden", "queue", 0x11223344, 0, 1)),
    (f"{Q}/envelopes/a/b", ("hidden", "queue", 0x11223344, 0, 1)),
    ("incoming/11223344/1122334400000001", ("envelope", "incoming", 0x11223344, 0, 0)),
    ("incoming/envelope.tmp", ("stray", "incoming", 0, 1, 0)),
    ("corrupt/11223344.3/message", ("message", "corrupt", 0x11223344, 0, 0)),
    ("temporary/11223344", ("message", "temporary", 0x11223344, 0, 0)),
    ("temporary/11223344.enc", ("message", "temporary", 0x11223344, 0, 0)),
    ("temporary/smtpd.0123456789", ("stray", "temporary", 0, 1, 0)),
    ("purge/4294967295/11223344", ("message", "purge", 0x11223344, 0, 0)),
    ("purge/12345678/11223344/1122334400000001", ("envelope", "purge", 0x11223344, 0, 0)),
    ("offline/1700000000.abcdef", ("offline", "offline", 0, 0, 0)),
    ("offline/0123456789abcdef/1700000000.abcdef", ("offline", "offline", 0, 0, 0)),
    ("offline/a/b/c", ("hidden", "offline", 0, 0, 1)),
    ("1122334400000001", ("envelope", "queue", 0, 0, 0)),
    ("x/1122334400000001", ("envelope", "queue", 0, 0, 0)),
    ("11223344/1122334400000001", ("envelope", "queue", 0x11223344, 0, 0)),
    ("11223344/1122335500000001", ("envelope", "queue", 0x11223344, 1, 0)),
    ("x/11223344/envelopes/1122334400000001", ("envelope", "queue", 0x11223344, 0, 0)),
    ("11223344/message", ("message", "queue", 0x11223344, 0, 0)),
]


@pytest.mark.parametrize(("path", "wanted"), PLACES)
def test_places(path: str, wanted: tuple[str, str, int, int, int]) -> None:
    place = find_place(path)
    assert place is not None
    found = (place.kind, place.bucket, place.msgid, len(place.notes), len(place.wrong))
    assert found == wanted
    assert place.name == path.rpartition("/")[2]
    assert "/".join(place.parts) == "/".join(
        part for part in path.split("/") if part not in ("", ".")
    )
    assert place.parts[place.spool] == place.bucket or place.spool == 0


@pytest.mark.parametrize(
    "path", ["", "/", "x", "queue", "x/y/z", "message", "x/message", "11223344/x"]
)
def test_no_places(path: str) -> None:
    assert find_place(path) is None


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("message", ""), ("./message", ""), ("a//b/message", "a/b"), ("1122334400000001", ""),
     ("a/1122334400000001", "a"), ("envelopes/1122334400000001", ""),
     ("a/envelopes/1122334400000001", "a"), ("", None), ("x", None), ("queue/x/message", None),
     ("11223344/message", None), ("11223344/1122334400000001", None)],
)  # fmt: skip
def test_directories_without_the_name_of_a_message(path: str, wanted: Optional[str]) -> None:
    assert layout.bare_directory(path) == wanted


@given(st.lists(st.one_of(st.sampled_from([*layout.BUCKETS, "11", "11223344", ".", "", "message"]),
                          st.text(max_size=9)), max_size=6).map("/".join))  # fmt: skip
def test_any_path_has_a_place_or_none(path: str) -> None:
    place = find_place(path)
    if place is not None:
        assert place.bucket in layout.BUCKETS
        assert 0 <= place.message < len(place.parts)
        assert all(place.spool < depth <= len(place.parts) for depth, _ in place.wrong)
