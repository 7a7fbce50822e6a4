"""The PROXY protocol, version 2: who the client behind a proxy is.

Only version 2 is spoken; a version 1 line fails at its first octet. The header is believed from
whoever sends it: restricting its senders is the listener's business.

Source: the PROXY protocol specification, section 2.2; OpenSMTPD 7.8 for what is refused.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Optional

from smtpd_core import text
from smtpd_core.errors import FormatError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TIMEOUT_SECONDS = 300
MAX_LENGTH = 4096  # octets behind the fixed part: the largest address is 216, the rest are TLVs

_FIXED = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0, 1
_UNSPEC, _INET, _INET6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESS_LENGTH = {_UNSPEC: 0, _INET: 12, _INET6: 36, _UNIX: 216}
_UNIX_PATH = 108
_MAX_UNIX_PATH = 107  # octets; the last of 108 ends the name


class ProxyError(FormatError):
    """A preamble that is refused; its text is what the original logs as reason."""


@dataclass(frozen=True)
class Endpoint:
    """One end of a connection: an IP address as text and a port, or a path on a Unix socket."""

    host: str
    port: int


@dataclass(frozen=True)
class Proxied:
    """What a preamble says; without source, the connection's own addresses stand."""

    source: Optional[Endpoint] = None
    destination: Optional[Endpoint] = None
    is_unix: bool = False


class ProxyReader:
    """Read one preamble; `rest` is what came behind it, of the session or its TLS."""

    def __init__(self) -> None:
        self._buffer = b""
        self.result: Optional[Proxied] = None
        self.rest = b""

    def feed(self, octets: bytes) -> Optional[Proxied]:
        """Take octets; return the result once the preamble is complete. Raises ProxyError."""
        if self.result is not None:
            self.rest += octets
            return self.result
        buffer = self._buffer = self._buffer + octets
        if buffer[: len(SIGNATURE)] != SIGNATURE[: len(buffer)]:
            raise ProxyError("protocol error (invalid signature)")
        if len(buffer) > 12 and buffer[12] >> 4 != 2:
            raise ProxyError("protocol error (invalid version)")
        if len(buffer) > 12 and buffer[12] & 0x0F not in (_LOCAL, _PROXY):
            raise ProxyError("protocol error (unknown command)")
        if len(buffer) < _FIXED.size:
            return None
        _, version_command, family, length = _FIXED.unpack_from(buffer)
        if length > MAX_LENGTH:
            raise ProxyError("protocol error (header too long)")
        local = version_command & 0x0F == _LOCAL
        if not local:
            _check_family(family, length)
        end = _FIXED.size + length
        if len(buffer) < end:
            return None
        self.rest = buffer[end:]
        self._buffer = b""
        self.result = Proxied() if local else _endpoints(family, buffer[_FIXED.size : end])
        return self.result


def _check_family(family: int, length: int) -> None:
    if family not in _ADDRESS_LENGTH:
        raise ProxyError("protocol error (unsupported address family)")
    if family == _UNSPEC:
        raise ProxyError("address translation (UNSPEC family not supported for PROXYing)")
    if length < _ADDRESS_LENGTH[family]:
        raise ProxyError("protocol error (address info too short)")


def _endpoints(family: int, block: bytes) -> Proxied:
    """Read the addresses; the TLVs behind them are passed over."""
    if family == _UNIX:
        source, destination = block[:_UNIX_PATH], block[_UNIX_PATH : 2 * _UNIX_PATH]
        return Proxied(_unix(source), _unix(destination), is_unix=True)
    size = 4 if family == _INET else 16
    source_port, destination_port = struct.unpack_from("!HH", block, 2 * size)
    return Proxied(
        Endpoint(_ip(block[:size]), source_port),
        Endpoint(_ip(block[size : 2 * size]), destination_port),
    )


def _unix(padded: bytes) -> Endpoint:
    path = padded.partition(b"\0")[0]
    if len(path) > _MAX_UNIX_PATH:
        raise ProxyError("address translation (Unix socket path longer than supported)")
    return Endpoint(text.decode(path), 0)


def _ip(octets: bytes) -> str:
    """Spell an address as inet_ntop does in every release of Python."""
    address = ipaddress.ip_address(octets)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return f"::ffff:{address.ipv4_mapped}"
    return str(address)
