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
ENVELOPE_OCTETS_MAX = 65536  # no release writes more than 18,615 octets; see releases.py
OFFLINE_HEAD_OCTETS_MAX = 65536  # of a file in offline/: the arguments, and the header for -t
BUCKETS = ("queue", "incoming", "temporary", "corrupt", "purge", "offline")
_BUCKETS = frozenset(BUCKETS)
COMPLETE = ("queue", "corrupt")  # where a message has a body and envelopes
MESSAGE = "message"
ENVELOPES_521 = "envelopes"
OUTSIDE = "it is outside of the directory of a message: daemons pass it over"
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
    msgid = _number(directory, ids.MSGID_DIGITS)
    if msgid:
        return msgid, None
    name, _, counter = directory.partition(".")
    msgid = _number(name, ids.MSGID_DIGITS)
    if msgid and (counter.isdigit() or counter in _COPIES):
        return msgid, None
    wrong = "its name is not a message id (8 lower case hexadecimal digits): daemons pass it over"
    if len(name) == ids.MSGID_DIGITS and _HEX.issuperset(name):
        return int(name, 16), wrong
    return 0, wrong


def _number(name: str, digits: int) -> int:
    """Give the number whose only spelling a name is, in so many lower case digits, or 0."""
    try:
        number = int(name, 16)
    except ValueError:
        return 0
    return number if len(name) == digits and f"{number:0{digits}x}" == name else 0


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
    evpid = _number(name, ids.EVPID_DIGITS)
    if evpid:
        if msgid in (0, evpid >> 32):
            return evpid, None
        return evpid, "it is in the directory of another message: daemons pass it over"
    wrong = (
        "its name is not an envelope id (16 lower case hexadecimal digits): daemons pass it over"
    )
    if len(name) == ids.EVPID_DIGITS and _HEX.issuperset(name):
        return int(name, 16), wrong
    return msgid << 32, wrong


NO_BUCKET = "a message outside of a bucket: daemons pass it over"
FOREIGN = "a directory that does not belong to a spool"
NOT_A_FILE = "a directory where a file is expected"
WITHOUT_BODY = "the message of these envelopes is missing"
EMPTY_BODY = "the message of these envelopes is empty"


def without_envelope(size: int) -> str:
    """Say that nobody is left to whom a message of so many octets goes."""
    return f"a message of {size} octets without any envelope"


class Place:
    """What a path is within a spool: what a walk of the same directories would make of it.

    `kind` is `envelope`, `message` (a body), `offline`, `stray` (a file that may be anything), or
    `hidden`, below a directory that no walk enters. `spool` is how many parts of the path come
    before the bucket, `message` how many lead to the directory of the message, 0 for a file that
    is in none. `notes` say what is wrong with the name of the file, `wrong` what is wrong with
    the directories on the way: how many parts lead to it, and the reason.
    """

    __slots__ = ("bucket", "kind", "message", "msgid", "name", "notes", "parts", "spool", "wrong")

    def __init__(self, bucket: str, parts: list[str], spool: int) -> None:
        """Start as a stray file in a bucket."""
        self.kind = "stray"
        self.bucket = bucket
        self.msgid = 0
        self.name = parts[-1]
        self.notes: list[str] = []
        self.parts = parts
        self.spool = spool
        self.message = 0
        self.wrong: list[tuple[int, str]] = []


def find_place(path: str) -> Optional[Place]:
    """Recognise a file of a spool by its path, however deep the spool lies.

    None when nothing in the path says that it belongs to one.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] in BUCKETS:
            place = Place(parts[index], parts, index)
            _place_below(place, index + 1)
            return place
    return _place_without_bucket(parts) if parts else None


def _place_without_bucket(parts: list[str]) -> Optional[Place]:
    """Recognise a copied bucket, message directory or envelope."""
    depth = len(parts) - 1
    if depth > 1 and parts[depth - 1] == ENVELOPES_521:
        depth -= 1
    place = Place("queue", parts, 0)
    if depth and not message_of(parts[depth - 1])[1]:
        _place_in_message(place, depth)
        return place if place.kind != "stray" else None
    if ids.is_evpid_name(parts[-1]):
        place.kind = "envelope"
        return place
    return None


def bare_directory(path: str) -> Optional[str]:
    """Give the directory of a message whose name is missing from a path, as when packed inside.

    That of a body or an envelope alone, also of one below envelopes/ of 5.2.1; else None.
    """
    *parts, name = [part for part in path.split("/") if part not in ("", ".")] or [""]
    if ids.is_evpid_name(name):
        if parts and parts[-1] == ENVELOPES_521:
            parts.pop()
    elif name != MESSAGE:
        return None
    if not _BUCKETS.isdisjoint(parts) or (parts and not message_of(parts[-1])[1]):
        return None
    return "/".join(parts)


def _place_below(place: Place, depth: int) -> None:
    """Find out what the parts behind the name of a bucket are."""
    below = place.parts[depth:]
    if place.bucket == "offline":
        place.kind = "offline" if len(below) <= 2 else "hidden"
        if len(below) > 2:
            place.wrong.append((depth + 2, NOT_A_FILE))
    elif place.bucket != "queue":
        _place_among_messages(place, depth, "")
    elif len(below) == 1:
        place.notes = _notes(place) or [OUTSIDE]
    elif is_bucket_name(below[0]):
        _place_among_messages(place, depth + 1, below[0])
    elif ids.is_msgid_name(below[0]):
        place.wrong.append((depth + 1, NO_BUCKET))
        _place_in_message(place, depth + 1)
    else:
        place.wrong.append((depth + 1, FOREIGN))
        _place_among_messages(place, depth + 1, "")


def _place_among_messages(place: Place, depth: int, above: str) -> None:
    """Go on in a directory that holds those of messages; `above` is its name below the bucket."""
    name = place.parts[depth]
    if len(place.parts) == depth + 1:
        msgid = message_of(name)[0]
        if msgid and place.bucket in ("temporary", "purge"):
            place.kind = MESSAGE
            place.msgid = msgid
        else:
            place.notes = _notes(place) or [OUTSIDE]
        return
    if place.bucket == "purge" and name.isdigit() and not above:
        _place_among_messages(place, depth + 1, name)
        return
    msgid, wrong = message_of(name)
    if place.bucket == "queue" and above and msgid and not wrong:
        wrong = wrong_bucket(msgid, above)
    if wrong:
        place.wrong.append((depth + 1, wrong))
    _place_in_message(place, depth + 1)


def _place_in_message(place: Place, depth: int) -> None:
    """Go on in the directory of a message, to which so many parts lead."""
    place.message = depth
    place.msgid = message_of(place.parts[depth - 1])[0]
    below = place.parts[depth:]
    if below == [MESSAGE]:
        place.kind = MESSAGE
        return
    files = 2 if len(below) > 1 and below[0] == ENVELOPES_521 else 1
    if len(below) > files:
        place.kind = "hidden"
        place.wrong.append((depth + files, NOT_A_FILE))
        return
    place.kind = "envelope" if ids.is_evpid_name(place.name) else "stray"
    place.notes = _notes(place)


def _notes(place: Place) -> list[str]:
    wrong = envelope_of(place.name, place.msgid)[1]
    return [wrong] if wrong else []
