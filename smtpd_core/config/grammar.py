"""Read smtpd.conf, the grammar of OpenSMTPD 6.4 and later, as of 7.8.

The verdict is the original's, and the lines blamed are the lines it blames. Where we decide
otherwise, the module of the statement says so. Two things are bounded that are not there: how far
files include files, and how much macros expand to.

Source: smtpd.conf(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, Mapping, Optional, Tuple

from smtpd_core.config import directives, filters, operands, rules
from smtpd_core.config.actions import action
from smtpd_core.config.draft import Draft, Machine
from smtpd_core.config.lexer import END, NEWLINE, STRING
from smtpd_core.config.listeners import listen
from smtpd_core.config.problems import ConfigError, Place, Problem
from smtpd_core.config.tokens import FatalError, StatementError, TokenStream

if TYPE_CHECKING:
    from smtpd_core.config.model import Config

MAX_TEXT = directives.MAX_FILE

_STATEMENTS: Dict[str, Callable[[TokenStream, Draft], None]] = {
    "action": action,
    "admd": directives.admd,
    "bounce": directives.bounce,
    "ca": directives.ca,
    "filter": filters.filter_,
    "include": directives.include,
    "listen": listen,
    "match": rules.match,
    "mda": directives.mda,
    "mta": directives.mta,
    "pki": directives.pki,
    "proc": filters.proc,
    "queue": directives.queue,
    "scheduler": directives.scheduler,
    "smtp": directives.smtp,
    "srs": directives.srs,
    "table": operands.table,
}


def parse_config(
    text: str,
    name: str,
    read: Callable[[str], bytes],
    macros: Optional[Mapping[str, str]] = None,
    machine: Optional[Machine] = None,
) -> Config:
    """Read a configuration; name is what its file is called in messages.

    read gives the octets of included files and of table files, or raises OSError. macros are
    those of the command line, which the file cannot change.
    Raises ConfigError with every problem the original would tell of.
    """
    tokens = TokenStream(text, name, dict(macros or {}))
    draft = Draft(read, machine or Machine())
    if len(text) > MAX_TEXT:
        raise ConfigError((Problem(Place(name, 0), f"more than {MAX_TEXT} characters"),))
    try:
        _statements(tokens, draft)
        if not draft.rules:
            tokens.problems.append(Problem(Place(name, 0), "no rules, nothing to do"))
    except FatalError:
        assert tokens.problems
    if tokens.problems:
        raise ConfigError(tuple(tokens.problems), tuple(tokens.warnings))
    return draft.freeze(name, tokens.warnings)


def split_macro(argument: str) -> Optional[Tuple[str, str]]:
    """Part `name=value`, as given on a command line, at its last sign; None without one."""
    name, sign, value = argument.rpartition("=")
    return (name, value) if sign else None


def _statements(tokens: TokenStream, draft: Draft) -> None:
    """Read all statements, going on after those that are refused."""
    while True:
        kind = tokens.begin()
        try:
            if kind == END:
                return
            if kind == STRING:
                directives.macro(tokens, draft)
            elif kind in _STATEMENTS:
                tokens.take()
                _STATEMENTS[kind](tokens, draft)
            tokens.expect(NEWLINE)
        except StatementError:
            tokens.recover()
            if not tokens.accept(NEWLINE):
                return
