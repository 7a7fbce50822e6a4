"""The archive on a Debian 12 whose only Python is python3-minimal.

The system is made once with debootstrap, below build/, and kept for the next run. In it are also
the programs xz and bzip2, which take the place of the modules that python3-minimal lacks.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
ARCHIVE = ROOT / "smtpctl.pyz"
SPOOLS = ROOT / "tests/spools"
SYSTEM = ROOT / "build/debian-12-minimal"
READY = SYSTEM / "ready-for-tests"
MISSING = os.getuid() != 0 or shutil.which("debootstrap") is None
LISTED = sorted(path.relative_to(SPOOLS) for path in SPOOLS.glob("6.8/*.tar.gz"))
ENCRYPTED = sorted(path.relative_to(SPOOLS) for path in SPOOLS.glob("*/*encrypt-?.tar.gz"))
MAKING_SECONDS = 900  # fetching and configuring some 95 packages

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(MISSING and not os.environ.get("CI"), reason="needs root and debootstrap"),
]


class Done(NamedTuple):
    """How a command ended."""

    status: int
    output: bytes
    errors: bytes


class Place:
    """A directory of the minimal system, with the archive and the sample spools in it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory

    def run(self, *command: str, environment: dict[str, str] | None = None) -> Done:
        """Run a command there, inside the minimal system."""
        inside = "/" + str(self.directory.relative_to(SYSTEM))
        script = f'cd {inside} && exec "$@"'
        return self._run(
            ["chroot", str(SYSTEM), "/bin/sh", "-c", script, "sh", *command], environment
        )

    def run_outside(self, *command: str, environment: dict[str, str] | None = None) -> Done:
        """Run the same command there, but with the Python of this machine."""
        return self._run(list(command), environment, cwd=self.directory)

    @staticmethod
    def _run(command: list[str], environment: dict[str, str] | None, **options: Any) -> Done:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=120,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(environment or {})},
            **options,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def same(self, *arguments: str, environment: dict[str, str] | None = None) -> Done:
        """Run the archive in both worlds; what it says and does must be the same."""
        command = ("./smtpctl.pyz", *arguments)
        here = self.run(*command, environment=environment)
        assert here == self.run_outside(*command, environment=environment)
        return here


def make_system() -> None:
    """Make the minimal system, unless it is there."""
    if READY.exists():
        return
    if f" {SYSTEM}/" in pathlib.Path("/proc/mounts").read_text(encoding="utf-8"):
        pytest.fail(f"an interrupted debootstrap left something mounted below {SYSTEM}")
    shutil.rmtree(SYSTEM, ignore_errors=True)
    SYSTEM.parent.mkdir(exist_ok=True)
    made = subprocess.run(
        [
            "debootstrap",
            "--variant=minbase",
            "--include=python3-minimal,bzip2,xz-utils",
            "bookworm",
            str(SYSTEM),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=MAKING_SECONDS,
    )
    if made.returncode:
        last = "\n".join(made.stdout.splitlines()[-15:])
        pytest.fail(f"debootstrap could not make a minimal Debian 12:\n{last}")
    READY.touch()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    if MISSING:
        pytest.fail("under CI these tests need root and the package debootstrap")
    if not ARCHIVE.exists():
        pytest.fail("there is no archive to test: ./build.sh makes it")
    make_system()
    with tempfile.TemporaryDirectory(dir=SYSTEM / "srv") as name:
        directory = pathlib.Path(name)
        shutil.copy(ARCHIVE, directory)
        shutil.copytree(SPOOLS, directory, dirs_exist_ok=True)
        plain = gzip.decompress((SPOOLS / "demo.tar.gz").read_bytes())
        (directory / "demo.tar").write_bytes(plain)
        (directory / "demo.tar.xz").write_bytes(lzma.compress(plain))
        (directory / "demo.tar.bz2").write_bytes(bz2.compress(plain))
        (directory / "demo").mkdir()
        subprocess.run(["tar", "-xf", "demo.tar", "-C", "demo"], cwd=directory, check=True)
        yield Place(directory)


def test_the_system_is_minimal(place: Place) -> None:
    for module in ("json", "zipfile", "tarfile", "bz2", "lzma", "ctypes", "typing_extensions"):
        assert place.run("python3", "-c", f"import {module}").status == 1, module
    assert place.run("python3", "-c", "import zlib").status == 0


def test_the_sample_spool_in_every_form(place: Place) -> None:
    said = place.same("show", "queue", "--spool", "demo.tar.gz")
    assert (said.status, said.errors, len(said.output.splitlines())) == (0, b"", 28)
    for form in ("demo.tar", "demo.tar.xz", "demo.tar.bz2"):
        assert place.same("show", "queue", "--spool", form) == said
    inside = [child for child in (place.directory / "demo").iterdir() if child.is_dir()]
    assert [child.name for child in inside] == ["smtpd"]
    found = place.same("show", "queue", "--spool", "demo/smtpd")
    assert set(found.output.splitlines()) == set(said.output.splitlines())


@pytest.mark.parametrize("program", ["xz", "bzip2"])
def test_what_cannot_be_unpacked_is_named(place: Place, program: str) -> None:
    path = SYSTEM / "usr/bin" / program
    if not os.path.lexists(path):
        path = SYSTEM / "bin" / program
    away = path.with_name(f"{program}.away")
    path.rename(away)
    try:
        form = {"xz": "demo.tar.xz", "bzip2": "demo.tar.bz2"}[program]
        done = place.run("./smtpctl.pyz", "show", "queue", "--spool", form)
    finally:
        away.rename(path)
    assert (done.status, done.output) == (1, b"")
    assert f"install {program}\n" in done.errors.decode()


@pytest.mark.parametrize("form", ["classic", "table", "json", "json-pretty", "csv"])
def test_every_format(place: Place, form: str) -> None:
    # The age of an envelope in a table is that of this moment.
    options = ("--format", form, "--sort", "id")
    here, outside = (
        way("./smtpctl.pyz", "show", "queue", "--spool", "demo.tar.gz", *options)
        for way in (place.run, place.run_outside)
    )
    moment = re.compile(rb"\b\d+[dhms](\d+[hm])?\b *|\"now\": *\d+")
    assert moment.sub(b"", here.output) == moment.sub(b"", outside.output)
    assert here.output
    assert (here.status, here.errors) == (outside.status, outside.errors) == (0, b"")
    if form.startswith("json"):
        assert b"t3@widgets.example" in here.output


@pytest.mark.parametrize("spool", LISTED, ids=str)
def test_every_sample_is_listed_alike(place: Place, spool: pathlib.Path) -> None:
    place.same("show", "queue", "--all", "--spool", str(spool))


@pytest.mark.parametrize("spool", ENCRYPTED, ids=str)
def test_encrypted_samples(place: Place, spool: pathlib.Path) -> None:
    golden = SPOOLS / str(spool).replace(".tar.gz", ".golden.json")
    key = json.loads(golden.read_text())["queue_key"]
    (place.directory / "key").write_text(key + "\n")
    where = ("--spool", str(spool), "--key-file", "key")
    listed = place.same("show", "queue", *where)
    assert (listed.status, listed.errors) == (0, b"")
    evpid = listed.output.splitlines()[0].decode().partition("|")[0]
    assert b"rcpt: " in place.same("show", "envelope", evpid, *where).output
    assert b"Received: " in place.same("show", "message", evpid, *where).output
    said = place.same("show", "queue", where[0], where[1], environment={"SMTPCTL_QUEUE_KEY": key})
    assert said.output == listed.output


def test_envelopes_and_messages(place: Place) -> None:
    where = ("--spool", "demo.tar.gz")
    listed = place.same("show", "queue", *where)
    for line in listed.output.decode().splitlines():
        evpid = line.partition("|")[0]
        assert place.same("show", "envelope", evpid, *where).status == 0
        message = place.same("show", "message", evpid[:8], *where)
        assert message.output.startswith(b"Received: ")


@pytest.mark.parametrize(
    "words",
    [
        "--version",
        "help",
        "help show queue",
        "help --man",
        "--help",
        "completion bash",
        "completion zsh",
        "completion fish",
        "show stats",
        "sh que -x",
        "trace x",
    ],
)
def test_words_without_a_spool(place: Place, words: str) -> None:
    done = place.same(*words.split())
    assert done.output + done.errors
    assert b"internal error" not in done.errors


def test_hashes_are_those_of_the_system(place: Place) -> None:
    done = place.run("./smtpctl.pyz", "encrypt", "a secret")
    assert (done.status, done.errors) == (0, b"")
    hashed = done.output.decode().rstrip("\n")
    assert re.fullmatch(r"\$6\$[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{86}", hashed)
    again = place.run("perl", "-e", "print crypt($ARGV[0], $ARGV[1])", "a secret", hashed)
    assert again.output.decode() == hashed


def test_the_selftest(place: Place) -> None:
    done = place.run("./smtpctl.pyz", "selftest")
    assert b"contents: as built\n" in done.output
    (place.directory / "altered.pyz").write_bytes(ARCHIVE.read_bytes()[:-1] + b"\1")
    done = place.run("python3", "altered.pyz", "selftest")
    assert done.status == 1


def test_sources_alone(place: Place) -> None:
    """An interpreter whose bytecode is not embedded finds everything in the sources."""
    altered = place.directory / "sources.pyz"
    asked = place.run("python3", "-c", "import importlib.util as u; print(u.MAGIC_NUMBER.hex())")
    magic = bytes.fromhex(asked.output.decode())
    altered.write_bytes(ARCHIVE.read_bytes().replace(magic, b"\0\0\r\n"))
    altered.chmod(0o755)
    with_bytecode = place.run("./smtpctl.pyz", "show", "queue", "--spool", "demo.tar.gz")
    assert place.run("./sources.pyz", "show", "queue", "--spool", "demo.tar.gz") == with_bytecode


def test_without_devices(place: Place) -> None:
    expected = place.run("./smtpctl.pyz", "show", "queue", "--spool", "demo.tar.gz")
    assert expected.status == 0
    away = SYSTEM / "dev.away"
    (SYSTEM / "dev").rename(away)
    try:
        for form in ("demo.tar.gz", "demo.tar.xz"):
            assert place.run("./smtpctl.pyz", "show", "queue", "--spool", form) == expected
        assert place.run("./smtpctl.pyz", "--version").status == 0
    finally:
        away.rename(SYSTEM / "dev")


def test_building_without_venv_names_the_package(place: Place) -> None:
    shutil.copy(ROOT / "build.sh", place.directory)
    (place.directory / "packaging").mkdir(exist_ok=True)
    shutil.copy(ROOT / "packaging/requirements.txt", place.directory / "packaging")
    for words in ((), ("demo",), ("test",)):
        done = place.run("./build.sh", *words)
        assert (done.status, done.output) == (1, b"")
        assert done.errors.decode() == (
            "build.sh: /usr/bin/python3 cannot make virtual environments:"
            " install the package python3-venv\n"
        )
