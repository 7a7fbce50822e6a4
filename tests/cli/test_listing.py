from __future__ import annotations

import os
import pathlib
import re
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from smtpd_core.cli.classic import Classic
from smtpd_core.cli.context import Context
from smtpd_core.cli.listing import Listing
from smtpd_core.cli.options import Options
from smtpd_core.cli.output import Output
from smtpd_core.cli.selection import Selection
from tests import running
from tests.trees import STAMP, Tree, envelope, pack_tree, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES = 620  # of two envelopes each: enough for a second process


@pytest.fixture(scope="module")
def spool() -> Iterator[pathlib.Path]:
    """Make a spool of many envelopes, some of them unusual or damaged, in many buckets."""
    tree: Tree = {}
    for number in range(MESSAGES):
        msgid = f"{(number * 2654435761 + 12345) % (1 << 32):08x}"
        directory = f"queue/{msgid[:2]}/{msgid}"
        tree[f"{directory}/message"] = b"x" * (number % 7)
        for half in (1, 2):
            octets = envelope(f"user{number}@example.org", ctime=STAMP + number)
            if number % 50 == 7:
                octets = octets.replace(b"alice", b"caf\xe9")
            if number % 60 == 11 and half == 1:
                octets = octets[:-1]
            if number % 70 == 13:
                octets = b"rubbish"
            tree[f"{directory}/{msgid}{half:08x}"] = octets
    memory = "/dev/shm"  # where deleting so many files takes no time
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        spool = pathlib.Path(name)
        write_tree(tree, spool)
        (spool / "archive").write_bytes(pack_tree(tree, "smtpd/"))
        yield spool


def test_two_processes_list_what_one_does(spool: pathlib.Path) -> None:
    one = running.run("show", "queue", "--spool", spool / "archive")  # an archive is read by one
    shared = running.run("show", "queue", "--spool", spool)
    assert len(one.lines) > 1150
    assert shared.lines == one.lines == sorted(one.lines)
    assert shared.status == one.status == 1
    head = f"{spool / 'archive'}: smtpd/"
    assert [line.replace(head, f"{spool}/") for line in one.warnings] == shared.warnings
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("form", ["json", "csv"])
def test_formats_are_shared_too(form: str, spool: pathlib.Path) -> None:
    shared = running.run("show", "queue", "--spool", spool, "--format", form)
    one = running.run("show", "queue", "--spool", spool, "--format", form, "--limit", 10**6)
    assert shared == one
    assert len(shared.lines) > 1150


def test_selected_and_all(spool: pathlib.Path) -> None:
    everything = running.run("show", "queue", "--spool", spool)
    chosen = running.run("show", "queue", "--spool", spool, "--recipient", "user1?@*")
    pattern = re.compile(rb"\|user1.@example\.org\|")
    assert chosen.lines == [line for line in everything.lines if pattern.search(line)]
    # What is damaged and not chosen is not worth a word; what cannot be read may have been meant.
    unread = [line for line in everything.warnings if ": listed, but" not in line]
    assert [line for line in chosen.warnings if ": listed, but" not in line] == unread
    counted = running.run("show", "queue", "--spool", spool, "--count")
    assert counted.out == b"%d\n" % len(everything.lines)
    assert counted.status == 1


def test_rows_and_warnings_are_in_one_order(tmp_path: pathlib.Path) -> None:
    tree: Tree = {"queue/11/11223344/message": b"x", "queue/22/22334455/message": b"x"}
    tree["queue/11/11223344/1122334400000001"] = envelope()
    tree["queue/11/11223344/1122334400000002"] = b"rubbish"
    tree["queue/22/22334455/2233445500000001"] = envelope()
    write_tree(tree, tmp_path)
    receiving, sending = os.pipe()
    saved = os.dup(1), os.dup(2)
    os.dup2(sending, 1)
    os.dup2(sending, 2)
    os.close(sending)
    try:
        from smtpd_core.cli.main import run

        run("smtpctl", ["show", "queue", "--spool", str(tmp_path)])
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        os.close(saved[0])
        os.close(saved[1])
    with os.fdopen(receiving, "rb") as stream:
        lines = stream.read().splitlines()
    assert [line[:16] for line in lines] == [
        b"1122334400000001", f"smtpctl: {tmp_path}".encode()[:16], b"2233445500000001",
    ]  # fmt: skip


class Slow(Listing):
    """A listing that began more than a second ago, and whose next progress is always due."""

    def _show_progress(self) -> None:
        self._started = self._progressed = time.monotonic() - 2
        super()._show_progress()


def progress_of(
    spool: pathlib.Path, terminal: bool, action: str, *select: str
) -> tuple[int, bytes]:
    """List as at a terminal; give how many lines were listed, and what standard error got."""
    reading, writing = os.pipe()
    listed = os.memfd_create("listed")
    out = Output("smtpctl", {}, out_fd=listed, err_fd=writing)
    out.terminal, out.error_terminal = terminal, True
    context = Context(out, Options({"spool": str(spool), "recipient": list(select)}), {}, STAMP)
    selection = Selection(context.options, STAMP) if select else None
    listing = Slow(context, context.open_queue(), Classic(), selection)
    if action == "stream":
        listing.stream(["queue"])
    else:
        listing.print_sorted(listing.walk(["queue"]), lambda entry: entry.evpid, False, 0)
    out.flush()
    os.close(writing)
    lines = os.pread(listed, 1 << 20, 0).count(b"\n")
    os.close(listed)
    with os.fdopen(reading, "rb") as stream:
        return lines, stream.read()


@pytest.fixture
def small(tmp_path: pathlib.Path) -> pathlib.Path:
    tree: Tree = {"queue/11/11223344/message": b"x"}
    for number in range(5):
        tree[f"queue/11/11223344/112233440000000{number + 1}"] = envelope(f"u{number}@x")
    write_tree(tree, tmp_path)
    return tmp_path


@pytest.mark.parametrize("action", ["stream", "sort"])
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_counts_what_is_read(small: pathlib.Path, terminal: bool, action: str) -> None:
    lines, said = progress_of(small, terminal, action, "nobody@nowhere")
    assert lines == 0
    assert said.startswith(b"\r1 envelope read\x1b[K\r")
    assert b"5 envelopes read" in said


def test_no_progress_between_rows_on_one_terminal(small: pathlib.Path) -> None:
    lines, said = progress_of(small, True, "stream", "u1@x")
    assert lines == 1
    assert said == b"\r1 envelope read\x1b[K\r\x1b[K"
    assert progress_of(small, True, "sort")[0] == 5


def test_progress_stays_while_rows_go_to_a_file(small: pathlib.Path) -> None:
    lines, said = progress_of(small, False, "stream")
    assert lines == 5
    assert b"5 envelopes read" in said
    assert b"\r\x1b[K" not in said


def test_reader_that_goes_away(spool: pathlib.Path) -> None:
    receiving, sending = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.dup2(sending, 1)
            os.close(receiving)
            os.close(sending)
            from smtpd_core.cli.main import run

            os._exit(run("smtpctl", ["show", "queue", "--spool", str(spool)]))
        finally:
            os._exit(99)
    os.close(sending)
    assert os.read(receiving, 16)
    os.close(receiving)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 141
