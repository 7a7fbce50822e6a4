"""The archive as a program: every interpreter, hostile surroundings, its names, its self-test."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from smtpd_core import version

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

ROOT = pathlib.Path(__file__).parents[1]
ARCHIVE = ROOT / "smtpctl.pyz"
DEMO = ROOT / "tests/spools/demo.tar.gz"
SHOW = ("show", "queue", "--spool", str(DEMO))
CI = bool(os.environ.get("CI"))
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0 and not CI, reason="needs root")
NOBODY_AT_ALL = 54321  # a user without an entry anywhere
PYENV = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv", "versions")
SHELLS = ("sh", "dash", "bash", "zsh", "ksh", "mksh", "yash", "busybox")
# Modules that no interpreter loads by itself, and that the commands below do load.
PLANTED = ("smtpctl", "_start", "_inside", "struct", "hashlib", "zlib", "binascii", "bz2", "lzma")


def interpreters(oldest: tuple[int, int], newest: tuple[int, int]) -> list[str]:
    """Find this machine's interpreters between two versions."""
    found = [*pathlib.Path("/usr/bin").glob("python[23].*")]
    found += PYENV.glob("*/bin/python[23].*")
    chosen = {}
    for path in found:
        named = re.fullmatch(r"python(\d)\.(\d+)", path.name)
        if named and oldest <= (int(named[1]), int(named[2])) <= newest and path.exists():
            chosen[os.path.realpath(path)] = str(path)
    return sorted(chosen.values())


GOOD = interpreters((3, 9), (3, 99))
TOO_OLD = interpreters((2, 7), (3, 8))


def run(*command: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command without standard input; its output is text."""
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=check,
        timeout=60,
        **options,
    )


def by_header(interpreter: str, archive: pathlib.Path = ARCHIVE) -> list[str]:
    """Give the command that the archive's header would run with an interpreter."""
    header = archive.read_bytes()[:4096].partition(b"\nfor ")[0].decode()
    return [interpreter, "-ISBc", header.partition("c='")[2].rstrip("'"), str(archive)]


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if not ARCHIVE.exists():
        pytest.fail("there is no archive to test: ./build.sh makes it")


@pytest.fixture(scope="module")
def listing() -> str:
    """What the sources print about the sample spool, without the archive."""
    return run("/usr/bin/python3", "-SB", ROOT / "smtpctl.py", *SHOW).stdout


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A directory that every user may read, with a copy of the archive and the sample spool."""
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        for path in (ARCHIVE, DEMO):
            shutil.copy(path, directory)
            (directory / path.name).chmod(0o755)
        yield directory


@pytest.fixture
def traps(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory full of modules that leave a mark when they are imported."""
    directory = tmp_path / "lib-dynload"  # a name that might be taken for the library's
    (directory / "smtpd_core").mkdir(parents=True)
    for name in (*PLANTED, "smtpd_core/__init__", "re", "os", "site", "sitecustomize"):
        path = directory / f"{name}.py"
        path.write_text(f"open({str(tmp_path / 'mark')!r}, 'a').write(__file__ + '\\n')\n")
    return directory


def test_there_are_interpreters_to_test() -> None:
    assert GOOD


def test_the_traps_work(tmp_path: pathlib.Path, traps: pathlib.Path) -> None:
    code = f"import {','.join(PLANTED)},smtpd_core"
    done = run(GOOD[0], "-S", "-c", code, env={"PYTHONPATH": str(traps)}, cwd=tmp_path)
    marks = (tmp_path / "mark").read_text().splitlines()
    assert {f"{traps}/{name}.py" for name in (*PLANTED, "smtpd_core/__init__")} <= set(marks), (
        done.stderr
    )


# Every interpreter.


@pytest.mark.parametrize("interpreter", GOOD)
def test_every_interpreter_shows_the_same(interpreter: str, listing: str) -> None:
    assert len(listing.splitlines()) == 28
    assert run(*by_header(interpreter), *SHOW).stdout == listing
    assert run(interpreter, ARCHIVE, *SHOW).stdout == listing


@pytest.mark.parametrize("interpreter", GOOD)
def test_every_interpreter_passes_the_status_on(interpreter: str) -> None:
    for command in (by_header(interpreter), [interpreter, ARCHIVE]):
        assert run(*command, "no", "such", "command", check=False).returncode == 255
        assert run(*command, "--no-such-option", check=False).returncode == 2
        assert run(*command, "--version").stdout.startswith(f"smtpctl {version.VERSION}")


@pytest.mark.parametrize("interpreter", TOO_OLD)
def test_an_old_interpreter_hands_over_to_a_newer_one(interpreter: str, listing: str) -> None:
    assert run(interpreter, ARCHIVE, *SHOW).stdout == listing


@pytest.mark.parametrize("interpreter", TOO_OLD)
def test_an_old_interpreter_without_a_newer_one_says_so(interpreter: str) -> None:
    code = (
        "import sys; sys._xoptions = {'smtpctl': True}; sys.argv = sys.argv[1:]; import zipimport;"
        "exec(zipimport.zipimporter(sys.argv[0]).get_data('__main__.py'))"
    )
    done = run(interpreter, "-c", code, ARCHIVE, "show", "queue", check=False)
    assert (done.returncode, done.stdout) == (69, "")
    assert re.fullmatch(
        r"smtpctl: Python 3\.9 or later is needed, this is [23]\.\d+ \(.*\)\n", done.stderr
    )


def damaged(archive: pathlib.Path, pattern: str, octets: bytes) -> None:
    """Overwrite the contents of members whose names match."""
    with zipfile.ZipFile(archive) as packed:
        places = [
            (entry.header_offset + 30 + len(entry.filename), entry.file_size)
            for entry in packed.infolist()
            if re.fullmatch(pattern, entry.filename)
        ]
    assert places
    contents = bytearray(archive.read_bytes())
    for begin, size in places:
        contents[begin : begin + size] = (octets + b"#" * size)[:size]
    archive.write_bytes(contents)


def with_bytecode() -> list[str]:
    """List the interpreters whose bytecode is in the archive."""
    if not ARCHIVE.exists():
        return []
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = archive.namelist()
    return [path for path in GOOD if f"bytecode/cpython-3{path.rpartition('.')[2]}" in names]


@pytest.mark.parametrize("interpreter", with_bytecode())
def test_bytecode_is_used_where_it_is_embedded(
    interpreter: str, public: pathlib.Path, listing: str
) -> None:
    archive = public / ARCHIVE.name
    damaged(archive, r"site-packages/.*\.py|_inside\.py", b"raise SystemExit(99)\n")
    assert run(*by_header(interpreter, archive), *SHOW).stdout == listing
    assert run(interpreter, archive, *SHOW).stdout == listing


@pytest.mark.parametrize("interpreter", GOOD)
def test_sources_are_used_where_bytecode_does_not_fit(
    interpreter: str, public: pathlib.Path, listing: str
) -> None:
    magic = run(interpreter, "-c", "import importlib.util as u; print(u.MAGIC_NUMBER.hex())")
    archive = public / ARCHIVE.name
    contents = archive.read_bytes()
    archive.write_bytes(contents.replace(bytes.fromhex(magic.stdout), b"\0\0\r\n"))
    assert run(*by_header(interpreter, archive), *SHOW).stdout == listing
    damaged(archive, r"site-packages/smtpctl\.py", b"raise SystemExit(99)\n")
    assert run(*by_header(interpreter, archive), *SHOW, check=False).returncode == 99


@pytest.mark.parametrize("interpreter", with_bytecode())
def test_modules_are_read_from_the_archive_that_was_opened(
    interpreter: str, public: pathlib.Path, listing: str
) -> None:
    command = by_header(interpreter, public / ARCHIVE.name)
    command[2] = command[2].replace("exec(", "import os;os.unlink(sys.argv[0]);exec(", 1)
    assert run(*command, *SHOW).stdout == listing
    assert not (public / ARCHIVE.name).exists()


@pytest.mark.parametrize("interpreter", GOOD)
def test_what_waits_for_the_end_of_the_process_is_done(interpreter: str) -> None:
    command = by_header(interpreter)
    command[2] = f"import atexit;atexit.register(print,'the end');{command[2]}"
    done = run(*command, "--version")
    assert done.stdout.splitlines()[1:] == ["the end"]


@pytest.mark.parametrize("interpreter", GOOD)
def test_sources_are_found_for_tracebacks(interpreter: str) -> None:
    command = by_header(interpreter)
    command[2] = (
        "import threading;"
        + command[2].replace("sys.exit(", "print(")
        + (
            ";import inspect, smtpd_core.ids as ids; print(ids.__file__);"
            "print(inspect.getsource(ids.msgid_of))"
        )
    )
    lines = run(*command, "--version").stdout.splitlines()
    assert lines[2] == f"{ARCHIVE}/site-packages/smtpd_core/ids.py"
    assert lines[3].startswith("def msgid_of(")


# Hostile and poor surroundings.


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HOME": "/nonexistent"},
        {"HOME": "/proc"},
        {"HOME": "", "PATH": ""},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        {"PYTHONHOME": "/nonexistent", "PYTHONPLATLIBDIR": "nonsense"},
        {"PYTHONSTARTUP": "/nonexistent", "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error"},
    ],
    ids=lambda environment: ",".join(environment) or "empty",
)
def test_the_environment_does_not_matter(environment: dict[str, str], listing: str) -> None:
    done = run(ARCHIVE, *SHOW, env=environment)
    assert (done.stdout, done.stderr) == (listing, "")


def test_shiv_variables_do_not_matter(
    tmp_path: pathlib.Path, traps: pathlib.Path, listing: str
) -> None:
    (tmp_path / "root").mkdir()
    environment = {
        "SHIV_ENTRY_POINT": "os:abort",
        "SHIV_MODULE": "this",
        "SHIV_CONSOLE_SCRIPT": "smtpctl",
        "SHIV_INTERPRETER": "1",
        "SHIV_ROOT": str(tmp_path / "root"),
        "SHIV_FORCE_EXTRACT": "1",
        "SHIV_PREPEND_PYTHONPATH": str(traps),
        "SHIV_EXTEND_PYTHONPATH": "1",
    }
    for command in ([ARCHIVE], ["/usr/bin/python3", "-I", ARCHIVE]):
        assert run(*command, *SHOW, env=environment).stdout == listing
    assert list((tmp_path / "root").iterdir()) == []
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("arguments", [SHOW, ("selftest",), ("encrypt", "word")])
def test_planted_modules_are_not_imported(
    arguments: tuple[str, ...], tmp_path: pathlib.Path, traps: pathlib.Path
) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(traps)}
    for name in ("3", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"):
        site = tmp_path / f".local/lib/python{name}/site-packages"
        site.mkdir(parents=True)
        (site / "evil.pth").write_text(
            f"import sys; sys.path.insert(0, {str(traps)!r}); import re\n"
        )
        shutil.copy(traps / "sitecustomize.py", site / "usercustomize.py")
    commands: list[list[object]] = [[ARCHIVE], ["sh", ARCHIVE]]
    commands += [[*by_header(interpreter)] for interpreter in GOOD]
    for command in commands:
        done = run(*command, *arguments, env=environment, cwd=traps, check=False)
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "mark").exists(), (tmp_path / "mark").read_text()


@pytest.mark.parametrize("interpreter", GOOD)
def test_planted_modules_are_not_imported_from_a_search_path(
    interpreter: str, tmp_path: pathlib.Path, traps: pathlib.Path
) -> None:
    """An interpreter that was told to use PYTHONPATH did so for itself, before we begin."""
    for name in ("re", "os", "site", "sitecustomize"):
        (traps / f"{name}.py").unlink()
    environment = {**os.environ, "PYTHONPATH": str(traps)}
    for arguments in (SHOW, ("selftest",), ("encrypt", "word")):
        done = run(interpreter, "-S", ARCHIVE, *arguments, env=environment, cwd=traps, check=False)
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "mark").exists(), (tmp_path / "mark").read_text()


@ROOT_ONLY
def test_an_unknown_user_may_run_it(public: pathlib.Path, listing: str) -> None:
    done = run(
        public / ARCHIVE.name,
        *SHOW[:3],
        public / DEMO.name,
        user=NOBODY_AT_ALL,
        group=NOBODY_AT_ALL,
        extra_groups=[],
        cwd="/",
        env={},
    )
    assert (done.stdout, done.stderr) == (listing, "")


def test_a_directory_that_is_gone_or_read_only(tmp_path: pathlib.Path, listing: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && exec {ARCHIVE} {' '.join(SHOW)}"
    assert run("sh", "-c", script).stdout == listing
    assert run(ARCHIVE, *SHOW, cwd="/proc").stdout == listing


@pytest.mark.parametrize("interpreter", GOOD)
def test_closed_standard_descriptors(interpreter: str, listing: str) -> None:
    command = ' exec "$@"'
    for start in (by_header(interpreter), [interpreter, str(ARCHIVE)], [str(ARCHIVE)]):
        assert run("sh", "-c", f"{command} <&-", "sh", *start, *SHOW).stdout == listing
        done = run("sh", "-c", f"{command} <&- 2>&-", "sh", *start, *SHOW)
        assert done.stdout == listing
        done = run("sh", "-c", f"{command} >&-", "sh", *start, *SHOW, check=False)
        assert done.returncode == 1
        assert re.fullmatch(r"smtpctl: standard output: .*\n", done.stderr)
        done = run("sh", "-c", f"{command} <&- >&- 2>&-", "sh", *start, *SHOW, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.skipif(shutil.which("strace") is None and not CI, reason="needs strace")
@pytest.mark.parametrize("arguments", [SHOW, ("selftest",), ("help",)])
def test_nothing_is_written(arguments: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    calls = (
        "trace=open,openat,creat,mkdir,mkdirat,mknod,mknodat,unlink,unlinkat,rename,renameat,"
        "renameat2,link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,chown,fchown,fchownat,"
        "truncate,ftruncate,utime,utimes,utimensat,setxattr,socket,connect"
    )
    for command in ([ARCHIVE], ["/usr/bin/python3", ARCHIVE]):
        run("strace", "-f", "-qq", "-o", log, "-e", calls, *command, *arguments, check=False)
        made = log.read_text().splitlines()
        assert any(ARCHIVE.name in line for line in made)
        for line in made:
            call = line.partition(" ")[2].lstrip()
            reading = re.match(r"open(at)?\(.*\bO_RDONLY\b", call)
            assert (reading and "O_CREAT" not in call) or call[:3] in ("+++", "---"), line


# Names and shells.


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_every_shell_runs_the_header(shell: str, listing: str) -> None:
    command = [shell, "sh"] if shell == "busybox" else [shell]
    assert run(*command, ARCHIVE, *SHOW).stdout == listing
    assert run(*command, ARCHIVE.name, *SHOW, cwd=ARCHIVE.parent).stdout == listing


def test_the_name_it_is_called_by(tmp_path: pathlib.Path, listing: str) -> None:
    for name in ("mailq", "sendmail", "smtpctl", "any name"):
        (tmp_path / name).symlink_to(ARCHIVE)
    assert run(tmp_path / "mailq", "--spool", DEMO).stdout == listing
    assert run(tmp_path / "smtpctl", *SHOW).stdout == listing
    assert run(tmp_path / "any name", *SHOW).stdout == listing
    refused = run(tmp_path / "sendmail", "-t", check=False)
    assert (refused.returncode, refused.stdout) == (69, "")
    path = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert run("mailq", "--spool", DEMO, env=path).stdout == listing
    assert run("./smtpctl", *SHOW, cwd=tmp_path).stdout == listing


def test_arguments_arrive_as_they_are(tmp_path: pathlib.Path) -> None:
    odd = tmp_path / 'a spool\'s "$(name)"\n*'
    done = run(ARCHIVE, "show", "queue", "--spool", odd, check=False)
    assert done.returncode == 1
    assert 'a spool\'s "$(name)"\\n*' in done.stderr


# The self-test.


def test_the_selftest_is_content_with_a_safe_place(public: pathlib.Path) -> None:
    done = run(public / ARCHIVE.name, "selftest")
    assert "contents: as built\nplace: safe from other users\n" in done.stdout
    assert done.stderr == ""


def test_the_selftest_names_who_could_replace_it(public: pathlib.Path) -> None:
    public.chmod(0o777)
    done = run(public / ARCHIVE.name, "selftest", check=False)
    assert done.returncode == 1
    assert done.stderr == f"smtpctl: {public}: every user may write to it\n"


@pytest.mark.parametrize("interpreter", GOOD)
def test_the_selftest_finds_altered_members(interpreter: str, public: pathlib.Path) -> None:
    archive = public / ARCHIVE.name
    command = by_header(interpreter, archive)
    damaged(archive, r"site-packages/smtpd_core/queue/tar\.py", b"#")
    done = run(*command, "selftest", check=False)
    assert done.returncode == 1
    name = "site-packages/smtpd_core/queue/tar.py"
    assert f"smtpctl: {name}: its SHA-256 is not that of the manifest\n" in done.stderr
    assert f"smtpctl: {name}: its CRC-32 is not that of the archive's directory\n" in done.stderr


def test_a_truncated_archive_never_succeeds(public: pathlib.Path) -> None:
    archive = public / ARCHIVE.name
    whole = archive.read_bytes()
    for length in (len(whole) - 1, len(whole) - 30, len(whole) * 3 // 4, 20_000, 3_000, 300):
        archive.write_bytes(whole[:length])
        assert run(archive, "selftest", check=False).returncode != 0, length
