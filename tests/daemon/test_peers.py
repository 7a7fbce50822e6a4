"""Dispatchers, as the queue role keeps account of them."""

from __future__ import annotations

from smtpd_core.daemon.peers import MAX_ADDED, Peer, Peers
from smtpd_core.queue.envelope import Envelope

ENVELOPE = Envelope()


def test_what_is_in_flight() -> None:
    peer = Peer(0)
    peer.give(5 << 32 | 1, ENVELOPE)
    peer.give(5 << 32 | 2, ENVELOPE)
    assert peer.may_read(5)
    assert not peer.may_read(6)
    assert peer.take(5 << 32 | 1) is ENVELOPE
    assert peer.may_read(5)
    assert peer.take(5 << 32 | 1) is None
    assert peer.take(5 << 32 | 2) is ENVELOPE
    assert not peer.may_read(5)


def test_envelopes_before_their_commit() -> None:
    peer = Peer(0, leased={5})
    assert peer.add(5, (b"one", b"two"))
    assert peer.add(5, (b"three",))
    assert peer.forget(5) == [b"one", b"two", b"three"]
    assert peer.added_octets == 0
    assert not peer.add(5, (b"of a message it has no more",))
    peer = Peer(0, leased={5})
    assert not peer.add(5, (bytes(MAX_ADDED + 1),))


def test_who_gets_work() -> None:
    peers = Peers()
    assert not peers
    assert peers.any() is None
    first, second = Peer(0), Peer(1)
    peers.add(first)
    assert peers.choose("example.org") is first
    peers.add(second)
    chosen = {peers.choose(f"d{number}.example") for number in range(50)}
    assert chosen == {first, second}
    assert peers.choose("example.org") is peers.choose("example.org")
    newer = Peer(0)
    peers.add(newer)
    peers.remove(first)  # which had its place taken
    assert {peers.choose(f"d{number}.example") for number in range(50)} == {newer, second}
    assert peers.all == {newer, second}
    peers.remove(second)
    peers.remove(newer)
    assert not peers
