"""Passwords: from tables and from the system, and what a wrong one costs."""

from __future__ import annotations

import asyncio
from typing import Optional, Union

import pytest

from smtpd_core.listener.authentication import MAX_WAITING, Authenticator
from smtpd_core.listener.limits import Guesses
from smtpd_core.routing.rules import Failure
from smtpd_core.smtp.sasl import Credentials
from smtpd_core.tables.password import hash_password
from tests.fakes.loop import run, until
from tests.fakes.services import FakeLookups, FakeSupervisor, FakeSurroundings

HASH = hash_password(b"secret", "sha512", entropy=lambda count: b"\1" * count)


def check(
    user: str, password: str, table: Union[dict[str, str], Failure, None] = None
) -> tuple[Optional[bool], list[str]]:
    around = FakeSurroundings()
    supervisor = FakeSupervisor()
    supervisor.passwords = {"joe": "secret"}
    supervisor.cannot_tell = user == "later"

    async def ask() -> Optional[bool]:
        found = Authenticator(around.surroundings(), supervisor, Guesses(delay_seconds=0))
        try:
            name = None if table is None else "t"
            lookups = FakeLookups({"t": table} if table is not None else {})
            return await found.check(Credentials(user, password), lookups, name, "c")
        finally:
            found.close()

    return run(ask()), around.log


def test_users_of_the_system() -> None:
    assert check("joe", "secret") == (True, [])
    assert check("joe", "wrong") == (False, [])
    assert check("later", "secret") == (None, [])


@pytest.mark.parametrize("value", [HASH, f"joe:{HASH}"])
def test_a_table_of_hashes(value: str) -> None:
    assert check("joe", "secret", {"joe": value}) == (True, [])
    assert check("joe", "wrong", {"joe": value}) == (False, [])
    assert check("ann", "secret", {"joe": value}) == (False, [])


def test_what_cannot_be_known() -> None:
    assert check("joe", "secret", Failure("busy")) == (None, [])
    good, log = check("joe", "secret", {"joe": "secret"})  # in clear, which is not accepted
    assert good is None
    assert log == ["warn: table t: a password hash has no scheme that is known here"]
    assert check("joe", "secret", {"joe": "*"})[0] is None  # too short to mean anything
    assert check("joe", "secret", {"joe": "!" + HASH})[0] is False  # locked


class Patient(FakeSupervisor):
    """A supervisor that does not answer before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asked = 0

    async def check_password(self, user: str, password: str) -> Optional[bool]:
        self.asked += 1
        await self.gate.wait()
        return bool(user and password)


def test_those_who_wait_are_bounded() -> None:
    async def crowd() -> None:
        supervisor = Patient()
        found = Authenticator(FakeSurroundings().surroundings(), supervisor)
        lookups = FakeLookups({})
        credentials = Credentials("joe", "x")
        waiting = [
            asyncio.ensure_future(found.check(credentials, lookups, None, ""))
            for _ in range(MAX_WAITING)
        ]
        await until(lambda: supervisor.asked == MAX_WAITING)
        assert await found.check(credentials, lookups, None, "") is None
        supervisor.gate.set()
        assert await asyncio.gather(*waiting) == [True] * MAX_WAITING
        assert await found.check(credentials, lookups, None, "") is True
        found.close()

    run(crowd())


def test_a_refusal_takes_its_time_whoever_was_asked_for() -> None:
    async def timed() -> list[float]:
        around = FakeSurroundings()
        around._drawn = 127  # half of what chance may add
        found = Authenticator(around.surroundings(), FakeSupervisor(), Guesses(delay_seconds=0.2))
        lookups = FakeLookups({"t": {"joe": HASH}})
        loop = asyncio.get_running_loop()
        took = []
        for client, user in (("a", "joe"), ("b", "nobody")):
            start = loop.time()
            assert await found.check(Credentials(user, "x"), lookups, "t", client) is False
            took.append(loop.time() - start)
        found.close()
        return took

    known, unknown = run(timed())
    assert known == pytest.approx(0.3, abs=0.08)
    assert unknown == pytest.approx(0.3, abs=0.08)
