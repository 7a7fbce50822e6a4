"""Seal what shiv packed: one archive that runs from inside itself, the same octets everywhere.

From shiv's archive come the modules and its record of how it packed them (environment.json). Its
start code is left out: it unpacks into a home directory and obeys the environment, and nothing
here would call it. In its place come our own start, the bytecode of each interpreter that
interpreters.txt names and this machine has, and the manifest.
"""

from __future__ import annotations

import argparse
import json
import marshal
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Optional

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from smtpd_core import version  # noqa: E402 - found through the line above
from smtpd_core.cli import selftest  # noqa: E402

STAGED = "site-packages/"  # where shiv puts what it was given
SHIV_START = "_bootstrap/"
# What the header tells the interpreter, and what `python3 smtpctl.pyz` finds as __main__: read
# _start.py from its place, and tell it where the bytecode lies. Numbers have a fixed width, since
# the places depend on how long the header is.
START = 'f=open(sys.argv[0],"rb",0);f.seek({:8});exec(f.read({:8}));sys.exit(run(f,{{{}}}))'
START_BYTECODE = '"{}":({:8},{:8})'
OURS = ("start", "inside", "outdated")  # start.py is _start.py in the archive
COMPILE_SECONDS = 300  # an interpreter that takes longer is stuck


class SealError(Exception):
    """The archive cannot be made; the text says why."""


def main(arguments: list[str]) -> int:
    """Seal an archive; see --help."""
    parser = argparse.ArgumentParser(description="Seal an archive that shiv packed.")
    parser.add_argument("raw", type=Path, help="the archive from shiv")
    parser.add_argument("stage", type=Path, help="the directory that shiv packed")
    parser.add_argument("target", type=Path, help="the archive to write; also TARGET.sha256")
    parser.add_argument("--commit", default="unknown", help="what the stage was taken from")
    parser.add_argument("--no-bytecode", action="store_true", help="sources only")
    options = parser.parse_args(arguments)
    try:
        members = read_raw(options.raw, options.stage)
        interpreters = {} if options.no_bytecode else find_interpreters(wanted_versions())
        bytecode = compile_all(members, interpreters)
        archive = seal(members, bytecode, options.commit)
    except SealError as error:
        print(f"seal.py: {error}", file=sys.stderr)
        return 1
    write(options.target, archive)
    report(options.target, archive, members, interpreters)
    return 0


def read_raw(raw: Path, stage: Path) -> dict[str, bytes]:
    """Take the members worth keeping from shiv's archive, and add those that start ours.

    Raises SealError when shiv did not pack exactly what was staged.
    """
    with zipfile.ZipFile(raw) as packed:
        members = {
            name: packed.read(name)
            for name in packed.namelist()
            if not name.endswith("/") and not name.startswith(SHIV_START)
        }
    staged = {
        STAGED + path.relative_to(stage).as_posix(): path.read_bytes()
        for path in stage.rglob("*")
        if path.is_file()
    }
    if staged != {name: octets for name, octets in members.items() if name.startswith(STAGED)}:
        raise SealError("shiv's archive does not hold what was staged")
    for name in OURS:
        members[f"_{name}.py"] = (HERE / f"{name}.py").read_bytes()
    members["__main__.py"] = b""  # seal() knows what goes there
    for name in members:
        if not name.isascii() or " " in name or "\n" in name:
            raise SealError(f"{name!r}: names are ASCII without blanks")
    return members


def wanted_versions() -> list[str]:
    """Read the list of interpreters."""
    lines = (HERE / "interpreters.txt").read_text(encoding="ascii").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def find_interpreters(wanted: list[str]) -> dict[str, Path]:
    """Find an interpreter for each version; a version that is not on this machine is left out."""
    found: dict[str, Path] = {}
    for minor in wanted:
        for candidate in candidates(minor):
            if about(candidate)[:1] == [minor]:
                found[minor] = candidate
                break
    return found


def candidates(minor: str) -> list[Path]:
    """List where the interpreter of a version may be, the system's own first."""
    directories = [Path("/usr/bin"), Path("/usr/local/bin")]
    directories += [Path(name) for name in os.environ.get("PATH", "").split(":") if name]
    paths = [directory / f"python{minor}" for directory in directories]
    home = os.environ.get("PYENV_ROOT") or os.path.join(os.environ.get("HOME", "/"), ".pyenv")
    installed = Path(home).glob(f"versions/{minor}.*/bin/python{minor}")
    paths += sorted(installed, key=lambda path: [len(path.parts[-3]), path.parts[-3]], reverse=True)
    return [path for path in paths if os.access(path, os.X_OK)]


def about(interpreter: Path) -> list[str]:
    """Ask an interpreter for `X.Y`, `X.Y.Z` and its cache tag; empty when it is not a CPython.

    A name that only stands for an interpreter, and has none behind it, gives nothing either.
    """
    question = (
        "import platform, sys; v = platform.python_version();"
        "print('%d.%d' % sys.version_info[:2], v, sys.implementation.cache_tag)"
    )
    answer = run(interpreter, ["-c", question])
    words = answer.decode("ascii", "replace").split() if answer else []
    return words if len(words) == 3 and words[2].startswith("cpython-") else []


def run(
    interpreter: Path, arguments: list[str], given: bytes = b"", cwd: Optional[str] = None
) -> Optional[bytes]:
    """Run an interpreter away from every setting of its user; None when it fails."""
    environment = {"PYTHONHASHSEED": "0", "LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    try:
        done = subprocess.run(
            [interpreter, "-S", "-B", "-W", "error", *arguments],
            input=given,
            capture_output=True,
            cwd=cwd,
            env=environment,
            timeout=COMPILE_SECONDS,
            check=False,
        )
    except OSError:
        return None
    if done.returncode:
        if given:
            sys.stderr.buffer.write(done.stderr)
        return None
    return done.stdout


def _starts_often(name: str) -> bool:
    """Tell what every command may load from what only the daemon does, once in a long while."""
    package = name[len(STAGED) :].split("/")[1:2]
    return package in ([], ["queue"], ["cli"], ["tables"]) or package[0].endswith(".py")


def compile_all(
    members: dict[str, bytes], interpreters: dict[str, Path]
) -> dict[str, tuple[str, bytes]]:
    """Compile all modules with each interpreter: cache tag to (full version, member).

    Raises SealError when an interpreter does not accept a module.
    """
    modules = {"_inside _inside.py": members["_inside.py"]}
    for name in sorted(members):
        if name.startswith(STAGED) and name.endswith(".py") and _starts_often(name):
            module = name[len(STAGED) : -len(".py")].removesuffix("/__init__").replace("/", ".")
            modules[f"{module} {name}"] = members[name]
    bytecode = {}
    with tempfile.TemporaryDirectory() as directory:
        for line, octets in modules.items():
            path = Path(directory, line.split(" ")[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(octets)
        for interpreter in interpreters.values():
            _, full, tag = about(interpreter)
            member = run(
                interpreter, [str(HERE / "compile.py")], "\n".join(modules).encode(), directory
            )
            if member is None:
                raise SealError(f"{interpreter} does not compile the modules")
            bytecode[tag] = (full, member)
    return bytecode


def seal(members: dict[str, bytes], bytecode: dict[str, tuple[str, bytes]], commit: str) -> bytes:
    """Lay out the archive: header, members in the order of their names, manifest among them."""
    members = {**members, **{f"bytecode/{tag}": code for tag, (_, code) in bytecode.items()}}
    heading = [
        selftest.MANIFEST_HEADING,
        f"version {version.VERSION}",
        f"commit {commit}",
        f"shiv {json.loads(members['environment.json'])['shiv_version']}",
    ]
    heading += [f"bytecode {tag} of {full}" for tag, (full, _) in bytecode.items()]
    header = make_start(members, {})
    header = make_start(members, find_places(header, members))
    lines = [selftest.manifest_line("header", header)]
    lines += [selftest.manifest_line(name, members[name]) for name in sorted(members)]
    members[selftest.MANIFEST_MEMBER] = "\n".join([*heading, "", *lines, ""]).encode("ascii")
    archive = selftest.layout(
        header, [selftest.Member(name, members[name]) for name in sorted(members)]
    )
    damage = list(selftest.check_contents(archive))
    if damage:
        raise SealError("; ".join(damage))
    return archive


def make_start(members: dict[str, bytes], places: dict[str, int]) -> bytes:
    """Make the header and put `__main__.py` in; a place that is not known yet counts as 0."""
    bytecode = [
        START_BYTECODE.format(
            name.rpartition("/")[2], places.get(name, 0), index_octets(members[name])
        )
        for name in sorted(members)
        if name.startswith("bytecode/")
    ]
    start = START.format(places.get("_start.py", 0), len(members["_start.py"]), ",".join(bytecode))
    members["__main__.py"] = f"import sys;{start}\n".encode("ascii")
    template = (HERE / "header.sh").read_text(encoding="ascii")
    return template.replace("@START@", start).encode("ascii")


def index_octets(bytecode: bytes) -> int:
    """Tell how long the index of a bytecode member is: the first code follows it."""
    index: dict[str, tuple[str, int, int]] = marshal.loads(bytecode)[1]  # noqa: S302 - just made
    return min(begin for _, begin, _ in index.values())


def find_places(header: bytes, members: dict[str, bytes]) -> dict[str, int]:
    """Find where the contents of the first members lie, up to the last bytecode."""
    places = {}
    position = len(header)
    for name in sorted(members):
        position += selftest.LOCAL_OCTETS + len(name)
        places[name] = position
        position += len(members[name])
    return places


def write(target: Path, archive: bytes) -> None:
    """Put the archive and its digest in place; each appears whole or not at all."""
    digest = f"{selftest.digest(archive)}  {target.name}\n".encode("ascii")
    for path, octets, mode in (
        (target, archive, 0o755),
        (target.with_name(target.name + ".sha256"), digest, 0o644),
    ):
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
        os.chmod(temporary, mode)
        os.replace(temporary, path)


def report(
    target: Path, archive: bytes, members: dict[str, bytes], interpreters: dict[str, Path]
) -> None:
    """Say what was built."""
    with_bytecode = ", ".join(interpreters) if interpreters else "no interpreter"
    print(
        f"{target.name}: smtpctl {version.VERSION}, {len(archive)} octets,"
        f" {len(members)} sources, bytecode for {with_bytecode}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
