"""A place, a user and a machine for deliveries that really happen."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterator, Tuple

import pytest

from smtpd_core.mda.execute import collect, start
from smtpd_core.mda.host import Host
from smtpd_core.mda.job import Job, JobResult, Method

NOBODY = 65534


@pytest.fixture
def owner() -> Tuple[int, int]:
    """Give deliveries a user and a group: others' where we are root, else our own."""
    return (NOBODY, NOBODY) if os.geteuid() == 0 else (os.getuid(), os.getgid())


@pytest.fixture
def top() -> Iterator[Path]:
    """Give a place that everybody may enter."""
    path = Path(tempfile.mkdtemp(prefix="mda-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def home(top: Path, owner: Tuple[int, int]) -> Path:
    """Give a home directory that the user owns."""
    path = top / "home"
    path.mkdir(mode=0o755)
    os.chown(path, *owner)
    return path


@pytest.fixture
def mail(top: Path) -> Path:
    """Give a mail directory that only we may change."""
    path = top / "mail"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def host(mail: Path) -> Host:
    """Give the machine."""

    def clock() -> int:
        return int(time.time())  # noqa: TID251  locks have real ages

    return Host("mx.example.org", clock, os.urandom, time.sleep, str(mail))


@pytest.fixture
def make_job(home: Path, owner: Tuple[int, int]) -> Callable[..., Job]:
    """Make jobs of that user."""

    def make(method: Method, **changes: object) -> Job:
        values: dict[str, object] = {
            "method": method,
            "user": "bob",
            "uid": owner[0],
            "gid": owner[1],
            "home": str(home),
            "sender": "alice@example.com",
            "rcpt": "bob@example.org",
            "dest": "bob@example.org",
            "timeout_seconds": 15,
            "environment": (("PATH", "/usr/bin:/bin"),),
        }
        values.update(changes)
        return Job(**values)  # type: ignore[arg-type]  # a test that passes rubbish fails

    return make


@pytest.fixture
def run(host: Host) -> Callable[..., JobResult]:
    """Run a job in its process, to its end."""

    def run_one(job: Job, text: bytes = b"Subject: x\n\nHello\n") -> JobResult:
        with tempfile.TemporaryFile() as file:
            file.write(text)
            file.flush()
            running = start(job, file.fileno(), host)
            _, status = os.waitpid(running.pid, 0)
            return collect(running, status)

    return run_one
