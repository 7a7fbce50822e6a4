"""The sockets that mail comes in by: made by the supervisor, kept across a reload, inherited."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from smtpd_core.errors import SmtpdError

if TYPE_CHECKING:
    from smtpd_core.config.model import Config, Listener

BACKLOG = 512


class ListenError(SmtpdError):
    """A socket that cannot be had."""


class Endpoint(NamedTuple):
    """Where one listener listens; the scope of a link-local address stays in the text."""

    address: str
    port: int


class Listening(NamedTuple):
    """A listener of the configuration, and a socket for one of its addresses."""

    listener: Listener
    endpoint: Endpoint
    socket: socket.socket


def endpoints_of(config: Config) -> Iterator[Tuple[Listener, Endpoint]]:
    """Give where the listeners of a configuration listen, each place once."""
    seen = set()
    for listener in config.listeners:
        for address in listener.addresses:
            endpoint = Endpoint(address, listener.port)
            family = 6 if ":" in address else 4
            if listener.family in (0, family) and endpoint not in seen:
                seen.add(endpoint)
                yield listener, endpoint


class Sockets:
    """The listening sockets that are open."""

    def __init__(self, passed: Sequence[socket.socket] = ()) -> None:
        """Take over those that the service manager has passed."""
        self._open: Dict[Endpoint, socket.socket] = {}
        for each in passed:
            name = each.getsockname()
            if each.family in (socket.AF_INET, socket.AF_INET6):
                self._open[Endpoint(str(name[0]), int(name[1]))] = each
            else:
                each.close()

    def bind(self, config: Config) -> List[Listening]:
        """Open what a configuration listens on, in addition to what is open.

        Nothing is closed: that is for retain, once the configuration is in force.
        Raises ListenError, having closed what it opened.
        """
        opened: List[Endpoint] = []
        listening = []
        try:
            for listener, endpoint in endpoints_of(config):
                if endpoint not in self._open:
                    self._open[endpoint] = _listen(endpoint)
                    opened.append(endpoint)
                listening.append(Listening(listener, endpoint, self._open[endpoint]))
        except ListenError:
            for endpoint in opened:
                self._open.pop(endpoint).close()
            raise
        return listening

    def retain(self, listening: Sequence[Listening]) -> None:
        """Close what is not in the list."""
        kept = {each.endpoint for each in listening}
        for endpoint in [each for each in self._open if each not in kept]:
            self._open.pop(endpoint).close()

    def close(self) -> None:
        """Close all."""
        self.retain(())


def _listen(endpoint: Endpoint) -> socket.socket:
    address, _, scope = endpoint.address.partition("%")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        end = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise _refused(endpoint, error) from None
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            index = socket.if_nametoindex(scope) if scope else 0
            end.bind((address, endpoint.port, 0, index))
        else:
            end.bind((address, endpoint.port))
        end.listen(BACKLOG)
    except OSError as error:
        end.close()
        raise _refused(endpoint, error) from None
    end.setblocking(False)
    return end


def _refused(endpoint: Endpoint, error: OSError) -> ListenError:
    hint = ""
    if error.errno == errno.EACCES and endpoint.port < 1024 and os.geteuid() != 0:
        hint = " (a port below 1024 needs root, or a socket from the service manager)"
    where = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return ListenError(f"cannot listen on {where}:{endpoint.port}: {error.strerror}{hint}")
