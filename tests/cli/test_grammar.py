from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.cli import commands, grammar

_VECTORS = pathlib.Path(__file__).parent.parent / "vectors" / "cli"

# What our lists have and those of 6.8 and 7.8 do not, by the last line they share.
_ADDED = {
    "spf\n": "spf\nstop\nuncorrupt\n",
    "show status\n": "show status\nshow sizes\n",
    "show queue <msgid>\n": "show queue <msgid>\nshow queue <evpid>\n",
}
# Words that are commands here and were not there.
_ACCEPTED = {
    ("show", "s"): "show stats",  # the tie-break
    ("show", "queue", "0123456789abcdef"): "show queue",
    ("stop",): "stop",
    ("uncorrupt", "12345678"): "uncorrupt",
    ("show", "sizes"): "show sizes",
}


def _recorded(release: str) -> list[tuple[list[str], int, str]]:
    rows = json.loads((_VECTORS / f"errors-{release}.json").read_text())
    return [(row["argv"], row["status"], row["stderr"]) for row in rows]


def _stderr_of(error: grammar.GrammarError) -> str:
    return "".join(f"{line}\n" for line in error.lines())


def _ours(recorded: str) -> str:
    for theirs, extended in _ADDED.items():
        if recorded.endswith("\n" + theirs):
            return recorded[: -len(theirs)] + extended
    return recorded


@pytest.mark.parametrize("release", ["6.8", "7.8"])
def test_recorded_command_lines(release: str) -> None:
    rows = _recorded(release)
    refused = 0
    for words, status, stderr in rows:
        if tuple(words) in _ACCEPTED:
            assert status == 255
            assert grammar.match(words)[1] == _ACCEPTED[tuple(words)]
        elif words == ["stop", "x"]:  # a command with a word too many, not an unknown one
            with pytest.raises(grammar.GrammarError) as caught:
                grammar.match(words)
            assert caught.value.lines() == ["invalid command"]
        elif status == 255:
            with pytest.raises(grammar.GrammarError) as caught:
                grammar.match(words)
            assert _stderr_of(caught.value) == _ours(stderr), words
            refused += 1
        else:
            grammar.match(words)
    assert refused > 50


def test_every_pattern_matches_itself() -> None:
    values = {
        "<msgid>": "1a2b3c4d",
        "<evpid>": "1a2b3c4d5e6f7081",
        "<addr>": "192.0.2.1",
        "<str>": "anything",
        "<routeid>": "7",
        "...": "queue",
    }
    for pattern, handler in commands.COMMANDS:
        words = [values.get(word, word) for word in pattern.split()]
        arguments = [values[word] for word in pattern.split() if word in values]
        matched = grammar.match(words)
        assert matched == (handler, grammar.key(tuple(pattern.split())), arguments), pattern


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("sh s", "show stats"),
        ("sh q", "show queue"),
        ("sh ro", "show routes"),
        ("sh stats", "show stats"),
        ("show si", "show sizes"),
        ("mo", "monitor"),
        ("m", "monitor"),  # mailq is ours and gives way
        ("ma", "mailq"),
        ("h", "help"),
        ("st", "stop"),
        ("se", "selftest"),
        ("c b", "completion bash"),
        ("unc 1a2b3c4d", "uncorrupt"),
        ("e", "encrypt"),
        ("log b", "log brief"),
        ("schedule al", "schedule"),
        ("spf ", "spf walk"),  # an empty word abbreviates everything, here the only child
    ],
)
def test_abbreviations(line: str, key: str) -> None:
    assert grammar.match(line.split(" "))[1] == key


@pytest.mark.parametrize(
    "line", ["s", "show st", "show sta", "show stat", "u", "un", "r", "re", "show h", "pa m", ""]
)
def test_ambiguous_as_in_the_original(line: str) -> None:
    with pytest.raises(grammar.GrammarError) as caught:
        grammar.match(line.split(" "))
    assert caught.value.lines()[0] == "possibilities are:"


def test_our_words_make_no_abbreviation_of_the_manual_ambiguous() -> None:
    first = [pattern.split()[0] for pattern, _ in commands.COMMANDS]
    manual = dict.fromkeys(word for word in first if word not in commands.OURS)
    for word in manual:
        for length in range(1, len(word) + 1):
            prefix = word[:length]
            meant = [other for other in manual if other.startswith(prefix)]
            if prefix in manual:
                meant = [prefix]
            found = grammar.candidates((), list(dict.fromkeys(first)), prefix)
            assert prefix in manual or found == meant


def test_words_of_an_old_release_take_no_abbreviation_from_a_new_one() -> None:
    old = {"stop", "uncorrupt"}
    new = {p.split()[0] for p, _ in commands.COMMANDS} - commands.OURS - old
    for word in new:
        for length in range(1, len(word) + 1):
            if [o for o in new if o.startswith(word[:length])] == [word]:
                assert not [o for o in old if o.startswith(word[:length])]


def test_our_words_are_in_no_list() -> None:
    with pytest.raises(grammar.GrammarError) as caught:
        grammar.match([])
    assert not commands.OURS.intersection(caught.value.lines())
    with pytest.raises(grammar.GrammarError) as caught:
        grammar.match(["completion"])
    assert caught.value.lines()[1:] == ["completion bash", "completion zsh", "completion fish"]


def test_arguments_are_the_values_as_typed() -> None:
    _, key, arguments = grammar.match(["pause", "mta", "from", "2001:db8::1", "for", "example.com"])
    assert (key, arguments) == ("pause mta from", ["2001:db8::1", "example.com"])
    assert grammar.match(["remove", "all"])[2] == []
    assert grammar.match(["show", "message", "0x111111"])[2] == ["0x111111"]
    assert grammar.match(["help", "sh", "q", "1a2b3c4d"])[2] == ["sh", "q", "1a2b3c4d"]


@pytest.mark.parametrize(
    ("parameter", "accepted", "refused"),
    [
        ("<msgid>", ["1a2b3c4d", "0x111111", "+1111111", " 1111111", "ABCDEF01"], ["00000000"]),
        ("<evpid>", ["1a2b3c4d5e6f7081", "-000000000000001"], ["0" * 16, "1a2b3c4d", "z" * 16]),
        ("<routeid>", ["1", "4294967296", "9223372036854775807", " 7", "+7", "007"], []),
        ("<routeid>", [], ["0", "-1", "9223372036854775808", "", "7x", "1" * 5000, "\u0663"]),
        ("<addr>", ["192.0.2.1", "::1", "2001:db8::1", "fe80::1%lo", "2001:db8::1%3"], []),
        ("<addr>", ["ff02::1%lo"], ["2001:db8::1%lo", "ff0e::1%lo", "fe80::1%nosuchlink"]),
        ("<addr>", [], ["192.0.2", "192.0.2.1.1", "localhost", "", "::1%4294967296", "a\0", "%1"]),
        ("<str>", ["", "anything at all"], []),
    ],
)
def test_parameters(parameter: str, accepted: list[str], refused: list[str]) -> None:
    for word in accepted:
        assert grammar.accepts(parameter, word), word
    for word in refused:
        assert not grammar.accepts(parameter, word), word


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_words_are_a_command_or_a_grammar_error(words: list[str]) -> None:
    try:
        handler, key, arguments = grammar.match(words)
    except grammar.GrammarError:
        return
    assert ":" in handler
    assert key
    assert set(arguments) <= set(words)
