from __future__ import annotations

import pytest

from smtpd_core.cli import commands
from smtpd_core.cli.main import run

_DOWN = "smtpctl: smtpd doesn't seem to be running\n"


@pytest.mark.parametrize(
    "line",
    """
    show stats,monitor,pause mda,remove all,schedule 1a2b3c4d,stop,update table x
    uncorrupt 1a2b3c4d,show sizes,show mta paused,trace imsg,trace transfer,trace mta
    untrace all,profile queue
    """.strip()
    .replace("\n", ",")
    .split(","),
)
def test_the_daemon_is_missed(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("smtpctl", line.split()) == 1
    assert capfd.readouterr() == ("", _DOWN)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("trace nope", "trace"),
        ("untrace nope", "trace"),
        ("profile nope", "profile"),
        ("unprofile nope", "profile"),
        ("profile smtp", "profile"),
        ("trace queue", "trace"),
        ("trace ", "trace"),
    ],
)
def test_keywords_are_checked_first(
    line: str, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = line.split(" ")
    assert run("smtpctl", words) == 1
    assert capfd.readouterr() == ("", f"smtpctl: invalid {kind} keyword: {words[1]}\n")


def test_every_command_with_keywords_exists() -> None:
    patterns = {pattern for pattern, _ in commands.COMMANDS}
    assert patterns.issuperset(f"{word} <str>" for word in commands.KEYWORDS)


def test_spf_walk_says_that_it_cannot(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("smtpctl", ["spf", "walk"]) == 1
    assert capfd.readouterr() == ("", "smtpctl: spf walk is not available in this release\n")
