"""What a dispatcher asks, answered by a queue role of a few lines over a real link."""

from __future__ import annotations

import os
from typing import Any, Callable, Coroutine, List, Optional

import pytest

from smtpd_core.daemon.services import LEASE, QueueClient, decode_envelope, encode_envelope
from smtpd_core.ipc import link, messages
from smtpd_core.ipc.channel import Channel
from smtpd_core.ipc.messages import QueueError, Role
from smtpd_core.mail.status import Result, outcome
from smtpd_core.queue.envelope import Envelope, EnvelopeError, parse_envelope
from tests.fakes.daemon import ENVELOPE, play, until


class Queue:
    """Hands out ids, and remembers what it was told."""

    def __init__(self) -> None:
        self.taken: List[Any] = []
        self.commits: List[messages.Commit] = []
        self.leases = 0
        self.failing = ""

    async def answer(self, request: Any, descriptor: Optional[int]) -> Any:
        assert descriptor is None
        if self.failing:
            return messages.Failed(self.failing), None
        if isinstance(request, messages.LeaseIds):
            self.leases += 1
            first = self.leases * 1000
            return messages.Leased(tuple(range(first, first + request.number))), None
        if isinstance(request, messages.OpenBody):
            self.body = os.memfd_create("body")
            return messages.Done(), os.dup(self.body)
        assert isinstance(request, messages.Commit)
        self.commits.append(request)
        return messages.Committed(tuple(range(len(request.envelopes)))), None

    def take(self, message: Any, descriptor: Optional[int]) -> None:
        assert descriptor is None
        self.taken.append(message)

    def lost(self, why: str) -> None:
        self.taken.append(why)


Scene = Callable[[QueueClient, Queue], Coroutine[Any, Any, None]]


def run(scene: Scene) -> None:
    async def world() -> None:
        errors: List[BaseException] = []
        ours, theirs = link.pair()
        queue = Queue()
        far = Channel(theirs, (Role.QUEUE, Role.DISPATCHER), queue, errors.append)
        near = Channel(ours, (Role.DISPATCHER, Role.QUEUE), Queue(), errors.append)
        await scene(QueueClient(near), queue)
        near.close()
        far.close()
        assert not errors

    play(world())


def test_envelopes_there_and_back() -> None:
    assert decode_envelope(encode_envelope(ENVELOPE)) == ENVELOPE
    with pytest.raises(EnvelopeError):
        decode_envelope(encode_envelope(ENVELOPE)[:-5])


def test_ids_are_leased() -> None:
    async def scene(client: QueueClient, queue: Queue) -> None:
        msgids = [await client.new_msgid() for _ in range(3 * LEASE)]
        assert len(set(msgids)) == 3 * LEASE
        assert queue.leases in (3, 4)

    run(scene)


def test_no_id_can_be_had() -> None:
    async def scene(client: QueueClient, queue: Queue) -> None:
        queue.failing = "disk full"
        with pytest.raises(QueueError):
            await client.new_msgid()
        queue.failing = ""
        assert await client.new_msgid() == 1000

    run(scene)


def test_small_bodies_travel_and_large_ones_are_written() -> None:
    async def scene(client: QueueClient, queue: Queue) -> None:
        assert list(await client.commit(5, [ENVELOPE, ENVELOPE], b"small\n")) == [0, 1]
        large = b"x" * (messages.MAX_BODY + 1)
        await client.commit(6, [ENVELOPE], large)
        assert queue.commits[0].body == b"small\n"
        assert queue.commits[1].body is None
        assert queue.commits[1].octets == len(large) == os.fstat(queue.body).st_size
        descriptor = await client.open_body(7)
        os.write(descriptor, b"written by the caller\n")
        await client.commit(7, [ENVELOPE], descriptor)
        os.close(descriptor)  # which stayed open
        assert queue.commits[2].octets == 22

    run(scene)


def test_many_envelopes_come_in_parts() -> None:
    async def scene(client: QueueClient, queue: Queue) -> None:
        await client.commit(5, [ENVELOPE] * 10_000, b"text\n")
        parts = [part for part in queue.taken if isinstance(part, messages.AddEnvelopes)]
        counts = [len(part.envelopes) for part in parts]
        assert sum(counts) + len(queue.commits[0].envelopes) == 10_000
        assert len(parts) > 1

    run(scene)


def test_an_envelope_with_a_line_end_is_never_sent() -> None:
    async def scene(client: QueueClient, queue: Queue) -> None:
        evil = Envelope(**{**vars(ENVELOPE), "sender": "a\nrcpt: b@c"})
        with pytest.raises(QueueError):
            await client.commit(5, [evil], b"text\n")
        await until(lambda: queue.taken == [messages.Abandon(5)])
        assert not queue.commits

    run(scene)


def test_reports() -> None:
    async def scene(client: QueueClient, queue: Queue) -> None:
        client.report(7, outcome(Result.PERMANENT, "550 no", "5.1.1"), peer_reports=True)
        client.hold(8, "q")
        client.release("q", 3)
        client.schedule(9)
        client.tell_counters([("smtp.session", 1)] * (messages.MAX_COUNTERS + 1))
        client.leave()
        await until(lambda: messages.Leaving() in queue.taken)
        assert queue.taken[0] == messages.Report(7, "permanent", "5.1.1", "550 no", True)
        assert queue.taken[1:4] == [
            messages.Hold(8, "q"),
            messages.Release("q", 3),
            messages.Schedule(9),
        ]
        assert len(queue.taken) == 7

    run(scene)


@pytest.mark.parametrize(
    "text",
    [
        (
            "version: 2\ntype: mta\nsmtpname: here\nhelo: a\nhostname: b\nsender: @\nrcpt: a@b\n"
            "dest: a@b\nctime: 1\nexpire: 9\ndsn-notify: 0\nmta-relay: smtp://mx:26\n"
        ),
        (
            "version: 1\ntype: mta\nhelo: a\nhostname: b\nsender: @\nrcpt: a@b\n"
            "dest: a@b\nctime: 1\nexpire: 9\nmta-relay-host: mx\nmta-relay-port: 26\n"
        ),
    ],
)
def test_old_envelopes_travel_with_all_they_say(text: str) -> None:
    given = parse_envelope(text.encode()).envelope
    assert decode_envelope(encode_envelope(given)) == given
