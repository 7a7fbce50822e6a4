"""Golden files: what each release's own smtpctl printed about the spools in tests/spools.

Their form is described in tests/spools/README.md.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import pathlib
import tarfile
from typing import Any, NamedTuple, Optional

SPOOLS = pathlib.Path(__file__).parent / "spools"
VERSIONS = ("5.7.3", "6.8", "7.8")


class Printed(NamedTuple):
    """What a command wrote to standard output, or as much as is known of it."""

    octets: Optional[bytes]
    length: int
    sha256: str
    head: bytes

    def matches(self, octets: bytes) -> bool:
        """Tell whether these are the octets it wrote."""
        if self.octets is not None:
            return octets == self.octets
        return len(octets) == self.length and hashlib.sha256(octets).hexdigest() == self.sha256


class Command(NamedTuple):
    """One run of a control program."""

    words: tuple[str, ...]
    status: Optional[int]
    printed: Printed
    said: str


class Stored(NamedTuple):
    """One spool in an archive; its members are stored below `smtpd/`."""

    tar: pathlib.Path

    @property
    def files(self) -> dict[str, bytes]:
        """Give the regular files by their path."""
        return _files(self.tar)

    @property
    def envelopes(self) -> dict[str, bytes]:
        """Give the stored octets of well-placed envelopes in queue/, by envelope id."""
        found = {}
        for path, octets in self.files.items():
            parts = path.split("/")
            if parts[:2] == ["smtpd", "queue"] and len(parts) == 5 and len(parts[4]) == 16:
                found[parts[4]] = octets
        return found

    def extract(self, directory: pathlib.Path) -> pathlib.Path:
        """Unpack it, with the modes of its files; give the path of the spool."""
        if not (directory / "smtpd").exists():
            with tarfile.open(self.tar) as tar:
                if hasattr(tarfile, "fully_trusted_filter"):
                    tar.extraction_filter = tarfile.fully_trusted_filter
                for member in tar:
                    if member.isdir():
                        member.mode |= 0o700  # the tests must be able to clean up
                    tar.extract(member, directory, set_attrs=not member.issym())
        return directory / "smtpd"


@functools.lru_cache(maxsize=8)
def _files(path: pathlib.Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            stream = tar.extractfile(member) if member.isreg() else None
            if stream is not None:
                files[member.name] = stream.read()
    return files


class Golden(NamedTuple):
    """One golden file."""

    version: str
    name: str
    content: dict[str, Any]

    @property
    def stored(self) -> Stored:
        """Give the spool it is about."""
        return Stored(SPOOLS / self.version / f"{self.name}.tar.gz")

    @property
    def key(self) -> Optional[str]:
        """Give the key of the queue."""
        key: Optional[str] = self.content.get("queue_key")
        return key

    def commands(self, section: str) -> list[Command]:
        """Give the commands of a section in their order."""
        return read_commands(self.content.get(section, []), self.stored)


def read_commands(said: list[dict[str, Any]], stored: Stored) -> list[Command]:
    """Read a list of commands about a spool."""
    commands: list[Command] = []
    for entry in said:
        words = tuple(entry["argv"][1:])
        printed = _printed(entry, stored, commands)
        commands.append(Command(words, entry.get("rc"), printed, entry.get("stderr", "")))
    return commands


def _printed(entry: dict[str, Any], stored: Stored, before: list[Command]) -> Printed:
    octets: Optional[bytes] = None
    if "stdout_same_as" in entry:
        octets = stored.files.get(entry["stdout_same_as"])
        if octets is None:  # it followed a link out of the spool
            return Printed(None, -1, "", b"")
    elif "stdout_same_as_run_of" in entry:
        words = tuple(entry["stdout_same_as_run_of"].split())
        return next(command.printed for command in before if command.words == words)
    elif "stdout_b64" in entry:
        octets = base64.b64decode(entry["stdout_b64"])
    elif "stdout_len" in entry:
        head = entry["stdout_head"].encode()
        return Printed(None, entry["stdout_len"], entry["stdout_sha256"], head)
    elif "terminal" in entry:
        octets = entry["terminal"].encode()
    elif "terminal_len" in entry:
        head = entry["terminal_head"].encode()
        return Printed(None, entry["terminal_len"], entry["terminal_sha256"], head)
    else:
        octets = entry.get("stdout", "").encode()
    return Printed(octets, len(octets), "", octets)


def load(version: str, name: str) -> Golden:
    """Read one golden file."""
    plain = SPOOLS / version / f"{name}.golden.json"
    if plain.exists():
        return Golden(version, name, json.loads(plain.read_bytes()))
    packed = SPOOLS / version / f"{name}.golden.json.gz"
    return Golden(version, name, json.loads(gzip.decompress(packed.read_bytes())))


def names(version: str) -> list[str]:
    """List the golden files of a version."""
    return sorted(
        {path.name.split(".golden.")[0] for path in (SPOOLS / version).glob("*.golden.*")}
    )


class Case(NamedTuple):
    """One damaged spool."""

    golden: Golden
    name: str
    content: dict[str, Any]

    @property
    def damage(self) -> str:
        """Name the damage: the case without its number, which differs between collections."""
        return self.name if self.name.startswith("m-") else self.name.partition("-")[2]

    @property
    def stored(self) -> Stored:
        """Give the damaged spool."""
        return Stored(SPOOLS / self.golden.version / self.golden.name / f"{self.name}.tar.gz")

    @property
    def commands(self) -> list[Command]:
        """Give what smtpctl said about it while no daemon ran."""
        return read_commands(self.content["offline"], self.stored)


def cases(version: str, name: str) -> list[Case]:
    """List the cases of a collection of damaged spools."""
    golden = load(version, name)
    return [Case(golden, case["case"], case) for case in golden.content["cases"]]
