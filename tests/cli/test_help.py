from __future__ import annotations

import os
import pathlib

import pytest

from smtpd_core.cli import commands, grammar
from smtpd_core.cli import help as help_texts
from smtpd_core.cli.context import Context
from smtpd_core.cli.main import run
from smtpd_core.cli.options import OPTIONS, Options, parse
from smtpd_core.cli.output import Output
from smtpd_core.errors import AccessError

_ROOT = pathlib.Path(__file__).parents[2]


def _shown(line: str, capfd: pytest.CaptureFixture[str]) -> str:
    assert run("smtpctl", line.split()) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    return captured.out


def test_every_command_is_explained_once() -> None:
    listed = [key for _, keys in help_texts.SECTIONS for key in keys.split("|")]
    assert sorted(listed) == sorted(help_texts.command_keys())
    assert set(help_texts.SUMMARIES) == set(help_texts.command_keys())
    assert set(help_texts.EXAMPLES) <= {"", *help_texts.command_keys()}


@pytest.mark.parametrize(
    ("key", "usage"),
    [
        ("show queue", "show queue [<msgid>|<evpid>]"),
        ("show message", "show message <msgid>|<evpid>"),
        ("remove", "remove <evpid>|<msgid>|all"),
        ("encrypt", "encrypt [<str>]"),
        ("pause mta", "pause mta"),
        ("pause mta from", "pause mta from <addr> for <str>"),
        ("help", "help [<command>]"),
    ],
)
def test_usage(key: str, usage: str) -> None:
    assert help_texts.usage(key) == usage


def test_overview_has_everything_examples_first(capfd: pytest.CaptureFixture[str]) -> None:
    shown = _shown("--help", capfd)
    for key in help_texts.command_keys():
        assert f"\n  {help_texts.usage(key)}" in shown
    for option in OPTIONS:
        assert option in shown
    lines = shown.splitlines()
    assert lines[2] == "Examples:"
    assert len(lines) - lines.index("") < 140
    assert shown == _shown("help", capfd) == _shown("-h", capfd)


@pytest.mark.parametrize(
    "words", sorted({p[:n] for q, _ in commands.COMMANDS for p in [q] for n in [len(q)]})
)
def test_every_command_has_help_in_80_columns(
    words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    keywords = [word for word in words.split() if word[0] not in "<."]
    key = grammar.key(tuple(words.split()))
    shown = _shown(f"help {key}", capfd) if key != "help" else _shown("help --help", capfd)
    assert help_texts.SUMMARIES[key] in shown
    assert max(map(len, shown.splitlines())) <= 80
    for option in OPTIONS.values():
        assert (f"  --{option.name}" in shown or f", --{option.name}" in shown) == (
            option.belongs_to(key)
        )
    assert keywords


@pytest.mark.parametrize("line", ["--help", "show --help", "pause --help", "trace --help"])
def test_80_columns(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert max(map(len, _shown(line, capfd).splitlines())) <= 80


def test_help_at_every_level_and_by_abbreviation(capfd: pytest.CaptureFixture[str]) -> None:
    assert _shown("help show queue", capfd) == _shown("show queue --help", capfd)
    assert _shown("help sh q", capfd) == _shown("show --help queue 1a2b3c4d", capfd)
    assert _shown("help show queue --help", capfd) == _shown("help show queue", capfd)
    level = _shown("show --help", capfd)
    assert "show mta paused" in level
    assert "pause mda" not in level
    assert "pause mta from <addr>" in _shown("help pause mta", capfd)


def test_help_for_words_that_are_no_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("smtpctl", ["help", "show", "nothing"]) == 255
    assert capfd.readouterr().err.startswith("possibilities are:\nshow mta\n")


def test_examples_are_command_lines_that_exist() -> None:
    for examples in help_texts.EXAMPLES.values():
        for line, _ in examples:
            for part in line.replace('eval "$(', "").replace(')"', "").split(" | "):
                words = part.partition(" > ")[0].replace("'", "").split()
                if words[0] == "smtpctl":
                    given, options = parse(words[1:])
                    options.check(grammar.match(given)[1])


def test_the_manual_goes_to_a_pipe_as_its_source(capfd: pytest.CaptureFixture[str]) -> None:
    assert _shown("help --man", capfd) == (_ROOT / "man/smtpctl.8").read_text()


def test_a_page_that_is_not_there() -> None:
    with pytest.raises(AccessError, match=r"nothing\.8: the manual page is not part"):
        help_texts.manual("nothing.8")


def _viewer(directory: pathlib.Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _on_terminal(environ: dict[str, str], path: str) -> tuple[int, bytes]:
    """Show the manual on a terminal of our own, with only the programs of one directory."""
    reader, terminal = os.openpty()
    output = Output("smtpctl", environ, out_fd=terminal, err_fd=terminal)
    context = Context(output, Options({"man": True}), environ, 0)
    child = os.fork()
    if child == 0:
        os.environ["PATH"] = path
        os.dup2(terminal, 1)
        status = help_texts.show_help(context, [])
        output.flush()
        os._exit(status)
    os.close(terminal)
    shown = b""
    while True:
        try:
            octets = os.read(reader, 65536)
        except OSError:
            break
        if not octets:
            break
        shown += octets
    os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.replace(b"\r\n", b"\n")


def test_viewers_in_turn(tmp_path: pathlib.Path) -> None:
    source = (_ROOT / "man/smtpctl.8").read_bytes()
    nobody = str(tmp_path)
    assert _on_terminal({}, nobody) == (0, source)
    _viewer(tmp_path, "pager", 'echo "paged with $1"; /usr/bin/head -n 1')
    paged = b"paged with -x\n" + source.split(b"\n")[0] + b"\n"
    environ = {"PAGER": "pager -x"}
    assert _on_terminal(environ, nobody) == (0, paged)
    _viewer(tmp_path, "mandoc", "exit 3")
    assert _on_terminal(environ, nobody) == (0, paged)
    _viewer(tmp_path, "man", 'echo "man $*"')
    assert _on_terminal(environ, nobody) == (0, b"man -l -\n")
    _viewer(tmp_path, "mandoc", 'echo "mandoc $*"')
    assert _on_terminal(environ, nobody) == (0, b"mandoc -a\n")
