"""From one recipient to the deliveries it means: rules, aliases, users and their .forward.

Theory of operation. Nodes wait in a queue, the recipient first. An address goes through the
rules and becomes a relay delivery, the values of a virtual table, or a user name. A user name
becomes the values of its alias, else the items of the user's .forward, else a delivery to the
user. A command or a file is a delivery. Every node knows its parent: a user name met again below
itself is the user's own copy, and the depth of a node is bounded, which ends every circle. All
deliveries count or none: one node that fails refuses the recipient.

Source: the original's expansion, all releases since 6.4.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, replace
from typing import Optional

from smtpd_core.errors import LocalError
from smtpd_core.routing.aliases import (
    AliasError,
    Item,
    Kind,
    parse_forward,
    parse_include,
    parse_value,
)
from smtpd_core.routing.policy import (
    Action,
    Answer,
    FindAlias,
    FindUser,
    Forwarding,
    Policy,
    Question,
    ReadForward,
    ReadInclude,
    User,
)
from smtpd_core.routing.rules import Envelope, Failure, Verdict, decide
from smtpd_core.text import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import NoReturn

MAX_DEPTH = 10  # generations below the recipient; a circle ends here
MAX_NODES = 5_000  # nodes in all: an alias bomb; a mailing list of this size is no alias
MAX_FORWARD = 4096  # octets a .forward must stay below
MAX_FORWARD_NODES = 100  # nodes in all when a .forward is opened

UNKNOWN_RECIPIENT = "550 Invalid recipient"
LOOKUP_FAILED = "451 Temporary failure"
LIST_REFUSED = "524 5.2.4 Mailing list expansion problem"
LIST_FAILED = "424 4.2.4 Mailing list expansion problem"


class Method(enum.Enum):
    """What a delivery hands the message to."""

    RELAY = "relay"
    USER = "user"
    PIPE = "pipe"
    FILE = "file"


@dataclass(frozen=True)
class Delivery:
    """One envelope to be. recipient is the last address before local delivery.

    user is empty for a relay; target is the command of a PIPE, the path of a FILE.
    """

    method: Method
    action: str
    recipient: str
    user: str = ""
    sub_address: str = ""
    target: str = ""


@dataclass(frozen=True)
class Expansion:
    """All deliveries of a recipient, or the beginning of the reply that refuses it.

    notes are lines for the log.
    """

    deliveries: tuple[Delivery, ...] = ()
    refusal: str = ""
    notes: tuple[str, ...] = ()

    def reply(self, recipient: str) -> str:
        """Give the line that refuses the recipient of the session."""
        return f"{self.refusal}: <{recipient}>"


class _RefusedError(Exception):
    """A node that cannot be expanded; its text begins the reply."""


@dataclass(eq=False)
class _Node:
    """A node of the tree; key is what it shares with a node that is the same."""

    item: Item
    action: Action
    parent: Optional[_Node]
    depth: int
    same_user: bool = False
    user: Optional[User] = None
    forwarded: bool = False
    sub_address: str = ""
    key: tuple[object, ...] = ()


def expand(
    recipient: str, envelope: Envelope, policy: Policy
) -> Generator[Question, Answer, Expansion]:
    """Expand the recipient of a RCPT command; see the classes of questions for the answers.

    envelope gives the session and the sender.
    """
    work = _Work(envelope, policy)
    work.add(Item(Kind.ADDRESS, recipient), Action(""), None)
    try:
        while work.queue:
            yield from work.expand_node(work.queue.popleft())
    except _RefusedError as refused:
        return Expansion(refusal=str(refused), notes=tuple(work.notes))
    if not work.deliveries:
        return Expansion(refusal=LIST_REFUSED, notes=tuple(work.notes))
    return Expansion(tuple(work.deliveries), notes=tuple(work.notes))


class _Work:
    """One expansion under way."""

    def __init__(self, envelope: Envelope, policy: Policy) -> None:
        self.envelope = envelope
        self.policy = policy
        self.queue: deque[_Node] = deque()
        self.seen: set[tuple[object, ...]] = set()
        self.count = 0
        self.deliveries: list[Delivery] = []
        self.notes: list[str] = []

    def add(self, item: Item, action: Action, parent: Optional[_Node]) -> None:
        """Put a node in the queue, unless the same one is or was there."""
        node = _Node(item, action, parent, parent.depth + 1 if parent else 0)
        if parent is not None and item.kind is Kind.USER and parent.item == item:
            node.same_user = True
        node.key = (item, node.same_user, _nearest(parent, Kind.ADDRESS))
        if item.kind in (Kind.PIPE, Kind.FILE):
            node.key += (_nearest(parent, Kind.USER),)
        if node.key in self.seen:
            return
        self.seen.add(node.key)
        self.count += 1
        if self.count > MAX_NODES:
            raise _RefusedError(LIST_REFUSED)
        self.queue.append(node)

    def expand_node(self, node: _Node) -> Generator[Question, Answer, None]:
        """Expand one node: into others, into a delivery, or not at all."""
        if node.depth >= MAX_DEPTH:
            raise _RefusedError(LIST_REFUSED)
        if node.item.kind is Kind.ADDRESS:
            yield from self._address(node)
        elif node.item.kind is Kind.USER:
            yield from self._user(node)
        elif node.action.forwarding is Forwarding.FORWARD_ONLY:
            raise _RefusedError(LOOKUP_FAILED)
        elif node.item.kind is Kind.ERROR:
            raise _RefusedError(node.item.text)
        else:
            self._command(node)

    def _address(self, node: _Node) -> Generator[Question, Answer, None]:
        address = node.item.text
        internal = node.parent is not None or self.envelope.internal
        if self.policy.decode_srs is not None and not self.envelope.sender and _is_srs(address):
            decoded = self.policy.decode_srs(address)
            if decoded is None:
                self.notes.append(f"SRS failed to decode: {address}")
            else:
                address, internal = decoded, True
                node.item = Item(Kind.ADDRESS, decoded)
        asked = replace(self.envelope, recipient=address, internal=internal)
        decision = yield from decide(self.policy.rules, asked)
        if decision.verdict is Verdict.FAILURE:
            raise _RefusedError(LOOKUP_FAILED)
        if decision.verdict is not Verdict.ACTION:
            raise _RefusedError(UNKNOWN_RECIPIENT)
        action = self.policy.actions.get(decision.action)
        if action is None:
            raise LocalError(f"a rule names the action {decision.action!r}, which there is not")
        user, _, domain = address.rpartition("@")
        if action.relay:
            self.deliveries.append(Delivery(Method.RELAY, action.name, address))
        elif action.virtual:
            keys = virtual_keys(user, domain, self.policy.delimiter)
            if not (yield from self._alias(node, action, action.virtual, keys)):
                raise _RefusedError(LIST_REFUSED)
        else:
            self.add(Item(Kind.USER, user.lower()), action, node)

    def _user(self, node: _Node) -> Generator[Question, Answer, None]:
        action, name, delimiter = node.action, node.item.text, self.policy.delimiter
        if not node.same_user and (action.alias or action.virtual):
            if action.alias:
                keys = alias_keys(name, delimiter)
            else:
                keys = virtual_keys(name, "", delimiter)
            table = action.alias or action.virtual
            if (yield from self._alias(node, action, table, keys)):
                return
        name, _, node.sub_address = name.partition(delimiter)
        node.item = Item(Kind.USER, name)
        user = yield FindUser(action.userbase, name.lower())
        if isinstance(user, Failure):
            raise _RefusedError(LOOKUP_FAILED)
        if not isinstance(user, User):
            raise _RefusedError(UNKNOWN_RECIPIENT)
        node.user = user
        self.seen.discard(node.key)  # from here on the node equals no other one
        own_copy = node.same_user and node.parent is not None and node.parent.forwarded
        if own_copy or action.user not in ("", name):
            self._deliver_to_user(node)
        else:
            node.forwarded = True
            yield from self._forward(node, user)

    def _forward(self, node: _Node, user: User) -> Generator[Question, Answer, None]:
        text = yield ReadForward(user)
        if isinstance(text, Failure):
            raise _RefusedError(LIST_REFUSED if text.permanent else LIST_FAILED)
        before = self.count
        if isinstance(text, str):
            if not text:
                self.notes.append("info: forward file is empty")
            self._add_forward(node, text)
        if self.count > before:
            return
        self._deliver_to_user(node)

    def _add_forward(self, node: _Node, text: str) -> None:
        if len(encode(text)) >= MAX_FORWARD:
            self._fail("info: forward file exceeds max size")
        try:
            items = parse_forward(text)
        except AliasError:
            self._fail("info: parse error in forward file")
        for item in items:
            self.add(item, node.action, node)
            if self.count > MAX_FORWARD_NODES:
                self._fail("info: forward file expanded too many nodes")

    def _fail(self, note: str) -> NoReturn:
        self.notes.append(note)
        raise _RefusedError(LIST_FAILED)

    def _alias(
        self, node: _Node, action: Action, table: str, keys: list[str]
    ) -> Generator[Question, Answer, int]:
        """Add the items of the first key found; give how many there were."""
        for key in keys:
            value = yield FindAlias(table, key)
            if isinstance(value, Failure):
                raise _RefusedError(LIST_FAILED)
            if isinstance(value, str):
                break
        else:
            return 0
        try:
            items = parse_value(value)
        except AliasError as error:
            self.notes.append(f"warn: table {table}, key {key}: {error}")
            raise _RefusedError(LIST_FAILED) from error
        found = 0
        for item in items:
            if item.kind is Kind.INCLUDE:
                found += yield from self._include(node, action, item.text)
            else:
                found += 1
                self.add(item, action, node)
        return found

    def _include(self, node: _Node, action: Action, path: str) -> Generator[Question, Answer, int]:
        """Add the items of an include file; one that can be read counts, even when empty."""
        text = yield ReadInclude(path)
        if not isinstance(text, str):
            self.notes.append(f'warn: failed to open include file "{path}".')
            return 0
        items, refused = parse_include(text)
        self.notes += [f'warn: include file "{path}": {why}' for why in refused]
        for item in items:
            self.add(item, action, node)
        return 1

    def _deliver_to_user(self, node: _Node) -> None:
        if node.action.forwarding is Forwarding.FORWARD_ONLY:
            raise _RefusedError(LIST_FAILED)
        if node.action.forwarding is Forwarding.EXPAND_ONLY:
            raise _RefusedError(LIST_REFUSED)
        self.deliveries.append(
            Delivery(
                Method.USER,
                node.action.name,
                _address_of(node),
                user=node.item.text,
                sub_address=node.sub_address,
            )
        )

    def _command(self, node: _Node) -> None:
        """Deliver to a command or a file: as the owner of the .forward it stands in."""
        owner = node.parent.user if node.parent else None
        if owner is not None and owner.uid == 0:
            raise _RefusedError(LOOKUP_FAILED)
        runner = owner.name if owner else self.policy.daemon_user
        pipe = node.item.kind is Kind.PIPE
        if pipe and owner is None:
            self.notes.append(f"commands executed from aliases run with {runner} privileges")
        method = Method.PIPE if pipe else Method.FILE
        self.deliveries.append(
            Delivery(
                method, node.action.name, _address_of(node), user=runner, target=node.item.text
            )
        )


def _nearest(node: Optional[_Node], kind: Kind) -> Optional[_Node]:
    """Give the nearest node of a kind, going up."""
    while node is not None and node.item.kind is not kind:
        node = node.parent
    return node


def _address_of(node: _Node) -> str:
    above = _nearest(node, Kind.ADDRESS)
    assert above is not None  # the recipient is one
    return above.item.text


def _is_srs(address: str) -> bool:
    return address[:5].upper() in ("SRS0=", "SRS1=")


def alias_keys(name: str, delimiter: str) -> list[str]:
    """Give the keys of an alias table for a user name, in order: with its tag, then without."""
    name = name.lower()
    return list(dict.fromkeys((name, name.partition(delimiter)[0])))


def virtual_keys(user: str, domain: str, delimiter: str) -> list[str]:
    """Give the keys of a virtual table for an address, in order.

    Without a domain there is no catch-all: the name came out of the table itself.
    """
    user, domain = user.lower(), domain.lower()
    bare, _, tag = user.partition(delimiter)
    names = [user, bare] if tag else [bare]
    keys = [f"{name}@{domain}" for name in names] + names
    return [*keys, f"@{domain}", "@"] if domain else keys
