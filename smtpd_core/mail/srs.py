"""Sender rewriting: a forwarded message goes out under our domain, and its bounce comes home.

    alice@a.example            ->  SRS0=HHHH=TT=a.example=alice@b.example
    SRS0=...=alice@b.example   ->  SRS1=HHHH=b.example==...=alice@c.example

HHHH is the beginning of a keyed hash over all that follows it, TT the day of the rewriting in
base32. A further hop only puts its own hash and domain into SRS1. The hash is four characters
long, as the peers expect: it stops the casual abuse of the rewriter as an open relay.
Source: Shevek, "The Sender Rewriting Scheme"; forms, hash and limits as in OpenSMTPD.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha1
from typing import NamedTuple

from smtpd_core.errors import FormatError
from smtpd_core.text import encode

DAY_SECONDS = 86_400
DEFAULT_TTL_DAYS = 4
HASH_LENGTH = 4
MAX_ADDRESS = 320  # 64 for the local part, 255 for the domain, and the @
_DAYS = 1024  # the clock of two base32 digits goes round in so many days
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SEPARATORS = "=+-"


class SrsError(FormatError):
    """An address that we did not rewrite, or too long ago."""


class Keys(NamedTuple):
    """The key that signs, and the one that was used before: it still opens. May be empty."""

    key: str
    backup: str = ""

    def __repr__(self) -> str:
        return "Keys(<secret>)"


def is_srs(address: str) -> bool:
    """Tell whether an address claims to be a rewritten one."""
    return address[:5].upper() in ("SRS0=", "SRS1=")


def rewrite(sender: str, domain: str, keys: Keys, now: int) -> str:
    """Rewrite a sender for a message that leaves under a domain.

    A sender that cannot be rewritten, because it is null, has no domain or would become too
    long, is given back as it is.
    """
    user, at, old_domain = sender.rpartition("@")
    if not at or not user or not old_domain:
        return sender
    prefix = user[:5].upper()
    if prefix == "SRS0=":
        tag, signed = "SRS1", f"{old_domain}=={user[5:]}@{domain}"
    elif prefix == "SRS1=":
        body = user[5:]
        if body[HASH_LENGTH : HASH_LENGTH + 1] not in tuple(_SEPARATORS):
            return sender
        tag, signed = "SRS1", f"{body[HASH_LENGTH + 1 :]}@{domain}"
    else:
        tag, signed = "SRS0", f"{_stamp(now)}={old_domain}={user}@{domain}"
    rewritten = f"{tag}={_hash(keys.key, signed)}={signed}"
    return rewritten if len(rewritten) <= MAX_ADDRESS else sender


def restore(recipient: str, keys: Keys, now: int, ttl_days: int = DEFAULT_TTL_DAYS) -> str:
    """Undo one rewriting of ours: give the address a bounce goes on to.

    Raises SrsError when the hash is not ours, and past ttl_days.
    """
    if not is_srs(recipient) or len(recipient) > 2 * MAX_ADDRESS:
        raise SrsError("not a rewritten address")
    body = recipient[5:]
    given, signed = body[:HASH_LENGTH], body[HASH_LENGTH + 1 :]
    valid = [_equal(given, _hash(key, signed)) for key in keys if key]
    if body[HASH_LENGTH : HASH_LENGTH + 1] not in tuple(_SEPARATORS) or not any(valid):
        raise SrsError("the hash of a rewritten address is not ours")
    local, at, _ = signed.rpartition("@")
    if not at:
        raise SrsError("a rewritten address without a domain")
    if recipient[:4].upper() == "SRS0":
        _check_stamp(local, now, ttl_days)
        domain, separator, user = local[3:].partition("=")
        restored = f"{user}@{domain}"
    else:
        domain, separator, user = local.partition("=")
        _check_stamp(user[HASH_LENGTH + 2 :], now, ttl_days)  # after the other's `=HHHH=`
        restored = f"SRS0{user}@{domain}"
    if not separator or not user or not domain:
        raise SrsError("a rewritten address with a part missing")
    return restored


def _hash(key: str, signed: str) -> str:
    digest = sha1(encode(key) + encode(signed)).digest()  # noqa: S324 - the scheme says so
    return urlsafe_b64encode(digest)[:HASH_LENGTH].decode("ascii")


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(encode(given), encode(expected))


def _stamp(now: int) -> str:
    day = now // DAY_SECONDS % _DAYS
    return _BASE32[day >> 5] + _BASE32[day & 31]


def _check_stamp(text: str, now: int, ttl_days: int) -> None:
    """Raise SrsError unless the text starts with a day in range; clocks may differ by one."""
    high, low = _BASE32.find(text[:1] or "?"), _BASE32.find(text[1:2] or "?")
    if high < 0 or low < 0 or text[2:3] not in tuple(_SEPARATORS):
        raise SrsError("a rewritten address without its day")
    age = (now // DAY_SECONDS - (high << 5 | low)) % _DAYS
    if age > ttl_days and age != _DAYS - 1:
        raise SrsError(f"an address rewritten {age} days ago")
