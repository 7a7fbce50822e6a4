"""Hypothesis strategies for what a spool holds."""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING, Any, Optional

from hypothesis import strategies as st

from smtpd_core import text
from smtpd_core.queue import fields
from smtpd_core.queue.envelope import FIELDS, MDA_METHODS, TYPES, Envelope
from smtpd_core.queue.releases import find_release

if TYPE_CHECKING:
    from smtpd_core.queue.releases import Release

_LINE_BREAKERS = b"\n\r\0"
_BLANKS = b" \t\v\f\r"
_TEXT_MAX = 200  # octets of one value; so the sum stays below the limit of every release
_HOST_MAX = 64  # on Linux
_WITH_TLS = ("tls", "tls+auth", "secure", "secure+auth", "tls+backup")
_PLAIN = ("smtp", "smtps", "smtps+auth", "backup", "smtp+tls")


@functools.cache
def values(limit: int, least: int = 0, forbidden: bytes = b"") -> st.SearchStrategy[str]:
    """Make values of so many octets that survive being written and read."""
    octets = st.one_of(
        st.binary(min_size=least, max_size=min(limit, _TEXT_MAX)),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=min(limit, 30)).map(
            str.encode
        ),
        st.text(max_size=min(limit // 4, 20)).map(lambda value: value.encode("utf-8", "replace")),
    )
    return (
        octets.map(lambda value: value.translate(None, _LINE_BREAKERS + forbidden))
        .map(lambda value: value.lstrip(_BLANKS))
        .filter(lambda value: len(value) >= least)
        .map(text.decode)
    )


@functools.cache
def addresses(local_least: int = 0, domain_least: int = 0) -> st.SearchStrategy[str]:
    """Make addresses as they are stored: `local@domain`, the last @ being the separator."""
    local = values(100, local_least)
    domain = values(100, domain_least, b"@")
    plain = st.sampled_from(["alice", "a b", "x|y", '"q@q"', "é", "*"])
    hosts = st.sampled_from(["example.org", "[192.0.2.1]", "-"])
    pairs = st.one_of(st.tuples(plain, hosts), st.tuples(local, domain))
    return pairs.map("@".join)


@functools.cache
def sockaddrs(release: Release) -> st.SearchStrategy[tuple[str, str]]:
    """Make client addresses, as (family, address)."""
    inet4 = st.integers(0, (1 << 32) - 1).map(lambda number: str(ipaddress.IPv4Address(number)))
    inet6 = st.integers(0, (1 << 128) - 1).map(_spell_inet6)
    kinds = [
        st.sampled_from([("", ""), ("local", "")]),
        inet4.map(lambda address: ("inet4", address)),
        inet6.map(lambda address: ("inet6", address)),
    ]
    if release.bracketed and not release.prefixed:
        kinds.append(inet6.map(lambda address: ("inet6", f"{address}%eth0")))
    return st.one_of(kinds)


def _spell_inet6(number: int) -> str:
    import socket

    return socket.inet_ntop(socket.AF_INET6, number.to_bytes(16, "big"))


@st.composite
def _relays(draw: st.DrawFn, release: Release) -> tuple[str, int]:
    """Make a relay, and the flags that go with its scheme."""
    has_flags = "mta-relay-flags" in release.fields
    verify = draw(st.sampled_from([0, fields.RELAY_VERIFY])) if has_flags else 0
    schemes = [*_WITH_TLS, *_PLAIN]
    if release.name not in ("5.7", "6.0.3"):
        schemes.remove("tls+backup")
    scheme = draw(st.sampled_from(["", "lmtp", *schemes]))
    if not scheme:
        return "", verify
    label = draw(st.from_regex(r"[a-z0-9_.]{1,20}", fullmatch=True)) if "+auth" in scheme else ""
    host = draw(st.sampled_from(["mx.example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]", "h"]))
    port = draw(st.integers(1, 65535)) if scheme == "lmtp" or draw(st.booleans()) else 0
    relay = f"{scheme}://{label}{label and '@'}{host}{f':{port}' if port else ''}"
    return relay, verify | (fields.RELAY_TLS if has_flags and scheme in _WITH_TLS else 0)


def _bounce_types(release: Release) -> list[str]:
    if release.name in ("5.3", "5.4.1"):
        return ["failed", "delayed"]
    return ["failed", "delayed", "delivered"]


@functools.cache
def _plain_values(release: Release, field: str) -> Optional[st.SearchStrategy[Any]]:
    """Make values of a field that depends on no other one; None for all others."""
    shape, _, limit = FIELDS[field]
    needed = field in ("helo", "hostname", "dispatcher")
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "host": values(_HOST_MAX, 1 if needed else 0),
        "text": values(limit),
        "mailaddr": st.one_of(st.just("@"), addresses()),
        "flags": st.integers(0, 7),
        "ret": st.sampled_from(["", "FULL", "HDRS"]),
        "method": st.sampled_from(MDA_METHODS),
        "bounce": st.sampled_from(_bounce_types(release)),
    }
    if field != "version":
        kinds["number"] = st.one_of(st.integers(0, min(limit, 9)), st.integers(0, limit))
    if release.name == "5.2.1":
        kinds["relayflags"] = st.sampled_from([0, 0x10, 0x10 | fields.RELAY_TLS, 0x60])
    kinds["orcpt"] = values(500)
    if release.name != "7.5":
        kinds["orcpt"] = st.one_of(st.just(""), addresses(1, 1))
    return kinds.get(shape)


@st.composite
def envelopes(draw: st.DrawFn, name: str) -> Envelope:
    """Make an envelope that a release, such as `5.7.3`, writes and reads back unchanged."""
    release = find_release(name)
    kind = draw(st.sampled_from(TYPES))
    chosen: dict[str, Any] = {"version": release.writes, "type": kind}
    for field in release.order[kind]:
        strategy = _plain_values(release, field)
        if strategy is not None:
            chosen[FIELDS[field][1]] = draw(strategy)
    chosen["family"], chosen["address"] = draw(sockaddrs(release))
    if "mta-relay" in release.order[kind]:
        chosen["mta_relay"], chosen["mta_relay_flags"] = draw(_relays(release))
    if not chosen.get("esc_class"):
        chosen.pop("esc_code", None)
    if chosen.get("bounce_type") != "delayed":  # written for a warning alone
        chosen.pop("bounce_ttl", None)
        chosen.pop("bounce_delay", None)
    return Envelope(**chosen)


@st.composite
def mutations(draw: st.DrawFn, octets: bytes) -> bytes:
    """Change a file in a few places, as bad disks, bad copies and bad people do."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(octets)))
        size = draw(st.sampled_from([0, 1, 2, 8, 40]))
        inserted = draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from([b"\n", b"\r\n", b" ", b":", b"0", b"\0", b"|", b"\\", b"\xe9"]),
                st.sampled_from([b"retry: 007\n", b"flags: bounce\n", b"ttl: 5\n", b"X: 1\n"]),
            )
        )
        octets = octets[:at] + inserted + octets[at + size :]
    return octets
