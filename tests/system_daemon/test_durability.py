"""What was answered with 250 is delivered, once, or still queued, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import re
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Dict, Iterator, List, NamedTuple, Set, Tuple

import pytest

from tests.running import in_child
from tests.system import namespace
from tests.system_daemon.plant import (
    FAR,
    LOCAL,
    PATIENCE_SECONDS,
    Client,
    Copy,
    Plant,
    Sink,
    as_user,
    free_port,
    mail,
    now,
    plant,
)

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("STRESS_ROUNDS", "20"))
SEED = int(os.environ.get("STRESS_SEED", "0")) or random.randrange(1, 1 << 32)
LARGE = 600_000  # octets of a mail whose body is written to a file of the queue role
_CLIENTS = 4
_LIFE_SECONDS = 1.2  # the longest until a daemon is killed
_ANSWER_SECONDS = 1.0  # for an outcome to get from who took a mail into the spool: mostly 0.05
_ORPHAN_SECONDS = 1.0  # for a delivery to end whose daemon was killed


@pytest.fixture
def place() -> Iterator[Plant]:
    with plant() as made:
        yield made


async def eventually(condition: Callable[[], object], why: Callable[[], object] = str) -> None:
    """Look again and again while the event loop goes on."""
    last = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < last, f"in vain: {why()}"
        await asyncio.sleep(0.01)


def play(scene: Awaitable[None]) -> None:
    """Run a scene, which must come to its end."""

    async def bounded() -> None:
        await asyncio.wait_for(scene, 60 + ROUNDS * 3)

    asyncio.run(bounded())


# ---- killed at any moment --------------------------------------------------------------


class Load:
    """Clients that send without end, and remember what was answered with 250."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self.accepted: Set[Copy] = set()
        self.sent: Set[Copy] = set()
        self.strange: List[str] = []
        self.stopping = False
        self._port = port
        self._chance = chance

    async def run(self, number: int) -> None:
        """Be a client."""
        count = 0
        while not self.stopping:
            try:
                async with Client(self._port) as client:
                    for _ in range(5):
                        count += 1
                        await self._mail(client, f"{number}-{count}")
            except OSError:
                await asyncio.sleep(0.02)

    async def _mail(self, client: Client, name: str) -> None:
        recipients = self._chance.choice([(LOCAL,), (FAR,), (LOCAL, FAR)])
        size = LARGE if self._chance.random() < 0.05 else 2000
        copies = {(name, each) for each in recipients}
        self.sent |= copies
        answer = await client.mail(mail(name, size), *recipients)
        if answer.startswith("250"):
            self.accepted |= copies
        elif answer[:3] != "421":
            self.strange.append(answer)


class Scene:
    """A daemon under load, killed again and again."""

    def __init__(self, place: Plant, chance: random.Random) -> None:
        self.place = place
        self.sink = Sink()
        self.load = Load(place.port, chance)
        self.kills: List[float] = []
        self._chance = chance

    async def run(self) -> None:
        await self.sink.start()
        self.place.configure(
            self.place.to_maildir
            + f'action "out" relay host "smtp+notls://127.0.0.1:{self.sink.port}"\n'
            'match from any for domain "far.test" action "out"\n'
        )
        clients = [asyncio.ensure_future(self.load.run(each)) for each in range(_CLIENTS)]
        try:
            await self.go_through()
        finally:
            self.load.stopping = True
        await asyncio.gather(*clients)
        await eventually(lambda: not self.place.queued_now(), self.place.queued_now)
        assert await asyncio.get_running_loop().run_in_executor(None, self.place.stop) == 0
        self.check_end()

    async def go_through(self) -> None:
        """Kill a daemon in each round; then start one that stays."""
        for _ in range(ROUNDS):
            self.place.start(wait=False)
            await asyncio.sleep(self._chance.uniform(0.05, _LIFE_SECONDS))
            await self.kill()
        self.place.start(wait=False)
        await asyncio.sleep(0.5)

    async def kill(self) -> None:
        """Kill the daemon, and look at what it leaves."""
        assert self.place.process is not None
        assert self.place.process.poll() is None, "it ended by itself"
        self.kills.append(now())
        self.place.kill()
        await asyncio.sleep(0)  # clients hear of it
        queued = self.place.queued() if self.place.spool.exists() else set()
        lost = self.load.accepted - queued - set(self.copies())
        assert not lost, lost
        if self.place.spool.exists():
            self.place.check_spool()

    def copies(self) -> Dict[Copy, List[float]]:
        """Give when each copy arrived, where it was to arrive."""
        return {
            **{(name, LOCAL): times for name, times in self.place.delivered().items()},
            **{(name, FAR): times for name, times in self.sink.taken.items()},
        }

    def check_end(self) -> None:
        copies = self.copies()
        assert not self.load.accepted - set(copies)
        assert set(copies) <= self.load.sent
        assert not self.load.strange
        for copy, times in copies.items():
            ordered = sorted(times)
            for first, second in zip(ordered, ordered[1:]):
                assert self.explains(first, second), (copy, ordered, self.kills)
        assert not self.place.unfinished()
        assert len(self.load.accepted) > ROUNDS
        late = [self.lateness(times) for times in copies.values() if len(times) > 1]
        print(f"{len(self.load.accepted)} accepted, {len(copies)} delivered, {len(late)} twice,")
        print(f"which a kill followed within {max(late, default=0):.3f} seconds")

    def lateness(self, times: List[float]) -> float:
        """Say how long after a first delivery a kill came."""
        return min(abs(kill - min(times)) for kill in self.kills)

    def explains(self, first: float, second: float) -> bool:
        """Tell whether a kill came before the outcome of a delivery could be recorded."""
        return any(
            kill - _ANSWER_SECONDS < first < kill + _ORPHAN_SECONDS and kill < second
            for kill in self.kills
        )


def test_killed_at_random_moments(place: Plant) -> None:
    print(f"STRESS_SEED={SEED}")
    play(Scene(place, random.Random(SEED)).run())


# ---- what is on disk before 250 --------------------------------------------------------


class Step(NamedTuple):
    """A call that succeeded: the lines of the trace where it began and ended."""

    call: str
    began: int
    ended: int


_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+\())(.*)")
_TRACED = "fsync,fdatasync,rename,renameat,renameat2,sendto,sendmsg,write,openat,mkdirat,mkdir"


def read_trace(lines: List[str]) -> List[Step]:
    """Give the calls in a trace that did not fail."""
    steps: List[Step] = []
    begun: Dict[str, Tuple[str, int]] = {}
    for number, line in enumerate(lines):
        found = _LINE.match(line)
        if found is None:
            continue
        pid, resumed, name, rest = found.groups()
        call, start = begun.pop(pid) if resumed else (name + rest, number)
        if line.endswith("<unfinished ...>"):
            begun[pid] = call, start
        elif " = -1 " not in line:
            steps.append(Step(call, start, number))
    return steps


class Trace:
    """The calls of a daemon; each question is about exactly one, or several, of them."""

    def __init__(self, text: str) -> None:
        self.steps = read_trace(text.splitlines())

    def all(self, pattern: str) -> List[Step]:
        return [step for step in self.steps if re.match(pattern, step.call)]

    def one(self, pattern: str) -> Step:
        (step,) = self.all(pattern)
        return step


@pytest.mark.parametrize("size", [2000, LARGE])
def test_everything_is_synced_before_250(place: Plant, size: int) -> None:
    place.configure(place.to_maildir)
    log = place.directory / "trace"
    # The descriptors of a path, the first octets of what is written, all processes.
    place.start("strace", "-f", "-y", "-s", "64", "-o", str(log), "-e", f"trace={_TRACED}")

    async def scene() -> None:
        async with Client(place.port) as client:
            answer = await client.mail(mail("traced", size), LOCAL, "alice+two@here.test")
            assert answer.startswith("250"), answer
        await eventually(lambda: len(place.delivered().get("traced", [])) == 2)

    play(scene())
    place.kill()
    check_trace(Trace(log.read_text(errors="replace")), str(place.spool), large=size == LARGE)


def check_trace(trace: Trace, spool: str, *, large: bool) -> None:
    """Hold a trace of one commit, of two envelopes, against the order that makes it last."""
    answer = trace.one(r'(sendto|sendmsg|write)\(.*"250 2\.0\.0:? [0-9a-f]{8} ')
    found = re.search(r'"250 2\.0\.0:? ([0-9a-f]{8}) ', answer.call)
    assert found is not None
    msgid = found[1]
    incoming, queue = f"{spool}/incoming", f"{spool}/queue"
    place, bucket = f"{incoming}/{msgid}", f"{queue}/{msgid[:2]}"
    flush = r"(fsync|fdatasync)\(\d+<"
    bodies = trace.all(rf"{flush}{re.escape(place)}/message>")
    before = list(bodies)
    if large:  # it was received into a file, which is moved
        before += trace.all(rf'rename\w*\(.*"temporary/{msgid}", .*"incoming/{msgid}/message"')
        assert len(before) == 2
    assert len(bodies) == 1
    envelopes = trace.all(rf"{flush}{re.escape(place)}/{msgid}[0-9a-f]{{8}}>")
    assert len(envelopes) == 2
    within = trace.one(rf"{flush}{re.escape(place)}>")
    rename = trace.one(rf'rename\w*\(.*"incoming/{msgid}", .*"queue/{msgid[:2]}/{msgid}"')
    after = [
        next(step for step in trace.all(rf"{flush}{re.escape(path)}>") if step.began > rename.ended)
        for path in (bucket, queue, incoming)
    ]
    assert all(step.ended < within.began for step in [*before, *envelopes])
    assert within.ended < rename.began
    assert all(step.ended < answer.began for step in after)


# ---- nothing left to work with ---------------------------------------------------------


async def check_refused(place: Plant, size: int) -> None:
    """Send a mail that is to be refused, for now; nothing of it stays."""
    async with Client(place.port) as client:
        answer = await client.mail(mail("refused", size))
    assert answer[:1] == "4", answer
    await eventually(lambda: not place.unfinished(), place.unfinished)


@namespace.ROOT_ONLY
def test_a_full_disk() -> None:
    def inside() -> bytes:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x20000):  # sched.h: CLONE_NEWNS
            raise OSError(ctypes.get_errno(), "unshare")
        namespace.mount("--make-rprivate", "/")
        with plant() as place:
            place.spool.mkdir(mode=0o711)
            namespace.mount("-t", "tmpfs", "-o", "size=2m,mode=711", "tmpfs", place.spool)
            place.configure(place.to_maildir)
            owner = place.directory.stat()
            os.chown(place.spool, owner.st_uid, owner.st_gid)
            place.start()
            try:
                play(fill(place))
                assert place.stop() == 0
                assert not place.unfinished()
            except BaseException as error:
                raise RuntimeError(f"{error!r}\n{place.said()[-4000:]}") from error
            finally:
                place.kill()
                subprocess.run(["umount", "-l", str(place.spool)], check=True)
        return b""

    in_child(inside)


async def fill(place: Plant) -> None:
    """Send mail to a daemon whose disk fills up and is emptied."""
    ballast = place.spool / "ballast"
    async with Client(place.port) as client:
        assert (await client.mail(mail("first"))).startswith("250")
        await eventually(lambda: "first" in place.delivered())
        for left in (0, 8192, 100_000):
            take_room(ballast, left)
            for size in (2000, LARGE) if left == 0 else (LARGE,):
                await check_refused(place, size)
            assert not place.queued()
            ballast.unlink()
            for size in (2000, LARGE):
                answer = await client.mail(mail(f"fine-{left}-{size}", size))
                assert answer.startswith("250"), answer
            await eventually(lambda: not place.queued_now(), place.queued_now)
    assert "refused" not in place.delivered()
    assert sum(map(len, place.delivered().values())) == 7


def take_room(ballast: pathlib.Path, left: int) -> None:
    """Fill the file system, but for so many octets."""
    room = os.statvfs(ballast.parent)
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        file.write(bytes(room.f_bavail * room.f_frsize - left))
        while not left:
            file.write(bytes(4096))


@contextlib.contextmanager
def starved(place: Plant, pid: int) -> Iterator[None]:
    """Let a process of the daemon open nothing more."""
    soft, hard = limit(place, pid, 3, -1)
    try:
        yield
    finally:
        limit(place, pid, soft, hard)


def limit(place: Plant, pid: int, soft: int, hard: int) -> Tuple[int, int]:
    """Set, as the user of the daemon, a limit of a process; give what it was. -1 stays."""
    code = (
        "import resource, sys; pid, soft, hard = map(int, sys.argv[1:]);"
        "was = resource.prlimit(pid, resource.RLIMIT_NOFILE);"
        "resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, was[1] if hard < 0 else hard));"
        "print(*was)"
    )
    command = [place.python, "-Ic", code, *map(str, (pid, soft, hard))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, **as_user())
    was = [int(word) for word in done.stdout.split()]
    return was[0], was[1]


def test_the_queue_role_cannot_open_files(place: Plant) -> None:
    place.configure(place.to_maildir)
    place.start()

    async def scene() -> None:
        with starved(place, place.roles()["smtpd-queue"]):
            for size in (2000, LARGE):
                await check_refused(place, size)
        assert not place.queued()
        async with Client(place.port) as client:
            for size in (2000, LARGE):
                assert (await client.mail(mail(f"fine-{size}", size))).startswith("250")
        await eventually(lambda: len(place.delivered()) == 2)

    play(scene())
    assert place.stop() == 0
    assert not place.queued()
    assert set(place.delivered()) == {f"fine-{LARGE}", "fine-2000"}


def test_the_others_cannot_take_descriptors(place: Plant) -> None:
    place.configure(place.to_maildir)
    place.start()

    async def scene() -> None:
        roles = place.roles()
        async with Client(place.port) as one, Client(place.port) as client:
            with contextlib.ExitStack() as stack:
                for name, pid in roles.items():
                    if name.startswith("smtpd-disp"):
                        stack.enter_context(starved(place, pid))
                assert (await one.mail(mail("refused", LARGE)))[:1] == "4"
                assert (await client.mail(mail("kept"))).startswith("250")
                await eventually(lambda: place.said().count("result=TempFail") == 1)
            assert (await client.begin([LOCAL])).startswith("354")
            with starved(place, roles["supervisor"]):
                assert (await client.send(mail("held") + b".\r\n")).startswith("250")
                await eventually(lambda: place.said().count("result=TempFail") == 2)
            assert (await client.mail(mail("fine", LARGE))).startswith("250")
        await eventually(lambda: "fine" in place.delivered())
        assert place.roles() == roles  # nobody had to be replaced

    play(scene())
    assert place.stop() == 0
    assert {name for name, _ in place.queued()} == {"kept", "held"}
    place.check_spool()


def test_clients_wait_while_there_are_no_descriptors(place: Plant) -> None:
    place.configure(place.to_maildir)
    place.start()

    async def scene() -> None:
        async def send() -> None:
            async with Client(place.port) as client:
                assert (await client.mail(mail("late"))).startswith("250")

        with contextlib.ExitStack() as stack:
            for name, pid in place.roles().items():
                if name.startswith("smtpd-disp"):
                    stack.enter_context(starved(place, pid))
            sending = asyncio.ensure_future(send())
            await eventually(lambda: "Disabling incoming SMTP connections" in place.said())
            assert not sending.done()
        await sending
        await eventually(lambda: "late" in place.delivered())

    play(scene())
    assert place.stop() == 0


# ---- told to stop, told to read again --------------------------------------------------


def test_stopping_waits_for_what_was_begun(place: Plant) -> None:
    notes = place.directory / "notes"
    script = place.directory / "slow"
    script.write_text(
        f"#!/bin/sh\ncat >/dev/null\necho begun >>{notes}\nsleep 1\necho ended >>{notes}\n"
    )
    script.chmod(0o755)

    async def scene() -> None:
        sink = Sink()
        sink.pause_seconds = 1.0
        await sink.start()
        place.configure(
            f'action "local" mda "{script}" userbase <users>\n'
            'match from any for domain "here.test" action "local"\n'
            f'action "out" relay host "smtp+notls://127.0.0.1:{sink.port}"\n'
            'match from any for domain "far.test" action "out"\n'
        )
        place.start()
        async with Client(place.port) as late, Client(place.port) as client:
            assert (await late.begin([LOCAL])).startswith("354")
            assert (await client.mail(mail("both"), LOCAL, FAR)).startswith("250")
            await eventually(lambda: notes.exists() and sink.taken, place.said)
            place.signal(signal.SIGTERM)
            await eventually(lambda: not accepts(place.port))
            assert (await late.send(mail("late") + b".\r\n")).startswith("250")
        process = place.process
        assert process is not None
        await eventually(lambda: process.poll() is not None)
        assert process.returncode == 0
        assert notes.read_text() == "begun\nended\n"
        assert list(sink.taken) == ["both"]
        assert place.queued() == {("late", LOCAL)}
        place.check_spool()

        place.log.unlink()
        place.start()
        await eventually(lambda: not place.queued_now(), place.queued_now)
        assert await asyncio.get_running_loop().run_in_executor(None, place.stop) == 0
        assert notes.read_text() == "begun\nended\n" * 2
        assert len(sink.taken["both"]) == 1

    play(scene())


def accepts(port: int) -> bool:
    """Tell whether somebody listens, without being noticed much."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def test_reading_the_configuration_again(place: Plant) -> None:
    place.configure(place.to_maildir)
    place.start()

    async def scene() -> None:
        async with Client(place.port) as client:
            assert (await client.say("MAIL FROM:<sender@far.test>")).startswith("250")
            good = place.config.read_text()
            place.config.write_text(good + "match from nowhere\n")
            place.signal(signal.SIGHUP)
            await eventually(lambda: "the configuration stays as it was" in place.said())
            assert f"reload: {place.config}:5: " in place.said()
            async with Client(place.port) as other:
                assert (await other.mail(mail("old"))).startswith("250")

            port = free_port()
            place.config.write_text(
                f"listen on 127.0.0.1 port {port}\n" + good.replace("here.test", "there.test")
            )
            place.signal(signal.SIGHUP)
            await eventually(lambda: "configuration reloaded" in place.said())
            async with Client(place.port) as other, Client(port) as elsewhere:
                assert (await other.mail(mail("never"))).startswith("550")
                assert (await elsewhere.mail(mail("new"), "alice@there.test")).startswith("250")

            assert (await client.say(f"RCPT TO:<{LOCAL}>")).startswith("250")
            assert (await client.say("DATA")).startswith("354")
            assert (await client.send(mail("open") + b".\r\n")).startswith("250")
        await eventually(lambda: set(place.delivered()) == {"old", "new", "open"})

    play(scene())
    assert place.stop() == 0
    assert all(len(times) == 1 for times in place.delivered().values())
    assert not place.queued()
