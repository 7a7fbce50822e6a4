"""Every line of the log, as the original writes it; and what is foreign in them."""

from __future__ import annotations

import pytest

from smtpd_core.mail.status import Result, outcome
from smtpd_core.mta import lines
from smtpd_core.mta.lines import NOWHERE, Here
from smtpd_core.net.stream import TlsFacts
from smtpd_core.queue.envelope import Envelope

SID = "00000000000000ff"
HERE = Here(0xFF, "192.0.2.9", "192.0.2.1", 25, "mx.example")
SIX = HERE._replace(address="2001:db8::1")
FACTS = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, verified=True, fingerprint="SHA256:ab")
ERROR = f"smtp-out: Error on session {SID}"
PLACE = "address=192.0.2.1:25"
EVIL = 'x"\n0000 mta delivery \x1b[2J'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            lines.connecting(SIX, "smtp+tls"),
            f"{SID} mta connecting address=smtp+tls://[2001:db8::1]:25 host=mx.example",
        ),
        (lines.connected(HERE), f"{SID} mta connected"),
        (lines.tls(HERE, FACTS), f"{SID} mta tls ciphers=TLSv1.3:TLS_AES_256_GCM_SHA384:256"),
        (
            lines.certificate(HERE, FACTS._replace(verified=False)),
            f'{SID} mta cert-check result="unverified" fingerprint="SHA256:ab"',
        ),
        (
            lines.failed(HERE, "Connection timeout", 0),
            f"{SID} mta error reason=Connection timeout address=192.0.2.1:25",
        ),
        (
            lines.failed(HERE, "Connection timeout", 3),
            f"{ERROR} after 3 message(s) sent: Connection timeout address=192.0.2.1:25",
        ),
        (
            lines.downgrading(HERE, "bad"),
            f'{ERROR}: opportunistic TLS failed, downgrading to plain {PLACE} reason="bad"',
        ),
        (lines.disconnected(HERE, 2), f"{SID} mta disconnected reason=quit messages=2"),
        (lines.rejects_all(HERE), f"{SID} mta host-rejects-all-mails address=192.0.2.1:25"),
        (
            lines.mx_failed("[relay:d,smtp]", "No MX"),
            "smtp-out: Failed to resolve MX for [relay:d,smtp]: No MX",
        ),
        (
            lines.no_route("No MX found for", lines.connector("", "[relay:d,smtp]", 4)),
            "smtp-out: No MX found for [connector:[]->[relay:d,smtp],0x4]",
        ),
        (lines.source_failed("r", "why"), "smtp-out: Error on r: why"),
        (lines.disabling("r", 15), "smtp-out: Disabling route r for 15s"),
        (lines.enabling("r"), "smtp-out: Enabling route r"),
        (lines.enabling("r", asked=True), "smtp-out: Enabling route r per admin request"),
        (
            lines.holding("[relay:d]"),
            "smtp-out: hiwat reached on [relay:d]: holding envelopes",
        ),
        (lines.releasing("[relay:d]"), "smtp-out: back to lowat on [relay:d]: releasing"),
    ],
)
def test_lines(line: str, expected: str) -> None:
    assert line == expected


def test_deliveries() -> None:
    envelope = Envelope(sender="s@x", rcpt="r@y", dest="d@z", ctime=1000)
    done = outcome(Result.DELIVERED, "250 ok")
    assert lines.delivery(HERE, 0xAB, envelope, done, 1065) == (
        f"{SID} mta delivery evpid=00000000000000ab from=<s@x> to=<d@z> rcpt=<r@y>"
        ' source="192.0.2.9" relay="192.0.2.1 (mx.example)" delay=1m5s result="Ok" stat="250 ok"'
    )
    failed = outcome(Result.PERMANENT, "550 no")
    line = lines.delivery(HERE, 0xAB, envelope, failed, 1065)
    assert line.endswith('result="PermFail" stat="550 no" address=192.0.2.1:25')
    null = Envelope(sender="@", rcpt="d@z", dest="d@z", ctime=1000)
    lost = outcome(Result.LOOP, "Loop detected")
    assert lines.delivery(NOWHERE, 0xAB, null, lost, 1000) == (
        "0000000000000000 mta delivery evpid=00000000000000ab from=<> to=<d@z> rcpt=-"
        ' source="-" relay="z" delay=0s result="PermFail" stat="Loop detected"'
    )


def test_foreign_text_stays_in_its_place() -> None:
    envelope = Envelope(sender=EVIL, rcpt="d@z", dest=EVIL, ctime=0)
    found = outcome(Result.TEMPORARY, EVIL)
    here = HERE._replace(name=EVIL)
    for line in (
        lines.delivery(here, 1, envelope, found, 0),
        lines.failed(here, EVIL, 0),
        lines.connecting(here, "smtp"),
        lines.mx_failed("[relay:d]", EVIL),
        lines.source_failed(EVIL, EVIL),
        lines.disabling(EVIL, 1),
        lines.no_route("x", "y", EVIL),
    ):
        assert line.isprintable()
    assert 'stat="x\\"' in lines.delivery(here, 1, envelope, found, 0)


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [(-5, "0s"), (0, "0s"), (61, "1m1s"), (3600, "1h"), (176_461, "2d1h1m1s"), (86_400, "1d")],
)
def test_ages(seconds: int, spelled: str) -> None:
    assert lines.delay_text(seconds) == spelled
