"""All tables of a configuration, asked as the daemon asks."""

from __future__ import annotations

from typing import Any, Dict, Optional, Union

import pytest

from smtpd_core.config.model import BUILTIN_TABLES, Table, TableKind
from smtpd_core.config.problems import Place
from smtpd_core.routing.rules import Failure
from smtpd_core.tables import service
from smtpd_core.tables.lines import UserInfo
from smtpd_core.tables.password import hash_password
from smtpd_core.tables.service import Lookups, Machine, Sources
from smtpd_core.tables.static import TableError

HERE = Place("conf", 1)
MACHINE = Machine("mx.example.org", ("127.0.0.1", "192.0.2.1", "::1", "[2001:db8::1]"))
HASH = hash_password(b"Secret", "sha512", entropy=bytes)


def declared(name: str, **changes: Any) -> Table:
    return Table(name, HERE, **changes)


def listed(name: str, *entries: str) -> Table:
    return declared(name, kind=TableKind.LIST, entries=tuple((entry, None) for entry in entries))


class Files:
    """The files and users of a machine."""

    def __init__(self) -> None:
        self.contents: Dict[str, bytes] = {
            "/aliases": b"root: bob\n",
            "/passwd": f"eve:{HASH}:5:5::/home/eve:\n".encode(),
        }

    def read(self, path: str) -> bytes:
        if path not in self.contents:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.contents[path]

    def find_user(self, name: str) -> Optional[UserInfo]:
        return UserInfo(name, 1, 2, "/home/bob") if name == "bob" else None


TABLES = [
    listed("hosts", "smtp://a.example.org", "gopher://b", "smtps://c.example.org"),
    listed("empty"),
    declared("aliases", config="/aliases", kind=TableKind.MAPPING),
    declared("passwd", backend="passwd", config="/passwd", kind=TableKind.DYNAMIC),
    declared(
        "creds",
        kind=TableKind.MAPPING,
        entries=(("Bob", f"bob:{HASH}"), ("clear", "bob:Secret"), ("short", "x"), ("off", "o:!x")),
    ),
    declared("senders", kind=TableKind.MAPPING, entries=(("bob", "@example.org"), ("eve", ","))),
]


def opened(files: Optional[Files] = None, *more: Table) -> Lookups[Failure]:
    files = files or Files()
    tables = {table.name: table for table in (*BUILTIN_TABLES.values(), *TABLES, *more)}
    return Lookups(tables, MACHINE, Sources(files.read, files.find_user), Failure)


@pytest.mark.parametrize(
    ("table", "service_name", "key", "expected"),
    [
        ("<anyhost>", "netaddr", "local", True),
        ("<anyhost>", "netaddr", "198.51.100.1", True),
        ("<anyhost>", "netaddr", "[2001:db8::5]", True),
        ("<localhost>", "netaddr", "local", True),
        ("<localhost>", "netaddr", "127.0.0.1", True),
        ("<localhost>", "netaddr", "127.0.0.2", False),
        ("<localhost>", "netaddr", "[::1]", True),
        ("<localhost>", "netaddr", "2001:db8::1", True),
        ("<localnames>", "domain", "localhost", True),
        ("<localnames>", "domain", "MX.example.org", True),
        ("<localnames>", "domain", "mx", False),
        ("<localnames>", "domain", "[192.0.2.1]", True),
        ("<localnames>", "domain", "[IPv6:::1]", True),
        ("<anydestination>", "domain", "anything", True),
        ("<getpwnam>", "userinfo", "bob", True),
        ("aliases", "alias", "ROOT", True),
        ("empty", "domain", "x", False),
    ],
)
def test_matching(table: str, service_name: str, key: str, expected: bool) -> None:
    assert opened().match(table, service_name, key) is expected


@pytest.mark.parametrize(
    ("table", "service_name", "key", "expected"),
    [
        ("aliases", "alias", "root", "bob"),
        ("aliases", "alias", "bob", None),
        ("<getpwnam>", "userinfo", "bob", "1:2:/home/bob"),
        ("<getpwnam>", "userinfo", "eve", None),
        ("passwd", "userinfo", "eve", "5:5:/home/eve"),
        ("senders", "mailaddrmap", "bob", "@example.org"),
    ],
)
def test_values(table: str, service_name: str, key: str, expected: Optional[str]) -> None:
    assert opened().fetch(table, service_name, key) == expected


@pytest.mark.parametrize(
    ("table", "service_name", "key"),
    [
        ("none", "alias", "root"),
        ("hosts", "credentials", "root"),  # a list
        ("senders", "mailaddrmap", "eve"),  # nothing in it
        ("aliases", "userinfo", "root"),  # not uid:gid:home
        ("creds", "credentials", "short"),
        ("<getpwnam>", "alias", "bob"),
        ("aliases", "alias", "x" * 2000),
    ],
)
def test_failures_are_values_of_the_type_of_who_asks(
    table: str, service_name: str, key: str
) -> None:
    found = opened().fetch(table, service_name, key)
    assert isinstance(found, Failure)
    assert found.why.startswith(f"table {table}: ")
    assert not found.permanent


def test_a_match_can_fail_too() -> None:
    assert isinstance(opened().match("none", "domain", "x"), Failure)
    assert isinstance(opened().match("hosts", "domain", "x" * 2000), Failure)


def test_entries_in_turn_and_a_bad_one_stops_no_other() -> None:
    lookups = opened()
    picked = [lookups.pick("hosts", "relayhost") for _ in range(4)]
    assert picked[0] == picked[3] == "smtp://a.example.org"
    assert isinstance(picked[1], Failure)
    assert picked[2] == "smtps://c.example.org"
    assert lookups.pick("empty", "source") is None
    assert isinstance(lookups.pick("<getpwnam>", "source"), Failure)
    assert isinstance(lookups.pick("none", "source"), Failure)


def test_an_update_replaces_all_or_nothing() -> None:
    files = Files()
    lookups = opened(files)
    files.contents["/aliases"] = b"root: eve\nnew: x\n"
    assert lookups.fetch("aliases", "alias", "new") is None
    assert lookups.update("aliases")
    assert lookups.fetch("aliases", "alias", "root") == "eve"
    files.contents["/aliases"] = b"root: mallory\nbroken\n"
    assert not lookups.update("aliases")
    assert lookups.why == "table aliases: /aliases: line 2: no value for 'broken'"
    assert lookups.fetch("aliases", "alias", "root") == "eve"
    del files.contents["/aliases"]
    assert not lookups.update("aliases")
    assert lookups.why == "table aliases: /aliases: No such file or directory"
    assert not lookups.update("none")
    assert lookups.why == 'no table is called "none"'
    assert lookups.update("hosts")
    assert lookups.update("<localnames>")
    assert lookups.match("<localnames>", "domain", "localhost") is True


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (declared("t", config="/none"), "table t: /none: No such file or directory"),
        (declared("t", backend="db", config="/x"), "table t: /x: db tables are not supported yet"),
        (declared("t", backend="ldap"), "table t: ldap tables are not supported yet"),
        (
            declared("t", backend="passwd", config="/aliases"),
            "table t: /aliases: line 1: not name:hash:uid:gid:gecos:home:shell",
        ),
    ],
)
def test_a_table_that_cannot_be_opened(table: Table, why: str) -> None:
    with pytest.raises(TableError) as caught:
        opened(None, table)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("table", "user", "password", "good"),
    [
        ("creds", "bob", "Secret", True),
        ("creds", "BOB", "Secret", True),
        ("creds", "bob", "secret", False),  # equal in the original, for some tables
        ("creds", "bob", "", False),
        ("creds", "off", "x", False),
        ("creds", "mallory", "Secret", False),
        ("creds", "bob:Secret", "Secret", False),
        ("passwd", "eve", "Secret", True),
        ("passwd", "eve", "Secret\0", False),
        ("empty-map", "bob", "x", False),
        ("creds", "clear", "Secret", None),  # a hash is wanted
        ("creds", "short", "x", None),
        ("hosts", "bob", "x", None),
        ("none", "bob", "x", None),
    ],
)
def test_credentials(table: str, user: str, password: str, good: Optional[bool]) -> None:
    lookups = opened(None, declared("empty-map", kind=TableKind.MAPPING))
    found: Union[bool, Failure] = lookups.check_credentials(table, user, password)
    if good is None:
        assert isinstance(found, Failure)
        assert "Secret" not in found.why
    else:
        assert found is good


def test_no_more_passwords_are_checked_at_a_time_than_there_is_memory_for() -> None:
    lookups = opened()
    for _ in range(service.MAX_CHECKS * 3):  # each gives its turn back, whatever comes of it
        assert isinstance(lookups.check_credentials("creds", "clear", "x"), Failure)
        assert lookups.check_credentials("creds", "mallory", "x") is False
