"""The command line of smtpd: the original's options, spelled as it spells them, and ours.

Source: OpenSMTPD 7.8, smtpd.c; getopt(3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple

from smtpd_core.config.grammar import split_macro
from smtpd_core.errors import UsageError

_FLAGS = "dhnFv"
_WITH_VALUE = "BDPfTx"
_LONG = {"--spool": "spool", "--socket": "socket", "--workers": "workers", "--users": "users"}
_TRACES = frozenset(
    (
        *("imsg", "io", "smtp", "filters", "mta", "transfer", "bounce", "bounces", "scheduler"),
        *("lookup", "stat", "stats", "rules", "mproc", "expand", "table", "tables", "queue"),
        *("all", "profstat", "profile-imsg", "profile-queue"),
    )
)
SUBSYSTEMS = ("smtp", "mta", "mda")
MAX_WORKERS = 64

USAGE = "usage: smtpd [-dFhnv] [-D macro=value] [-f file] [-P system] [-T trace]"
OURS = """\
       [--spool directory] [--socket path] [--workers number] [--users daemon:queue]
       smtpd systemd-unit [-f file]"""


class OptionError(UsageError):
    """A command line to be answered with the usage; the text goes before it, if there is any."""


@dataclass
class Options:
    """What the command line says; warnings are lines to print."""

    foreground: bool = False
    to_stderr: bool = False
    check_only: bool = False
    help: bool = False
    print_unit: bool = False
    verbose: bool = False
    config: Optional[str] = None
    macros: Dict[str, str] = field(default_factory=dict)
    paused: List[str] = field(default_factory=list)
    traces: List[str] = field(default_factory=list)
    spool: Optional[str] = None
    socket: Optional[str] = None
    users: str = ""
    workers: Optional[int] = None
    warnings: List[str] = field(default_factory=list)


def parse_options(arguments: List[str]) -> Options:
    """Read the arguments after the program's name. Raises OptionError."""
    options = Options()
    waiting = list(arguments)
    if waiting[:1] == ["systemd-unit"]:
        options.print_unit = True
        del waiting[0]
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            _take_long(options, word, waiting)
        elif word.startswith("-") and len(word) > 1:
            _take_short(options, word[1:], waiting)
        else:
            raise OptionError("")
    if waiting:
        raise OptionError("")
    return options


def _take_short(options: Options, letters: str, waiting: List[str]) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in _FLAGS:
            _set_flag(options, letter)
        elif letter not in _WITH_VALUE:
            raise OptionError(f"smtpd: invalid option -- '{letter}'")
        elif letters or waiting:
            value, letters = letters or waiting.pop(0), ""
            _set_value(options, letter, value)
        else:
            raise OptionError(f"smtpd: option requires an argument -- '{letter}'")


def _set_flag(options: Options, letter: str) -> None:
    if letter == "d":
        options.foreground = options.to_stderr = True
    elif letter == "F":
        options.foreground = True
    elif letter == "n":
        options.check_only = True
    elif letter == "v":
        options.verbose = True
    else:
        options.help = True


def _set_value(options: Options, letter: str, value: str) -> None:
    if letter == "f":
        options.config = value
    elif letter == "D":
        macro = split_macro(value)
        if macro is None:
            options.warnings.append(f"warn: could not parse macro definition {value}")
        else:
            options.macros[macro[0]] = macro[1]
    elif letter == "P":
        if value in SUBSYSTEMS:
            options.paused.append(value)
    elif letter == "T":
        if value in _TRACES:
            options.traces.append(value)
            options.verbose = True
        else:
            options.warnings.append(f'warn: unknown trace flag "{value}"')
    elif letter == "B":
        if value not in ("queue=fs", "scheduler=ramqueue", "stat=ram"):
            options.warnings.append(f'warn: invalid backend specifier "{value}"')
    else:  # the original's way of starting its roles
        raise OptionError("smtpd: -x is not used here: roles are forked, not executed")


def _take_long(options: Options, word: str, waiting: List[str]) -> None:
    name, sign, value = word.partition("=")
    if name not in _LONG:
        raise OptionError(f"smtpd: unrecognized option '{word}'")
    if not sign:
        if not waiting:
            raise OptionError(f"smtpd: option '{name}' requires an argument")
        value = waiting.pop(0)
    if name == "--workers":
        options.workers = _workers(value)
    else:
        setattr(options, _LONG[name], value)


def _workers(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= len(value) <= 3):
        raise OptionError(f"smtpd: --workers {value}: not a number")
    number = int(value)
    if not 0 < number <= MAX_WORKERS:
        raise OptionError(f"smtpd: --workers {value}: not between 1 and {MAX_WORKERS}")
    return number


def usage_lines(options: Options, version: str) -> Tuple[str, ...]:
    """Give what -h prints."""
    return (f"version: {version}", USAGE, OURS) if options.help else (USAGE,)
