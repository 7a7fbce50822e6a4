"""Channels: both ends in one event loop."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Callable, Coroutine, Optional

import pytest

from smtpd_core.errors import SmtpdError
from smtpd_core.ipc import channel, link, messages
from smtpd_core.ipc.channel import Channel, ChannelError
from smtpd_core.ipc.messages import Role


class Answerer:
    """A queue that answers as it is told."""

    def __init__(self, answer: Callable[[Any, Optional[int]], Coroutine[Any, Any, Any]]) -> None:
        self._answer = answer
        self.taken: list[Any] = []
        self.why: Optional[str] = None
        self.ended = asyncio.Event()

    def answer(self, request: Any, descriptor: Optional[int]) -> Coroutine[Any, Any, Any]:
        return self._answer(request, descriptor)

    def take(self, message: Any, descriptor: Optional[int]) -> None:
        assert descriptor is None
        self.taken.append(message)
        if message == messages.Abandon(13):
            raise RuntimeError("a mistake of ours")

    def lost(self, why: str) -> None:
        self.why = why
        self.ended.set()


async def silent(request: Any, descriptor: Optional[int]) -> Any:
    raise AssertionError("nobody asks here")


def connect(
    answer: Any, errors: list[BaseException]
) -> tuple[Channel, Channel, Answerer, Answerer]:
    ours, theirs = link.pair()
    client, server = Answerer(silent), Answerer(answer)
    return (
        Channel(ours, (Role.DISPATCHER, Role.QUEUE), client, errors.append),
        Channel(theirs, (Role.QUEUE, Role.DISPATCHER), server, errors.append),
        client,
        server,
    )


def test_questions_are_answered_out_of_order() -> None:
    async def run() -> None:
        first = asyncio.Event()

        async def answer(request: Any, descriptor: Optional[int]) -> Any:
            if request.number == 1:
                await first.wait()
            else:
                first.set()
            return messages.Leased((request.number,)), None

        ours, theirs, _, _ = connect(answer, [])
        answers = await asyncio.gather(
            ours.request(messages.LeaseIds(1)), ours.request(messages.LeaseIds(2))
        )
        assert [each[0].msgids for each in answers] == [(1,), (2,)]
        ours.close()
        theirs.close()

    asyncio.run(run())


def test_many_questions_wait_their_turn() -> None:
    async def run() -> None:
        most = now = 0

        async def answer(request: Any, descriptor: Optional[int]) -> Any:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return messages.Leased(()), None

        ours, theirs, _, _ = connect(answer, [])
        count = 3 * channel.MAX_SERVING
        await asyncio.gather(*(ours.request(messages.LeaseIds(1)) for _ in range(count)))
        assert 1 < most <= channel.MAX_SERVING
        ours.close()
        theirs.close()

    asyncio.run(run())


def test_errors_become_answers() -> None:
    async def run() -> None:
        errors: list[BaseException] = []

        async def answer(request: Any, descriptor: Optional[int]) -> Any:
            if request.number == 1:
                raise SmtpdError("disk full")
            raise RuntimeError("a mistake of ours")

        ours, theirs, _, _ = connect(answer, errors)
        assert await ours.request(messages.LeaseIds(1)) == (messages.Failed("disk full"), None)
        answered = await ours.request(messages.LeaseIds(2))
        assert answered == (messages.Failed("internal error"), None)
        assert [str(error) for error in errors] == ["a mistake of ours"]
        ours.close()
        theirs.close()

    asyncio.run(run())


def test_descriptors_are_answered_and_those_of_no_use_closed() -> None:
    async def run() -> None:
        given = asyncio.Event()

        async def answer(request: Any, descriptor: Optional[int]) -> Any:
            read_end, write_end = os.pipe()
            os.write(write_end, b"text")
            os.close(write_end)
            if request.msgid == 2:
                await given.wait()
            return messages.Done(), read_end

        ours, theirs, _, _ = connect(answer, [])
        _, descriptor = await ours.request(messages.OpenMessage(1))
        assert descriptor is not None
        assert os.read(descriptor, 9) == b"text"
        os.close(descriptor)
        before = len(os.listdir("/proc/self/fd"))
        waiter = asyncio.ensure_future(ours.request(messages.OpenMessage(2)))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.sleep(0)
        given.set()
        _, descriptor = await ours.request(messages.OpenMessage(3))
        assert descriptor is not None
        os.close(descriptor)
        assert len(os.listdir("/proc/self/fd")) == before
        ours.close()
        theirs.close()

    asyncio.run(run())


def test_a_bad_message_does_not_stop_the_next() -> None:
    async def run() -> None:
        errors: list[BaseException] = []

        async def answer(request: Any, descriptor: Optional[int]) -> Any:
            return messages.Leased(()), None

        ours, theirs, _, server = connect(answer, errors)
        ours.send(messages.Abandon(13))
        ours.send(messages.Abandon(14))
        await ours.request(messages.LeaseIds(1))
        assert server.taken == [messages.Abandon(13), messages.Abandon(14)]
        assert len(errors) == 1
        ours.close()
        theirs.close()

    asyncio.run(run())


def test_a_peer_that_breaks_the_protocol_is_closed() -> None:
    async def run() -> None:
        async def answer(request: Any, descriptor: Optional[int]) -> Any:
            await asyncio.sleep(3600)

        ours, theirs, client, server = connect(answer, [])
        waiting = asyncio.ensure_future(ours.request(messages.LeaseIds(1)))
        ours.send(messages.Drain())
        await server.ended.wait()
        assert server.why is not None
        assert "may not send Drain" in server.why
        assert theirs.closed
        with pytest.raises(ChannelError):
            await waiting
        await client.ended.wait()
        with pytest.raises(ChannelError):
            await ours.request(messages.LeaseIds(1))
        ours.send(messages.Abandon(1))  # lost, and no error

    asyncio.run(run())


def test_a_slow_reader_holds_the_writer() -> None:
    async def run() -> None:
        async def answer(request: Any, descriptor: Optional[int]) -> Any:
            return messages.Committed(()), None

        ours, theirs, _, server = connect(answer, [])
        message = messages.AddEnvelopes(1, tuple(bytes(10_000) for _ in range(50)))
        count = 3 * channel.HIGH_WATER // 500_000
        for _ in range(count):
            ours.send(message)
            await ours.drain()
        await ours.request(messages.Commit(1, (), b"", 0))
        assert len(server.taken) == count
        ours.close()
        theirs.close()

    asyncio.run(run())
