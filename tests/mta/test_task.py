"""What shares a transaction, and who a mail is from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from smtpd_core.mail import srs
from smtpd_core.mail.address import NULL_ADDRESS, Address
from smtpd_core.mail.srs import Keys
from smtpd_core.mta.task import MAX_RECIPIENTS, Item, Task, outgoing_sender, task_key
from smtpd_core.queue.envelope import Envelope
from smtpd_core.smtp.command import Notify
from tests.fakes.relaying import smarthost

NOW = 1_700_000_000
KEYS = Keys("key")
SENDER = Address("s", "here.example")


def item(evpid: int = 1 << 32 | 1, **values: Any) -> Item:
    values = {"sender": "s@here.example", "rcpt": "d@x", "dest": "d@x", **values}
    return Item(evpid, Envelope(**values))


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"dest": "e@y"}, True),
        ({"evpid": 1 << 32 | 2}, True),
        ({"evpid": 2 << 32 | 1}, False),
        ({"dsn_ret": "FULL"}, False),
        ({"dsn_envid": "id"}, False),
        ({"dsn_notify": 1}, True),
        ({"dest": "\u00fc@y"}, False),
    ],
)
def test_what_shares_a_transaction(other: dict[str, Any], same: bool) -> None:
    assert (task_key(item(), SENDER) == task_key(item(**other), SENDER)) is same


def test_another_sender_is_another_transaction() -> None:
    assert task_key(item(), SENDER) != task_key(item(), NULL_ADDRESS)


def test_a_transaction() -> None:
    first = item(dsn_notify=0x13, dsn_orcpt="rfc822;d@x", dsn_ret="HDRS", dsn_envid="id")
    task = Task(task_key(first, SENDER))
    task.add(first)
    mail = task.transaction(42)
    assert (mail.sender, mail.size, mail.ret, mail.envid) == (SENDER, 42, "HDRS", "id")
    assert mail.recipients[0].address == Address("d", "x")
    assert mail.recipients[0].notify == Notify.SUCCESS | Notify.FAILURE  # unknown bits are dropped
    assert not mail.smtputf8
    assert task.open == {0}


def test_a_full_task() -> None:
    task = Task(task_key(item(), SENDER))
    for _ in range(MAX_RECIPIENTS):
        assert not task.is_full
        task.add(item())
    assert task.is_full


@pytest.mark.parametrize(
    ("mail_from", "expected"),
    [
        ("user@", Address("user", "here.example")),
        ("@gate.example", Address("s", "gate.example")),
        ("user@gate.example", Address("user", "gate.example")),
        ("user", Address("user", "here.example")),
        ("@", SENDER),
    ],
)
def test_mail_from(mail_from: str, expected: Address) -> None:
    action = replace(smarthost(), mail_from=mail_from, srs=True)
    envelope = item(rcpt="l@list.example").envelope
    assert outgoing_sender(envelope, action, KEYS, NOW) == expected
    null = item(sender="@").envelope
    assert outgoing_sender(null, action, KEYS, NOW) == NULL_ADDRESS


@pytest.mark.parametrize(
    ("values", "keys", "rewritten"),
    [
        ({"rcpt": "l@list.example"}, KEYS, True),
        ({}, KEYS, False),
        ({"rcpt": "l@list.example"}, None, False),
        ({"rcpt": "l@list.example", "sender": "@"}, KEYS, False),
        ({"rcpt": "nowhere@"}, KEYS, False),
    ],
)
def test_srs(values: dict[str, Any], keys: Any, rewritten: bool) -> None:
    action = replace(smarthost(), srs=True)
    sender = outgoing_sender(item(**values).envelope, action, keys, NOW)
    if rewritten:
        assert sender.domain == "list.example"
        assert srs.restore(str(sender), KEYS, NOW) == "s@here.example"
    else:
        assert sender in (SENDER, NULL_ADDRESS)
