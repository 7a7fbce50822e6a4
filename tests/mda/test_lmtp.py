"""LMTP, with a small server that says what it is told to."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Callable, Iterator, List, Tuple

import pytest

from smtpd_core.mda.job import Job, JobResult, Method, exited
from smtpd_core.mda.lmtp import Destination, DestinationError, parse_destination

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., JobResult]
MakeJob = Callable[..., Job]

GREETING = "220 lmtp"
HELLO = "250-lmtp\r\n250-PIPELINING\r\n250 8BITMIME"
# What is answered to each command; text is what the final dot gets.
FINE = {
    "": GREETING,
    "LHLO": HELLO,
    "MAIL": "250 ok",
    "RCPT": "250 ok",
    "DATA": "354 go",
    ".": "250 2.1.5 stored",
    "QUIT": "221 bye",
    "RSET": "250 ok",
}
TEXT = b"Subject: x\n\n.dot\nlast"


class Server:
    """A server for one session."""

    def __init__(self, listening: socket.socket, answers: dict[str, str]) -> None:
        self.listening = listening
        self.answers = answers
        self.heard: List[str] = []
        self.text = b""
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        try:
            connection, _ = self.listening.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            if not self.say(connection, ""):
                return
            for line in lines:
                command = line.decode().rstrip("\r\n")
                self.heard.append(command)
                if not self.say(connection, command[:4]):
                    return
                if command == "DATA" and self.answers["DATA"].startswith("354"):
                    for text in lines:
                        if text == b".\r\n":
                            break
                        self.text += text
                    if not self.say(connection, "."):
                        return

    def say(self, connection: socket.socket, to: str) -> bool:
        """Answer; nothing to say is hanging up."""
        answer = self.answers[to]
        if answer:
            connection.sendall(answer.encode() + b"\r\n")
        return bool(answer)

    def end(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join(20)


StartServer = Callable[..., Server]


@pytest.fixture
def path(top: Path) -> str:
    return str(top / "lmtp")


@pytest.fixture
def serve(path: str) -> Iterator[StartServer]:
    servers = []

    def start(**answers: str) -> Server:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        os.chmod(path, 0o666)
        listening.listen(1)
        servers.append(Server(listening, {**FINE, **answers}))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def test_a_message_is_handed_over(
    run: Run, make_job: MakeJob, serve: StartServer, path: str
) -> None:
    server = serve()
    assert run(make_job(Method.LMTP, argument=path, prefix="P: x\n"), TEXT) == exited(0)
    server.thread.join(20)
    assert server.heard == [
        "LHLO localhost",
        "MAIL FROM:<alice@example.com>",
        "RCPT TO:<bob>",
        "DATA",
        "QUIT",
    ]
    assert server.text == b"P: x\r\nSubject: x\r\n\r\n..dot\r\nlast\r\n"


def test_the_recipient_may_be_the_address_and_the_sender_nobody(
    run: Run, make_job: MakeJob, serve: StartServer, path: str
) -> None:
    server = serve()
    job = make_job(Method.LMTP, argument=path, rcpt_to=True, sender="", dest="b+x@example.org")
    assert run(job) == exited(0)
    server.thread.join(20)
    assert server.heard[1:3] == ["MAIL FROM:<>", "RCPT TO:<b+x@example.org>"]


@pytest.mark.parametrize(
    "case",
    [
        ({"RCPT": "550 5.1.1 who?"}, 69, "LMTP server error: 550 5.1.1 who?"),
        ({"RCPT": "452 full"}, 75, "LMTP server error: 452 full"),
        ({"MAIL": "553 no"}, 69, "LMTP server error: 553 no"),
        ({"DATA": "451 later"}, 75, "LMTP server error: 451 later"),
        ({".": "552 5.2.2 over quota"}, 69, "LMTP server error: 552 5.2.2 over quota"),
        ({".": "421 going down"}, 75, "LMTP server error: 421 going down"),
        ({"": "554 go away"}, 75, "BANNER rejected: 554 go away"),
        ({"LHLO": "500 what?"}, 75, "LHLO rejected: 500 what?"),
        ({"": "rubbish"}, 75, ""),
        ({"": ""}, 75, "Connection closed unexpectedly"),
        ({"DATA": ""}, 75, "Connection closed unexpectedly"),
        ({".": ""}, 75, "Connection closed unexpectedly"),
        ({"QUIT": ""}, 0, ""),
        ({"QUIT": "500 stay"}, 0, ""),
    ],
)
def test_what_a_server_says_decides(
    run: Run,
    make_job: MakeJob,
    serve: StartServer,
    path: str,
    case: Tuple[dict[str, str], int, str],
) -> None:
    answers, status, text = case
    serve(**answers)
    result = run(make_job(Method.LMTP, argument=path))
    assert result.number == status
    assert text in result.text


def test_what_a_server_said_before_it_hung_up_is_not_lost(
    run: Run, make_job: MakeJob, path: str
) -> None:
    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"220 x\r\n")
            for answer in ("250 x", "250 x", "250 x", "354 x"):
                connection.recv(1000)
                connection.sendall(answer.encode() + b"\r\n")
            connection.recv(1000)
            connection.sendall(b"552 5.3.4 too big\r\n")

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        os.chmod(path, 0o666)
        listening.listen(1)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        result = run(make_job(Method.LMTP, argument=path), b"x\n" * 5_000_000)
        thread.join(20)
    assert (result.number, result.text) == (69, "LMTP server error: 552 5.3.4 too big")


def test_a_server_that_is_not_there_is_tried_again_later(
    run: Run, make_job: MakeJob, path: str
) -> None:
    result = run(make_job(Method.LMTP, argument=path))
    assert (result.number, result.text) == (75, "No such file or directory")


def test_over_tcp(run: Run, make_job: MakeJob) -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1)
    server = Server(listening, FINE)
    try:
        destination = f"127.0.0.1:{listening.getsockname()[1]}"
        assert run(make_job(Method.LMTP, argument=destination)) == exited(0)
    finally:
        server.end()
    assert run(make_job(Method.LMTP, argument=destination)).number == 75


def test_a_server_that_says_nothing_has_no_more_than_the_job_has(
    run: Run, make_job: MakeJob, path: str
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        os.chmod(path, 0o666)
        listening.listen(1)
        result = run(make_job(Method.LMTP, argument=path, timeout_seconds=1))
    assert result.ending.value == "timeout"


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("/run/lmtp", Destination(path="/run/lmtp")),
        ("localhost", Destination(host="localhost", port=25)),
        ("localhost:24", Destination(host="localhost", port=24)),
        ("192.0.2.1:2003", Destination(host="192.0.2.1", port=2003)),
        ("[2001:db8::1]", Destination(host="2001:db8::1", port=25)),
        ("[fe80::1%eth0]:24", Destination(host="fe80::1%eth0", port=24)),
    ],
)
def test_destinations(text: str, destination: Destination) -> None:
    assert parse_destination(text) == destination


@pytest.mark.parametrize(
    "text", ["", "host:", "host:x", "host:0", "host:65536", "::1", "[::1", "a b", "a/b", "host:24 "]
)
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(DestinationError):
        parse_destination(text)
