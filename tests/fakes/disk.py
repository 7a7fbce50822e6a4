"""A file system in memory that forgets what was not flushed, stops anywhere and refuses anything.

What is kept of a file system by a loss of power is modelled as weakly as POSIX allows: the
content of each file and each single entry of each directory are kept or lost on their own, unless
they were flushed. A rename over a file is one change of an entry. A rename between directories is
one change too (as with every journal), or with `torn_renames` two that know nothing of each
other. tests/queue/test_disk.py compares its calls with those of the real one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Optional, Union

from smtpd_core.queue.disk import Status

FIRST_HANDLE = 1000  # nobody mistakes one for a descriptor
REFUSALS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EACCES)

Choose = Callable[[int], int]  # which of so many possibilities: 0 is that nothing was kept


class Stopped(BaseException):
    """The process died here: no handler of ours may do anything afterwards."""


class File:
    def __init__(self) -> None:
        self.octets = b""
        self.flushed = b""
        self.mode = 0
        self.owner = (os.getuid(), os.getgid())
        self.mtime = 0


class Rename:
    """What the two halves of a rename between directories share."""

    def __init__(self) -> None:
        self.flushed = False
        self.kept: Optional[bool] = None


class Change:
    def __init__(self, name: str, node: Optional[Node], rename: Optional[Rename] = None) -> None:
        self.name = name
        self.node = node
        self.rename = rename


class Directory:
    def __init__(self) -> None:
        self.entries: dict[str, Node] = {}
        self.flushed: dict[str, Node] = {}
        self.changes: list[Change] = []
        self.mode = 0o700
        self.owner = (os.getuid(), os.getgid())
        self.mtime = 0

    def change(self, name: str, node: Optional[Node], rename: Optional[Rename] = None) -> None:
        if node is None:
            del self.entries[name]
        else:
            self.entries[name] = node
        self.changes.append(Change(name, node, rename))


Node = Union[File, Directory]


class ModelDisk:
    """A Disk; `stop_at` and `refuse_at` count its calls from 1, in `step`."""

    def __init__(self, torn_renames: bool = False) -> None:
        self.root = Directory()
        self.now = 0
        self.step = 0
        self.stop_at = 0
        self.refuse_at = 0
        self.refusal = 0
        self.refuse_from = 0  # all calls from here on, but for those that make room
        self.log: list[str] = []
        self._torn = torn_renames
        self._handles: dict[int, File] = {}
        self._next_handle = FIRST_HANDLE

    # --- what tests do with it

    @property
    def open_handles(self) -> int:
        return len(self._handles)

    def lose_power(self, choose: Choose) -> None:
        """Keep what was flushed, and of the rest what is chosen; then run again."""
        for directory in self._directories():
            for change in directory.changes:
                if change.rename is not None and change.rename.kept is None:
                    change.rename.kept = change.rename.flushed or choose(2) == 1
            entries = dict(directory.flushed)
            for change in directory.changes:
                kept = change.rename.kept if change.rename is not None else choose(2) == 1
                if not kept:
                    continue
                if change.node is None:
                    entries.pop(change.name, None)
                else:
                    entries[change.name] = change.node
            directory.entries = entries
            directory.flushed = dict(entries)
            directory.changes = []
        files = {id(node): node for _, node in self.walk() if isinstance(node, File)}
        for file in files.values():
            if file.octets != file.flushed:
                whole = file.octets
                versions = (file.flushed, whole[: len(whole) // 2], bytes(len(whole)), whole)
                file.octets = versions[choose(len(versions))]
            file.flushed = file.octets
        self.restart()

    def restart(self) -> None:
        """Be there for a new process; nothing is lost."""
        self.stop_at = self.refuse_at = self.refuse_from = 0
        self._handles.clear()

    def _directories(self) -> list[Directory]:
        """Give every directory that an entry leads to or led to, the outermost first."""
        found = {id(self.root): self.root}
        pending = [self.root]
        while pending:
            directory = pending.pop(0)
            changed = [change.node for change in directory.changes]
            for node in (*directory.entries.values(), *directory.flushed.values(), *changed):
                if isinstance(node, Directory) and id(node) not in found:
                    found[id(node)] = node
                    pending.append(node)
        return list(found.values())

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Give every name and what it is, the directories before what is in them."""
        pending: list[tuple[str, Node]] = sorted(self.root.entries.items(), reverse=True)
        while pending:
            path, node = pending.pop()
            yield path, node
            if isinstance(node, Directory):
                below = sorted(node.entries.items(), reverse=True)
                pending += [(f"{path}/{name}", each) for name, each in below]

    def tree(self) -> dict[str, Optional[bytes]]:
        """Give all paths with their content, None for directories."""
        return {path: node.octets if isinstance(node, File) else None for path, node in self.walk()}

    # --- the calls

    def _count(self, call: str, path: str, makes_room: bool = False) -> bool:
        """Count a call; tell whether it is the one that stops half-way."""
        if self.stop_at and self.step >= self.stop_at:
            raise Stopped
        self.step += 1
        self.log.append(f"{call} {path}")
        refused = self.refuse_from and self.step >= self.refuse_from and not makes_room
        if self.step == self.refuse_at or refused:
            raise OSError(self.refusal, os.strerror(self.refusal), path)
        return self.step == self.stop_at

    def _stop(self, stops: bool) -> None:
        if stops:
            raise Stopped

    def _find(self, path: str) -> Node:
        node: Node = self.root
        for name in path.split("/"):
            if name == ".":
                continue
            if not isinstance(node, Directory):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
            if name not in node.entries:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            node = node.entries[name]
        return node

    def _directory(self, path: str) -> Directory:
        node = self._find(path)
        if not isinstance(node, Directory):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
        return node

    def _parent(self, path: str) -> tuple[Directory, str]:
        directory, _, name = path.rpartition("/")
        return self._directory(directory or "."), name

    def _touch(self, node: Node) -> None:
        node.mtime = self.now

    def mkdir(self, path: str, mode: int) -> None:
        stops = self._count("mkdir", path)
        parent, name = self._parent(path)
        if name in parent.entries:
            raise FileExistsError(errno.EEXIST, "exists", path)
        directory = Directory()
        directory.mode = mode
        self._touch(directory)
        self._touch(parent)
        parent.change(name, directory)
        self._stop(stops)

    def create(self, path: str, mode: int) -> int:
        stops = self._count("create", path)
        parent, name = self._parent(path)
        if name in parent.entries:
            raise FileExistsError(errno.EEXIST, "exists", path)
        file = File()
        file.mode = mode
        self._touch(file)
        self._touch(parent)
        parent.change(name, file)
        self._stop(stops)
        return self._open(file)

    def _open(self, file: File) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = file
        return self._next_handle

    def open(self, path: str) -> int:
        self._stop(self._count("open", path))
        node = self._find(path)
        if isinstance(node, Directory):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return self._open(node)

    def write(self, handle: int, octets: bytes) -> None:
        file = self._handles[handle]
        half = len(octets) // 2
        try:
            stops = self._count("write", str(len(octets)))
        except OSError:  # a disk is full only after something was written
            file.octets += octets[:half]
            raise
        file.octets += octets[:half] if stops else octets
        self._touch(file)
        self._stop(stops)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        self._stop(self._count("read", str(size)))
        return self._handles[handle].octets[offset : offset + size]

    def size(self, handle: int) -> int:
        self._stop(self._count("size", ""))
        return len(self._handles[handle].octets)

    def rewind(self, handle: int) -> None:
        self._stop(self._count("rewind", ""))
        assert handle in self._handles

    def flush(self, handle: int) -> None:
        stops = self._count("flush", "")
        file = self._handles[handle]
        file.flushed = file.octets
        self._stop(stops)

    def close(self, handle: int) -> None:
        del self._handles[handle]

    def load(self, path: str, limit: int) -> bytes:
        self._stop(self._count("load", path))
        node = self._find(path)
        if isinstance(node, Directory):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        return node.octets[:limit]

    def rename(self, old: str, new: str) -> None:
        stops = self._count("rename", f"{old} {new}")
        source, old_name = self._parent(old)
        target, new_name = self._parent(new)
        if old_name not in source.entries:
            raise FileNotFoundError(errno.ENOENT, "no such file", old)
        node = source.entries[old_name]
        if isinstance(node, Directory) and f"{new}/".startswith(f"{old}/") and new != old:
            raise OSError(errno.EINVAL, "into itself", new)
        replaced = target.entries.get(new_name)
        if replaced is node:
            return
        if replaced is not None:
            _check_replaceable(node, replaced, new)
        rename = None if source is target or self._torn else Rename()
        source.change(old_name, None, rename)
        target.change(new_name, node, rename)
        self._touch(source)
        self._touch(target)
        self._stop(stops)

    def unlink(self, path: str) -> None:
        stops = self._count("unlink", path, makes_room=True)
        parent, name = self._parent(path)
        if isinstance(self._find(path), Directory):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        parent.change(name, None)
        self._touch(parent)
        self._stop(stops)

    def rmdir(self, path: str) -> None:
        stops = self._count("rmdir", path, makes_room=True)
        parent, name = self._parent(path)
        if self._directory(path).entries:
            raise OSError(errno.ENOTEMPTY, "not empty", path)
        parent.change(name, None)
        self._touch(parent)
        self._stop(stops)

    def flush_directory(self, path: str) -> None:
        stops = self._count("flush_directory", path)
        directory = self._directory(path)
        directory.flushed = dict(directory.entries)
        for change in directory.changes:
            if change.rename is not None:
                change.rename.flushed = True
        directory.changes = []
        self._stop(stops)

    def names(self, path: str) -> list[str]:
        self._stop(self._count("names", path))
        return list(self._directory(path).entries)

    def status(self, path: str) -> Optional[Status]:
        self._stop(self._count("status", path))
        try:
            node = self._find(path)
        except FileNotFoundError:
            return None
        kind = 0o040000 if isinstance(node, Directory) else 0o100000
        size = len(node.octets) if isinstance(node, File) else 0
        values = (kind | node.mode, 1, 1, 1, *node.owner, size, 0, node.mtime, 0)
        return Status(os.stat_result(values))

    def chmod(self, path: str, mode: int) -> None:
        stops = self._count("chmod", path)
        self._find(path).mode = mode
        self._stop(stops)

    def chown(self, path: str, uid: int, gid: int) -> None:
        stops = self._count("chown", path)
        self._find(path).owner = (uid, gid)
        self._stop(stops)


def _check_replaceable(node: Node, replaced: Node, path: str) -> None:
    if isinstance(node, Directory):
        if not isinstance(replaced, Directory):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
        if replaced.entries:
            raise OSError(errno.ENOTEMPTY, "not empty", path)
    elif isinstance(replaced, Directory):
        raise IsADirectoryError(errno.EISDIR, "is a directory", path)
