"""Check the password of a system user against the shadow file, or the hash in passwd.

Runs in a short-lived process of root's: some hashes take 128 megabytes and a seventh of a second.
PAM is not asked.
"""

from __future__ import annotations

import time
from typing import Optional

from smtpd_core import text
from smtpd_core.tables.password import PasswordError, verify_password

SHADOW = "/etc/shadow"
DAY_SECONDS = 86400
_ELSEWHERE = frozenset({"x", "*", ""})  # the passwd file says: look in shadow
# A hash of nothing anybody types: who guesses names learns nothing from the time it takes.
_NOBODY = "$6$rounds=5000$nobodynobodynobo$" + "." * 86


def check_password(user: str, password: str, shadow: str = SHADOW) -> Optional[bool]:
    """Tell whether a password is a user's; None when it cannot be known now."""
    try:
        hashed = _find_hash(user, shadow)
    except OSError:
        return None
    try:
        if not hashed or hashed[:1] in "!*":
            verify_password(text.encode(password), _NOBODY)
            return False
        return verify_password(text.encode(password), hashed)
    except PasswordError:
        return False


def _find_hash(user: str, shadow: str) -> str:
    """Give the hash of a user, empty when there is none or the account has ended."""
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError, UnicodeError):
        return ""
    if entry.pw_passwd not in _ELSEWHERE:
        return entry.pw_passwd
    with open(shadow, "rb") as file:
        for line in file:
            fields = text.decode(line.rstrip(b"\n")).split(":")
            if fields[0] == user and len(fields) >= 8:
                expires = fields[7]
                today = time.time() // DAY_SECONDS  # noqa: TID251 - accounts end by the calendar
                return "" if expires.isdigit() and int(expires) <= today else fields[1]
    return ""
