"""A spool is read, not written, locked or stamped; nothing blocks, and all is bounded."""

from __future__ import annotations

import gzip
import lzma
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from tests import golden, running
from tests.system import namespace, spools, trace

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

ARCHIVE = running.ROOT / "smtpctl.pyz"
_MANY = (160, 8)  # messages, envelopes each: enough for a second process, in 160 buckets
_PATIENCE_SECONDS = 20
_SIZE = 1 << 40
_MEMORY = 200 << 20  # of addresses, Python's own among them
_KEY = b"0123456789abcdef0123456789abcdef"
_ENCRYPTED = golden.SPOOLS / "7.8" / "encrypt-1.tar.gz"
_NEEDS_STRACE = pytest.mark.skipif(
    shutil.which("strace") is None and not namespace.CI, reason="strace is not installed"
)


def _make_many(spool: pathlib.Path) -> None:
    """Make a spool large enough for a second process, with something in all its parts."""
    spools.make(spool, *_MANY)
    (spool / "offline" / "1700000000.abc").write_bytes(b"-f|a@b|c@d\nSubject: x\n\nx\n")
    body = spool / "temporary" / "0a0b0c0d"
    body.write_bytes(spools.BODY)
    os.utime(body, (1700000000, 1700000000))  # old enough for its age to stay the same
    aside = spool / "corrupt" / "0a0b0c0d.1"
    aside.mkdir()
    (aside / "0a0b0c0d00000001").write_bytes(gzip.compress(spools.envelope(1)))


@pytest.fixture(scope="module")
def many() -> Iterator[pathlib.Path]:
    """Make that spool, in memory."""
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        spool = pathlib.Path(directory) / "spool"
        _make_many(spool)
        yield spool


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _first(spool: pathlib.Path) -> str:
    return min(spool.glob("queue/*/*/[0-9a-f]*")).name


def _commands(spool: pathlib.Path) -> list[list[str]]:
    """Give command lines that walk every path through the code that reads a spool."""
    evpid = _first(spool)
    where = ["--spool", str(spool)]
    listings = [
        [],
        ["--all"],
        ["--format", "json"],
        ["--format", "table", "--sort", "size", "--all"],
        ["--summary"],
        [evpid[:8], "--format", "csv"],
    ]
    message = spool / "queue" / evpid[:2] / evpid[:8]
    parts = [message.parent, message, message / evpid]
    return [
        *(["show", "queue", *where, *more] for more in listings),
        *(["show", "queue", "--spool", str(part)] for part in parts),
        ["show", "envelope", evpid, *where],
        ["show", "message", evpid[:8], *where],
        ["show", "message", "0a0b0c0d", "--all", *where],
    ]


# --- system calls


@pytest.fixture(scope="module")
def packed(many: pathlib.Path) -> Iterator[pathlib.Path]:
    """Pack the spool in three ways."""
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        plain = pathlib.Path(directory) / "spool.tar"
        with tarfile.open(plain, "w") as archive:
            archive.add(many, "smtpd")
        plain.with_name("spool.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.with_name("spool.tar.xz").write_bytes(lzma.compress(plain.read_bytes(), preset=0))
        yield plain.parent


def _traced(log: pathlib.Path, *words: str, **more: Any) -> list[trace.Call]:
    done = trace.run(log, ARCHIVE, *words, **more)
    assert done.status in (0, 1), done
    assert done.out, words
    calls = list(trace.calls(log))
    assert len(calls) > 200  # it did trace
    assert trace.changes(calls) == [], words
    return calls


@_NEEDS_STRACE
def test_no_call_changes_a_file_of_a_directory(many: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shared = 0
    for words in _commands(many):
        calls = _traced(tmp_path / "log", *words)
        shared += any(call.name in ("clone", "clone3", "fork") for call in calls)
        opened = trace.opened(calls, many)
        assert opened, words
        for path, flags in opened:
            assert "O_NOATIME" in flags, path
            assert flags & {"O_DIRECTORY", "O_NONBLOCK"}, path
            assert "O_NOFOLLOW" in flags or path in words, path
    assert shared >= 2 or len(os.sched_getaffinity(0)) == 1


@_NEEDS_STRACE
@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz"])
def test_no_call_changes_a_file_of_an_archive(
    many: pathlib.Path, packed: pathlib.Path, tmp_path: pathlib.Path, ending: str
) -> None:
    name = packed / f"spool.{ending}"
    _traced(tmp_path / "log", "show", "queue", "--all", "--spool", str(name))
    with name.open("rb") as stream:
        _traced(
            tmp_path / "log", "show", "message", _first(many), "--spool", "-", stdin=stream.fileno()
        )


@_NEEDS_STRACE
def test_no_call_changes_a_file_of_an_encrypted_spool(tmp_path: pathlib.Path) -> None:
    golden.Stored(_ENCRYPTED).extract(tmp_path)
    (tmp_path / "key").write_bytes(_KEY)
    key = ["--key-file", str(tmp_path / "key"), "--spool", str(tmp_path / "smtpd")]
    evpid = _first(tmp_path / "smtpd")
    for words in (["queue"], ["envelope", evpid], ["message", evpid]):
        _traced(tmp_path / "log", "show", *words, *key)


def test_the_trace_sees_what_it_has_to(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    lines = (
        'openat(AT_FDCWD</>, "x", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3</x>',
        'openat(3</a>, "x", O_RDWR|O_CLOEXEC <unfinished ...>',
        'write(3</tmp/x>, "x", 1) = 1',
        'utimensat(AT_FDCWD</>, "x", NULL, 0 <unfinished ...>',
        'unlink("/x") = 0',
        "flock(3</x>, LOCK_EX) = 0",
        "fcntl(3</x>, F_SETLK, {l_type=F_WRLCK}) = 0",
        "ioctl(3</x>, FS_IOC_SETFLAGS, []) = 0",
        "mmap(NULL, 1, PROT_READ|PROT_WRITE, MAP_SHARED, 3</x>, 0) = 0x7f",
    )
    fine = (
        'openat(3</a>, "b", O_RDONLY|O_NOFOLLOW|O_CLOEXEC) = 4</a/b>',
        'write(1</dev/null>, "x", 1) = 1',
        'write(5<pipe:[77]>, "x", 1) = 1',
        "ioctl(0</dev/pts/1>, TCGETS, {}) = 0",
        "fcntl(3</x>, F_DUPFD_CLOEXEC, 0) = 4</x>",
        "mmap(NULL, 1, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f",
    )
    log.write_text("".join(f"12  {line}\n" for line in (*lines, *fine, "<... write resumed>) = 1")))
    calls = list(trace.calls(log))
    assert len(calls) == len(lines) + len(fine)
    assert trace.changes(calls) == calls[: len(lines)]
    assert trace.opened(calls, pathlib.Path("/a")) == [
        trace.Opened("/a/x", frozenset(("O_RDWR", "O_CLOEXEC"))),
        trace.Opened("/a/b", frozenset(("O_RDONLY", "O_NOFOLLOW", "O_CLOEXEC"))),
    ]


# --- time stamps


def _stamps(paths: list[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for path in paths:
        status = os.lstat(path)
        found[path] = (
            *(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns),
            *(status.st_mode, status.st_size, status.st_ino, status.st_uid, status.st_nlink),
        )
    return found


def _all_below(top: pathlib.Path) -> list[str]:
    return [str(top), *(str(path) for path in top.rglob("*"))]


def _run_all(commands: list[list[str]]) -> bytes:
    """Run commands; give the first that did not do what it should."""
    for words in commands:
        done = subprocess.run(words, check=False, capture_output=True)
        if done.returncode not in (0, 1) or not done.stdout:
            return repr(done).encode()
    return b""


def _changed_for(uid: int) -> bytes:
    """Inside a namespace: run everything over a spool, as its owner; give what changed."""
    spool, encrypted = namespace.PLACE / "spool", namespace.PLACE / "encrypted"
    program = shutil.copy(ARCHIVE, "/run/smtpctl.pyz")
    _make_many(spool)
    bucket = min((spool / "queue").iterdir())
    (bucket / "link").symlink_to("/etc/passwd")
    os.mkfifo(bucket / "fifo")
    (spool / "offline" / "link").symlink_to(bucket)
    encrypted.mkdir()
    golden.Stored(_ENCRYPTED).extract(encrypted)
    paths = _all_below(namespace.PLACE)
    for path in paths:
        os.chown(path, uid, uid, follow_symlinks=False)
    commands = [[program, *words] for words in _commands(spool)]
    in_environment = ["env", f"SMTPCTL_QUEUE_KEY={_KEY.decode()}", program, "show"]
    place = ["--spool", str(encrypted / "smtpd")]
    evpid = _first(encrypted / "smtpd")
    for some in (["queue", "--all"], ["envelope", evpid], ["message", evpid]):
        commands.append([*in_environment, *some, *place])
    before = _stamps(paths)
    wrong = running.in_child(lambda: _run_all(commands), uid)
    after = _stamps(paths)
    changed = [path for path in paths if before[path] != after[path]]
    return wrong + repr(changed).encode() if wrong or changed else b""


@namespace.ROOT_ONLY
@pytest.mark.parametrize("uid", [0, running.NOBODY])
def test_no_time_stamp_changes(uid: int) -> None:
    assert namespace.inside(lambda: _changed_for(uid)).decode() == ""


@namespace.ROOT_ONLY
def test_the_file_system_of_that_test_does_note_accesses() -> None:
    def read_one() -> bytes:
        (namespace.PLACE / "x").write_bytes(b"x")
        os.utime(namespace.PLACE / "x", (0, 0))
        (namespace.PLACE / "x").read_bytes()
        os.listdir(namespace.PLACE)
        return str(os.stat(namespace.PLACE / "x").st_atime > 0).encode()

    assert namespace.inside(read_one) == b"True"


# --- surroundings


def _run_bare(commands: list[list[str]]) -> bytes:
    """Run commands without environment, home or working directory; give all they wrote."""
    directory = "/run/closed"
    os.chdir(directory)
    written = b""
    for words in commands:
        done = subprocess.run(words, check=False, capture_output=True, env={})
        written += b"%d\n%b%b" % (done.returncode, done.stdout, done.stderr)
    return written


@namespace.ROOT_ONLY
@pytest.mark.parametrize("uid", [0, running.NOBODY])
def test_everything_may_be_read_only_and_nothing_set(uid: int) -> None:
    def compare() -> bytes:
        spool = namespace.PLACE / "spool"
        program = shutil.copy(ARCHIVE, "/run/smtpctl.pyz")
        _make_many(spool)
        for path in _all_below(namespace.PLACE):
            os.chown(path, uid, uid)
        pathlib.Path("/run/closed").mkdir(mode=0)
        os.chown("/run/closed", uid, uid)
        os.chmod("/run/closed", 0o100)  # it can be entered, and no more
        commands = _commands(spool)
        wanted = b""
        for words in commands:
            done = running.run(*words)
            wanted += b"%d\n%b%b" % done
        for place in ("/", "/run", str(namespace.PLACE)):
            namespace.mount("-o", "remount,bind,ro", place)
        found = running.in_child(lambda: _run_bare([[program, *words] for words in commands]), uid)
        assert wanted.count(b"alice") > 3 * _MANY[0] * _MANY[1]
        differing = set(found.split(b"\n")) ^ set(wanted.split(b"\n"))
        return b"" if found == wanted else repr(sorted(differing)).encode()

    assert namespace.inside(compare) == b""


# --- what somebody planted

_SECRET = b"sender: secret@example.org\nSECRET\n"
_HOSTILE_MSGID = "0badcafe"
_HOSTILE = f"{_HOSTILE_MSGID}00000001"


def _plant_socket(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as planted:
        before = os.getcwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            planted.bind(path.name)
        finally:
            os.chdir(before)


_PLANTS: dict[str, Any] = {
    "fifo": os.mkfifo,
    "socket": _plant_socket,
    "zero": lambda path: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5)),
    "tty": lambda path: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(5, 0)),
    "disk": lambda path: os.mknod(path, 0o666 | stat.S_IFBLK, os.makedev(7, 0)),
    "link": lambda path: path.symlink_to("/etc/shadow"),
    "secret": lambda path: path.symlink_to(_outside(path, "secret")),
    "directory": lambda path: path.symlink_to(_outside(path, "tree")),
    "loop": lambda path: path.symlink_to(path.name),
    "above": lambda path: path.symlink_to(".."),
}
_NEED_ROOT = ("zero", "tty", "disk")
# Where they are planted, below the spool; `*` stands for a place in a complete message.
_LEVELS = (
    "queue",
    "queue/0b",
    f"queue/0b/{_HOSTILE_MSGID}",
    f"queue/0b/{_HOSTILE_MSGID}/{_HOSTILE}",
    f"queue/0b/{_HOSTILE_MSGID}/message",
    f"queue/0b/{_HOSTILE_MSGID}/envelopes",
    f"queue/0b/{_HOSTILE_MSGID}/envelopes/{_HOSTILE}",
    "queue/stray",
    "incoming",
    f"incoming/{_HOSTILE_MSGID}",
    f"incoming/{_HOSTILE_MSGID}/{_HOSTILE}",
    "incoming/envelope.tmp",
    "corrupt",
    f"corrupt/{_HOSTILE_MSGID}.1",
    f"corrupt/{_HOSTILE_MSGID}/{_HOSTILE}",
    f"corrupt/{_HOSTILE_MSGID}/message",
    "temporary",
    f"temporary/{_HOSTILE_MSGID}",
    "purge",
    "purge/4711",
    f"purge/4711/{_HOSTILE_MSGID}",
    f"purge/4711/{_HOSTILE_MSGID}/{_HOSTILE}",
    "offline",
    "offline/1700000000.abc",
    "offline/1000",
    "offline/1000/1700000000.abc",
)


def _outside(path: pathlib.Path, name: str) -> pathlib.Path:
    """Give a place beside the spool that holds what must not be shown."""
    for parent in path.parents:
        if parent.name == "spool":
            return parent.parent / name
    raise AssertionError(path)


def _lay_out(top: pathlib.Path) -> None:
    """Put a secret and a tree of secrets beside where the spool will be."""
    secret = spools.envelope(1) + _SECRET
    (top / "secret").write_bytes(secret)
    tree = top / "tree"
    directories = ("", f"0b/{_HOSTILE_MSGID}", _HOSTILE_MSGID, f"4711/{_HOSTILE_MSGID}", "x")
    for below in directories:
        (tree / below).mkdir(parents=True, exist_ok=True)
    for below in directories:
        for name in ("message", _HOSTILE, _HOSTILE_MSGID, "1700000000.abc"):
            if not (tree / below / name).exists():
                (tree / below / name).write_bytes(secret)


@pytest.mark.parametrize("kind", sorted(_PLANTS))
def test_nothing_planted_is_followed_or_waited_for(tmp_path: pathlib.Path, kind: str) -> None:
    if kind in _NEED_ROOT and os.getuid() != 0 and not namespace.CI:
        pytest.skip("needs root, to make a device")
    _lay_out(tmp_path)
    spool = tmp_path / "spool"
    where = ("--spool", spool, "--all")
    for level in _LEVELS:
        (spool / "queue").mkdir(parents=True)
        planted = spool / level
        if level == "queue":
            planted.rmdir()
        planted.parent.mkdir(parents=True, exist_ok=True)
        _PLANTS[kind](planted)
        signal.alarm(_PATIENCE_SECONDS)  # only what blocks takes as long
        listed = running.run("show", "queue", *where)
        table = running.run("show", "queue", *where, "--format", "table", "--sort", "age")
        shown = running.run("show", "message", _HOSTILE_MSGID, *where)
        envelope = running.run("show", "envelope", _HOSTILE, *where)
        signal.alarm(0)
        assert listed.status == shown.status == envelope.status == 1, level
        assert str(planted).encode() in listed.err, (level, listed)
        for done in (listed, table, shown, envelope):
            assert b"ecret" not in done.out, (level, done)
            assert b"root:" not in done.out + done.err, (level, done)
            assert b"Traceback" not in done.err
            assert b"internal error" not in done.err, (level, done)
        assert shown.out == envelope.out == b"", level
        shutil.rmtree(spool)


# --- what somebody claims


_LIMITED = ("prlimit", f"--as={_MEMORY}", f"--cpu={_PATIENCE_SECONDS}")


def _limited_run(*words: object) -> running.Finished:
    """Run the archive with little memory and little time."""
    done = subprocess.run(
        [*_LIMITED, str(ARCHIVE), *map(str, words)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=2 * _PATIENCE_SECONDS,
    )
    return running.Finished(done.returncode, done.stdout, done.stderr)


def _sparse(path: pathlib.Path, head: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head)
    os.truncate(path, _SIZE)


def test_enormous_files_cost_nothing(tmp_path: pathlib.Path) -> None:
    message = tmp_path / "queue/0b/0badcafe"
    heads = (b"", spools.envelope(1), gzip.compress(b"x"), b"\x01" * 99, b"x" * 9000 + b"\n")
    for number, head in enumerate(heads):
        _sparse(message / f"0badcafe0000000{number + 1}", head)
        _sparse(tmp_path / "offline" / f"170000000{number}.abc", head)
    _sparse(message / "message", spools.BODY)
    _sparse(tmp_path / "temporary" / "0badcaff", b"\x01")
    for form in ("classic", "json", "table"):
        for more in (("--format", form), ("--format", form, "--sort", "size"), ("--summary",)):
            where = ("--spool", tmp_path, "--all")
            done = _limited_run("show", "queue", *where, *more)
            assert done.status == 1
            assert b"MemoryError" not in done.err
            assert b"internal error" not in done.err
            assert done.err.count(b"too large") == len(heads), done
            assert len(done.err) < 20_000
    shown = _limited_run("show", "envelope", "0badcafe00000002", "--spool", tmp_path)
    assert shown.status == 1
    assert shown.out.startswith(spools.envelope(1))
    assert len(shown.out) == 65536
    assert b"too large" in shown.err


def test_an_enormous_message_is_a_stream(tmp_path: pathlib.Path) -> None:
    message = tmp_path / "queue/0b/0badcafe/message"
    _sparse(message, spools.BODY)
    words = ("show", "message", "0badcafe", "--spool", str(tmp_path))
    for form in ("plain", "gzip"):
        if form == "gzip":
            piece = gzip.compress(bytes(100 << 20), 9)
            message.write_bytes(piece * 20)
        command = [*_LIMITED, str(ARCHIVE), *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as shown:
            assert shown.stdout is not None
            assert len(shown.stdout.read(50 << 20)) == 50 << 20
            shown.stdout.close()
            assert shown.wait(_PATIENCE_SECONDS) == 141


def test_bombs(tmp_path: pathlib.Path) -> None:
    message = tmp_path / "queue/0b/0badcafe"
    message.mkdir(parents=True)
    zeros = gzip.compress(bytes(60 << 20), 9)  # as many as fit in what is read of an envelope
    (message / "message").write_bytes(b"x")
    (message / "0badcafe00000001").write_bytes(zeros)
    (message / "0badcafe00000002").write_bytes(gzip.compress(zeros))
    done = _limited_run("show", "queue", "--spool", tmp_path)
    assert (done.status, done.out) == (1, b"")
    assert done.err.count(b"\n") == 2
    head = tarfile.TarInfo("smtpd/queue/0b/0badcafe/0badcafe00000001")
    head.size = _SIZE
    archive = tmp_path / "spool.tar"
    archive.write_bytes(head.tobuf() + bytes(300 << 20))
    done = _limited_run("show", "queue", "--spool", archive)
    assert (done.status, done.out) == (1, b"")
    archive.write_bytes(gzip.compress(head.tobuf()) + 10 * zeros)
    done = _limited_run("show", "queue", "--spool", archive)
    assert (done.status, done.out) == (1, b"")
    assert done.err.count(b"\n") < 5


# --- memory of an honest spool

_LAUNCHER = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
status, usage = os.wait4(pid, 0)[1:]
os.write(2, b"%d" % usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_large_queue_needs_little_memory() -> None:
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        spools.make(pathlib.Path(directory), 3000, 10)
        launcher = [sys.executable, "-ISc", _LAUNCHER]
        for form in ("classic", "json"):
            done = subprocess.run(
                [*launcher, ARCHIVE, "show", "queue", "--spool", directory, "--format", form],
                check=False,
                capture_output=True,
            )
            assert (done.returncode, done.stdout.count(b"\n")) == (0, 30_000)
            assert int(done.stderr) < 64 << 10, form  # the system counts in KiB
