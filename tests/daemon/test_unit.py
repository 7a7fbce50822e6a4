"""The unit file."""

from __future__ import annotations

import pytest

from smtpd_core.daemon.supervisor import KILL_SECONDS, STOP_SECONDS
from smtpd_core.daemon.unit import quote, systemd_unit


def test_it_waits_for_an_orderly_end() -> None:
    lines = systemd_unit("/usr/bin/smtpctl").splitlines()
    (timeout,) = [line for line in lines if line.startswith("TimeoutStopSec=")]
    assert int(timeout.partition("=")[2]) > 2 * STOP_SECONDS + 2 * KILL_SECONDS
    assert "ExecStart=/usr/bin/smtpctl smtpd -F" in lines


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/usr/bin/smtpctl", "/usr/bin/smtpctl"),
        ("/a b", '"/a b"'),
        ("50%$x", "50%%$$x"),
        ('a"b', '"a\\"b"'),
        ("", '""'),
    ],
)
def test_words(word: str, quoted: str) -> None:
    assert quote(word) == quoted
