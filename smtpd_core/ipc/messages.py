"""What the roles say to each other: one class a message, how it is spelled, who may send it.

Everything here is checked by the side that receives it. A role that sends what MAY_SEND does not
grant it, or what cannot be read, is closed: it may have been taken over.
"""

from __future__ import annotations

import enum
from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, Optional, Tuple, Type

from smtpd_core.cursor import Cursor, CursorError
from smtpd_core.errors import FormatError, LocalError, SmtpdError
from smtpd_core.ipc.fields import (
    FLAG,
    I64,
    U8,
    U16,
    U32,
    U64,
    Field,
    FieldError,
    list_field,
    octets_field,
    optional_field,
    pair_field,
    text_field,
)

MAX_LEASE = 1000  # message ids given at once
MAX_ENVELOPE = 16384  # octets of one envelope in the text form of 6.8, which never exceeds 8335
MAX_ENVELOPES = 4096  # in one message; the frame's own limit comes first
MAX_BODY = 512 * 1024  # octets of a body that travels in its Commit
MAX_ERROR = 2047  # octets: what an envelope can remember
MAX_NAME = 1023  # users, tables, hold queues
MAX_SECRET = 2047  # a password as a session accepts it
MAX_FORWARD = 4096  # octets of a .forward; one of this length is too long already
MAX_PATH = 4096
MAX_INCLUDE = 512 * 1024  # octets of a file that an alias table includes
MAX_COMMITTED = 65536  # envelopes of one message
MAX_COMMAND = 8192
MAX_JOB_FIELDS = 64
MAX_COUNTERS = 512
MAX_ACTIONS = 4096
MAX_INTERVALS = 32


class MessageError(FormatError):
    """A frame that is no message, or one that this peer may not send."""


class QueueError(SmtpdError):
    """The queue role cannot do what was asked, for now: what to say is a 4xx."""


class Role(enum.Enum):
    """Who takes part."""

    SUPERVISOR = "supervisor"
    DISPATCHER = "dispatcher"
    QUEUE = "queue"


# ---- answers -----------------------------------------------------------------------------


class Done(NamedTuple):
    """It was done; a descriptor comes with it where one was asked for."""


class Failed(NamedTuple):
    """It could not be done, for now; the text may be logged."""

    text: str


# ---- dispatcher to queue -----------------------------------------------------------------


class LeaseIds(NamedTuple):
    """Ask for so many message ids that nobody else will use."""

    number: int


class Committed(NamedTuple):
    """The answer to Commit: the ids of the envelopes, in their order."""

    evpids: Tuple[int, ...]


class Leased(NamedTuple):
    """The answer to LeaseIds."""

    msgids: Tuple[int, ...]


class OpenBody(NamedTuple):
    """Ask for the file of a large body: Done with a descriptor."""

    msgid: int


class AddEnvelopes(NamedTuple):
    """More envelopes than fit the Commit that follows, in the text form of 6.8."""

    msgid: int
    envelopes: Tuple[bytes, ...]


class Commit(NamedTuple):
    """Put a message into the queue: Committed once it is on disk.

    A body of None is in the file that OpenBody gave, all octets of it.
    """

    msgid: int
    envelopes: Tuple[bytes, ...]
    body: Optional[bytes]
    octets: int


class Abandon(NamedTuple):
    """Forget what was opened or added for a message that will not be committed."""

    msgid: int


class OpenMessage(NamedTuple):
    """Ask for the plain text of a message: Done with a descriptor at its beginning."""

    msgid: int


class Report(NamedTuple):
    """What an attempt came to; status is an enhanced status code."""

    evpid: int
    result: str
    status: str
    text: str
    peer_reports: bool


class Hold(NamedTuple):
    """Take an envelope back until its hold queue is released."""

    evpid: int
    holdq: str


class Release(NamedTuple):
    """Give out so many envelopes of a hold queue again; 0 is all of them."""

    holdq: str
    number: int


class Schedule(NamedTuple):
    """Ask for an envelope before its time: what was in its way is gone."""

    evpid: int


class Count(NamedTuple):
    """Changes of counters since the last such message."""

    changes: Tuple[Tuple[str, int], ...]


class Leaving(NamedTuple):
    """Nothing more will be done here: what was not reported was not tried."""


# ---- queue to dispatcher -----------------------------------------------------------------


class Deliver(NamedTuple):
    """Envelopes that are due: ids, and the text form of 6.8."""

    envelopes: Tuple[Tuple[int, bytes], ...]


class Inject(NamedTuple):
    """Ask to put a notice into the queue, as any other mail; its text comes as a descriptor.

    The sender is null. The rules decide what becomes of it.
    """

    recipient: str


class Injected(NamedTuple):
    """The answer to Inject: what came of it, as of any attempt to send a mail."""

    result: str
    text: str


# ---- dispatcher to supervisor ------------------------------------------------------------


class ReadForward(NamedTuple):
    """Ask for the text of a user's .forward."""

    name: str
    uid: int
    gid: int
    home: str


class ReadInclude(NamedTuple):
    """Ask for the text of a file that an alias table includes."""

    path: str


class Contents(NamedTuple):
    """The answer to both: the text, or None where there is no such file."""

    text: Optional[bytes]


class Refused(NamedTuple):
    """The other answer: it must not be read, or cannot be read now."""

    why: str
    permanent: bool


class CheckPassword(NamedTuple):
    """Ask whether a password is a system user's."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"CheckPassword(user={self.user!r}, password=<secret>)"


class Checked(NamedTuple):
    """The answer to CheckPassword; None is "cannot tell now"."""

    good: Optional[bool]


class FindUser(NamedTuple):
    """Ask for a user of the system, which a process in a chroot cannot see."""

    name: str


class FoundUser(NamedTuple):
    """The answer to FindUser: uid, gid and home; no user when home is None."""

    uid: int
    gid: int
    home: Optional[str]


class RunDelivery(NamedTuple):
    """Ask for one local delivery; the message comes as a descriptor.

    The job is told in named fields: what they are is between the packages at both ends.
    """

    fields: Tuple[Tuple[str, str], ...]


class DeliveryEnded(NamedTuple):
    """The answer to RunDelivery, in named fields."""

    fields: Tuple[Tuple[str, str], ...]


# ---- supervisor to the others, and back --------------------------------------------------


class Ready(NamedTuple):
    """A role has prepared and serves."""


class Drain(NamedTuple):
    """Take no new work, finish what runs, then leave."""


class AddDispatcher(NamedTuple):
    """A dispatcher was started; the descriptor is the queue's end of their channel."""

    slot: int


class QueuePolicy(NamedTuple):
    """What the queue role needs of a configuration; actions are pairs of name and lifetime."""

    server_name: str
    ttl_seconds: int
    action_ttls: Tuple[Tuple[str, int], ...]
    local_actions: Tuple[str, ...]
    warn_seconds: Tuple[int, ...]
    max_inflight: int
    max_schedule: int


Message = Any  # any of the classes above; decode and the table below know which

_NAME = text_field(MAX_NAME)
_ENVELOPE = octets_field(MAX_ENVELOPE)
_JOB = list_field(pair_field(text_field(MAX_NAME), text_field(MAX_COMMAND)), MAX_JOB_FIELDS)

# Number of each message, and its fields in order.
_SPELLED: Mapping[int, Tuple[Type[Any], Tuple[Field, ...]]] = {
    1: (Done, ()),
    2: (Failed, (text_field(MAX_ERROR),)),
    10: (LeaseIds, (U16,)),
    11: (Leased, (list_field(U32, MAX_LEASE),)),
    12: (OpenBody, (U32,)),
    13: (AddEnvelopes, (U32, list_field(_ENVELOPE, MAX_ENVELOPES))),
    14: (
        Commit,
        (U32, list_field(_ENVELOPE, MAX_ENVELOPES), optional_field(octets_field(MAX_BODY)), U64),
    ),
    21: (Committed, (list_field(U64, MAX_COMMITTED),)),
    15: (Abandon, (U32,)),
    16: (OpenMessage, (U32,)),
    17: (Report, (U64, text_field(16), text_field(16), text_field(MAX_ERROR), FLAG)),
    18: (Hold, (U64, _NAME)),
    19: (Release, (_NAME, U32)),
    22: (Schedule, (U64,)),
    20: (Count, (list_field(pair_field(text_field(64), I64), MAX_COUNTERS),)),
    23: (Leaving, ()),
    30: (Deliver, (list_field(pair_field(U64, _ENVELOPE), MAX_ENVELOPES),)),
    31: (Inject, (text_field(MAX_NAME),)),
    32: (Injected, (text_field(16), text_field(MAX_ERROR))),
    40: (ReadForward, (_NAME, U32, U32, text_field(MAX_NAME))),
    41: (ReadInclude, (text_field(MAX_PATH),)),
    42: (Contents, (optional_field(octets_field(MAX_INCLUDE)),)),
    43: (Refused, (text_field(MAX_ERROR), FLAG)),
    44: (CheckPassword, (_NAME, text_field(MAX_SECRET))),
    45: (Checked, (optional_field(FLAG),)),
    46: (FindUser, (_NAME,)),
    47: (FoundUser, (U32, U32, optional_field(text_field(MAX_NAME)))),
    48: (RunDelivery, (_JOB,)),
    49: (DeliveryEnded, (_JOB,)),
    60: (Ready, ()),
    61: (Drain, ()),
    63: (AddDispatcher, (U8,)),
    64: (
        QueuePolicy,
        (
            text_field(255),
            U64,
            list_field(pair_field(_NAME, U64), MAX_ACTIONS),
            list_field(_NAME, MAX_ACTIONS),
            list_field(U64, MAX_INTERVALS),
            U32,
            U32,
        ),
    ),
}
_NUMBERS: Dict[Type[Any], int] = {kind: number for number, (kind, _) in _SPELLED.items()}

# Requests, and what may answer them.
ANSWERS: Mapping[Type[Any], FrozenSet[Type[Any]]] = {
    LeaseIds: frozenset({Leased, Failed}),
    OpenBody: frozenset({Done, Failed}),
    Commit: frozenset({Committed, Failed}),
    OpenMessage: frozenset({Done, Failed}),
    ReadForward: frozenset({Contents, Refused, Failed}),
    ReadInclude: frozenset({Contents, Refused, Failed}),
    FindUser: frozenset({FoundUser, Failed}),
    CheckPassword: frozenset({Checked, Failed}),
    RunDelivery: frozenset({DeliveryEnded, Failed}),
    Inject: frozenset({Injected, Failed}),
}

# Who may send what to whom, answers left out. Nobody else may say anything.
MAY_SEND: Mapping[Tuple[Role, Role], FrozenSet[Type[Any]]] = {
    (Role.DISPATCHER, Role.QUEUE): frozenset(
        {
            LeaseIds,
            OpenBody,
            AddEnvelopes,
            Commit,
            Abandon,
            OpenMessage,
            Report,
            Hold,
            Release,
            Schedule,
            Count,
            Leaving,
        }
    ),
    (Role.QUEUE, Role.DISPATCHER): frozenset({Deliver, Inject}),
    (Role.DISPATCHER, Role.SUPERVISOR): frozenset(
        {ReadForward, ReadInclude, FindUser, CheckPassword, RunDelivery, Ready}
    ),
    (Role.SUPERVISOR, Role.DISPATCHER): frozenset({Drain}),
    (Role.QUEUE, Role.SUPERVISOR): frozenset({Ready}),
    (Role.SUPERVISOR, Role.QUEUE): frozenset({AddDispatcher, QueuePolicy, Drain}),
}
WITH_DESCRIPTOR = frozenset({RunDelivery, Inject, AddDispatcher})  # besides some answers


def encode_message(message: Message) -> Tuple[int, bytes]:
    """Give the number and the payload of a message. Raises LocalError for a value too large."""
    number = _NUMBERS.get(type(message))
    if number is None:
        raise LocalError(f"{type(message).__name__} is not a message")
    fields = _SPELLED[number][1]
    return number, b"".join(field.encode(value) for field, value in zip(fields, message))


def decode_message(number: int, payload: bytes) -> Message:
    """Read the message of a number. Raises MessageError."""
    spelled = _SPELLED.get(number)
    if spelled is None:
        raise MessageError(f"message {number} is unknown")
    kind, fields = spelled
    cursor = Cursor(payload)
    try:
        values = [field.decode(cursor) for field in fields]
        cursor.finish()
    except (CursorError, FieldError) as error:
        raise MessageError(f"{kind.__name__}: {error}") from None
    return kind(*values)


def check_received(
    message: Message, sender: Role, receiver: Role, *, request: bool, descriptor: bool
) -> None:
    """Raise MessageError unless the sender may say this here, in this form."""
    kind = type(message)
    if kind not in MAY_SEND.get((sender, receiver), frozenset()):
        raise MessageError(f"a {sender.value} may not send {kind.__name__}")
    if request is not (kind in ANSWERS):
        raise MessageError(f"{kind.__name__} {'wants no' if request else 'needs an'} answer")
    if descriptor is not (kind in WITH_DESCRIPTOR):
        raise MessageError(f"{kind.__name__} {'with' if descriptor else 'without'} a descriptor")
