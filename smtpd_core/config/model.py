"""The configuration as values: what smtpd.conf says, each item with the line that says it.

Source: smtpd.conf(5) of OpenSMTPD 7.8; defaults as the original's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Mapping, Optional, Tuple, Union

from smtpd_core.config.problems import Place, Problem
from smtpd_core.config.settings import (
    MdaLimits,
    MtaLimits,
    QueueSettings,
    SchedulerLimits,
    SmtpSettings,
    SrsSettings,
)


class Service(enum.Enum):
    """What a lookup in a table is for."""

    ALIAS = "alias"
    DOMAIN = "domain"
    CREDENTIALS = "credentials"
    NETADDR = "netaddr"
    USERINFO = "userinfo"
    SOURCE = "source"
    MAILADDR = "mailaddr"
    ADDRNAME = "addrname"
    MAILADDRMAP = "mailaddrmap"
    RELAYHOST = "relayhost"
    STRING = "string"
    REGEX = "regex"
    AUTH = "auth"


class TableKind(enum.Enum):
    """The shape of a table; UNKNOWN is a table without content, which nothing may use."""

    UNKNOWN = "unknown"
    LIST = "list"
    MAPPING = "mapping"
    DYNAMIC = "dynamic"


@dataclass(frozen=True)
class Table:
    """A declared or anonymous table; entries are those written in the configuration itself.

    backend is static, db, getpwnam, passwd, proc, or the name of an external program; config is
    its path, or empty. Built-in tables and anonymous ones have names in angle brackets.
    """

    name: str
    where: Place
    backend: str = "static"
    config: str = ""
    kind: TableKind = TableKind.UNKNOWN
    entries: Tuple[Tuple[str, Optional[str]], ...] = ()


ANY_HOST = "<anyhost>"
LOCAL_HOST = "<localhost>"
LOCAL_NAMES = "<localnames>"
ANY_DESTINATION = "<anydestination>"
SYSTEM_USERS = "<getpwnam>"

# Tables that exist without being declared. Who knows the machine's addresses fills them.
BUILTIN_TABLES = {
    **{
        name: Table(name, Place("", 0), kind=TableKind.LIST)
        for name in (ANY_HOST, LOCAL_HOST, LOCAL_NAMES, ANY_DESTINATION)
    },
    SYSTEM_USERS: Table(SYSTEM_USERS, Place("", 0), "getpwnam", kind=TableKind.DYNAMIC),
}


class Dhe(enum.Enum):
    """Which Diffie-Hellman parameters a certificate is used with."""

    NONE = "none"
    AUTO = "auto"
    LEGACY = "legacy"


@dataclass(frozen=True)
class Pki:
    """A certificate and its key, by file name; a start needs both."""

    name: str
    where: Place
    cert: Optional[str] = None
    key: Optional[str] = None
    dhe: Dhe = Dhe.NONE


@dataclass(frozen=True)
class Ca:
    """A file of certificates that vouch for peers."""

    name: str
    where: Place
    cert: str


class ListenTls(enum.Enum):
    """When a listener speaks TLS: never, if asked, before MAIL, or from the first octet."""

    NONE = "none"
    OFFERED = "tls"
    REQUIRED = "tls-require"
    IMMEDIATE = "smtps"


class ListenAuth(enum.Enum):
    """Whether clients of a listener may, or must, authenticate."""

    NONE = "none"
    OPTIONAL = "auth-optional"
    REQUIRED = "auth"


@dataclass(frozen=True)
class Listener:
    """A `listen on` line for an interface, a group, an address or a name.

    addresses is what it resolved to, empty when nobody was asked. The names of tables, filters
    and certificates are keys of the Config.
    """

    where: Place
    interface: str
    port: int = 25
    addresses: Tuple[str, ...] = ()
    family: int = 0  # 4 or 6; 0 is both
    tls: ListenTls = ListenTls.NONE
    verify: bool = False
    pki: Tuple[str, ...] = ()
    ca: Optional[str] = None
    ciphers: Optional[str] = None
    protocols: Optional[str] = None
    auth: ListenAuth = ListenAuth.NONE
    auth_table: Optional[str] = None
    tag: str = ""
    hostname: Optional[str] = None
    hostnames: Optional[str] = None
    senders: Optional[str] = None
    masquerade: bool = False
    mask_src: bool = False
    received_auth: bool = False
    dsn: bool = True
    proxy_v2: bool = False
    filter: Optional[str] = None


@dataclass(frozen=True)
class SocketListener:
    """The local socket, which is always there; line 0 when no `listen on socket` is written."""

    where: Place
    tag: str = ""
    mask_src: bool = False
    dsn: bool = True
    filter: Optional[str] = None


class Method(enum.Enum):
    """How an action delivers on this machine."""

    MBOX = "mbox"
    MAILDIR = "maildir"
    LMTP = "lmtp"
    MDA = "mda"
    FORWARD_ONLY = "forward-only"
    EXPAND_ONLY = "expand-only"


@dataclass(frozen=True)
class LocalAction:
    """An action that delivers here; argument is the path, LMTP destination or command, or empty.

    userbase None means the users of the system; ttl_seconds None the queue's.
    """

    name: str
    where: Place
    method: Method
    argument: str = ""
    junk: bool = False
    rcpt_to: bool = False
    user: Optional[str] = None
    alias: Optional[str] = None
    virtual: Optional[str] = None
    userbase: Optional[str] = None
    wrapper: Optional[str] = None
    ttl_seconds: Optional[int] = None


class RelayTls(enum.Enum):
    """What a relay asks of TLS when the host URL does not say."""

    OPPORTUNISTIC = "opportunistic"
    VERIFY = "tls"
    NO_VERIFY = "tls no-verify"


@dataclass(frozen=True)
class RelayAction:
    """An action that sends elsewhere.

    host is a table of URLs, domain one of URLs by recipient domain; at most one of them, and
    neither with backup. backup_mx None means the server's own name.
    """

    name: str
    where: Place
    helo: Optional[str] = None
    helo_src: Optional[str] = None
    pki: Optional[str] = None
    ca: Optional[str] = None
    ciphers: Optional[str] = None
    protocols: Optional[str] = None
    src: Optional[str] = None
    mail_from: Optional[str] = None
    backup: bool = False
    backup_mx: Optional[str] = None
    host: Optional[str] = None
    domain: Optional[str] = None
    tls: RelayTls = RelayTls.OPPORTUNISTIC
    auth: Optional[str] = None
    filter: Optional[str] = None
    srs: bool = False
    ttl_seconds: Optional[int] = None


Action = Union[LocalAction, RelayAction]


@dataclass(frozen=True)
class Criterion:
    """One condition of a rule; table None asks whether the property is there at all."""

    negated: bool = False
    table: Optional[str] = None
    regex: bool = False


class Origin(enum.Enum):
    """What a rule's `from` compares."""

    ANY = "any"
    LOCAL = "local"
    SOCKET = "socket"
    SRC = "src"
    RDNS = "rdns"


class Target(enum.Enum):
    """What a rule's `for` compares."""

    ANY = "any"
    LOCAL = "local"
    DOMAIN = "domain"


@dataclass(frozen=True)
class Rule:
    """A `match` line; action None rejects.

    `from auth` and `from mail-from` stand here as origin ANY with that criterion, and
    `for rcpt-to` as target ANY with it. The table of from_ and for_ is set for SRC, RDNS and
    DOMAIN; ANY and LOCAL name the built-in one.
    """

    where: Place
    action: Optional[str] = None
    origin: Origin = Origin.LOCAL
    from_: Criterion = Criterion(table=LOCAL_HOST)
    target: Target = Target.LOCAL
    for_: Criterion = Criterion(table=LOCAL_NAMES)
    tag: Optional[Criterion] = None
    helo: Optional[Criterion] = None
    auth: Optional[Criterion] = None
    tls: Optional[Criterion] = None
    mail_from: Optional[Criterion] = None
    rcpt_to: Optional[Criterion] = None


@dataclass(frozen=True)
class Processor:
    """A filter program."""

    name: str
    where: Place
    command: str
    user: Optional[str] = None
    group: Optional[str] = None
    chroot: Optional[str] = None


@dataclass(frozen=True)
class ProgramFilter:
    """A filter answered by a program; processor is a key of Config.processors."""

    name: str
    where: Place
    processor: str


@dataclass(frozen=True)
class BuiltinFilter:
    """A filter of one condition and one action, answered here.

    subject is fcrdns, rdns, src, helo, auth, mail-from or rcpt-to; action is reject, disconnect,
    rewrite, report, junk or bypass, and argument its text. While the line is being read, and in
    a Config never, phase may be empty.
    """

    name: str
    where: Place
    phase: str = ""
    subject: str = ""
    criterion: Criterion = Criterion()
    action: str = ""
    argument: str = ""


@dataclass(frozen=True)
class ChainFilter:
    """Filters in order, none of them a chain."""

    name: str
    where: Place
    members: Tuple[str, ...] = ()


Filter = Union[ProgramFilter, BuiltinFilter, ChainFilter]


@dataclass(frozen=True)
class Config:
    """A whole configuration that was accepted. The mappings are by name, in reading order."""

    name: str
    socket: SocketListener
    tables: Mapping[str, Table] = field(default_factory=dict)
    pkis: Mapping[str, Pki] = field(default_factory=dict)
    cas: Mapping[str, Ca] = field(default_factory=dict)
    listeners: Tuple[Listener, ...] = ()
    actions: Mapping[str, Action] = field(default_factory=dict)
    rules: Tuple[Rule, ...] = ()
    filters: Mapping[str, Filter] = field(default_factory=dict)
    processors: Mapping[str, Processor] = field(default_factory=dict)
    wrappers: Mapping[str, str] = field(default_factory=dict)
    smtp: SmtpSettings = field(default_factory=SmtpSettings)
    mda: MdaLimits = field(default_factory=MdaLimits)
    scheduler: SchedulerLimits = field(default_factory=SchedulerLimits)
    mta_max_deferred: int = 100
    mta: MtaLimits = field(default_factory=MtaLimits)
    mta_domains: Mapping[str, MtaLimits] = field(default_factory=dict)
    queue: QueueSettings = field(default_factory=QueueSettings)
    srs: SrsSettings = field(default_factory=SrsSettings)
    admd: Optional[str] = None
    bounce_warn_seconds: Tuple[int, ...] = (4 * 3600,)
    warnings: Tuple[Problem, ...] = ()

    def mta_limits(self, domain: str) -> MtaLimits:
        """Give the limits of a relay's domain, compared as written."""
        return self.mta_domains.get(domain, self.mta)
