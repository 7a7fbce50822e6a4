"""A table whose entries are all here: those of the configuration, of a file, of the machine.

Entries keep the order they were written in, which decides between patterns that both match; the
original takes them in the order of their keys. Of two entries with one key the later one counts.
Source: table(5).
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from smtpd_core.config.model import TableKind
from smtpd_core.errors import FormatError
from smtpd_core.tables.matching import Patterns, fold

# Services whose keys are compared, and those whose keys are found as they are written. The key
# of addrname is an address: `::1` and `[::1]` are one.
_COMPARED = frozenset(("domain", "netaddr", "mailaddr", "regex"))
_LOOKED_UP_AS = {"addrname": "netaddr"}


class TableError(FormatError):
    """A table that cannot be read, or a question that it cannot answer."""


class StaticTable:
    """Entries of one table, prepared for a service when it is first asked for."""

    def __init__(
        self,
        kind: TableKind,
        entries: Sequence[Tuple[str, Optional[str]]],
        delimiter: str = "+",
    ) -> None:
        """Take entries; delimiter is that of sub-addresses."""
        unique: Dict[str, Tuple[str, Optional[str]]] = {}
        for key, value in entries:
            unique[fold(key)] = (key, value)
        self._kind = kind
        self._entries: List[Tuple[str, Optional[str]]] = list(unique.values())
        self._delimiter = delimiter
        self._patterns: Dict[str, Patterns] = {}
        self._next = 0

    def match(self, service: str, key: str) -> bool:
        """Tell whether a key matches an entry; raises MatchError for a key that is too long."""
        return self._find(service, key) is not None

    def fetch(self, service: str, key: str) -> Optional[str]:
        """Give the value of a key; raises TableError for a list, which has none."""
        if self._kind is TableKind.LIST:
            raise TableError("a list has no values")
        place = self._find(service, key)
        return None if place is None else self._entries[place][1]

    def pick(self, service: str) -> Optional[str]:  # noqa: ARG002  one order for all services
        """Give the next entry, beginning again at the end; of a mapping its key."""
        if not self._entries:
            return None
        entry = self._entries[self._next % len(self._entries)][0]
        self._next = (self._next + 1) % len(self._entries)
        return entry

    def any_value(self) -> Optional[str]:
        """Give some value, None where there is none."""
        return next((value for _, value in self._entries if value is not None), None)

    def _find(self, service: str, key: str) -> Optional[int]:
        service = _LOOKED_UP_AS.get(service, service)
        name = service if service in _COMPARED else "string"
        if name not in self._patterns:
            keys = [key for key, _ in self._entries]
            self._patterns[name] = Patterns(name, keys, self._delimiter)
        return self._patterns[name].find(key)
