"""Read the configuration from its file, and say what is wrong as the original says it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Iterable, List, Mapping, Tuple

from smtpd_core import text
from smtpd_core.config.check import certificate_problems, start_problems, unsupported
from smtpd_core.config.draft import Machine
from smtpd_core.config.grammar import MAX_TEXT, parse_config
from smtpd_core.config.problems import ConfigError, Problem
from smtpd_core.daemon import machine
from smtpd_core.errors import SmtpdError

if TYPE_CHECKING:
    from smtpd_core.config.model import Config

DEFAULT_PATHS = (
    "/etc/smtpd.conf",
    "/etc/mail/smtpd.conf",
    "/etc/smtpd/smtpd.conf",
    "/etc/opensmtpd/smtpd.conf",
    "/usr/local/etc/mail/smtpd.conf",
)
MAX_FILE = 64 << 20  # octets of a table or of an included file
# Where programs of table backends are installed.
BACKEND_DIRECTORIES = (
    "/usr/libexec/opensmtpd",
    "/usr/lib/opensmtpd",
    "/usr/libexec/smtpd",
    "/usr/lib/smtpd/opensmtpd",
    "/usr/local/libexec/opensmtpd",
)


class LoadError(SmtpdError):
    """A configuration that cannot be used; lines are what to print."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


def default_path() -> str:
    """Give the configuration there is, or the name it would have."""
    return next((path for path in DEFAULT_PATHS if os.path.exists(path)), DEFAULT_PATHS[0])


def load(path: str, macros: Mapping[str, str]) -> Tuple[Config, List[str]]:
    """Read a configuration; give it, and lines that warn. Raises LoadError."""
    try:
        source = text.decode(_read(path))
    except OSError as error:
        raise LoadError([f"pushfile: {path}: {error.strerror}"]) from None
    host = Machine(machine.addresses_of, machine.port_of, _has_backend)
    try:
        config = parse_config(source, path, _read, macros, host)
    except ConfigError as error:
        raise LoadError([*_lines(error.warnings), *_lines(error.problems)]) from None
    problems = certificate_problems(config, _read)
    if problems:
        raise LoadError(_lines(problems[:1]))  # the original stops at the first
    return config, list(_lines(config.warnings))


def check_start(config: Config) -> None:
    """Raise LoadError when a daemon cannot run what it was told."""
    problems = (*start_problems(config)[:1], *unsupported(config)[:1])
    if problems:
        raise LoadError(_lines(problems[:1]))


def warn_unsupported(config: Config) -> List[str]:
    """Give a line for each thing that a start would refuse, which -n only tells."""
    return [f"warn: {problem}" for problem in unsupported(config)]


def _lines(problems: Iterable[Problem]) -> Iterable[str]:
    for problem in problems:
        if problem.detail:
            yield problem.detail
        yield f"smtpd: {problem.text}" if problem.fatal else str(problem)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        octets = file.read(MAX_FILE + 1)
    if len(octets) > max(MAX_FILE, MAX_TEXT):
        raise OSError(27, "File too large", path)
    return octets


def _has_backend(backend: str) -> bool:
    name = f"table-{backend}"
    return any(_executable(f"{directory}/{name}") for directory in BACKEND_DIRECTORIES)


def _executable(path: str) -> bool:
    return os.access(path, os.X_OK)
