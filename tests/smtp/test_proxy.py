"""The PROXY preamble."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.smtp.proxy import SIGNATURE, Endpoint, ProxyError, ProxyReader

Cuts = Callable[[bytes], list[list[bytes]]]
VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "smtp" / "proxy").glob("*.in"))


def spell(end: Optional[Endpoint]) -> str:
    return f"{end.host} {end.port} " if end else ""


def read(pieces: list[bytes]) -> tuple[str, bytes]:
    reader = ProxyReader()
    for piece in pieces:
        reader.feed(piece)
    assert reader.result is not None
    source, destination = reader.result.source, reader.result.destination
    return (spell(source) + spell(destination)) or "local ", reader.rest


def test_vectors_are_there() -> None:
    assert len(VECTORS) > 15


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_same_addresses_however_they_arrive(vector: Path, cuts: Cuts) -> None:
    refusal = vector.with_suffix(".err")
    for pieces in cuts(vector.read_bytes()):
        if refusal.exists():
            with pytest.raises(ProxyError) as caught:
                read(pieces)
            assert str(caught.value) == refusal.read_text().strip()
        else:
            addresses, rest = read(pieces)
            assert addresses.encode() + rest == vector.with_suffix(".out").read_bytes()


def test_waits_for_the_rest() -> None:
    reader = ProxyReader()
    assert reader.feed(SIGNATURE + b"\x21\x11\0\x0c") is None
    assert reader.feed(b"\0" * 11) is None
    assert reader.feed(b"\0") is not None


@given(st.binary(max_size=300))
def test_any_octets_behind_a_signature(octets: bytes) -> None:
    try:
        ProxyReader().feed(SIGNATURE + octets)
    except ProxyError:
        pass
