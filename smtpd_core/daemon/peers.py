"""The dispatchers as the queue role sees them: what each was given, and may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Dict, List, Optional, Set

from smtpd_core.ids import msgid_of
from smtpd_core.queue.scheduled import dispatcher_of

if TYPE_CHECKING:
    from smtpd_core.ipc.channel import Channel
    from smtpd_core.queue.envelope import Envelope

MAX_LEASED = 10_000  # ids a dispatcher may have without having used them
MAX_ADDED = 64 << 20  # octets of envelopes whose Commit is to come
MAX_OPENED = 2048  # bodies that are being received


@dataclass(eq=False)
class Peer:
    """A dispatcher. in_flight is what it was given and has not reported."""

    slot: int
    channel: Optional[Channel] = None
    in_flight: Dict[int, Envelope] = field(default_factory=dict)
    leased: Set[int] = field(default_factory=set)
    opened: Set[int] = field(default_factory=set)
    added: Dict[int, List[bytes]] = field(default_factory=dict)
    added_octets: int = 0
    leaving: bool = False
    holdqs: Set[str] = field(default_factory=set)
    counted: Dict[str, int] = field(default_factory=dict)
    _messages: Dict[int, int] = field(default_factory=dict)  # envelopes in flight of each

    def give(self, evpid: int, envelope: Envelope) -> None:
        """Note an envelope that it was given."""
        self.in_flight[evpid] = envelope
        msgid = msgid_of(evpid)
        self._messages[msgid] = self._messages.get(msgid, 0) + 1

    def take(self, evpid: int) -> Optional[Envelope]:
        """Take back an envelope that it is done with; None when it did not have it."""
        envelope = self.in_flight.pop(evpid, None)
        if envelope is not None:
            msgid = msgid_of(evpid)
            self._messages[msgid] -= 1
            if not self._messages[msgid]:
                del self._messages[msgid]
        return envelope

    def may_read(self, msgid: int) -> bool:
        """Tell whether it has work that needs this message."""
        return msgid in self._messages

    def add(self, msgid: int, envelopes: tuple[bytes, ...]) -> bool:
        """Keep envelopes until their Commit; False when there are too many."""
        self.added_octets += sum(map(len, envelopes))
        if msgid not in self.leased or self.added_octets > MAX_ADDED:
            return False
        self.added.setdefault(msgid, []).extend(envelopes)
        return True

    def forget(self, msgid: int) -> List[bytes]:
        """Forget a message that was committed or abandoned; give what was added to it."""
        self.leased.discard(msgid)
        self.opened.discard(msgid)
        added = self.added.pop(msgid, [])
        self.added_octets -= sum(map(len, added))
        return added


class Peers:
    """All dispatchers; the newest of each slot is the one that gets work."""

    def __init__(self) -> None:
        self._active: Dict[int, Peer] = {}
        self.all: Set[Peer] = set()

    def __bool__(self) -> bool:
        return bool(self._active)

    def add(self, peer: Peer) -> None:
        """Take in a dispatcher, which takes the place of an older one in its slot."""
        self._active[peer.slot] = peer
        self.all.add(peer)

    def remove(self, peer: Peer) -> None:
        """Part with a dispatcher; one that took its place stays."""
        self.all.discard(peer)
        if self._active.get(peer.slot) is peer:
            del self._active[peer.slot]

    def choose(self, destination: str) -> Peer:
        """Give the dispatcher of a destination: the same one as long as they are the same."""
        slots = sorted(self._active)
        return self._active[slots[dispatcher_of(destination, len(slots))]]

    def any(self) -> Optional[Peer]:
        """Give some dispatcher that gets work; None when there is none."""
        return next(iter(self._active.values()), None)
