"""Where the queue role's changes of the spool are brought together: one thread does them in turn.

Whatever was asked for while the thread was busy is done in its next turn: all commits of a turn
share the flushes of the disk, which run side by side in threads of their own. The event loop
never waits for the disk. Within a turn, what adds to the spool comes before what removes: a
notice is on disk before the envelope it is about is gone.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Sequence, Tuple, TypeVar, Union

from smtpd_core.queue.disk import SpoolError

if TYPE_CHECKING:
    from smtpd_core.queue.envelope import Envelope
    from smtpd_core.queue.spool import NewMessage, Spool

MAX_GROUP = 256  # changes of one kind in a turn, so that each turn ends soon
MAX_PENDING = 20_000  # changes that wait; a disk this far behind takes no more mail for now
FLUSHERS = 8  # flushes at a time: enough for a disk to merge them

Result = TypeVar("Result")
_Job = Tuple[Any, "asyncio.Future[Any]"]
_Update = Tuple[int, "Envelope"]
_Outcome = Union[Any, SpoolError]


class Desk:
    """The only way to the spool once it is open."""

    def __init__(self, spool: Spool, confess: Callable[[BaseException], None]) -> None:
        """Take a spool into the running event loop."""
        self._spool = spool
        self._confess = confess
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "spool")
        self._flushers = ThreadPoolExecutor(FLUSHERS, "flush")
        self._commits: List[_Job] = []
        self._calls: List[_Job] = []
        self._updates: List[_Job] = []
        self._removals: List[_Job] = []
        self._turning: Optional[asyncio.Task[None]] = None

    @property
    def pending(self) -> int:
        """How many changes wait for their turn."""
        return sum(map(len, (self._commits, self._calls, self._updates, self._removals)))

    async def commit(self, message: NewMessage) -> List[int]:
        """Bring a message into the queue; give the ids of its envelopes. Raises SpoolError."""
        if self.pending >= MAX_PENDING:
            raise SpoolError("the disk is too slow for more mail")
        evpids: List[int] = await self._submit(self._commits, message)
        return evpids

    async def update(self, evpid: int, envelope: Envelope) -> None:
        """Replace the text of an envelope. Raises SpoolError."""
        await self._submit(self._updates, (evpid, envelope))

    async def remove(self, evpid: int) -> None:
        """Take an envelope out of the queue. Raises SpoolError."""
        await self._submit(self._removals, evpid)

    async def call(self, function: Callable[[Spool], Result]) -> Result:
        """Do anything else with the spool; what it raises is raised here."""
        result: Result = await self._submit(self._calls, function)
        return result

    async def sync(self) -> None:
        """Make sure that what was removed stays removed. Raises SpoolError."""
        await self.call(lambda spool: spool.sync(self._flushers.map))

    async def close(self) -> None:
        """Do all that waits, then end the threads."""
        while self._turning is not None:
            await asyncio.wait([self._turning])
        self._thread.shutdown()
        self._flushers.shutdown()

    def _submit(self, jobs: List[_Job], what: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        jobs.append((what, future))
        if self._turning is None:
            self._turning = self._loop.create_task(self._turn())
        return future

    async def _turn(self) -> None:
        """Have the thread do what waits, until nothing does."""
        try:
            while self.pending:
                taken = []
                for jobs in (self._commits, self._calls, self._updates, self._removals):
                    taken.append(jobs[:MAX_GROUP])
                    del jobs[:MAX_GROUP]
                work = [[what for what, _ in jobs] for jobs in taken]
                done = await self._loop.run_in_executor(self._thread, self._work, work)
                for jobs, outcomes in zip(taken, done):
                    for (_, future), outcome in zip(jobs, outcomes):
                        _settle(future, outcome)
        finally:
            self._turning = None

    def _work(self, work: Sequence[List[Any]]) -> List[List[_Outcome]]:
        """Do a turn's work, in the thread of the spool; an outcome that is an error is raised."""
        commits, calls, updates, removals = work
        return [
            self._together(self._commit_all, commits),
            [self._guard(function, self._spool) for function in calls],
            self._together(self._update_all, updates),
            [self._guard(self._spool.remove, evpid) for evpid in removals],
        ]

    def _commit_all(self, commits: List[NewMessage]) -> List[_Outcome]:
        return list(self._spool.commit_many(commits, self._flushers.map))

    def _update_all(self, updates: List[_Update]) -> List[_Outcome]:
        return list(self._spool.update_many(updates, self._flushers.map))

    def _together(self, act: Callable[[List[Any]], List[_Outcome]], items: List[Any]) -> List[Any]:
        if not items:
            return []
        outcome = self._guard(act, items)
        return [outcome] * len(items) if isinstance(outcome, BaseException) else list(outcome)

    def _guard(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except SpoolError as error:
            return error
        except Exception as error:  # noqa: BLE001 - one bad item must not stop the others
            self._loop.call_soon_threadsafe(self._confess, error)
            return SpoolError(f"internal error: {type(error).__name__}")


def _settle(future: asyncio.Future[Any], outcome: _Outcome) -> None:
    if future.done():
        return  # nobody waits any more
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
