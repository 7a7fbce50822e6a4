"""The preamble of a connection that comes through a proxy, read to its last octet and no further.

It is read from the socket itself, before there is a Stream: what follows may be a handshake, and
an octet that was read is lost to it.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from smtpd_core.smtp.proxy import ProxyError, ProxyReader

if TYPE_CHECKING:
    import socket

    from smtpd_core.smtp.proxy import Proxied

_FIXED = 16  # octets before those that the last two of them count


async def read_preamble(end: socket.socket, timeout_seconds: float) -> Proxied:
    """Read the preamble from a socket that does not block.

    Raises ProxyError, whose text is the reason the original logs.
    """
    try:
        return await asyncio.wait_for(_read(end), timeout_seconds)
    except asyncio.TimeoutError:
        raise ProxyError("timeout") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ProxyError(f"IO error ({why})") from error


async def _read(end: socket.socket) -> Proxied:
    loop = asyncio.get_running_loop()
    reader = ProxyReader()
    fixed = b""
    left = _FIXED
    while True:
        octets = await loop.sock_recv(end, left)
        if not octets:
            raise ProxyError("disconnected")
        found = reader.feed(octets)
        if found is not None:
            return found
        left -= len(octets)
        if len(fixed) < _FIXED:
            fixed += octets
            if len(fixed) == _FIXED:
                left = int.from_bytes(fixed[-2:], "big")
