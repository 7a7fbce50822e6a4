from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_core import text
from smtpd_core.cli import formats
from smtpd_core.cli.formats import Csv, Json, JsonPretty, Table, describe, format_json
from smtpd_core.queue.entries import Entry, read_entries
from smtpd_core.queue.envelope import ATTRIBUTES, Envelope
from smtpd_core.queue.releases import RELEASES, find_release, format_envelope, refusal
from smtpd_core.queue.sources import Item
from tests.strategies import envelopes
from tests.trees import STAMP, envelope

NOW = STAMP + 90_000


def entry_of(octets: bytes, bucket: str = "queue", size: int = 1500) -> Entry:
    item = Item("envelope", "/spool/x", bucket, 0x1122334400000001, octets)
    item.mtime, item.size, item.message_size = STAMP, len(octets), size
    (entry,) = read_entries(item, lambda: None)
    assert isinstance(entry, Entry)
    return entry


def made(**values: Any) -> Entry:
    return Entry(Item("envelope", "x", "queue", 1, b""), Envelope(**values))


ENTRIES = st.sampled_from(["5.7.3", "6.4", "7.8"]).flatmap(
    lambda name: envelopes(name).map(
        lambda made: entry_of(format_envelope(made, find_release(name)))
    )
)


# --- json


def test_names_of_the_schema() -> None:
    facts = json.loads(Json().row(entry_of(envelope(flags="authenticated", dsn_notify=6))))
    assert set(facts) - set(ATTRIBUTES) == {
        "schema", "evpid", "msgid", "bucket", "kind", "state", "path", "form", "file_time",
        "file_size", "message_size", "expiry", "expiry_time", "ctime_time", "unknown_fields",
        "read_by", "refused_by", "problems",
    }  # fmt: skip
    assert {name: facts[name] for name in ("schema", "evpid", "msgid", "bucket", "kind")} == {
        "schema": 1, "evpid": "1122334400000001", "msgid": "11223344", "bucket": "queue",
        "kind": "envelope",
    }  # fmt: skip
    assert facts["flags"] == ["authenticated"]
    assert facts["dsn_notify"] == ["failure", "delay"]
    assert facts["file_time"] == facts["ctime_time"] == "2023-11-14T22:13:20Z"
    assert (facts["expiry"], facts["expiry_time"]) == (None, None)
    assert facts["message_size"] == 1500
    assert facts["read_by"] == ["6.4", "6.6", "6.7", "7.3", "7.5"]


def test_what_is_not_known_is_null() -> None:
    facts = describe(made(version=2, ctime=5, ttl=10, mta_relay_flags=3))
    assert (facts["expiry"], facts["expiry_time"]) == (15, "1970-01-01T00:00:15Z")
    assert (facts["file_time"], facts["message_size"], facts["read_by"]) == (None, None, [])
    assert facts["mta_relay_flags"] == ["verify", "tls"]
    assert describe(made(ctime=1 << 62))["ctime_time"] is None


def test_damage_is_in_the_facts() -> None:
    facts = describe(entry_of(envelope() + b"x-custom: \xff\n"))
    assert facts["unknown_fields"] == {"x-custom": "\udcff"}
    assert facts["problems"] == ["field x-custom is of no known release"]
    assert facts["read_by"] == []


@settings(max_examples=40)
@given(ENTRIES)
def test_json_is_what_the_json_module_reads(entry: Entry) -> None:
    row = Json().row(entry)
    assert row.count("\n") == 1
    assert json.loads(row) == describe(entry)
    pretty = JsonPretty()
    rows = [pretty.row(entry)] * 2
    whole = pretty.head() + pretty.heading() + pretty.separator.join(rows) + pretty.tail(True)
    assert json.loads(whole) == [describe(entry)] * 2
    for spelled in (row, whole):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", spelled)
        spelled.encode()  # no lone surrogate is left


def test_json_of_no_entries() -> None:
    pretty = JsonPretty()
    assert json.loads(pretty.head() + pretty.tail(False)) == []
    assert Json().head() + Json().tail(False) == ""


def test_every_octet_in_a_value() -> None:
    octets = bytes(set(range(256)) - {0, 10, 13})
    entry = entry_of(envelope(errorline="x" + text.decode(octets)))
    said = json.loads(Json().row(entry))["errorline"]
    assert text.encode(said) == b"x" + octets


VALUES: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda below: st.one_of(st.lists(below), st.dictionaries(st.text(), below)),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_in_json(value: Any) -> None:
    assert json.loads(format_json(value)) == value
    assert json.loads(format_json(value, "  ")) == value


# --- csv


@settings(max_examples=40)
@given(st.lists(ENTRIES, max_size=3))
def test_csv_is_what_the_csv_module_reads(entries: list[Entry]) -> None:
    form = Csv()
    whole = form.head() + form.heading() + "".join(map(form.row, entries)) + form.tail(True)
    rows = list(csv.DictReader(io.StringIO(whole, newline="")))
    assert len(rows) == len(entries)
    for row, entry in zip(rows, entries):
        facts = describe(entry)
        for column, value in row.items():
            wanted = facts[column]
            if isinstance(wanted, list):
                wanted = "; ".join(wanted)
            spelled = "" if wanted is None else str(wanted)
            assert value in (spelled, f"'{spelled}")
            assert value[:1] not in ("=", "+") or not isinstance(wanted, str)


@pytest.mark.parametrize(
    ("value", "cell"),
    [("a", "a"), ("", ""), ("a,b", '"a,b"'), ('a"b', '"a""b"'), ("a\rb", '"a\rb"'),
     ("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("@", "@"), ("-1,2", "\"'-1,2\""),
     ("+1", "'+1")],
)  # fmt: skip
def test_cells(value: str, cell: str) -> None:
    row = Csv().row(made(errorline=value, path="x"))
    column = formats._CSV_COLUMNS.index("errorline")
    before = next(csv.reader(["," * column + "x"]))
    assert len(before) == column + 1
    assert f",{cell}," in row


# --- table

WIDTHS = st.integers(30, 200)


@settings(max_examples=40)
@given(st.lists(ENTRIES, min_size=1, max_size=3), WIDTHS)
def test_table_fits_and_shows_no_controls(entries: list[Entry], columns: int) -> None:
    form = Table(columns, NOW, colour=False)
    whole = form.head() + form.heading() + "".join(map(form.row, entries)) + form.tail(True)
    assert whole.endswith("\n")
    for line in whole[:-1].split("\n"):
        assert len(line) <= columns
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", line)
    assert whole.startswith("ENVELOPE")


def test_table_for_people() -> None:
    form = Table(100, NOW, colour=False)
    shown = form.heading() + form.row(entry_of(envelope(errorline="450 come back", retry=12)))
    lines = shown.splitlines()
    assert lines[0].split() == ["ENVELOPE", "AGE", "SIZE", "TRIES", "SENDER", "RECIPIENT"]
    assert lines[1].split() == [
        "1122334400000001", "1d1h", "1.5k", "12", "alice@example.net", "bob@example.org",
    ]  # fmt: skip
    assert lines[2].startswith("    mda, since 2023-11-1")
    assert lines[3] == "    450 come back"


def test_table_tells_what_is_unusual() -> None:
    entry = entry_of(envelope(sender="@", dest="c@d", type="bounce") + b"x: y\n", "corrupt", -1)
    shown = Table(100, NOW, colour=False).row(entry)
    assert "<>" in shown
    assert "c@d (for bob@example.org)" in shown
    assert "in corrupt, notice: failed" in shown
    assert "    field x is of no known release\n" in shown
    assert " ? " in shown


@pytest.mark.parametrize(
    ("ctime", "age"),
    [(NOW - 5, "5s"), (NOW - 86400 * 999, "999d"), (NOW - 86400 * 1234 - 3600 * 5, "1234d"),
     (1, "19676d"), (NOW + 7200, "-2h"), (NOW + 86400 * 40_000, "future"), (0, "?")],
)  # fmt: skip
def test_ages(ctime: int, age: str) -> None:
    shown = Table(100, NOW, colour=False).row(entry_of(envelope(ctime=ctime)))
    assert shown.split()[1] == age


def test_colour_is_around_lines_and_nowhere_else() -> None:
    octets = envelope(errorline="450 " + "x" * 150) + b"x: y\n"
    plain = Table(80, NOW, colour=False).row(entry_of(octets))
    coloured = Table(80, NOW, colour=True).row(entry_of(octets))
    assert re.sub("\x1b\\[[0-9]*m", "", coloured) == plain
    assert coloured.count("\x1b[31m") == 3
    assert coloured.count("\x1b[33m") == 1
    assert Table(80, NOW, colour=True).heading().startswith("\x1b[1mENVELOPE")


def test_addresses_have_lines_of_their_own_where_it_is_narrow() -> None:
    form = Table(40, NOW, colour=False)
    assert form.heading().split() == ["ENVELOPE", "AGE", "SIZE", "TRIES"]
    shown = form.row(entry_of(envelope("b" * 50 + "@example.org", retry=7)))
    lines = shown.splitlines()
    assert lines[0].split() == ["1122334400000001", "1d1h", "1.5k", "7"]
    assert lines[1] == "  from alice@example.net"
    assert lines[2:4] == ["    to " + "b" * 33, "       " + "b" * 17 + "@example.org"]
    assert lines[4].startswith("    mda, since ")


def test_the_narrowest_table_tells_the_tries_below() -> None:
    form = Table(10, NOW, colour=False)
    assert form.heading().split() == ["ENVELOPE", "AGE", "SIZE"]
    shown = form.row(entry_of(envelope(retry=7)))
    assert "tries: 7" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 30


def test_what_has_no_id_is_known_by_its_path() -> None:
    item = Item("offline", "/spool/offline/1700000000.x", "offline", 0, b"a@x|b@y\n\nmail\n")
    form = Table(80, NOW, colour=False)
    rows = [
        form.row(entry) for entry in read_entries(item, lambda: None) if isinstance(entry, Entry)
    ]
    assert len(rows) == 2
    for row in rows:
        assert "\n    /spool/offline/1700000000.x\n" in row
    assert "/spool/x" not in form.row(entry_of(envelope()))


OLD = (
    envelope()
    .replace(b"version: 3\ndispatcher: local\n", b"version: 2\n")
    .replace(b"ttl: ", b"expire: ")
)


def test_table_says_when_the_newest_release_does_not_read_it() -> None:
    form = Table(80, NOW, colour=False)
    assert form.row(entry_of(OLD)).endswith("\n    read by 5.4.2 to 6.0.3 only\n")
    assert " only" not in form.row(entry_of(OLD + b"x: y\n"))  # there is something worse
    assert " only" not in form.row(entry_of(envelope()))
    assert form.row(made(version=2)).count("\n") == 2  # nothing is known of its fields


# --- who reads it


@settings(max_examples=40)
@given(ENTRIES)
def test_each_release_reads_it_or_says_why_not(entry: Entry) -> None:
    facts = describe(entry)
    names = [release.name for release in RELEASES]
    assert sorted([*facts["read_by"], *facts["refused_by"]]) == sorted(names)
    assert facts["read_by"] == entry.read_by
    assert entry.parsed is not None
    for name, reason in facts["refused_by"].items():
        assert reason == refusal(entry.parsed, find_release(name))


def test_refusals() -> None:
    refused = describe(entry_of(OLD))["refused_by"]
    assert refused["7.5"] == "7.5 reads format 3 only"
    assert "5.4.2" not in refused
    assert describe(made(version=2))["refused_by"] == {}
    item = Item("envelope", "x", "queue", 1, envelope())
    item.notes = ("it is misplaced",)
    (misplaced,) = read_entries(item, lambda: None)
    assert isinstance(misplaced, Entry)
    facts = describe(misplaced)
    assert facts["read_by"] == []
    assert set(facts["refused_by"].values()) == {"it is misplaced"}
    assert len(facts["refused_by"]) == len(RELEASES)


# --- times


@pytest.mark.parametrize(
    ("seconds", "utc"),
    [(0, ""), (-1, ""), (1, "1970-01-01T00:00:01Z"), (253402300799, "9999-12-31T23:59:59Z"),
     (253402300800, ""), (1 << 62, "")],
)  # fmt: skip
def test_times(seconds: int, utc: str) -> None:
    assert formats.format_utc(seconds) == utc
    local = formats.format_local(seconds)
    assert bool(local) == bool(utc)
    assert not local or re.fullmatch(r"\d{4,5}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", local)
