"""What the original's own smtpctl printed about real spools, and what ours prints.

Offline listings of the original are in the order of the file system: they are compared as sets.
"""

from __future__ import annotations

import collections
import functools
import itertools
import os
import pathlib
import pty
import re
import select
import subprocess
import tempfile
from typing import TYPE_CHECKING, Optional

import pytest

from tests import golden, running

if TYPE_CHECKING:
    from collections.abc import Iterator

SPOOLS = [
    (version, name)
    for version in golden.VERSIONS
    for name in golden.names(version)
    if not name.startswith(("corrupt", "errors", "offline"))
]
OFFLINE = [(version, f"offline-{n}") for version in golden.VERSIONS for n in (1, 2)]
WRITERS = {"5.7.3": 2, "6.8": 3, "7.8": 3}  # the format each version writes


@pytest.fixture(scope="module")
def directory() -> Iterator[pathlib.Path]:
    """Give a directory for thousands of small files: in memory, where there is one."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield pathlib.Path(name)


def extract(stored: golden.Stored, directory: pathlib.Path) -> pathlib.Path:
    below = directory / stored.tar.relative_to(golden.SPOOLS).with_suffix("").with_suffix("")
    below.mkdir(parents=True, exist_ok=True)
    return stored.extract(below)


def key_options(key: Optional[str], directory: pathlib.Path) -> list[object]:
    """Put a key into a file, and give the option that names it."""
    if key is None:
        return []
    path = directory / "key"
    path.write_text(key + "\n")
    return ["--key-file", path]


def listed(evpid: str, plain: bytes) -> bytes:
    """Make the line of one undamaged envelope from its text, without our code."""
    lines = [line.partition(b": ") for line in plain.splitlines()]
    values = {name.decode(): value for name, _, value in lines}
    sockaddr = values.get("sockaddr", b"")
    source = b"inet6" if sockaddr[:1] == b"[" or b"IPv6:" in sockaddr else b"inet4"
    if sockaddr in (b"", b"local"):
        source = sockaddr or b"?"
    flags = values.get("flags", b"").split()
    names = [(b"bounce", b"bounce"), (b"authenticated", b"auth"), (b"internal", b"internal")]
    ctime = int(values["ctime"])
    lifetime = int(values.get("ttl") or values["expire"])
    return b"|".join(
        [
            evpid.encode(),
            source,
            values["type"],
            b",".join(shown for name, shown in names if name in flags),
            *(values[name] for name in ("sender", "rcpt", "dest")),
            b"%d|%d" % (ctime, ctime + lifetime),
            values["last-try"],
            values["retry"],
            b"offline|",
            values.get("errorline", b"").replace(b"\\", b"\\\\"),
        ]
    )


def lines_of(printed: golden.Printed) -> list[bytes]:
    """Give the lines that are known of an output."""
    return printed.head.splitlines()


@functools.lru_cache(maxsize=4)
def load(version: str, name: str) -> golden.Golden:
    return golden.load(version, name)


@pytest.mark.parametrize(("version", "name"), SPOOLS)
def test_show_queue(version: str, name: str, directory: pathlib.Path) -> None:
    said = load(version, name)
    spool = extract(said.stored, directory)
    key = key_options(said.key, directory)
    ours = running.run("show", "queue", "--spool", spool, *key)
    assert (ours.status, ours.err) == (0, b"")
    assert ours.lines == sorted(ours.lines)
    assert [line[:16].decode() for line in ours.lines] == sorted(said.stored.envelopes)
    for command in said.commands("offline"):
        if command.words[:2] != ("show", "queue"):
            continue
        theirs = lines_of(command.printed)
        if command.printed.octets is None:  # only the beginning is known, and the length
            assert command.printed.length == len(ours.out)
            assert set(theirs[:-1]) < set(ours.lines)
        elif not command.said:
            assert sorted(theirs) == ours.lines
        else:  # compressed or encrypted: it lists nothing
            assert theirs == []
        if len(command.words) == 3:  # it ignores the id, and lists everything
            one = running.run("show", "queue", command.words[2], "--spool", spool, *key)
            wanted = command.words[2].encode()
            assert one.lines == [line for line in ours.lines if line.startswith(wanted)]
            assert (one.status, one.err) == (0, b"")


@pytest.mark.parametrize(("version", "name"), SPOOLS)
def test_archive_is_listed_as_its_directory(
    version: str, name: str, directory: pathlib.Path
) -> None:
    said = load(version, name)
    key = key_options(said.key, directory)
    options = ["show", "queue", "--all", *key, "--spool"]
    assert running.run(*options, said.stored.tar) == running.run(
        *options, extract(said.stored, directory)
    )


@pytest.mark.parametrize(("version", "name"), SPOOLS)
def test_show_envelope_and_message(version: str, name: str, directory: pathlib.Path) -> None:
    said = load(version, name)
    spool = extract(said.stored, directory)
    key = key_options(said.key, directory)
    listing = running.run("show", "queue", "--spool", spool, *key).lines
    shown = 0
    commands = [(command, b"") for command in said.commands("offline")]
    commands += [(command, b"key> \n") for command in said.commands("offline_with_key_typed")]
    for command, prompt in commands:
        if command.words[1] not in ("envelope", "message") or command.status != 0:
            continue  # nobody typed the key, or it was not the right one
        ours = running.run(*command.words, "--spool", spool, *key)
        assert (ours.status, ours.err) == (0, b"")
        assert command.printed.matches(prompt + ours.out), command.words
        shown += 1
        if shown % 9 == 1:
            archived = running.run(*command.words, "--spool", said.stored.tar, *key)
            assert archived == ours
        if command.words[1] == "envelope":
            line = listed(command.words[2], ours.out)
            assert line in listing or not line.isascii() or not line.decode().isprintable()
    assert shown


@pytest.mark.parametrize(("version", "name"), SPOOLS)
def test_online_listing_has_the_same_fields(
    version: str, name: str, directory: pathlib.Path
) -> None:
    said = load(version, name)
    key = key_options(said.key, directory)
    spool = extract(said.stored, directory)
    ours = {line[:16]: line for line in running.run("show", "queue", "--spool", spool, *key).lines}
    listings = [
        command.printed
        for command in said.commands("online")
        if command.words == ("show", "queue") and command.printed.octets is not None
    ]
    lines = lines_of(listings[-1]) if listings else []
    compared = 0
    for line in lines:
        if line[:16] in ours:
            assert steady(line) == steady(ours[line[:16]])
            compared += 1
    assert compared or not lines


def steady(line: bytes) -> list[bytes]:
    """Give the fields that are the same online: not times and number of tries, nor the state."""
    fields = line.split(b"|", 13)
    flags = [flag for flag in fields[3].split(b",") if flag not in (b"suspend", b"hold")]
    return [*fields[:3], b",".join(flags), *fields[4:9]]


# --- spools damaged in one way each

ENVELOPE = r"queue/[0-9a-f]{2}/[0-9a-f]{8}/[0-9a-f]{16}"
ODD_NAME = r"queue/[0-9a-f]{2}/[0-9a-f]{8}/[0-9A-Za-z]{15,16}"
MESSAGE = r"queue/[0-9a-f]{2}/[0-9a-f]{8}/message"
NOTHING: tuple[tuple[str, str], ...] = ()
DIGITS = "16 lower case hexadecimal digits"
CUT_GZIP = "the gzip data ends too early: the file was cut"
WRONG_TAG = "the queue key is wrong, or the file was damaged or cut"

# Damage -> how many envelopes are not listed, and what is said: a pattern of the path, part of
# the reason, in their order. A line that begins so was listed all the same. Where something is
# said the exit status is 1, elsewhere 0.
DAMAGES: dict[str, tuple[int, tuple[tuple[str, str], ...]]] = {
    "empty-envelope": (1, ((ENVELOPE, "the file is empty"),)),
    "half-envelope": (
        0,
        (
            (ENVELOPE, "listed, but the last line has no line end: the file may be cut"),
            (ENVELOPE, "listed, but it lacks rcpt, dest, ctime"),
        ),
    ),
    "cut-at-line": (0, ((ENVELOPE, "listed, but it lacks sender, rcpt, dest, ctime"),)),
    "no-final-newline": (0, ((ENVELOPE, "listed, but the last line has no line end"),)),
    "no-version": (0, ((ENVELOPE, "listed, but it has no version"),)),
    "version-1": (0, ((ENVELOPE, "listed, but no release reads it: 5.7 does not know the field"),)),
    "version-2": (0, ((ENVELOPE, "does not know the field"),)),
    "version-99": (0, ((ENVELOPE, "field version: '99' is not between 0 and 64"),)),
    "version-text": (0, ((ENVELOPE, "field version: 'abc' is not a number"),)),
    "version-twice": (0, ((ENVELOPE, "no release reads it: there is no format 7"),)),
    "unknown-field": (0, ((ENVELOPE, "field x-custom is of no known release"),)),
    "unknown-type": (0, ((ENVELOPE, "field type: 'pigeon' is not one of mda, mta, bounce"),)),
    "no-type": (0, ((ENVELOPE, "it lacks type"),)),
    "no-sender": (0, ((ENVELOPE, "it lacks sender"),)),
    "no-rcpt-dest": (0, ((ENVELOPE, "it lacks rcpt, dest"),)),
    "empty-sender-value": (0, NOTHING),
    "sender-no-at": (0, NOTHING),
    "bad-ctime": (0, ((ENVELOPE, "field ctime: 'yesterday' is not a number"),)),
    "negative-ctime": (0, ((ENVELOPE, "field ctime: '-5' is not between 0 and"),)),
    "future-ctime": (0, NOTHING),
    "old-ctime": (0, NOTHING),
    "huge-retry": (0, ((ENVELOPE, "field retry: '65536' is not between 0 and 65535"),)),
    "retry-max": (0, NOTHING),
    "bad-expiry": (0, ((ENVELOPE, ": 'soon' is not a number"),)),
    "bad-sockaddr": (0, ((ENVELOPE, "field sockaddr: '999.1.1.1' is not a client address"),)),
    "sockaddr-v6-prefix": (0, NOTHING),
    "sockaddr-brackets": (0, NOTHING),
    "bad-flags": (0, ((ENVELOPE, "field flags: unknown flag 'sparkling'"),)),
    "flags-mix": (0, NOTHING),
    "garbage": (1, ((ENVELOPE, "nothing in it is a field of an envelope"),)),
    "nul-inside": (0, ((ENVELOPE, "it contains NUL octets"),)),
    "bit-flip": (0, ((ENVELOPE, "is not `name: value`"), (ENVELOPE, "it lacks type"))),
    "no-colon": (0, ((ENVELOPE, "line 1 is not `name: value`"),)),
    "space-before-colon": (0, NOTHING),
    "upper-case-keys": (0, NOTHING),
    "crlf": (0, ((ENVELOPE, "its lines end in CR LF"),)),
    "blank-line": (0, ((ENVELOPE, "it contains an empty line"),)),
    "too-large": (0, ((ENVELOPE, "field errorline: longer than 2047 octets"),)),
    "long-value": (0, ((ENVELOPE, "field helo: longer than 255 octets"),)),
    "message-missing": (0, ((MESSAGE, "the message of these envelopes is missing"),)),
    "message-empty": (0, ((MESSAGE, "the message of these envelopes is empty"),)),
    "message-cut": (0, NOTHING),
    "message-garbage": (0, NOTHING),
    "message-only": (0, ((MESSAGE, "octets without any envelope"),)),
    "empty-dir": (0, NOTHING),
    "wrong-dir": (
        0,
        (
            (MESSAGE, "octets without any envelope"),
            (ENVELOPE, "listed, but it is in the directory of another message"),
        ),
    ),
    "wrong-bucket": (0, (("queue/zz", "a directory that does not belong to a spool"),)),
    "short-name": (-1, ((ODD_NAME, f"its name is not an envelope id ({DIGITS})"),)),
    "upper-name": (0, ((ODD_NAME, f"its name is not an envelope id ({DIGITS})"),)),
    "nonhex-name": (0, ((ODD_NAME, f"its name is not an envelope id ({DIGITS})"),)),
    "extra-files": (
        0,
        (
            (r"queue/[0-9a-f]{2}/[0-9a-f]{8}/core", "a file that does not belong to a spool"),
            (r"queue/[0-9a-f]{2}/[0-9a-f]{8}/message.bak", "a file that does not belong"),
            ("queue/stray", "a file that does not belong to a spool"),
        ),
    ),
    "mode-000": (0, NOTHING),  # to root; see below
    "wrong-owner": (0, NOTHING),
    "symlink": (0, ((ENVELOPE, "a symbolic link: not followed"),)),
    "queue-mode": (0, NOTHING),
    "no-incoming": (0, NOTHING),
    "gz-truncated": (0, ((ENVELOPE, f"listed, but {CUT_GZIP}"),)),
    "gz-flip": (0, ((ENVELOPE, "listed, but the gzip data is damaged: its checksum"),)),
    "gz-plain": (0, NOTHING),
    "gz-trailing": (0, NOTHING),
    "gz-header-only": (1, ((ENVELOPE, CUT_GZIP),)),
    "gz-message-cut": (0, NOTHING),
    "gz-message-flip": (0, NOTHING),
    "enc-tag": (1, ((ENVELOPE, WRONG_TAG),)),
    "enc-cut": (1, ((ENVELOPE, WRONG_TAG),)),
    "enc-version": (1, ((ENVELOPE, "nothing in it is a field of an envelope"),)),
    "enc-short": (1, ((ENVELOPE, "an encrypted one has at least 29 octets, this one has 10"),)),
    "enc-message-flip": (0, NOTHING),
    "enc-message-cut": (0, NOTHING),
    "m-wrong-key": (0, NOTHING),
    "m-no-key": (0, NOTHING),
    "m-no-compression": (0, NOTHING),
    "m-plain-read-compressed": (0, NOTHING),
    "m-plain-read-encrypted": (0, NOTHING),
}
# The same where a version differs: format 2 is what 5.7.3 writes.
DIFFERENT: dict[tuple[str, str], tuple[int, tuple[tuple[str, str], ...]]] = {
    ("7.8", "half-envelope"): (
        0,
        (
            (ENVELOPE, "listed, but the last line has no line end: the file may be cut"),
            (ENVELOPE, "listed, but field sockaddr: '192.0.2' is not a client address"),
            (ENVELOPE, "listed, but it lacks sender, rcpt, dest, ctime"),
        ),
    ),
    ("5.7.3", "version-1"): (0, NOTHING),  # it reads that one too
    ("5.7.3", "sockaddr-brackets"): (
        0,
        ((ENVELOPE, "no release reads it: 6.0.3 does not read an IPv6 address in brackets"),),
    ),
}

# Bodies that are damaged: what show message says of them.
BODIES = {
    "gz-message-cut": CUT_GZIP,
    "gz-message-flip": "the gzip data is damaged",
    "enc-message-flip": WRONG_TAG,
    "enc-message-cut": WRONG_TAG,
    "message-missing": "no such message in",
    "empty-dir": "no such message in",
}

COLLECTIONS = [(version, f"corrupt-{n}") for version in golden.VERSIONS for n in (1, 2)]
CASES = [case for version, name in COLLECTIONS for case in golden.cases(version, name)]


def case_id(case: golden.Case) -> str:
    return f"{case.golden.version}-{case.golden.name}-{case.name}"


def test_every_damaged_spool_is_a_case() -> None:
    tars = {path for v, n in COLLECTIONS for path in (golden.SPOOLS / v / n).glob("*.tar.gz")}
    intact = {path for path in tars if path.name == "00-intact.tar.gz"}
    assert {case.stored.tar for case in CASES} == tars - intact
    assert {case.damage for case in CASES} == set(DAMAGES)


@pytest.mark.parametrize(("version", "name"), COLLECTIONS)
def test_spool_before_it_was_damaged(version: str, name: str, directory: pathlib.Path) -> None:
    tar = golden.SPOOLS / version / name / "00-intact.tar.gz"
    if tar.exists():
        spool = extract(golden.Stored(tar), directory)
        ours = running.run("show", "queue", "--all", "--spool", spool)
        assert (ours.status, ours.err, len(ours.lines)) == (0, b"", 4)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_damaged_spool(case: golden.Case, directory: pathlib.Path) -> None:
    spool = extract(case.stored, directory)
    key = key_options(case.golden.key, directory)
    lost, said = DIFFERENT.get((case.golden.version, case.damage), DAMAGES[case.damage])
    if case.damage == "mode-000" and os.getuid():
        lost, said = 1, ((ENVELOPE, "Permission denied"),)
    ours = running.run("show", "queue", "--spool", spool, *key)
    assert ours.status == (1 if said else 0)
    for warning, (path, reason) in itertools.zip_longest(ours.warnings, said, fillvalue=("", "")):
        assert isinstance(warning, str), f"unexpected or missing: {path}: {reason}"
        where, _, why = warning[len(str(spool)) + 1 :].partition(": ")
        assert re.fullmatch(path, where), warning
        assert reason in why
    assert len(ours.lines) == len(case.stored.envelopes) - lost
    theirs = next(run.printed for run in case.commands if run.words == ("show", "queue"))
    assert set(lines_of(theirs)) <= set(ours.lines)
    for line in set(ours.lines).difference(lines_of(theirs)):
        plain = case.stored.envelopes.get(line[:16].decode(), b"")
        if plain.startswith(b"version: ") and not said:  # what the original could not list
            assert line == listed(line[:16].decode(), plain)
    archived = running.run("show", "queue", "--spool", case.stored.tar, *key)
    assert archived._replace(err=b"") == ours._replace(err=b"")
    assert [
        line.replace(f"{case.stored.tar}: smtpd", str(spool)) for line in archived.warnings
    ] == (ours.warnings)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_objects_of_damaged_spool(case: golden.Case, directory: pathlib.Path) -> None:
    spool = extract(case.stored, directory)
    key = key_options(case.golden.key, directory)
    for command in case.commands:
        if command.words[1] == "queue":
            continue
        ours = running.run(*command.words, "--spool", spool, *key)
        assert ours.status in (0, 1)
        assert ours.out or ours.err or command.printed.octets == b""
        assert (ours.status == 0) == (ours.err == b"") or b"daemons pass it over" in ours.err
        if command.status == 0 and ours.status == 0:
            assert command.printed.matches(ours.out)
        elif command.status == 0 and (case.damage, command.words[1]) in REFUSED:
            assert REFUSED[case.damage, command.words[1]] in ours.warnings[-1]
        elif command.status == 0:  # it shows what it has, and says what is wrong
            assert command.printed.matches(ours.out)
        elif "key>" not in command.said:  # what it printed before it found the damage, and more
            assert ours.out.startswith(command.printed.octets or b"")
        if ours.status and command.words[1] == "message":
            assert BODIES[case.damage] in ours.warnings[-1]


# What the original shows because it does not look at it.
REFUSED = {("symlink", "envelope"): "a symbolic link: not followed"}


def own_copy(stored: golden.Stored, directory: pathlib.Path) -> pathlib.Path:
    """Unpack a spool where another user can read it: one who owns it, but not root."""
    directory.chmod(0o755)
    spool = stored.extract(directory)
    if os.getuid() == 0:
        for path in [spool, *spool.rglob("*")]:
            os.chown(path, running.NOBODY, running.NOBODY, follow_symlinks=False)
    return spool


@pytest.fixture
def open_directory() -> Iterator[pathlib.Path]:
    """Give a directory that every user can pass through, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


@pytest.mark.parametrize("version", golden.VERSIONS)
def test_envelope_without_permissions_to_an_ordinary_user(
    version: str, open_directory: pathlib.Path
) -> None:
    case = next(
        case for case in CASES if (case.golden.version, case.damage) == (version, "mode-000")
    )
    spool = own_copy(case.stored, open_directory)

    def look() -> bytes:
        ours = running.run("show", "queue", "--spool", spool)
        assert (ours.status, len(ours.lines), len(ours.warnings)) == (1, 3, 1)
        return ours.err

    said = running.in_child(look, running.NOBODY).decode()
    assert re.fullmatch(f"smtpctl: {spool}/{ENVELOPE}: Permission denied\n", said)


def test_queue_without_permissions_to_an_ordinary_user(open_directory: pathlib.Path) -> None:
    spool = own_copy(golden.load("6.8", "local-1").stored, open_directory)
    (spool / "queue").chmod(0)

    def look() -> bytes:
        ours = running.run("show", "queue", "--spool", spool)
        assert (ours.status, ours.out) == (1, b"")
        return ours.err

    said = running.in_child(look, running.NOBODY).decode()
    assert said == f"smtpctl: {spool}/queue: Permission denied\n"
    (spool / "queue").chmod(0o700)


# --- what lies outside of queue/


@pytest.mark.parametrize("part", ["down", "crash", "purge"])
@pytest.mark.parametrize(("version", "name"), OFFLINE)
def test_all_parts_of_a_spool(version: str, name: str, part: str, directory: pathlib.Path) -> None:
    said = load(version, name)
    stored = golden.Stored(golden.SPOOLS / version / f"{name}-{part}.tar.gz")
    spool = extract(stored, directory)
    queue = running.run("show", "queue", "--spool", spool)
    theirs = golden.read_commands(said.content[part]["commands"], stored)
    listing = next(command.printed for command in theirs if command.words == ("show", "queue"))
    assert (queue.status, queue.lines) == (0, sorted(lines_of(listing)))
    ours = running.run("show", "queue", "--all", "--spool", spool)
    assert ours == running.run("show", "queue", "--all", "--spool", stored.tar)._replace(
        err=ours.err
    )
    rows = [line.split(b"|") for line in ours.lines]
    found = collections.Counter((row[11].decode(), row[0].decode()) for row in rows)
    empty = 0
    for path, octets in stored.files.items():
        parts = path.split("/")
        evpid = parts[-1] if len(parts[-1]) == 16 else f"{parts[-1]:0<16}"
        state = "offline" if parts[1] == "queue" else parts[1]
        if parts[1] == "offline":
            empty += not octets
        elif parts[-1] != "message":
            assert found[state, evpid] == 1, path
    assert len(ours.warnings) == empty
    assert all("the file is empty" in warning for warning in ours.warnings)
    assert ours.status == (1 if empty else 0)


@pytest.mark.parametrize(("version", "name"), OFFLINE)
def test_mail_handed_in_while_the_daemon_was_down(
    version: str, name: str, directory: pathlib.Path
) -> None:
    stored = golden.Stored(golden.SPOOLS / version / f"{name}-down.tar.gz")
    ours = running.run(
        "show", "queue", "--bucket", "offline", "--spool", extract(stored, directory)
    )
    rows = [line.split(b"|") for line in ours.lines]
    listed_now = sorted((row[4].decode(), row[5].decode()) for row in rows)
    wanted = []
    for run in load(version, name).content["enqueued"]:
        words = run["argv"][1:]
        sender = words[words.index("-f") + 1] if "-f" in words else "@"
        recipients = [word for word in words[-2:] if "@" in word or word == "root"]
        if words == ["-t"] and run["rc"] == 75:  # from the header
            text = next(text for text in stored.files.values() if text.startswith(b"-t\n"))
            recipients = re.findall(r"^To: (\S+)$", text.decode(), re.MULTILINE)
        wanted += [(sender, word if "@" in word else f"{word}@") for word in recipients]
    assert listed_now == sorted(wanted)
    assert {row[7] for row in rows} == {
        path.name.partition(".")[0].encode()
        for path in map(pathlib.PurePath, stored.files)
        if path.parts[1] == "offline"
    }


# --- in processes of their own


@pytest.mark.parametrize("version", golden.VERSIONS)
def test_in_a_fresh_process(version: str, directory: pathlib.Path) -> None:
    said = load(version, "compress-encrypt-1")
    spool = extract(said.stored, directory)
    key = key_options(said.key, directory)
    here = running.run("show", "queue", "--spool", spool, *key)
    assert running.start("show", "queue", "--spool", spool, *key) == here
    archive = said.stored.tar.read_bytes()
    assert running.start("show", "queue", "--spool", "-", *key, input=archive) == here
    given = {"SMTPCTL_QUEUE_KEY": said.key or ""}
    assert running.start("show", "queue", "--spool", spool, env=given) == here
    without = running.start("show", "queue", "--spool", spool, env={}, stdin=subprocess.DEVNULL)
    assert (without.status, without.out) == (1, b"")
    assert len(without.warnings) == len(said.stored.envelopes)
    assert all("encrypted, and no queue key was given" in line for line in without.warnings)


@pytest.mark.parametrize("version", golden.VERSIONS)
def test_key_typed_at_a_terminal(version: str, directory: pathlib.Path) -> None:
    said = load(version, "encrypt-1")
    spool = extract(said.stored, directory)
    for command in said.commands("offline_with_key_typed")[:1]:
        arguments = [*map(str, command.words), "--spool", str(spool)]
        shown = at_terminal(arguments, [b"short\n", (said.key or "").encode() + b"\n"])
        prompts, _, rest = shown.rpartition(b"queue key: \n")
        assert prompts == (
            b"queue key: \nsmtpctl: the queue key must be 32 octets, this one has 5\n"
        )
        assert command.printed.octets == b"key> \n" + rest
        wrong = at_terminal(arguments, [b"x" * 32 + b"\n"])
        assert WRONG_TAG.encode() in wrong
        assert b"x" * 32 not in wrong


def at_terminal(arguments: list[str], typed: list[bytes]) -> bytes:
    """Run a command line with a terminal of its own, typing at each prompt; give what it shows."""
    pid, terminal = pty.fork()
    if not pid:
        try:
            os._exit(running.start_here(arguments))
        finally:
            os._exit(99)
    shown = b""
    answers = iter(typed)
    while True:
        if not select.select([terminal], [], [], 20)[0]:
            break
        try:
            octets = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        shown += octets
        if shown.endswith(b"queue key: "):
            os.write(terminal, next(answers, b"\n"))
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown.replace(b"\r\n", b"\n")
