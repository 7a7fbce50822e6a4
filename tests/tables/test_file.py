"""Tables in files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from smtpd_core.tables.file import file_table, read_file
from smtpd_core.tables.static import TableError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_read_and_understood(tmp_path: Path) -> None:
    path = tmp_path / "aliases"
    path.write_bytes(b"# users\nroot : bob\nPostmaster: root\n2001:db8::1 mail.example.org\n")
    table = file_table(read_file(str(path)))
    assert table.fetch("alias", "root") == "bob"
    assert table.fetch("alias", "postmaster") == "root"
    assert table.fetch("addrname", "[2001:db8::1]") == "mail.example.org"


def test_what_is_no_entry_is_told_with_its_line() -> None:
    with pytest.raises(TableError, match=r"^line 2: "):
        file_table(b"a b\nc\n")


@pytest.mark.parametrize("kind", ["fifo", "directory", "missing"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    with pytest.raises((TableError, OSError)):
        read_file(str(path))
