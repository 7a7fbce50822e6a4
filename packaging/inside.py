"""Make imports safe, then run the program from inside the archive (its `_inside`).

From here on, modules come from the archive and from the interpreter's own library, whatever the
current directory, the environment or a .pth file say.

Modules of the archive are found and loaded here, not by zipimport. That opens the archive anew for
each module, and compiles each source twice, first to find its file name and then to run it. Here
the archive stays open, and bytecode for this interpreter, if embedded, is read from its place. So
an embedded module can be imported even when the archive was replaced, or is out of reach in a
chroot.
"""

from __future__ import annotations

import gc
import os
import sys
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import FileIO
    from types import CodeType, ModuleType
    from typing import Optional

    Index = Mapping[str, tuple[str, int, int]]  # module: path, where its code begins, length

PROGRAM = "smtpctl"
PACKAGES = (PROGRAM, "smtpd_core")
STANDARD_DESCRIPTORS = 3
# New objects between two searches for garbage in cycles. Python's default is made for programs
# with much of it, and takes 5 percent of a short run; this keeps no more than some MB waiting.
GARBAGE_THRESHOLD = 50_000


class Inside:
    """Finder and loader of the archive's modules; `archive` is where it is, as in zipimport."""

    def __init__(self, archive: str, descriptor: int, start: int, index: Index) -> None:
        """Take the open archive, and where in it the embedded bytecode begins."""
        self.archive = archive
        self._descriptor = descriptor
        self._start = start
        self._index = index
        self._sources: dict[str, bytes] = {}  # found, and not yet loaded

    def find_spec(self, name: str, *_: object) -> Optional[ModuleSpec]:
        """Find a module by its full name; None for modules that are not the archive's."""
        if name.partition(".")[0] not in PACKAGES:
            return None
        if name in self._index:
            path = f"{self.archive}/{self._index[name][0]}"
        else:
            found = self._find_source(name)
            if found is None:
                return None
            path = found
        package = path.endswith("/__init__.py")
        spec = ModuleSpec(name, self, origin=path, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [path.rpartition("/")[0]]
        return spec

    def _find_source(self, name: str) -> Optional[str]:
        stem = f"{self.archive}/site-packages/{name.replace('.', '/')}"
        for path in (f"{stem}.py", f"{stem}/__init__.py"):
            try:
                self._sources[path] = self.get_data(path)
            except OSError:
                continue
            return path
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the making of module objects to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the code of a module in it."""
        path = module.__file__
        assert path is not None  # find_spec gives every module one
        exec(self._load(module.__name__, path), module.__dict__)  # noqa: S102 - an import

    def _load(self, name: str, path: str) -> CodeType:
        if name not in self._index:
            source = self._sources.pop(path)
            compiled: CodeType = compile(source, path, "exec", dont_inherit=True)
            return compiled
        import marshal
        from _imp import _fix_co_filename  # type: ignore[attr-defined]  # as for .pyc files

        _, begin, size = self._index[name]
        octets = os.pread(self._descriptor, size, self._start + begin)
        code: CodeType = marshal.loads(octets)  # noqa: S302 - our own
        _fix_co_filename(code, path)
        return code

    def get_source(self, name: str) -> Optional[str]:
        """Give the source of a module, for tracebacks; None when only bytecode is there."""
        path = self._find_source(name)
        return None if path is None else self._sources.pop(path).decode("utf-8")

    def get_data(self, path: str) -> bytes:
        """Read a member of the archive; OSError when there is none of that name."""
        from zipimport import zipimporter

        return zipimporter(self.archive).get_data(path)


def run(file: FileIO, start: int, index: Index) -> int:
    """Run the program of the archive that is open as `file`; return its exit status.

    Where the process ends here, because nothing is left to be done, it does not return.
    """
    gc.set_threshold(GARBAGE_THRESHOLD)
    sys.dont_write_bytecode = True
    archive = os.path.abspath(os.fsdecode(file.name))
    sys.argv[0] = archive  # not resolved: a link named mailq is another program
    sys.path[:] = [path for path in sys.path if path in library_paths()]
    sys.meta_path.insert(0, Inside(archive, keep_open(file), start, index))
    from smtpctl import main

    status = main()
    if "threading" not in sys.modules and "atexit" not in sys.modules:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)  # taking the interpreter down costs 2 ms
    return status


def library_paths() -> tuple[str, ...]:
    """List where the interpreter's own library can be."""
    library = os.path.dirname(os.__file__)
    parent, name = os.path.split(library)
    return (
        f"{parent}/{name.replace('.', '')}.zip",
        library,
        f"{library}/lib-dynload",
        f"{sys.base_exec_prefix}/{sys.platlibdir}/{name}/lib-dynload",
    )


def keep_open(file: FileIO) -> int:
    """Give a descriptor of the archive that stays open, and is none of the standard ones.

    The archive got the number of a standard descriptor when that one was closed.
    """
    descriptor = os.dup(file.fileno())
    if descriptor < STANDARD_DESCRIPTORS:
        from fcntl import F_DUPFD_CLOEXEC, fcntl

        low = descriptor
        descriptor = fcntl(low, F_DUPFD_CLOEXEC, STANDARD_DESCRIPTORS)
        os.close(low)
    file.close()
    return descriptor
