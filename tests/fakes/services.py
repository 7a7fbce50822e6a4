"""The services of the other roles, in memory: queue, supervisor, tables, names, surroundings.

They keep what they are told, and answer what the test has put in.
"""

from __future__ import annotations

import os
import tempfile
from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Union,
)

from smtpd_core.dns.reverse import UNKNOWN, ClientName, Confirmation
from smtpd_core.ipc.messages import QueueError
from smtpd_core.listener.surroundings import Surroundings
from smtpd_core.routing.policy import User
from smtpd_core.routing.rules import Failure
from smtpd_core.tables.matching import Patterns, fold

if TYPE_CHECKING:
    import asyncio

    from smtpd_core.queue.envelope import Envelope

NOW = 1795357412  # Sun, 22 Nov 2026 14:23:32 +0000
FIRST_MSGID = 0x1000

Entries = Union[Sequence[str], Mapping[str, str]]


class Message(NamedTuple):
    """A message that was committed."""

    msgid: int
    envelopes: List[Envelope]
    text: bytes


class FakeQueue:
    """A queue in memory. Bodies that are opened are real files; their descriptors are real too."""

    def __init__(self, first_msgid: int = FIRST_MSGID) -> None:
        self.messages: List[Message] = []
        self.abandoned: List[int] = []
        self.opened: Dict[int, str] = {}
        self.failing: Dict[str, str] = {}  # name of a call: the text of its QueueError
        self.gate: Optional[asyncio.Event] = None  # commits wait for it
        self.committing = 0
        self._next = first_msgid

    async def new_msgid(self) -> int:
        self._fail("new_msgid")
        self._next += 1
        return self._next - 1

    async def open_body(self, msgid: int) -> int:
        self._fail("open_body")
        handle, path = tempfile.mkstemp()
        self.opened[msgid] = path
        return handle

    async def commit(
        self, msgid: int, envelopes: Sequence[Envelope], body: Union[bytes, int]
    ) -> Sequence[int]:
        self.committing += 1
        if self.gate is not None:
            await self.gate.wait()
        self._fail("commit")
        text = body
        if isinstance(text, int):
            os.fstat(text)  # still open
            with open(self.opened[msgid], "rb") as file:
                text = file.read()
            os.unlink(self.opened.pop(msgid))
        self.messages.append(Message(msgid, list(envelopes), text))
        return [msgid << 32 | number for number, _ in enumerate(envelopes, 1)]

    async def abandon(self, msgid: int) -> None:
        self.abandoned.append(msgid)
        path = self.opened.pop(msgid, None)
        if path is not None:
            os.unlink(path)

    def _fail(self, name: str) -> None:
        if name in self.failing:
            raise QueueError(self.failing[name])


class FakeSupervisor:
    """A supervisor with users, their .forward files and passwords."""

    def __init__(self, *users: str) -> None:
        self.users: Dict[str, Union[User, Failure]] = {
            name: User(name, 1000 + number, 1000, f"/home/{name}")
            for number, name in enumerate(users)
        }
        self.forwards: Dict[str, Union[str, Failure]] = {}
        self.includes: Dict[str, Union[str, Failure]] = {}
        self.passwords: Dict[str, str] = {}
        self.cannot_tell = False

    async def read_forward(self, user: User) -> Union[str, Failure, None]:
        return self.forwards.get(user.name)

    async def read_include(self, path: str) -> Union[str, Failure, None]:
        return self.includes.get(path)

    async def find_user(self, name: str) -> Union[User, Failure, None]:
        return self.users.get(name)

    async def check_password(self, user: str, password: str) -> Optional[bool]:
        return None if self.cannot_tell else self.passwords.get(user) == password


class FakeLookups:
    """Tables in memory, compared as the real ones are; a table may also be a Failure."""

    def __init__(self, tables: Mapping[str, Union[Entries, Failure]]) -> None:
        self._tables = dict(tables)
        self._patterns: Dict[tuple[str, str], Patterns] = {}
        self.asked: List[tuple[str, str, str]] = []  # values that were fetched
        self._values = {
            name: {fold(key): value for key, value in entries.items()}
            for name, entries in tables.items()
            if isinstance(entries, Mapping)
        }

    def match(self, table: str, service: str, key: str) -> Union[bool, Failure]:
        entries = self._tables[table]
        if isinstance(entries, Failure):
            return entries
        if (table, service) not in self._patterns:
            self._patterns[table, service] = Patterns(service, list(entries))
        return self._patterns[table, service].find(key) is not None

    def fetch(self, table: str, service: str, key: str) -> Union[str, Failure, None]:
        self.asked.append((table, service, key))
        entries = self._tables[table]
        if isinstance(entries, Failure):
            return entries
        return self._values.get(table, {}).get(fold(key))


class FakeNames:
    """A resolver that knows a few clients, and can be made to wait."""

    def __init__(self, names: Optional[Mapping[str, str]] = None) -> None:
        self.names = dict(names or {})
        self.gate: Optional[asyncio.Event] = None

    async def ptr(self, address: str) -> ClientName:
        if self.gate is not None:
            await self.gate.wait()
        if address in self.names:
            return ClientName(self.names[address], Confirmation.PASS)
        return ClientName(UNKNOWN, Confirmation.FAIL)


class FakeStats:
    """Counters."""

    def __init__(self) -> None:
        self.values: Dict[str, int] = {}

    def add(self, key: str, by: int = 1) -> None:
        self.values[key] = self.values.get(key, 0) + by


class FakeSurroundings:
    """A clock that stands, chance that counts, and a log in a list."""

    def __init__(self) -> None:
        self.now = NOW
        self.log: List[str] = []
        self.confessed: List[BaseException] = []
        self.stats = FakeStats()
        self._drawn = 0

    def entropy(self, count: int) -> bytes:
        self._drawn += 1
        return (self._drawn % (1 << 8 * count)).to_bytes(count, "big")

    def surroundings(self) -> Surroundings:
        clock: Callable[[], int] = lambda: self.now  # noqa: E731
        return Surroundings(
            clock=clock,
            zone=lambda _: (0, "UTC"),
            entropy=self.entropy,
            log=lambda _level, line: self.log.append(line),
            confess=self.confessed.append,
            stats=self.stats,
        )
