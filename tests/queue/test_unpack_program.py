"""Programs of the host as filters: fed, emptied, reaped."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Optional

import pytest

from smtpd_core.errors import FormatError
from smtpd_core.queue.unpack_program import find_program, run_filter

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = pytest.mark.system

BIG = b"0123456789abcdef" * 65536  # more than all pipes hold


def script(code: str, octets: bytes, cut: int = 40_000) -> Generator[bytes, None, str]:
    """Run Python code as the program."""
    pieces = [octets[start : start + cut] for start in range(0, len(octets), cut)]
    pieces.append(b"")
    arguments = ["python", "-ISc", "import sys,os,time;" + code]
    return run_filter(arguments, sys.executable, iter(pieces).__next__)


def collect(running: Generator[bytes, None, str]) -> tuple[bytes, str]:
    out = b""
    while True:
        try:
            out += next(running)
        except StopIteration as end:
            return out, str(end.value)


def children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def descriptors() -> Optional[int]:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return None


COPY = "\nfor line in iter(lambda: os.read(0, 4096), b''): os.write(1, line)"


def test_octets_go_both_ways() -> None:
    before = descriptors()
    assert collect(script(COPY, BIG)) == (BIG, "")
    assert not children()
    assert descriptors() == before


def test_much_more_out_than_in() -> None:
    out, failure = collect(
        script("d=sys.stdin.buffer.read();os.write(1,b'');print('x'*3000000)", b"a")
    )
    assert (len(out), failure) == (3_000_001, "")


def test_a_program_that_wants_no_more() -> None:
    assert collect(script("os.write(1, os.read(0, 5))", BIG)) == (BIG[:5], "")


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("sys.exit(3)", "python ended with status 3"),
        ("os.kill(os.getpid(), 9)", "python ended with status -9"),
        ("print('no\\x1b good\\nmore', file=sys.stderr); sys.exit(1)", "no\\x1b good"),
        ("print('only a warning', file=sys.stderr)", ""),
    ],
)
def test_failures_are_told_after_the_output(code: str, failure: str) -> None:
    assert collect(script(f"os.write(1, b'some');{code}", b"abc")) == (b"some", failure)
    assert not children()


def test_many_complaints_block_nothing() -> None:
    out, failure = collect(script("sys.stderr.write('e' * 1000000);print('done');sys.exit(1)", BIG))
    assert out == b"done\n"
    assert failure == "e" * 300


def is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def test_it_sees_neither_our_environment_nor_our_descriptors() -> None:
    code = "print(sorted(os.environ));print(os.listdir('/dev/fd'))"
    reading, writing = os.pipe()
    try:
        os.environ["GZIP"] = "--bad"
        out, failure = collect(script(code, b""))
    finally:
        del os.environ["GZIP"]
        os.close(reading)
        os.close(writing)
    assert failure == ""
    names, fds = out.decode().splitlines()
    assert "GZIP" not in names
    inherited = [fd for fd in range(3, 1024) if is_inheritable(fd)]
    assert len(fds.split(",")) <= 4 + len(inherited)  # the fourth is the listing itself


def test_a_signal_for_closed_pipes_ends_it() -> None:
    if not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc here")
    # Python would ignore the signal by itself: a shell tells what was inherited.
    shell = ["sh", "-c", "while read -r key value; do case $key in SigIgn:) echo $value;; esac; "]
    shell[2] += "done </proc/self/status"
    out, failure = collect(run_filter(shell, "/bin/sh", iter([b""]).__next__))
    assert failure == ""
    assert int(out, 16) & (1 << 12) == 0


def test_closing_ends_the_program() -> None:
    running = script("os.write(1, b'first'); time.sleep(600)", b"")
    assert next(running) == b"first"
    running.close()
    assert not children()


class BrokenError(FormatError):
    pass


def test_a_source_that_fails_is_told_after_the_output() -> None:
    given = [b"two", b"one"]

    def take() -> bytes:
        if not given:
            raise BrokenError("broken")
        return given.pop()

    running = run_filter(["python", "-ISc", f"import os{COPY}"], sys.executable, take)
    out: list[bytes] = []
    with pytest.raises(BrokenError):
        out.extend(running)
    assert b"".join(out) == b"onetwo"
    assert not children()


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(OSError, match="No such file"):
        next(run_filter(["x"], str(tmp_path / "x"), iter([b""]).__next__))
    assert descriptors() == before


def test_closed_standard_descriptors() -> None:
    code = (
        "import sys,os\n"
        "for fd in (0, 1, 2): os.close(fd)\n"
        "from smtpd_core.queue.unpack_program import run_filter\n"
        "octets = b''.join(run_filter(['cat'], '/bin/cat', iter([b'abc', b'']).__next__))\n"
        "os._exit(42 if octets == b'abc' else 1)\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=root)
    assert done.returncode == 42


def test_children_that_nobody_waits_for() -> None:
    code = (
        "import signal\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from smtpd_core.queue.unpack_program import run_filter\n"
        "octets = b''.join(run_filter(['cat'], '/bin/cat', iter([b'abc', b'']).__next__))\n"
        "raise SystemExit(42 if octets == b'abc' else 1)\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 42


def test_programs_are_found_where_they_may_be(tmp_path: Path) -> None:
    first = tmp_path / "first"
    second = tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        (directory / "xz").write_bytes(b"")
    places = (str(tmp_path / "none"), str(first), str(second))
    assert find_program("xz", places) is None
    (second / "xz").chmod(0o755)
    assert find_program("xz", places) == str(second / "xz")
    (first / "xz").unlink()
    (first / "xz").mkdir()
    assert find_program("xz", places) == str(second / "xz")
    (second / "gzip").symlink_to("nowhere")
    assert find_program("gzip", places) is None
