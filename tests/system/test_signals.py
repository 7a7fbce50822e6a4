"""Interrupts, readers that go away, full disks, terminals: how a run ends, and what it says."""

from __future__ import annotations

import os
import pathlib
import select
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pytest

from smtpd_core.cli.context import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_PIPE
from smtpd_core.cli.output import Output
from smtpd_core.queue import codec
from tests import golden, running
from tests.system import spools
from tests.system.terminals import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

ARCHIVE = str(running.ROOT / "smtpctl.pyz")
_KEY = "0123456789abcdef0123456789abcdef"
_WRONG_KEY = "fedcba9876543210fedcba9876543210"
_ENCRYPTED = golden.SPOOLS / "7.8" / "encrypt-1.tar.gz"
_PATIENCE_SECONDS = 20
_MESSAGES = 800
_EACH = 10
_LINE = 130  # octets of a listing's line, about
_SHARED_FROM = 2000 * _LINE  # octets of a listing after which a second process works


@pytest.fixture(scope="module")
def big() -> Iterator[pathlib.Path]:
    """Make a spool whose listing is longer than what pipes hold."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        spools.make(pathlib.Path(directory), _MESSAGES, _EACH)
        yield pathlib.Path(directory)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Unpack a spool that a daemon encrypted."""
    return golden.Stored(_ENCRYPTED).extract(tmp_path_factory.mktemp("encrypted"))


def _start(*words: object, **more: Any) -> subprocess.Popen[bytes]:
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [ARCHIVE, *map(str, words)], start_new_session=True, **{**options, **more}
    )


def _run(*words: object, **more: Any) -> running.Finished:
    with _start(*words, **more) as process:
        out, err = process.communicate(timeout=_PATIENCE_SECONDS)
    return running.Finished(process.returncode, out or b"", err or b"")


def _read(process: subprocess.Popen[bytes], least: int) -> bytes:
    """Take so much of its output."""
    assert process.stdout is not None
    octets = b""
    while len(octets) < least:
        piece = os.read(process.stdout.fileno(), 65536)
        assert piece
        octets += piece
    return octets


def _end(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Wait for the end of a program and all its children; give its status and its complaints."""
    assert process.stderr is not None
    assert process.stdout is not None
    with process:
        process.stdout.close()
        complaint = process.stderr.read()
        status = process.wait(_PATIENCE_SECONDS)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    return status, complaint


# --- interrupts and readers


@pytest.mark.parametrize("read", [1, _SHARED_FROM])
@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("form", ["classic", "json", "table"])
def test_an_interrupt_is_quiet(big: pathlib.Path, form: str, read: int, group: bool) -> None:
    process = _start("show", "queue", "--spool", big, "--format", form)
    _read(process, read)  # from here on it waits until somebody reads more
    (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    assert _end(process) == (EXIT_INTERRUPTED, b"")


def _wait_until_it_reads(process: subprocess.Popen[bytes], spool: pathlib.Path) -> None:
    """Wait until a program has opened something of a spool."""
    opened = pathlib.Path(f"/proc/{process.pid}/fd")
    end = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        for descriptor in opened.iterdir():
            try:
                if os.readlink(descriptor).startswith(str(spool)):
                    return
            except OSError:  # it was closed meanwhile
                continue
    raise AssertionError("it never reads")


@pytest.mark.parametrize("more", [[], ["--sort", "age"], ["--summary"], ["--count"]])
def test_an_interrupt_is_quiet_before_there_is_output(big: pathlib.Path, more: list[str]) -> None:
    process = _start("show", "queue", "--spool", big, *more)
    _wait_until_it_reads(process, big)
    process.send_signal(signal.SIGINT)
    assert _end(process) == (EXIT_INTERRUPTED, b"")


@pytest.mark.parametrize("read", [1, _SHARED_FROM])
@pytest.mark.parametrize("form", ["classic", "json", "table"])
def test_a_reader_that_goes_away(big: pathlib.Path, form: str, read: int) -> None:
    process = _start("show", "queue", "--spool", big, "--format", form)
    _read(process, read)
    assert _end(process) == (EXIT_PIPE, b"")


@pytest.mark.parametrize(
    "words",
    [
        ["show", "queue"],
        ["show", "queue", "--summary"],
        ["show", "queue", "--count"],
        ["show", "queue", "--sort", "age"],
        ["show", "message", "01000000"],
        ["show", "envelope", "0100000000001000"],
        ["help"],
        ["help", "--man"],
        ["--version"],
        ["completion", "bash"],
        ["encrypt", "secret"],
    ],
)
def test_nobody_reads_at_all(big: pathlib.Path, words: list[str]) -> None:
    where = ["--spool", str(big)] if words[0] == "show" else []
    reading, writing = os.pipe()
    os.close(reading)
    done = _run(*words, *where, stdout=writing)
    os.close(writing)
    assert (done.status, done.err) == (EXIT_PIPE, b"")


@pytest.mark.parametrize("words", [["show", "queue"], ["show", "message", "01000000"], ["help"]])
def test_output_that_cannot_be_written(big: pathlib.Path, words: list[str]) -> None:
    where = ["--spool", str(big)] if words[0] == "show" else []
    with open("/dev/full", "wb") as full:
        done = _run(*words, *where, stdout=full)
        assert done.status == EXIT_FAILURE
        assert done.err == b"smtpctl: standard output: No space left on device\n"
        assert _run(*words, *where, stdout=full, stderr=full).status == EXIT_FAILURE
    command = " ".join([ARCHIVE, *words, *where])
    for closed, complaint in ((">&-", True), (">&- 2>&-", False), (">&- 2>&- <&-", False)):
        done = running.Finished(*_shell(f"{command} {closed}"))
        assert (done.status, done.out) == (EXIT_FAILURE, b"")
        assert done.err.count(b"\n") == complaint
        assert done.err.startswith(b"smtpctl: standard output: ") == complaint
    assert _shell(f"{command} <&- 2>&-")[0] == 0


def _shell(script: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run(["sh", "-c", script], check=False, capture_output=True)
    return done.returncode, done.stdout, done.stderr


# --- progress


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def _slow(big: pathlib.Path, pipe: tuple[int, int], *more: str) -> Terminal:
    """Start a listing into a pipe that nobody reads from for more than a second."""
    command = [ARCHIVE, "show", "queue", "--spool", str(big), *more]
    terminal = Terminal(command, {1: pipe[1]})
    os.close(pipe[1])
    terminal.look(1.1)
    assert terminal.shown == b""
    return terminal


@pytest.mark.parametrize("form", ["classic", "json"])
def test_progress_is_shown_after_a_second(
    big: pathlib.Path, pipe: tuple[int, int], form: str
) -> None:
    terminal = _slow(big, pipe, "--format", form)
    listed = 0
    while piece := os.read(pipe[0], 65536):
        listed += piece.count(b"\n")
        terminal.look(0)
    assert terminal.finish() == 0
    terminal.close()
    assert listed == _MESSAGES * _EACH
    assert b" envelopes read" in terminal.shown
    assert terminal.shown.startswith(b"\r")
    assert terminal.shown.endswith(b"\r\x1b[K")  # it was taken away
    assert b"\n" not in terminal.shown


def test_an_interrupt_takes_the_progress_away(big: pathlib.Path, pipe: tuple[int, int]) -> None:
    terminal = _slow(big, pipe)
    while not terminal.shown:
        assert os.read(pipe[0], 16384)
        terminal.look(0.01)
    terminal.type(b"\3")
    assert terminal.finish() == EXIT_INTERRUPTED
    terminal.close()
    assert terminal.shown.replace(b"^C", b"").endswith(b"\r\x1b[K")
    assert b"\n" not in terminal.shown


class _Interrupted(Output):
    """An output that is interrupted as soon as it has shown something."""

    __slots__ = ()

    def _error(self, octets: bytes) -> None:
        super()._error(octets)
        if not octets.startswith(b"\r\x1b"):
            raise KeyboardInterrupt


def test_an_interrupt_just_behind_the_progress(pipe: tuple[int, int]) -> None:
    out = _Interrupted("smtpctl", {}, err_fd=pipe[1])
    out.error_terminal = True
    with pytest.raises(KeyboardInterrupt):
        out.progress("7 envelopes read")
    out.clear_progress()
    os.close(pipe[1])
    assert os.read(pipe[0], 100) == b"\r7 envelopes read\x1b[K\r\x1b[K"


def test_no_progress_within_a_second(big: pathlib.Path, pipe: tuple[int, int]) -> None:
    terminal = Terminal([ARCHIVE, "show", "queue", "--spool", str(big / "queue/01")], {1: pipe[1]})
    os.close(pipe[1])
    assert terminal.finish() == 0
    terminal.close()
    assert terminal.shown == b""


def test_no_progress_but_at_a_terminal(big: pathlib.Path) -> None:
    process = _start("show", "queue", "--spool", big)
    assert process.stderr is not None
    assert select.select([process.stderr], [], [], 1.1)[0] == []
    _read(process, _SHARED_FROM)
    process.send_signal(signal.SIGINT)
    assert _end(process) == (EXIT_INTERRUPTED, b"")


# --- keys


@pytest.fixture
def ask(encrypted: pathlib.Path) -> Iterator[Any]:
    """Give what starts a command over the encrypted spool at a terminal."""
    started: list[Terminal] = []

    def start(*words: str, spool: object = None, **descriptors: int) -> Terminal:
        chosen = {{"stdin": 0, "stdout": 1}[name]: number for name, number in descriptors.items()}
        command = [ARCHIVE, *words, "--spool", str(spool or encrypted)]
        started.append(Terminal(command, chosen))
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


def _evpid(spool: pathlib.Path) -> str:
    return min(spool.glob("queue/*/*/[0-9a-f]*")).name


def _listing(spool: pathlib.Path) -> list[bytes]:
    """List the encrypted spool with the key given another way."""
    done = _run("show", "queue", "--spool", spool, env={"SMTPCTL_QUEUE_KEY": _KEY})
    assert (done.status, done.err) == (0, b"")
    assert done.out
    return done.lines


@pytest.mark.parametrize(
    "words", [["queue"], ["queue", "--sort", "age"], ["envelope"], ["message"]], ids=" ".join
)
def test_a_typed_key_opens_and_is_not_shown(
    ask: Any, encrypted: pathlib.Path, words: list[str]
) -> None:
    if words[0] != "queue":
        words = [words[0], _evpid(encrypted)]
    terminal = ask("show", *words)
    assert terminal.echoes()
    terminal.wait_for_prompt(1)
    terminal.type(_KEY.encode() + b"\n")
    assert terminal.finish() == 0
    assert terminal.echoes()
    assert _KEY.encode() not in terminal.shown
    assert terminal.shown.count(b"queue key: ") == 1
    if words[0] == "queue":
        shown = terminal.shown.partition(b"\n")[2].replace(b"\r\n", b"\n").splitlines()
        assert sorted(shown) == sorted(_listing(encrypted))


def test_a_key_of_wrong_length_is_asked_for_again(ask: Any, encrypted: pathlib.Path) -> None:
    terminal = ask("show", "queue")
    terminal.wait_for_prompt(1)
    terminal.type(b"short-secret\n")
    terminal.wait_for_prompt(2)
    terminal.type(_KEY.encode() + b"\n")
    assert terminal.finish() == 0
    assert b"short-secret" not in terminal.shown
    assert b"the queue key must be 32 octets, this one has 12" in terminal.shown
    assert b"offline||" in terminal.shown


def test_three_keys_of_wrong_length_are_enough(ask: Any) -> None:
    terminal = ask("show", "queue")
    for times in (1, 2, 3):
        terminal.wait_for_prompt(times)
        terminal.type(b"wrong-secret%d\n" % times)
    assert terminal.finish() == EXIT_FAILURE
    assert terminal.echoes()
    assert b"wrong-secret" not in terminal.shown
    assert terminal.shown.count(b"the queue key must be 32 octets") == 3
    assert b"offline||" not in terminal.shown


def test_no_key_is_typed(ask: Any, encrypted: pathlib.Path) -> None:
    terminal = ask("show", "queue")
    terminal.wait_for_prompt(1)
    terminal.type(b"\4")  # the end of input
    assert terminal.finish() == EXIT_FAILURE
    assert terminal.shown.count(b"queue key: ") == 1
    files = len(_listing(encrypted))
    assert terminal.shown.count(b": encrypted, and no queue key was given") == files


@pytest.mark.parametrize("typed", [b"", b"part of a secret"])
def test_an_interrupt_at_the_prompt(ask: Any, typed: bytes) -> None:
    terminal = ask("show", "queue")
    terminal.wait_for_prompt(1)
    terminal.type(typed + b"\3")
    assert terminal.finish() == EXIT_INTERRUPTED
    assert terminal.echoes()
    assert b"secret" not in terminal.shown
    assert b"Traceback" not in terminal.shown


def test_the_key_is_asked_for_though_input_and_output_are_pipes(
    ask: Any, encrypted: pathlib.Path, pipe: tuple[int, int]
) -> None:
    packed = subprocess.Popen(["gzip", "-dc", str(_ENCRYPTED)], stdout=subprocess.PIPE)
    assert packed.stdout is not None
    terminal = ask("show", "queue", spool="-", stdin=packed.stdout.fileno(), stdout=pipe[1])
    packed.stdout.close()
    os.close(pipe[1])
    terminal.wait_for_prompt(1)
    terminal.type(_KEY.encode() + b"\r")
    assert terminal.finish() == 0
    with os.fdopen(os.dup(pipe[0]), "rb") as stream:
        assert sorted(stream.read().splitlines()) == sorted(_listing(encrypted))
    assert packed.wait() == 0
    assert terminal.shown.replace(b"\r\n", b"\n") == b"queue key: \n"


def test_a_wrong_key_is_said_of_each_object(encrypted: pathlib.Path) -> None:
    said = "cannot be decrypted: the queue key is wrong, or the file was damaged or cut"
    done = _run("show", "queue", "--spool", encrypted, env={"SMTPCTL_QUEUE_KEY": _WRONG_KEY})
    assert (done.status, done.out) == (EXIT_FAILURE, b"")
    assert len(done.warnings) == len(_listing(encrypted))
    assert all(line.endswith(f": {said}") for line in done.warnings)
    assert _WRONG_KEY.encode() not in done.err
    for words in (["envelope", _evpid(encrypted)], ["message", _evpid(encrypted)]):
        done = _run("show", *words, "--spool", encrypted, env={"SMTPCTL_QUEUE_KEY": _WRONG_KEY})
        assert (done.status, done.out) == (EXIT_FAILURE, b"")
        assert [line.partition(": ")[2] for line in done.warnings] == [said]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_key_from_a_file_or_standard_input(
    encrypted: pathlib.Path, tmp_path: pathlib.Path, end: str
) -> None:
    wanted = _listing(encrypted)
    (tmp_path / "key").write_text(_KEY + end)
    words = ("show", "queue", "--spool", encrypted, "--key-file")
    assert _run(*words, tmp_path / "key").lines == wanted
    with (tmp_path / "key").open("rb") as stream:
        assert _run(*words, "-", stdin=stream).lines == wanted
    # The file counts, not the environment.
    done = _run(*words, tmp_path / "key", env={"SMTPCTL_QUEUE_KEY": _WRONG_KEY})
    assert (done.status, done.lines) == (0, wanted)
    script = f'printf %s "$K" | {ARCHIVE} show queue --spool {encrypted} --key-file /dev/fd/0'
    done = running.Finished(*_shell(f"K={_KEY}; {script}"))
    assert (done.status, done.lines) == (0, wanted)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the queue key must be 32 octets, this one has 0"),
        (b"secret", "the queue key must be 32 octets, this one has 6"),
        (_KEY.encode() + b"\n\n", "the queue key must be 32 octets, this one has 33"),
        (bytes(1 << 20), "the queue key must be 32 octets, this one has "),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_holds_no_key(
    encrypted: pathlib.Path, tmp_path: pathlib.Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    done = _run("show", "queue", "--spool", encrypted, "--key-file", tmp_path / "key")
    assert (done.status, done.out) == (EXIT_FAILURE, b"")
    assert len(done.warnings) == 1
    assert said in done.err.decode()
    assert b"secret" not in done.err


def test_nobody_to_ask(encrypted: pathlib.Path) -> None:
    done = _run("show", "queue", "--spool", encrypted)  # a session without terminal
    assert (done.status, done.out) == (EXIT_FAILURE, b"")
    assert len(done.warnings) == len(_listing(encrypted))
    assert all(line.endswith(": encrypted, and no queue key was given") for line in done.warnings)


def test_a_key_serves_two_processes(tmp_path: pathlib.Path, ask: Any) -> None:
    stored = spools.make(tmp_path, 150, 10)
    key = codec.parse_key(_KEY.encode())
    for number, evpid in enumerate(stored):
        path = tmp_path / "queue" / f"{evpid:016x}"[:2] / f"{evpid:016x}"[:8] / f"{evpid:016x}"
        iv = number.to_bytes(12, "big")
        path.write_bytes(codec.encode(path.read_bytes(), number % 2 == 0, key, iv))
    wanted = _run("show", "queue", "--spool", tmp_path, env={"SMTPCTL_QUEUE_KEY": _KEY})
    assert (wanted.status, len(wanted.lines)) == (0, len(stored))
    (tmp_path / "key").write_text(_KEY)
    with (tmp_path / "key").open("rb") as stream:
        done = _run("show", "queue", "--spool", tmp_path, "--key-file", "-", stdin=stream)
    assert done == wanted
    terminal = ask("show", "queue", spool=tmp_path)
    terminal.wait_for_prompt(1)
    terminal.type(_KEY.encode() + b"\n")
    assert terminal.finish() == 0
    assert terminal.shown.count(b"offline||") == len(stored)
    assert terminal.shown.count(b"queue key: ") == 1
