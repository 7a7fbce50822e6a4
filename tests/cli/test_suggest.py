from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.cli import grammar, suggest


@pytest.mark.parametrize(
    ("left", "right", "far"),
    [
        ("", "", 0),
        ("queue", "queue", 0),
        ("quee", "queue", 1),
        ("quuee", "queue", 1),
        ("shwo", "show", 1),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        ("ca", "abc", 3),
    ],
)
def test_distance(left: str, right: str, far: int) -> None:
    assert suggest.distance(left, right) == far


@given(st.text(max_size=8), st.text(max_size=8))
def test_distance_is_symmetric_and_bounded(left: str, right: str) -> None:
    far = suggest.distance(left, right)
    assert far == suggest.distance(right, left)
    assert abs(len(left) - len(right)) <= far <= max(len(left), len(right))
    assert (far == 0) == (left == right)


@pytest.mark.parametrize(
    ("line", "guess"),
    [
        ("shwo queue", "did you mean smtpctl show queue?"),
        ("show queu", None),  # a prefix: no mistake
        ("show qeue", "did you mean smtpctl show queue?"),
        ("LOG brief", "did you mean smtpctl log brief?"),
        ("show sta", "did you mean smtpctl show stats or smtpctl show status?"),
        # Of two that the letters allow, the one for which the rest makes sense.
        ("show m 1a2b3c4d", "did you mean smtpctl show message 1a2b3c4d?"),
        ("slefttest", "did you mean smtpctl selftest?"),  # our words are guessed at as well
        ("xyzzy", ""),
        ("show", ""),
        ("", "did you mean"),
        ("show stats extra", ""),
        ("pause mta from 192.0.2.1 fro x", "did you mean smtpctl pause mta from 192.0.2.1 for x?"),
        ("show queue 1a2b", ""),
    ],
)
def test_commands(line: str, guess: str | None) -> None:
    words = line.split(" ")
    if guess is None:
        grammar.match(words)
        return
    with pytest.raises(grammar.GrammarError) as caught:
        grammar.match(words)
    said = suggest.command(caught.value, "smtpctl")
    if guess != "did you mean":
        assert said == guess


def test_no_words_at_all_are_told_where_help_is() -> None:
    with pytest.raises(grammar.GrammarError) as caught:
        grammar.match([])
    assert suggest.command(caught.value, "smtpctl") == "smtpctl --help shows what the words mean"


@pytest.mark.parametrize(
    ("option", "guess"),
    [
        ("--spol", "did you mean --spool?"),
        ("-spool", "did you mean --spool?"),
        ("--form", "did you mean --format?"),
        ("--so", "did you mean --sort?"),
        ("--re", "did you mean --recipient or --reverse?"),
        ("--xyzzy", ""),
        ("-", ""),
    ],
)
def test_options(option: str, guess: str) -> None:
    assert suggest.option(option) == guess


def test_hostile_lengths_are_not_guessed_at() -> None:
    assert suggest.closest("q" * 100_000, ["queue"]) == []
