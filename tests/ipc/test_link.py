"""Links: over a real socket pair, in one process."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from typing import TYPE_CHECKING, Optional

import pytest

from smtpd_core.ipc import frames, link, messages
from smtpd_core.ipc.link import Link, LinkError, PeerError, Received
from smtpd_core.ipc.messages import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

Ends = tuple[Link, Link]


@pytest.fixture
def ends() -> Ends:
    """Give a dispatcher's and the queue's end."""
    ours, theirs = link.pair()
    return (
        Link(ours, Role.DISPATCHER, Role.QUEUE),
        Link(theirs, Role.QUEUE, Role.DISPATCHER),
    )


def carry(sender: Link, receiver: Link) -> Optional[Received]:
    """Carry octets until there is a message, or nothing is left to carry."""
    while True:
        done = sender.flush()
        received = receiver.next_message()
        if received is not None:
            return received
        if not receiver.receive() and done:
            return receiver.next_message()


def test_a_question_and_its_answer(ends: Ends) -> None:
    dispatcher, queue = ends
    serial = dispatcher.ask(messages.LeaseIds(2))
    asked = carry(dispatcher, queue)
    assert asked == Received(messages.LeaseIds(2), serial, False, None)
    queue.reply(serial, messages.Leased((1, 2)))
    assert carry(queue, dispatcher) == Received(messages.Leased((1, 2)), serial, True, None)


def test_a_large_message(ends: Ends) -> None:
    dispatcher, queue = ends
    body = os.urandom(messages.MAX_BODY)
    dispatcher.ask(messages.Commit(1, (b"version: 3\n",), body, len(body)))
    received = carry(dispatcher, queue)
    assert received is not None
    assert received.message.body == body
    assert dispatcher.queued == 0


def test_descriptors_come_with_their_message(ends: Ends) -> None:
    dispatcher, queue = ends
    serials = [dispatcher.ask(messages.OpenMessage(number)) for number in (1, 2)]
    for _ in serials:
        assert carry(dispatcher, queue) is not None
    for serial in serials:
        read_end, write_end = os.pipe()
        os.write(write_end, str(serial).encode())
        os.close(write_end)
        queue.tell(messages.Deliver(((serial, b"version: 3\n"),)))
        queue.reply(serial, messages.Done(), read_end)
        assert queue.flush()
        with pytest.raises(OSError, match=r"descriptor"):  # closed here once it was sent
            os.fstat(read_end)
    for serial in serials:
        between = carry(queue, dispatcher)
        assert between is not None
        assert between.descriptor is None
        answer = carry(queue, dispatcher)
        assert answer is not None
        assert answer.descriptor is not None
        assert os.read(answer.descriptor, 10) == str(serial).encode()
        assert not os.get_inheritable(answer.descriptor)
        os.close(answer.descriptor)


@pytest.mark.parametrize(
    "frame",
    [
        frames.Frame(14, b"junk", 1),
        frames.Frame(9999, b"", 0),
        frames.Frame(61, b"", 0),  # Drain is not a dispatcher's to send
        frames.Frame(1, b"", 5, is_answer=True),  # to nothing
        frames.Frame(12, bytes(4), 5, has_descriptor=True),  # which does not come
    ],
    ids=["junk", "unknown", "not allowed", "answer to nothing", "no descriptor"],
)
def test_a_broken_peer(frame: frames.Frame) -> None:
    ours, theirs = link.pair()
    queue = Link(theirs, Role.QUEUE, Role.DISPATCHER)
    ours.send(frames.encode_frame(frame))
    assert queue.receive()
    with pytest.raises(LinkError):
        queue.next_message()


def test_an_answer_of_the_wrong_kind(ends: Ends) -> None:
    dispatcher, queue = ends
    serial = dispatcher.ask(messages.LeaseIds(2))
    queue.reply(serial, messages.Done())
    with pytest.raises(LinkError):
        carry(queue, dispatcher)


def test_descriptors_nobody_announced() -> None:
    ours, theirs = link.pair()
    queue = Link(theirs, Role.QUEUE, Role.DISPATCHER)
    octets = frames.encode_frame(frames.Frame(15, bytes(4)))
    for _ in range(64):
        socket.send_fds(ours, [octets], [0])
        assert queue.receive()
        assert queue.next_message()
    socket.send_fds(ours, [octets], [0])
    with pytest.raises(LinkError):
        queue.receive()
    queue.close()


@contextlib.contextmanager
def starved() -> Iterator[None]:
    """Let this process open nothing more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_an_answer_whose_descriptor_cannot_be_taken(ends: Ends) -> None:
    dispatcher, queue = ends
    serials = [dispatcher.ask(messages.OpenMessage(number)) for number in (1, 2)]
    for serial in serials:
        assert carry(dispatcher, queue) is not None
        queue.reply(serial, messages.Done(), os.open(os.devnull, os.O_RDONLY))
    assert queue.flush()
    with starved():
        failed = carry(queue, dispatcher)
    assert failed is not None
    assert (failed.serial, failed.is_answer, failed.descriptor) == (serials[0], True, None)
    assert isinstance(failed.message, messages.Failed)
    taken = carry(queue, dispatcher)
    assert taken is not None
    assert taken.serial == serials[1]
    assert taken.descriptor is not None
    os.close(taken.descriptor)


def test_a_request_whose_descriptor_cannot_be_taken(ends: Ends) -> None:
    dispatcher, queue = ends
    serial = queue.ask(messages.Inject("user@here.test"), os.open(os.devnull, os.O_RDONLY))
    queue.tell(messages.Deliver(()))
    with starved():
        after = carry(queue, dispatcher)
    assert after is not None
    assert after.message == messages.Deliver(())
    answer = carry(dispatcher, queue)
    assert answer is not None
    assert answer.serial == serial
    assert isinstance(answer.message, messages.Failed)


def test_a_message_whose_descriptor_cannot_be_taken() -> None:
    ours, theirs = link.pair()
    supervisor = Link(ours, Role.SUPERVISOR, Role.QUEUE)
    queue = Link(theirs, Role.QUEUE, Role.SUPERVISOR)
    supervisor.tell(messages.AddDispatcher(1), os.open(os.devnull, os.O_RDONLY))
    supervisor.tell(messages.Drain())
    with starved():
        received = carry(supervisor, queue)
    assert received is not None
    assert received.message == messages.Drain()
    supervisor.close()
    queue.close()


def test_more_descriptors_than_a_frame_has() -> None:
    ours, theirs = link.pair()
    queue = Link(theirs, Role.QUEUE, Role.DISPATCHER)
    socket.send_fds(ours, [frames.encode_frame(frames.Frame(15, bytes(4)))], [0] * 40)
    with pytest.raises(PeerError):
        queue.receive()
    queue.close()


def test_the_end(ends: Ends) -> None:
    dispatcher, queue = ends
    dispatcher.close()
    with pytest.raises(LinkError):
        queue.receive()
    queue.tell(messages.Deliver(()))
    with pytest.raises(LinkError):
        queue.flush()
    queue.close()
    queue.close()
    assert queue.fileno() == -1


def test_a_peer_that_does_not_read(ends: Ends) -> None:
    dispatcher, _ = ends
    message = messages.Commit(1, (), bytes(messages.MAX_BODY), 0)
    while dispatcher.queued <= link.MAX_QUEUED + (1 << 20):  # sockets take some
        dispatcher.ask(message)
    with pytest.raises(LinkError):
        dispatcher.flush()
    dispatcher.close()
