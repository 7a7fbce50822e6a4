"""Jobs and results: to another role and back, and what a result means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mail.status import Result
from smtpd_core.mda.job import (
    MAX_RESULT,
    Ending,
    Fields,
    Job,
    JobError,
    JobResult,
    Method,
    exited,
    outcome_of,
    refuse,
    refused,
    stat_of,
)

JOB = Job(
    Method.COMMAND,
    "bob",
    1000,
    1001,
    "/home/bob",
    script="procmail",
    environment=(("HOME", "/home/bob"), ("MDA_1", "a\nb=\udcff")),
    sender="alice@example.com",
    rcpt="bob@example.org",
    dest="bob@example.org",
    sub_address="lists",
    junk=True,
    prefix="Return-Path: <alice@example.com>\n",
)


def changed(fields: Fields, name: str, value: str) -> Fields:
    return tuple((each, value if each == name else old) for each, old in fields)


def test_a_job_arrives_as_it_was_sent() -> None:
    assert Job.from_fields(JOB.fields()) == JOB
    plain = Job(Method.MBOX, "bob", 1, 2, "/")
    assert Job.from_fields(plain.fields()) == plain
    assert len(JOB.fields()) < 64


@pytest.mark.parametrize(
    "fields",
    [
        (),
        JOB.fields()[1:],
        (*JOB.fields(), ("more", "x")),
        (*JOB.fields(), ("uid", "0")),
        (*JOB.fields(), *((f"env.X{number}", "x") for number in range(50))),
        (*JOB.fields(), ("env.", "x")),
        (*JOB.fields(), ("env.A=B", "x")),
        changed(JOB.fields(), "method", "telnet"),
        changed(JOB.fields(), "uid", "-1"),
        changed(JOB.fields(), "uid", "0x10"),
        changed(JOB.fields(), "uid", "4294967295"),
        changed(JOB.fields(), "uid", "\u0661"),
        changed(JOB.fields(), "junk", "2"),
        changed(JOB.fields(), "timeout_seconds", ""),
        changed(JOB.fields(), "home", "/a\0b"),
        changed(JOB.fields(), "script", "x" * 8193),
        changed(JOB.fields(), "env.HOME", "a\0b"),
    ],
)
def test_what_is_no_job(fields: Fields) -> None:
    with pytest.raises(JobError):
        Job.from_fields(fields)


@pytest.mark.parametrize(
    "result",
    [
        exited(0),
        exited(75, "try later", consumed=False),
        JobResult(Ending.SIGNAL, 11),
        JobResult(Ending.TIMEOUT),
        JobResult(Ending.KILLED, text="shutdown"),
        refused(77, "not to root"),
        exited(1, "\udcff" * 5000),
        exited(1, "x\ny\x1b"),
    ],
)
def test_a_result_arrives_as_it_was_sent(result: JobResult) -> None:
    octets = result.encode()
    assert len(octets) <= MAX_RESULT
    assert JobResult.decode(octets) == result
    assert JobResult.from_fields(result.fields()) == result


@given(st.binary(max_size=200))
def test_any_octets_are_a_result_or_refused(octets: bytes) -> None:
    with pytest.raises(JobError):
        JobResult.decode(octets)


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_result_is_a_result_or_refused(place: int, octet: int) -> None:
    octets = bytearray(exited(69, "a reason").encode())
    octets[place % len(octets)] = octet
    try:
        result = JobResult.decode(bytes(octets))
    except JobError:
        return
    outcome_of(result)


@pytest.mark.parametrize(
    "octets", [b"x" * (MAX_RESULT + 1), exited(0).encode() + b"x", exited(0).encode()[:-1], b""]
)
def test_what_is_no_result(octets: bytes) -> None:
    with pytest.raises(JobError):
        JobResult.decode(octets)


@pytest.mark.parametrize(
    ("result", "found", "status", "text", "stat"),
    [
        (exited(0), Result.DELIVERED, "2.0.0", "Delivered", "Delivered"),
        (exited(0, "chatter"), Result.DELIVERED, "2.0.0", "Delivered", "Delivered"),
        (
            exited(0, consumed=False),
            Result.TEMPORARY,
            "4.3.0",
            "mda exited prematurely",
            "Error (mda exited prematurely)",
        ),
        (
            exited(75),
            Result.TEMPORARY,
            "4.3.0",
            "exited abnormally",
            "Error (temporary failure: exited abnormally)",
        ),
        (
            exited(71, "no disk"),
            Result.TEMPORARY,
            "4.3.0",
            '"no disk"',
            'Error (system resource problem: "no disk")',
        ),
        (
            exited(67, "who?"),
            Result.PERMANENT,
            "5.3.0",
            '"who?"',
            'Error (user unknown: "who?")',
        ),
        (exited(1), Result.PERMANENT, "5.3.0", "exited abnormally", "Error (exited abnormally)"),
        (exited(255), Result.PERMANENT, "5.3.0", "exited abnormally", "Error (exited abnormally)"),
        (
            exited(73, "a\x1bb"),
            Result.PERMANENT,
            "5.3.0",
            '"a?b"',
            'Error (can\'t create user output file: "a?b")',
        ),
        (
            JobResult(Ending.SIGNAL, 11, "printed"),
            Result.TEMPORARY,
            "4.3.0",
            "terminated; signal 11",
            "Error (terminated; signal 11)",
        ),
        (
            JobResult(Ending.TIMEOUT),
            Result.TEMPORARY,
            "4.3.0",
            "terminated; timeout",
            "Error (terminated; timeout)",
        ),
        (
            JobResult(Ending.KILLED, text="terminated; shutdown"),
            Result.TEMPORARY,
            "4.3.0",
            "terminated; shutdown",
            "Error (terminated; shutdown)",
        ),
        (
            refused(77, "MDA not allowed to deliver to: root"),
            Result.PERMANENT,
            "5.3.0",
            "MDA not allowed to deliver to: root",
            "Error (permission denied: MDA not allowed to deliver to: root)",
        ),
        (
            refused(71, "later"),
            Result.TEMPORARY,
            "4.3.0",
            "later",
            "Error (system resource problem: later)",
        ),
    ],
)
def test_what_a_result_means(
    result: JobResult, found: Result, status: str, text: str, stat: str
) -> None:
    outcome = outcome_of(result)
    assert (outcome.result, str(outcome.status), outcome.text) == (found, status, text)
    assert stat_of(result) == stat


@pytest.mark.parametrize("method", list(Method))
def test_root_gets_its_mailbox_and_nothing_else(method: Method) -> None:
    as_root = replace(JOB, method=method, uid=0, script="")
    refusal = refuse(as_root)
    assert (refusal is None) is (method is Method.MBOX)
    assert refusal is None or refusal.text == "MDA not allowed to deliver to: bob"
    assert refuse(replace(as_root, script="x")) is not None
    assert refuse(replace(as_root, uid=1)) is None
