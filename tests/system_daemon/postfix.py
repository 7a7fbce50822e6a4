"""Postfix's smtp-source and smtp-sink, unpacked from Debian's package, never installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.running import ROOT

if TYPE_CHECKING:
    import pathlib

PLACE = ROOT / "build" / "peers" / "postfix"
_PATIENCE_SECONDS = 120


def unpack() -> pathlib.Path:
    """Give the directory of the unpacked package, which is fetched the first time."""
    if (PLACE / "usr/sbin/smtp-sink").exists():
        return PLACE
    work = PLACE.with_name(f"postfix.{os.getpid()}")
    work.mkdir(parents=True)
    try:
        for command in (["apt-get", "download", "postfix"], ["sh", "-c", "dpkg-deb -x *.deb all"]):
            subprocess.run(command, cwd=work, check=True, timeout=_PATIENCE_SECONDS)
        shutil.rmtree(PLACE, ignore_errors=True)
        (work / "all").rename(PLACE)
    finally:
        shutil.rmtree(work)
    return PLACE


def command(name: str, *arguments: str) -> list[str]:
    """Give the command line of one of its programs."""
    place = unpack()
    libraries = f"LD_LIBRARY_PATH={place}/usr/lib/postfix"
    return ["env", libraries, f"{place}/usr/sbin/{name}", *arguments]
