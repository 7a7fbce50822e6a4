"""The preamble of a proxy: read to its last octet, in whatever pieces it comes."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from smtpd_core.listener.proxied import read_preamble
from smtpd_core.smtp.proxy import SIGNATURE, Endpoint, Proxied, ProxyError
from tests.fakes.loop import run

V4 = SIGNATURE + struct.pack("!BBH4s4sHH", 0x21, 0x11, 12, b"\xc0\0\2\7", b"\xc0\0\2\1", 40000, 25)
TLV = SIGNATURE + b"\x21\x11\x00\x14" + V4[16:] + b"\x04\x00\x05hello"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


async def read(*pieces: bytes, end: bool = False, timeout: float = 5) -> tuple[Proxied, bytes]:
    """Give what was read, and what was left in the socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        reading = asyncio.ensure_future(read_preamble(ours, timeout))
        for piece in pieces:
            theirs.send(piece)
            for _ in range(3):
                await asyncio.sleep(0)
        if end:
            theirs.shutdown(socket.SHUT_WR)
        found = await reading
        try:
            return found, ours.recv(100)
        except BlockingIOError:
            return found, b""


FROM = Proxied(Endpoint("192.0.2.7", 40000), Endpoint("192.0.2.1", 25))


@pytest.mark.parametrize(
    ("octets", "expected"),
    [(V4, FROM), (TLV, FROM), (LOCAL, Proxied())],
    ids=("v4", "tlv", "local"),
)
def test_what_follows_stays_in_the_socket(octets: bytes, expected: Proxied) -> None:
    assert run(read(octets + b"\x16\x03\x01")) == (expected, b"\x16\x03\x01")
    assert run(read(*(octets[at : at + 1] for at in range(len(octets))))) == (expected, b"")


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"EHLO x\r\n", "protocol error (invalid signature)"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\n", "protocol error (invalid signature)"),
        (SIGNATURE + b"\x11\x11\x00\x0c", "protocol error (invalid version)"),
        (SIGNATURE + b"\x21\x11\xff\xff", "protocol error (header too long)"),
        (V4[:20], "disconnected"),
        (b"", "disconnected"),
    ],
)
def test_refusals(octets: bytes, reason: str) -> None:
    with pytest.raises(ProxyError) as caught:
        run(read(octets, end=True))
    assert str(caught.value) == reason


def test_a_silent_proxy_is_not_waited_for() -> None:
    with pytest.raises(ProxyError) as caught:
        run(read(timeout=0.01))
    assert str(caught.value) == "timeout"
