"""Tables and chains of filters, declared or in place."""

from __future__ import annotations

from typing import Callable, Dict, List

import pytest

from smtpd_core.config.draft import Machine
from smtpd_core.config.model import ChainFilter, Config, TableKind
from smtpd_core.config.problems import ConfigError

FILES = {"/list": b"a\n", "/map": b"a b\n", "/bad": b"a b\nc\n", "/db": b"\0"}


@pytest.mark.parametrize(
    ("source", "backend", "config", "kind"),
    [
        ("{ a }", "static", "", TableKind.LIST),
        ("{ a = b }", "static", "", TableKind.MAPPING),
        ('"/list"', "static", "/list", TableKind.LIST),
        ("file:/map", "static", "/map", TableKind.MAPPING),
        ("static:/list", "static", "/list", TableKind.LIST),
        ("static", "static", "", TableKind.UNKNOWN),
        ("db:/db", "db", "/db", TableKind.DYNAMIC),
        ("getpwnam", "getpwnam", "", TableKind.DYNAMIC),
        ("passwd:/nope", "passwd", "/nope", TableKind.DYNAMIC),
        ("proc:/nope", "proc", "/nope", TableKind.DYNAMIC),
        ("ldap:/nope", "ldap", "/nope", TableKind.DYNAMIC),
        ("ldap", "ldap", "", TableKind.DYNAMIC),
    ],
)
def test_backends(
    source: str,
    backend: str,
    config: str,
    kind: TableKind,
    parse: Callable[..., Config],
) -> None:
    table = parse(f"table t {source}", files=FILES).tables["t"]
    assert (table.backend, table.config, table.kind) == (backend, config, kind)
    assert table.where == ("smtpd.conf", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("table t", "1: syntax error"),
        ("table t 5", "1: syntax error"),
        ("table t /list", "1: syntax error"),
        ("table host { a }", "1: syntax error"),
        ("table t { a = b, c }", "1: syntax error"),
        ("table t { a, b = c }", "1: syntax error"),
        ("table t { a = }", "1: syntax error"),
        ("table t { 5 }", "1: syntax error"),
        ("table t { a", "2: syntax error"),
        ("table t file:list", "1: invalid backend parameter for table: t"),
        ('table t "static:"', "1: invalid backend parameter for table: t"),
        ("table t file:/nope", "1: invalid configuration file /nope for table t"),
        ("table t file:/bad", "1: invalid configuration file /bad for table t"),
        ("table t db:/nope", "1: invalid configuration file /nope for table t"),
        ("table t db", "1: invalid configuration file  for table t"),
        ("table t getpwnam:/x", "1: invalid configuration file /x for table t"),
        ("table t { a }\ntable t { b }", '2: table_create: table "t" already defined'),
        ('table "<anyhost>" { a }', '1: table_create: table "<anyhost>" already defined'),
        (f"table {'t' * 2048} {{ a }}", "1: table_create: table name too long"),
        (f"table t file:/{'t' * 4096}", "1: table_create: config file path too long"),
        ("match for domain <t> reject", "1: no such table: t"),
        ("match for domain <t reject", "1: syntax error"),
        ("match for domain 5 reject", "1: syntax error"),
    ],
)
def test_refused_tables(text: str, expected: str, refused: Callable[..., List[str]]) -> None:
    assert refused(text, files=FILES)[0] == expected


def test_why_a_file_is_refused_stands_apart(parse: Callable[..., Config]) -> None:
    details: Dict[str, str] = {}
    for source in ("file:/bad", "file:/nope", "getpwnam:/x"):
        with pytest.raises(ConfigError) as caught:
            parse(f"table t {source}", files=FILES)
        details[source] = caught.value.problems[0].detail
    assert details == {
        "file:/bad": "/bad: line 2: no value for 'c'",
        "file:/nope": "/nope: No such file or directory",
        "getpwnam:/x": "getpwnam takes no file",
    }


def test_an_external_backend_must_be_installed(
    parse: Callable[..., Config], refused: Callable[..., List[str]]
) -> None:
    machine = Machine(has_backend=lambda name: name == "ldap")
    parse("table t ldap:/x\ntable u passwd:/x\ntable v proc:/x", machine=machine)
    assert refused("table t mysql:/x", machine=machine) == [
        '1: table_create: backend "mysql" does not exist'
    ]


def test_tables_in_place_are_numbered(parse: Callable[..., Config]) -> None:
    config = parse("match for domain a reject\nmatch for domain { b,\nc } reject")
    names = [rule.for_.table for rule in config.rules[:2]]
    assert names == ["<dynamic:0>", "<dynamic:1>"]
    assert config.tables["<dynamic:0>"].entries == (("a", None),)
    assert config.tables["<dynamic:1>"].entries == (("b", None), ("c", None))


def test_built_in_tables_can_be_named(parse: Callable[..., Config]) -> None:
    config = parse('table localhost { a }\nmatch from src <"<localhost>"> reject')
    assert config.rules[0].from_.table == "<localhost>"


def test_a_long_key_is_left_out(parse: Callable[..., Config]) -> None:
    config = parse(f"table t {{ {'k' * 1023}, {'k' * 1024} }}")
    assert config.tables["t"].entries == (("k" * 1023, None),)
    assert [warning.where.line for warning in config.warnings] == [1]


DECLARED = """proc p "x"
filter a phase connect match fcrdns junk
filter b proc p
filter c proc p
filter d proc-exec "y"
filter e chain { a }
"""


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ("x", "no filter exist with that name: x"),
        ("e", "no filter chain allowed within a filter chain: e"),
        ("a, a", "no filter allowed twice within a filter chain: a"),
        ("b c", "no proc allowed twice within a filter chain: p"),
        ("", "syntax error"),
        ("a,", "syntax error"),
    ],
)
def test_refused_chains(members: str, expected: str, refused: Callable[..., List[str]]) -> None:
    for text in (
        f"filter z chain {{ {members} }}",
        f"listen on socket filter {{ {members} }}",
        f"action z relay filter {{ {members} }}",
    ):
        assert refused(DECLARED + text) == [f"7: {expected}"]


def test_chains(parse: Callable[..., Config]) -> None:
    config = parse(
        f"{DECLARED}filter z chain {{\na\nb, d }}\nlisten on socket filter {{ a d }}\n"
        "action r relay filter { b }"
    )
    chains = {
        name: chain.members
        for name, chain in config.filters.items()
        if isinstance(chain, ChainFilter)
    }
    assert chains == {
        "e": ("a",),
        "z": ("a", "b", "d"),
        "<dynchain:00000001>": ("a", "d"),
        "<dynchain:00000002>": ("b",),
    }
    assert config.socket.filter == "<dynchain:00000001>"
