"""The spool: what is promised holds wherever it is stopped, and whatever the disk refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core import ids
from smtpd_core.errors import LocalError
from smtpd_core.queue import codec, setup
from smtpd_core.queue.directory import DirectorySource
from smtpd_core.queue.disk import SpoolError, SystemDisk
from smtpd_core.queue.entries import Entry, read_entries
from smtpd_core.queue.envelope import Envelope, parse_envelope
from smtpd_core.queue.recovery import PURGE_KEPT_SECONDS, PURGE_NAMES_MAX, Trouble
from smtpd_core.queue.releases import find_release, format_envelope
from smtpd_core.queue.spool import NewMessage, Spool
from smtpd_core.queue.storing import Settings
from smtpd_core.queue.waiting import Waiting, WaitingReader, waiting_of
from tests.fakes.disk import REFUSALS, Directory, ModelDisk, Stopped

if TYPE_CHECKING:
    import pathlib
    import random
    from collections.abc import Callable, Iterator

    from smtpd_core.queue.disk import Disk

DIRECTORIES = ("queue", "incoming", "temporary", "purge")
BODY = b"Received: from here\n\nA text that must not be lost.\n"
KEY = codec.parse_key(b"0123456789abcdef0123456789abcdef")
NOW = 1_700_000_000


class Chance:
    """Octets that look random and are the same each time."""

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.sha256(f"{self._seed}{self._count}".encode()).digest()[:size]


def envelope(rcpt: str = "bob@example.org", **values: Union[str, int]) -> Envelope:
    usual: dict[str, Union[str, int]] = {
        "version": 3,
        "dispatcher": "outbound",
        "type": "mta",
        "smtpname": "mx.example.org",
        "helo": "client",
        "hostname": "client.example.net",
        "family": "inet4",
        "address": "192.0.2.1",
        "sender": "alice@example.net",
        "rcpt": rcpt,
        "dest": rcpt,
        "ctime": NOW,
    }
    return Envelope(**{**usual, **values})


def model(torn: bool = False) -> ModelDisk:
    disk = ModelDisk(torn_renames=torn)
    for name in DIRECTORIES:
        disk.mkdir(name, 0o700)
    disk.flush_directory(".")
    return disk


def opened(disk: Disk, seed: str = "", settings: Union[Settings, None] = None) -> Spool:
    return Spool.open(disk, settings or Settings(), Chance(seed))


def text_of(given: Envelope) -> bytes:
    release = find_release("6.8" if given.version == 3 else "5.7")
    return format_envelope(given, release)


class Stored(NamedTuple):
    body: Union[bytes, None]
    envelopes: dict[int, bytes]


def queue_of(disk: ModelDisk) -> dict[int, Stored]:
    """Read what the queue holds, and insist that every name in the spool is of the table."""
    found: dict[int, Stored] = {}
    for path, octets in disk.tree().items():
        parts = path.split("/")
        if parts[0] != "queue" or len(parts) < 3:
            assert parts[0] in DIRECTORIES
            assert len(parts) < 2 or parts[0] != "queue" or octets is None
            continue
        assert parts[2].startswith(parts[1])
        message = found.setdefault(int(parts[2], 16), Stored(None, {}))
        if len(parts) == 3:
            assert octets is None
        elif parts[3] == "message":
            found[int(parts[2], 16)] = Stored(octets, message.envelopes)
        else:
            assert ids.is_evpid_name(parts[3])
            assert parts[3].startswith(parts[2])
            assert octets is not None
            message.envelopes[int(parts[3], 16)] = octets
    return found


# --- the crash walk


class Scenario(NamedTuple):
    """What is done before and during the walk, and what has to hold afterwards.

    `prepare` gives what `act` and `verify` need to know; `verify` hears whether act came to its
    end, and sees the queue after a restart.
    """

    name: str
    prepare: Callable[[Spool], list[int]]
    act: Callable[[Spool, list[int]], object]
    verify: Callable[[dict[int, Stored], list[int], bool], None]


SECOND = BODY * 3
BOB, CAROL, BOUNCE = envelope(), envelope("carol@example.com"), envelope(type="bounce")
LATER = envelope(retry=1, errorline="450 later")
TEXTS = {text_of(each) for each in (BOB, CAROL, BOUNCE, LATER)}
FIRST_ID, SECOND_ID, THIRD_ID = 0xAB000001, 0xAB000002, 0xCD000003


def committed(spool: Spool) -> list[int]:
    return spool.commit(NewMessage(FIRST_ID, BODY, [BOB, CAROL]))


def nothing(spool: Spool) -> list[int]:
    return []


def body_file(spool: Spool) -> list[int]:
    handle = spool.open_body(FIRST_ID)
    spool._disk.write(handle, BODY)
    return []


def removed_and_left_over(spool: Spool) -> list[int]:
    """One message in the queue, one completed, and the leftovers of an earlier process."""
    evpids = committed(spool)
    (other,) = spool.commit(NewMessage(SECOND_ID, SECOND, [BOB]))
    spool.remove(other)
    spool.open_body(THIRD_ID)
    spool._disk.mkdir(f"incoming/{THIRD_ID:08x}", 0o700)
    spool._disk.close(spool._disk.create(f"incoming/{THIRD_ID:08x}/message", 0o600))
    spool._disk.close(spool._disk.create("incoming/envelope.tmp", 0o600))
    return evpids


def verify_commit(queue: dict[int, Stored], evpids: list[int], done: bool) -> None:
    assert len(queue) <= 1
    if done:
        assert len(queue) == 1
    for message in queue.values():
        assert message.body == BODY
        assert sorted(message.envelopes.values()) == sorted([text_of(BOB), text_of(CAROL)])


def verify_commit_many(queue: dict[int, Stored], evpids: list[int], done: bool) -> None:
    expected = {
        FIRST_ID: (BODY, [BOB]),
        SECOND_ID: (SECOND, [BOB, CAROL]),
        THIRD_ID: (BODY, [CAROL]),
    }
    assert queue.keys() <= expected.keys()
    if done:
        assert queue.keys() == expected.keys()
    for msgid, message in queue.items():
        body, envelopes = expected[msgid]
        assert message.body == body
        assert sorted(message.envelopes.values()) == sorted(map(text_of, envelopes))


def verify_update(queue: dict[int, Stored], evpids: list[int], done: bool) -> None:
    assert queue[FIRST_ID].body == BODY
    assert queue[FIRST_ID].envelopes.keys() == set(evpids)
    assert queue[FIRST_ID].envelopes[evpids[1]] == text_of(CAROL)
    allowed = [text_of(LATER)] if done else [text_of(BOB), text_of(LATER)]
    assert queue[FIRST_ID].envelopes[evpids[0]] in allowed


def verify_add(queue: dict[int, Stored], evpids: list[int], done: bool) -> None:
    message = queue[FIRST_ID]
    assert message.body == BODY
    assert [message.envelopes[evpid] for evpid in evpids] == [text_of(BOB), text_of(CAROL)]
    added = [text for evpid, text in message.envelopes.items() if evpid not in evpids]
    assert set(added) <= {text_of(BOUNCE), text_of(LATER)}
    assert len(added) == 2 or not done


def verify_remove(queue: dict[int, Stored], evpids: list[int], done: bool) -> None:
    """The removed one may come back, never without its body; the other stays."""
    assert queue[FIRST_ID].body == BODY
    assert queue[FIRST_ID].envelopes[evpids[1]] == text_of(CAROL)
    assert queue[FIRST_ID].envelopes.keys() <= set(evpids)


def remove_all(spool: Spool, evpids: list[int]) -> None:
    for evpid in evpids:
        spool.remove(evpid)


def verify_remove_all(queue: dict[int, Stored], evpids: list[int], done: bool) -> None:
    for message in queue.values():
        assert message.body == BODY
        assert message.envelopes
        assert message.envelopes.keys() <= set(evpids)


def remove_and_sync(spool: Spool, evpids: list[int]) -> None:
    remove_all(spool, evpids)
    spool.sync()


def verify_synced(queue: dict[int, Stored], evpids: list[int], done: bool) -> None:
    verify_remove_all(queue, evpids, done)
    assert not (done and queue)


def start_again(spool: Spool, evpids: list[int]) -> None:
    again = opened(spool._disk, "again")
    list(again.walk())
    model_disk = spool._disk
    assert isinstance(model_disk, ModelDisk)
    model_disk.now += PURGE_KEPT_SECONDS
    list(again.purge(model_disk.now))


def verify_start(queue: dict[int, Stored], evpids: list[int], done: bool) -> None:
    message = queue.pop(FIRST_ID)
    assert message.body == BODY
    assert message.envelopes.keys() == set(evpids)
    for other in queue.values():  # the completed one may come back, whole
        assert other.body == SECOND
        assert list(other.envelopes.values()) == [text_of(BOB)]


SCENARIOS = [
    Scenario(
        "commit",
        nothing,
        lambda spool, _: committed(spool),
        verify_commit,
    ),
    Scenario(
        "commit of a body file",
        body_file,
        lambda spool, _: spool.commit(NewMessage(FIRST_ID, len(BODY), [BOB, CAROL])),
        verify_commit,
    ),
    Scenario(
        "commit_many",
        nothing,
        lambda spool, _: spool.commit_many(
            [
                NewMessage(FIRST_ID, BODY, [BOB]),
                NewMessage(SECOND_ID, SECOND, [BOB, CAROL]),
                NewMessage(THIRD_ID, BODY, [CAROL]),
            ]
        ),
        verify_commit_many,
    ),
    Scenario(
        "update", committed, lambda spool, evpids: spool.update(evpids[0], LATER), verify_update
    ),
    Scenario(
        "add",
        committed,
        lambda spool, _: spool.add_envelopes(FIRST_ID, [BOUNCE, LATER]),
        verify_add,
    ),
    Scenario("remove", committed, lambda spool, evpids: spool.remove(evpids[0]), verify_remove),
    Scenario("remove all", committed, remove_all, verify_remove_all),
    Scenario("remove and sync", committed, remove_and_sync, verify_synced),
    Scenario("start", removed_and_left_over, start_again, verify_start),
]
by_name = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)


def run_until(scenario: Scenario, stop: int, torn: bool) -> tuple[ModelDisk, list[int], bool]:
    """Prepare, then act up to a step; tell whether the end was reached."""
    disk = model(torn)
    spool = opened(disk)
    evpids = scenario.prepare(spool)
    if scenario.prepare is committed:
        # What was accepted earlier is on disk by its own promise; begin from there.
        disk.lose_power(lambda _: 0)
        spool = opened(disk, "second")
    disk.stop_at = disk.step + stop
    try:
        scenario.act(spool, evpids)
    except Stopped:
        return disk, evpids, False
    return disk, evpids, True


def verify_restart(scenario: Scenario, disk: ModelDisk, evpids: list[int], done: bool) -> None:
    """Start again, check the table of states, and go on as if nothing had happened."""
    spool = opened(disk, "restart")
    found = list(spool.walk())
    assert [each.reason for each in found if isinstance(each, Trouble)] == []
    queue = queue_of(disk)
    listed = [each.evpid for each in found if isinstance(each, Waiting)]
    assert listed == sorted(evpid for message in queue.values() for evpid in message.envelopes)
    for message in queue.values():
        assert message.body is not None
        assert message.envelopes
        assert set(message.envelopes.values()) <= TEXTS
    assert [path for path in disk.tree() if path.startswith(("incoming/", "temporary/"))] == []
    scenario.verify(dict(queue), evpids, done)
    # The buckets that the dead process made must carry what is promised from now on.
    new = [0xAB00FFFF, 0xCD00FFFF]
    for msgid in new:
        spool.commit(NewMessage(msgid, SECOND, [BOB]))
    disk.lose_power(lambda _: 0)
    queue = queue_of(disk)
    assert [queue[msgid].body for msgid in new] == [SECOND, SECOND]


class Policy:
    """Decide what is kept: one way for all, and another for the choice of one number."""

    def __init__(self, usual: int, odd: int = -1) -> None:
        self._usual = usual
        self._odd = odd
        self.count = -1

    def __call__(self, possibilities: int) -> int:
        self.count += 1
        answer = self._usual if self.count != self._odd else 3 - self._usual
        return min(answer, possibilities - 1)


@pytest.mark.parametrize("torn", [False, True], ids=["whole renames", "torn renames"])
@by_name
def test_a_stop_after_every_step(scenario: Scenario, torn: bool) -> None:
    """All lost, all kept, half-written, zeros; and each single thing lost or kept alone."""
    step = 0
    done = False
    while not done:
        step += 1
        disk, evpids, done = run_until(scenario, step, torn)
        disk.restart()  # the process died, the system did not
        verify_restart(scenario, disk, evpids, done)
        choices = 0
        for usual in (0, 1, 2, 3):
            disk, evpids, done = run_until(scenario, step, torn)
            policy = Policy(usual)
            disk.lose_power(policy)
            choices = max(choices, policy.count + 1)
            verify_restart(scenario, disk, evpids, done)
        for usual in (0, 3):
            for odd in range(choices):
                disk, evpids, done = run_until(scenario, step, torn)
                disk.lose_power(Policy(usual, odd))
                verify_restart(scenario, disk, evpids, done)
    assert step > 2


@given(
    number=st.integers(0, len(SCENARIOS) - 1),
    step=st.integers(1, 80),
    again=st.integers(1, 30),
    torn=st.booleans(),
    chance=st.randoms(use_true_random=False),
)
def test_any_loss_and_a_second_one_while_starting(
    number: int, step: int, again: int, torn: bool, chance: random.Random
) -> None:
    scenario = SCENARIOS[number]
    disk, evpids, done = run_until(scenario, step, torn)
    disk.lose_power(chance.randrange)
    disk.stop_at = disk.step + again
    try:
        spool = opened(disk, "interrupted")
        list(spool.walk())
    except Stopped:
        pass
    disk.lose_power(chance.randrange)
    verify_restart(scenario, disk, evpids, done)


# --- a disk that refuses


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda number: errno.errorcode[number])
@by_name
def test_one_refusal_at_every_step(scenario: Scenario, refusal: int) -> None:
    """What fails leaves nothing partial behind, and no descriptor open; a retry succeeds."""
    step = 0
    refused = True
    while refused:
        step += 1
        disk = model()
        spool = opened(disk)
        evpids = scenario.prepare(spool)
        disk.refuse_at, disk.refusal = disk.step + step, refusal
        held = disk.open_handles
        failures: list[str] = []
        try:
            result = scenario.act(spool, evpids)
        except SpoolError as error:
            failures.append(str(error) if error.temporary else "not temporary")
        else:
            if scenario.name == "commit_many":
                assert isinstance(result, list)
                failures += [str(each) for each in result if isinstance(each, SpoolError)]
        assert "not temporary" not in failures
        refused = disk.step >= disk.refuse_at
        disk.refuse_at = 0
        assert disk.open_handles <= held
        if scenario.name != "start":
            assert not [path for path in disk.tree() if path.startswith("incoming/")]
        for message in queue_of(disk).values():
            assert message.body in (BODY, SECOND)
            assert set(message.envelopes.values()) <= TEXTS
        if failures and scenario.name.startswith("commit"):
            if scenario.name != "commit_many":
                assert queue_of(disk) == {}
            again = NewMessage(0xAB00FFFF, SECOND, [BOB])
            spool.commit(again)  # by itself, without any help
            disk.lose_power(lambda _: 0)
            assert queue_of(disk)[0xAB00FFFF].body == SECOND
        elif failures and scenario.name in ("update", "add"):
            scenario.act(spool, evpids)
            scenario.verify(queue_of(disk), evpids, True)
        else:
            verify_restart(scenario, disk, evpids, False)
    assert step > 2


@by_name
def test_a_disk_that_stays_full(scenario: Scenario) -> None:
    """Nothing can be written, only removed: whole messages stay whole, and room can be made."""
    reasons: set[str] = set()
    for step in range(1, 40):
        disk = model()
        spool = opened(disk)
        evpids = scenario.prepare(spool)
        disk.refuse_from, disk.refusal = disk.step + step, errno.ENOSPC
        try:
            scenario.act(spool, evpids)
        except SpoolError as error:
            reasons.add(str(error).rpartition(": ")[2])
        for message in queue_of(disk).values():
            assert message.body in (BODY, SECOND) or not message.envelopes
            assert set(message.envelopes.values()) <= TEXTS
        disk.restart()
        spool.commit(NewMessage(0xAB00FFFF, SECOND, [BOB]))
    assert reasons <= {"the disk is full"}


def test_a_full_disk_does_not_keep_messages_from_leaving() -> None:
    disk = model()
    spool = opened(disk)
    evpids = committed(spool)
    disk.refusal = errno.ENOSPC
    spool.remove(evpids[0])
    disk.refuse_at = disk.step + 2  # the listing, then the rename to purge/
    spool.remove(evpids[1])
    assert queue_of(disk) == {}
    assert [path for path in disk.tree() if path.startswith("queue/")] == ["queue/ab"]


@given(step=st.integers(1, 9), chance=st.randoms(use_true_random=False))
def test_leaving_a_full_disk_leaves_no_envelope_without_its_body(
    step: int, chance: random.Random
) -> None:
    disk = model()
    spool = opened(disk)
    (evpid,) = spool.commit(NewMessage(FIRST_ID, BODY, [BOB]))
    disk.refuse_at, disk.refusal = disk.step + 2, errno.ENOSPC
    disk.stop_at = disk.step + step
    try:
        spool.remove(evpid)
    except Stopped:
        pass
    disk.lose_power(chance.randrange)
    for message in queue_of(disk).values():
        assert not message.envelopes or message.body == BODY


def test_what_a_failure_wrote_makes_room_at_once() -> None:
    disk = model()
    spool = opened(disk)
    disk.refuse_at, disk.refusal = disk.step + 5, errno.ENOSPC
    disk.log.clear()
    failed, done = spool.commit_many(
        [NewMessage(FIRST_ID, BODY, [BOB]), NewMessage(SECOND_ID, BODY, [BOB])]
    )
    assert isinstance(failed, SpoolError)
    assert isinstance(done, list)
    removed = disk.log.index("unlink incoming/ab000001/message")
    assert removed < disk.log.index("create incoming/ab000002/message")


def test_one_failure_of_many_does_not_touch_the_others() -> None:
    disk = model()
    spool = opened(disk)
    disk.mkdir(f"incoming/{SECOND_ID:08x}", 0o700)
    results = spool.commit_many(
        [
            NewMessage(FIRST_ID, BODY, [BOB]),
            NewMessage(SECOND_ID, BODY, [BOB]),  # its id is taken
            NewMessage(THIRD_ID, BODY, [envelope(errorline="a\nb")]),
            NewMessage(0xAB000004, BODY, [BOB]),
        ]
    )
    kinds = [type(result) for result in results]
    assert kinds == [list, SpoolError, SpoolError, list]
    errors = [result for result in results if isinstance(result, SpoolError)]
    assert [error.temporary for error in errors] == [True, False]
    assert queue_of(disk).keys() == {FIRST_ID, 0xAB000004}
    assert f"incoming/{SECOND_ID:08x}" in disk.tree()  # another's: not ours to remove


def test_an_id_that_is_taken_replaces_nothing() -> None:
    disk = model()
    spool = opened(disk)
    committed(spool)
    before = queue_of(disk)
    with pytest.raises(SpoolError):
        spool.commit(NewMessage(FIRST_ID, SECOND, [BOB]))
    assert queue_of(disk) == before
    chance = iter([0, FIRST_ID, SECOND_ID])
    spool._entropy = lambda size: next(chance).to_bytes(size, "big")
    assert spool.new_msgid() == SECOND_ID


def test_an_envelope_id_that_is_taken_replaces_nothing() -> None:
    disk = model()
    spool = opened(disk)
    evpids = committed(spool)
    before = queue_of(disk)
    spool._entropy = lambda size: (evpids[0] & 0xFFFFFFFF).to_bytes(size, "big")
    with pytest.raises(SpoolError, match="exists"):
        spool.add_envelopes(FIRST_ID, [BOUNCE])
    assert queue_of(disk) == before


# --- bodies


def test_a_body_file_shorter_than_what_was_received_is_refused() -> None:
    disk = model()
    spool = opened(disk)
    handle = spool.open_body(FIRST_ID)
    disk.write(handle, BODY[:10])
    with pytest.raises(SpoolError, match="10 octets where"):
        spool.commit(NewMessage(FIRST_ID, len(BODY), [BOB]))
    assert disk.open_handles == 0
    assert not [path for path in disk.tree() if path.count("/") == 1 and "purge" not in path]


def test_a_body_file_that_is_given_up() -> None:
    disk = model()
    spool = opened(disk)
    spool.open_body(FIRST_ID)
    with pytest.raises(LocalError):
        spool.open_body(FIRST_ID)
    spool.discard_body(FIRST_ID)
    spool.discard_body(FIRST_ID)
    assert disk.open_handles == 0
    assert "temporary/ab000001" not in disk.tree()


def test_what_is_no_message_is_refused() -> None:
    disk = model()
    spool = opened(disk)
    before = disk.tree()
    for message in (
        NewMessage(FIRST_ID, 10, [BOB]),  # no file was opened
        NewMessage(FIRST_ID, BODY, []),
        NewMessage(FIRST_ID, b"", [BOB]),
    ):
        refused, done = spool.commit_many([message, NewMessage(SECOND_ID, BODY, [BOB])])
        assert isinstance(refused, SpoolError)
        assert not refused.temporary
        assert isinstance(done, list)
        spool.remove(done[0])
        spool.sync()
    assert [path for path in disk.tree() if path != "queue/ab"] == list(before)


@pytest.mark.parametrize(
    ("settings", "form"),
    [
        (Settings(), "plain"),
        (Settings(compress=True), "gzip"),
        (Settings(key=KEY), "encrypted"),
        (Settings(compress=True, key=KEY), "gzip+encrypted"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("as_file", [False, True], ids=["octets", "file"])
def test_every_form_is_stored_and_read_again(settings: Settings, form: str, as_file: bool) -> None:
    disk = model()
    spool = opened(disk, settings=settings)
    body: Union[bytes, int] = BODY
    if as_file:
        handle = spool.open_body(FIRST_ID)
        disk.write(handle, BODY)
        assert ("temporary/ab000001" in disk.tree()) == (form == "plain")
        body = len(BODY)
    (evpid,) = spool.commit(NewMessage(FIRST_ID, body, [BOB]))
    stored = queue_of(disk)[FIRST_ID]
    assert codec.decode_envelope(stored.envelopes[evpid], KEY, 9999) == (text_of(BOB), form)
    assert stored.body is not None
    assert codec.decode_envelope(stored.body, KEY, 9999) == (BODY, form)
    # Whatever the settings are later, what was stored is read and rewritten in the new form.
    again = opened(disk, "again", Settings(key=KEY))
    handle = again.open_message(FIRST_ID)
    assert disk.read(handle, 1000, 0) == BODY
    again.close_message(handle)
    assert disk.open_handles == 0
    assert again.read_envelope(evpid) == BOB
    again.update(evpid, LATER)
    assert again.read_envelope(evpid) == LATER
    assert [each.evpid for each in again.walk() if isinstance(each, Waiting)] == [evpid]
    assert not [path for path in disk.tree() if path.startswith(("incoming/", "temporary/"))]


def test_a_message_that_cannot_be_opened() -> None:
    disk = model()
    spool = opened(disk, settings=Settings(key=KEY))
    committed(spool)
    keyless = opened(disk, "again")
    for open_it, wanted in (
        (lambda: keyless.open_message(FIRST_ID), "no queue key"),
        (lambda: keyless.open_message(SECOND_ID), "the message is missing"),
        (lambda: keyless.read_envelope(FIRST_ID << 32 | 1), "no such envelope"),
    ):
        with pytest.raises(SpoolError, match=wanted) as caught:
            open_it()
        assert not caught.value.temporary
    assert disk.open_handles == 0
    assert not [path for path in disk.tree() if path.startswith("temporary/")]
    troubles = [each for each in keyless.walk() if isinstance(each, Trouble)]
    assert [each.evpid for each in troubles] == [0, 0]  # the key is missing; nothing is damaged


# --- envelopes


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_envelope_keeps_its_format(version: int) -> None:
    disk = model()
    spool = opened(disk, settings=Settings(server_name="mx.example.org"))
    evpid = FIRST_ID << 32 | 7
    old = envelope(version=version, dispatcher="", type="mda", mda_method="mbox", ttl=345600)
    if version == 3:
        old = BOB
    release = find_release({1: "5.3", 2: "5.7", 3: "6.8"}[version])
    put(disk, f"queue/ab/ab000001/{evpid:016x}", format_envelope(old, release))
    read = spool.read_envelope(evpid)
    read.retry = 3
    spool.update(evpid, read)
    parsed = parse_envelope(dict(disk.tree())[f"queue/ab/ab000001/{evpid:016x}"] or b"")
    assert parsed.damage == []
    assert parsed.envelope.version == (3 if version == 3 else 2)
    assert parsed.envelope.retry == 3
    assert parsed.envelope.smtpname == "mx.example.org"


def put(disk: ModelDisk, path: str, octets: bytes) -> None:
    parts = path.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        if disk.status("/".join(parts[:count])) is None:
            disk.mkdir("/".join(parts[:count]), 0o700)
    handle = disk.create(path, 0o600)
    disk.write(handle, octets)
    disk.close(handle)


def test_what_must_not_be_written_is_refused() -> None:
    disk = model()
    spool = opened(disk)
    evpids = committed(spool)
    before = disk.tree()
    for bad in (
        envelope(errorline="550 no\ntype: mda\nmda-exec: evil"),
        envelope(version=4),
        envelope(version=1, mta_relay_host="relay.example.org"),
        envelope(mda_exec="x" * 2047, helo="h" * 8000, type="mda"),
    ):
        with pytest.raises(SpoolError) as caught:
            spool.update(evpids[0], bad)
        assert not caught.value.temporary
    with pytest.raises(SpoolError, match="no such envelope"):
        spool.update(evpids[0] ^ 1, LATER)
    assert disk.tree() == before


def test_an_envelope_too_long_loses_the_end_of_its_error() -> None:
    disk = model()
    spool = opened(disk)
    evpid = committed(spool)[0]
    long = envelope(type="mda", mda_exec="x" * 2047, errorline="\u00e9" * 1000, helo="h" * 255)
    for name in ("sender", "rcpt", "dest"):
        setattr(long, name, f"{'l' * 255}@{'d' * 255}")
    long.dsn_orcpt = f"{'l' * 249}@{'d' * 250}"
    long.username = long.mda_user = long.smtpname = "s" * 255
    long.mda_subaddress = "t" * 255
    spool.update(evpid, long)
    text = queue_of(disk)[FIRST_ID].envelopes[evpid]
    assert len(text) == find_release("7.8").octets
    parsed = parse_envelope(text)
    assert parsed.envelope.errorline.endswith("...")
    assert parsed.envelope.mda_exec == long.mda_exec


def test_updates_share_the_flush_of_their_directory() -> None:
    disk = model()
    spool = opened(disk)
    evpids = committed(spool)
    disk.log.clear()
    assert spool.update_many([(evpids[0], LATER), (evpids[1], LATER)]) == [None, None]
    assert sum(line.startswith("flush_directory") for line in disk.log) == 1
    assert sum(line.startswith("flush ") for line in disk.log) == 2


def test_commits_share_the_flushes_of_their_directories() -> None:
    disk = model()
    spool = opened(disk)
    spool.commit_many([NewMessage(0xAB000000 + n, BODY, [BOB]) for n in range(10)])
    flushed = [line for line in disk.log if line.startswith("flush_directory")]
    assert flushed.count("flush_directory queue/ab") == 1
    assert flushed.count("flush_directory incoming") == 1


def test_more_files_than_may_be_open() -> None:
    disk = model()
    spool = opened(disk)
    most = 0

    def run(function: Callable[[int], object], items: list[int]) -> Iterator[object]:
        nonlocal most
        most = max(most, disk.open_handles)
        return map(function, items)

    results = spool.commit_many(
        [NewMessage(FIRST_ID, BODY, [BOB] * 500)],
        run,  # type: ignore[arg-type]  # as exact as it needs to be
    )
    assert isinstance(results[0], list)
    assert len(queue_of(disk)[FIRST_ID].envelopes) == len(set(results[0])) == 500
    assert most < 256
    disk.lose_power(lambda _: 0)
    assert len(queue_of(disk)[FIRST_ID].envelopes) == 500


# --- removal and housekeeping


def test_the_room_of_a_removed_message_is_freed_by_sync() -> None:
    disk = model()
    spool = opened(disk)
    for evpid in committed(spool):
        spool.remove(evpid)
        spool.remove(evpid)  # no error
    assert any(path.endswith("/message") for path in disk.tree())
    spool.sync()
    assert not any(path.endswith("/message") for path in disk.tree())
    disk.refuse_at, disk.refusal = disk.step + 1, errno.EIO
    spool.sync()  # nothing to do, so nothing fails


def test_a_sync_that_fails_is_done_again() -> None:
    disk = model()
    spool = opened(disk)
    for evpid in committed(spool):
        spool.remove(evpid)
    disk.refuse_at, disk.refusal = disk.step + 1, errno.EIO
    with pytest.raises(SpoolError):
        spool.sync()
    assert any(path.endswith("/message") for path in disk.tree())
    spool.sync()
    assert not any(path.endswith("/message") for path in disk.tree())


def test_leftovers_stay_for_an_hour() -> None:
    disk = model()
    put(disk, "incoming/ab000001/message", BODY)
    put(disk, "incoming/ab000001/ab00000100000001", text_of(BOB))
    put(disk, "incoming/envelope.tmp", b"half")
    put(disk, "temporary/cd000003", BODY)
    disk.now = NOW
    spool = opened(disk)
    kept = sorted(path.partition("/")[2].partition("/")[2] for path in disk.tree() if "/" in path)
    assert [path for path in kept if path] == [
        "ab000001",
        "ab000001/ab00000100000001",
        "ab000001/message",
        "cd000003",
    ]
    list(spool.purge(NOW + PURGE_KEPT_SECONDS - 1))
    assert any(path.endswith("/message") for path in disk.tree())
    list(spool.purge(NOW + PURGE_KEPT_SECONDS))
    assert [path for path in disk.tree() if path.startswith("purge/")] == [
        spool._removal.generation
    ]


def test_a_purge_pauses_and_passes_over_what_it_cannot_delete() -> None:
    disk = model()
    for number in range(PURGE_NAMES_MAX + 10):
        put(disk, f"purge/7/{number:08x}", BODY)
    put(disk, "purge/8/deep/er/and/deeper", b"x")
    disk.now = NOW
    spool = opened(disk)
    pauses = 0
    for _ in spool.purge(NOW + PURGE_KEPT_SECONDS):
        pauses += 1
        assert "purge/7" in disk.tree()
    assert pauses == 1
    assert "purge/7" not in disk.tree()


# --- the walk


def test_the_walk_tells_what_is_wrong_and_goes_on() -> None:
    disk = model()
    spool = opened(disk)
    good = text_of(BOB)
    put(disk, "queue/ab/ab000001/message", BODY)
    put(disk, "queue/ab/ab000001/ab00000100000001", good)
    put(disk, "queue/ab/ab000001/ab00000100000002", good[:-20])
    put(disk, "queue/ab/ab000001/ab00000100000003", b"")
    put(disk, "queue/ab/ab000001/AB00000100000004", good)
    put(disk, "queue/ab/ab000002/message", BODY)
    put(disk, "queue/ab/ab000003/ab00000300000001", good)
    put(disk, "queue/ab/cd000003/message", BODY)
    put(disk, "queue/ab/ab000004/envelopes/ab00000400000001", good)
    put(disk, "queue/ab/stray", b"x")
    put(disk, "queue/xyz/stray", b"x")
    disk.mkdir("queue/ab/ab000005", 0o700)
    before = disk.tree()
    found = list(spool.walk())
    assert [each.evpid for each in found if isinstance(each, Waiting)] == [
        0xAB00000100000001,
        0xAB00000300000001,
    ]
    troubles = {each.path: each for each in found if isinstance(each, Trouble)}
    assert sorted(troubles) == [
        "queue/ab/ab000001/AB00000100000004",
        "queue/ab/ab000001/ab00000100000002",
        "queue/ab/ab000001/ab00000100000003",
        "queue/ab/ab000002",
        "queue/ab/ab000003",
        "queue/ab/ab000004/envelopes",
        "queue/ab/cd000003",
        "queue/ab/stray",
        "queue/xyz",
    ]
    assert "missing" in troubles["queue/ab/ab000003"].reason
    assert "without any envelope" in troubles["queue/ab/ab000002"].reason
    damaged = [each.evpid for each in troubles.values() if each.evpid]
    assert damaged == [0xAB00000100000002, 0xAB00000100000003]
    del before["queue/ab/ab000005"]
    assert disk.tree() == before  # nothing but the empty directory went


def test_an_envelope_set_aside_keeps_its_message() -> None:
    disk = model()
    spool = opened(disk)
    evpids = committed(spool)
    path = f"queue/ab/ab000001/{evpids[0]:016x}"
    assert spool.set_aside(evpids[0]) == f"{path}.damaged"
    disk.lose_power(lambda _: 0)
    assert disk.tree()[f"{path}.damaged"] == text_of(BOB)
    spool.remove(evpids[1])
    spool.sync()
    disk.lose_power(lambda _: 0)
    tree = disk.tree()
    assert tree[f"{path}.damaged"] == text_of(BOB)
    assert tree["queue/ab/ab000001/message"] == BODY
    (trouble,) = opened(disk, "again").walk()
    assert isinstance(trouble, Trouble)
    assert "set aside" in trouble.reason
    put(disk, path, b"another")
    assert spool.set_aside(evpids[0]) == f"{path}.damaged.1"
    with pytest.raises(SpoolError):
        spool.set_aside(evpids[0])


def test_a_walk_beside_other_work() -> None:
    disk = model()
    spool = opened(disk)
    evpids = [spool.commit(NewMessage(0x10000000 * n + 1, BODY, [BOB]))[0] for n in range(1, 9)]
    walk = spool.walk()
    first = next(walk)
    assert isinstance(first, Waiting)
    for evpid in evpids[1:4]:
        spool.remove(evpid)
    spool.commit(NewMessage(0xF0000001, BODY, [BOB]))
    rest = [each.evpid for each in walk if isinstance(each, Waiting)]
    assert rest[-1] >> 32 == 0x80000001 or rest[-1] >> 32 == 0xF0000001
    assert set(evpids[4:]) <= set(rest)
    assert not set(evpids[1:4]) & set(rest)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda number: errno.errorcode[number])
def test_a_walk_over_a_broken_disk_raises_nothing(refusal: int) -> None:
    for step in range(1, 10):
        disk = model()
        spool = opened(disk)
        committed(spool)
        before = disk.tree()
        disk.refuse_at, disk.refusal = disk.step + step, refusal
        list(spool.walk())
        assert disk.tree() == before


@given(st.data())
def test_the_fast_reader_agrees_with_the_parser(data: st.DataObject) -> None:
    address = st.from_regex(r"[a-z.+]{0,8}@[A-Za-z.]{0,8}", fullmatch=True)
    kind = data.draw(st.sampled_from(["mda", "mta", "bounce"]))
    given = envelope(
        type=kind,
        version=data.draw(st.sampled_from([2, 3])),
        dest=data.draw(address),
        dispatcher=data.draw(st.sampled_from(["", "out", "in bound", "d\u00e9"])),
        mda_user=data.draw(st.sampled_from(["", "bob"])),
        mda_method="mbox",
        mta_relay="smtp://relay.example.org",
        ctime=data.draw(st.integers(0, 2**40)),
        retry=data.draw(st.integers(0, 99)),
        ttl=data.draw(st.integers(0, 10**6)),
    )
    octets = bytearray(text_of(given))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(octets) - 1))
        octets[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    parsed = parse_envelope(bytes(octets)) if octets else None
    try:
        waiting = WaitingReader().read(7, bytes(octets))
    except ValueError:
        assert parsed is None or parsed.damage or parsed.envelope.version not in (1, 2, 3)
        return
    assert parsed is not None
    if not parsed.damage:
        expected = waiting_of(7, parsed.envelope)
        for name in Waiting.__slots__:
            assert getattr(waiting, name) == getattr(expected, name)


def test_what_belongs_together() -> None:
    assert waiting_of(1, envelope("bob@EXAMPLE.org")).destination == "example.org"
    assert waiting_of(1, envelope("bob@x.org", type="mda")).destination == "bob@x.org"
    assert waiting_of(1, envelope(type="mda", mda_user="bob")).destination == "bob"
    assert waiting_of(1, envelope(type="bounce")).destination == ""
    assert waiting_of(1, envelope(version=2, ttl=5)).ttl == 5
    assert waiting_of(1, envelope(ttl=5)).ttl == 0


# --- the directories of a spool


def own() -> list[setup.Wanted]:
    return setup.directories(os.getuid(), os.getuid(), os.getgid(), os.getgid())


def test_directories_are_made_as_the_releases_want_them() -> None:
    wanted = setup.directories(0, 101, 0, 102)
    assert {(each.path, each.mode, each.uid, each.gid) for each in wanted} == {
        (".", 0o711, 0, 0),
        ("offline", 0o770, 0, 102),
        ("purge", 0o700, 101, 0),
        ("temporary", 0o700, 101, 0),
        ("queue", 0o700, 101, 0),
        ("incoming", 0o700, 101, 0),
    }


def test_directories_that_are_absent_or_wrong(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o711)
    disk = SystemDisk.below(str(tmp_path))
    assert len(setup.find_problems(disk, own())) == 5
    setup.make_directories(disk, own())
    assert setup.find_problems(disk, own()) == []
    (tmp_path / "queue").chmod(0o755)
    (tmp_path / "purge").rmdir()
    (tmp_path / "purge").write_bytes(b"")
    problems = setup.find_problems(disk, own())
    assert problems == ["purge is not a directory", "queue has mode 755, not 700"]
    setup.make_directories(disk, own())  # what exists is left as it is
    assert setup.find_problems(disk, own()) == problems
    with pytest.raises(SpoolError, match="purge is not a directory"):
        setup.fix_permissions(disk, own())
    (tmp_path / "purge").unlink()
    setup.make_directories(disk, own())
    assert setup.fix_permissions(disk, own()) == ["queue now has mode 700"]
    assert setup.find_problems(disk, own()) == []
    assert setup.fix_permissions(disk, own()) == []
    disk.release()


def test_owners_are_set_and_explained() -> None:
    disk = ModelDisk()
    disk.root.mode, disk.root.owner = 0o711, (0, 0)
    wanted = setup.directories(0, 101, 0, 102)
    setup.make_directories(disk, wanted)
    assert setup.find_problems(disk, wanted) == []
    disk.lose_power(lambda _: 0)
    assert setup.find_problems(disk, wanted) == []
    directory = disk.root.entries["queue"]
    assert isinstance(directory, Directory)
    directory.owner = (5, 6)
    assert setup.find_problems(disk, wanted) == [
        "queue is owned by uid 5, not by 101",
        "queue is owned by gid 6, not by 0",
    ]
    assert setup.fix_permissions(disk, wanted) == ["queue now belongs to 101:0"]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda number: errno.errorcode[number])
def test_directories_that_cannot_be_made(refusal: int) -> None:
    wanted = setup.directories(0, 101, 0, 102)
    for step in range(1, 10):
        disk = ModelDisk()
        disk.refuse_at, disk.refusal = step, refusal
        with pytest.raises(SpoolError):
            setup.make_directories(disk, wanted)
    disk.refuse_at = disk.step + 1
    assert len(setup.find_problems(disk, wanted)) > 0


# --- the real disk


@pytest.fixture
def real(tmp_path: pathlib.Path) -> Iterator[tuple[str, SystemDisk]]:
    root = tmp_path / "spool"
    root.mkdir(mode=0o711)
    disk = SystemDisk.below(str(root))
    setup.make_directories(disk, own())
    yield str(root), disk
    disk.release()


def entries(root: str) -> list[Entry]:
    source = DirectorySource(root)
    found = []
    for unit in source.units(["queue"]):
        for item in source.walk(unit, details=False):
            for entry in read_entries(item, lambda: KEY):  # type: ignore[arg-type]
                assert isinstance(entry, Entry), (entry.path, entry.reason)
                found.append(entry)
    return found


@pytest.mark.parametrize("settings", [Settings(), Settings(True, KEY)], ids=["plain", "wrapped"])
def test_a_real_spool_is_read_by_the_offline_reader(
    real: tuple[str, SystemDisk], settings: Settings
) -> None:
    root, disk = real
    spool = Spool.open(disk, settings, os.urandom)
    with ThreadPoolExecutor(4) as pool:
        messages = [NewMessage(spool.new_msgid(), BODY, [BOB] * (1 + n % 3)) for n in range(30)]
        handle = spool.open_body(FIRST_ID)
        os.write(handle, BODY)
        messages.append(NewMessage(FIRST_ID, len(BODY), [CAROL]))
        results = spool.commit_many(messages, pool.map)
        evpids = [evpid for result in results if isinstance(result, list) for evpid in result]
        found = entries(root)
        assert sorted(entry.evpid for entry in found) == sorted(evpids)
        assert all(entry.problems == [] and "6.7" in entry.read_by for entry in found)
        assert spool.update_many([(evpid, LATER) for evpid in evpids], pool.map) == [
            None for _ in evpids
        ]
        (added,) = spool.add_envelopes(FIRST_ID, [BOUNCE], pool.map)
        found = entries(root)
        assert [entry.envelope for entry in found if entry.evpid != added] == [LATER] * len(evpids)
        handle = spool.open_message(FIRST_ID)
        assert os.read(handle, 1000) == BODY
        spool.close_message(handle)
        body = DirectorySource(root).open_message(FIRST_ID, ["queue"])
        assert body is not None
        assert b"".join(codec.decode_message(body, KEY)[0]) == BODY
        body.close()
        walked = [each.evpid for each in spool.walk() if isinstance(each, Waiting)]
        assert walked == sorted([*evpids, added])
        for evpid in walked:
            spool.remove(evpid)
        assert entries(root) == []
        spool.sync(pool.map)
    for name in ("incoming", "temporary", spool._removal.generation):
        assert os.listdir(os.path.join(root, name)) == []


def test_a_real_disk_keeps_the_modes_of_the_releases(real: tuple[str, SystemDisk]) -> None:
    root, disk = real
    committed(Spool.open(disk, Settings(), os.urandom))
    for path, _, files in os.walk(os.path.join(root, "queue")):
        assert os.stat(path).st_mode & 0o7777 == 0o700
        for name in files:
            assert os.stat(os.path.join(path, name)).st_mode & 0o7777 == 0o600


@pytest.mark.system
@pytest.mark.skipif(
    os.getuid() != 0 or not os.path.exists("/usr/sbin/smtpctl"),
    reason="needs root and the original client",
)
def test_the_original_client_lists_what_was_written(real: tuple[str, SystemDisk]) -> None:
    """In a mount namespace of its own, with our spool where the original looks for one."""
    root, disk = real
    evpids = committed(Spool.open(disk, Settings(), os.urandom))
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare")
    script = f"mount --bind {root} /var/spool/smtpd && /usr/sbin/smtpctl show queue"
    ran = subprocess.run(
        [unshare, "-m", "sh", "-c", script], capture_output=True, text=True, timeout=20, check=False
    )
    if ran.returncode != 0:
        pytest.skip(f"no namespace or no client here: {ran.stderr.strip()}")
    listed = [line.split("|")[0] for line in ran.stdout.splitlines()]
    assert sorted(listed) == sorted(f"{evpid:016x}" for evpid in evpids)
