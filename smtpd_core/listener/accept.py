"""Takes clients from listening sockets, and keeps their number within bounds.

The sockets were bound by whoever may, and several processes may accept from the same ones. When
descriptors run out, or all sessions are taken, accepting stops: clients then wait in the backlog
of the kernel until a session has ended. One line is logged when that begins, and one when it is
over, which it is not while nearly all sessions are taken.

A client with too many sessions of its own is told so and sent away. Behind a proxy that is known
only after the preamble, whose connection counts like any other until then.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from typing import TYPE_CHECKING, Dict, List, Optional, Protocol, Sequence, Tuple

from smtpd_core.config.model import ListenTls
from smtpd_core.listener import lines
from smtpd_core.listener.limits import Clients, client_key
from smtpd_core.listener.proxied import read_preamble
from smtpd_core.listener.session import Client, Session
from smtpd_core.net.stream import adopt
from smtpd_core.smtp import answers
from smtpd_core.smtp.proxy import ProxyError

if TYPE_CHECKING:
    from smtpd_core.config.model import Listener
    from smtpd_core.listener.session import Names
    from smtpd_core.listener.site import Entrance, Site
    from smtpd_core.listener.surroundings import Surroundings

MAX_SESSIONS = 1000  # of one process, where nobody says otherwise
ACCEPTS_AT_ONCE = 16  # before sessions, and other processes, get their turn
RETRY_SECONDS = 1.0  # until the next try when descriptors ran out elsewhere
LEAVE_SECONDS = 5.0  # for sessions that were cut off to end

# What Linux reports of a connection that went wrong before it was accepted. Source: accept(2).
_OF_THE_CLIENT = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "EPERM", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid. Source: unix(7)


class Place(Protocol):
    """Where a socket listens."""

    @property
    def address(self) -> str:
        """Give the IP address without brackets."""

    @property
    def port(self) -> int:
        """Give the port."""


class Listening(Protocol):
    """A listening socket, and the listener of the configuration it belongs to.

    One of the Unix family is the local socket, whatever its listener.
    """

    @property
    def listener(self) -> Listener:
        """Give the listener."""

    @property
    def endpoint(self) -> Place:
        """Give where it listens."""

    @property
    def socket(self) -> socket.socket:
        """Give the socket, which does not block."""


class _Door:
    """A listening socket in use, and what its sessions begin with."""

    def __init__(self, site: Site, entrance: Entrance, listening: socket.socket) -> None:
        self.site = site
        self.entrance = entrance
        self.socket = listening


class Acceptor:
    """All listening sockets and sessions of a process."""

    def __init__(
        self,
        names: Names,
        surroundings: Surroundings,
        *,
        max_sessions: int = MAX_SESSIONS,
        clients: Optional[Clients] = None,
    ) -> None:
        """Begin without a socket; names finds those of clients."""
        self._names = names
        self._surroundings = surroundings
        self._log = surroundings.log
        self._loop = asyncio.get_running_loop()
        self._most = max_sessions
        self._clients = clients or Clients()
        self._doors: List[_Door] = []
        self._site: Optional[Site] = None
        self._tasks: Dict[asyncio.Task[None], Optional[Session]] = {}
        self._reading = False
        self._paused = False
        self._stopping = False
        self._complained = False
        self._retry: Optional[asyncio.TimerHandle] = None

    @property
    def session_count(self) -> int:
        """Give how many clients are here."""
        return len(self._tasks)

    # Sockets.

    def open(self, site: Site, listening: Sequence[Listening]) -> None:
        """Accept from these sockets, for a configuration; those of an earlier call are closed.

        A socket that is in both lists stays open, and sessions under way are not disturbed.
        """
        self._stop_reading()
        kept = {each.socket.fileno() for each in listening}
        for door in self._doors:
            if door.socket.fileno() not in kept:
                door.socket.close()
        self._site = site
        self._doors = [_open_door(site, each) for each in listening]
        self._start_reading()

    def adopt(self, end: socket.socket, uid: Optional[int] = None) -> bool:
        """Serve a local client at the other end of a socket; False, and closed, when we cannot.

        uid is that of the client, where it is known.
        """
        if self._site is None or self._paused or self._stopping or self._is_full():
            end.close()
            return False
        site = self._site
        end.setblocking(False)
        self._begin(_Door(site, site.local_entrance(), end), end, "", uid)
        return True

    def pause(self) -> None:
        """Accept nobody until resume; who connects waits in the backlog."""
        self._paused = True
        self._stop_reading()

    def resume(self) -> None:
        """Accept again."""
        self._paused = False
        self._start_reading()

    async def stop(self, timeout_seconds: float) -> None:
        """Close the sockets, let mail under way come to its end, then cut off what is left."""
        self._stopping = True
        self._stop_reading()
        for door in self._doors:
            door.socket.close()
        self._doors = []
        for session in self._tasks.values():
            if session is not None:
                session.leave()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_seconds)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=LEAVE_SECONDS)

    # Accepting.

    def _is_full(self) -> bool:
        return len(self._tasks) >= self._most

    def _start_reading(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._reading or self._paused or self._stopping:
            return
        self._reading = True
        for door in self._doors:
            self._loop.add_reader(door.socket.fileno(), self._accept, door)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            for door in self._doors:
                self._loop.remove_reader(door.socket.fileno())

    def _accept(self, door: _Door) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            if self._is_full():
                self._disable("Client limit reached")
                return
            try:
                end, name = door.socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OF_THE_CLIENT:
                    continue
                self._disable(error.strerror or str(error))
                self._retry = self._loop.call_later(RETRY_SECONDS, self._start_reading)
                return
            if self._complained and len(self._tasks) < self._most * 3 // 4:
                self._complained = False
                self._log(
                    "warn", "warn: smtp: fd exhaustion over, re-enabling incoming connections"
                )
            end.setblocking(False)
            if door.socket.family == socket.AF_UNIX:
                self._begin(door, end, "", _uid_of(end))
            else:
                self._begin(door, end, str(name[0]).partition("%")[0], None)

    def _disable(self, why: str) -> None:
        self._stop_reading()
        if not self._complained:
            self._complained = True
            self._log("warn", f"warn: Disabling incoming SMTP connections: {why}")

    # Sessions.

    def _begin(self, door: _Door, end: socket.socket, address: str, uid: Optional[int]) -> None:
        task = self._loop.create_task(self._serve(door, end, address, uid))
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._surroundings.confess(error)
        if not self._reading and not self._is_full():
            self._start_reading()

    async def _serve(
        self, door: _Door, end: socket.socket, address: str, uid: Optional[int]
    ) -> None:
        site, entrance = door.site, door.entrance
        try:
            if entrance.proxy:
                address = await self._read_preamble(site, end, address)
            client = _client(address, uid)
            entered = self._clients.enter(client.key)
        except ProxyError as error:
            end.close()
            session = self._surroundings.new_id()
            self._log("info", lines.proxy_failed(session, _spelled(address), str(error)))
            return
        except BaseException:
            end.close()
            raise
        if not entered:
            self._send_away(end, entrance, client)
            return
        try:
            await self._run(door, end, client)
        finally:
            self._clients.leave(client.key)

    async def _run(self, door: _Door, end: socket.socket, client: Client) -> None:
        try:
            stream = await adopt(end)
        except BaseException:
            end.close()
            raise
        session = Session(door.site, door.entrance, client, stream)
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = session
        if self._stopping:
            session.leave()
        await session.run(self._names)

    async def _read_preamble(self, site: Site, end: socket.socket, address: str) -> str:
        """Give the address of the client behind a proxy. Raises ProxyError.

        A client on a Unix socket of the proxy's machine has none that could be told from ours,
        and would count as local: it is refused.
        """
        session = self._surroundings.new_id()
        self._log("info", lines.proxied(session, _spelled(address)))
        found = await read_preamble(end, site.timeouts.proxy)
        if found.is_unix:
            raise ProxyError("protocol error (unsupported address family)")
        return address if found.source is None else found.source.host

    def _send_away(self, end: socket.socket, entrance: Entrance, client: Client) -> None:
        reply = answers.TOO_MANY_CLIENTS
        try:
            if entrance.tls is not ListenTls.IMMEDIATE:
                end.send(reply.encode())
        except OSError:
            pass
        end.close()
        if self._clients.first_refusal(client.key):
            line = lines.refused(self._surroundings.new_id(), client.address, str(reply))
            self._log("info", line)


def _open_door(site: Site, listening: Listening) -> _Door:
    if listening.socket.family == socket.AF_UNIX:
        return _Door(site, site.local_entrance(), listening.socket)
    address = listening.endpoint.address.partition("%")[0]
    entrance = site.entrance(listening.listener, address, listening.endpoint.port)
    return _Door(site, entrance, listening.socket)


def _client(address: str, uid: Optional[int]) -> Client:
    if not address:
        return Client("local", "local", "", uid)
    family = "inet6" if ":" in address else "inet4"
    return Client(_spelled(address), family, client_key(address))


def _spelled(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _uid_of(end: socket.socket) -> Optional[int]:
    """Give the user of the process at the other end of a Unix socket, where the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    octets = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    credentials: Tuple[int, int, int] = _CREDENTIALS.unpack(octets)
    return credentials[1]
