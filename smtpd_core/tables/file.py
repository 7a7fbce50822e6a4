"""A table that stands in a file, read as a whole.

Source: table(5).
"""

from __future__ import annotations

import os
import stat

from smtpd_core.config.tablefile import TableFileError, parse_table_file
from smtpd_core.tables.static import StaticTable, TableError

MAX_FILE = 256 << 20  # octets: more than any list in the field, less than memory
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read_file(path: str) -> bytes:
    """Give the octets of a table's file. Raises TableError, and OSError."""
    descriptor = os.open(path, _FLAGS)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise TableError("not a regular file")
        octets = file.read(MAX_FILE + 1)
    if len(octets) > MAX_FILE:
        raise TableError(f"more than {MAX_FILE} octets")
    return octets


def file_table(octets: bytes, delimiter: str = "+") -> StaticTable:
    """Make a table of the octets of its file; raises TableError, with the line."""
    try:
        found = parse_table_file(octets)
    except TableFileError as error:
        raise TableError(f"line {error}") from error
    return StaticTable(found.kind, found.entries, delimiter)
