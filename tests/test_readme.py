"""README shows real output: each of its commands is run, and prints what stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What the README calls by names of its own.
SPOOLS = {
    "mx1-backup.tar.gz": "demo.tar.gz",
    "damaged.tar.gz": "7.8/corrupt-1/02-half-envelope.tar.gz",
}
_BLOCK = re.compile(r"```console\n\$ (?P<command>[^\n]*)\n(?P<output>.*?)```", re.DOTALL)
_AGE = re.compile(r" {2}[0-9dhms ]{6} (?= *[0-9.]+[km]? )")
_ZONE = re.compile(r"since \S+")
_COUNTS = re.compile(r"^( *[^ \n]+ +[0-9]+) [ 0-9]+", re.MULTILINE)  # by age, in a summary
BLOCKS = [match.groups() for match in _BLOCK.finditer((ROOT / "README.md").read_text())]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a directory with all that the README names."""
    made = tmp_path_factory.mktemp("readme")
    shutil.copy(ROOT / "smtpctl.pyz", made)
    for name, spool in SPOOLS.items():
        shutil.copy(ROOT / "tests/spools" / spool, made / name)
    return made


def timeless(text: str) -> str:
    """Take out what depends on when and where the command runs."""
    return _AGE.sub("  (age) ", _ZONE.sub("since ...", _COUNTS.sub(r"\1 ...", text)))


@pytest.mark.parametrize(("command", "expected"), BLOCKS, ids=[block[0] for block in BLOCKS])
def test_shown_output_is_real(command: str, expected: str, directory: Path) -> None:
    printed = subprocess.run(
        ["/bin/sh", "-c", f"{command} 2>&1"],
        cwd=directory,
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=False,
    ).stdout.decode()
    assert timeless(printed) == timeless(expected)


def test_there_is_a_rescue_to_see() -> None:
    assert len(BLOCKS) >= 4


def test_nothing_is_left_to_be_filled_in() -> None:
    assert not re.findall(r"^[A-Z]{3,}$", (ROOT / "README.md").read_text(), re.MULTILINE)
