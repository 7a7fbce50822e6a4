"""The dialogs of tests/dialogs, over real sockets and real TLS, through the whole of a session."""

from __future__ import annotations

import ast
import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from smtpd_core.config.model import ListenTls
from smtpd_core.listener.session import Client, Session
from smtpd_core.listener.site import Entrance
from smtpd_core.net.stream import adopt
from smtpd_core.routing.rules import Failure
from smtpd_core.smtp.conversation import Options
from tests.fakes.certificates import client_context, server_context
from tests.fakes.loop import run
from tests.fakes.reception import Caller, Reception
from tests.fakes.services import FakeQueue

DIALOGS = sorted((Path(__file__).parents[1] / "dialogs").glob("*.dialog"))

# What the dialogs suppose: everybody is there but unknown, and later cannot be looked up.
RULES = """
action "local" maildir
action "out" relay
match from any for rcpt-to { "unknown" "later" } action "local"
match from any for any action "out"
"""


class AlwaysTheSameId(FakeQueue):
    """The dialogs call every message 0000002a."""

    async def new_msgid(self) -> int:
        return 42


def read_options(lines: List[str]) -> Dict[str, Any]:
    for line in lines:
        if line.startswith("# options:"):
            pairs = (pair.split("=", 1) for pair in line.split(":", 1)[1].split())
            return {name: ast.literal_eval(value) for name, value in pairs}
    return {}


class Stage:
    """One session as a dialog wants it."""

    def __init__(self, changes: Dict[str, Any], directory: Path) -> None:
        self.reception = Reception(RULES)
        self.reception.queue = AlwaysTheSameId()
        self.reception.supervisor.users = {"later": Failure("busy")}
        self.reception.supervisor.passwords = {"joe": "secret"}
        secured = changes.pop("secured", False)
        address = changes.pop("peer_address", "192.0.2.1")
        local = changes.get("local", False)
        context = server_context(directory)
        offered = ListenTls.OFFERED if changes.get("tls_available") else ListenTls.NONE
        self.entrance = Entrance(
            Options(hostname="mx.example", server="mx.example", **changes),
            local=local,
            address="192.0.2.9",
            tls=ListenTls.IMMEDIATE if secured else offered,
            context=context,
        )
        family = "local" if local else "inet6" if ":" in address else "inet4"
        self.client = Client(address, family, "")
        self.secured = secured

    async def begin(self) -> tuple[Caller, asyncio.Task[None]]:
        ours, theirs = socket.socketpair()
        session = Session(self.reception.site(), self.entrance, self.client, await adopt(ours))
        task = asyncio.create_task(session.run(self.reception.names))
        caller = Caller(await adopt(theirs))
        if self.secured:
            await caller.secure(client_context())
        return caller, task


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_dialog(path: Path, tmp_path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    stage = Stage(read_options(lines), tmp_path)

    async def play() -> None:
        caller, task = await stage.begin()
        for number, line in enumerate(lines, 1):
            kind, rest = line[:1], line[2:]
            where = f"{path.name}:{number}"
            if kind == ">":
                await caller.say(rest)
            elif kind == "<":
                said = await caller.line()
                assert said.startswith(rest), where
                assert said or not rest, where
            elif kind == "=":
                await caller.secure(client_context())
            elif kind == "!":
                assert await caller.is_closed(), where
        await caller.stream.close()
        await task
        assert stage.reception.around.confessed == []

    run(play())


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_dialog_at_once(path: Path, tmp_path: Path) -> None:
    """The same replies in the same order when the client pipelines everything."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if "= tls" in lines:
        return
    stage = Stage(read_options(lines), tmp_path)
    given = "".join(line[2:] + "\r\n" for line in lines if line[:1] == ">")
    expected: List[Optional[str]] = [line[2:] for line in lines if line[:1] == "<"]

    async def play() -> None:
        caller, task = await stage.begin()
        await caller.put(given.encode())
        for number, prefix in enumerate(expected):
            said = await caller.line()
            assert said.startswith(prefix or ""), number
        await caller.stream.close()
        await task

    run(play())


def test_options_of_entrances_are_those_of_dialogs() -> None:
    site = Reception("smtp limit max-rcpt 7 max-mails 3\nlisten on 127.0.0.1\n" + RULES).site()
    entrance = site.entrance(site.config.listeners[0], "127.0.0.1", 25)
    assert replace(entrance.options, max_recipients=1000, max_messages=100) == Options(
        hostname="mx.example", server="mx.example"
    )
    assert entrance.options.max_recipients == 7
    assert entrance.options.max_messages == 3
