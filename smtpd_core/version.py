"""Which program this is: its version, and what it was built from."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

VERSION = "0.1.0"
MANIFEST_NAME = "MANIFEST"  # beside this module, in a sealed archive only


def manifest() -> Optional[str]:
    """Read the manifest of the archive that this module runs from; None outside an archive."""
    loader = globals().get("__loader__")
    if getattr(loader, "archive", None) is None:
        return None
    try:
        octets: bytes = loader.get_data(  # type: ignore[union-attr]  # None has no archive
            os.path.join(os.path.dirname(__file__), MANIFEST_NAME)
        )
    except OSError:  # packed, but never sealed
        return None
    return octets.decode("ascii", "replace")


def commit() -> Optional[str]:
    """Give the commit the archive was built from, `-dirty` behind it when that is not all.

    None when it is not known: run from sources, or built outside a repository.
    """
    for line in (manifest() or "").splitlines():
        if line.startswith("commit "):
            name = line.partition(" ")[2]
            return None if name == "unknown" else name
    return None
