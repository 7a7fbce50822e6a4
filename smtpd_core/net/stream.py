"""A connection as two runs of octets, with TLS that starts at an exact octet.

Why not asyncio's own streams: their reader keeps a buffer that survives the start of TLS, so
that octets somebody put in clear behind STARTTLS count as said inside TLS. Here

- nothing is read before the first receive(): immediate TLS starts at the first octet;
- hold() stops reading and gives what has arrived: the session sees it, as clear text;
- start_tls() refuses (ClearTextError) while anything that came in clear was not received, and
  nothing of the connection is read between that check and the handshake. A ClientHello that
  comes early stays in the kernel; so does clear text that comes late, and spoils the handshake.

A server accepts with adopt(socket), or gives Stream to create_server with a function that is
called for each connection. On STARTTLS it first calls hold() and feeds what it gives to the
session; if the session has nothing against it, the server does send(the 220), *no flush*, and
start_tls(context, server_side=True, ...), which flushes. A client calls start_tls when it has
received the 220.

    receive()   the octets that came, at least one; b"" at the end of the stream
    send()      gather octets; nothing leaves before
    flush()     let them go; waits while the peer does not take them (back-pressure)
    close()     let everything go, take leave; bounded in time.   abort() at once

All waits end with StreamTimeoutError after the time given, and may be cancelled: octets that
came meanwhile are kept. What breaks the connection is a StreamError, raised when everything that
came before was received. One task receives, one (perhaps the same) flushes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
from typing import Callable, NamedTuple, Optional

from smtpd_core.errors import LocalError, RemoteError

MAX_RECEIVED = 65536  # octets kept before reading stops; one read of the loop may add 262144
MAX_UNFLUSHED = 4 << 20  # octets: replies to the longest pipeline that can have been received
HIGH_WATER = 65536  # octets on their way to the kernel beyond which flush() waits
CLOSE_SECONDS = 3  # for the last octets, and the peer's part in the end of TLS

_TIMED_OUT = "Connection timeout"
_CLOSED = "Connection closed unexpectedly"
_PORTS = range(1, 65536)


class StreamError(RemoteError):
    """The connection broke, or could not be made; the text says why."""


class StreamTimeoutError(StreamError):
    """The peer took too long."""


class TlsError(StreamError):
    """TLS could not be started."""


class ClearTextError(TlsError):
    """Octets came in clear where TLS should start; they can still be received."""


class SourceError(StreamError):
    """Our own end of the connection cannot be had: no such local address."""


class Peer(NamedTuple):
    """One end of a connection; the address of a local socket is `local`."""

    address: str
    port: int


class TlsFacts(NamedTuple):
    """What TLS came to; fingerprint is `SHA256:hex` of the peer's certificate, if it has one."""

    version: str
    cipher: str
    bits: int
    verified: bool
    fingerprint: Optional[str]

    @property
    def description(self) -> str:
        """Give version, cipher and bits as logs and trace fields spell them."""
        return f"{self.version}:{self.cipher}:{self.bits}"


class Stream(asyncio.Protocol):
    """One connection. Make it with connect() or adopt(), or as a protocol factory."""

    def __init__(self, on_connected: Optional[Callable[[Stream], None]] = None) -> None:
        """Wait for a connection; on_connected is called once there is one."""
        self._loop = asyncio.get_running_loop()
        self._on_connected = on_connected
        self._transport: Optional[asyncio.Transport] = None
        self._paused = False
        self._upgrading = False
        self._received: list[bytes] = []
        self._received_octets = 0
        self._ended = False  # the peer will send no more
        self._lost: Optional[str] = None  # why the connection is gone; empty when in order
        self._unflushed: list[bytes] = []
        self._unflushed_octets = 0
        self._full = False  # the transport has enough for now
        self._receiver: Optional[asyncio.Future[None]] = None
        self._flusher: Optional[asyncio.Future[None]] = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self.peer = Peer("", 0)
        self.local = Peer("", 0)
        self.tls: Optional[TlsFacts] = None

    # What the caller does.

    async def receive(self, timeout_seconds: Optional[float] = None) -> bytes:
        """Give the octets that came; b"" when the peer has ended the stream."""
        if not self._received and not self._ended and self._lost is None:
            if self._receiver is not None and not self._receiver.done():
                raise LocalError("two tasks receive from one stream")
            self._resume()
            self._receiver = self._loop.create_future()
            await self._wait(self._receiver, timeout_seconds)
        if not self._received and self._lost:
            raise StreamError(self._lost)
        return self._take()

    def take(self) -> bytes:
        """Give the octets that have come already, without waiting; often none."""
        return self._take()

    def hold(self) -> bytes:
        """Stop reading until the next receive(); give what has come."""
        self._pause()
        return self._take()

    def send(self, octets: bytes) -> None:
        """Gather octets; raises LocalError when they are never flushed."""
        if self._lost is not None or not octets:
            return
        self._unflushed.append(octets)
        self._unflushed_octets += len(octets)
        if self._unflushed_octets > MAX_UNFLUSHED:
            raise LocalError(f"more than {MAX_UNFLUSHED} octets were sent and not flushed")

    async def flush(self, timeout_seconds: Optional[float] = None) -> None:
        """Let what was gathered go; return when the peer keeps up with it."""
        self._write_out()
        if self._full and self._lost is None:
            if self._flusher is not None and not self._flusher.done():
                raise LocalError("two tasks flush one stream")
            self._flusher = self._loop.create_future()
            await self._wait(self._flusher, timeout_seconds)
        if self._lost is not None:
            raise StreamError(self._lost or _CLOSED)

    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        hostname: Optional[str] = None,
        timeout_seconds: float,
    ) -> TlsFacts:
        """Flush what was gathered, then start TLS with the next octet in both directions.

        hostname is announced to a server, and compared when the context says so.
        Raises ClearTextError, and TlsError for a hostname that is none, before anything is
        flushed; TlsError and StreamTimeoutError otherwise end the connection.
        """
        self._pause()
        if self._received:
            raise ClearTextError("clear text where TLS should start")
        if self._lost is not None or self._ended or self._transport is None:
            raise TlsError(self._lost or _CLOSED)
        if hostname is not None:
            _check_name(context, hostname)
        self._write_out()
        clear = self._transport
        self._upgrading = True
        try:
            secured = await self._loop.start_tls(
                clear,
                self,
                context,
                server_side=server_side,
                server_hostname=hostname,
                ssl_handshake_timeout=timeout_seconds,
            )
        except ConnectionAbortedError:  # this is how asyncio tells that time is up
            self._give_up(clear, _TIMED_OUT)
            raise StreamTimeoutError(_TIMED_OUT) from None
        except OSError as error:
            why = _why(error)
            self._give_up(clear, why)
            raise TlsError(why) from error
        except asyncio.CancelledError:
            self._give_up(clear, _CLOSED)
            raise
        finally:
            self._upgrading = False
        if secured is None:  # the connection went away with the last octet of the handshake
            self._give_up(clear, _CLOSED)
            raise TlsError(_CLOSED)
        self._transport = secured
        self._paused = False
        self._full = False
        secured.set_write_buffer_limits(high=HIGH_WATER)
        if self._received_octets >= MAX_RECEIVED:
            self._pause()
        self.tls = _facts(secured, context)
        return self.tls

    @property
    def is_lost(self) -> bool:
        """Tell whether the connection is gone; octets may still wait to be received."""
        return self._lost is not None

    async def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Let everything go that was sent, and close; what the peer still says is not read."""
        if self._transport is None or self._closed.done():
            return
        self._write_out()
        self._transport.close()
        try:
            await asyncio.wait({self._closed}, timeout=timeout_seconds)
        finally:
            self.abort()

    def abort(self) -> None:
        """Close at once; what was not sent yet is lost."""
        if self._transport is not None and not self._closed.done():
            self._transport.abort()

    # What asyncio does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection, and read nothing of it yet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self.peer = _peer(transport.get_extra_info("peername"))
        self.local = _peer(transport.get_extra_info("sockname"))
        # Up to 3.10 the loop starts to read after this call, whatever is said in it.
        self._loop.call_soon(self._pause)
        if self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        """Keep octets; stop reading when they are many."""
        self._received.append(bytes(data))
        self._received_octets += len(data)
        if self._received_octets >= MAX_RECEIVED:
            self._pause()
        _wake(self._receiver)

    def eof_received(self) -> bool:
        """Note the end; without TLS the other direction stays open for our replies."""
        self._ended = True
        _wake(self._receiver)
        return self.tls is None and not self._upgrading

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Note that the connection is gone."""
        self._lose("" if exc is None else _why(exc))

    def pause_writing(self) -> None:
        """Note that the transport has enough for now."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that the transport takes octets again."""
        self._full = False
        _wake(self._flusher)

    # Inside.

    async def _wait(self, future: asyncio.Future[None], timeout_seconds: Optional[float]) -> None:
        if timeout_seconds is None:
            await future
            return
        timer = self._loop.call_later(max(timeout_seconds, 0), _expire, future)
        try:
            await future
        finally:
            timer.cancel()

    def _take(self) -> bytes:
        octets = self._received[0] if len(self._received) == 1 else b"".join(self._received)
        self._received.clear()
        self._received_octets = 0
        return octets

    def _pause(self) -> None:
        if self._transport is not None and not self._paused and not self._upgrading:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._transport is not None and self._paused and not self._upgrading:
            self._paused = False
            self._transport.resume_reading()

    def _write_out(self) -> None:
        if self._unflushed and self._transport is not None and self._lost is None:
            self._transport.write(b"".join(self._unflushed))
        self._unflushed.clear()
        self._unflushed_octets = 0

    def _give_up(self, transport: asyncio.Transport, why: str) -> None:
        """End a connection whose handshake failed; asyncio may not tell us that it is gone."""
        transport.abort()
        self._lose(why)

    def _lose(self, why: str) -> None:
        if self._lost is None:
            self._lost = why
        _wake(self._receiver)
        _wake(self._flusher)
        _wake(self._closed)


def _wake(future: Optional[asyncio.Future[None]]) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(StreamTimeoutError(_TIMED_OUT))


def _peer(name: object) -> Peer:
    if isinstance(name, tuple) and len(name) >= 2:
        return Peer(str(name[0]), int(name[1]))
    return Peer("local", 0)


def _why(error: Exception) -> str:
    """Give the reason of an error without its number, file and place."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason: Optional[str] = getattr(error, "reason", None)  # only OpenSSL's own have it
        return (reason or "TLS error").replace("_", " ").lower()
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else str(error) or _CLOSED
    return str(error) or type(error).__name__


def _check_name(context: ssl.SSLContext, hostname: str) -> None:
    """Raise TlsError for a name TLS cannot announce: up to 3.10 asyncio would wait in vain."""
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=hostname)
    except (ValueError, ssl.SSLError) as error:
        raise TlsError(f"{hostname[:80]!r} is no host name") from error


def _facts(transport: asyncio.Transport, context: ssl.SSLContext) -> TlsFacts:
    secured = transport.get_extra_info("ssl_object")
    cipher, _, bits = secured.cipher() or ("unknown", "", 0)
    certificate = secured.getpeercert(binary_form=True)
    return TlsFacts(
        version=secured.version() or "unknown",
        cipher=cipher,
        bits=bits,
        verified=bool(certificate) and context.verify_mode is not ssl.CERT_NONE,
        fingerprint=f"SHA256:{hashlib.sha256(certificate).hexdigest()}" if certificate else None,
    )


async def adopt(connected: socket.socket) -> Stream:
    """Make a Stream of a connected socket, which from now on belongs to it."""
    connected.setblocking(False)
    loop = asyncio.get_running_loop()
    _, stream = await loop.connect_accepted_socket(Stream, connected)
    return stream


async def connect(address: str, port: int, *, source: str = "", timeout_seconds: float) -> Stream:
    """Connect to an IP address, from a local one where source says so; no name is looked up.

    Raises SourceError, StreamTimeoutError and StreamError.
    """
    if port not in _PORTS:
        raise StreamError(f"port {port} cannot be connected to")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        end = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:  # no descriptor left, or no such family here
        raise SourceError(_why(error)) from error
    try:
        end.setblocking(False)
        if source:
            try:
                end.bind(_socket_address(source, 0))
            except OSError as error:
                raise SourceError(_why(error)) from error
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(
            loop.sock_connect(end, _socket_address(address, port)), timeout_seconds
        )
        _, stream = await loop.create_connection(Stream, sock=end)
    except asyncio.TimeoutError:
        end.close()
        raise StreamTimeoutError(_TIMED_OUT) from None
    except OSError as error:
        end.close()
        raise StreamError(_why(error)) from error
    except BaseException:
        end.close()
        raise
    return stream


def _socket_address(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Give the form of an address that sockets take; OSError for a scope that is not here."""
    if ":" not in address:
        return address, port
    host, _, scope = address.partition("%")
    if not scope:
        return host, port, 0, 0
    return host, port, 0, int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
