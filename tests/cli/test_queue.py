from __future__ import annotations

import json
import os
import pty
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from smtpd_core.queue import layout
from smtpd_core.queue.codec import encode, parse_key
from tests import running
from tests.trees import STAMP, Tree, envelope, pack_tree, write_tree

if TYPE_CHECKING:
    import pathlib

KEY = "0123456789abcdef0123456789abcdef"
SEALED = encode(envelope("sealed@x"), True, parse_key(KEY.encode()), b"i" * 12)
SEALED_BODY = encode(b"secret text\n", False, parse_key(KEY.encode()), b"j" * 12)
TREE: Tree = {
    "queue/11/11223344/message": b"Subject: one\n\n\x1b[31mred\n",
    "queue/11/11223344/1122334400000001": envelope("bob@b.org", ctime=STAMP + 9, retry=2),
    "queue/11/11223344/1122334400000002": envelope("carol@c.org", errorline="450 \x1b[1mlater"),
    "queue/22/22334455/message": b"x" * 5000,
    "queue/22/22334455/2233445500000001": envelope("dave@b.org", ctime=STAMP + 5),
    "incoming/33445566/3344556600000001": envelope("erin@x"),
    "temporary/33445566": b"coming\n",
    "offline/1700000003.x": b"frank@x|grace@y\n\nmail\n",
}
BAD: Tree = {
    "queue/33/33445577/message": b"x",
    "queue/33/33445577/3344557700000001": b"rubbish",
    "queue/33/33445577/3344557700000002": envelope("open@x")[:-1],
    "queue/11/11223344/3344557700000003": envelope("lost@x"),
    "queue/44/44556677/4455667700000001": SEALED,
    "queue/44/44556677/message": SEALED_BODY,
}


@pytest.fixture
def spool(tmp_path: pathlib.Path) -> pathlib.Path:
    write_tree(TREE, tmp_path / "smtpd")
    return tmp_path / "smtpd"


@pytest.fixture
def bad(spool: pathlib.Path) -> pathlib.Path:
    write_tree(BAD, spool)
    (spool.parent / "key").write_text(KEY)
    return spool


def ids(done: running.Finished) -> list[str]:
    return [line[:16].decode() for line in done.lines]


ONE, TWO, THREE = "1122334400000001", "1122334400000002", "2233445500000001"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("", [ONE, TWO, THREE]),
        ("11223344", [ONE, TWO]),
        ("2233445500000001", [THREE]),
        ("99999999", []),
        ("1122334400000009", []),
        ("33445566", []),
        ("33445566 --bucket incoming", ["3344556600000001"]),
        ("33445566 --all", ["3344556600000001", "3344556600000000"]),
        ("--bucket incoming", ["3344556600000001"]),
        ("--bucket incoming --bucket queue", [ONE, TWO, THREE, "3344556600000001"]),
        ("--bucket offline", ["0" * 16, "0" * 16]),
        ("--all", [ONE, TWO, THREE, "3344556600000001", "3344556600000000", "0" * 16, "0" * 16]),
        ("--sort age", [TWO, THREE, ONE]),
        ("--sort age --reverse", [ONE, THREE, TWO]),
        ("--reverse", [THREE, TWO, ONE]),
        ("--sort size", [THREE, ONE, TWO]),
        ("--sort size --limit 2", [THREE, ONE]),
        ("--sort size --reverse --limit 2", [TWO, ONE]),
        ("--sort size --reverse --limit 1001", [TWO, ONE, THREE]),
        ("--sort id", [ONE, TWO, THREE]),
        ("--sort id --limit 2", [ONE, TWO]),
        ("--sort id --reverse --limit 1", [THREE]),
        (
            "--sort id --all",
            ["0" * 16, "0" * 16, ONE, TWO, THREE, "3344556600000000", "3344556600000001"],
        ),
        ("--sort recipient --limit 2", [ONE, TWO]),
        ("--limit 1", [ONE]),
        ("--limit 99", [ONE, TWO, THREE]),
        ("--domain b.org", [ONE, THREE]),
        ("--domain b.org --older 1s --sort age", [THREE, ONE]),
        ("--tries +1", [ONE]),
        ("--size +4k", [THREE]),
        ("--error LATER", [TWO]),
        ("--sender nobody", []),
    ],
)
def test_show_queue(arguments: str, wanted: list[str], spool: pathlib.Path) -> None:
    done = running.run("show", "queue", *arguments.split(), "--spool", spool)
    assert ids(done) == wanted
    assert (done.status, done.err) == (0, b"")


def test_offline_rows(spool: pathlib.Path) -> None:
    done = running.run("show", "queue", "--bucket", "offline", "--spool", spool)
    row = b"0000000000000000|local|?||@|%b|%b|1700000003|1700000003|0|0|offline||"
    assert done.lines == [row % (who, who) for who in (b"frank@x", b"grace@y")]


def test_mailq(spool: pathlib.Path) -> None:
    listing = running.run("show", "queue", "--spool", spool)
    assert running.run("-?", "ignored", "--spool", spool, name="mailq") == listing


def test_a_terminal_gets_no_raw_controls(spool: pathlib.Path) -> None:
    for arguments in (
        ["show", "queue"],
        ["show", "message", "11223344"],
        ["show", "envelope", TWO],
    ):
        shown = at_terminal([*arguments, "--spool", str(spool)])
        assert b"\x1b" not in shown
        assert b"\\x1b[" in shown or b"\\^[[" in shown
    assert b"\x1b" in running.run("show", "message", "11223344", "--spool", spool).out


def at_terminal(arguments: list[str]) -> bytes:
    """Run a command line in a fresh process with a terminal; give what it shows."""
    pid, terminal = pty.fork()
    if not pid:
        try:
            os.environ["TERM"] = "dumb"
            os._exit(running.start_here(arguments))
        finally:
            os._exit(99)
    shown = b""
    while True:
        try:
            octets = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        shown += octets
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--limit 0", "--limit: '0' is not a number above 0"),
        ("--limit x", "--limit: 'x' is not a number above 0"),
        ("--limit -1", "--limit: '-1' is not a number above 0"),
        ("--count --summary", "--count and --summary exclude each other"),
        ("--count --format json", "--count and --format exclude each other"),
        ("--count --sort age", "--count and --sort exclude each other"),
        ("--count --reverse", "--count and --reverse exclude each other"),
        ("--count --limit 1", "--count and --limit exclude each other"),
        ("--summary --format json", "--summary and --format exclude each other"),
        ("--summary --sort age", "--summary and --sort exclude each other"),
        ("--summary --reverse", "--summary and --reverse exclude each other"),
        ("--spool - --key-file -", "--spool - and --key-file - cannot both read standard input"),
        ("--older never", "--older: 'never' is not a duration (such as 30m, 4h or 1d12h)"),
    ],
)
def test_usage(arguments: str, reason: str, spool: pathlib.Path) -> None:
    done = running.run("show", "queue", "--spool", spool, *arguments.split())
    assert done == running.Finished(2, b"", f"smtpctl: {reason}\n".encode())


def test_totals(bad: pathlib.Path) -> None:
    done = running.run("show", "queue", "--count", "--spool", bad, "--key-file", bad.parent / "key")
    assert (done.out, done.status) == (b"6\n", 1)
    done = running.run("show", "queue", "--summary", "--spool", bad, "--limit", 1)
    assert done.lines[1].split()[:2] == [b"TOTAL", b"5"]
    assert done.lines[2].split()[:2] == [b"b.org", b"2"]
    assert done.lines[-1] == b"(2 more domains)"


def test_json_of_everything(bad: pathlib.Path) -> None:
    options = ["--all", "--spool", bad, "--key-file", bad.parent / "key"]
    done = running.run("show", "queue", "--format", "json", *options)
    facts = [json.loads(line) for line in done.lines]
    pretty = running.run("show", "queue", "--format", "json-pretty", *options)
    assert json.loads(pretty.out) == facts
    assert {fact["form"] for fact in facts} == {"plain", "gzip+encrypted"}
    assert {fact["kind"] for fact in facts} == {"envelope", "body", "offline"}
    problems = {fact["evpid"]: fact["problems"] for fact in facts if fact["problems"]}
    assert sorted(problems) == ["3344557700000002", "3344557700000003"]


def test_every_problem_is_named(bad: pathlib.Path) -> None:
    done = running.run("show", "queue", "--spool", bad)
    queue = f"{bad}/queue"
    cut = "the last line has no line end: the file may be cut"
    assert done.warnings == [
        f"{queue}/11/11223344/3344557700000003: listed, but {layout.envelope_of('3' * 16, 1)[1]}",
        f"{queue}/33/33445577/3344557700000001: nothing in it is a field of an envelope",
        f"{queue}/33/33445577/3344557700000002: listed, but {cut}",
        f"{queue}/44/44556677/4455667700000001: encrypted, and no queue key was given",
    ]
    assert (done.status, len(done.lines)) == (1, 5)


def test_limit_says_nothing_of_what_it_does_not_show(bad: pathlib.Path) -> None:
    done = running.run("show", "queue", "--limit", 2, "--spool", bad)
    assert (done.status, ids(done), done.err) == (0, [ONE, TWO], b"")


# --- one object


def test_a_sorted_listing_says_what_is_wrong_with_what_it_shows(bad: pathlib.Path) -> None:
    problem = "3344557700000002: listed, but the last line has no line end: the file may be cut"
    for limit, told in ((2, 0), (5, 1), (1001, 1)):
        done = running.run("show", "queue", "--sort", "tries", "--limit", limit, "--spool", bad)
        assert len(done.lines) == min(limit, 5)
        assert sum(line.endswith(problem) for line in done.warnings) == told
        assert done.status == 1  # what could not be read may have belonged there


def test_sorted_and_streamed_are_written_alike(bad: pathlib.Path) -> None:
    for form in ("classic", "table", "json", "json-pretty", "csv"):
        options = ("--format", form, "--bucket", "queue", "--spool", bad, "--domain", "?.org")
        streamed = running.run("show", "queue", *options)
        assert len(streamed.lines) >= 3
        for order in (["--sort", "id"], ["--limit", 9], ["--sort", "id", "--limit", 9, "--all"]):
            assert running.run("show", "queue", *options, *order).out == streamed.out


def test_sorting_keeps_rows_and_not_entries(tmp_path: pathlib.Path) -> None:
    """Each of many rows waits in a few hundred octets, in whatever order."""
    tree: Tree = {}
    for number in range(3000):
        tree[f"queue/11/11223344/11223344{number + 1:08x}"] = envelope(ctime=STAMP - number)
    archive = tmp_path / "spool.tar"
    archive.write_bytes(pack_tree(tree, "smtpd/"))
    for more in ([], ["--limit", 10]):
        command = ["show", "queue", "--spool", archive, "--sort", "age", *more]
        baseline = peak(["show", "queue", "--spool", archive])
        assert peak(command) - baseline < 3000 * 700


def peak(arguments: list[object]) -> int:
    tracemalloc.start()
    try:
        assert running.run(*arguments).status == 1  # there is no message
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_show_envelope(spool: pathlib.Path) -> None:
    done = running.run("show", "envelope", ONE, "--spool", spool)
    assert done == running.Finished(0, envelope("bob@b.org", ctime=STAMP + 9, retry=2), b"")
    done = running.run("show", "envelope", "3344556600000001", "--spool", spool)
    assert (done.status, done.out) == (1, b"")
    assert done.warnings == [f"3344556600000001: no such envelope in {spool}"]
    done = running.run("show", "envelope", "3344556600000001", "--all", "--spool", spool)
    assert (done.status, done.out) == (0, envelope("erin@x"))


def test_show_envelope_that_is_damaged(bad: pathlib.Path) -> None:
    done = running.run("show", "envelope", "3344557700000001", "--spool", bad)
    assert (done.status, done.out) == (0, b"rubbish")  # as it is stored
    sealed = ["show", "envelope", "4455667700000001", "--spool", bad]
    done = running.run(*sealed)
    assert (done.status, done.out) == (1, b"")
    assert done.warnings[0].endswith(": encrypted, and no queue key was given")
    done = running.run(*sealed, "--key-file", bad.parent / "key")
    assert (done.status, done.out) == (0, envelope("sealed@x"))


def test_misplaced_envelope_is_found(bad: pathlib.Path) -> None:
    done = running.run("show", "envelope", "3344557700000003", "--spool", bad)
    assert (done.status, done.out) == (0, envelope("lost@x"))
    assert "it is in the directory of another message" in done.warnings[-1]
    done = running.run("show", "queue", "3344557700000003", "--spool", bad)
    assert ids(done) == ["3344557700000003"]


def test_unreadable_envelope_is_named(spool: pathlib.Path) -> None:
    write_tree({"queue/11/11223344/1122334400000005": ("/etc/passwd",)}, spool)
    done = running.run("show", "envelope", "1122334400000005", "--spool", spool)
    assert (done.status, done.out) == (1, b"")
    path = f"{spool}/queue/11/11223344/1122334400000005"
    assert done.warnings == [f"{path}: a symbolic link: not followed"]


def test_show_message(bad: pathlib.Path) -> None:
    body = b"Subject: one\n\n\x1b[31mred\n"
    for selected in ("11223344", ONE, "1122334499999999"):
        done = running.run("show", "message", selected, "--spool", bad)
        assert done == running.Finished(0, body, b"")
    done = running.run("show", "message", "99999999", "--spool", bad)
    assert (done.status, done.warnings) == (1, [f"99999999: no such message in {bad}"])
    sealed = ["show", "message", "44556677", "--spool", bad]
    assert running.run(*sealed).status == 1
    done = running.run(*sealed, "--key-file", bad.parent / "key")
    assert done == running.Finished(0, b"secret text\n", b"")


def test_show_message_in_reception(spool: pathlib.Path) -> None:
    done = running.run("show", "message", "33445566", "--all", "--spool", spool)
    assert done == running.Finished(0, b"coming\n", b"")
    assert running.run("show", "message", "33445566", "--spool", spool).status == 1


def test_large_message_in_an_archive(spool: pathlib.Path) -> None:
    body = b"x" + os.urandom(400_000)
    archive = spool.parent / "archive.tar"
    archive.write_bytes(pack_tree({**TREE, "queue/22/22334455/message": body}))
    done = running.run("show", "message", "22334455", "--spool", archive)
    assert done == running.Finished(0, body, b"")


def test_cut_archive_is_told_when_nothing_is_found(spool: pathlib.Path) -> None:
    archive = spool.parent / "archive.tar"
    archive.write_bytes(pack_tree(TREE)[:2000])
    for words in (["show", "envelope", THREE], ["show", "message", "22334455"]):
        done = running.run(*words, "--spool", archive)
        assert (done.status, done.out) == (1, b"")
        assert f"{archive}: octet 2000: the archive ends" in done.warnings[0]
    done = running.run("show", "queue", THREE, "--spool", archive)
    assert (done.status, done.out) == (1, b"")


def test_message_listed_once_from_a_bucket(spool: pathlib.Path) -> None:
    done = running.run("show", "queue", "11223344", "--spool", spool / "queue/11")
    assert ids(done) == [ONE, TWO]


def test_below_a_root(spool: pathlib.Path) -> None:
    disk = spool.parent / "disk"
    (disk / "var/spool").mkdir(parents=True)
    spool.rename(disk / "var/spool/smtpd")
    done = running.run("show", "queue", "--root", disk)
    assert ids(done) == [ONE, TWO, THREE]
