"""Messages: all of them go there and back; nothing else is understood, or allowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import LocalError
from smtpd_core.ipc import messages as m
from smtpd_core.ipc.messages import MessageError, Role, check_received, decode_message

EXAMPLES: list[Any] = [
    m.Done(),
    m.Failed("disk full"),
    m.LeaseIds(100),
    m.Leased((1, 0xFFFFFFFF)),
    m.OpenBody(5),
    m.AddEnvelopes(5, (b"version: 3\n", b"")),
    m.Commit(5, (b"version: 3\n",), b"Subject: x\n\n", 12),
    m.Commit(5, (b"version: 3\n",), None, 99),
    m.Abandon(5),
    m.OpenMessage(5),
    m.Report(1 << 63, "temporary", "4.4.1", "caf\udce9", False),
    m.Hold(7, "mta:example.org"),
    m.Release("mta:example.org", 0),
    m.Schedule(7),
    m.Count((("smtp.session", -1), ("mta.task", 3))),
    m.Deliver(((7, b"version: 3\n"),)),
    m.Inject("user@example.org"),
    m.Injected("permanent", "550 Invalid recipient"),
    m.ReadForward("user", 1000, 1000, "/home/user"),
    m.ReadInclude("/etc/mail/list"),
    m.FindUser("user"),
    m.FoundUser(1, 1, None),
    m.Committed((1 << 32,)),
    m.Contents(None),
    m.Contents(b"other@example.org\n"),
    m.Refused("insecure file", True),
    m.CheckPassword("user", "secret"),
    m.Checked(None),
    m.Checked(False),
    m.RunDelivery((("user", "u"), ("command", "cat"))),
    m.DeliveryEnded((("result", "delivered"),)),
    m.Ready(),
    m.Leaving(),
    m.Drain(),
    m.AddDispatcher(3),
    m.QueuePolicy("mx.example.org", 345600, (("out", 60),), ("local",), (14400,), 5000, 10),
]


def test_every_message_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == {kind for kind, _ in m._SPELLED.values()}


@pytest.mark.parametrize("message", EXAMPLES, ids=repr)
def test_there_and_back(message: Any) -> None:
    number, payload = m.encode_message(message)
    assert decode_message(number, payload) == message
    assert type(decode_message(number, payload)) is type(message)


@pytest.mark.parametrize("message", EXAMPLES, ids=repr)
def test_no_part_of_a_message_is_one(message: Any) -> None:
    number, payload = m.encode_message(message)
    for cut in range(len(payload)):
        with pytest.raises(MessageError):
            decode_message(number, payload[:cut])
    with pytest.raises(MessageError):
        decode_message(number, payload + b"\0")


@given(st.sampled_from(sorted(m._SPELLED)), st.binary(max_size=80))
def test_any_octets_give_a_message_or_the_error(number: int, payload: bytes) -> None:
    try:
        message = decode_message(number, payload)
    except MessageError:
        return
    assert m.encode_message(message) == (number, payload)


def test_unknown_number() -> None:
    with pytest.raises(MessageError):
        decode_message(9999, b"")


def test_too_large_is_not_written() -> None:
    for message in (
        m.Failed("x" * 3000),
        m.LeaseIds(1 << 16),
        m.Commit(1, (), bytes(1 << 20), 1 << 20),
    ):
        with pytest.raises(LocalError):
            m.encode_message(message)
    with pytest.raises(LocalError):
        m.encode_message(("not", "a", "message"))


def test_every_message_but_answers_has_a_sender() -> None:
    answers = set().union(*m.ANSWERS.values())
    granted = set().union(*m.MAY_SEND.values())
    assert answers | granted == {kind for kind, _ in m._SPELLED.values()}
    assert not answers & granted


def test_who_may_say_what() -> None:
    commit = m.Commit(5, (), b"", 0)
    check_received(commit, Role.DISPATCHER, Role.QUEUE, request=True, descriptor=False)
    refusals: list[tuple[Any, Role, Role, bool, bool]] = [
        (commit, Role.QUEUE, Role.DISPATCHER, True, False),
        (commit, Role.DISPATCHER, Role.SUPERVISOR, True, False),
        (commit, Role.DISPATCHER, Role.QUEUE, False, False),
        (commit, Role.DISPATCHER, Role.QUEUE, True, True),
        (m.Drain(), Role.DISPATCHER, Role.SUPERVISOR, False, False),
        (m.Abandon(5), Role.DISPATCHER, Role.QUEUE, True, False),
        (m.RunDelivery(()), Role.DISPATCHER, Role.SUPERVISOR, True, False),
        (m.Done(), Role.DISPATCHER, Role.QUEUE, False, False),
    ]
    for message, sender, receiver, request, descriptor in refusals:
        with pytest.raises(MessageError):
            check_received(message, sender, receiver, request=request, descriptor=descriptor)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(m.CheckPassword("user", "hunter2")).replace("<secret>", "")
    assert "hunter2" not in repr(m.CheckPassword("user", "hunter2"))
