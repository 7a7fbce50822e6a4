"""One configuration as its listeners use it, and the entrances through which clients come.

A reload makes a new Site; sessions keep the one they began with.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Dict, Mapping, Optional, Tuple

from smtpd_core.config.model import ListenAuth, Listener, ListenTls
from smtpd_core.listener.policy import Router, routing_policy
from smtpd_core.listener.tls import server_context
from smtpd_core.smtp.conversation import Options

if TYPE_CHECKING:
    import ssl

    from smtpd_core.config.model import Config
    from smtpd_core.listener.authentication import Authenticator
    from smtpd_core.listener.policy import Lookups, Supervisor
    from smtpd_core.listener.surroundings import Surroundings
    from smtpd_core.listener.transaction import Queue

SUBMISSION_PORT = 587
LIBEXEC = "/usr/libexec/opensmtpd"


@dataclass(frozen=True)
class Timeouts:
    """How long a client may take, in seconds."""

    idle: float = 300  # for a command, or between pieces of a message; RFC 5321 section 4.5.3.2
    message: float = 7200  # for a whole message: the largest, at 5 kilobytes a second
    handshake: float = 60  # TLS
    name: float = 30  # our own search for its name, before the banner; clients wait 300
    proxy: float = 300  # the preamble, as the original


@dataclass(frozen=True)
class Services:
    """Whom sessions ask."""

    queue: Queue
    supervisor: Supervisor
    authenticator: Authenticator
    surroundings: Surroundings


@dataclass(frozen=True)
class Entrance:
    """One address of a listener, or the local socket, as sessions see it.

    options is what all its sessions have in common; address is its own, IPv6 in brackets.
    """

    options: Options
    address: str = "local"
    port: int = 0
    tag: str = ""
    local: bool = False
    proxy: bool = False
    tls: ListenTls = ListenTls.NONE
    context: Optional[ssl.SSLContext] = None
    verify: bool = False
    auth_table: Optional[str] = None
    hostnames: Optional[str] = None
    senders: Optional[str] = None
    masquerade: bool = False

    @property
    def completes(self) -> bool:
        """Tell whether mail is new here, so that a missing date or id is added."""
        if self.local or self.port == SUBMISSION_PORT:
            return True
        return ip_address(self.address.strip("[]").partition("%")[0]).is_loopback


@dataclass(frozen=True)
class Site:
    """A configuration in use: what it says, its tables, its contexts, and whom to ask.

    contexts are those of tls_contexts.
    """

    config: Config
    server: str  # the name of this server
    router: Router
    lookups: Lookups
    services: Services
    contexts: Mapping[Listener, ssl.SSLContext] = field(default_factory=dict)
    timeouts: Timeouts = Timeouts()
    libexec: str = LIBEXEC

    def entrance(self, listener: Listener, address: str, port: int) -> Entrance:
        """Describe one address of a listener."""
        hostname = listener.hostname or self.server
        tls = listener.tls
        options = replace(
            self._options(),
            hostname=hostname,
            server=hostname,
            tls_available=tls in (ListenTls.OFFERED, ListenTls.REQUIRED),
            tls_required=tls in (ListenTls.REQUIRED, ListenTls.IMMEDIATE),
            auth_available=listener.auth is not ListenAuth.NONE,
            auth_required=listener.auth is ListenAuth.REQUIRED,
            dsn=listener.dsn,
            mask_source=listener.mask_src,
            received_auth=listener.received_auth,
        )
        return Entrance(
            options,
            f"[{address}]" if ":" in address else address,
            port,
            tag=listener.tag,
            proxy=listener.proxy_v2,
            tls=tls,
            context=self.contexts.get(listener),
            verify=listener.verify,
            auth_table=listener.auth_table,
            hostnames=listener.hostnames,
            senders=listener.senders,
            masquerade=listener.masquerade,
        )

    def local_entrance(self) -> Entrance:
        """Describe the local socket."""
        socket = self.config.socket
        options = replace(
            self._options(),
            peer_host=self.server,
            local=True,
            dsn=socket.dsn,
            mask_source=socket.mask_src,
        )
        return Entrance(options, tag=socket.tag, local=True)

    def _options(self) -> Options:
        """Give what is the same for all entrances."""
        smtp = self.config.smtp
        return Options(
            hostname=self.server,
            server=self.server,
            max_message_size=smtp.max_message_size,
            max_recipients=smtp.limits.max_rcpt,
            max_messages=smtp.limits.max_mails,
        )


def tls_contexts(config: Config) -> Dict[Listener, ssl.SSLContext]:
    """Read the certificates of all listeners that have TLS. Raises ContextError."""
    return {
        listener: server_context(listener, config)
        for listener in config.listeners
        if listener.tls is not ListenTls.NONE
    }


def make_site(
    config: Config,
    names: Tuple[str, str],
    lookups: Lookups,
    services: Services,
    contexts: Mapping[Listener, ssl.SSLContext],
) -> Site:
    """Put a configuration to use; names are the server's, and that of the daemon's user."""
    server, daemon_user = names
    policy = routing_policy(config, daemon_user, services.surroundings.clock)
    router = Router(config, policy, lookups)
    return Site(config, server, router, lookups, services, contexts)
