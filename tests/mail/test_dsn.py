"""Notifications, octet for octet and as the standard library reads them."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mail import dsn
from smtpd_core.mail.dsn import DsnError, Kind, Recipient, Report, compose

BOB = Recipient(
    "bob@example.org",
    "5.0.0",
    "550 5.1.1 No such user",
    orcpt="rfc822;bob+2Bx@example.org",
    remote_host="mx.example.org",
)
REPORT = Report(
    Kind.FAILED,
    "mail.example.com",
    "alice@example.com",
    (BOB,),
    boundary="0123456789abcdef/mail.example.com",
    date="Sun, 22 Nov 2026 16:00:00 +0000",
    envid="QQ+3D1",
)
ORIGINAL = b"From: alice@example.com\nSubject: hello\n"


def text(report: Report, original: bytes = ORIGINAL, *, full: bool = False) -> str:
    return b"".join(compose(report, [original], full=full)).decode("utf-8", "surrogateescape")


def test_a_failure_octet_for_octet() -> None:
    assert (
        text(REPORT)
        == """\
Subject: Delivery status notification: failed
From: Mailer Daemon <MAILER-DAEMON@mail.example.com>
To: alice@example.com
Date: Sun, 22 Nov 2026 16:00:00 +0000
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="0123456789abcdef/mail.example.com"

This is a MIME-encapsulated message.

--0123456789abcdef/mail.example.com
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

    Hi!

    This is the MAILER-DAEMON of mail.example.com; please do not
    reply to this message.

    Your message could not be delivered to the recipients below.
    This was the last attempt.

bob@example.org: 550 5.1.1 No such user

    The header of your message follows.

--0123456789abcdef/mail.example.com
Content-Description: Delivery Report
Content-Type: message/delivery-status

Original-Envelope-Id: QQ=1
Reporting-MTA: dns; mail.example.com

Original-Recipient: rfc822; bob+x@example.org
Final-Recipient: rfc822; bob@example.org
Action: failed
Status: 5.0.0
Remote-MTA: dns; mx.example.org
Diagnostic-Code: smtp; 550 5.1.1 No such user

--0123456789abcdef/mail.example.com
Content-Description: Message headers
Content-Type: text/rfc822-headers

From: alice@example.com
Subject: hello

--0123456789abcdef/mail.example.com--
"""
    )


def parts(message: Message) -> list[Message]:
    payload = message.get_payload()
    assert isinstance(payload, list)
    return [part for part in payload if isinstance(part, Message)]


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("full", [False, True])
def test_others_can_read_it(kind: Kind, full: bool) -> None:
    recipients = (replace(BOB, status="4.4.7"), Recipient("carol@example.org", "4.0.0"))
    report = replace(REPORT, kind=kind, recipients=recipients, retry_until="tomorrow")
    original = ORIGINAL + b"\n.\nbody without end"
    message = message_from_bytes(text(report, original, full=full).encode())
    assert message["Subject"] == f"Delivery status notification: {kind.value}"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert not message.defects
    note, status, returned = parts(message)
    assert note.get_content_type() == "text/plain"
    host, *about = parts(status)
    assert host["Reporting-MTA"] == "dns; mail.example.com"
    assert [fields["Final-Recipient"] for fields in about] == [
        "rfc822; bob@example.org",
        "rfc822; carol@example.org",
    ]
    assert [fields["Action"] for fields in about] == [kind.value] * 2
    assert (about[0]["Will-Retry-Until"] == "tomorrow") is (kind is Kind.DELAYED)
    assert about[1]["Diagnostic-Code"] is None
    if full:
        assert returned.get_content_type() == "message/rfc822"
        assert parts(returned)[0].get_payload() == ".\nbody without end\n"
    else:
        assert returned.get_content_type() == "text/rfc822-headers"


def test_a_delay_says_how_long() -> None:
    report = replace(REPORT, kind=Kind.DELAYED, delay_seconds=4 * 3600, lifetime_seconds=86400)
    assert "more than 4 hours." in text(report)
    assert "here for 1 day." in text(report)


@pytest.mark.parametrize(
    ("seconds", "period"),
    [(0, "0 seconds"), (1, "1 second"), (119, "1 minute"), (7200, "2 hours"), (200000, "2 days")],
)
def test_periods(seconds: int, period: str) -> None:
    assert dsn._period(seconds) == period


def test_octets_past_127_are_announced() -> None:
    report = replace(REPORT, eightbit=True)
    assert text(report).count("Content-Transfer-Encoding: 8bit\n") == 2


def test_what_goes_wrong_here_is_no_reply() -> None:
    local = replace(REPORT, recipients=(replace(BOB, text="Network error"),))
    assert "Diagnostic-Code: x-local; Network error\n" in text(local)


@pytest.mark.parametrize(
    "report",
    [
        replace(REPORT, boundary=""),
        replace(REPORT, boundary='a"b'),
        replace(REPORT, boundary="a\nb"),
        replace(REPORT, boundary="a" * 71),
        replace(REPORT, recipients=()),
        replace(REPORT, recipients=(replace(BOB, status="5.0"),)),
        replace(REPORT, recipients=(replace(BOB, status="5.0.0\n"),)),
    ],
)
def test_refusals(report: Report) -> None:
    with pytest.raises(DsnError):
        compose(report, [])


KEYS = ["Subject", "From", "To", "Date", "Auto-Submitted", "MIME-Version", "Content-Type"]
FIELDS = [
    "Original-Recipient",
    "Final-Recipient",
    "Action",
    "Status",
    "Remote-MTA",
    "Diagnostic-Code",
    "Will-Retry-Until",
]
hostile = (
    st.text(st.sampled_from("a\r\n\0\t :;+0DA-\x85\u2028\xe9\udc80\x1b"), max_size=30) | st.text()
)


def note_lines(report: Report) -> int:
    (note, *_) = parts(message_from_bytes(text(report).encode()))
    payload = note.get_payload()
    assert isinstance(payload, str)
    return payload.count("\n")


@given(st.lists(hostile, min_size=11, max_size=11), st.sampled_from(list(Kind)))
def test_nothing_foreign_becomes_a_line(values: list[str], kind: Kind) -> None:
    recipient = Recipient(values[0], "5.1.2", values[1], "rfc822;" + values[2], values[3])
    report = replace(
        REPORT,
        kind=kind,
        host=values[4],
        sender=values[5],
        date=values[6],
        envid=values[7],
        arrival=values[8],
        retry_until=values[9],
        recipients=(recipient, replace(recipient, orcpt=values[10])),
    )
    octets = b"".join(compose(report, ORIGINAL.splitlines(keepends=True)))
    assert not any(octet < 0x20 and octet not in b"\t\n" for octet in octets)
    assert max(map(len, octets.split(b"\n"))) <= 998
    message = message_from_bytes(octets)
    assert message.keys() == KEYS
    _, status, returned = parts(message)
    assert returned.get_payload() == ORIGINAL.decode()
    host, *about = parts(status)
    assert set(host.keys()) <= {"Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"}
    assert len(about) == 2
    for fields in about:
        assert fields.keys() == [name for name in FIELDS if name in fields]
        assert fields["Final-Recipient"].startswith("rfc822; ")
    assert note_lines(report) == note_lines(replace(REPORT, kind=kind)) + 1
