"""From envelope and action to a job."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from smtpd_core.config import model
from smtpd_core.config.problems import Place
from smtpd_core.mail.status import Result
from smtpd_core.mda.job import Job, JobResult, Method, outcome_of, stat_of
from smtpd_core.mda.plan import (
    Site,
    Users,
    address_of,
    file_command,
    parse_file_command,
    plan,
)
from smtpd_core.queue.envelope import Envelope
from smtpd_core.routing.policy import User
from smtpd_core.routing.stored import action_of

BOB = User("bob", 1000, 1001, "/home/bob")
VMAIL = User("vmail", 500, 501, "/var/vmail")
ROOT = User("root", 0, 0, "/root")
SITE = Site(wrappers={"w": "nice %{mda}"})


def action(method: model.Method, **changes: Any) -> model.LocalAction:
    return model.LocalAction("local", Place("conf", 1), method, **changes)


def envelope(**changes: Any) -> Envelope:
    values: dict[str, Any] = {
        "dispatcher": "local",
        "sender": "alice@example.com",
        "rcpt": "list@example.org",
        "dest": "bob@host.example.org",
        "mda_user": "bob",
    }
    values.update(changes)
    return Envelope(**values)


def planned(found: Envelope, by: model.LocalAction, users: Optional[Users] = None) -> Job:
    job = plan(found, by, users or Users(BOB), SITE)
    assert isinstance(job, Job)
    return job


def not_planned(found: Envelope, by: model.LocalAction, users: Users) -> JobResult:
    result = plan(found, by, users, SITE)
    assert isinstance(result, JobResult)
    return result


def test_mbox() -> None:
    assert planned(envelope(), action(model.Method.MBOX)) == Job(
        Method.MBOX,
        "bob",
        1000,
        1001,
        "/home/bob",
        sender="alice@example.com",
        rcpt="list@example.org",
        dest="bob@host.example.org",
        prefix="Return-Path: <alice@example.com>\nDelivered-To: list@example.org\n",
    )


def test_maildir_by_default_and_by_name() -> None:
    job = planned(envelope(), action(model.Method.MAILDIR))
    assert (job.method, job.argument, job.junk) == (Method.MAILDIR, "/home/bob/Maildir", False)
    named = action(model.Method.MAILDIR, argument="~/m/%{dest.domain}", junk=True)
    job = planned(envelope(mda_subaddress="tag"), named)
    assert (job.argument, job.junk, job.sub_address) == (
        "/home/bob/m/host.example.org",
        True,
        "tag",
    )


def test_a_named_user_delivers_with_its_own_home() -> None:
    by = action(model.Method.MAILDIR, argument="~/%{user.username}", user="vmail")
    job = planned(envelope(), by, Users(BOB, VMAIL))
    assert (job.user, job.uid, job.gid, job.home) == ("bob", 500, 501, "/var/vmail")
    assert job.argument == "/var/vmail/bob"


def test_lmtp() -> None:
    job = planned(envelope(), action(model.Method.LMTP, argument="/run/lmtp", rcpt_to=True))
    assert (job.method, job.argument, job.rcpt_to) == (Method.LMTP, "/run/lmtp", True)


def test_a_command_has_its_environment_and_no_other() -> None:
    by = action(model.Method.MDA, argument="procmail -f %{sender}", wrapper="w")
    job = planned(envelope(mda_subaddress="tag"), by)
    assert (job.method, job.script) == (Method.COMMAND, 'nice procmail -f "${MDA_1}"')
    assert dict(job.environment) == {
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        "DOMAIN": "example.org",
        "HOME": "/home/bob",
        "ORIGINAL_RECIPIENT": "list@example.org",
        "RECIPIENT": "bob@host.example.org",
        "SHELL": "/bin/sh",
        "LOCAL": "list",
        "LOGNAME": "bob",
        "USER": "bob",
        "SENDER": "alice@example.com",
        "EXTENSION": "tag",
        "MDA_1": "alice@example.com",
    }
    plain = planned(envelope(sender="@"), by)
    assert "EXTENSION" not in dict(plain.environment)
    assert dict(plain.environment)["SENDER"] == ""


def test_a_null_sender_leaves_no_return_path() -> None:
    for sender in ("@", ""):
        job = planned(envelope(sender=sender), action(model.Method.MBOX))
        assert (job.sender, job.prefix) == ("", "Delivered-To: list@example.org\n")


def test_a_wrapper_of_a_maildir_gives_the_message_back() -> None:
    job = planned(envelope(), action(model.Method.MAILDIR, wrapper="w"))
    assert (job.method, job.script) == (Method.MAILDIR, "nice cat >&3")
    assert planned(envelope(), action(model.Method.MBOX, wrapper="w")).script == ""


def test_a_command_of_a_forward_file_goes_before_the_action() -> None:
    by = action(model.Method.MBOX, user="vmail")
    job = planned(envelope(mda_exec="vacation bob"), by, Users(BOB))
    assert (job.method, job.script, job.uid) == (Method.COMMAND, "vacation bob", 1000)


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("/usr/libexec/opensmtpd/mail.mboxfile -f %{mbox.from} /home/bob/x y", "/home/bob/x y"),
        ("mail.mboxfile -f %{mbox.from} /x", "/x"),
        ("mail.mboxfile -f %{mbox.from} x", None),
        ("mail.mboxfile /x", None),
        ("x mail.mboxfile -f %{mbox.from} /x", None),
        ("xmail.mboxfile -f %{mbox.from} /x", None),
    ],
)
def test_a_file_is_known_by_its_command(command: str, path: Optional[str]) -> None:
    assert parse_file_command(command) == path
    job = planned(envelope(mda_exec=command), action(model.Method.MBOX))
    assert (job.method, job.argument) == (
        (Method.FILE, path) if path is not None else (Method.COMMAND, "")
    )


def test_a_file_command_is_spelled_as_it_is_read() -> None:
    assert parse_file_command(file_command("/a; b")) == "/a; b"


@pytest.mark.parametrize(
    ("found", "by", "users", "text"),
    [
        (
            envelope(),
            action(model.Method.MAILDIR, user="gone"),
            Users(BOB),
            "delivery user 'gone' does not exist",
        ),
        (
            envelope(),
            action(model.Method.MAILDIR),
            Users(ROOT),
            "MDA not allowed to deliver to: root",
        ),
        (
            envelope(),
            action(model.Method.MDA, argument="x"),
            Users(ROOT),
            "MDA not allowed to deliver to: root",
        ),
        (
            envelope(mda_exec="x"),
            action(model.Method.MBOX),
            Users(ROOT),
            "MDA not allowed to deliver to: root",
        ),
        (
            envelope(),
            action(model.Method.MDA, argument="x %{what}"),
            Users(BOB),
            "mda command line could not be expanded",
        ),
        (
            envelope(),
            action(model.Method.FORWARD_ONLY),
            Users(BOB),
            "action local delivers nothing by itself",
        ),
        (
            envelope(),
            action(model.Method.EXPAND_ONLY),
            Users(BOB),
            "action local delivers nothing by itself",
        ),
        (
            envelope(rcpt="a\nX-Evil: b@c"),
            action(model.Method.MBOX),
            Users(BOB),
            "the envelope holds a control character",
        ),
    ],
)
def test_what_is_refused_for_good(
    found: Envelope, by: model.LocalAction, users: Users, text: str
) -> None:
    outcome = outcome_of(not_planned(found, by, users))
    assert (outcome.result, outcome.text) == (Result.PERMANENT, text)


def test_the_log_of_a_refusal() -> None:
    result = not_planned(envelope(), action(model.Method.MAILDIR), Users(ROOT))
    assert stat_of(result) == "Error (permission denied: MDA not allowed to deliver to: root)"


def test_root_has_a_mailbox() -> None:
    assert planned(envelope(), action(model.Method.MBOX), Users(ROOT)).uid == 0


def test_addresses_of_an_envelope() -> None:
    assert address_of("@").is_null
    assert address_of("").is_null
    assert address_of("a@b@c") == ("a@b", "c")


def test_an_old_envelope_appends_to_the_file_it_names() -> None:
    found = envelope(version=2, mda_method="filename", mda_buffer="/home/bob/50%{sender}")
    by = action_of(found, {})
    assert isinstance(by, model.LocalAction)
    job = planned(found, by)
    assert (job.method, job.argument) == (Method.FILE, "/home/bob/50%{sender}")


def test_an_old_envelope_runs_the_command_it_names_as_it_stands() -> None:
    found = envelope(version=2, mda_method="mda", mda_buffer="/bin/x 100% %{sender}")
    by = action_of(found, {})
    assert isinstance(by, model.LocalAction)
    job = planned(found, by)
    assert (job.method, job.script) == (Method.COMMAND, "/bin/x 100% %{sender}")
