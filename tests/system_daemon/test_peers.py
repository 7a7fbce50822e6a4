"""Programs that others wrote, as clients and as servers of our daemon."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import smtplib
import subprocess
from collections import Counter
from typing import List

import pytest

from tests.system import original as host
from tests.system_daemon import island, postfix

CI = bool(os.environ.get("CI"))
pytestmark = pytest.mark.skipif(host.why_not() is not None and not CI, reason=str(host.why_not()))

OURS = """
listen on 127.0.0.1 port 2500
action "local" maildir
action "out" relay host smtp://127.0.0.1:{port}
match from any for domain "here.example" action "local"
match from any for any action "out"
"""
THEIRS = """
listen on 127.0.0.1 port 2700
action "local" maildir
action "out" relay host smtp://127.0.0.1:2500
match from any for domain "there.example" action "local"
match from any for any action "out"
"""
OWN_PLACES = ("--spool", "/run/ours", "--socket", "/run/ours.sock")
MAILS = 60
TEXT = "Subject: dots and länge\r\n\r\n.\r\n..\r\nlast " + "x" * 950 + "\r\n"


def _run(*command: str) -> None:
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=20
    )
    assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])


def _spooled() -> int:
    return len(island.envelopes(pathlib.Path("/run/ours")))


@pytest.mark.parametrize("reconnecting", [False, True])
def test_smtp_source_and_smtp_sink(tmp_path: pathlib.Path, reconnecting: bool) -> None:
    source = postfix.command(
        "smtp-source",
        *(["-d"] if not reconnecting else []),
        *("-s", "10", "-m", str(MAILS), "-l", "2048", "-M", "client.example"),
        *("-f", "a@far.example", "-t", "b@far.example", "inet:127.0.0.1:2500"),
    )
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    sink = postfix.command("smtp-sink", "-u", "root", "-d", f"{dumps}/m.", "127.0.0.1:2525", "64")

    def play() -> bytes:
        config = OURS.format(port=2525)
        with (
            island.running(tmp_path, "sink", sink, 2525),
            island.running(
                tmp_path, "ours", island.ours(tmp_path, config, *OWN_PLACES), 2500
            ) as daemon,
        ):
            _run(*source)
            island.until(lambda: daemon.said().count('result="Ok"') >= MAILS, daemon.said)
            island.until(lambda: not _spooled())
        return b""

    island.inside(tmp_path, play)
    texts = [path.read_text("utf-8") for path in dumps.iterdir()]
    mails = [text for text in texts if "RCPT TO:<b@far.example>" in text or "X-Rcpt" in text]
    assert len(mails) == MAILS
    assert all("XXXXXXXX" in text and "Received: from client.example" in text for text in mails)


def test_swaks_and_smtplib(tmp_path: pathlib.Path) -> None:
    swaks = shutil.which("swaks")
    assert swaks or not CI, "swaks is not installed"
    if not swaks:
        pytest.skip("swaks is not installed")
    given = ["--server", "127.0.0.1:2500", "--from", "a@far.example", "--helo", "client.example"]
    there = ["--to", "carol@here.example,bob@here.example"]

    def play() -> bytes:
        sink = island.Sink(2525)
        config = OURS.format(port=2525)
        with island.running(
            tmp_path, "ours", island.ours(tmp_path, config, *OWN_PLACES), 2500
        ) as daemon:
            _run(swaks, *given, *there, "--header", "Subject: plain", "--body", "one")
            _run(swaks, *given, *there, "--pipeline", "--header", "Subject: piped", "--body", "2")
            _run(swaks, *given, "--to", "x@far.example", "--quit-after", "RCPT")
            with smtplib.SMTP("127.0.0.1", 2500) as client:
                client.sendmail(
                    "a@far.example", ["x@far.example"], TEXT.encode(), ["BODY=8BITMIME"]
                )
                with pytest.raises(smtplib.SMTPRecipientsRefused):
                    client.sendmail("a@far.example", ["nobody.here@here.example"], b"x")
            island.until(lambda: not _spooled(), daemon.said)
        locals_ = [island.maildir(user) for user in ("carol", "bob")]
        return json.dumps([locals_, sink.recipients, [each.text for each in sink.taken]]).encode()

    locals_, recipients, texts = json.loads(island.inside(tmp_path, play))
    for mails in locals_:
        subjects = Counter(_subject(mail) for mail in mails)
        assert subjects == {"plain": 1, "piped": 1}
    assert recipients == ["x@far.example"]
    assert texts[0].partition("\n\n")[2] == TEXT.replace("\r\n", "\n").partition("\n\n")[2]


def _subject(mail: str) -> str:
    (line,) = [each for each in mail.splitlines() if each.startswith("Subject: ")]
    return line[len("Subject: ") :]


def test_the_original_as_client_and_as_server(tmp_path: pathlib.Path) -> None:
    def play() -> bytes:
        config = OURS.format(port=2700)
        with (
            island.running(
                tmp_path, "ours", island.ours(tmp_path, config, *OWN_PLACES), 2500
            ) as daemon,
            island.running(tmp_path, "original", island.original(tmp_path, THEIRS), 2700) as other,
        ):
            _send(2500, ["dave@there.example", "alice@there.example"])  # by ours to theirs
            _send(2700, ["carol@here.example", "bob@here.example"])  # by theirs to ours
            island.until(
                lambda: all(island.maildir(user) for user in ("alice", "bob", "carol", "dave")),
                lambda: daemon.said() + other.said(),
            )
            island.until(lambda: not _spooled() and not island.envelopes(), daemon.said)
        return json.dumps(
            [island.maildir(user) for user in ("alice", "bob", "carol", "dave")]
        ).encode()

    boxes = json.loads(island.inside(tmp_path, play))
    for mails in boxes:
        assert len(mails) == 1
        assert mails[0].count("Received: ") == 2
        assert mails[0].partition("\n\n")[2] == TEXT.replace("\r\n", "\n").partition("\n\n")[2]


def _send(port: int, recipients: List[str]) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.sendmail("a@far.example", recipients, TEXT.encode(), ["BODY=8BITMIME"])
