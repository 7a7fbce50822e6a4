"""The manual page and the tables of the command line say the same."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

from smtpd_core.cli import commands, context, grammar
from smtpd_core.cli import help as help_texts
from smtpd_core.cli.options import OPTIONS, SHORT, parse

_PAGE = pathlib.Path(__file__).parent.parent / "man" / "smtpctl.8"
_SOURCE = _PAGE.read_text()
_MACRO = re.compile(r"(?<!\S)(?:Op|Ar|Cm|Oo|Oc|No|\|)(?!\S)")
# What the manual calls a parameter, and the grammar's word for it.
_PARAMETERS = {"evpid", "msgid", "addr", "str", "routeid"}


def _section(name: str) -> str:
    return _SOURCE.partition(f"\n.Sh {name}\n")[2].partition("\n.Sh ")[0]


def _entries(section: str, macro: str) -> dict[str, str]:
    """Give the list entries of a section: the rest of the `.It` line, and the text below."""
    pieces = re.split(rf"^\.It {macro} ", _section(section), flags=re.MULTILINE)[1:]
    entries = {}
    for piece in pieces:
        head, _, body = piece.partition("\n")
        assert head not in entries, f"{head} has two entries"
        entries[head] = body
    return entries


def _command_key(head: str) -> str:
    """Read `resume mta from Ar addr Cm for Ar str` as the key `resume mta from`."""
    return _MACRO.split(head)[0].strip()


_COMMANDS = {_command_key(head): (head, body) for head, body in _entries("COMMANDS", "Ic").items()}
_OPTIONS = {f"-{head.split()[0]}": (head, body) for head, body in _entries("OPTIONS", "Fl").items()}


def test_every_command_has_an_entry_and_the_reverse() -> None:
    assert sorted(_COMMANDS) == sorted(help_texts.command_keys())


@pytest.mark.parametrize("key", help_texts.command_keys())
def test_the_parameters_of_a_command(key: str) -> None:
    head = _COMMANDS[key][0]
    patterns = [
        pattern.split()
        for pattern, _ in commands.COMMANDS
        if grammar.key(tuple(pattern.split())) == key
    ]
    words = {word.strip("<>") for pattern in patterns for word in pattern}
    words = {"command" if word == "..." else word for word in words}
    assert set(_MACRO.sub(" ", head).split()) == words
    optional = any(len(pattern) == len(key.split()) for pattern in patterns) or key == "help"
    assert ("Op " in head) == (optional and words != set(key.split()))
    for parameter in _PARAMETERS & words:
        assert re.search(rf"Ar (?:\w+ \| )?{parameter}\b", head)


def test_every_option_has_an_entry_and_the_reverse() -> None:
    assert sorted(_OPTIONS) == sorted(OPTIONS)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_value_of_an_option(name: str) -> None:
    option = OPTIONS[name]
    head, body = _OPTIONS[name]
    assert head.partition(" Ar ")[2] == option.metavar
    named = body.replace(",", " ").split()
    for choice in option.choices:
        assert choice in named
    for letter, meant in SHORT.items():
        assert (f".Fl {letter[1:]}\n" in body) == (meant == name)


def test_every_keyword_is_named() -> None:
    for command, keywords in commands.KEYWORDS.items():
        if not command.startswith("un"):  # which refer to the other
            named = _COMMANDS[command][1].replace(",", " ").split()
            assert set(keywords) <= set(named)


def test_every_exit_status_is_explained() -> None:
    given = {value for name, value in vars(context).items() if name.startswith("EXIT_")}
    explained = re.findall(r"^\.It (\d+)$", _section("EXIT STATUS"), flags=re.MULTILINE)
    assert sorted(given) == [int(status) for status in explained]


def test_every_variable_that_is_read_is_explained() -> None:
    read = set()
    for path in (_PAGE.parent.parent / "smtpd_core" / "cli").glob("*.py"):
        read.update(re.findall(r"environ\.get\(\"(\w+)\"", path.read_text()))
    explained = set(re.findall(r"^\.It Ev (\w+)$", _section("ENVIRONMENT"), flags=re.MULTILINE))
    assert read <= explained
    assert "SMTPCTL_QUEUE_KEY" in explained


def test_examples_are_command_lines_that_exist() -> None:
    lines = re.findall(r"smtpctl ([^|>\n;]+)", _section("EXAMPLES").replace("\\(aq", ""))
    assert len(lines) > 12
    for line in lines:
        arguments = [word if word != '"$id"' else "1a2b3c4d" for word in line.split()]
        words, options = parse(arguments)
        options.check(grammar.match(words)[1])


def test_the_page_has_the_manual_sections() -> None:
    sections = re.findall(r"^\.Sh (.+)$", _SOURCE, flags=re.MULTILINE)
    for section in ("EXAMPLES", "EXIT STATUS", "ENVIRONMENT", "FILES", "COMPATIBILITY"):
        assert section in sections


@pytest.mark.system
def test_mandoc_has_nothing_to_say() -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not here")
    for page in sorted(_PAGE.parent.glob("*.[1-9]")):
        done = subprocess.run(
            [mandoc, "-T", "lint", str(page)], capture_output=True, check=False, timeout=20
        )
        # Which other manuals this machine has is no property of ours.
        said = [
            line for line in done.stdout.decode().splitlines() if "manual not found" not in line
        ]
        assert said == []
