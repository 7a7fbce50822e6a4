"""What the machine says about itself: its name, its addresses, the ports of services.

Source: OpenSMTPD 7.8, getmailname and config_default; rtnetlink(7) for the addresses, because
the standard library has no getifaddrs.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import List, NamedTuple, Optional, Sequence

from smtpd_core import text
from smtpd_core.config.draft import well_known_port
from smtpd_core.dns.system import address_text

MAX_NAME = 255
MAX_REPLY = 1 << 20  # octets of the kernel's answer; thousands of addresses
_GET_ADDRESSES = 22  # RTM_GETADDR
_NEW_ADDRESS = 20  # RTM_NEWADDR
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
_ADDRESS, _LOCAL = 1, 2  # IFA_ADDRESS, IFA_LOCAL
_HEADER = struct.Struct("=IHHII")
_BODY = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")


class InterfaceAddress(NamedTuple):
    """An address and the interface that has it."""

    interface: str
    address: str


def interface_addresses() -> List[InterfaceAddress]:
    """Give the addresses of all interfaces; those of the loopback where nobody can be asked."""
    try:
        reply = _ask_kernel()
    except (OSError, AttributeError):
        return [InterfaceAddress("lo", "127.0.0.1"), InterfaceAddress("lo", "::1")]
    return _parse_reply(reply)


def _ask_kernel() -> bytes:
    with socket.socket(
        getattr(socket, "AF_NETLINK"),  # noqa: B009 - not on every system
        socket.SOCK_RAW | socket.SOCK_CLOEXEC,
        0,
    ) as end:
        end.settimeout(2)
        body = _BODY.pack(0, 0, 0, 0, 0)
        end.send(_HEADER.pack(_HEADER.size + len(body), _GET_ADDRESSES, _REQUEST_DUMP, 1, 0) + body)
        reply = b""
        while len(reply) < MAX_REPLY:
            piece = end.recv(1 << 16)
            reply += piece
            if len(piece) < _HEADER.size or _ends(piece):
                break
    return reply


def _ends(piece: bytes) -> bool:
    position = 0
    while position + _HEADER.size <= len(piece):
        length, kind, _, _, _ = _HEADER.unpack_from(piece, position)
        if kind in (_DONE, _ERROR):
            return True
        position += max((length + 3) & ~3, _HEADER.size)
    return False


def _parse_reply(reply: bytes) -> List[InterfaceAddress]:
    found = []
    position = 0
    while position + _HEADER.size + _BODY.size <= len(reply):
        length, kind, _, _, _ = _HEADER.unpack_from(reply, position)
        end = min(position + length, len(reply))
        if kind == _NEW_ADDRESS:
            address = _parse_address(reply, position + _HEADER.size, end)
            if address is not None:
                found.append(address)
        position += max((length + 3) & ~3, _HEADER.size)
    return found


def _parse_address(reply: bytes, start: int, end: int) -> Optional[InterfaceAddress]:
    family, _, _, _, index = _BODY.unpack_from(reply, start)
    size = {socket.AF_INET: 4, socket.AF_INET6: 16}.get(family)
    values = {}
    position = start + _BODY.size
    while position + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(reply, position)
        values[kind] = reply[position + _ATTRIBUTE.size : min(position + length, end)]
        position += max((length + 3) & ~3, _ATTRIBUTE.size)
    octets = values.get(_LOCAL, values.get(_ADDRESS, b""))
    if size is None or len(octets) != size:
        return None
    try:
        name = socket.if_indextoname(index)
    except OSError:  # it went away meanwhile
        return None
    address = socket.inet_ntop(family, octets)
    if family == socket.AF_INET6 and octets[0] == 0xFE and octets[1] & 0xC0 == 0x80:
        address += f"%{name}"
    return InterfaceAddress(name, address)


def addresses_of(name: str) -> Sequence[str]:
    """Give the addresses of an interface, a literal or a host name; none when there is none."""
    literal = address_text(name.strip("[]"))
    if literal is not None:
        return (literal,)
    of_interface = [each.address for each in interface_addresses() if each.interface == name]
    if of_interface:
        return tuple(of_interface)
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def port_of(service: str) -> Optional[int]:
    """Give the TCP port of a service, None when nobody knows it."""
    known = well_known_port(service)
    if known is not None:
        return known
    try:
        return socket.getservbyname(service, "tcp")
    except (OSError, ValueError):
        return None


def server_name(config_path: str) -> str:
    """Give the name of the server: the mailname file beside the configuration, or the host's."""
    path = os.path.join(os.path.dirname(os.path.abspath(config_path)), "mailname")
    try:
        with open(path, "rb") as file:
            name = text.decode(file.readline(MAX_NAME + 1)).strip()
    except OSError:
        name = ""
    if _is_name(name):
        return name
    name = socket.gethostname()
    if "." not in name:
        try:
            found = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)
            name = found[0][3] or name
        except (OSError, UnicodeError):
            pass
    return name if _is_name(name) else "localhost"


def _is_name(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and all(
        each.isascii() and (each.isalnum() or each in "-._") for each in name
    )
