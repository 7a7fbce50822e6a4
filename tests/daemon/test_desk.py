"""The desk: changes of a real spool, brought together."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Callable, Coroutine, List

import pytest

from smtpd_core.daemon import roles
from smtpd_core.daemon.desk import Desk
from smtpd_core.daemon.privileges import Identity
from smtpd_core.queue.disk import SpoolError, SystemDisk
from smtpd_core.queue.envelope import Envelope
from smtpd_core.queue.spool import NewMessage, Spool
from smtpd_core.queue.storing import Settings
from tests.fakes.daemon import ENVELOPE, play

if TYPE_CHECKING:
    from pathlib import Path


class CountingSpool(Spool):
    """A spool that tells how its calls came."""

    commits: List[int]

    def commit_many(self, messages: Any, run: Any = map) -> Any:
        self.commits.append(len(messages))
        return super().commit_many(messages, run)


Scene = Callable[[Desk, CountingSpool], Coroutine[Any, Any, None]]


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[Scene], None]:
    def run(scene: Scene) -> None:
        path = str(tmp_path / "spool")
        me = Identity("me", os.geteuid(), os.getegid())
        lock = roles.prepare_spool(path, me, privileged=False)
        with pytest.raises(SpoolError, match="another daemon"):
            roles.prepare_spool(path, me, privileged=False)
        errors: List[BaseException] = []

        async def world() -> None:
            spool = CountingSpool.open(SystemDisk.below(path), Settings(), os.urandom)
            assert isinstance(spool, CountingSpool)
            spool.commits = []
            desk = Desk(spool, errors.append)
            await scene(desk, spool)
            await desk.close()

        play(world())
        os.close(lock)
        assert not errors

    return run


def test_commits_share_their_turn(begin: Callable[[Scene], None]) -> None:
    async def scene(desk: Desk, spool: CountingSpool) -> None:
        messages = [NewMessage(number, b"Subject: x\n\n", [ENVELOPE]) for number in range(1, 41)]
        evpids = await asyncio.gather(*map(desk.commit, messages))
        assert [evpid >> 32 for (evpid,) in evpids] == list(range(1, 41))
        assert sum(spool.commits) == 40
        assert len(spool.commits) <= 2
        assert sum(1 for _ in spool.walk()) == 40

    begin(scene)


def test_one_that_fails_harms_no_other(begin: Callable[[Scene], None]) -> None:
    async def scene(desk: Desk, spool: CountingSpool) -> None:
        evil = Envelope(**{**vars(ENVELOPE), "helo": "x\nsender: y"})
        results = await asyncio.gather(
            desk.commit(NewMessage(1, b"one\n", [ENVELOPE])),
            desk.commit(NewMessage(2, b"two\n", [evil])),
            desk.commit(NewMessage(3, b"three\n", [ENVELOPE])),
            return_exceptions=True,
        )
        assert isinstance(results[1], SpoolError)
        assert [type(result) for result in (results[0], results[2])] == [list, list]
        assert sum(1 for _ in spool.walk()) == 2

    begin(scene)


def test_the_life_of_an_envelope(begin: Callable[[Scene], None]) -> None:
    async def scene(desk: Desk, spool: CountingSpool) -> None:
        (evpid,) = await desk.commit(NewMessage(7, b"text\n", [ENVELOPE]))
        later = Envelope(**{**vars(ENVELOPE), "retry": 4})
        await desk.update(evpid, later)
        assert spool.read_envelope(evpid).retry == 4
        await desk.remove(evpid)
        await desk.sync()
        assert list(spool.walk()) == []
        with pytest.raises(SpoolError):
            await desk.update(evpid, later)
        with pytest.raises(SpoolError):
            await desk.call(lambda given: given.read_envelope(evpid))

    begin(scene)
