"""Compile modules for the interpreter that runs this, and write them as one member of the archive.

Reads lines `MODULE PATH` from standard input; each path is both the file below the current
directory and the name that its code carries. Writes the index: the interpreter's magic number and
a dictionary of module name to (path, where its code begins in the member, length), marshalled; then
the code of all modules, marshalled one by one.

Runs in every interpreter of interpreters.txt, with -S and PYTHONHASHSEED=0: what marshal writes
depends on the order of sets, and on which objects are shared.
"""

from __future__ import annotations
import __future__

import ast
import importlib.util
import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

ANNOTATIONS = "from __future__ import annotations"


def main() -> int:
    """Compile what standard input names."""
    codes = {}
    for line in sys.stdin.read().splitlines():
        name, path = line.split(" ")
        with open(path, "rb") as file:
            codes[name] = (path, marshal.dumps(compile_module(file.read(), path)))
    sys.stdout.buffer.write(lay_out(codes, len(lay_out(codes, 0))))
    for _, octets in codes.values():
        sys.stdout.buffer.write(octets)
    return 0


def compile_module(source: bytes, path: str) -> CodeType:
    """Compile a module as an import would, but without the statement that annotations are text.

    It becomes an option of the compiler: to run it would load a module that nothing else needs.
    """
    tree = ast.parse(source, path)
    body = [node for node in tree.body if ast.unparse(node) != ANNOTATIONS]
    flags = __future__.annotations.compiler_flag if body != tree.body else 0
    tree.body = body
    code: CodeType = compile(tree, path, "exec", flags, dont_inherit=True, optimize=0)
    return code


def lay_out(codes: dict[str, tuple[str, bytes]], begin: int) -> bytes:
    """Make the index of codes of which the first begins at a place.

    In format 2 of marshal all numbers have the same length, and nothing is written as shared.
    """
    places = {}
    for name, (path, octets) in codes.items():
        places[name] = (path, begin, len(octets))
        begin += len(octets)
    return marshal.dumps((importlib.util.MAGIC_NUMBER, places), 2)


if __name__ == "__main__":
    sys.exit(main())
