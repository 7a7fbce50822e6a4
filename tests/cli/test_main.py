from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest

from smtpd_core.cli.main import run
from smtpd_core.cli.options import OPTIONS

_ROOT = pathlib.Path(__file__).parents[2]
_START = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from smtpctl import main; "


def _smtpctl(arguments: list[str], **more: Any) -> subprocess.CompletedProcess[bytes]:
    """Run smtpctl in a fresh process, the way the archive starts it."""
    code = f"{_START}sys.argv[0] = 'smtpctl'; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-ISBc", code, *arguments], check=False, timeout=20, **more
    )


def _with_terminal(arguments: list[str]) -> tuple[int, str]:
    """Run smtpctl with standard error on a terminal; give the status and what it showed."""
    reader, terminal = os.openpty()
    try:
        done = _smtpctl(arguments, stdout=subprocess.DEVNULL, stderr=terminal)
        os.close(terminal)
        shown = b""
        while True:
            try:
                octets = os.read(reader, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not octets:
                break
            shown += octets
    finally:
        os.close(reader)
    return done.returncode, shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("name", ["smtpctl", "smtpctl.pyz", "smtpctl.py", "anything", ""])
def test_any_name_is_smtpctl(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(name, ["show", "stats"]) == 1
    assert capfd.readouterr().err == "smtpctl: smtpd doesn't seem to be running\n"


@pytest.mark.parametrize("name", ["sendmail", "send-mail", "newaliases", "makemap"])
def test_programs_not_provided_refuse(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(name, ["-t"]) == 69
    assert capfd.readouterr() == ("", f"{name}: this release does not provide this program\n")


def test_mailq_is_show_queue(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("mailq", ["-?", "x", "--help"]) == 0
    assert capfd.readouterr().out.startswith("mailq [option ...]\n")
    assert run("mailq", ["--scheme", "sha512"]) == 2
    assert capfd.readouterr().err == "mailq: --scheme means nothing to mailq\n"
    assert run("mailq", ["--nonsense"]) == 2
    assert capfd.readouterr().err == "mailq: unknown option --nonsense\n"


def test_grammar_errors_carry_no_program_name(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("smtpctl", ["show", "mta"]) == 255
    assert capfd.readouterr() == ("", "possibilities are:\nshow mta paused\n")
    assert run("smtpctl", ["monitor", "x"]) == 255
    assert capfd.readouterr() == ("", "invalid command\n")


def test_option_errors(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("smtpctl", ["bogus", "--bogus"]) == 2  # the option first: the words may be its value
    assert capfd.readouterr() == ("", "smtpctl: unknown option --bogus\n")
    assert run("smtpctl", ["show", "stats", "--all"]) == 2
    assert capfd.readouterr() == ("", "smtpctl: --all means nothing to show stats\n")


def test_help_wins_over_unfinished_words(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("smtpctl", ["show", "--help"]) == 0
    assert "  show queue " in capfd.readouterr().out
    assert run("smtpctl", ["bogus", "--help"]) == 255
    assert capfd.readouterr().err.startswith("possibilities are:\n")


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    from smtpd_core.version import VERSION

    for arguments in (["--version"], ["-V"], ["show", "--version"], ["bogus", "-V"]):
        assert run("smtpctl", arguments) == 0
        assert capfd.readouterr() == (f"smtpctl {VERSION}\n", "")


def test_guesses_are_for_terminals_only(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("smtpctl", ["shwo"]) == 255
    assert "did you mean" not in capfd.readouterr().err
    status, shown = _with_terminal(["shwo", "queue"])
    assert status == 255
    assert shown.startswith("possibilities are:\ndiscover\n")
    assert shown.endswith("uncorrupt\ndid you mean smtpctl show queue?\n")
    status, shown = _with_terminal(["show", "queue", "--sendr", "x"])
    assert status == 2
    assert shown == "smtpctl: unknown option --sendr\ndid you mean --sender?\n"
    assert _with_terminal([])[1].endswith("smtpctl --help shows what the words mean\n")


# A handler made of one line of Python, in the place of every other.
_HANDLER = f"""
import sys
sys.path.insert(0, {str(_ROOT)!r})
from smtpd_core import errors
from smtpd_core.cli import main, output
def handler(context, arguments):
    {{body}}
sys.exit(main.run("smtpctl", ["show", "stats"], lambda name: handler))
"""


def _failing(body: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-ISBc", _HANDLER.format(body=body)],
        check=False,
        timeout=20,
        **{"capture_output": True, "env": {}, **more},
    )


@pytest.mark.parametrize(
    ("body", "status", "stderr"),
    [
        ("raise errors.AccessError('x: not there')", 1, "smtpctl: x: not there\n"),
        ("raise errors.FormatError('line 1: bad')", 1, "smtpctl: line 1: bad\n"),
        ("raise errors.RemoteError('gone')", 1, "smtpctl: gone\n"),
        ("raise errors.UsageError('--limit x: no number')", 2, "smtpctl: --limit x: no number\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("raise output.OutputClosedError", 141, ""),
        ("return 7", 7, ""),
    ],
)
def test_what_a_handler_raises_is_one_line(body: str, status: int, stderr: str) -> None:
    done = _failing(body)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (status, b"", stderr)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise MemoryError", "MemoryError"),
        ("handler(context, arguments)", "RecursionError: maximum recursion depth exceeded"),
        ("raise errors.LocalError('twice')", "LocalError: twice"),
        ("open('/nonexistent')", "FileNotFoundError: [Errno 2] No such file or directory"),
        ("raise ValueError('two\\nlines')", "ValueError: two\\nlines"),
    ],
)
def test_our_mistakes_are_one_line(body: str, said: str) -> None:
    done = _failing(body)
    assert done.returncode == 70
    assert done.stderr.startswith(f"smtpctl: internal error: {said}".encode())
    assert done.stderr.endswith(b"(please report; SMTPCTL_DEBUG=1 shows where)\n")
    assert done.stderr.count(b"\n") == 1


def test_debugging_shows_where() -> None:
    done = _failing("1 / 0", env={"SMTPCTL_DEBUG": "1"})
    assert done.returncode == 70
    assert b"Traceback (most recent call last):\n" in done.stderr
    assert done.stderr.endswith(b"\nZeroDivisionError: division by zero\n")


def test_output_written_before_a_failure_arrives_before_it() -> None:
    done = _failing(
        "context.output.line('half'); raise errors.AccessError('no more')",
        capture_output=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.stdout == b"half\nsmtpctl: no more\n"


@pytest.mark.parametrize("ending", ["return 0", "raise errors.AccessError('no more')", "1 / 0"])
def test_a_closed_pipe_ends_quietly(ending: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = _failing(
        f"context.output.line('x'); {ending}",
        capture_output=False,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("ending", ["return 0", "raise errors.AccessError('no more')"])
def test_a_full_disk_is_a_failure(ending: str) -> None:
    with open("/dev/full", "wb") as full:
        done = _failing(
            f"context.output.line('x'); {ending}",
            capture_output=False,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert done.stderr == b"smtpctl: standard output: No space left on device\n"


def test_an_interrupt_from_outside_ends_quietly() -> None:
    body = f"import os; os.kill(os.getpid(), {signal.SIGINT.value}); [0 for _ in range(10**6)]"
    done = _failing(body)
    assert (done.returncode, done.stderr) == (130, b"")


def test_closed_descriptors_and_an_empty_environment() -> None:
    code = f"{_START}sys.exit(main())"
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -ISBc "$1" show stats >&- 2>&- <&-', sys.executable, code],
        env={},
        check=False,
        timeout=20,
    )
    assert done.returncode == 1


def test_a_name_in_another_encoding_is_shown_escaped() -> None:
    done = _smtpctl(["trace", b"\xff\x1b[31m"], stderr=subprocess.PIPE)  # type: ignore[list-item]
    assert done.stderr == b"smtpctl: invalid trace keyword: \\xff\\x1b[31m\n"


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_no_option_is_accepted_by_a_command_it_is_not_for(
    option: str, capfd: pytest.CaptureFixture[str]
) -> None:
    known = OPTIONS[option]
    value = [(known.choices or ["1"])[0]] if known.metavar else []
    status = run("smtpctl", ["show", "stats", option, *value])
    if known.belongs_to("show stats"):
        assert status == 0
    else:
        assert status == 2
        assert capfd.readouterr().err == f"smtpctl: {option} means nothing to show stats\n"


@pytest.mark.parametrize(
    ("name", "arguments"), [("smtpd", ["-h"]), ("smtpctl", ["smtpd", "-h"]), ("smtpd.pyz", ["-h"])]
)
def test_the_daemon_takes_its_arguments_itself(
    name: str, arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(name, arguments) == 1
    assert "usage: smtpd [-dFhnv]" in capfd.readouterr().err


def test_the_unit_of_the_daemon(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("smtpctl", ["systemd-unit"]) == 0
    assert "[Service]" in capfd.readouterr().out
