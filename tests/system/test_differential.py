"""Our listing against the original's, line by line, over envelopes as strange as it still reads.

What the original lists, we list identically. What it passes over, we list with a note, or say why
we cannot; unless another release reads it. Needs root and OpenSMTPD 6.8, as Debian packs it; what
was learnt from it stands in _LEARNT and is checked everywhere.
"""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests import running
from tests.system import envelopes, original

if TYPE_CHECKING:
    import pathlib

_FILES = 2000
_READ_MAX = 7567  # octets; the original's listing takes the beginning of a longer file for all
_RELEASE = "6.7"  # whose form is that of 6.8

# An envelope that 6.8 reads, and in which each line of _LEARNT replaces the one of its name.
_BASE = {
    "version": "3",
    "dispatcher": "d",
    "type": "mta",
    "helo": "h",
    "hostname": "h",
    "sender": "a@b",
    "rcpt": "c@d",
    "dest": "e@f",
    "ctime": "7",
}
_LEARNT = (  # (a line, what 6.8 lists behind the id, None when it passes over the file)
    ("type: MDA", "?|mda||a@b|c@d|e@f|7|7|0|0|offline||"),
    ("type: Bounce", "?|bounce||a@b|c@d|e@f|7|7|0|0|offline||"),
    ("type: bounces", None),
    ("type:", None),
    ("bounce-type: FAILED", "?|mta||a@b|c@d|e@f|7|7|0|0|offline||"),
    ("bounce-type: Warn", "?|mta||a@b|c@d|e@f|7|7|0|0|offline||"),
    ("bounce-type: lost", None),
    ("dsn-ret: full", "?|mta||a@b|c@d|e@f|7|7|0|0|offline||"),
    ("dsn-ret: half", None),
    ("ctime: +" + "0" * 90 + "5", "?|mta||a@b|c@d|e@f|5|5|0|0|offline||"),
    ("ctime: -0", "?|mta||a@b|c@d|e@f|0|0|0|0|offline||"),
    ("ctime: -" + "0" * 90 + "1", None),
    ("ctime: " + "9" * 5000, None),
    ("ctime: 9223372036854775808", None),
    ("retry: " + "0" * 50 + "65535", "?|mta||a@b|c@d|e@f|7|7|0|65535|offline||"),
    ("msgid: 1", None),
    ("sockaddr: ipv6:2001:DB8::1", "inet6|mta||a@b|c@d|e@f|7|7|0|0|offline||"),
    ("sockaddr: [::ffff:192.0.2.1]", "inet6|mta||a@b|c@d|e@f|7|7|0|0|offline||"),
    ("sockaddr: 010.0.0.1", None),
    ("sockaddr: 10.1", None),
    ("sockaddr: LOCAL", None),
    ("flags: BOUNCE|enqueued,Authenticated", "?|mta|bounce,auth|a@b|c@d|e@f|7|7|0|0|offline||"),
    ("flags: bounce, internal", None),
    ("rcpt: x|y", "?|mta||a@b|x|y@|e@f|7|7|0|0|offline||"),
    ("errorline: \\\xa0", "?|mta||a@b|c@d|e@f|7|7|0|0|offline||\\\\\\240"),
)

# Words that both programs know, or both refuse. Left out is what only we accept: `sh s`, a list
# of possibilities that older releases have words in, and `show queue` with an envelope id.
_VECTORS = (
    "pa m",
    "pause",
    "pause x",
    "pause envelope",
    "pause envelope 0000000000000000",
    "pause mta from",
    "pause mta from 192.0.2.1",
    "pause mta from 192.0.2 for x",
    "pause mta from ::1%nosuchlink for x",
    "resume",
    "resume envelope 12345",
    "resume route",
    "resume route 0",
    "resume route 9223372036854775808",
    "resume route x",
    "log",
    "log bri x",
    "log b x",
    "monitor x",
    "discover",
    "discover 00000000",
    "discover 1a2b3c4",
    "discover zzzzzzzz",
    "remove",
    "remove x",
    "schedule -1",
    "show mta",
    "show mta x",
    "show envelope",
    "show envelope 1a2b3c4d",
    "show envelope 1a2b3c4d5e6f708g",
    "show envelope 1a2b3c4d5e6f7081 x",
    "show message",
    "show message -0000001",
    "show message 1a2b3c4d5e6f70811",
    "show message 1a2b3c4d x",
    "show queue 11111111 extra",
    "profile",
    "trace",
    "untrace",
    "unprofile",
    "update",
    "update table",
    "spf",
    "spf w x",
    "encrypt a b",
    # Accepted, or accepted until the daemon is missing.
    "pause mda",
    "pause envelope all",
    "pause mta from 192.0.2.1 for example.org",
    "resume envelope 0x1a2b3c4d5e6f78",
    "resume route 1",
    "log br",
    "mo",
    "disc 1a2b3c4d",
    "rem all",
    "sched +1234567",
    "show mt p",
    "show stats",
    "sh ro",
    "show hostst",
    "trace imsg",
    "trace nonsense",
    "untrace nonsense",
    "profile queue",
    "profile nonsense",
    "unprofile nonsense",
    "update table x",
)


@pytest.fixture(scope="session")
def _original() -> None:
    """Skip what needs the original where it is not; where all is tested, that is a failure."""
    reason = original.why_not()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(f"nothing may be skipped here, but {reason}")
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def spool(_original: None, tmp_path: pathlib.Path) -> pathlib.Path:
    return original.make_spool(tmp_path / "spool")


def _lines(listing: bytes) -> list[bytes]:
    """Split at line ends alone; a value may hold whatever else some call a line end."""
    lines = listing.split(b"\n")
    assert lines.pop() == b""
    return lines


def _by_id(listing: bytes) -> dict[int, bytes]:
    lines = _lines(listing)
    found = {int(line[:16], 16): line for line in lines}
    assert len(found) == len(lines)
    return found


def _facts(spool: pathlib.Path) -> dict[int, dict[str, Any]]:
    listing = running.start("show", "queue", "--spool", spool, "--format", "json").out
    return {int(facts["evpid"], 16): facts for facts in map(json.loads, listing.splitlines())}


def _named(warnings: list[str], evpid: int) -> list[str]:
    return [line for line in warnings if f"/{evpid:016x}:" in line]


def _passed_by_loader_alone(facts: dict[str, Any]) -> bool:
    """Tell what a daemon would refuse although its loader, and so its listing, does not."""
    return not (facts["helo"] and facts["hostname"] and facts["dispatcher"])


def _spelled_in_two_ways(octets: bytes) -> bool:
    """Tell whether a name stands there in two letter cases; of such we judge the last alone."""
    names = {line.partition(b":")[0].rstrip(envelopes.SPACE) for line in octets.split(b"\n")}
    return len({name.lower() for name in names}) < len(names)


@pytest.mark.system
def test_any_envelopes_are_listed_alike(spool: pathlib.Path) -> None:
    samples = envelopes.many(_FILES)
    stored = original.fill(spool, [sample.octets for sample in samples])
    valid = {evpid for evpid, sample in zip(stored, samples) if sample.valid}
    theirs = original.run(spool, "show", "queue")
    assert theirs.status == 0
    assert b"must be" not in theirs.err  # it found its directories as it wants them
    listed = _by_id(theirs.out)
    ours = running.start("show", "queue", "--spool", spool)
    our_lines, facts = _by_id(ours.out), _facts(spool)
    warnings = ours.warnings
    noted = {evpid for evpid in stored if _named(warnings, evpid)}
    assert ours.status == (1 if noted else 0)
    for evpid, octets in stored.items():
        if len(octets) > _READ_MAX:
            assert evpid in noted, octets
        elif evpid in listed:
            assert our_lines[evpid] == listed[evpid], octets
            reads = _RELEASE in facts[evpid]["read_by"]
            assert reads or _passed_by_loader_alone(facts[evpid]), (octets, facts[evpid])
        else:
            assert evpid not in valid, octets
            read_by = facts[evpid]["read_by"] if evpid in facts else []
            assert _RELEASE not in read_by or _spelled_in_two_ways(octets), octets
            assert read_by or evpid in noted, octets
    fine = sorted(valid - {evpid for evpid in valid if _passed_by_loader_alone(facts[evpid])})
    assert len(fine) > _FILES // 3
    assert not noted.intersection(fine)
    assert [our_lines[evpid] for evpid in fine] == [listed[evpid] for evpid in fine]


def _learnt_files() -> list[bytes]:
    files = []
    for line, _ in _LEARNT:
        name, _, value = line.partition(":")
        lines = {**_BASE, name: value.lstrip()}
        files.append("".join(f"{key}: {lines[key]}\n" for key in lines).encode("latin-1"))
    return files


def _learnt_lines(stored: dict[int, bytes]) -> dict[int, bytes]:
    return {
        evpid: f"{evpid:016x}|{listed}".encode()
        for evpid, (_, listed) in zip(stored, _LEARNT)
        if listed is not None
    }


def test_what_was_learnt_is_kept(tmp_path: pathlib.Path) -> None:
    stored = original.fill(tmp_path, _learnt_files())
    found = running.run("show", "queue", "--spool", tmp_path)
    wanted = _learnt_lines(stored)
    listed = _by_id(found.out)
    for evpid, octets in stored.items():
        if evpid in wanted:
            assert listed[evpid] == wanted[evpid], octets
            assert not _named(found.warnings, evpid), octets
        else:
            assert _named(found.warnings, evpid), octets


@pytest.mark.system
def test_what_was_learnt_is_what_the_original_does(spool: pathlib.Path) -> None:
    stored = original.fill(spool, _learnt_files())
    assert _by_id(original.run(spool, "show", "queue").out) == _learnt_lines(stored)


@pytest.mark.system
def test_odd_trees(spool: pathlib.Path) -> None:
    files = [sample.octets for sample in envelopes.many(40) if sample.valid]
    stored = original.fill(spool, files[:8])
    queue = spool / "queue"
    for name in ("00", "zz", "01/01000000/deeper", "ff/not-a-message"):
        (queue / name).mkdir(parents=True)
    for name in ("README", "abc", "01/1", "01/01000000/message.old", "ff/not-a-message/0"):
        (queue / name).write_bytes(files[0])
    (queue / "01/01000000/ABCDEF0000000001").write_bytes(files[0])
    (queue / "zz/feedface00000001").symlink_to("/etc/passwd")
    (queue / "ff/feedface").mkdir()
    os.mkfifo(queue / "ff/feedface/feedface00000002")
    listed = _by_id(original.run(spool, "show", "queue").out)
    assert set(listed) == set(stored)
    ours = running.run("show", "queue", "--spool", spool)
    assert ours.status == 1
    assert set(listed.values()) <= set(_lines(ours.out))


@pytest.mark.system
@pytest.mark.usefixtures("_original")
@pytest.mark.parametrize("names", [[], ["incoming"], ["queue"]])
def test_without_a_queue(tmp_path: pathlib.Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    theirs = original.run(tmp_path, "show", "queue")
    assert (theirs.status, theirs.out) == (0, b"")
    ours = running.run("show", "queue", "--spool", tmp_path)
    # An empty directory is no spool: nothing was read, and that is worth saying.
    assert (ours.status, ours.out) == (0 if names else 1, b"")


@pytest.mark.system
def test_show_envelope_and_message(spool: pathlib.Path) -> None:
    files = [sample.octets for sample in envelopes.many(12)]
    files += [gzip.compress(files[0]), gzip.compress(b""), b""]
    stored = original.fill(spool, files)
    bodies = [b"Subject: x\r\n\n\0\xff\n", gzip.compress(b"A: b\n\n" * 9000), b"", b"\x1f"]
    for number, body in enumerate(bodies):
        directory = sorted(spool.glob("queue/*/*"))[number]
        (directory / "message").write_bytes(body)
    commands = [("show", "envelope", f"{evpid:016x}") for evpid in stored]
    commands += [("show", "message", f"{evpid:016X}") for evpid in stored]
    commands += [("show", "message", f"{evpid >> 32:08x}") for evpid in stored]
    commands += [
        ("show", "envelope", "00000000000000ff"),
        ("show", "envelope", "0x01000000000001"),
        ("show", "envelope", "+1000000000000001"[:16]),
        ("show", "message", "0000ffff"),
        ("show", "message", "01000000ffffffff"),
        ("show", "message", "+1000000"),
    ]
    for words, theirs in zip(commands, original.run_all(spool, commands)):
        ours = running.run(*words, "--spool", spool)
        assert ours.status == theirs.status, (words, theirs, ours)
        assert ours.out == theirs.out, words
        assert bool(ours.err) == bool(theirs.err), (words, ours, theirs)


@pytest.mark.system
def test_grammar(spool: pathlib.Path) -> None:
    commands = [line.split(" ") for line in _VECTORS]
    for words, theirs in zip(commands, original.run_all(spool, commands)):
        assert running.run(*words) == theirs, words


@pytest.mark.system
def test_lists_with_words_of_older_releases(spool: pathlib.Path) -> None:
    """The lists differ by exactly the commands that only older releases have, and ours."""
    old = [b"stop", b"uncorrupt"]
    lines = {
        "": old,
        "LOG brief": old,
        "s": old,
        "show m": [b"show sizes"],
        "show queue x": [b"show queue <evpid>"],
    }
    commands = [line.split() for line in lines]
    for words, more, theirs in zip(commands, lines.values(), original.run_all(spool, commands)):
        ours = running.run(*words)
        assert (ours.status, ours.out) == (theirs.status, theirs.out) == (255, b"")
        assert sorted(ours.err.splitlines()) == sorted([*theirs.err.splitlines(), *more])
