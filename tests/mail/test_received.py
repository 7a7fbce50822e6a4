"""Trace fields."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smtpd_core.errors import LocalError
from smtpd_core.mail import received
from smtpd_core.mail.address import NULL_ADDRESS, Address
from smtpd_core.mail.received import Trace

DATE = "Sun, 22 Nov 2026 14:13:32 +0000 (UTC)"
TRACE = Trace("c.example", "rdns.example", "192.0.2.1", "mx.example", "ESMTP", 0xABC, DATE)


def test_date() -> None:
    assert received.format_date(1795356812, 0, "UTC") == DATE
    assert received.format_date(0, 3600, "CET") == "Thu, 1 Jan 1970 01:00:00 +0100 (CET)"
    assert received.format_date(0, -12600, "NST") == "Wed, 31 Dec 1969 20:30:00 -0330 (NST)"


def test_plain() -> None:
    assert received.received(TRACE) == (
        b"Received: from c.example (rdns.example [192.0.2.1])\n"
        b"\tby mx.example (OpenSMTPD) with ESMTP id 00000abc;\n"
        b"\tSun, 22 Nov 2026 14:13:32 +0000 (UTC)\n"
    )


def test_everything() -> None:
    tls = "TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO"
    trace = replace(
        TRACE,
        address="[2001:db8::1]",
        host="",
        tls=tls,
        user="joe",
        recipient=Address("bob", "b.example"),
        protocol="ESMTPSA",
    )
    assert received.received(trace) == (
        b"Received: from c.example (<unknown> [2001:db8::1])\n"
        b"\tby mx.example (OpenSMTPD) with ESMTPSA id 00000abc"
        b" (TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO) auth=yes user=joe\n"
        b"\tfor <bob@b.example>;\n"
        b"\tSun, 22 Nov 2026 14:13:32 +0000 (UTC)\n"
    )
    assert b":NO) auth=no\n" in received.received(replace(trace, user=""))
    assert b"auth=" not in received.received(replace(trace, user=None))
    assert b"auth=" not in received.received(replace(trace, tls=None))


def test_masked() -> None:
    assert received.received(replace(TRACE, helo="")).startswith(b"Received: \n\tby mx.example ")


def test_local() -> None:
    trace = replace(TRACE, helo="localhost", host="mx.example", address="local")
    assert received.received(trace).startswith(b"Received: from localhost (mx.example [local])\n")


@pytest.mark.parametrize("name", ["a\nX-Spam: no", "a b", "a)", "", "é", "\udcff"])
def test_hostile_reverse_names_are_unknown(name: str) -> None:
    assert b"(<unknown> [192.0.2.1])\n" in received.received(replace(TRACE, host=name))


@pytest.mark.parametrize(
    "trace",
    [
        replace(TRACE, helo="a\nb"),
        replace(TRACE, address="a\nb"),
        replace(TRACE, server="a\nb"),
        replace(TRACE, protocol="a\nb"),
        replace(TRACE, date="a\nb"),
        replace(TRACE, tls="a\nb"),
        replace(TRACE, tls="t", user="a\nb"),
        replace(TRACE, recipient=Address("a\nb", "c")),
        replace(TRACE, helo="a\0b"),
    ],
)
def test_no_value_adds_a_line(trace: Trace) -> None:
    with pytest.raises(LocalError):
        received.received(trace)


def test_protocol_names() -> None:
    name = received.protocol_name
    assert name(extended=False, secured=False, authenticated=False) == "SMTP"
    assert name(extended=True, secured=False, authenticated=False) == "ESMTP"
    assert name(extended=True, secured=True, authenticated=True) == "ESMTPSA"
    assert name(extended=True, secured=False, authenticated=True) == "ESMTPA"


def test_fields_of_delivery() -> None:
    assert received.return_path(Address("a", "b")) == b"Return-Path: <a@b>\n"
    assert received.return_path(NULL_ADDRESS) == b""
    assert received.delivered_to(Address("a", "b")) == b"Delivered-To: a@b\n"
    with pytest.raises(LocalError):
        received.return_path(Address("a\nb", "c"))
