"""Reading .forward: what is read, and what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable

import pytest

from smtpd_core.daemon.forward import read_forward, read_include
from smtpd_core.ipc.messages import MAX_FORWARD, Contents, Refused

if TYPE_CHECKING:
    from pathlib import Path

UID = os.geteuid()
TEXT = b"other@example.org\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(mode=0o755)
    file = path / ".forward"
    file.write_bytes(TEXT)
    file.chmod(0o644)
    return path


def test_an_ordinary_one(home: Path) -> None:
    assert read_forward(str(home), UID) == Contents(TEXT)


def test_none(home: Path) -> None:
    (home / ".forward").unlink()
    assert read_forward(str(home), UID) == Contents(None)
    home.chmod(0o777)  # nothing is read there
    assert read_forward(str(home), UID) == Contents(None)
    assert read_forward(str(home / "nowhere"), UID) == Contents(None)
    assert read_forward("", UID) == Refused(": not an absolute path", permanent=True)


def test_an_empty_one(home: Path) -> None:
    (home / ".forward").write_bytes(b"")
    assert read_forward(str(home), UID) == Contents(b"")


def test_one_that_is_too_long(home: Path) -> None:
    (home / ".forward").write_bytes(b"x" * 3 * MAX_FORWARD)
    assert read_forward(str(home), UID) == Contents(b"x" * MAX_FORWARD)


def _link(home: Path) -> None:
    (home / ".forward").rename(home / "elsewhere")
    (home / ".forward").symlink_to("elsewhere")


def _fifo(home: Path) -> None:
    (home / ".forward").unlink()
    os.mkfifo(home / ".forward", 0o600)


@pytest.mark.parametrize(
    "spoil",
    [
        _link,
        _fifo,
        lambda home: (home / ".forward").chmod(0o664),
        lambda home: (home / ".forward").chmod(0o646),
        lambda home: home.chmod(0o775),
        lambda home: home.chmod(0o757),
    ],
    ids=["link", "fifo", "group may write", "others may write", "home: group", "home: others"],
)
def test_unsafe(home: Path, spoil: Callable[[Path], None]) -> None:
    spoil(home)
    answer = read_forward(str(home), UID)
    assert isinstance(answer, Refused)
    assert answer.permanent


def test_of_somebody_else(home: Path) -> None:
    answer = read_forward(str(home), UID + 1)
    assert isinstance(answer, Refused)
    assert answer.permanent


def test_a_sticky_home_says_not_now(home: Path) -> None:
    home.chmod(0o1755)
    assert read_forward(str(home), UID) == Refused(f"{home}: is sticky", permanent=False)


def test_includes(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(TEXT)
    (tmp_path / "link").symlink_to("list")
    assert read_include(str(path)) == Contents(TEXT)
    assert read_include(str(tmp_path / "link")) == Contents(TEXT)
    assert read_include(str(tmp_path / "none")) == Contents(None)
    for bad in ("list", str(tmp_path), "/dev/null"):
        assert isinstance(read_include(bad), Refused)
