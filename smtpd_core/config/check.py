"""What can only be checked in a configuration that was read: files, and what a start needs.

The reader refuses by itself what it can see: undeclared tables, actions, filters and
certificates of listeners, and tables of the wrong kind.
"""

from __future__ import annotations

from typing import Callable, Iterator, Optional, Tuple

from smtpd_core.config.model import Config, RelayAction
from smtpd_core.config.problems import Place, Problem
from smtpd_core.config.protocols import ProtocolsError, parse_protocols

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY_END = b"PRIVATE KEY-----"

_LATER_BACKENDS = {"db": "db tables", "proc": "proc tables"}
_READY_BACKENDS = frozenset({"static", "getpwnam", "passwd"})


def certificate_problems(config: Config, read: Callable[[str], bytes]) -> Tuple[Problem, ...]:
    """Tell which certificates, keys and CA files cannot be loaded; the original stops at one.

    Looks no further than whether the file holds such a thing. The caller reads as root.
    """
    return tuple(_certificate_problems(config, read))


def start_problems(config: Config) -> Tuple[Problem, ...]:
    """Tell what the original accepts with -n and stops at when it starts."""
    return tuple(_start_problems(config))


def unsupported(config: Config) -> Tuple[Problem, ...]:
    """Tell what is understood and does not work yet: -n warns of it, a start refuses it."""
    problems = [
        Problem(item.where, f"{noun} {name}: filters are not supported yet")
        for noun, items in (("proc", config.processors), ("filter", config.filters))
        for name, item in items.items()
        if noun == "filter" or name not in config.filters
    ]
    for table in config.tables.values():
        if table.backend not in _READY_BACKENDS:
            nature = _LATER_BACKENDS.get(table.backend, f"{table.backend} tables")
            text = f"table {table.name}: {nature} are not supported yet"
            problems.append(Problem(table.where, text))
    return tuple(sorted(problems, key=lambda problem: problem.where))


def _certificate_problems(config: Config, read: Callable[[str], bytes]) -> Iterator[Problem]:
    pkis = [pki for _, pki in sorted(config.pkis.items())]
    for pki in pkis:
        if pki.cert is None:
            yield Problem(pki.where, "load_pki_tree: missing certificate file", fatal=True)
        elif pki.key is None:
            yield Problem(pki.where, "load_pki_tree: missing key file", fatal=True)
        else:
            reason = _unreadable(pki.cert, _CERTIFICATE, read)
            if reason:
                text = "load_pki_tree: failed to load certificate file"
                yield Problem(pki.where, text, reason, fatal=True)
    for _, ca in sorted(config.cas.items()):
        reason = _unreadable(ca.cert, _CERTIFICATE, read)
        if reason:
            yield Problem(ca.where, "load_pki_tree: failed to load CA file", reason, fatal=True)
    for pki in pkis:
        reason = _unreadable(pki.key, _KEY_END, read) if pki.key and pki.cert else ""
        if reason:
            yield Problem(pki.where, "load_pki_keys: failed to load key file", reason, fatal=True)


def _unreadable(path: str, mark: bytes, read: Callable[[str], bytes]) -> str:
    """Say why a file holds no certificate or key; nothing when it does."""
    try:
        octets = read(path)
    except (OSError, ValueError) as error:
        return f"{path}: {(isinstance(error, OSError) and error.strerror) or error}"
    return "" if mark in octets else f"{path}: not in PEM form"


def _start_problems(config: Config) -> Iterator[Problem]:
    for listener in config.listeners:
        yield from _protocol_problems(listener.where, listener.protocols)
    for action in config.actions.values():
        if not isinstance(action, RelayAction):
            continue
        yield from _protocol_problems(action.where, action.protocols)
        if action.pki is not None and action.pki not in config.pkis:
            yield Problem(action.where, f'client pki "{action.pki}" not found', fatal=True)
        if action.ca is not None and action.ca not in config.cas:
            # the original crashes here
            yield Problem(action.where, f'client ca "{action.ca}" not found', fatal=True)
    for table in config.tables.values():
        if table.backend == "passwd" and not table.config:
            yield Problem(table.where, f"table {table.name}: passwd needs a file", fatal=True)


def _protocol_problems(where: Place, protocols: Optional[str]) -> Iterator[Problem]:
    if protocols is not None:
        try:
            parse_protocols(protocols)
        except ProtocolsError as error:
            yield Problem(where, str(error), fatal=True)
