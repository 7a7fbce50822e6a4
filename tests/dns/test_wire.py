"""DNS messages: captured and hand-made packets, hostile ones included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.dns import wire
from smtpd_core.dns.wire import Exchange, Message, Question, Record, WireError

HEADER = "1234 8180 0001 0001 0000 0000"
ASKED = "07 6578616d706c65 03 6f7267 00"  # example.org at octet 12


def packet(*hexadecimal: str) -> bytes:
    return bytes.fromhex("".join(hexadecimal).replace(" ", ""))


def test_a_query_octet_for_octet() -> None:
    asked = wire.query(Question("example.org", wire.MX), 0x1234, case_bits=0b101)
    assert wire.encode(asked) == packet(
        "1234 0100 0001 0000 0000 0001",
        "07 4578416d706c65 03 6f7267 00 000f 0001",
        "00 0029 04d0 00000000 0000",
    )
    plain = wire.query(Question("example.org", wire.A), 1, edns=False)
    assert wire.encode(plain)[10:12] == b"\0\0"


def test_a_compressed_answer() -> None:
    octets = packet(
        "1234 8180 0001 0003 0000 0001",
        ASKED,
        "000f 0001",
        "c00c 000f 0001 00000e10 0009 000a 04 6d61696c c00c",
        "c00c 000f 0001 00000e10 0004 0014 c02b",
        "c02b 0001 0001 0000003c 0004 c0000201",
        "00 0029 04d0 00000000 0000",
    )
    message = wire.decode(octets)
    assert message.question == Question("example.org", wire.MX)
    assert message.answers == (
        Record("example.org", wire.MX, 3600, Exchange(10, "mail.example.org")),
        Record("example.org", wire.MX, 3600, Exchange(20, "mail.example.org")),
        Record("mail.example.org", wire.A, 60, "192.0.2.1"),
    )
    assert message.udp_size == 1232
    assert message.additional == ()


@pytest.mark.parametrize(
    ("why", "octets"),
    [
        ("empty", b""),
        ("header cut", packet(HEADER)[:11]),
        ("no question", packet(HEADER)),
        ("pointer to itself", packet(HEADER, "c00c 0001 0001")),
        ("pointer forwards", packet(HEADER, "c0ff 0001 0001")),
        ("loop of two", packet(HEADER, "01 61 c00c 0001 0001")),
        ("reserved label type", packet(HEADER, "40 61 00 0001 0001")),
        ("name past the end", packet(HEADER, "3f 61")),
        ("class CHAOS", packet(HEADER, ASKED, "0001 0003")),
        ("two questions", packet("1234 8180 0002 0000 0000 0000", ASKED, "0001 0001" * 2)),
        ("65535 records", packet("1234 8180 0001 ffff 0000 0000", ASKED, "0001 0001")),
        ("long rdata", packet(HEADER, ASKED, "0001 0001 c00c 0001 0001 00000000 0005 c0000201")),
        ("short A", packet(HEADER, ASKED, "0001 0001 c00c 0001 0001 00000000 0003 c00002")),
        ("long A", packet(HEADER, ASKED, "0001 0001 c00c 0001 0001 00000000 0005 c000020100")),
        ("TXT cut", packet(HEADER, ASKED, "0010 0001 c00c 0010 0001 00000000 0002 0561")),
        ("two OPT", packet("1234 8180 0000 0000 0000 0002", "00 0029 04d0 00000000 0000" * 2)),
        ("name of 256", packet(HEADER, "3f" + "61" * 63, *["3f" + "61" * 63] * 3, "00 0001 0001")),
        ("too big", bytes(65536)),
    ],
)
def test_hostile_packets_are_refused(why: str, octets: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(octets)


def pointers(count: int) -> bytes:
    """Give a response whose second record has a name reached through so many pointers."""
    head = packet("1234 8180 0001 0002 0000 0000", "01 61 00 0001 0001")
    head += packet("00 ff00 0001 00000000") + (2 * count).to_bytes(2, "big")
    targets = [12] + [len(head) + 2 * n for n in range(count)]
    chain = b"".join((0xC000 | target).to_bytes(2, "big") for target in targets)
    return head + chain + packet("0001 0001 00000000 0004 c0000201")


def test_a_long_chain_of_pointers_is_refused() -> None:
    assert wire.decode(pointers(wire.MAX_JUMPS - 1)).answers[1].name == "a"
    with pytest.raises(WireError, match="points"):
        wire.decode(pointers(wire.MAX_JUMPS))


def test_a_truncated_message_keeps_its_question_only() -> None:
    octets = packet("1234 8380 0001 0001 0000 0000", ASKED, "0001 0001", "c00c 0001")
    message = wire.decode(octets)
    assert message.truncated
    assert message.answers == ()


def test_the_extended_code_comes_from_the_options() -> None:
    octets = packet("1234 8180 0000 0000 0000 0001", "00 0029 04d0 01000000 0000")
    assert wire.decode(octets).rcode == 16


def test_a_lifetime_past_31_bits_is_none() -> None:
    octets = packet(HEADER, ASKED, "0001 0001 c00c 0001 0001 ffffffff 0004 c0000201")
    assert wire.decode(octets).answers[0].ttl == 0


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        (".", b"\0"),
        ("a", b"\1a\0"),
        ("a.b.", b"\1a\1b\0"),
        (r"a\.b.c", b"\3a.b\1c\0"),
        (r"a\\b", b"\3a\\b\0"),
        (r"\000\255", b"\2\x00\xff\0"),
        (r"a\032b", b"\3a b\0"),
    ],
)
def test_names_escape_what_could_mislead(name: str, octets: bytes) -> None:
    assert wire.encode_name(name) == octets
    record = Record(name.rstrip(".") or ".", wire.PTR, 1, name.rstrip(".") or ".")
    message = Message(1, None, response=True, answers=(record,))
    assert wire.decode(wire.encode(message)).answers == (record,)


@pytest.mark.parametrize(
    "name", ["", "..", "a..b", ".a", "a" * 64, "a." * 128, "b\xfccher.example", "a\\", r"a\999"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(WireError):
        wire.encode_name(name)


def test_a_response_must_fit_its_query() -> None:
    asked = wire.query(Question("example.org", wire.A), 7, case_bits=1)
    good = Message(7, Question("Example.org", wire.A), response=True)
    assert wire.answers_to(asked, good)
    bad = [
        Message(8, good.question, response=True),
        Message(7, good.question),
        Message(7, Question("example.org", wire.A), response=True),
        Message(7, Question("Example.org", wire.MX), response=True),
        Message(7, good.question, response=True, opcode=4),
        Message(7, None, response=True),
    ]
    assert not any(wire.answers_to(asked, message) for message in bad)
    assert wire.answers_to(asked, Message(7, None, response=True, rcode=wire.FORMERR))


@pytest.mark.parametrize(
    ("name", "normal"),
    [("Example.ORG.", "Example.ORG"), (".", "."), (r"\065b", "Ab"), ("a\\.", "a\\.")],
)
def test_names_have_one_spelling(name: str, normal: str) -> None:
    assert wire.normal(name) == normal
    asked = wire.query(Question(name, wire.A), 1, case_bits=5)
    response = wire.decode(wire.encode(asked))
    assert response.question == asked.question


names = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6).map(
    lambda parts: ".".join(map(wire._label_text, parts))
)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
datas = st.one_of(
    st.tuples(st.just(wire.A), st.ip_addresses(v=4).map(str)),
    st.tuples(st.sampled_from([wire.NS, wire.CNAME, wire.PTR]), names),
    st.tuples(st.just(wire.MX), st.builds(Exchange, u16, names)),
    st.tuples(st.just(wire.SRV), st.builds(wire.Service, u16, u16, u16, names)),
    st.tuples(st.just(wire.SOA), st.builds(wire.Authority, names, names, u32, u32, u32, u32, u32)),
    st.tuples(st.just(wire.TXT), st.lists(st.binary(max_size=30), max_size=4).map(tuple)),
    st.tuples(st.just(999), st.binary(max_size=30)),
)
records = st.builds(
    lambda name, pair, ttl: Record(name, pair[0], ttl, pair[1]),
    names,
    datas,
    st.integers(0, 0x7FFFFFFF),
)
messages = st.builds(
    Message,
    ident=u16,
    question=st.none() | st.builds(Question, names, u16),
    response=st.booleans(),
    opcode=st.integers(0, 15),
    authoritative=st.booleans(),
    recursion_desired=st.booleans(),
    recursion_available=st.booleans(),
    rcode=st.integers(0, 15),
    answers=st.lists(records, max_size=4).map(tuple),
    authority=st.lists(records, max_size=2).map(tuple),
    additional=st.lists(records, max_size=2).map(tuple),
    udp_size=st.none() | st.integers(512, 4096),
)


@given(messages)
def test_what_is_written_is_read(message: Message) -> None:
    assert wire.decode(wire.encode(message)) == message


@given(st.binary(max_size=80))
def test_any_octets_give_a_message_or_the_error(octets: bytes) -> None:
    for packed in (octets, packet("1234 8180 0001 0002 0001 0001") + octets):
        try:
            wire.decode(packed)
        except WireError:
            pass


@given(messages, st.data())
def test_damaged_messages_give_a_message_or_the_error(
    message: Message, data: st.DataObject
) -> None:
    octets = bytearray(wire.encode(message))
    for _ in range(3):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        wire.decode(bytes(octets))
    except WireError:
        pass


@given(st.text(max_size=30))
def test_any_text_is_a_name_or_refused(name: str) -> None:
    try:
        encoded = wire.encode_name(name)
    except WireError:
        return
    assert len(encoded) <= wire.MAX_NAME
