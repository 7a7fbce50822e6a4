"""The disk: the model does what the real one does, and forgets what was not flushed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import TYPE_CHECKING, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.queue.disk import SpoolError, SystemDisk, reason, refused
from tests.fakes.disk import ModelDisk, Stopped

if TYPE_CHECKING:
    import pathlib
    import random
    from collections.abc import Callable, Iterator

NAMES = ["a", "b", "a/a", "a/b", "b/a", "a/a/b", "missing/x"]
paths = st.sampled_from(NAMES)
calls = st.one_of(
    st.tuples(st.just("mkdir"), paths, st.sampled_from([0o700, 0o711, 0o750])),
    st.tuples(st.just("file"), paths, st.binary(max_size=20)),
    st.tuples(st.just("rename"), paths, paths),
    st.tuples(st.just("load"), paths, st.integers(0, 30)),
    st.tuples(st.just("read"), paths),
    *[
        st.tuples(st.just(call), paths)
        for call in ("unlink", "rmdir", "names", "status", "flush_directory")
    ],
)
Disk = Union[ModelDisk, SystemDisk]


@pytest.fixture
def system(tmp_path: pathlib.Path) -> Iterator[SystemDisk]:
    disk = SystemDisk.below(str(tmp_path))
    yield disk
    disk.release()


def answers(chosen: list[int]) -> Callable[[int], int]:
    return lambda _: chosen.pop(0) if chosen else 0


def act(disk: Disk, call: tuple[object, ...]) -> object:
    """Do one call; give what can be compared of its result."""
    name, path, *rest = call
    try:
        if name == "file":
            handle = disk.create(path, 0o600)  # type: ignore[arg-type]  # drawn as such
            disk.write(handle, *rest)  # type: ignore[arg-type]
            disk.flush(handle)
            size = disk.size(handle)
            disk.close(handle)
            return size
        if name == "read":
            handle = disk.open(path)  # type: ignore[arg-type]
            disk.rewind(handle)
            octets = disk.read(handle, 3, 0) + disk.read(handle, 30, 3)
            disk.close(handle)
            return octets
        result = getattr(disk, name)(path, *rest)  # type: ignore[call-overload]
    except OSError as error:
        return error.errno
    if name == "names":
        return sorted(result)
    if name == "status" and result is not None:
        size = result.size if result.kind == "file" else 0
        return result.kind, result.mode, size, result.uid, result.gid
    return result


def tree(root: str) -> dict[str, Union[bytes, None]]:
    found: dict[str, Union[bytes, None]] = {}
    for directory, directories, files in os.walk(root):
        for name in directories:
            found[os.path.relpath(os.path.join(directory, name), root)] = None
        for name in files:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = file.read()
    return found


@given(sequence=st.lists(calls, max_size=25))
def test_the_model_does_what_the_system_does(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[tuple[object, ...]]
) -> None:
    root = str(tmp_path_factory.mktemp("disk"))
    real = SystemDisk.below(root)
    model = ModelDisk()
    try:
        for call in sequence:
            assert act(model, call) == act(real, call), call
        assert model.tree() == tree(root)
    finally:
        real.release()
        shutil.rmtree(root)
    assert model.open_handles == 0


@given(sequence=st.lists(calls, max_size=25), choices=st.randoms(use_true_random=False))
def test_what_was_flushed_is_never_lost(
    sequence: list[tuple[object, ...]], choices: random.Random
) -> None:
    """With each directory flushed after each call, a loss of power changes nothing."""
    model = ModelDisk(torn_renames=True)
    for call in sequence:
        act(model, call)
        for name in (".", "a", "b", "a/a", "a/b", "b/a", "a/a/b"):
            act(model, ("flush_directory", name))
    before = model.tree()
    model.lose_power(choices.randrange)
    assert model.tree() == before


def test_what_was_not_flushed_is_kept_or_lost_one_by_one() -> None:
    model = ModelDisk()
    for name in ("x", "y"):
        handle = model.create(name, 0o600)
        model.write(handle, b"text")
        model.close(handle)
    model.lose_power(answers([1, 0, 2]))  # the entry x, the entry y; the content of x
    assert model.tree() == {"x": bytes(4)}


def test_content_and_entry_are_flushed_apart() -> None:
    model = ModelDisk()
    handle = model.create("x", 0o600)
    model.write(handle, b"text")
    model.flush_directory(".")
    model.lose_power(lambda _: 0)
    assert model.tree() == {"x": b""}
    handle = model.create("y", 0o600)
    model.write(handle, b"text")
    model.flush(handle)
    model.lose_power(lambda _: 0)
    assert model.tree() == {"x": b""}


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("flushed", ["", "a", "b"])
def test_a_rename_between_directories(torn: bool, flushed: str) -> None:
    """In two halves a name can be in both places or in none; else it is in exactly one."""
    seen = set()
    for bits in range(4):
        model = ModelDisk(torn_renames=torn)
        model.mkdir("a", 0o700)
        model.mkdir("b", 0o700)
        model.mkdir("a/x", 0o700)
        for name in (".", "a", "b"):
            model.flush_directory(name)
        model.rename("a/x", "b/y")
        if flushed:
            model.flush_directory(flushed)
        model.lose_power(answers([bits & 1, bits >> 1]))
        seen.add(tuple(name for name in ("a/x", "b/y") if name in model.tree()))
    if flushed == "":
        expected = {("a/x",), ("b/y",)} | ({(), ("a/x", "b/y")} if torn else set())
    elif torn:
        expected = {("b/y",), ()} if flushed == "a" else {("b/y",), ("a/x", "b/y")}
    else:
        expected = {("b/y",)}
    assert seen == expected


def test_the_model_stops_at_a_step_and_stays_stopped() -> None:
    model = ModelDisk()
    model.stop_at = 2
    handle = model.create("x", 0o600)
    with pytest.raises(Stopped):
        model.write(handle, b"text")
    with pytest.raises(Stopped):
        model.names(".")
    model.restart()
    assert model.tree() == {"x": b"te"}


def test_the_model_refuses_a_step() -> None:
    model = ModelDisk()
    model.refuse_at, model.refusal = 1, errno.ENOSPC
    with pytest.raises(OSError, match="No space"):
        model.mkdir("x", 0o700)
    model.mkdir("x", 0o700)
    assert model.tree() == {"x": None}


def test_links_and_special_files_are_not_followed(
    system: SystemDisk, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "target").write_bytes(b"secret")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dirlink").symlink_to("directory")
    os.mkfifo(tmp_path / "fifo")
    for act_on in (
        lambda: system.open("link"),
        lambda: system.load("link", 10),
        lambda: system.create("link", 0o600),
        lambda: system.open("fifo"),
        lambda: system.names("dirlink"),
        lambda: system.flush_directory("dirlink"),
        lambda: system.chmod("link", 0o777),
    ):
        with pytest.raises(OSError, match=r"link|regular|exists|directory|levels"):
            act_on()
    status = system.status("link")
    assert status is not None
    assert status.kind == "other"
    system.unlink("link")
    assert (tmp_path / "target").read_bytes() == b"secret"


def test_modes_are_those_asked_for_whatever_the_umask(
    system: SystemDisk, tmp_path: pathlib.Path
) -> None:
    before = os.umask(0o077)
    try:
        system.mkdir("open", 0o755)
        system.mkdir("shared", 0o1770)
        system.close(system.create("file", 0o600))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o1770
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    system.chmod("open", 0o711)
    system.chown("open", os.getuid(), os.getgid())
    status = system.status("open")
    assert status is not None
    assert (status.mode, status.kind) == (0o711, "directory")


def test_descriptors_are_not_inherited(system: SystemDisk) -> None:
    handle = system.create("x", 0o600)
    assert not os.get_inheritable(handle)
    system.close(handle)


def test_large_files(system: SystemDisk) -> None:
    octets = os.urandom(300_000)
    handle = system.create("x", 0o600)
    system.write(handle, octets[:100_000])
    system.write(handle, octets[100_000:])
    system.flush(handle)
    system.close(handle)
    assert system.load("x", 1_000_000) == octets
    assert system.load("x", 70_000) == octets[:70_000]


def test_refusals_have_words() -> None:
    assert reason(OSError(errno.ENOSPC, "x")) == "the disk is full"
    error = refused("queue", OSError(errno.EIO, "Input/output error"))
    assert str(error) == "queue: Input/output error"
    assert error.temporary
    with pytest.raises(SpoolError, match="missing: No such file"):
        SystemDisk.below("/nonexistent/missing")
