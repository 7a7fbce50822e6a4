from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.queue.envelope import Envelope, EnvelopeError, Parsed, parse_envelope
from tests import golden
from tests.strategies import mutations

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "envelope"
EXAMPLES = {path.stem: path.read_bytes() for path in sorted(VECTORS.glob("*.in"))}
BASE = EXAMPLES["06-format-3-mta"]


def text_of(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def test_every_value_of_an_envelope() -> None:
    parsed = parse_envelope(EXAMPLES["07-format-3-bounce"])
    assert (parsed.damage, parsed.missing, parsed.unknown) == ([], [], [])
    assert parsed.envelope == Envelope(
        version=3, dispatcher="outbound", tag="submission", type="bounce",
        smtpname="mx.example.org", helo="laptop.example.org", hostname="dsl-4.example.net",
        username="dave", errorline="451 4.7.1 Greylisted", family="inet4",
        address="198.51.100.4", sender="dave@example.org", rcpt="carol@example.com",
        dest="carol@example.com", ctime=1700010000, ttl=604800, flags=1, dsn_notify=6,
        dsn_ret="FULL", dsn_envid="QQ314159", dsn_orcpt="carol@example.com", esc_class=4,
        bounce_ttl=345600, bounce_delay=14400, bounce_type="delayed",
    )  # fmt: skip
    assert parsed.octets == len(EXAMPLES["07-format-3-bounce"])
    assert parsed.names["bounce-type"] == "delayed"


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_without_damage(name: str) -> None:
    parsed = parse_envelope(EXAMPLES[name])
    assert (parsed.damage, parsed.missing, parsed.unknown) == ([], [], [])


def test_what_is_absent_is_zero_or_empty() -> None:
    envelope = parse_envelope(b"version: 3\n").envelope
    assert envelope == Envelope(version=3)
    assert (envelope.type, envelope.bounce_type, envelope.retry) == ("mda", "failed", 0)
    assert hash(envelope) == hash(Envelope(version=3))
    assert envelope != Envelope(version=2)
    assert envelope != "version: 3"
    assert repr(envelope) == "Envelope(version=3)"


# (what is done to the lines of an example, how it reads afterwards)
LEXICAL: list[tuple[str, bytes, dict[str, object]]] = [
    ("blanks around the colon", BASE.replace(b"tag: ", b"tag \t: \v\f "), {"tag": "submission"}),
    ("no blank behind it", BASE.replace(b"retry: 6", b"retry:6"), {"retry": 6}),
    ("the last of two wins", BASE + b"retry: 9\nretry: 8\n", {"retry": 8}),
    ("two spellings, upper case first", BASE + b"RETRY: 9\n", {"retry": 6}),
    ("flags of two spellings add up", BASE + b"FLAGS: internal\n", {"flags": 5}),
    ("another version, in upper case", BASE + b"VERSION: 9\n", {"version": 3}),
    ("names in any case", BASE.replace(b"sender:", b"SenDer:"), {"sender": "dave@example.org"}),
    ("leading zeros", BASE.replace(b"retry: 6", b"retry: 0006"), {"retry": 6}),
    ("a sign", BASE.replace(b"retry: 6", b"retry: +6"), {"retry": 6}),
    ("minus zero", BASE.replace(b"retry: 6", b"retry: -0"), {"retry": 0}),
    ("an empty text", BASE.replace(b"tag: submission", b"tag:"), {"tag": ""}),
    ("an empty address", BASE.replace(b"sender: dave@example.org", b"sender: "), {"sender": "@"}),
    ("an address without @", BASE.replace(b"dave@example.org", b"dave"), {"sender": "dave@"}),
    ("two @", BASE.replace(b"sender: d", b"sender: x@y@d"), {"sender": "x@y@dave@example.org"}),
    ("a blank at the end", BASE.replace(b"submission", b"submission "), {"tag": "submission "}),
    ("a CR at the end", BASE.replace(b"submission", b"submission\r"), {"tag": "submission\r"}),
    ("octets above 127", BASE.replace(b"Greylisted", b"\xe9\xff"), {
        "errorline": "451 4.7.1 \udce9\udcff"}),
    ("choices in any case", BASE.replace(b"mta", b"MTA").replace(b"FULL", b"full"), {
        "type": "mta", "dsn_ret": "FULL"}),
    ("a colon in a value", BASE.replace(b"Greylisted", b"a: b"), {"errorline": "451 4.7.1 a: b"}),
]  # fmt: skip


@pytest.mark.parametrize(("_", "octets", "wanted"), LEXICAL, ids=lambda value: str(value)[:30])
def test_read_without_complaint(_: str, octets: bytes, wanted: dict[str, object]) -> None:
    parsed = parse_envelope(octets)
    assert (parsed.damage, parsed.missing, parsed.unknown) == ([], [], [])
    for attribute, value in wanted.items():
        assert getattr(parsed.envelope, attribute) == value


# What every release refuses; here it is read all the same.
DAMAGED: list[tuple[str, bytes, str]] = [
    ("last line open", BASE[:-1], "the last line has no line end: the file may be cut"),
    ("empty line inside", BASE.replace(b"\nhelo", b"\n\nhelo"), "it contains an empty line"),
    ("empty line at the end", BASE + b"\n", "it contains an empty line"),
    ("NUL", BASE.replace(b"Grey", b"Gr\0ey"), "it contains NUL octets"),
    ("CR LF", BASE.replace(b"\n", b"\r\n"), "its lines end in CR LF"),
    ("no colon", BASE + b"nonsense\n", "line 26 is not `name: value`"),
    ("another octet in the name", BASE + b"a_b: 1\n", "line 26 is not `name: value`"),
    ("a blank in the name", BASE + b"a b: 1\n", "line 26 is not `name: value`"),
    ("no name", BASE + b": 1\n", "line 26 is not `name: value`"),
    ("a blank before the name", BASE + b" tag: x\n", "line 26 is not `name: value`"),
    ("unknown name", BASE + b"x-custom: 1\n", "field x-custom is of no known release"),
    ("no version", BASE.partition(b"\n")[2], "it has no version"),
    ("Version", b"V" + BASE[1:], "the name of the version line is not in lower case"),
    ("version 65", BASE.replace(b"version: 3", b"version: 65"), "version: '65' is not between"),
    ("version x", BASE.replace(b"version: 3", b"version: x"), "field version: 'x' is not a number"),
    ("empty number", BASE.replace(b"retry: 6", b"retry: "), "field retry: '' is not a number"),
    ("blank after", BASE.replace(b"retry: 6", b"retry: 6 "), "field retry: '6 ' is not a number"),
    ("CR after a number", BASE.replace(b"retry: 6", b"retry: 6\r"), "field retry: '6\r' is not"),
    ("hexadecimal", BASE.replace(b"retry: 6", b"retry: 0x6"), "field retry: '0x6' is not a number"),
    ("two signs", BASE.replace(b"retry: 6", b"retry: +-6"), "field retry: '+-6' is not a number"),
    ("negative", BASE.replace(b"retry: 6", b"retry: -6"), "field retry: '-6' is not between 0 and"),
    (
        "u16",
        BASE.replace(b"retry: 6", b"retry: 65536"),
        "retry: '65536' is not between 0 and 65535",
    ),
    ("u8", BASE.replace(b"notify: 6", b"notify: 256"), "'256' is not between 0 and 255"),
    ("time", BASE.replace(b"ctime: 17", b"ctime: %d" % (1 << 63)), "field ctime: '"),
    ("flag", BASE.replace(b": auth", b": x"), "field flags: unknown flag 'xenticated'"),
    ("two separators", BASE.replace(b"authenticated", b"authenticated, bounce"), "an empty flag"),
    ("no flag", BASE.replace(b"flags: authenticated", b"flags: "), "field flags: an empty flag"),
    ("type", BASE.replace(b"type: mta", b"type: mtb"), "field type: 'mtb' is not one of mda, mta,"),
    ("no type", BASE.replace(b"type: mta", b"type:"), "field type: '' is not one of"),
    ("ret", BASE.replace(b"FULL", b"half"), "field dsn-ret: 'half' is not one of full, hdrs"),
    ("bounce type", BASE + b"bounce-type: late\n", "field bounce-type: 'late' is not one of"),
    ("method", BASE + b"mda-method: smtp\n", "field mda-method: 'smtp' is not one of mbox,"),
    ("LOCAL", BASE.replace(b": 198.51.100.4", b": LOCAL"), "'LOCAL' is not a client address"),
    ("bare IPv6", BASE.replace(b": 198.51.100.4", b": ::1"), "'::1' is not a client address"),
    ("no client", BASE.replace(b": 198.51.100.4", b": "), "'' is not a client address"),
    ("tag of 33", BASE.replace(b"submission", b"x" * 33), "field tag: longer than 32 octets"),
    ("helo of 256", BASE.replace(b"laptop", b"x" * 244), "field helo: longer than 255 octets"),
    (
        "local part of 256",
        BASE.replace(b": dave@", b": " + b"x" * 256 + b"@"),
        "is longer than 255 octets",
    ),
    (
        "domain of 256",
        BASE.replace(b"@example.org", b"@" + b"x" * 256),
        "is longer than 255 octets",
    ),
    ("error of 2048", BASE.replace(b"Grey", b"x" * 2034), "field errorline: longer than 2047"),
]


@pytest.mark.parametrize(("_", "octets", "complaint"), DAMAGED, ids=lambda value: str(value)[:30])
def test_read_with_complaint(_: str, octets: bytes, complaint: str) -> None:
    parsed = parse_envelope(octets)
    assert len(parsed.damage) == 1
    assert complaint in parsed.damage[0]
    wanted = parse_envelope(BASE).envelope
    kept = ("sender", "rcpt", "dest", "ctime", "helo")
    differ = [name for name in kept if getattr(parsed.envelope, name) != getattr(wanted, name)]
    assert len(differ) <= 1  # nothing else is lost


def test_refused_texts_are_shown_as_they_stand() -> None:
    parsed = parse_envelope(text_of("version: 3", f"errorline: {'e' * 3000}", "retry: many"))
    assert parsed.envelope.errorline == "e" * 3000
    assert parsed.envelope.retry == 0
    url = parse_envelope(text_of("version: 2", "mta-relay: gopher://x"))
    assert url.envelope.mta_relay == "gopher://x"


def test_missing_fields_are_told_apart_from_damage() -> None:
    parsed = parse_envelope(b"version: 3\nhelo: x\n")
    assert parsed.damage == []
    assert parsed.missing == ["type", "sender", "rcpt", "dest", "ctime"]


def test_rubbish_is_told_in_few_words() -> None:
    parsed = parse_envelope(BASE + b"x\n" * 9000)
    assert parsed.damage == [
        "line 26 is not `name: value`",
        "line 27 is not `name: value`",
        "line 28 is not `name: value`",
        "8997 more lines are not `name: value`",
    ]
    parsed = parse_envelope(BASE + b"".join(b"x%d: 1\n" % n for n in range(50)))
    assert len(parsed.damage) == 4
    assert parsed.damage[-1] == "47 more fields are of no known release"
    assert len(parsed.unknown) == 50


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n", "nothing in it is a field"),
        (b"\0", "nothing in it is a field"),
        (b"hello\n", "nothing in it is a field"),
        (b"x-custom: 1\n", "nothing in it is a field"),
        (b"\xff" * 400, "nothing in it is a field"),
    ],
)
def test_no_envelope_at_all(octets: bytes, reason: str) -> None:
    with pytest.raises(EnvelopeError, match=reason):
        parse_envelope(octets)


@given(
    st.one_of(
        st.binary(max_size=300),
        mutations(BASE),
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["version", "type", "flags", "sockaddr", "mta-relay", "FLAGS", "x"]
                ),
                st.text(max_size=20),
            ).map(": ".join)
        ).map(lambda lines: "\n".join(lines).encode("utf-8", "replace")),
    )
)
def test_any_octets_give_an_envelope_or_a_refusal(octets: bytes) -> None:
    try:
        parsed = parse_envelope(octets)
    except EnvelopeError:
        return
    assert isinstance(parsed, Parsed)
    assert parsed.octets == len(octets)
    assert parsed.names


def test_every_envelope_of_real_daemons_is_without_damage() -> None:
    count = 0
    for version in golden.VERSIONS:
        for tar in sorted((golden.SPOOLS / version).glob("*.tar.gz")):
            for octets in golden.Stored(tar).envelopes.values():
                if octets.startswith(b"version: "):
                    parsed = parse_envelope(octets)
                    assert (parsed.damage, parsed.missing, parsed.unknown) == ([], [], [])
                    count += 1
    assert count > 2000
