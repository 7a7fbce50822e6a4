"""What the machine says about itself."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.daemon import machine
from smtpd_core.daemon.machine import InterfaceAddress

if TYPE_CHECKING:
    from pathlib import Path


def test_the_loopback_is_there() -> None:
    assert InterfaceAddress("lo", "127.0.0.1") in machine.interface_addresses()
    assert "127.0.0.1" in machine.addresses_of("lo")


def test_names_and_literals() -> None:
    assert machine.addresses_of("192.0.2.1") == ("192.0.2.1",)
    assert machine.addresses_of("[2001:DB8::1]") == ("2001:db8::1",)
    assert machine.addresses_of("no-such-host.invalid") == ()


def test_ports() -> None:
    assert machine.port_of("submission") == 587
    assert machine.port_of("no-such-service") is None


@given(st.binary(max_size=300))
def test_any_answer_of_the_kernel_is_survived(reply: bytes) -> None:
    machine._parse_reply(reply)
    machine._ends(reply)


def test_an_answer_of_the_kernel() -> None:
    attribute = struct.pack("=HH", 8, 2) + bytes((192, 0, 2, 9))
    body = struct.pack("=BBBBI", 2, 24, 0, 0, 1) + attribute
    message = struct.pack("=IHHII", 16 + len(body), 20, 0, 1, 0) + body
    end = struct.pack("=IHHII", 16, 3, 0, 1, 0)
    assert machine._parse_reply(message + end) == [InterfaceAddress("lo", "192.0.2.9")]
    assert machine._ends(message + end)
    assert not machine._ends(message)


def test_the_name_of_the_server(tmp_path: Path) -> None:
    config = tmp_path / "smtpd.conf"
    (tmp_path / "mailname").write_text("mx.example.org\nmore\n")
    assert machine.server_name(str(config)) == "mx.example.org"
    (tmp_path / "mailname").write_text("not a name\n")
    name = machine.server_name(str(config))
    assert name
    assert " " not in name
