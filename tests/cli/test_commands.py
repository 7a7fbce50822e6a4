from __future__ import annotations

import pathlib
import sys

import pytest

from smtpd_core.cli import commands

_ROOT = pathlib.Path(__file__).parents[2]


def test_every_handler_can_be_loaded() -> None:
    for _, handler in commands.COMMANDS:
        assert callable(commands.load(handler))


def test_a_handler_that_does_not_exist_is_our_mistake() -> None:
    with pytest.raises(ImportError):
        commands.load("smtpd_core.cli.nothing:at_all")
    with pytest.raises(AttributeError):
        commands.load("smtpd_core.cli.service:nothing")


def test_patterns_are_unique_and_well_formed() -> None:
    patterns = [pattern for pattern, _ in commands.COMMANDS]
    assert len(patterns) == len(set(patterns))
    for pattern in patterns:
        for word in pattern.split():
            assert word in ("...", "<msgid>", "<evpid>", "<addr>", "<str>", "<routeid>") or (
                word.isalpha() and word.islower()
            )


def test_our_words_come_last() -> None:
    ours = [pattern.split()[0] in commands.OURS for pattern, _ in commands.COMMANDS]
    assert ours == sorted(ours)


def test_tie_breaks_choose_a_word_of_the_table() -> None:
    for (path, prefix), word in commands.TIE_BREAKS.items():
        assert word.startswith(prefix)
        assert any(
            pattern.split()[: len(path) + 1] == [*path, word] for pattern, _ in commands.COMMANDS
        )


def test_the_table_loads_nothing_by_itself() -> None:
    assert "smtpd_core.cli.commands" in sys.modules
    source = (_ROOT / "smtpd_core/cli/commands.py").read_text()
    assert "import smtpd_core" not in source
