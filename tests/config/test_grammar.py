"""The whole grammar: real configurations, every keyword, and whatever else is thrown at it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_core.config.check import certificate_problems
from smtpd_core.config.directives import MAX_FILE, MAX_FILES, MAX_FILES_OPEN
from smtpd_core.config.draft import Machine
from smtpd_core.config.grammar import MAX_TEXT, parse_config, split_macro
from smtpd_core.config.lexer import END, KEYWORDS, MAX_EXPANDED, Lexer
from smtpd_core.config.problems import ConfigError, Problem
from smtpd_core.config.tokens import MAX_PROBLEMS

if TYPE_CHECKING:
    from smtpd_core.config.model import Config

CONF = Path(__file__).parent.parent / "conf"
CORPUS: List[Dict[str, Any]] = json.loads((CONF / "verdicts.json").read_text())
VERDICTS = [(entry, setting) for entry in CORPUS for setting in entry["verdicts"]]

# Where the tests were made, and what was added there for the settings other than plain.
INTERFACES = {"lo", "localhost"}
ADDED = {"eth0", "ens3", "vio0", "trunk0", "lo0", "egress", "docker0", "bse0"}

UNUSED = {"data-line", "noop", "quit", "recipient", "rset", "smtp-in", "smtp-out", "tagged"}
EVERYTHING_FILES = {
    "/etc/more.conf": b"# nothing more\n",
    "/etc/mail/people": b"root: a\n",
    "/etc/mail/hashed.db": b"\0",
}


def as_printed(problem: Problem) -> str:
    """Spell a problem as the original prints it."""
    if problem.fatal:
        return f"smtpd: {problem.text}"
    return str(problem) if problem.where.line else f"warn: {problem.text}"


def stubs(entry: Dict[str, Any]) -> Dict[str, bytes]:
    contents = {"list": b"item\n", "mapping": b"key value\n"}
    pem = b"-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"
    return {
        **{path: contents[kind] for path, kind in entry["tables"].items()},
        **dict.fromkeys(entry["pem"], pem),
    }


def everything() -> Config:
    def read(path: str) -> bytes:
        return EVERYTHING_FILES[path]

    def addresses(name: str) -> Sequence[str]:
        return {"lo": ["127.0.0.1", "::1"], "eth0": ["192.0.2.1"]}[name]

    text = (CONF / "everything.conf").read_text()
    return parse_config(text, "everything.conf", read, machine=Machine(addresses))


def without_files(path: str) -> bytes:
    raise FileNotFoundError(2, "No such file or directory", path)


@pytest.mark.parametrize(
    ("entry", "setting"), VERDICTS, ids=[f"{entry['file']}-{how}" for entry, how in VERDICTS]
)
def test_same_verdict_and_same_lines_as_the_original(entry: Dict[str, Any], setting: str) -> None:
    text = (CONF / entry["file"]).read_bytes().decode()
    if setting == "stubbed_all_replaced":
        text = text.replace("listen on all", "listen on 192.0.2.25")
    files = {"/etc/aliases": b"root: a\n"}
    interfaces = set(INTERFACES)
    if setting != "plain":
        files.update(stubs(entry))
        interfaces |= ADDED

    def read(path: str) -> bytes:
        return files[path] if path in files else without_files(path)

    def addresses(name: str) -> Sequence[str]:
        return ("192.0.2.1", "2001:db8::1") if name in interfaces else ()

    problems: Sequence[Problem]
    try:
        config = parse_config(text, "/etc/smtpd.conf", read, machine=Machine(addresses))
        problems = certificate_problems(config, read)[:1]  # the original stops at the first
    except ConfigError as error:
        problems = error.problems
    assert [as_printed(problem) for problem in problems] == entry["verdicts"][setting]["messages"]
    assert (not problems) is entry["verdicts"][setting]["accept"]


def test_the_corpus_is_whole() -> None:
    assert len(CORPUS) == 32
    assert {entry["file"] for entry in CORPUS} == {path.name for path in CONF.glob("0*.conf")}


def test_every_keyword_is_used_by_a_configuration_that_is_accepted() -> None:
    config = everything()
    assert not config.warnings
    text = (CONF / "everything.conf").read_text()
    lexer = Lexer(text, "everything.conf", pytest.fail)
    lexer.define("host_name", "mx.example.org")
    lexer.define("both", "inet4 tls")
    seen = set()
    kind = lexer.next().kind
    while kind != END:
        seen.add(kind)
        kind = lexer.next().kind
    assert seen >= KEYWORDS - UNUSED
    assert not seen & UNUSED


def test_every_item_knows_its_line() -> None:
    config = everything()
    lines = (CONF / "everything.conf").read_text().split("\n")
    for word, places in {
        "listen": [listener.where for listener in config.listeners] + [config.socket.where],
        "action": [action.where for action in config.actions.values()],
        "match": [rule.where for rule in config.rules],
        "pki": [pki.where for pki in config.pkis.values()],
        "ca": [ca.where for ca in config.cas.values()],
        "table": [t.where for t in config.tables.values() if not t.name.startswith("<")],
        "filter": [f.where for f in config.filters.values() if not f.name.startswith("<")],
        "proc": [config.processors["shared"].where],
    }.items():
        assert places
        for place in places:
            assert place.file == "everything.conf"
            assert lines[place.line - 1].startswith(word)


@pytest.mark.parametrize("word", sorted(UNUSED))
def test_words_of_no_statement_are_reserved(
    word: str, refused: Callable[..., List[str]], parse: Callable[..., Config]
) -> None:
    assert refused(f"admd {word}") == ["1: syntax error"]
    assert parse(f'admd "{word}"').admd == word


def test_an_empty_configuration_has_nothing_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("", "smtpd.conf", without_files)
    assert [str(p) for p in caught.value.problems] == ["smtpd.conf: no rules, nothing to do"]


def test_the_socket_is_always_there(parse: Callable[..., Config]) -> None:
    config = parse("")
    assert config.socket.where.line == 0
    assert config.socket.dsn


def test_nothing_is_read_after_what_is_fatal(refused: Callable[..., List[str]]) -> None:
    assert refused("foo\nlisten on lo tls\nbar bar bar bar\n") == [
        "1: syntax error",
        "2: invalid listen option: pki required for tls/smtps",
    ]


@pytest.mark.parametrize(
    ("argument", "parted"),
    [
        ("a=b", ("a", "b")),
        ("a=b=c", ("a=b", "c")),
        ("a=", ("a", "")),
        ("a", None),
    ],
)
def test_a_macro_of_the_command_line_parts_at_its_last_sign(argument: str, parted: object) -> None:
    assert split_macro(argument) == parted


def test_included_files_count_their_own_lines(refused: Callable[..., List[str]]) -> None:
    files = {"/a": b'admd a\ninclude "/b"\nadmd', "/b": b"\nadmd b c\n"}
    with pytest.raises(ConfigError) as caught:
        parse_config('\ninclude "/a"\nadmd b c\n', "smtpd.conf", files.__getitem__)
    assert [str(problem) for problem in caught.value.problems] == [
        "/b:2: syntax error",
        "/a:3: syntax error",
        "smtpd.conf:3: syntax error",
        "smtpd.conf: no rules, nothing to do",
    ]
    assert refused('include "/nope"') == ["1: failed to include file /nope"]


def test_an_include_ends_its_statement_at_once() -> None:
    config = parse_config('include "/a" match for any reject', "c", {"/a": b"admd a"}.__getitem__)
    assert config.admd == "a"
    assert len(config.rules) == 1
    assert config.rules[0].where == ("c", 1)


def test_a_file_that_includes_itself_is_stopped(refused: Callable[..., List[str]]) -> None:
    once = refused('include "/a"', files={"/a": b'include "/a"\n'})
    assert once == ["1: failed to include file /a"]
    twice = {"/a": b'include "/a"\ninclude "/a"\n'}
    assert len(refused('include "/a"', files=twice)) <= MAX_PROBLEMS + 1
    many = "".join('include "/b"\n' for _ in range(MAX_FILES + 1))
    assert refused(many, files={"/b": b""}) == [f"{MAX_FILES + 1}: failed to include file /b"]
    assert MAX_FILES_OPEN < MAX_FILES


def test_large_texts_are_refused(refused: Callable[..., List[str]]) -> None:
    assert refused(" " * (MAX_TEXT + 1)) == [f"0: more than {MAX_TEXT} characters"]
    files = {"/a": b" " * (MAX_FILE + 1)}
    assert refused('include "/a"', files=files) == ["1: failed to include file /a"]


def test_macros_do_not_grow_without_end(refused: Callable[..., List[str]]) -> None:
    value = "x" * 8000
    uses = MAX_EXPANDED // 8000 + 1
    text = f"m = {value}\n" + "admd $m\n" * uses
    assert refused(text) == [
        f"{uses + 1}: macros expand to more than {MAX_EXPANDED} characters",
        f"{uses + 1}: syntax error",
    ]


def test_problems_have_an_end(refused: Callable[..., List[str]]) -> None:
    problems = refused("action a b c d\n" * 2000)
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1].endswith("too many errors")


def test_later_macros_win_but_not_over_the_command_line(parse: Callable[..., Config]) -> None:
    assert parse("m = a\nm = b\nadmd $m").admd == "b"
    assert parse("m = a\nadmd $m", macros={"m": "c"}).admd == "c"


def told(text: str, files: Mapping[str, bytes]) -> int:
    """Count the problems of a text; nothing but ConfigError may come out of it."""

    def read(path: str) -> bytes:
        return files[path] if path in files else without_files(path)

    try:
        parse_config(text, "c", read)
    except ConfigError as error:
        return len(error.problems) or -1
    return 0


@given(st.text(max_size=300))
def test_any_text_is_a_configuration_or_refused(text: str) -> None:
    assert 0 <= told(text, {}) <= MAX_PROBLEMS + 1


@settings(deadline=None)
@given(st.lists(st.sampled_from([*sorted(KEYWORDS), *'{}<>!=,"\\$#\n\n\n', "=>", "a", "5"])))
def test_any_tokens_are_a_configuration_or_refused(words: List[str]) -> None:
    assert 0 <= told(" ".join(words), {}) <= MAX_PROBLEMS + 1


@given(st.integers(0, 10**6))
def test_a_damaged_configuration_is_a_configuration_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    text = (CONF / "everything.conf").read_text()
    at = chance.randrange(len(text))
    damaged = text[:at] + chance.choice(["", '"', "{", "\n", "\\", "x", " 5 "])
    damaged += text[at + chance.randrange(3) :]
    assert 0 <= told(damaged, EVERYTHING_FILES) <= MAX_PROBLEMS
