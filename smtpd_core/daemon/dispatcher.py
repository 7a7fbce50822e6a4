"""A dispatcher: mail coming in and going out, for one configuration from its start to its end.

`prepare` reads, with privileges, what the configuration names: tables, certificates, the files of
the resolver. `Dispatcher` runs in an event loop, perhaps in a chroot, and needs nothing but its
links. Told to drain, it takes no new client and no new work, finishes what it has begun, and
leaves; envelopes it did not report are given out again, because the queue role sees its link end.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Callable, Mapping, Optional, Sequence, Union

from smtpd_core.config.model import SYSTEM_USERS, LocalAction, RelayAction
from smtpd_core.daemon import machine
from smtpd_core.daemon.injection import inject
from smtpd_core.daemon.services import QueueClient, SupervisorClient, decode_envelope
from smtpd_core.daemon.setting import draw, zone
from smtpd_core.daemon.stats import Stats
from smtpd_core.errors import LocalError
from smtpd_core.ipc import messages
from smtpd_core.ipc.channel import Channel
from smtpd_core.ipc.messages import Role
from smtpd_core.listener.accept import Acceptor
from smtpd_core.listener.authentication import Authenticator
from smtpd_core.listener.limits import sessions_for
from smtpd_core.listener.site import Services as ListenServices
from smtpd_core.listener.site import make_site, tls_contexts
from smtpd_core.listener.surroundings import Surroundings
from smtpd_core.mail.status import Result, outcome
from smtpd_core.mda.deliver import Deliveries, Services, Settings
from smtpd_core.mda.plan import Site as LocalSite
from smtpd_core.mta.contexts import prepare as prepare_contexts
from smtpd_core.mta.relay import Mta
from smtpd_core.mta.relay import Services as RelayServices
from smtpd_core.net.resolver import Resolver, usable_types
from smtpd_core.queue.envelope import EnvelopeError
from smtpd_core.routing.policy import User
from smtpd_core.routing.rules import Failure
from smtpd_core.routing.stored import action_of
from smtpd_core.tables import service
from smtpd_core.tables.lines import LineError, parse_userinfo
from smtpd_core.tables.passwd import system_user

if TYPE_CHECKING:
    import socket
    import ssl

    from smtpd_core.config.model import Config, Listener
    from smtpd_core.daemon.setting import Setting
    from smtpd_core.daemon.sockets import Listening
    from smtpd_core.ipc.messages import Message
    from smtpd_core.mta.contexts import Contexts
    from smtpd_core.queue.envelope import Envelope

    Lookups = service.Lookups[Failure]

COUNT_SECONDS = 1.0  # between two messages about counters
FINISH_SECONDS = 55.0  # for sessions to come to an end when draining; then they are cut off
DESCRIPTORS_IN_USE = 64  # besides those of sessions: links, logs, lookups
RESOLV_CONF = "/etc/resolv.conf"
HOSTS = "/etc/hosts"
MAX_FILE = 16 << 20


@dataclass(frozen=True)
class Prepared:
    """All that was read while it could be."""

    config: Config
    setting: Setting
    listening: Sequence[Listening]
    lookups: Lookups
    contexts: Mapping[Listener, ssl.SSLContext]
    relay_contexts: Mapping[str, Contexts]
    resolv_conf: str
    hosts: str
    descriptors: int


def prepare(
    config: Config, setting: Setting, listening: Sequence[Listening], descriptors: int
) -> Prepared:
    """Read what a configuration names. Raises SmtpdError with the reason for having to stop."""
    return Prepared(
        config,
        setting,
        listening,
        open_lookups(config, setting.server_name),
        tls_contexts(config),
        prepare_contexts(config),
        _read_text(RESOLV_CONF),
        _read_text(HOSTS),
        descriptors,
    )


def open_lookups(config: Config, server_name: str) -> Lookups:
    """Open the tables of a configuration. Raises TableError."""
    own = tuple(
        dict.fromkeys(each.address.partition("%")[0] for each in machine.interface_addresses())
    )
    return service.Lookups(
        config.tables,
        service.Machine(server_name, own),
        service.Sources(_read_octets, system_user),
        Failure,
        config.smtp.sub_addr_delim,
    )


def _read_octets(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_FILE)


def _read_text(path: str) -> str:
    """Read a file that need not be there."""
    try:
        return _read_octets(path).decode("utf-8", "replace")
    except OSError:
        return ""


def _own_places(listening: Sequence[Listening]) -> Callable[[str, int], bool]:
    """Make what tells whether an address and port are where we listen."""
    places = {(each.endpoint.address, each.endpoint.port) for each in listening}
    for address, port in tuple(places):
        if address in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            places.update((each.address, port) for each in machine.interface_addresses())
    return lambda address, port: (address, port) in places


class Dispatcher:
    """A dispatcher in the running event loop."""

    def __init__(self, prepared: Prepared, to_supervisor: socket.socket, to_queue: socket.socket):
        self._prepared = prepared
        self._config = config = prepared.config
        self._log = log = prepared.setting.log
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._draining: Optional[asyncio.Task[None]] = None
        self._supervisor_channel = Channel(
            to_supervisor,
            (Role.DISPATCHER, Role.SUPERVISOR),
            _SupervisorSide(self),
            log.confess,
        )
        self._queue_channel = Channel(
            to_queue, (Role.DISPATCHER, Role.QUEUE), _QueueSide(self), log.confess
        )
        self.stats = Stats()
        clock = prepared.setting.clock
        self.queue = QueueClient(self._queue_channel)
        self.supervisor = SupervisorClient(self._supervisor_channel, log)
        self._resolver = Resolver(
            prepared.resolv_conf, prepared.hosts, clock=clock, draw=draw, types=usable_types()
        )
        surroundings = Surroundings(clock, zone, os.urandom, log, log.confess, self.stats)
        self._authenticator = Authenticator(surroundings, self.supervisor)
        daemon_user = prepared.setting.daemon.name
        self._site = make_site(
            config,
            (prepared.setting.server_name, daemon_user),
            prepared.lookups,
            ListenServices(self.queue, self.supervisor, self._authenticator, surroundings),
            prepared.contexts,
        )
        self._acceptor = Acceptor(
            self._resolver,
            surroundings,
            max_sessions=sessions_for(prepared.descriptors, DESCRIPTORS_IN_USE),
        )
        self._relays = Mta(
            # relaying greets by the name it finds in its configuration
            replace(config, name=prepared.setting.server_name),
            prepared.relay_contexts,
            RelayServices(
                self.queue,
                self._resolver,
                prepared.lookups,
                self.stats,
                clock,
                surroundings.new_id,
                log,
                log.confess,
                _own_places(prepared.listening),
                self.queue.schedule,
            ),
        )
        self._local = Deliveries(
            Services(self.queue, self.supervisor, self.find_user, log, self.stats, clock),
            Settings(
                config.actions,
                config.mda,
                LocalSite(config.smtp.sub_addr_delim, config.wrappers),
                daemon_user,
            ),
            surroundings.new_id,
        )

    # ---- life --------------------------------------------------------------------------

    async def run(self) -> bool:
        """Serve until told to stop, or until another role is gone; True for an orderly end."""
        if "smtp" in self._prepared.setting.paused:
            self._acceptor.pause()
        self._acceptor.open(self._site, self._prepared.listening)
        self._supervisor_channel.send(messages.Ready())
        counting = asyncio.ensure_future(self._count())
        try:
            why = await self._ended
        finally:
            counting.cancel()
        if why:
            self._log.complain(f"dispatcher: {why}")
        else:
            self.queue.leave()
        self.queue.tell_counters(self.stats.changes())
        await self._queue_channel.drain(0)
        self._queue_channel.close()
        self._supervisor_channel.close()
        self._authenticator.close()
        return not why

    def end(self, why: str = "") -> None:
        """End run."""
        if not self._ended.done():
            self._ended.set_result(why)

    def drain(self) -> None:
        """Finish what was begun, then end."""
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        try:
            await asyncio.gather(
                self._acceptor.stop(FINISH_SECONDS),
                self._local.close(),
                self._relays.close(FINISH_SECONDS),
            )
            await self._resolver.close()
        except Exception as error:  # noqa: BLE001 - the boundary of the role
            self._log.confess(error)
        self.end()

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(COUNT_SECONDS)
            self._relays.sweep()
            self._relays.count_objects()
            changes = self.stats.changes()
            if changes:
                self.queue.tell_counters(changes)

    # ---- work --------------------------------------------------------------------------

    def deliver(self, evpid: int, octets: bytes) -> None:
        """Take an envelope that is due."""
        try:
            envelope = decode_envelope(octets)
        except EnvelopeError as error:
            self._log.complain(f"an envelope from the queue role cannot be read: {error}")
            self.queue.report(evpid, outcome(Result.TEMPORARY, "the envelope cannot be read"))
            return
        if self._draining is not None:
            return  # it is given to others when our link ends
        self._dispatch(evpid, envelope)

    def _dispatch(self, evpid: int, envelope: Envelope) -> None:
        action = action_of(envelope, self._config.actions)
        if isinstance(action, LocalAction):
            self._local.take(evpid, envelope)
        elif isinstance(action, RelayAction):
            self._relays.relay(evpid, envelope)
        else:
            text = f"no action is called {envelope.dispatcher!r} any more"
            self.queue.report(evpid, outcome(Result.TEMPORARY, text))

    async def inject(self, request: messages.Inject, descriptor: int) -> messages.Injected:
        """Put a notice into the queue."""
        try:
            found = await inject(request.recipient, descriptor, self._site, self._resolver)
        finally:
            os.close(descriptor)
        return messages.Injected(found.result.value, found.text)

    async def find_user(self, userbase: str, name: str) -> Union[User, Failure, None]:
        """Find a user in a user base: the system's, or a table."""
        table = self._config.tables.get(userbase)
        if userbase == SYSTEM_USERS or (table is not None and table.backend == "getpwnam"):
            return await self.supervisor.find_user(name)
        value = self._prepared.lookups.fetch(userbase, "userinfo", name)
        if not isinstance(value, str):
            return value
        try:
            return User(*parse_userinfo(name, value))
        except LineError as error:
            return Failure(f"table {userbase}: {error}")


class _QueueSide:
    """What the queue role asks of a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def answer(
        self, request: Message, descriptor: Optional[int]
    ) -> tuple[Message, Optional[int]]:
        if not isinstance(request, messages.Inject) or descriptor is None:
            raise LocalError(f"nobody answers {type(request).__name__}")
        return await self._dispatcher.inject(request, descriptor), None

    def take(self, message: Message, descriptor: Optional[int]) -> None:  # noqa: ARG002 - none here
        if isinstance(message, messages.Deliver):
            for evpid, octets in message.envelopes:
                self._dispatcher.deliver(evpid, octets)

    def lost(self, why: str) -> None:
        self._dispatcher.end(why)


class _SupervisorSide:
    """What the supervisor tells a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def answer(
        self,
        request: Message,
        descriptor: Optional[int],  # noqa: ARG002 - none here
    ) -> tuple[Message, Optional[int]]:
        raise LocalError(f"nobody answers {type(request).__name__}")

    def take(self, message: Message, descriptor: Optional[int]) -> None:  # noqa: ARG002 - none here
        if isinstance(message, messages.Drain):
            self._dispatcher.drain()

    def lost(self, why: str) -> None:
        self._dispatcher.end(why)
