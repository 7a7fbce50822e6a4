"""Our spool under OpenSMTPD 6.8, and the spools of three of its releases under our daemon."""

from __future__ import annotations

import json
import os
import re
import smtplib
import tarfile
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Dict, List

import pytest

from smtpd_core.queue import codec
from smtpd_core.queue.envelope import parse_envelope
from smtpd_core.queue.layout import ENVELOPE_OCTETS_MAX
from smtpd_core.queue.releases import find_release, refusal
from tests.running import ROOT
from tests.system import original as host
from tests.system_daemon import island

if TYPE_CHECKING:
    from pathlib import Path

CI = bool(os.environ.get("CI"))
pytestmark = pytest.mark.skipif(host.why_not() is not None and not CI, reason=str(host.why_not()))

# Nothing is delivered under this one: the command says try later, and no host is at the port.
WAITING = """
listen on 127.0.0.1 port 2500
action "local" mda "exit 75"
action "out" relay host smtp+notls://127.0.0.1:2526
match from any for domain "here.example" action "local"
match from any for any action "out"
"""
# The same names, which envelopes refer to, and all can be delivered.
DELIVERING = """
listen on 127.0.0.1 port 2600
action "local" maildir
action "out" relay host smtp+notls://127.0.0.1:2525
match from any for domain "here.example" action "local"
match from any for any action "out"
"""
STORING = {"plain": "", "compressed": "queue compression\n"}
NUMBERS = range(12)


def _send() -> None:
    """Send what the spool is to hold: see _text for the mails."""
    with smtplib.SMTP("127.0.0.1", 2500) as client:
        client.ehlo("client.example")
        for number in NUMBERS:
            sender = f"s{number}@far.example" if number % 5 else ""
            there = ["x@far.example", f"y{number}@other.example", "carol@here.example"]
            options = ["RET=HDRS", f"ENVID=e{number}"] if number % 3 == 0 else []
            asked = ["NOTIFY=FAILURE", "ORCPT=rfc822;o@far.example"] if number % 4 == 0 else []
            there = there[: 1 + number % 3] if number != 7 else there
            client.sendmail(
                sender,
                there,
                _text(number).replace(b"\n", b"\r\n"),
                ["BODY=8BITMIME", *options],
                asked,
            )


def _text(number: int) -> bytes:
    lines = {1: ".\n..two\n", 2: "grün\n", 3: "x" * 900 + "\n", 4: "line of text\n" * 20_000}
    return f"Subject: mail {number}\n\n{lines.get(number, 'hello')}\n".encode()


def _expected() -> Dict[str, int]:
    there = {n: ["x@far.example", f"y{n}@other.example", "carol@here.example"] for n in NUMBERS}
    return Counter(
        (each if number == 7 or place < 1 + number % 3 else "")
        for number, all_ in there.items()
        for place, each in enumerate(all_)
    )


@pytest.mark.parametrize("storing", STORING)
def test_our_spool_is_listed_and_delivered_by_the_original(tmp_path: Path, storing: str) -> None:
    def play() -> bytes:
        sink = island.Sink(2525)
        with island.running(
            tmp_path, "ours", island.ours(tmp_path, STORING[storing] + WAITING), 2500
        ) as daemon:
            _send()
            stored = len(island.envelopes())
            island.until(lambda: daemon.said().count(" delivery ") >= stored, daemon.said)
        assert daemon.process.returncode == 0
        listed = island.original_control("show", "queue")
        mine = island.our_control("show", "queue")
        config = STORING[storing] + DELIVERING
        with island.running(
            tmp_path, "original", island.original(tmp_path, config), 2600
        ) as daemon:
            island.until(_is_scheduled, daemon.said)
        return json.dumps(
            [
                stored,
                sorted(listed),
                sorted(mine),
                sink.recipients,
                sorted(map(_body, sink.taken)),
                sorted(island.maildir("carol")),
            ]
        ).encode()

    stored, listed, mine, recipients, bodies, local = json.loads(island.inside(tmp_path, play))
    expected = Counter(_expected())
    expected.pop("")
    assert stored == sum(expected.values()) == len(mine)
    if storing == "plain":  # the original lists no compressed spool while its daemon is down
        assert mine == listed
    inside = expected.pop("carol@here.example")
    assert recipients == sorted(expected.elements())
    assert len(local) == inside
    assert set(bodies) == {_text(number).decode().partition("\n\n")[2] for number in NUMBERS}
    assert all(each.count("Delivered-To: carol@here.example\n") == 1 for each in local)


def _is_scheduled() -> bool:
    """Tell whether nothing is left; else have it tried, as the original is still loading it."""
    left = island.envelopes()
    if left:
        island.original_control("schedule", "all")
    return not left


def _body(mail: island.Taken) -> str:
    return mail.text.partition("\n\n")[2]


# ---- the reverse

MADE_LATER = re.compile(rb"^(ctime|retry): [0-9]+$", re.MULTILINE)
DRAINING = """
listen on 127.0.0.1 port 2600
{actions}
match from any for any action "{relay}"
"""
LOCAL = 'action "{}" maildir'
RELAY = 'action "{}" relay'
FIXTURES = [
    *(("5.7.3", name) for name in ("local-1", "content-1", "tags-1", "compress-1")),
    *(("6.8", name) for name in ("local-1", "mta-tempfail-1")),
    *(("7.8", name) for name in ("local-1", "content-1", "multircpt-1")),
]


def _unpack(version: str, name: str) -> Dict[str, Any]:
    """Put a fixture into the spool, as if its mail had come a while ago; give its envelopes."""
    found = {}
    now = int(time.time()) - 3 * 3600  # noqa: TID251
    path = ROOT / "tests" / "spools" / version / f"{name}.tar.gz"
    with tarfile.open(path) as tar:
        for member in tar:
            inside = member.name.partition("/")[2]
            if not member.isfile() or not inside.startswith("queue/"):
                continue
            file = tar.extractfile(member)
            assert file is not None
            octets = file.read()
            to = island.SPOOL / inside
            if to.name != "message":
                plain, layers = codec.decode_envelope(octets, None, ENVELOPE_OCTETS_MAX)
                plain = MADE_LATER.sub(
                    lambda each: each[1] + (b": %d" % now if each[1] == b"ctime" else b": 0"), plain
                )
                found[to.name] = parse_envelope(plain).envelope
                octets = codec.encode(plain, plain != octets and bool(layers), None, None)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(octets)
    return found


def _config(found: Dict[str, Any]) -> str:
    """Make a configuration with the actions that the envelopes name."""
    kinds = {each.dispatcher: each.type for each in found.values() if each.type != "bounce"}
    lines = [
        (LOCAL if kind == "mda" else RELAY).format(name) for name, kind in kinds.items() if name
    ]
    lines += [RELAY.format("the rest")]
    return DRAINING.format(actions="\n".join(lines), relay="the rest")


@pytest.mark.parametrize(("version", "name"), FIXTURES)
def test_spools_of_the_original_are_drained(tmp_path: Path, version: str, name: str) -> None:
    def play() -> bytes:
        sink = island.Sink(25)
        _own_the_spool()
        found = _unpack(version, name)
        _own_the_spool()
        with island.running(
            tmp_path, "ours", island.ours(tmp_path, _config(found)), 2600
        ) as daemon:
            island.until(lambda: not island.envelopes(), lambda: f"{sorted(island.envelopes())}")
        local = {user: _local_mails(user) for user in island.USERS}
        kinds = [
            # With a report of success that was asked for, for each that is delivered here.
            (each.type, each.dest, each.mda_user, each.dsn_notify & 1)
            for each in found.values()
        ]
        return json.dumps([kinds, sink.recipients, local, daemon.said()]).encode()

    kinds, recipients, local, said = json.loads(island.inside(tmp_path, play))
    print(said)
    relayed = Counter(_plain(dest) for kind, dest, _, _ in kinds if kind == "mta")
    notices = sum(bool(kind == "bounce" or asked) for kind, _, _, asked in kinds)
    assert relayed
    got = Counter(map(_plain, recipients))
    assert not relayed - got
    assert sum((got - relayed).values()) <= notices
    wanted = Counter(user for kind, _, user, _ in kinds if kind == "mda")
    assert {user: len(mails) for user, mails in local.items() if mails} == dict(wanted)


def _own_the_spool() -> None:
    """Make the spool the queue user's, as its own daemon does."""
    import pwd

    queue = pwd.getpwnam("opensmtpq")
    for top, directories, files in os.walk(island.SPOOL):
        for each in (*directories, *files):
            os.chown(os.path.join(top, each), queue.pw_uid, 0)
    for path in island.SPOOL.glob("queue"):
        path.chmod(0o700)


def _local_mails(user: str) -> List[str]:
    """Give a user's mails in a maildir or a mailbox."""
    mbox = island.HOMES.parent / "var" / "mail" / user
    try:
        text = mbox.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return island.maildir(user)
    return re.split("^From ", text, flags=re.MULTILINE)[1:] + island.maildir(user)


def _plain(address: str) -> str:
    return address.replace('"', "").replace("\\", "").lower()


def test_what_is_written_is_within_the_form_of_the_release() -> None:
    """The release that test_our_spool_... runs is the one whose form we write."""
    text = b"version: 3\ndispatcher: out\ntype: mta\nhelo: a\nhostname: b\nsender: @\n"
    text += b"rcpt: a@b\ndest: a@b\nctime: 1\n"
    assert refusal(parse_envelope(text), find_release("6.8")) is None
