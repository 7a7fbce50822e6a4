"""Which versions of TLS a `protocols` option means.

Source: tls_config_parse_protocols(3).
"""

from __future__ import annotations

from typing import FrozenSet

from smtpd_core.errors import FormatError

ALL = frozenset({"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"})
DEFAULT = frozenset({"TLSv1.2", "TLSv1.3"})

_MEANINGS = {
    "all": ALL,
    "legacy": ALL,
    "default": DEFAULT,
    "secure": DEFAULT,
    "tlsv1": ALL,
    "tlsv1.0": frozenset({"TLSv1"}),
    "tlsv1.1": frozenset({"TLSv1.1"}),
    "tlsv1.2": frozenset({"TLSv1.2"}),
    "tlsv1.3": frozenset({"TLSv1.3"}),
}


class ProtocolsError(FormatError):
    """A text that names no versions of TLS."""


def parse_protocols(text: str) -> FrozenSet[str]:
    """Read names apart by `,` or `:`; `!` takes one away, from all when it comes first.

    Raises ProtocolsError.
    """
    chosen: FrozenSet[str] = frozenset()
    for word in text.replace(":", ",").split(","):
        name = word.lstrip(" \t")
        negated = name.startswith("!")
        meaning = _MEANINGS.get(name[negated:].lower())
        if meaning is None:
            raise ProtocolsError(f'failed to parse protocols "{text}"')
        if negated:
            chosen = (chosen or ALL) - meaning
        else:
            chosen |= meaning
    return chosen
