"""Giving things up, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from smtpd_core.daemon import privileges
from smtpd_core.daemon.privileges import PrivilegeError
from smtpd_core.errors import UsageError

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run(program: str) -> str:
    prefix = "from smtpd_core.daemon import privileges\nimport os\n"
    done = subprocess.run(
        [sys.executable, "-c", prefix + program], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_sealed_process_imports_nothing_more() -> None:
    said = run("privileges.preload()\nprivileges.seal()\nimport json\n")
    assert said.endswith("SealedImportError: import of json after the role was sealed")


def test_what_is_loaded_stays_usable() -> None:
    program = """
privileges.preload()
unseal = privileges.seal()
print("käse.example".encode("idna"), os.getpid() > 0)
unseal()
import wave
"""
    assert run(program).startswith("b'xn--kse-qla.example' True")


@AS_ROOT
def test_dropping() -> None:
    program = """
privileges.drop(privileges.Identity("nobody", 65534, 65533))
print(os.getresuid(), os.getresgid(), os.getgroups())
"""
    expected = "(65534, 65534, 65534) (65533, 65533, 65533) [65533]"
    assert run(program) == expected


@AS_ROOT
def test_a_role_is_never_root() -> None:
    assert "may not run as root" in run('privileges.drop(privileges.Identity("root", 0, 0))')


@AS_ROOT
def test_an_empty_root() -> None:
    program = """
privileges.enter_nowhere()
print(os.listdir("/"), os.path.exists("/etc"))
"""
    before = set(os.listdir("/tmp"))
    assert run(program) == "[] False"
    left = set(os.listdir("/tmp")) - before
    assert not [name for name in left if name.startswith("smtpd-")]


def test_without_root_nothing_can_be_dropped() -> None:
    program = """
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
privileges.drop(privileges.Identity("other", 12345, 12345))
"""
    assert "cannot become other" in run(program)


@pytest.mark.parametrize("spec", [":", "a:", ":b"])
def test_users_that_are_no_pair(spec: str) -> None:
    with pytest.raises(UsageError):
        privileges.find_identities(spec)


@pytest.mark.parametrize("spec", ["no-such-user", "daemon:no-such-user", "root", "daemon:root"])
def test_users_that_cannot_be(spec: str) -> None:
    with pytest.raises(PrivilegeError):
        privileges.find_identities(spec)


def test_users_that_are_named() -> None:
    daemon, queue = privileges.find_identities("daemon:nobody")
    assert (daemon.name, queue.name) == ("daemon", "nobody")
    assert privileges.find_identities("daemon")[1].name == "daemon"


def test_who_we_are() -> None:
    identity = privileges.current_identity()
    assert (identity.uid, identity.gid) == (os.geteuid(), os.getegid())
