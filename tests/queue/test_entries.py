from __future__ import annotations

import gzip
import pathlib
import zlib
from typing import Optional

import pytest

from smtpd_core.queue.codec import Key, encode, parse_key
from smtpd_core.queue.entries import Entry, read_entries, unwrap
from smtpd_core.queue.sources import Item, Unreadable
from tests.trees import STAMP, envelope

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "envelope"
KEY = parse_key(b"0123456789abcdef0123456789abcdef")
EVPID = 0x1122334400000001
PLAIN = envelope()


def entry_of(octets: bytes, kind: str = "envelope", key: Optional[Key] = None) -> Entry:
    (entry,) = read_entries(Item(kind, "a/path", "queue", EVPID, octets), lambda: key)
    assert isinstance(entry, Entry), entry.reason
    return entry


def reason_of(octets: bytes, kind: str = "envelope", key: Optional[Key] = None) -> str:
    (entry,) = read_entries(Item(kind, "a/path", "queue", EVPID, octets), lambda: key)
    assert isinstance(entry, Unreadable)
    assert entry.path == "a/path"
    return entry.reason


def nobody() -> Optional[Key]:
    raise AssertionError("nothing here is encrypted")


@pytest.mark.parametrize(
    ("stored", "form"),
    [
        (PLAIN, "plain"),
        (encode(PLAIN, True, None, None), "gzip"),
        (encode(PLAIN, False, KEY, b"x" * 12), "encrypted"),
        (encode(PLAIN, True, KEY, b"x" * 12), "gzip+encrypted"),
    ],
)
def test_forms(stored: bytes, form: str) -> None:
    entry = entry_of(stored, key=KEY)
    assert (entry.form, entry.problems, entry.damaged) == (form, [], False)
    assert entry.envelope.rcpt == "bob@example.org"
    assert entry.evpid == EVPID
    assert entry.read_by == ["6.4", "6.6", "6.7", "7.3", "7.5"]


def test_key_is_asked_for_when_it_is_needed() -> None:
    item = Item("envelope", "a/path", "queue", EVPID, encode(PLAIN, True, None, None))
    assert len(list(read_entries(item, nobody))) == 1
    sealed = encode(PLAIN, False, KEY, b"x" * 12)
    assert reason_of(sealed) == "encrypted, and no queue key was given"
    wrong = parse_key(b"x" * 32)
    assert reason_of(sealed, key=wrong).startswith("cannot be decrypted: the queue key is wrong")


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        (gzip.compress(PLAIN)[:-8], "the gzip data ends too early: the file was cut"),
        (gzip.compress(PLAIN)[:-30], "the gzip data ends too early: the file was cut"),
        (gzip.compress(PLAIN)[:-4] + b"abcd", "its checksum does not match"),
    ],
)
def test_damaged_gzip_is_read_as_far_as_it_goes(stored: bytes, problem: str) -> None:
    entry = entry_of(stored)
    assert problem in entry.problems[0]
    assert entry.damaged
    assert entry.read_by == []
    assert entry.envelope.rcpt == "bob@example.org"
    octets, form, wrong = unwrap(stored, nobody)
    assert PLAIN.startswith(octets)
    assert (form, wrong) == ("gzip", entry.problems[0])


def test_gzip_that_gives_nothing() -> None:
    stored = gzip.compress(PLAIN)
    assert reason_of(stored[:12]) == "the gzip data ends too early: the file was cut"
    assert "begins like gzip data but is none" in reason_of(b"\x1f\x8b" + b"x" * 50)
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join([bomb.compress(bytes(1 << 20)) for _ in range(20)]) + bomb.flush()
    assert len(packed) < 65536
    assert "too large: more than 65536 octets" in reason_of(packed)


def test_misplaced_and_missing_count_as_damage() -> None:
    item = Item("envelope", "a/path", "queue", EVPID, PLAIN)
    item.notes = ("it is misplaced",)
    (entry,) = read_entries(item, nobody)
    assert isinstance(entry, Entry)
    assert (entry.problems, entry.damaged, entry.read_by) == (["it is misplaced"], True, [])
    entry = entry_of(PLAIN.replace(b"sender: alice@example.net\n", b""))
    assert (entry.problems, entry.damaged) == (["it lacks sender"], True)
    assert "7.5" in entry.read_by  # no release asks for a sender
    entry = entry_of(PLAIN.replace(b"dispatcher: local\n", b""))
    assert entry.problems == ["no release reads it: it has no dispatcher"]
    assert (entry.damaged, entry.read_by) == (False, [])


@pytest.mark.parametrize(
    "octets",
    [b"", b"hello\n", b"version: 3\n", b"\xff" * 100, b"x" * 70_000, b"tag: 1\n"],
)
def test_strays_that_are_no_envelopes(octets: bytes) -> None:
    assert reason_of(octets, "stray") == "a file that does not belong to a spool"


def test_stray_that_is_an_envelope() -> None:
    assert entry_of(PLAIN, "stray").envelope.rcpt == "bob@example.org"


def test_submissions_become_an_entry_for_each_recipient() -> None:
    item = Item("offline", "offline/1700000007.XyZ", "offline", 0, b"-f|a@b|c@d|root\n\ntext\n")
    entries = list(read_entries(item, nobody))
    assert all(isinstance(entry, Entry) for entry in entries)
    rows = [
        (e.envelope.sender, e.envelope.rcpt, e.envelope.dest, e.envelope.ctime, e.envelope.family)
        for e in entries
        if isinstance(e, Entry)
    ]
    assert rows == [
        ("a@b", "c@d", "c@d", 1700000007, "local"),
        ("a@b", "root@", "root@", 1700000007, "local"),
    ]


def test_submission_without_a_time_in_its_name() -> None:
    item = Item("offline", "offline/saved", "offline", 0, b"a@b\n")
    item.mtime = STAMP
    (entry,) = read_entries(item, nobody)
    assert isinstance(entry, Entry)
    assert (entry.envelope.ctime, entry.envelope.sender) == (STAMP, "@")


def test_submission_without_recipients() -> None:
    (entry,) = read_entries(
        Item("offline", "offline/1.x", "offline", 0, b"-t\nSubject: x\n"), nobody
    )
    assert isinstance(entry, Entry)
    assert entry.problems == ["it names no recipient: its submission will fail"]
    (unreadable,) = read_entries(Item("offline", "offline/1.x", "offline", 0, b""), nobody)
    assert isinstance(unreadable, Unreadable)
    assert "the file is empty" in unreadable.reason


@pytest.mark.parametrize(("count", "told"), [(1000, 0), (1001, 1)])
def test_submission_to_very_many(count: int, told: int) -> None:
    octets = b"|".join([b"a@b"] * count) + b"\n"
    entries = list(read_entries(Item("offline", "offline/1.x", "offline", 0, octets), nobody))
    assert len(entries) == 1000
    problems = [problem for e in entries if isinstance(e, Entry) for problem in e.problems]
    assert problems == ["only its first 1000 recipients are shown"] * told


@pytest.mark.parametrize(
    ("bucket", "what"),
    [("temporary", "a message in reception; its envelopes are in incoming"),
     ("incoming", "a message without envelopes")],
)  # fmt: skip
def test_bodies(bucket: str, what: str) -> None:
    item = Item("body", "a/path", bucket, 0x11223344 << 32, b"")
    item.mtime = STAMP
    (entry,) = read_entries(item, nobody)
    assert isinstance(entry, Entry)
    assert (entry.envelope.errorline, entry.envelope.type, entry.envelope.ctime) == (
        what,
        "?",
        STAMP,
    )
    assert (entry.problems, entry.read_by) == ([], [])
