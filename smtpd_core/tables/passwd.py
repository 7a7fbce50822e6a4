"""Tables of users: those of the system, and those of a file in the format of passwd(5).

A line of such a file is `name:hash:uid:gid:gecos:home:shell`; what follows the home is not looked
at. It answers credentials with the hash and userinfo with the rest.
Source: passwd(5), table-passwd(5).
"""

from __future__ import annotations

import pwd
from typing import Callable, Dict, NamedTuple, Optional

from smtpd_core.tables.lines import UserInfo
from smtpd_core.tables.matching import fold
from smtpd_core.tables.static import TableError
from smtpd_core.text import decode

MAX_NAME = 255  # octets of a user name

FindUser = Callable[[str], Optional[UserInfo]]


def system_user(name: str) -> Optional[UserInfo]:
    """Ask the system for a user; None when there is none.

    Python tells a directory service that is down from a user that does not exist no better than
    this: both are None.
    """
    if not name or "\0" in name or len(name) > MAX_NAME:
        return None
    try:
        found = pwd.getpwnam(name)
    except (KeyError, UnicodeError):
        return None
    return UserInfo(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir)


def format_userinfo(user: UserInfo) -> str:
    """Spell a user as the value of a userinfo table."""
    return f"{user.uid}:{user.gid}:{user.home}"


class SystemTable:
    """The users of the system."""

    def __init__(self, find: FindUser) -> None:
        self._find = find

    def match(self, service: str, key: str) -> bool:
        """Tell whether there is such a user."""
        return self.fetch(service, key) is not None

    def fetch(self, service: str, key: str) -> Optional[str]:
        """Give a user as `uid:gid:home`; raises TableError for any other service."""
        if service != "userinfo":
            raise TableError(f"system users are not for {service} lookups")
        try:
            user = self._find(key)
        except OSError as error:
            raise TableError(f"system users: {error.strerror or error}") from error
        return None if user is None else format_userinfo(user)

    def pick(self, service: str) -> Optional[str]:
        """Refuse: nobody goes through all users. Raises TableError."""
        raise TableError(f"system users are not for {service} lookups")

    def any_value(self) -> Optional[str]:
        """Give nothing: the system keeps its hashes for itself."""
        return None


class _Line(NamedTuple):
    hashed: str
    userinfo: str


class PasswdTable:
    """The users of a passwd file."""

    def __init__(self, octets: bytes) -> None:
        """Read the file; raises TableError with the line that is none."""
        self._users: Dict[str, _Line] = {}
        for number, raw in enumerate(decode(octets).split("\n"), 1):
            line = raw.rstrip("\r")
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.split(":")
            if len(fields) < 6 or not fields[0]:
                raise TableError(f"line {number}: not name:hash:uid:gid:gecos:home:shell")
            name, hashed, uid, gid, _, home = fields[:6]
            self._users[fold(name)] = _Line(hashed, f"{uid}:{gid}:{home}")

    def match(self, service: str, key: str) -> bool:
        """Tell whether there is such a user."""
        return self.fetch(service, key) is not None

    def fetch(self, service: str, key: str) -> Optional[str]:
        """Give `user:hash` or `uid:gid:home`; raises TableError for any other service.

        A user without a hash cannot log in, and has no credentials.
        """
        user = self._users.get(fold(key))
        if service == "userinfo":
            return None if user is None else user.userinfo
        if service != "credentials":
            raise TableError(f"a passwd file is not for {service} lookups")
        return f"{key}:{user.hashed}" if user is not None and user.hashed else None

    def pick(self, service: str) -> Optional[str]:
        """Refuse: nobody goes through all users. Raises TableError."""
        raise TableError(f"a passwd file is not for {service} lookups")

    def any_value(self) -> Optional[str]:
        """Give the credentials of somebody, None where nobody has any."""
        return next((f"x:{user.hashed}" for user in self._users.values() if user.hashed), None)
