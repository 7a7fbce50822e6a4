"""Run a function in a mount namespace of its own, where mounting touches nothing outside."""

from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.running import in_child

if TYPE_CHECKING:
    from collections.abc import Callable

# Inside: an empty file system in memory that notes every access; so is /run, which does not.
PLACE = pathlib.Path("/mnt")
CI = bool(os.environ.get("CI"))
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0 and not CI, reason="needs root, to mount")
_CLONE_NEWNS = 0x20000  # sched.h


def mount(*arguments: object) -> None:
    """Run mount(8)."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def inside(action: Callable[[], bytes]) -> bytes:
    """Run a function, as root, in a forked process with such a namespace; give its answer.

    Raises RuntimeError with what went wrong there.
    """

    def entered() -> bytes:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare")
        mount("--make-rprivate", "/")
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        mount("-t", "tmpfs", "-o", "strictatime,mode=755", "tmpfs", PLACE)
        return action()

    return in_child(entered)
