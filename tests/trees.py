"""Trees of files: small spools to write to a directory or into an archive."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    import pathlib

# Path: the content of a file, None for a directory, (target,) for a symbolic link, 0 for a FIFO.
Tree = dict[str, Union[bytes, tuple[str], int, None]]
STAMP = 1700000000


def write_tree(tree: Tree, directory: pathlib.Path) -> None:
    """Make the files of a tree below a directory."""
    for name, content in tree.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
            os.utime(path, (STAMP, STAMP))
        elif content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, tuple):
            path.symlink_to(content[0])
        else:
            os.mkfifo(path)


def pack_tree(tree: Tree, prefix: str = "") -> bytes:
    """Make an archive of a tree, its members in the order of the tree."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in tree.items():
            member = tarfile.TarInfo(prefix + name)
            member.mtime = STAMP
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                continue
            member.type = tarfile.FIFOTYPE
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, tuple):
                member.type = tarfile.SYMTYPE
                member.linkname = content[0]
            tar.addfile(member)
    return stream.getvalue()


def envelope(rcpt: str = "bob@example.org", **more: object) -> bytes:
    """Make the text of an ordinary envelope of format 3."""
    values: dict[str, object] = {
        "version": 3,
        "dispatcher": "local",
        "type": "mda",
        "smtpname": "mx.example.org",
        "helo": "client.example.net",
        "hostname": "client.example.net",
        "errorline": "",
        "sockaddr": "192.0.2.7",
        "sender": "alice@example.net",
        "rcpt": rcpt,
        "dest": rcpt,
        "ctime": STAMP,
        "last-try": 0,
        "last-bounce": 0,
        "ttl": 0,
        "retry": 0,
        "flags": "",
        "dsn-notify": 0,
    }
    values.update({name.replace("_", "-"): value for name, value in more.items()})
    lines = [f"{name}: {value}\n" for name, value in values.items() if value != ""]
    return "".join(lines).encode("utf-8", "surrogateescape")
