"""Passwords of system users."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from smtpd_core.daemon.passwords import check_password
from smtpd_core.tables.password import hash_password

if TYPE_CHECKING:
    from pathlib import Path

USER = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_passwd == "x")
HASHED = hash_password(b"right", "sha512", entropy=os.urandom)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{USER}:{HASHED}:19000:0:99999:7:::", True),
        (f"{USER}:{HASHED}:19000:0:99999:7::1:", False),  # ended in 1970
        (f"{USER}:!{HASHED}:19000:0:99999:7:::", False),
        (f"{USER}:*:19000:0:99999:7:::", False),
        (f"{USER}::19000:0:99999:7:::", False),  # a login without a password is none here
        (f"{USER}:nonsense:19000:0:99999:7:::", False),
        (f"{USER}x:{HASHED}:19000:0:99999:7:::", False),
        ("", False),
    ],
)
def test_the_shadow_file(line: str, expected: bool, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text(f"first:*:1:0:99999:7:::\n{line}\n")
    assert check_password(USER, "right", str(shadow)) is expected
    assert check_password(USER, "wrong", str(shadow)) is False
    assert check_password("no-such-user", "right", str(shadow)) is False


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert check_password(USER, "right", str(tmp_path / "none")) is None
