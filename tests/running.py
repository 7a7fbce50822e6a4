"""Run smtpctl in this process, which takes a millisecond, or in one of its own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from smtpd_core.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
NOBODY = 65534  # a user who owns nothing
_PATIENCE_SECONDS = 30  # only a test that fails waits as long


class Finished(NamedTuple):
    """What a run left behind."""

    status: int
    out: bytes
    err: bytes

    @property
    def lines(self) -> list[bytes]:
        """Give the lines of standard output."""
        return self.out.splitlines()

    @property
    def warnings(self) -> list[str]:
        """Give the lines of standard error, without the name of the program."""
        said = self.err.decode("utf-8", "surrogateescape").splitlines()
        return [line.partition(": ")[2] for line in said]


def run(*arguments: object, name: str = "smtpctl", given: bytes = b"") -> Finished:
    """Run a command line here, over files in place of the three standard descriptors."""
    saved = [os.dup(descriptor) for descriptor in range(3)]
    known = os.listdir("/proc/self/fd")
    files = [os.memfd_create(stream) for stream in ("stdin", "stdout", "stderr")]
    os.write(files[0], given)
    os.lseek(files[0], 0, os.SEEK_SET)
    for descriptor, file in enumerate(files):
        os.dup2(file, descriptor)
    try:
        status = main.run(name, [str(argument) for argument in arguments])
    finally:
        for descriptor, copy in enumerate(saved):
            os.dup2(copy, descriptor)
            os.close(copy)
        # A command ends with its process, which closes what it holds; this one goes on.
        for left in set(os.listdir("/proc/self/fd")).difference(known, map(str, files)):
            _close(int(left))
    out, err = (os.pread(file, os.fstat(file).st_size, 0) for file in files[1:])
    for file in files:
        os.close(file)
    return Finished(status, out, err)


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:  # the directory that listed it
        pass


def start_here(arguments: list[str]) -> int:
    """Replace this process by a fresh one that runs a command line; for a forked child."""
    os.execv(sys.executable, [sys.executable, *_START, *arguments])


_CODE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from smtpctl import main; "
_START = ("-ISBc", _CODE + "sys.argv[0] = 'smtpctl'; sys.exit(main())")


def start(*arguments: object, **more: Any) -> Finished:
    """Run a command line in a fresh process, the way the archive starts it."""
    done = subprocess.run(
        [sys.executable, *_START, *map(str, arguments)],
        check=False,
        capture_output=True,
        timeout=_PATIENCE_SECONDS,
        **more,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def in_child(action: Callable[[], bytes], uid: int = -1) -> bytes:
    """Run a function in a forked process, as another user when one is named; give its answer.

    Raises RuntimeError with what went wrong there.
    """
    receiving, sending = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(receiving)
            if uid >= 0 and os.getuid() == 0:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            answer = action()
            status = 0
        except BaseException as error:  # noqa: BLE001 - told to the parent
            answer = repr(error).encode()
        finally:
            with os.fdopen(sending, "wb") as stream:
                stream.write(answer)
            os._exit(status)
    os.close(sending)
    with os.fdopen(receiving, "rb") as stream:
        answer = stream.read()
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(answer.decode())
    return answer
