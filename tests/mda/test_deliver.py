"""Deliveries in a dispatcher, with a queue and a supervisor that only remember."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, List, Optional, Tuple, Union

import pytest

from smtpd_core.config import model
from smtpd_core.config.problems import Place
from smtpd_core.config.settings import MdaLimits
from smtpd_core.errors import SmtpdError
from smtpd_core.mda.deliver import Deliveries, Services, Settings, delay_text
from smtpd_core.mda.job import Job, JobResult, exited
from smtpd_core.queue.envelope import Envelope
from smtpd_core.routing.policy import User
from smtpd_core.routing.rules import Failure

if TYPE_CHECKING:
    from smtpd_core.mail.status import Outcome

NOW = 1_700_000_000
TEXT = b"Subject: x\n\nHello\n"
EVPID = 0x1234567890ABCDEF


class Queue:
    """A queue that holds one message."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.opened: List[int] = []
        self.reports: List[Tuple[int, Outcome]] = []
        self.held: List[Tuple[int, str]] = []
        self.released: List[Tuple[str, int]] = []
        self.broken = False

    async def open_message(self, msgid: int) -> int:
        if self.broken:
            raise SmtpdError("gone")
        self.opened.append(msgid)
        with tempfile.TemporaryFile() as file:
            file.write(self.text)
            file.flush()
            return os.dup(file.fileno())

    def report(self, evpid: int, outcome: Outcome, *, peer_reports: bool = False) -> None:
        assert not peer_reports
        self.reports.append((evpid, outcome))

    def hold(self, evpid: int, holdq: str) -> None:
        self.held.append((evpid, holdq))

    def release(self, holdq: str, count: int) -> None:
        self.released.append((holdq, count))


class Supervisor:
    """A supervisor whose jobs end when they are told to; the message must be readable then."""

    def __init__(self) -> None:
        self.jobs: List[Job] = []
        self.ends: List[asyncio.Future[JobResult]] = []
        self.result: Union[JobResult, Exception, None] = exited(0)

    async def run(self, job: Job, message_fd: int) -> JobResult:
        self.jobs.append(job)
        assert os.pread(message_fd, 7, 0) == b"Subject"
        if isinstance(self.result, Exception):
            raise self.result
        if self.result is not None:
            return self.result
        end: asyncio.Future[JobResult] = asyncio.get_running_loop().create_future()
        self.ends.append(end)
        return await end


class World:
    """All that deliveries talk to."""

    def __init__(self, limits: MdaLimits, text: bytes = TEXT) -> None:
        self.queue = Queue(text)
        self.supervisor = Supervisor()
        self.asked: List[Tuple[str, str]] = []
        self.lines: List[Tuple[str, str]] = []
        self.stats: Dict[str, int] = {}
        self.users: Dict[str, Union[User, Failure, None]] = {
            name: User(name, 1000, 1000, f"/home/{name}") for name in ("bob", "eve", "vmail")
        }
        place = Place("conf", 1)
        actions: Dict[str, model.Action] = {
            "local": model.LocalAction("local", place, model.Method.MBOX, userbase="<users>"),
            "vmail": model.LocalAction("vmail", place, model.Method.MAILDIR, user="vmail"),
            "gone": model.LocalAction("gone", place, model.Method.MAILDIR, user="gone"),
            "relay": model.RelayAction("relay", place),
        }
        numbers = itertools.count(0xABC)
        self.deliveries = Deliveries(
            Services(
                self.queue,
                self.supervisor,
                self.find_user,
                lambda level, line: self.lines.append((level, line)),
                self,
                lambda: NOW,
            ),
            Settings(actions, limits),
            lambda: next(numbers),
        )

    async def find_user(self, userbase: str, name: str) -> Union[User, Failure, None]:
        self.asked.append((userbase, name))
        return self.users.get(name)

    def set(self, key: str, value: int) -> None:
        self.stats[key] = value

    def take(self, evpid: int = EVPID, **changes: Any) -> None:
        values: Dict[str, Any] = {
            "dispatcher": "local",
            "sender": "alice@example.com",
            "rcpt": "list@example.org",
            "dest": "bob@example.org",
            "mda_user": "bob",
            "ctime": NOW - 3723,
        }
        values.update(changes)
        self.deliveries.take(evpid, Envelope(**values))

    async def settle(self) -> None:
        """Let everything happen that can."""
        for _ in range(50):
            await asyncio.sleep(0)


def in_world(
    story: Callable[[World], Awaitable[None]], limits: Optional[MdaLimits] = None, **more: Any
) -> World:
    async def tell() -> World:
        world = World(limits or MdaLimits(), **more)
        await story(world)
        await world.deliveries.close()
        return world

    return asyncio.run(tell())


def one(result: Union[JobResult, Exception, None] = None, **changes: Any) -> World:
    """Give one envelope its attempt."""

    async def story(world: World) -> None:
        world.supervisor.result = result or exited(0)
        world.take(**changes)
        await world.settle()

    return in_world(story)


def test_a_delivery_ends_in_one_report_and_one_line() -> None:
    world = one()
    ((evpid, outcome),) = world.queue.reports
    assert (evpid, str(outcome.status), outcome.text) == (EVPID, "2.0.0", "Delivered")
    assert world.lines == [
        (
            "info",
            (
                "0000000000000abc mda delivery evpid=1234567890abcdef from=<alice@example.com>"
                " to=<bob@example.org> rcpt=<list@example.org> user=bob delay=1h2m3s result=Ok"
                " stat=Delivered"
            ),
        )
    ]
    assert world.queue.opened == [EVPID >> 32]
    (job,) = world.supervisor.jobs
    assert (job.user, job.prefix) == (
        "bob",
        "Return-Path: <alice@example.com>\nDelivered-To: list@example.org\n",
    )
    assert world.asked == [("<users>", "bob")]
    assert set(world.stats.values()) == {0}


@pytest.mark.parametrize(
    ("changes", "result", "text", "tail"),
    [
        (
            {},
            exited(75, "full"),
            '"full"',
            'result=TempFail stat=Error (temporary failure: "full")',
        ),
        (
            {"sender": "@"},
            exited(67),
            "exited abnormally",
            "result=PermFail stat=Error (user unknown: exited abnormally)",
        ),
        (
            {"mda_user": "nobody"},
            None,
            "Permanent failure in user lookup",
            "user=nobody delay=1h2m3s result=PermFail stat=Permanent failure in user lookup",
        ),
        (
            {"mda_user": "broken"},
            None,
            "Temporary failure in user lookup",
            "result=TempFail stat=Temporary failure in user lookup",
        ),
        (
            {"dispatcher": "gone"},
            None,
            "delivery user 'gone' does not exist",
            "result=PermFail stat=Error (user unknown: delivery user 'gone' does not exist)",
        ),
        (
            {"dispatcher": "relay"},
            None,
            "no local action is called 'relay' any more",
            "result=TempFail stat=no local action is called 'relay' any more",
        ),
        (
            {},
            SmtpdError("the supervisor is busy"),
            "Cannot run the delivery: the supervisor is busy",
            "result=TempFail stat=Cannot run the delivery: the supervisor is busy",
        ),
        ({}, ZeroDivisionError("bug"), "Internal error", "result=TempFail stat=Internal error"),
    ],
)
def test_how_an_attempt_can_fail(
    changes: Dict[str, Any], result: Union[JobResult, Exception], text: str, tail: str
) -> None:
    async def story(world: World) -> None:
        world.users["broken"] = Failure("down")
        world.supervisor.result = result
        world.take(**changes)
        await world.settle()

    world = in_world(story)
    ((_, outcome),) = world.queue.reports
    assert outcome.text == text
    assert world.lines[-1][1].endswith(tail)
    assert ("from=<>" in world.lines[-1][1]) is ("sender" in changes)


def test_a_message_that_cannot_be_opened() -> None:
    async def story(world: World) -> None:
        world.queue.broken = True
        world.take()
        await world.settle()

    ((_, outcome),) = in_world(story).queue.reports
    assert outcome.text == "Cannot get message fd"


@pytest.mark.parametrize(
    ("dest", "loops"), [("bob@example.org", True), ("BOB@example.org", True), ("b@c", False)]
)
def test_a_message_that_was_here_before_goes_round(dest: str, loops: bool) -> None:
    async def story(world: World) -> None:
        world.take(dest=dest)
        await world.settle()

    text = b"Subject: x\nDelivered-To: a@b\ndelivered-to: Bob@Example.org\n\n"
    world = in_world(story, text=text)
    ((_, outcome),) = world.queue.reports
    assert (outcome.text == "Loop detected") is loops
    assert world.lines[-1][1].endswith("result=PermFail stat=Loop detected") is loops
    assert (str(outcome.status) == "4.4.6") is loops


def test_whom_an_action_or_an_alias_names_is_a_user_of_the_system() -> None:
    assert one(dispatcher="vmail").asked == [("<getpwnam>", "bob"), ("<getpwnam>", "vmail")]
    world = one(mda_user="_smtpd", mda_exec="archive")
    assert world.asked == [("<getpwnam>", "_smtpd")]


def test_what_is_logged_is_one_line() -> None:
    world = one(exited(75, "a\nb\x1b[31m"), rcpt="a\u202eb@c")
    assert len(world.lines) == 1
    assert world.lines[0][1].isprintable()


def test_limits_turns_and_holding() -> None:
    limits = MdaLimits(
        max_session=3, max_session_per_user=2, task_hiwat=4, task_lowat=2, task_release=2
    )

    async def story(world: World) -> None:
        world.supervisor.result = None
        for evpid in range(1, 7):
            world.take(evpid)
        world.take(7, mda_user="eve")
        await world.settle()
        assert [job.user for job in world.supervisor.jobs] == ["bob", "bob", "eve"]
        assert world.queue.held == [(5, "mda <users> bob"), (6, "mda <users> bob")]
        assert world.stats == {
            "mda.envelope": 5,
            "mda.user": 2,
            "mda.pending": 2,
            "mda.running": 3,
        }
        world.supervisor.ends[0].set_result(exited(0))
        world.supervisor.ends[1].set_result(exited(0))
        await world.settle()
        assert world.queue.released == [("mda <users> bob", 2)]
        assert len(world.supervisor.jobs) == 5
        for end in world.supervisor.ends[2:]:
            end.set_result(exited(0))
        await world.settle()
        assert world.queue.released[-1] == ("mda <users> bob", 0)
        assert [evpid for evpid, _ in world.queue.reports] == [1, 2, 7, 3, 4]

    world = in_world(story, limits)
    ids = {line.split()[0] for _, line in world.lines}
    assert len(ids) == 2  # one a user


def test_closing_waits_for_what_runs_and_begins_nothing() -> None:
    async def story(world: World) -> None:
        world.supervisor.result = None
        for evpid in range(1, 10):
            world.take(evpid)
        await world.settle()
        closing = asyncio.ensure_future(world.deliveries.close())
        await world.settle()
        assert not closing.done()
        world.take(10)
        for end in world.supervisor.ends:
            end.set_result(exited(0))
        await closing
        assert sorted(evpid for evpid, _ in world.queue.reports) == list(range(1, 8))
        assert not world.queue.held
        assert not world.queue.released

    in_world(story)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3723, "1h2m3s"), (176400, "2d1h"), (86401, "1d1s")],
)
def test_delays(seconds: int, text: str) -> None:
    assert delay_text(seconds) == text
