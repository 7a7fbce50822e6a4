"""The `filter` and `proc` statements.

`phase auth` is kept as such; the original loses it and runs the filter at connect.

Source: smtpd.conf(5), smtpd-filters(7).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Dict

from smtpd_core.config.model import BuiltinFilter, Criterion, Processor, ProgramFilter
from smtpd_core.config.operands import filter_chain, optional_table, table_operand

if TYPE_CHECKING:
    from smtpd_core.config.draft import Draft
    from smtpd_core.config.tokens import TokenStream

_CONNECT = frozenset({"fcrdns", "rdns", "src"})
_HELO = _CONNECT | {"helo"}
_AUTH = _HELO | {"auth"}
_MAIL_FROM = _AUTH | {"mail-from"}
_RCPT_TO = _MAIL_FROM | {"rcpt-to"}

# What is known in each phase, and may so be asked.
_SUBJECTS = {
    "connect": _CONNECT,
    "helo": _HELO,
    "ehlo": _HELO,
    "auth": _AUTH,
    "mail-from": _MAIL_FROM,
    "rcpt-to": _RCPT_TO,
    "data": _MAIL_FROM,
    "commit": _MAIL_FROM,
}

_WITH_TEXT = frozenset({"reject", "disconnect", "rewrite", "report"})
_WITHOUT_TEXT = frozenset({"junk", "bypass"})


def proc(tokens: TokenStream, draft: Draft) -> None:
    """Read a `proc` statement: a program that several filters may share."""
    name = tokens.string()
    command = tokens.string()
    if name in draft.processors:
        raise tokens.refuse(f"processor already exists with that name: {name}")
    draft.processors[name] = _identity(tokens, Processor(name, tokens.statement, command))


def filter_(tokens: TokenStream, draft: Draft) -> None:
    """Read a `filter` statement of any kind."""
    name = tokens.string()
    if tokens.peek() not in _KINDS:
        raise tokens.syntax_error()
    _KINDS[tokens.take().kind](tokens, draft, name)


def _identity(tokens: TokenStream, processor: Processor) -> Processor:
    """Read as whom and where a program runs."""
    while tokens.peek() in ("user", "group", "chroot"):
        option = tokens.take().kind
        value = tokens.string()
        given = {"user": processor.user, "group": processor.group, "chroot": processor.chroot}
        if given[option] is not None:
            raise tokens.refuse(f"{option} already specified for this processor")
        if option == "user":
            processor = replace(processor, user=value)
        elif option == "group":
            processor = replace(processor, group=value)
        else:
            processor = replace(processor, chroot=value)
    return processor


def _once(tokens: TokenStream, draft: Draft, name: str) -> None:
    if name in draft.filters:
        raise tokens.refuse(f"filter already exists with that name: {name}")


def _shared(tokens: TokenStream, draft: Draft, name: str) -> None:
    processor = tokens.string()
    _once(tokens, draft, name)
    if processor not in draft.processors:
        raise tokens.refuse(f"no processor exist with that name: {processor}")
    draft.filters[name] = ProgramFilter(name, tokens.statement, processor)


def _own_program(tokens: TokenStream, draft: Draft, name: str) -> None:
    command = tokens.string()
    _once(tokens, draft, name)
    draft.filters[name] = ProgramFilter(name, tokens.statement, name)
    processor = _identity(tokens, Processor(name, tokens.statement, command))
    if name in draft.processors:
        tokens.warn(f'proc "{name}" is replaced by the program of this filter')
    draft.processors[name] = processor


def _chain(tokens: TokenStream, draft: Draft, name: str) -> None:
    _once(tokens, draft, name)
    filter_chain(tokens, draft, name)


def _builtin(tokens: TokenStream, draft: Draft, name: str) -> None:
    """Read a filter of one condition; it has its name even if the rest is wrong."""
    _once(tokens, draft, name)
    draft.filters[name] = BuiltinFilter(name, tokens.statement)
    phase = tokens.peek()
    if phase not in _SUBJECTS:
        raise tokens.syntax_error()
    tokens.take()
    tokens.expect("match")
    negated = tokens.accept("!")
    subject = tokens.peek()
    if subject not in _SUBJECTS[phase]:
        raise tokens.syntax_error()
    tokens.take()
    criterion = _criterion(tokens, draft, subject, negated=negated)
    action = tokens.peek()
    if action not in _WITH_TEXT and (action not in _WITHOUT_TEXT or phase == "commit"):
        raise tokens.syntax_error()
    tokens.take()
    draft.filters[name] = BuiltinFilter(
        name,
        tokens.statement,
        phase=phase,
        subject=subject,
        criterion=criterion,
        action=action,
        argument=tokens.string() if action in _WITH_TEXT else "",
    )


def _criterion(tokens: TokenStream, draft: Draft, subject: str, *, negated: bool) -> Criterion:
    """Read what a subject is compared with: nothing, a table, or a table of patterns."""
    if subject == "fcrdns":
        return Criterion(negated)
    regex = tokens.accept("regex")
    if not regex and subject in ("rdns", "auth"):
        table = optional_table(tokens, draft)
        return Criterion(negated, None if table is None else table.name)
    return Criterion(negated, table_operand(tokens, draft).name, regex)


_KINDS: Dict[str, Callable[[TokenStream, Draft, str], None]] = {
    "proc": _shared,
    "proc-exec": _own_program,
    "chain": _chain,
    "phase": _builtin,
}
