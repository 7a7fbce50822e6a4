"""The `filter` and `proc` statements."""

from __future__ import annotations

from typing import Callable, List

import pytest

from smtpd_core.config.model import (
    BuiltinFilter,
    Config,
    Criterion,
    Processor,
    ProgramFilter,
)
from smtpd_core.config.problems import Place

CONDITIONS = ["fcrdns", "rdns", "src a", "helo a", "auth", "mail-from a", "rcpt-to a"]
KNOWN = {  # how many of CONDITIONS a phase may ask for
    "connect": 3,
    "helo": 4,
    "ehlo": 4,
    "auth": 5,
    "mail-from": 6,
    "data": 6,
    "commit": 6,
    "rcpt-to": 7,
}


def test_programs(parse: Callable[..., Config]) -> None:
    config = parse(
        'proc p "x" group g user u chroot c\nfilter f proc p\nfilter g proc-exec "y" user v'
    )
    assert dict(config.processors) == {
        "p": Processor("p", Place("smtpd.conf", 1), "x", "u", "g", "c"),
        "g": Processor("g", Place("smtpd.conf", 3), "y", "v"),
    }
    assert dict(config.filters) == {
        "f": ProgramFilter("f", Place("smtpd.conf", 2), "p"),
        "g": ProgramFilter("g", Place("smtpd.conf", 3), "g"),
    }
    assert not config.warnings


def test_a_processor_that_is_replaced_is_told(parse: Callable[..., Config]) -> None:
    config = parse('proc p "x"\nfilter p proc-exec "y"')
    assert config.processors["p"].command == "y"
    assert [str(warning) for warning in config.warnings] == [
        'smtpd.conf:2: proc "p" is replaced by the program of this filter'
    ]


@pytest.mark.parametrize("phase", KNOWN)
def test_conditions_of_each_phase(
    phase: str, parse: Callable[..., Config], refused: Callable[..., List[str]]
) -> None:
    for number, condition in enumerate(CONDITIONS):
        text = f'filter f phase {phase} match {condition} reject "550 no"'
        if number < KNOWN[phase]:
            read = parse(text).filters["f"]
            assert isinstance(read, BuiltinFilter)
            assert (read.phase, read.subject) == (phase, condition.split()[0])
        else:
            assert refused(text) == ["1: syntax error"]


@pytest.mark.parametrize(
    ("condition", "subject", "criterion"),
    [
        ("fcrdns", "fcrdns", Criterion()),
        ("!fcrdns", "fcrdns", Criterion(negated=True)),
        ("rdns", "rdns", Criterion()),
        ("! rdns <t>", "rdns", Criterion(negated=True, table="t")),
        ("rdns regex <t>", "rdns", Criterion(table="t", regex=True)),
        ("src <t>", "src", Criterion(table="t")),
        ("!src regex <t>", "src", Criterion(negated=True, table="t", regex=True)),
        ("helo <t>", "helo", Criterion(table="t")),
        ("auth", "auth", Criterion()),
        ("auth <t>", "auth", Criterion(table="t")),
        ("auth regex a", "auth", Criterion(table="<dynamic:0>", regex=True)),
        ("mail-from { a }", "mail-from", Criterion(table="<dynamic:0>")),
        ("rcpt-to regex <t>", "rcpt-to", Criterion(table="t", regex=True)),
    ],
)
def test_conditions(
    condition: str, subject: str, criterion: Criterion, parse: Callable[..., Config]
) -> None:
    read = parse(f"table t {{ a }}\nfilter f phase rcpt-to match {condition} junk").filters["f"]
    expected = BuiltinFilter(
        "f", Place("smtpd.conf", 2), "rcpt-to", subject, criterion, action="junk"
    )
    assert read == expected


@pytest.mark.parametrize(
    ("action", "word", "argument"),
    [
        ('reject "550 no"', "reject", "550 no"),
        ('disconnect "421 no"', "disconnect", "421 no"),
        ("rewrite x", "rewrite", "x"),
        ("report x", "report", "x"),
        ("junk", "junk", ""),
        ("bypass", "bypass", ""),
    ],
)
def test_actions(
    action: str,
    word: str,
    argument: str,
    parse: Callable[..., Config],
    refused: Callable[..., List[str]],
) -> None:
    read = parse(f"filter f phase data match fcrdns {action}").filters["f"]
    assert isinstance(read, BuiltinFilter)
    assert (read.action, read.argument) == (word, argument)
    at_commit = f"filter f phase commit match fcrdns {action}"
    if argument:
        parse(at_commit)
    else:
        assert refused(at_commit) == ["1: syntax error"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("filter f", "syntax error"),
        ("filter f x", "syntax error"),
        ("filter phase connect match fcrdns junk", "syntax error"),
        ("filter f phase data-line match fcrdns junk", "syntax error"),
        ("filter f phase connect fcrdns junk", "syntax error"),
        ("filter f phase connect match junk", "syntax error"),
        ("filter f phase connect match fcrdns a junk", "syntax error"),
        ("filter f phase connect match src junk", "syntax error"),
        ("filter f phase connect match fcrdns rdns junk", "syntax error"),
        ("filter f phase connect match fcrdns", "syntax error"),
        ("filter f phase connect match fcrdns reject", "syntax error"),
        ("filter f phase connect match src <x> junk", "no such table: x"),
        ("filter old phase connect match fcrdns junk", "filter already exists with that name: old"),
        ("filter old proc p", "filter already exists with that name: old"),
        ('filter old proc-exec "x"', "filter already exists with that name: old"),
        ("filter old chain { old }", "filter already exists with that name: old"),
        ("filter f proc x", "no processor exist with that name: x"),
        ('proc p "x"', "processor already exists with that name: p"),
        ("proc x", "syntax error"),
        ('proc x "x" user a user b', "user already specified for this processor"),
        ('proc x "x" group a group b', "group already specified for this processor"),
        ('filter f proc-exec "x" chroot a chroot b', "chroot already specified for this processor"),
    ],
)
def test_refused(text: str, expected: str, refused: Callable[..., List[str]]) -> None:
    declared = 'proc p "x"\nfilter old phase connect match fcrdns junk\n'
    assert refused(declared + text) == [f"3: {expected}"]
