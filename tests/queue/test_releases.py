from __future__ import annotations

import pathlib
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_core import text
from smtpd_core.queue.envelope import Envelope, EnvelopeError, parse_envelope
from smtpd_core.queue.releases import (
    RELEASES,
    common_refusal,
    find_release,
    format_envelope,
    readers,
    refusal,
)
from tests import golden
from tests.strategies import envelopes

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "envelope"
WRITERS = {"1": "5.3.3", "2": "5.7.3", "3": "6.8"}  # of the examples, by their format
EXAMPLES = {path.stem: path.read_bytes() for path in sorted(VECTORS.glob("*.in"))}
MTA = EXAMPLES["06-format-3-mta"].replace(b"username: dave\n", b"")  # as 6.4 writes it
MDA = EXAMPLES["05-format-3-mda"].replace(b"[2001:db8::7]", b"192.0.2.7")
BOUNCE = EXAMPLES["07-format-3-bounce"].replace(b"username: dave\n", b"")
MTA_2 = EXAMPLES["03-format-2-mta-null-sender"]
MTA_1 = EXAMPLES["01-format-1-mta"]
FORMAT_3 = ["6.4", "6.6", "6.7", "7.3", "7.5"]
FROM_66 = ["6.6", "6.7", "7.3", "7.5"]
FROM_67 = ["6.7", "7.3", "7.5"]
UP_TO_67 = ["6.4", "6.6", "6.7"]
FORMAT_2 = ["5.7", "6.0.3"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_written_back_as_it_was(name: str) -> None:
    octets = EXAMPLES[name]
    writer = find_release(WRITERS[name.split("-")[2]])
    assert format_envelope(parse_envelope(octets).envelope, writer) == octets


def test_format_1_becomes_format_2() -> None:
    wanted = (VECTORS / "01-format-1-mta.5.7.out").read_bytes()
    release = find_release("5.7.3")
    envelope = parse_envelope(MTA_1).envelope
    assert format_envelope(envelope, release, "mx.example.org") == wanted
    assert b"smtpname" not in format_envelope(envelope, release)
    assert format_envelope(parse_envelope(wanted).envelope, release) == wanted


def test_server_name_stands_in_where_the_release_puts_it() -> None:
    without = parse_envelope(MTA_2.replace(b"smtpname: mx.example.org\n", b"")).envelope
    assert format_envelope(without, find_release("5.7"), "mx.example.org") == MTA_2
    assert b"smtpname" not in format_envelope(without, find_release("6.0.3"), "mx.example.org")
    without = parse_envelope(MTA.replace(b"smtpname: mx.example.org\n", b"")).envelope
    assert b"smtpname" not in format_envelope(without, find_release("7.8"), "mx.example.org")


def test_newest_spelling_is_written() -> None:
    old = parse_envelope(BOUNCE.replace(b"delayed", b"warn")).envelope
    assert format_envelope(old, find_release("6.8")) == BOUNCE
    assert b"bounce-type: warn\n" in format_envelope(old, find_release("6.4"))
    inet6 = parse_envelope(MTA.replace(b"198.51.100.4", b"IPv6:2001:DB8:0::7")).envelope
    assert b"sockaddr: [2001:db8::7]\n" in format_envelope(inet6, find_release("7.8"))
    assert b"sockaddr: IPv6:2001:db8::7\n" in format_envelope(inet6, find_release("6.4"))


def test_a_field_of_another_type_is_dropped() -> None:
    octets = format_envelope(parse_envelope(MTA + b"mda-user: bob\n").envelope, find_release("6.8"))
    assert octets == MTA


@pytest.mark.parametrize("version", golden.VERSIONS)
def test_every_envelope_of_real_daemons_is_written_back(version: str) -> None:
    release = find_release(version)
    own = {"5.7.3": "5.7", "6.8": "6.7", "7.8": "7.5"}[version]
    for tar in sorted((golden.SPOOLS / version).glob("*.tar.gz")):
        for octets in golden.Stored(tar).envelopes.values():
            if octets.startswith(b"version: "):
                parsed = parse_envelope(octets)
                assert format_envelope(parsed.envelope, release) == octets
                assert own in readers(parsed)


@pytest.mark.parametrize("name", [release.name for release in RELEASES])
@settings(max_examples=25)
@given(data=st.data())
def test_what_is_written_is_read_back(name: str, data: st.DataObject) -> None:
    release = find_release(name)
    envelope = data.draw(envelopes(name))
    octets = format_envelope(envelope, release)
    parsed = parse_envelope(octets)
    assert (parsed.damage, parsed.unknown, parsed.missing) == ([], [], [])
    assert parsed.envelope == envelope
    assert refusal(parsed, release) is None
    assert name in readers(parsed)
    assert format_envelope(parsed.envelope, release) == octets


_TEXTS = ("dispatcher", "tag", "smtpname", "helo", "hostname", "username", "errorline", "sender",
          "rcpt", "dest", "dsn_envid", "dsn_orcpt", "address")  # fmt: skip


@given(
    octet=st.sampled_from(["\n", "\r", "\0"]),
    at=st.integers(0, 8),
    attribute=st.sampled_from(_TEXTS),
)
def test_line_ends_are_never_written(octet: str, at: int, attribute: str) -> None:
    envelope = parse_envelope(
        EXAMPLES["06-format-3-mta"].replace(b"198.51.100.4", b"[::1]")
    ).envelope
    value = "mda-exec"
    setattr(envelope, attribute, f"{value[:at]}{octet}{value[at:]}")
    with pytest.raises(EnvelopeError, match="a line end or NUL must not be stored"):
        format_envelope(envelope, find_release("7.8"))


@pytest.mark.parametrize(
    ("release", "values", "reason"),
    [
        ("7.8", {"version": 2}, "7.5 does not read format 2"),
        ("5.7", {"version": 3}, "5.7 does not read format 3"),
        ("6.0.3", {"version": 1}, "6.0.3 does not read format 1"),
        ("6.8", {"tag": "x" * 33}, "field tag: longer than 32 octets"),
        ("6.8", {"tag": "\udcff" * 33}, "field tag: longer than 32 octets"),
        ("6.8", {"errorline": "x" * 2048}, "field errorline: longer than 2047 octets"),
        ("6.8", {"sender": "x" * 9000}, "field sender: longer than 8191 octets"),
        (
            "6.8",
            {"errorline": "x" * 2047, "sender": "x" * 5600},
            "no file of more than 7567 octets",
        ),
    ],
)
def test_what_cannot_be_written(release: str, values: dict[str, Any], reason: str) -> None:
    envelope = Envelope(**{"version": 3, "type": "mta", "helo": "h", "hostname": "h", **values})
    with pytest.raises(EnvelopeError, match=reason):
        format_envelope(envelope, find_release(release))


def test_names_of_releases() -> None:
    for said, meant in (("5.7.3", "5.7"), ("6.8", "6.7"), ("7.8", "7.5"), ("6.0.3", "6.0.3")):
        assert find_release(said).name == meant
    with pytest.raises(EnvelopeError, match=r"8.0 is not a known release; known are 5.2.1, 5.3,"):
        find_release("8.0")


# (what it is, its octets, who reads it)
READ: list[tuple[str, bytes, list[str]]] = [
    # which formats a release loads
    ("format 1", MTA_1, ["5.3", "5.4.1", "5.4.2", "5.7"]),
    ("format 1 with msgid", MTA_1 + b"msgid: 1\n", ["5.3", "5.4.1", "5.4.2", "5.7"]),
    ("format 1, upgraded in part", MTA_1.replace(b": ssl", b": secure"), ["5.4.1", "5.4.2", "5.7"]),
    ("format 2 of 5.7", MTA_2, FORMAT_2),
    ("format 2 of 5.4.2", MTA_2.replace(b"mta-relay-ca: corp\n", b""), ["5.4.2", *FORMAT_2]),
    (
        "format 2 of 5.4.1",
        MTA_2.replace(b"mta-relay-ca: corp\n", b"")
        .replace(b"dsn-notify: 0\n", b"")
        .replace(b"esc-class: 4\nesc-code: 0\n", b""),
        ["5.4.1", "5.4.2", *FORMAT_2],
    ),
    ("format 2 with msgid", MTA_2 + b"msgid: 1\n", []),
    ("format 2 with a name of format 1", MTA_2 + b"mta-relay-helo: x\n", []),
    ("format 2 with ssl", MTA_2.replace(b": tls+", b": ssl+"), []),
    ("format 2 with tls+backup", MTA_2.replace(b"tls+auth://cred1@", b"tls+backup://"), FORMAT_2),
    ("format 2 with mda-delivery-user", EXAMPLES["02-format-2-mda"] + b"mda-delivery-user: x\n",
     FORMAT_2),
    ("format 2 without", EXAMPLES["02-format-2-mda"], ["5.4.2", *FORMAT_2]),
    ("format 3", MTA, FORMAT_3),
    ("format 4", MTA.replace(b"version: 3", b"version: 4"), []),
    ("format 0", MTA.replace(b"version: 3", b"version: 0"), []),
    ("format 2 with a name of format 3", MTA.replace(b"version: 3", b"version: 2"), []),
    # what one release of format 3 writes and another reads
    ("username", EXAMPLES["06-format-3-mta"], FROM_67),
    ("subaddress", MDA, FROM_66),
    ("mda of 6.4", MDA.replace(b"mda-subaddress: lists\n", b""), FORMAT_3),
    ("IPv6 of 6.4", MTA.replace(b"198.51.100.4", b"IPv6:2001:db8::7"), UP_TO_67),
    ("IPv6 of 6.6", MTA.replace(b"198.51.100.4", b"[2001:db8::7]"), FROM_66),
    ("IPv6 with a scope", MTA.replace(b"198.51.100.4", b"[fe80::7%eth0]"), ["7.3", "7.5"]),
    ("local", MTA.replace(b"198.51.100.4", b"local"), FORMAT_3),
    ("no client", MTA.replace(b"sockaddr: 198.51.100.4\n", b""), FORMAT_3),
    ("bounce of 6.4", BOUNCE.replace(b"delayed", b"warn"), FORMAT_3),
    ("bounce of 6.6", BOUNCE, FROM_66),
    ("bounce dsn", BOUNCE.replace(b"delayed", b"dsn"), FORMAT_3),
    ("bounce delivered", BOUNCE.replace(b"delayed", b"delivered"), FROM_66),
    ("orcpt of 256", MTA.replace(b"orcpt: carol@", b"orcpt: " + b"x" * 256 + b"@"), ["7.5"]),
    ("orcpt without @", MTA.replace(b"orcpt: carol@", b"orcpt: " + b"x" * 256), ["7.5"]),
    ("orcpt of 255", MTA.replace(b"orcpt: carol@", b"orcpt: " + b"x" * 255 + b"@"), FORMAT_3),
    ("orcpt of 501", MTA.replace(b"orcpt: carol", b"orcpt: " + b"x" * 489), []),
    ("orcpt of two parts", MTA.replace(b"orcpt: carol@example.com",
     b"orcpt: " + b"x" * 250 + b"@" + b"y" * 251), [*UP_TO_67, "7.3"]),
    # IPv6 and bounces of format 2
    ("format 2, IPv6", EXAMPLES["04-format-2-bounce"], ["5.4.2", *FORMAT_2]),
    ("format 2, brackets", MTA_2.replace(b"sockaddr: local", b"sockaddr: [::1]"), []),
    ("format 2, new bounce", EXAMPLES["04-format-2-bounce"].replace(b"warn", b"failed"), []),
    # what the daemon asks for after loading
    ("no helo", MTA.replace(b"helo: laptop.example.org\n", b""), []),
    ("empty hostname", MTA.replace(b"hostname: dsl-4.example.net", b"hostname: "), []),
    ("no dispatcher", MTA.replace(b"dispatcher: outbound\n", b""), []),
    # no release asks for these
    ("no sender", MTA.replace(b"sender: dave@example.org\n", b""), FORMAT_3),
    ("no type", MTA.replace(b"type: mta\n", b""), FORMAT_3),
    # damage
    ("open line", MTA[:-1], []),
    ("unknown name", MTA + b"x-custom: 1\n", []),
    # limits of length
    ("helo of 64", MTA.replace(b": laptop.example.org", b": " + b"h" * 64), FORMAT_3),
    ("helo of 65, of OpenBSD", MTA.replace(b": laptop.example.org", b": " + b"h" * 65), []),
]  # fmt: skip


@pytest.mark.parametrize(("_", "octets", "wanted"), READ, ids=lambda value: str(value)[:40])
def test_who_reads_it(_: str, octets: bytes, wanted: list[str]) -> None:
    parsed = parse_envelope(octets)
    assert readers(parsed) == wanted
    assert (common_refusal(parsed) is None) == bool(wanted)


@pytest.mark.parametrize(
    ("length", "wanted"),
    [(7559, FORMAT_3), (7560, [*UP_TO_67, "7.3"]), (7567, [*UP_TO_67, "7.3"]), (7568, [])],
)
def test_longest_file_of_format_3(length: int, wanted: list[str]) -> None:
    octets = MTA.replace(b"errorline: 451 4.7.1 Greylisted\n", b"").replace(
        b"flags: authenticated\n", b""
    )
    octets = octets.replace(b"type: mta", b"type: mda") + b"mda-user: u\n"
    octets += b"mda-exec: " + b"x" * 2000 + b"\nerrorline: " + b"e" * 2000 + b"\n"
    octets += b"flags: " + b"bounce|" * 300 + b"bounce\n"
    octets += b"sender:" + b" " * (length - len(octets) - 11) + b"a@b\n"
    assert len(octets) == length
    assert readers(parse_envelope(octets)) == wanted


@pytest.mark.parametrize(("length", "wanted"), [(17279, FORMAT_2), (17280, [])])
def test_longest_file_of_format_2(length: int, wanted: list[str]) -> None:
    octets = MTA_2 + b"rcpt:" + b" " * (length - len(MTA_2) - 9) + b"a@b\n"
    assert len(octets) == length
    assert readers(parse_envelope(octets)) == wanted


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (MTA.replace(b"version: 3", b"version: 7"), "there is no format 7"),
        (MTA.replace(b"version: 3", b"version: 2"), "6.0.3 does not know the field dispatcher"),
        (MTA.replace(b"helo: laptop.example.org\n", b""), "it has no helo"),
        (MTA.replace(b"dispatcher: outbound\n", b""), "it has no dispatcher"),
        (MTA_2 + b"ttl: 0\n", "6.0.3 does not know the field ttl"),
        (MTA_2.replace(b"sockaddr: local", b"sockaddr: [::1]"), "an IPv6 address in brackets"),
        (MTA_2.replace(b": tls+", b": ssl+"), "does not know the relay scheme ssl+auth"),
        (EXAMPLES["04-format-2-bounce"].replace(b"warn", b"failed"), "the bounce type failed"),
        (EXAMPLES["06-format-3-mta"].replace(b"198.51.100.4", b"IPv6:::1").replace(
            b"username", b"mda-subaddress"), None),
        (MTA[:-1], "the last line has no line end"),
    ],
)  # fmt: skip
def test_reason_of_the_newest_release_is_told(octets: bytes, reason: Optional[str]) -> None:
    said = common_refusal(parse_envelope(octets))
    assert (said is None) == (reason is None)
    if reason is not None:
        assert reason in (said or "")


def test_unusual_octets_survive() -> None:
    octets = MTA.replace(b"Greylisted", bytes(set(range(256)) - {0, 10, 13}))
    envelope = parse_envelope(octets).envelope
    assert text.encode(envelope.errorline).startswith(b"451 4.7.1 \x01\x02")
    assert format_envelope(envelope, find_release("6.8")) == octets
