"""Building: the same octets from every builder, what is inside, and build.sh's own words."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import zipfile
import zlib

import pytest

from smtpd_core import version

ROOT = pathlib.Path(__file__).parents[2]
ARCHIVE = ROOT / "smtpctl.pyz"
BUILT_FROM = ("build.sh", "smtpctl.py", "smtpd_core", "man", "packaging", ".gitignore")


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    if not ARCHIVE.exists():
        pytest.fail("there is no archive to test: ./build.sh makes it")
    with zipfile.ZipFile(ARCHIVE) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def copy_tree(target: pathlib.Path) -> pathlib.Path:
    """Copy what is built from, with the tools that are there, so that nothing is installed."""
    target.mkdir(parents=True)
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            shutil.copy2(ROOT / name, target / name)
    (target / "build").mkdir()
    if (ROOT / "build/venv").exists():
        (target / "build/venv").symlink_to(ROOT / "build/venv")
    return target


def build(tree: pathlib.Path, umask: int, *words: str, **environment: str) -> bytes:
    """Build in a tree; return the archive."""
    subprocess.run(
        ["./build.sh", *words],
        cwd=tree,
        umask=umask,
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **environment},
    )
    return (tree / "smtpctl.pyz").read_bytes()


@pytest.mark.system
@pytest.mark.parametrize("words", [(), ("--no-bytecode",)], ids=["bytecode", "sources"])
def test_two_builds_are_identical(tmp_path: pathlib.Path, words: tuple[str, ...]) -> None:
    one = copy_tree(tmp_path / "one")
    two = copy_tree(tmp_path / "a longer name" / "two")
    for path in two.rglob("*.py"):
        path.chmod(0o600)
        os.utime(path, (0, 0))
    (tmp_path / "tmp").mkdir()
    first = build(one, 0o022, *words)
    second = build(
        two,
        0o077,
        *words,
        TMPDIR=str(tmp_path / "tmp"),
        SOURCE_DATE_EPOCH="1700000000",
        PYTHONHASHSEED="17",
        HOME=os.environ.get("HOME", "/") + "/.",
        TZ="Asia/Kathmandu",
        LC_ALL="C",
    )
    assert first == second
    assert (two / "smtpctl.pyz").stat().st_mode & 0o7777 == 0o755
    assert list((tmp_path / "tmp").iterdir()) == []
    assert sorted(path.name for path in (two / "build").iterdir()) in ([], ["venv"])


@pytest.mark.system
def test_other_interpreters_change_only_the_bytecode(tmp_path: pathlib.Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    build(tree, 0o022)
    found: list[set[tuple[str, bytes]]] = []
    for words in ((), ("--no-bytecode",)):
        build(tree, 0o022, *words)
        with zipfile.ZipFile(tree / "smtpctl.pyz") as archive:
            names = [name for name in archive.namelist() if not name.startswith("bytecode/")]
            found.append({(name, archive.read(name)) for name in names})
    # Both say where the bytecode lies.
    changed = {"__main__.py", "site-packages/smtpd_core/MANIFEST"}
    assert {name for name, _ in found[0] ^ found[1]} == changed


@pytest.mark.system
def test_the_digest_is_what_sha256sum_accepts(contents: dict[str, bytes]) -> None:
    assert contents
    checked = subprocess.run(
        ["sha256sum", "-c", "smtpctl.pyz.sha256"], cwd=ROOT, capture_output=True, check=False
    )
    assert checked.stdout == b"smtpctl.pyz: OK\n"


def test_sources_and_pages_are_all_there_and_nothing_else(contents: dict[str, bytes]) -> None:
    staged = [ROOT / "smtpctl.py", *(ROOT / "smtpd_core").rglob("*.py")]
    staged += (ROOT / "man").glob("*.[1-9]")
    expected = {f"site-packages/{path.relative_to(ROOT)}": path.read_bytes() for path in staged}
    for name in ("start", "inside", "outdated"):
        expected[f"_{name}.py"] = (ROOT / f"packaging/{name}.py").read_bytes()
    made = {"__main__.py", "environment.json", "site-packages/smtpd_core/MANIFEST"}
    found = {name for name in contents if not name.startswith("bytecode/")}
    assert found == set(expected) | made
    for name, octets in expected.items():
        assert contents[name] == octets, f"{name}: ./build.sh was not run since it changed"


def test_the_manifest_lists_every_member(contents: dict[str, bytes]) -> None:
    contents = dict(contents)
    manifest = contents.pop("site-packages/smtpd_core/MANIFEST").decode("ascii")
    heading, _, members = manifest.partition("\n\n")
    assert f"\nversion {version.VERSION}\n" in heading
    assert re.search(r"^commit ([0-9a-f]{12}(-dirty)?|unknown)$", heading, re.MULTILINE)
    listed = {line.split(" ")[3]: line.split(" ")[:3] for line in members.splitlines()}
    header = ARCHIVE.read_bytes().partition(b"PK\3\4")[0]
    assert header.startswith(b"#!/bin/sh\n")
    assert listed == {
        name: [hashlib.sha256(octets).hexdigest(), f"{zlib.crc32(octets):08x}", str(len(octets))]
        for name, octets in {**contents, "header": header}.items()
    }


def test_the_system_interpreter_has_its_bytecode(contents: dict[str, bytes]) -> None:
    asked = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.implementation.cache_tag)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"bytecode/{asked.stdout.strip()}" in contents


@pytest.mark.system
def test_the_commit_is_recorded(tmp_path: pathlib.Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    no_settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}

    def git(*words: str) -> str:
        who = ("-c", "user.name=A Builder", "-c", "user.email=builder@example.org")
        done = subprocess.run(
            ["git", *who, *words],
            cwd=tree,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **no_settings},
        )
        return done.stdout.strip()

    def commit() -> str:
        build(tree, 0o022, "--no-bytecode", **no_settings)
        shown = subprocess.run(
            ["./smtpctl.pyz", "--version"], cwd=tree, capture_output=True, text=True, check=True
        )
        return shown.stdout

    assert commit() == f"smtpctl {version.VERSION}\n"
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message=all")
    head = git("rev-parse", "--short=12", "HEAD")
    assert commit() == f"smtpctl {version.VERSION} ({head})\n"
    (tree / "new").write_text("")
    assert commit() == f"smtpctl {version.VERSION} ({head}-dirty)\n"


@pytest.mark.system
def test_a_module_that_a_compiler_warns_about_is_not_packed(tmp_path: pathlib.Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / "smtpd_core/doubtful.py").write_text("PATTERN = '\\.'\n")
    done = subprocess.run(["./build.sh"], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "does not compile the modules" in done.stderr
    assert not (tree / "smtpctl.pyz").exists()


@pytest.mark.system
def test_tools_that_cannot_be_had_are_reported(tmp_path: pathlib.Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / "build/venv").unlink(missing_ok=True)
    (tree / "packaging/requirements.txt").write_text("no-such-tool==0\n")
    done = subprocess.run(
        ["./build.sh"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"},
    )
    assert done.returncode == 1
    assert "no-such-tool" in done.stderr  # what pip said
    assert done.stderr.endswith("packaging/requirements.txt could not be installed\n")


def test_an_unknown_word_is_one_sentence() -> None:
    done = subprocess.run([ROOT / "build.sh", "tset"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "build.sh: tset is none of demo, check, test, stress, bench, clean, help\n"
    )


def test_help_names_every_word() -> None:
    done = subprocess.run([ROOT / "build.sh", "help"], capture_output=True, text=True, check=True)
    for word in ("demo", "check", "test", "bench", "clean", "--no-bytecode"):
        assert f"./build.sh {word}" in done.stdout
