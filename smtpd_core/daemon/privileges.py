"""Who a role runs as, and what it gives up: root, the file system, further imports.

Order: prepare with privileges, then drop, then seal, then serve. Whatever cannot be given up ends
the role: there is no way of going on half dropped.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, Sequence, Tuple

from smtpd_core.errors import SmtpdError, UsageError

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# Pairs of users: ours as upstream names them, then Debian's.
KNOWN_USERS = (("_smtpd", "_smtpq"), ("opensmtpd", "opensmtpq"), ("smtpd", "smtpq"))
MAX_DESCRIPTORS = 65536  # beyond it tables of descriptors cost more than they serve


class PrivilegeError(SmtpdError):
    """Privileges that could not be given up, or a user that does not exist."""


class SealedImportError(ImportError):
    """An import after the role was sealed: a module is missing in what it loads beforehand."""


class Identity(NamedTuple):
    """A user to run as; the name is for people only, a container may have none."""

    name: str
    uid: int
    gid: int


def current_identity() -> Identity:
    """Give who this process runs as, known to the system or not."""
    import pwd

    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Identity(name, uid, os.getegid())


def find_identities(spec: str = "") -> Tuple[Identity, Identity]:
    """Give the daemon's and the queue's user: those of `daemon:queue`, or the known ones.

    A queue user that does not exist is the daemon's. Raises UsageError, PrivilegeError.
    """
    if spec:
        daemon, colon, queue = spec.partition(":")
        if not daemon or (colon and not queue):
            raise UsageError(f"--users {spec}: give the names as daemon:queue")
        pairs: Sequence[Tuple[str, str]] = ((daemon, queue or daemon),)
    else:
        pairs = KNOWN_USERS
    for daemon, queue in pairs:
        first = _find(daemon)
        if first is None:
            continue
        second = _find(queue)
        if second is None and spec:
            raise PrivilegeError(f"no such user: {queue}")
        for identity in (first, second):
            if identity is not None and identity.uid == 0:
                raise PrivilegeError(f"user {identity.name} is root, which no role may be")
        return first, second or first
    names = spec or " or ".join(daemon for daemon, _ in pairs)
    raise PrivilegeError(f"no such user: {names}")


def _find(name: str) -> Optional[Identity]:
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Identity(name, entry.pw_uid, entry.pw_gid)


def enter(directory: str) -> None:
    """Make a directory the root. Raises PrivilegeError."""
    try:
        os.chroot(directory)
        os.chdir("/")
    except OSError as error:
        raise PrivilegeError(f"chroot {directory}: {error.strerror}") from None


def drop(identity: Identity) -> None:
    """Become a user for good, and make sure of it. Raises PrivilegeError."""
    if identity.uid == 0:
        raise PrivilegeError("a role may not run as root")
    try:
        os.setgroups([identity.gid])
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise PrivilegeError(f"cannot become {identity.name}: {error.strerror}") from None
    try:
        os.setuid(0)
    except OSError:
        pass
    else:
        raise PrivilegeError(f"became {identity.name}, and could become root again")
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        raise PrivilegeError(f"did not become {identity.name}")


def enter_nowhere() -> None:
    """Make an empty directory the root, one that has no name any more. Raises PrivilegeError."""
    try:
        name = tempfile.mkdtemp(prefix="smtpd-")
        parent = os.open(os.path.dirname(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            enter(name)
            os.rmdir(os.path.basename(name), dir_fd=parent)
        finally:
            os.close(parent)
    except OSError as error:
        raise PrivilegeError(f"no empty directory to be the root: {error.strerror}") from None


def raise_descriptor_limit() -> int:
    """Raise the limit of open files as far as this process may; give what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
        return wanted
    return soft


def forbid_core_dumps() -> None:
    """Keep secrets out of core files."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        pass


def set_title(title: str) -> None:
    """Give this process a name of up to 15 octets, where the system has such a thing."""
    try:
        with open("/proc/self/comm", "wb") as file:
            file.write(title.encode("ascii", "replace")[:15])
    except OSError:
        pass


def preload() -> None:
    """Load what is needed only later, while it can be found."""
    import smtpd_core.daemon.preloaded  # noqa: F401 - to have loaded it is all


class _Seal:
    """The finder that finds nothing."""

    def find_spec(
        self,
        name: str,
        path: Optional[Sequence[str]] = None,  # noqa: ARG002 - the protocol of finders
        target: Optional[ModuleType] = None,  # noqa: ARG002
    ) -> Optional[ModuleSpec]:
        raise SealedImportError(f"import of {name} after the role was sealed", name=name)


def seal() -> Callable[[], None]:
    """Make every further import raise SealedImportError; give what undoes it, for tests."""
    finder = _Seal()
    sys.meta_path.insert(0, finder)

    def unseal() -> None:
        sys.meta_path.remove(finder)

    return unseal
