"""OpenSMTPD's own smtpctl, run over a spool of ours where it believes its own to be.

It reads /var/spool/smtpd only, as root only. It runs in a mount namespace of its own, in which
that place is a directory of ours and /run, where a daemon would answer, is empty: nothing outside
is touched. Source: smtpctl(8); OpenSMTPD 6.8 smtpctl.c, queue_fs.c.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Optional

from tests.running import Finished

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterable, Sequence

SPOOL = "/var/spool/smtpd"
PROGRAM = "/usr/sbin/smtpctl"
_QUEUE_USERS = ("opensmtpq", "_smtpq", "smtpq")
_INSIDE = 'mount -t tmpfs tmpfs /run && mount --bind "$0" ' + SPOOL + ' && exec "$@"'
_RUN_ALL = """
import base64, json, subprocess, sys
done = [
    subprocess.run([sys.argv[1], *words], stdin=subprocess.DEVNULL, capture_output=True)
    for words in json.load(sys.stdin)
]
spell = lambda octets: base64.b64encode(octets).decode()
json.dump([(one.returncode, spell(one.stdout), spell(one.stderr)) for one in done], sys.stdout)
"""
_PATIENCE_SECONDS = 60


def why_not() -> Optional[str]:
    """Say why the original cannot be run here; None when it can."""
    if os.getuid() != 0:
        return "only root may run the original"
    if not os.access(PROGRAM, os.X_OK) or not os.path.isdir(SPOOL):
        return f"{PROGRAM} is not installed"
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    done = subprocess.run(["unshare", "-m", "true"], check=False, stderr=subprocess.DEVNULL)
    return None if done.returncode == 0 else "this host allows no mount namespaces"


def _queue_user() -> int:
    for name in _QUEUE_USERS:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise LookupError("no user of the queue")


def make_spool(path: pathlib.Path) -> pathlib.Path:
    """Make an empty spool that the original does not complain about."""
    path.mkdir()
    path.chmod(0o711)
    for name in ("queue", "incoming"):
        (path / name).mkdir(mode=0o700)
        os.chown(path / name, _queue_user(), 0)
    return path


def fill(spool: pathlib.Path, files: Iterable[bytes]) -> dict[int, bytes]:
    """Store envelopes, a few a message, each message with a body; give them by envelope id."""
    stored = {}
    for number, octets in enumerate(files):
        msgid = 0x01000000 + number // 4 * 0x00F00D11 & 0xFFFFFFFF
        evpid = msgid << 32 | number + 1
        directory = spool / "queue" / f"{msgid:08x}"[:2] / f"{msgid:08x}"
        if not directory.is_dir():
            directory.mkdir(parents=True)
            (directory / "message").write_bytes(b"Subject: x\n\nx\n")
        (directory / f"{evpid:016x}").write_bytes(octets)
        stored[evpid] = octets
    return stored


def run(spool: pathlib.Path, *words: str) -> Finished:
    """Run a command of the original."""
    return run_all(spool, [words])[0]


def run_all(spool: pathlib.Path, commands: Sequence[Sequence[str]]) -> list[Finished]:
    """Run commands of the original one after the other, over one spool."""
    inside = [sys.executable, "-ISc", _RUN_ALL, PROGRAM]
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", _INSIDE, str(spool), *inside],
        check=True,
        input=json.dumps([list(words) for words in commands]).encode(),
        stdout=subprocess.PIPE,
        timeout=_PATIENCE_SECONDS,
    )
    return [
        Finished(status, base64.b64decode(out), base64.b64decode(err))
        for status, out, err in json.loads(done.stdout)
    ]
