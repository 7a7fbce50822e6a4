"""First code of the sealed archive (its `_start`): find what goes on from here (`_inside`).

The header reads this text from its place in the archive and hands it to exec: to have it imported
would cost reading the archive's directory, and the first call of compile(), which is 1 ms. Any
Python reads it, so its syntax is that of 2.7 and 3.0; it is short, being read at every start.
"""

import sys


def run(file, bytecode):  # type: ignore[no-untyped-def]  # annotations are not in Python 2.7
    """Run the program from the archive that is open as `file`; return its exit status.

    `bytecode` tells where that for each interpreter begins, and how long its index is.
    """
    space = {"__name__": "_inside"}
    if sys.version_info < (3, 9):  # noqa: UP036 - the archive meets older ones
        import zipimport

        file.close()
        code = zipimport.zipimporter(file.name).get_data("_outdated.py")
        exec(code, space)  # noqa: S102 - from the same file
        return space["run"](file.name)  # type: ignore[operator]
    start, length = bytecode.get(sys.implementation.cache_tag, (0, 0))
    if length:
        import marshal
        from _frozen_importlib_external import MAGIC_NUMBER

        file.seek(start)
        magic, index = marshal.loads(file.read(length))  # noqa: S302 - from the same file
        if magic == MAGIC_NUMBER:
            _, begin, size = index["_inside"]
            file.seek(start + begin)
            exec(marshal.loads(file.read(size)), space)  # noqa: S102, S302 - from the same file
            return space["run"](file, start, index)  # type: ignore[operator]
    import zipimport

    code = zipimport.zipimporter(file.name).get_data("_inside.py")
    exec(code, space)  # noqa: S102 - from the same file
    return space["run"](file, 0, {})  # type: ignore[operator]
