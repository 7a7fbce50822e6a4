"""Where each object lives below a spool, and what a name in a wrong place means.

    queue/BB/MSGID/message, EVPID    committed messages; BB is the start of MSGID (5.3 and later)
    queue/BB/MSGID/envelopes/EVPID   the same in 5.2.1, where BB is the end of MSGID
    incoming/MSGID/...               transactions in progress
    temporary/MSGID                  bodies being received
    corrupt/MSGID[.N]/...            messages set aside (up to 6.0.3)
    purge/N/...                      what a start threw away: old incoming and temporary trees
    offline/FILE, offline/D/FILE     mail handed in while the daemon was down

Source: OpenSMTPD queue_fs.c, smtpd.c; hier of each release.
"""

from __future__ import annotations

from smtpd_core import ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

DEFAULT_SPOOL = "/var/spool/smtpd"
BUCKETS = ("queue", "incoming", "temporary", "corrupt", "purge", "offline")
MESSAGE = "message"
ENVELOPES_521 = "envelopes"
ENVELOPE_TMP = "envelope.tmp"  # incoming/: an envelope being rewritten

_COPIES = ("comp", "enc")  # temporary/: a body being compressed, being encrypted
_LOWER_HEX = frozenset("0123456789abcdef")
_HEX = frozenset("0123456789abcdefABCDEF")


def is_bucket_name(name: str) -> bool:
    """Tell whether a name is one of the 256 directories of queue/."""
    return len(name) == 2 and _LOWER_HEX.issuperset(name)


def message_path(msgid: int) -> str:
    """Give the directory of a message below the spool."""
    name = ids.format_msgid(msgid)
    return f"queue/{name[:2]}/{name}"


def message_path_521(msgid: int) -> str:
    """Give the directory of a message below a spool of 5.2.1."""
    name = ids.format_msgid(msgid)
    return f"queue/{name[6:]}/{name}"


def message_of(directory: str) -> tuple[int, Optional[str]]:
    """Read the name of a message's directory; the id is 0 when it has none.

    Returns the message id and what is wrong with the name, or None. A `.N` at the end, which
    corrupt/ adds to names that are taken, and the endings of temporary/ are accepted everywhere.
    """
    name, _, counter = directory.partition(".")
    if ids.is_msgid_name(name) and (not counter or counter.isdigit() or counter in _COPIES):
        return int(name, 16), None
    wrong = "its name is not a message id (8 lower case hexadecimal digits): daemons pass it over"
    if len(name) == ids.MSGID_DIGITS and _HEX.issuperset(name):
        return int(name, 16), wrong
    return 0, wrong


def wrong_bucket(msgid: int, bucket: str) -> Optional[str]:
    """Say what is wrong when a message is below a bucket that is not its own."""
    name = ids.format_msgid(msgid)
    if bucket in (name[:2], name[6:]):  # the second is where 5.2.1 puts it
        return None
    return f"it is in the wrong bucket: daemons look for it in queue/{name[:2]}"


def envelope_of(name: str, msgid: int) -> tuple[int, Optional[str]]:
    """Read the name of an envelope in the directory of a message (0: unknown).

    Returns the envelope id, with a lower half of 0 when the name does not tell, and what is
    wrong with the name or the place, or None.
    """
    if ids.is_evpid_name(name):
        evpid = int(name, 16)
        if msgid in (0, ids.msgid_of(evpid)):
            return evpid, None
        return evpid, "it is in the directory of another message: daemons pass it over"
    wrong = (
        "its name is not an envelope id (16 lower case hexadecimal digits): daemons pass it over"
    )
    if len(name) == ids.EVPID_DIGITS and _HEX.issuperset(name):
        return int(name, 16), wrong
    return msgid << 32, wrong


class Place:
    """What a path is within a spool."""

    __slots__ = ("bucket", "kind", "msgid", "name", "notes")

    def __init__(self, kind: str, bucket: str, msgid: int, name: str, notes: list[str]) -> None:
        """Say `envelope`, `message`, `offline`, `stray`, and what is wrong with the place."""
        self.kind = kind
        self.bucket = bucket
        self.msgid = msgid
        self.name = name
        self.notes = notes


def find_place(path: str) -> Optional[Place]:
    """Recognise a file of a spool by its path, however deep the spool lies.

    None when nothing in the path says that it belongs to one.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts:
        return None
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] in BUCKETS:
            place = _place_below(parts[index], parts[index + 1 :])
            if place is not None:
                return place
    return _place_without_bucket(parts)


def _place_without_bucket(parts: list[str]) -> Optional[Place]:
    """Recognise a copied bucket, message directory or envelope."""
    name = parts[-1]
    if ids.is_evpid_name(name):
        msgid = message_of(parts[-2])[0] if len(parts) > 1 else 0
        note = envelope_of(name, msgid)[1]
        return Place("envelope", "queue", msgid, name, [note] if note else [])
    if name == MESSAGE and len(parts) > 1:
        msgid, wrong = message_of(parts[-2])
        return None if wrong else Place("message", "queue", msgid, name, [])
    return None


def _place_below(bucket: str, rest: list[str]) -> Optional[Place]:
    """Recognise what follows the name of a bucket; None when it is not of a spool's form."""
    if bucket == "offline":
        return Place("offline", bucket, 0, rest[-1], []) if len(rest) <= 2 else None
    if bucket == "purge":
        if len(rest) < 2 or not rest[0].isdigit():
            return None
        rest = rest[1:]
    if len(rest) == 1 and bucket in ("temporary", "purge"):
        msgid, wrong = message_of(rest[0])
        return Place("stray" if wrong else "message", bucket, msgid, rest[0], [])
    notes = []
    if bucket == "queue":
        if len(rest) < 2 or not is_bucket_name(rest[0]):
            return Place("stray", bucket, 0, rest[-1], [])
        wrong = wrong_bucket(message_of(rest[1])[0], rest[0]) if len(rest) > 2 else None
        notes += [wrong] if wrong else []
        rest = rest[1:]
    return _place_in_message(bucket, rest, notes)


def _place_in_message(bucket: str, rest: list[str], notes: list[str]) -> Place:
    """Recognise a file by the directory of its message and its own name."""
    if len(rest) == 3 and rest[1] == ENVELOPES_521:
        rest = [rest[0], rest[2]]
    if len(rest) != 2:
        return Place("stray", bucket, 0, rest[-1], notes)
    directory, name = rest
    msgid, wrong = message_of(directory)
    if wrong:
        notes.append(wrong)
    if name == MESSAGE:
        return Place("message", bucket, msgid, name, notes)
    wrong = envelope_of(name, msgid)[1]
    if wrong:
        notes.append(wrong)
    return Place("envelope" if ids.is_evpid_name(name) else "stray", bucket, msgid, name, notes)
