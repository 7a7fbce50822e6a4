"""The command `encrypt`: arguments, lines, terminals."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_core.cli.encrypt import _program, encrypt
from smtpd_core.errors import AccessError, UsageError
from smtpd_core.tables.password import (
    MAX_PASSWORD,
    PasswordError,
    available,
    default_scheme,
    find_scheme,
    verify_password,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 20  # only a test that fails waits as long


class FakeOutput:
    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.waiting.append(text)

    def flush(self) -> None:
        self.lines += self.waiting
        self.waiting.clear()


class FakeContext:
    def __init__(self, stdin_fd: int = -1, scheme: Optional[str] = None) -> None:
        self.options = {} if scheme is None else {"scheme": scheme}
        self.output = FakeOutput()
        self.environ: dict[str, str] = {}
        self.stdin_fd = stdin_fd
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def run(context: FakeContext, *arguments: str) -> int:
    handler: Any = encrypt  # a Context is whatever has what the handler uses
    status = handler(context, list(arguments))
    assert isinstance(status, int)
    assert context.output.waiting == []
    return status


def run_over(octets: bytes, scheme: str = "sha256") -> FakeContext:
    """Run over standard input; a pipe holds all of it."""
    reading, writing = os.pipe()
    try:
        os.write(writing, octets)
        os.close(writing)
        context = FakeContext(reading, scheme)
        assert run(context) == 0
        return context
    finally:
        os.close(reading)


# The words.


def test_an_argument_gives_one_line() -> None:
    context = FakeContext(scheme="sha512")
    assert run(context, "secret") == 0
    (hashed,) = context.output.lines
    assert len(hashed) == 106
    assert verify_password(b"secret", hashed)
    assert context.warnings == []


@pytest.mark.parametrize("octets", [b"", b" ", b"caf\xc3\xa9", b"caf\xe9", b"-x", b"a\nb"])
def test_an_argument_is_hashed_as_the_octets_it_was(octets: bytes) -> None:
    context = FakeContext(scheme="sha256")
    assert run(context, os.fsdecode(octets)) == 0
    assert verify_password(octets, context.output.lines[0])


def test_more_than_one_argument_is_refused() -> None:
    with pytest.raises(UsageError):
        run(FakeContext(scheme="sha256"), "two", "words")


@pytest.mark.parametrize(
    ("typed", "prefix"),
    [
        ("sha512", "$6$"),
        ("sha256", "$5$"),
        ("6", "$6$"),
        ("$5$", "$5$"),
        ("yescrypt", "$y$jCT$"),
        ("y", "$y$jCT$"),
        ("bcrypt", "$2b$10$"),
        ("2y", "$2y$10$"),
    ],
)
def test_scheme(typed: str, prefix: str) -> None:
    scheme = find_scheme(typed)
    assert scheme is not None
    if not available(scheme):
        pytest.skip(f"no {typed} on this host")
    context = FakeContext(scheme=typed)
    assert run(context, "secret") == 0
    assert context.output.lines[0].startswith(prefix)
    assert verify_password(b"secret", context.output.lines[0])


@pytest.mark.parametrize("typed", ["", "rot13", "des", "md5", "1", "argon2id", "sha512 "])
def test_a_scheme_that_is_not_to_be_had(typed: str) -> None:
    context = FakeContext(scheme=typed)
    with pytest.raises(UsageError, match=r"^--scheme .*: must be one of sha512, sha256") as caught:
        run(context, "secret")
    assert "secret" not in str(caught.value)
    assert "md5" not in str(caught.value).partition("must be")[2]
    assert context.output.lines == []


def test_the_default_scheme() -> None:
    context = FakeContext()
    assert run(context, "secret") == 0
    scheme = find_scheme(default_scheme(_program))
    assert scheme is not None
    expected = scheme.prefix if available(scheme) else "$6$"
    assert context.output.lines[0].startswith(expected)
    assert bool(context.warnings) == (not available(scheme))


def test_the_program_of_the_host_is_read_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "encrypt").write_bytes(b"\x7fELF crypt_gensalt")
    (tmp_path / "large").write_bytes(b"x" * (5 << 20))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert _program(str(tmp_path / "encrypt")) == b"\x7fELF crypt_gensalt"
    assert len(_program(str(tmp_path / "large")) or b"") == 4 << 20
    for name in ("pipe", "loop", "missing", "."):
        assert _program(str(tmp_path / name)) is None


def test_a_password_that_cannot_be_hashed() -> None:
    for argument in ("s" * (MAX_PASSWORD + 1), "se\0cret"):
        context = FakeContext(scheme="sha256")
        with pytest.raises(PasswordError) as caught:
            run(context, argument)
        assert argument not in str(caught.value)
        assert context.output.lines == []


# Standard input.


@pytest.mark.parametrize(
    ("octets", "passwords"),
    [
        (b"", []),
        (b"secret", [b"secret"]),
        (b"secret\n", [b"secret"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"\n", [b""]),
        (b"\n\n", [b"", b""]),
        (b"crlf\r\n", [b"crlf\r"]),
        (b" blanks \t\n", [b" blanks \t"]),
        (b"caf\xe9\n\xff\xfe\n", [b"caf\xe9", b"\xff\xfe"]),
        (b"x" * MAX_PASSWORD + b"\nx", [b"x" * MAX_PASSWORD, b"x"]),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_one_hash_for_each_line(octets: bytes, passwords: list[bytes]) -> None:
    lines = run_over(octets).output.lines
    assert len(lines) == len(passwords)
    for secret, hashed in zip(passwords, lines):
        assert hashed.startswith("$5$")
        assert verify_password(secret, hashed)


@given(st.lists(st.binary(max_size=20).map(lambda o: o.replace(b"\n", b"").replace(b"\0", b""))))
@settings(max_examples=15)
def test_lines_that_people_would_not_type(passwords: list[bytes]) -> None:
    lines = run_over(b"".join([secret + b"\n" for secret in passwords])).output.lines
    assert [verify_password(*pair) for pair in zip(passwords, lines)] == [True] * len(passwords)
    assert len(lines) == len(passwords)


@pytest.mark.parametrize(
    ("octets", "number", "hashed"),
    [
        (b"a\nsecr\0et\nb\n", 2, 1),
        (b"\0", 1, 0),
        (b"a\nb\n" + b"secret" * 100 + b"\nc\n", 3, 2),
        (b"secret" * 10000, 1, 0),
        (b"a\n" + b"s" * (MAX_PASSWORD + 1), 2, 1),
    ],
    ids=["nul", "only nul", "long", "endless", "one too many"],
)
def test_a_line_that_cannot_be_hashed_ends_the_run(octets: bytes, number: int, hashed: int) -> None:
    reading, writing = os.pipe()
    os.write(writing, octets)
    context = FakeContext(reading, "sha256")
    os.close(writing)
    with pytest.raises(PasswordError, match=f"line {number}: ") as caught:
        run(context)
    os.close(reading)
    assert "secr" not in str(caught.value)
    assert len(context.output.lines) == hashed
    assert context.output.waiting == []


def test_an_endless_line_is_refused_while_it_still_comes() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"s" * (MAX_PASSWORD + 1))
    with pytest.raises(PasswordError):  # the other end is open: waiting for more would hang
        run(FakeContext(reading, "sha256"))
    os.close(writing)
    os.close(reading)


def test_input_that_cannot_be_read(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(AccessError, match="standard input"):
        run(FakeContext(directory, "sha256"))
    os.close(directory)


# In a process of its own: coming and going with another program, and on a terminal.

_CHILD = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):  # nohup and the like leave traces
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
for name in sys.argv[4:]:
    sys.modules[name] = None
if sys.argv[3] == "own":
    os.close(os.open(os.ttyname(0), os.O_RDWR))  # a session without a terminal adopts this one
from smtpd_core.cli.encrypt import encrypt
class Surroundings:
    options = {"scheme": sys.argv[2]}
    environ = {}
    stdin_fd = 0
    output = property(lambda self: self)
    waiting = b""
    def line(self, text):
        self.waiting += text.encode() + b"\\n"
    def flush(self):
        os.write(1, self.waiting)
        self.waiting = b""
    def warn(self, text):
        os.write(2, b"smtpctl: " + text.encode() + b"\\n")
try:
    status = encrypt(Surroundings(), [])
except KeyboardInterrupt:
    status = 130
sys.exit(status)
"""


def command(terminal: str, *missing: str) -> list[str]:
    return [sys.executable, "-ISBc", _CHILD, str(ROOT), "sha256", terminal, *missing]


def test_each_hash_is_handed_on_before_the_next_line_is_waited_for() -> None:
    with subprocess.Popen(
        command("none"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for secret in (b"one", b"", b"three"):
            child.stdin.write(secret + b"\n")
            assert verify_password(secret, read_line(child.stdout).decode())
        child.stdin.close()
        assert child.stdout.read() == b""
        assert child.wait(PATIENCE_SECONDS) == 0


def read_line(stream: IO[bytes]) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([stream], [], [], PATIENCE_SECONDS)[0], "no hash came"
        line += os.read(stream.fileno(), 4096)
    return line[:-1]


class Terminal:
    """A child on a terminal of its own, which we type on."""

    def __init__(self, *missing: str) -> None:
        self.master, self.slave = os.openpty()
        self.child = subprocess.Popen(
            command("own", *missing),
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )
        self.shown = b""

    def until(self, text: bytes) -> bytes:
        """Wait until a text is shown; return what was, up to its end."""
        while text not in self.shown:
            assert select.select([self.master], [], [], PATIENCE_SECONDS)[0], self.shown
            self.shown += os.read(self.master, 4096)
        before, text, self.shown = self.shown.partition(text)
        return before + text

    def type(self, octets: bytes) -> None:
        os.write(self.master, octets)

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def finish(self) -> int:
        """Wait for the end; return the exit status, negative for a signal."""
        return self.child.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture(params=["termios", "stty"])
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    opened = Terminal() if request.param == "termios" else Terminal("termios")
    yield opened
    opened.close()


def test_a_terminal_asks_twice_and_shows_nothing(terminal: Terminal) -> None:
    assert terminal.echoes()
    assert terminal.until(b": ") == b"Password: "
    assert not terminal.echoes()
    terminal.type(b"open sesame\n")
    assert terminal.until(b": ") == b"\r\nSame password again: "
    assert not terminal.echoes()
    terminal.type(b"open sesame\n")
    assert terminal.until(b"\r\n") == b"\r\n"
    hashed = terminal.until(b"\r\n").decode().rstrip()
    assert terminal.finish() == 0
    assert terminal.echoes()
    assert verify_password(b"open sesame", hashed)


def test_two_passwords_that_differ(terminal: Terminal) -> None:
    terminal.until(b"Password: ")
    terminal.type(b"sesame\n")
    terminal.until(b"again: ")
    terminal.type(b"Sesame\n")
    assert terminal.until(b"differ\r\n") == b"\r\nsmtpctl: the two passwords differ\r\n"
    assert terminal.finish() == 1
    assert terminal.echoes()


@pytest.mark.parametrize(
    ("typed", "said"), [(b"", b"no password was given"), (b"sesame\n", b"the two passwords differ")]
)
def test_end_of_input_at_a_prompt(terminal: Terminal, typed: bytes, said: bytes) -> None:
    terminal.until(b"Password: ")
    if typed:
        terminal.type(typed)
        terminal.until(b"again: ")
    terminal.type(b"\x04")
    assert terminal.until(said) == b"\r\nsmtpctl: " + said
    assert terminal.finish() == 1
    assert terminal.echoes()


@pytest.mark.parametrize("typed", [b"", b"ses", b"sesame\n"], ids=["first", "within", "second"])
def test_an_interrupt_gives_the_echo_back(terminal: Terminal, typed: bytes) -> None:
    terminal.until(b"Password: ")
    terminal.type(typed)
    if typed.endswith(b"\n"):
        terminal.until(b"again: ")
    terminal.type(b"\x03")
    assert terminal.finish() == 130
    assert terminal.echoes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_process_gives_the_echo_back(
    terminal: Terminal, number: signal.Signals
) -> None:
    terminal.until(b"Password: ")
    assert not terminal.echoes()
    terminal.child.send_signal(number)
    assert terminal.finish() == -number
    assert terminal.echoes()


def test_who_comes_back_from_a_stop_is_asked_again(terminal: Terminal) -> None:
    terminal.until(b"Password: ")
    terminal.type(b"old\n")
    terminal.until(b"again: ")
    terminal.type(b"\x1a")  # nobody could wake this process: the system does not let it stop
    terminal.until(b"Password: ")
    assert not terminal.echoes()
    terminal.type(b"new\n")
    terminal.until(b"again: ")
    terminal.type(b"new\n")
    terminal.until(b"\r\n")
    assert verify_password(b"new", terminal.until(b"\r\n").decode().rstrip())
    assert terminal.finish() == 0
    assert terminal.echoes()


def test_a_terminal_that_is_not_the_session_s_own() -> None:
    master, slave = os.openpty()
    with subprocess.Popen(
        command("foreign"),
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for prompt in (b"Password: ", b"Same password again: "):
            shown = b""
            while not shown.endswith(prompt):
                assert select.select([child.stderr], [], [], PATIENCE_SECONDS)[0], shown
                shown += os.read(child.stderr.fileno(), 4096)
            os.write(master, b"sesame\n")
        assert verify_password(b"sesame", read_line(child.stdout).decode())
        assert child.wait(PATIENCE_SECONDS) == 0
    assert termios.tcgetattr(slave)[3] & termios.ECHO
    os.close(slave)
    os.close(master)


def test_the_command_loads_little() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules);"
        "import smtpd_core.cli.encrypt; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-ISBc", script, str(ROOT)], stdout=subprocess.PIPE, check=True, timeout=30
    )
    loaded = set(done.stdout.decode().split())
    assert "smtpd_core.tables.password" in loaded
    costly = ("hashlib", "ctypes", "subprocess", "termios", "signal", "typing", "re", "binascii")
    assert loaded.isdisjoint(costly)
