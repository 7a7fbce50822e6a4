"""All configured tables, open: what the other parts of the daemon ask.

Every answer comes at once, from memory. What cannot be answered is a failure: a value of a type
that the caller chooses, since those who ask tell it from an answer by its type. A table is
replaced as a whole or, when its new content cannot be understood, not at all.

The key of a check of credentials is the user alone; the original looks for `user:password` in
tables of the service auth, in small letters, which makes passwords of different letters equal.

Source: table(5), smtpd.conf(5).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import (
    Callable,
    Dict,
    Generic,
    List,
    Mapping,
    Optional,
    Protocol,
    Tuple,
    TypeVar,
    Union,
)

from smtpd_core.config.model import (
    ANY_DESTINATION,
    ANY_HOST,
    LOCAL_HOST,
    LOCAL_NAMES,
    Table,
    TableKind,
)
from smtpd_core.errors import FormatError
from smtpd_core.tables import lines
from smtpd_core.tables.file import file_table
from smtpd_core.tables.passwd import FindUser, PasswdTable, SystemTable
from smtpd_core.tables.password import PasswordError, verify_password
from smtpd_core.tables.static import StaticTable, TableError
from smtpd_core.text import encode

MAX_CHECKS = 2  # passwords checked at a time: one can take 128 MB
MAX_WAITING_SECONDS = 30  # for a turn to be checked

Failure_ = TypeVar("Failure_")


class Backend(Protocol):
    """What a table is asked; TableError and MatchError tell that it cannot answer."""

    def match(self, service: str, key: str) -> bool:
        """Tell whether a key matches."""

    def fetch(self, service: str, key: str) -> Optional[str]:
        """Give the value of a key."""

    def pick(self, service: str) -> Optional[str]:
        """Give the next entry."""

    def any_value(self) -> Optional[str]:
        """Give some value, for comparisons that are to take their time."""


@dataclass(frozen=True)
class Machine:
    """What tables know of the machine: its name in mail, and the addresses of its interfaces."""

    server_name: str
    addresses: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Sources:
    """Where content comes from: a file's octets, and the users of the system."""

    read: Callable[[str], bytes]
    find_user: FindUser


class Lookups(Generic[Failure_]):
    """All tables, by name."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        machine: Machine,
        sources: Sources,
        fail: Callable[[str], Failure_],
        delimiter: str = "+",
    ) -> None:
        """Open all tables; fail(why) makes the answer to what cannot be answered.

        Raises TableError when a table cannot be opened, with its name.
        """
        self._declared = tables
        self._sources = sources
        self._fail = fail
        self._delimiter = delimiter
        self._checks = threading.BoundedSemaphore(MAX_CHECKS)
        self._tables: Dict[str, Backend] = {
            name: StaticTable(TableKind.LIST, [(entry, None) for entry in entries], delimiter)
            for name, entries in _builtin(machine).items()
        }
        for name, table in tables.items():
            if name not in self._tables:
                self._tables[name] = self._open(table)
        self.why = ""  # of the last update that failed

    def match(self, table: str, service: str, key: str) -> Union[bool, Failure_]:
        """Tell whether a key matches an entry, as the service compares them."""
        try:
            return self._backend(table).match(service, key)
        except FormatError as error:
            return self._fail(f"table {table}: {error}")

    def fetch(self, table: str, service: str, key: str) -> Union[str, Failure_, None]:
        """Give the value of a key, None when there is none.

        A value that the service can make nothing of is a failure.
        """
        try:
            value = self._backend(table).fetch(service, key)
            if value is not None:
                _check_value(service, key, value)
        except FormatError as error:
            return self._fail(f"table {table}: {error}")
        return value

    def pick(self, table: str, service: str) -> Union[str, Failure_, None]:
        """Give the next entry, round robin; None when the table is empty.

        One bad entry is a failure, and the next call gives the next entry.
        """
        try:
            entry = self._backend(table).pick(service)
            if entry is not None:
                _check_value(service, entry, entry)
        except FormatError as error:
            return self._fail(f"table {table}: {error}")
        return entry

    def update(self, table: str) -> bool:
        """Read a table's file again; False when there is no such table, or it cannot be read.

        The old content then stays, and `why` tells the reason.
        """
        declared = self._declared.get(table)
        if declared is None:
            self.why = f'no table is called "{table}"'
            return False
        if table in _BUILTIN or not declared.config:
            return True  # what stands in the configuration itself cannot have changed
        try:
            self._tables[table] = self._open(declared)
        except TableError as error:
            self.why = str(error)
            return False
        return True

    def check_credentials(self, table: str, user: str, password: str) -> Union[bool, Failure_]:
        """Tell whether a password is that of a user: of a listener's table, which has hashes.

        This takes long, for an unknown user as well: call it from a worker thread. Who has to
        wait for others for more than MAX_WAITING_SECONDS gets a failure.
        """
        found = self.fetch(table, "credentials", user)
        if found is not None and not isinstance(found, str):
            return found
        value = found if found is not None else self._backend(table).any_value()
        if value is None:
            return False
        if not self._checks.acquire(timeout=MAX_WAITING_SECONDS):
            return self._fail(f"table {table}: too many passwords to check")
        try:
            secret = lines.parse_credentials(user, value).secret
            good = verify_password(encode(password), secret)
        except (lines.LineError, PasswordError) as error:
            return False if found is None else self._fail(f"table {table}: {user!r}: {error}")
        finally:
            self._checks.release()
        return good and found is not None

    def _backend(self, name: str) -> Backend:
        backend = self._tables.get(name)
        if backend is None:
            raise TableError("there is no such table")
        return backend

    def _open(self, table: Table) -> Backend:
        try:
            return self._opened(table)
        except (TableError, OSError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            where = f"{table.config}: " if table.config else ""
            raise TableError(f"table {table.name}: {where}{reason}") from error

    def _opened(self, table: Table) -> Backend:
        if table.backend == "getpwnam":
            return SystemTable(self._sources.find_user)
        if table.backend == "passwd":
            return PasswdTable(self._sources.read(table.config))
        if table.backend != "static":
            raise TableError(f"{table.backend} tables are not supported yet")
        if table.config:
            return file_table(self._sources.read(table.config), self._delimiter)
        return StaticTable(table.kind, table.entries, self._delimiter)


_BUILTIN = frozenset((ANY_HOST, LOCAL_HOST, LOCAL_NAMES, ANY_DESTINATION))


def _builtin(machine: Machine) -> Mapping[str, List[str]]:
    """Give the entries of the tables that exist without being declared.

    Local names hold each address as an address literal too, which is how it stands in mail.
    """
    addresses = [address.strip("[]") for address in machine.addresses]
    literals = [f"[{address}]" for address in addresses]
    tagged = [f"[IPv6:{address}]" for address in addresses if ":" in address]
    return {
        ANY_HOST: ["local", "0.0.0.0/0", "::/0"],
        LOCAL_HOST: ["local", *addresses],
        LOCAL_NAMES: ["localhost", machine.server_name, *addresses, *literals, *tagged],
        ANY_DESTINATION: ["*"],
    }


def _check_value(service: str, key: str, value: str) -> None:
    """Raise LineError unless a value means something to the service that has asked."""
    check = _CHECKS.get(service)
    if check is not None:
        check(key, value)


_CHECKS: Mapping[str, Callable[[str, str], object]] = {
    "credentials": lines.parse_credentials,
    "userinfo": lines.parse_userinfo,
    "source": lambda _, value: lines.parse_source(value),
    "addrname": lambda _, value: lines.parse_addrname(value),
    "mailaddrmap": lambda _, value: lines.parse_senders(value),
    "relayhost": lambda _, value: lines.parse_relayhost(value),
}
