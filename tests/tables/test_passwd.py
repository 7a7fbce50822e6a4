"""Users of the system and of passwd files."""

from __future__ import annotations

import os
import pwd
from typing import Optional

import pytest

from smtpd_core.tables.lines import UserInfo
from smtpd_core.tables.passwd import PasswdTable, SystemTable, system_user
from smtpd_core.tables.static import TableError

FILE = b"""\
# users
Bob:$6$x$y:1000:1001:Bob B.:/home/bob:/bin/sh\r
eve::1001:1001::/home/eve:

nologin:!:5:5::/
"""


def test_a_user_of_the_system() -> None:
    me = pwd.getpwuid(os.getuid())
    assert system_user(me.pw_name) == UserInfo(me.pw_name, me.pw_uid, me.pw_gid, me.pw_dir)
    for name in ("", "no such user", "a\0b", "\ud800", "x" * 256):
        assert system_user(name) is None


def find(name: str) -> Optional[UserInfo]:
    if name == "broken":
        raise OSError(5, "Input/output error")
    return UserInfo("bob", 1, 2, "/home/bob") if name == "bob" else None


def test_the_table_of_the_system() -> None:
    table = SystemTable(find)
    assert table.fetch("userinfo", "bob") == "1:2:/home/bob"
    assert table.fetch("userinfo", "eve") is None
    assert table.match("userinfo", "bob")
    assert table.any_value() is None
    with pytest.raises(TableError):
        table.fetch("userinfo", "broken")
    with pytest.raises(TableError):
        table.fetch("credentials", "bob")
    with pytest.raises(TableError):
        table.pick("userinfo")


def test_a_passwd_file() -> None:
    table = PasswdTable(FILE)
    assert table.fetch("userinfo", "BOB") == "1000:1001:/home/bob"
    assert table.fetch("credentials", "bob") == "bob:$6$x$y"
    assert table.fetch("credentials", "eve") is None
    assert table.fetch("userinfo", "eve") == "1001:1001:/home/eve"
    assert table.fetch("credentials", "nologin") == "nologin:!"
    assert table.match("credentials", "bob")
    assert not table.match("userinfo", "mallory")
    assert table.any_value() == "x:$6$x$y"
    with pytest.raises(TableError):
        table.fetch("alias", "bob")
    with pytest.raises(TableError):
        table.pick("userinfo")


@pytest.mark.parametrize("line", [b"bob", b"bob:x:1:1:/home", b":x:1:1::/home:"])
def test_what_is_no_line(line: bytes) -> None:
    with pytest.raises(TableError, match=r"^line 2: "):
        PasswdTable(b"# ok\n" + line + b"\n")
