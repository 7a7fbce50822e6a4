"""Bounces: who is told what, and when."""

from __future__ import annotations

from typing import Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mail import dsn
from smtpd_core.mail.status import Outcome, Result, loop_detected, outcome
from smtpd_core.queue.bounce import (
    BOUNCE_TTL_SECONDS,
    GROUP_MAX,
    Delay,
    Gathering,
    bounce_of,
    expired,
    lost,
    record_failure,
)
from smtpd_core.queue.envelope import Envelope, parse_envelope
from smtpd_core.queue.releases import find_release, format_envelope, refusal

NOW = 1_700_000_000
DELIVERED = outcome(Result.DELIVERED, "250 2.0.0 ok", "2.0.0")
REFUSED = outcome(Result.PERMANENT, "550 5.1.1 no such user", "5.1.1")
DEFERRED = outcome(Result.TEMPORARY, "451 4.7.1 greylisted", "4.7.1")
FOUR_HOURS = Delay(4 * 3600, 4 * 86_400)
SUCCESS, FAILURE, DELAY, NEVER = 1, 2, 4, 8


def envelope(**values: Union[str, int]) -> Envelope:
    usual: dict[str, Union[str, int]] = {
        "version": 3,
        "dispatcher": "outbound",
        "type": "mta",
        "smtpname": "mx.example.org",
        "helo": "client",
        "hostname": "client.example.net",
        "sender": "alice@example.net",
        "rcpt": "bob@example.com",
        "dest": "bob@example.com",
        "ctime": NOW - 20_000,
        "retry": 6,
    }
    return Envelope(**{**usual, **values})


def kind_of(bounce: Optional[Envelope]) -> str:
    return "" if bounce is None else bounce.bounce_type


@pytest.mark.parametrize(
    ("notify", "delivered", "failed", "delayed"),
    [
        (0, "", "failed", "delayed"),
        (SUCCESS, "delivered", "", ""),
        (FAILURE, "", "failed", ""),
        (DELAY, "", "", "delayed"),
        (SUCCESS | FAILURE, "delivered", "failed", ""),
        (SUCCESS | FAILURE | DELAY, "delivered", "failed", "delayed"),
        (NEVER, "", "", ""),
        (NEVER | FAILURE, "", "", ""),  # no client may say so; the careful reading
    ],
)
def test_notify_is_respected(notify: int, delivered: str, failed: str, delayed: str) -> None:
    asked = envelope(dsn_notify=notify)
    assert kind_of(bounce_of(asked, DELIVERED, NOW)) == delivered
    assert kind_of(bounce_of(asked, DELIVERED, NOW, peer_reports=True)) == ""
    for final in (REFUSED, loop_detected(), expired(), lost()):
        assert kind_of(bounce_of(asked, final, NOW)) == failed
        assert kind_of(bounce_of(asked, final, NOW, peer_reports=True)) == failed
    assert kind_of(bounce_of(asked, DEFERRED, NOW)) == ""
    assert kind_of(bounce_of(asked, DEFERRED, NOW, FOUR_HOURS)) == delayed


@pytest.mark.parametrize(
    "values", [{"sender": "@"}, {"sender": ""}, {"type": "bounce"}], ids=["null", "none", "bounce"]
)
@pytest.mark.parametrize("result", [DELIVERED, REFUSED, DEFERRED, loop_detected(), expired()])
def test_nobody_is_told_about_a_report(values: dict[str, str], result: Outcome) -> None:
    given = envelope(dsn_notify=SUCCESS | FAILURE | DELAY, **values)
    assert bounce_of(given, result, NOW, FOUR_HOURS) is None


@pytest.mark.parametrize(
    ("result", "delay", "status"),
    [
        (REFUSED, None, (5, 11)),
        (expired(), None, (5, 47)),
        (loop_detected(), None, (5, 46)),  # not a delay, whatever the releases say
        (lost(), None, (5, 30)),
        (DEFERRED, FOUR_HOURS, (4, 71)),
    ],
)
def test_what_a_bounce_envelope_says(
    result: Outcome, delay: Optional[Delay], status: tuple[int, int]
) -> None:
    given = envelope(dsn_envid="id", dsn_ret="FULL", last_bounce=5, mda_user="bob")
    before = Envelope(**vars(given))
    bounce = bounce_of(given, result, NOW, delay)
    assert bounce is not None
    assert given == before
    assert bounce.type == "bounce"
    assert (bounce.esc_class, bounce.esc_code) == status
    assert bounce.errorline == result.text
    assert (bounce.ctime, bounce.retry, bounce.last_bounce) == (NOW, 0, 0)
    assert bounce.ttl == BOUNCE_TTL_SECONDS
    assert (bounce.sender, bounce.dest, bounce.dsn_envid) == (given.sender, given.dest, "id")
    assert bounce.bounce_delay == (delay.interval if delay else 0)
    assert bounce.bounce_ttl == (delay.lifetime if delay else 0)


@pytest.mark.parametrize(("version", "release"), [(3, "6.8"), (3, "7.8"), (2, "5.7")])
@pytest.mark.parametrize("result", [REFUSED, DEFERRED, DELIVERED])
def test_the_releases_read_it(version: int, release: str, result: Outcome) -> None:
    given = envelope(version=version, dsn_notify=7, dispatcher="a" if version == 3 else "")
    bounce = bounce_of(given, result, NOW, FOUR_HOURS)
    assert bounce is not None
    written = format_envelope(bounce, find_release("6.8" if version == 3 else "5.7"))
    parsed = parse_envelope(written)
    assert refusal(parsed, find_release(release)) is None
    assert kind_of(parsed.envelope) == kind_of(bounce)


def test_a_failure_is_recorded() -> None:
    given = envelope()
    later = record_failure(given, DEFERRED, NOW)
    assert given.retry == 6
    assert (later.retry, later.last_try, later.last_bounce) == (7, NOW, 0)
    assert (later.errorline, later.esc_class, later.esc_code) == (DEFERRED.text, 4, 71)
    warned = record_failure(given, DEFERRED, NOW, FOUR_HOURS)
    assert warned.last_bounce == given.ctime + FOUR_HOURS.interval


def bounce(given: Envelope, result: Outcome = REFUSED) -> Envelope:
    made = bounce_of(given, result, NOW, FOUR_HOURS)
    assert made is not None
    return made


def test_reports_of_one_message_become_one_mail() -> None:
    gathering = Gathering()
    assert gathering.wake_time() is None
    first = bounce(envelope(dsn_orcpt="bob@example.com", dsn_envid="QQ+3D1", dsn_ret="FULL"))
    second = bounce(
        envelope(dest="carol@example.com", dsn_orcpt="rfc822;c+2Bd@example.com", dsn_envid="QQ+3D1",
                 dsn_ret="FULL"),
        expired(),
    )  # fmt: skip
    gathering.add(0x100000001, first, NOW)
    gathering.add(0x200000001, first, NOW)
    gathering.add(0x100000002, second, NOW)
    assert gathering.wake_time() == NOW + 1
    assert gathering.take(NOW) == []
    groups = gathering.take(NOW + 1)
    assert [group.evpids for group in groups] == [[0x100000001, 0x100000002], [0x200000001]]
    assert [group.msgid for group in groups] == [1, 2]
    assert gathering.take(NOW + 2) == []
    report = groups[0].report("boundary", "Tue, 14 Nov 2023 22:13:20 +0000")
    assert groups[0].full
    text = b"".join(dsn.compose(report, [b"Subject: x\n\ntext\n"], full=True)).decode()
    for line in (
        "Subject: Delivery status notification: failed",
        "To: alice@example.net",
        "Reporting-MTA: dns; mx.example.org",
        "Original-Envelope-Id: QQ=1",
        "Original-Recipient: rfc822; bob@example.com",
        "Original-Recipient: rfc822; c+d@example.com",
        "Final-Recipient: rfc822; carol@example.com",
        "Status: 5.1.1",
        "Status: 5.4.7",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize(
    "other",
    [
        {"sender": "other@example.net"},
        {"smtpname": "other.example.org"},
        {"dispatcher": "local"},
        {"dsn_ret": "FULL"},
        {"dsn_envid": "x"},
    ],
    ids="".join,
)
def test_what_differs_is_not_put_together(other: dict[str, str]) -> None:
    gathering = Gathering()
    gathering.add(0x100000001, bounce(envelope()), NOW)
    gathering.add(0x100000002, bounce(envelope(**other)), NOW)
    assert len(gathering.take(NOW + 1)) == 2


def test_kinds_and_delays_are_not_put_together() -> None:
    gathering = Gathering()
    day = bounce_of(envelope(), DEFERRED, NOW, Delay(86_400, 345_600))
    assert day is not None
    asked = envelope(dsn_notify=7)
    for low, each in enumerate(
        [bounce(asked), bounce(asked, DEFERRED), bounce(asked, DELIVERED), day], 1
    ):
        gathering.add(0x100000000 | low, each, NOW)
    groups = gathering.take(NOW + 1)
    kinds = [group.report("b", "d", relayed=True).kind for group in groups]
    assert kinds == [dsn.Kind.FAILED, dsn.Kind.DELAYED, dsn.Kind.RELAYED, dsn.Kind.DELAYED]
    assert groups[2].report("b", "d").kind is dsn.Kind.DELIVERED
    assert [group.report("b", "d").delay_seconds for group in groups] == [0, 14_400, 0, 86_400]
    assert groups[1].report("b", "d").recipients[0].status == "4.7.1"
    assert not any(group.full for group in groups)


def test_a_report_has_a_limit() -> None:
    gathering = Gathering()
    made = bounce(envelope())
    for low in range(1, GROUP_MAX + 3):
        gathering.add(0x100000000 | low, made, NOW)
    assert gathering.wake_time() == NOW
    assert [len(group.evpids) for group in gathering.take(NOW)] == [GROUP_MAX]
    assert [len(group.evpids) for group in gathering.take(NOW + 1)] == [2]


def test_a_clock_that_is_set_back_delays_nothing() -> None:
    gathering = Gathering()
    gathering.add(0x100000001, bounce(envelope()), NOW)
    assert len(gathering.take(NOW - 5000)) == 1


def test_a_loop_that_a_release_recorded_is_a_failure() -> None:
    gathering = Gathering()
    stored = bounce(envelope())
    stored.esc_class, stored.esc_code = 4, 46
    gathering.add(0x100000001, stored, NOW)
    (group,) = gathering.take(NOW + 1)
    assert group.report("b", "d").recipients[0].status == "5.4.6"
    assert group.report("b", "d").kind is dsn.Kind.FAILED


@given(
    notify=st.integers(0, 255),
    kind=st.sampled_from(["mda", "mta", "bounce"]),
    sender=st.sampled_from(["@", "a@b"]),
    result=st.sampled_from([DELIVERED, REFUSED, DEFERRED, loop_detected()]),
    peer=st.booleans(),
)
def test_no_report_ever_makes_another(
    notify: int, kind: str, sender: str, result: Outcome, peer: bool
) -> None:
    made = bounce_of(
        envelope(dsn_notify=notify, type=kind, sender=sender), result, NOW, FOUR_HOURS, peer
    )
    if made is not None:
        assert sender != "@"
        assert not notify & NEVER
        for again in (DELIVERED, REFUSED, DEFERRED, loop_detected(), expired()):
            assert bounce_of(made, again, NOW, FOUR_HOURS) is None
