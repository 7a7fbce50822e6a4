"""The configuration while it is being read: what was declared so far, and who may be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    FrozenSet,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from smtpd_core.config.model import (
    BUILTIN_TABLES,
    Action,
    Ca,
    Config,
    Filter,
    Listener,
    Pki,
    Processor,
    Rule,
    Service,
    SocketListener,
    Table,
    TableKind,
)
from smtpd_core.config.problems import Place, Problem
from smtpd_core.config.settings import (
    MdaLimits,
    MtaLimits,
    QueueSettings,
    SchedulerLimits,
    SmtpSettings,
    SrsSettings,
)
from smtpd_core.text import encode

if TYPE_CHECKING:
    from smtpd_core.config.tokens import FatalError, TokenStream

MAX_TABLE_NAME = 2047  # octets, as the original
MAX_TABLE_CONFIG = 4095
MAX_KEY = 1023  # octets of a table's key: what a lookup can ask for

# Backends of our own. passwd is a program beside the original.
BACKENDS = frozenset({"static", "db", "getpwnam", "passwd", "proc"})

_SERVICE_PORTS = {
    "smtp": 25,
    "mail": 25,
    "smtps": 465,
    "ssmtp": 465,
    "submissions": 465,
    "urd": 465,
    "submission": 587,
}

_Item = TypeVar("_Item")

LISTS = frozenset({TableKind.DYNAMIC, TableKind.LIST})
MAPPINGS = frozenset({TableKind.DYNAMIC, TableKind.MAPPING})
ANY_KIND = LISTS | MAPPINGS


def well_known_port(service: str) -> Optional[int]:
    """Give the port of a service of mail, None for any other name."""
    return _SERVICE_PORTS.get(service)


@dataclass(frozen=True)
class Machine:
    """What the machine is asked while its configuration is read.

    addresses gives those of an interface, a group of interfaces or a host name, none when there
    is no such thing; without it listeners keep the name for later. port gives the TCP port of a
    service. has_backend tells whether the program of a table's backend is installed; without it
    every backend is believed.
    """

    addresses: Optional[Callable[[str], Sequence[str]]] = None
    port: Callable[[str], Optional[int]] = well_known_port
    has_backend: Optional[Callable[[str], bool]] = None


def may_be_used(table: Table, kinds: FrozenSet[TableKind], service: Service) -> bool:
    """Tell whether a table's kind and backend suit a lookup."""
    if table.backend == "getpwnam" and service is not Service.USERINFO:
        return False
    return table.kind in kinds


@dataclass
class Draft:
    """Everything declared so far, in the order of the file; read gives a file's octets."""

    read: Callable[[str], bytes]
    machine: Machine
    tables: Dict[str, Table] = field(default_factory=lambda: dict(BUILTIN_TABLES))
    pkis: Dict[str, Pki] = field(default_factory=dict)
    cas: Dict[str, Ca] = field(default_factory=dict)
    listeners: List[Listener] = field(default_factory=list)
    socket: Optional[SocketListener] = None
    actions: Dict[str, Action] = field(default_factory=dict)
    rules: List[Rule] = field(default_factory=list)
    filters: Dict[str, Filter] = field(default_factory=dict)
    processors: Dict[str, Processor] = field(default_factory=dict)
    wrappers: Dict[str, str] = field(default_factory=dict)
    smtp: SmtpSettings = field(default_factory=SmtpSettings)
    mda: MdaLimits = field(default_factory=MdaLimits)
    scheduler: SchedulerLimits = field(default_factory=SchedulerLimits)
    mta_max_deferred: int = 100
    mta: MtaLimits = field(default_factory=MtaLimits)
    mta_domains: Dict[str, MtaLimits] = field(default_factory=dict)
    queue: QueueSettings = field(default_factory=QueueSettings)
    srs: SrsSettings = field(default_factory=SrsSettings)
    admd: Optional[str] = None
    bounce_warn_seconds: Tuple[int, ...] = (4 * 3600,)
    included: int = 0
    _anonymous_tables: int = 0
    _anonymous_chains: int = 0

    def create_table(self, tokens: TokenStream, name: str, backend: str, config: str) -> Table:
        """Add a table without content; raises FatalError when it cannot exist."""
        self._refuse_table(tokens, name, backend, config)
        kind = TableKind.UNKNOWN if backend == "static" else TableKind.DYNAMIC
        table = Table(name, tokens.statement, backend, config, kind)
        self.tables[name] = table
        return table

    def create_anonymous(self, tokens: TokenStream) -> Table:
        """Add a table that stands where it is used, under a name of its own."""
        name = f"<dynamic:{self._anonymous_tables}>"
        self._anonymous_tables += 1
        return self.create_table(tokens, name, "static", "")

    def fill_table(
        self, tokens: TokenStream, table: Table, entries: Sequence[Tuple[str, Optional[str]]]
    ) -> Table:
        """Give a table its entries, all with a value or all without."""
        kept = [entry for entry in entries if len(encode(entry[0])) <= MAX_KEY]
        if len(kept) < len(entries):
            tokens.warn(f'table "{table.name}": a key of more than {MAX_KEY} octets is left out')
        kind = TableKind.UNKNOWN
        if entries:
            kind = TableKind.LIST if entries[0][1] is None else TableKind.MAPPING
        filled = Table(table.name, table.where, kind=kind, entries=tuple(kept))
        self.tables[table.name] = filled
        return filled

    def chain_name(self) -> str:
        """Make a name for a chain of filters that stands where it is used."""
        self._anonymous_chains += 1
        return f"<dynchain:{self._anonymous_chains:08x}>"

    def freeze(self, name: str, warnings: Sequence[Problem]) -> Config:
        """Make a value of what was read."""
        return Config(
            name=name,
            socket=self.socket or SocketListener(Place(name, 0)),
            tables=_frozen(self.tables),
            pkis=_frozen(self.pkis),
            cas=_frozen(self.cas),
            listeners=tuple(self.listeners),
            actions=_frozen(self.actions),
            rules=tuple(self.rules),
            filters=_frozen(self.filters),
            processors=_frozen(self.processors),
            wrappers=_frozen(self.wrappers),
            smtp=self.smtp,
            mda=self.mda,
            scheduler=self.scheduler,
            mta_max_deferred=self.mta_max_deferred,
            mta=self.mta,
            mta_domains=_frozen(self.mta_domains),
            queue=self.queue,
            srs=self.srs,
            admd=self.admd,
            bounce_warn_seconds=self.bounce_warn_seconds,
            warnings=tuple(warnings),
        )

    def _refuse_table(self, tokens: TokenStream, name: str, backend: str, config: str) -> None:
        fatal: Optional[FatalError] = None
        if name in self.tables:
            fatal = tokens.fatal(f'table_create: table "{name}" already defined')
        elif backend not in BACKENDS and not self._has_program(backend):
            fatal = tokens.fatal(f'table_create: backend "{backend}" does not exist')
        elif len(encode(config)) > MAX_TABLE_CONFIG:
            fatal = tokens.fatal("table_create: config file path too long")
        elif len(encode(name)) > MAX_TABLE_NAME:
            fatal = tokens.fatal("table_create: table name too long")
        if fatal is not None:
            raise fatal

    def _has_program(self, backend: str) -> bool:
        ask = self.machine.has_backend
        return ask is None or ask(backend)


def _frozen(mapping: Mapping[str, _Item]) -> Mapping[str, _Item]:
    return MappingProxyType(dict(mapping))
