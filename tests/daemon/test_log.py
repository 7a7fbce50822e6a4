"""Lines for the operator."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from smtpd_core.daemon.log import MAX_LINE, DescriptorSink, Log, SyslogSink, format_event
from tests.fakes.daemon import Lines

if TYPE_CHECKING:
    from pathlib import Path


def test_events() -> None:
    line = format_event(0xAB, "smtp", "connected", {"address": "192.0.2.1", "host": "a b", "n": 3})
    assert line == '00000000000000ab smtp connected address=192.0.2.1 host="a b" n=3'


def test_values_cannot_pretend_to_be_others() -> None:
    line = format_event(0, "smtp", "x", {"a": 'q" b=c', "d": "", "password": "hunter2"})
    assert line == '0000000000000000 smtp x a="q\\" b=c" d="" password=<secret>'


def test_foreign_text_stays_in_its_line() -> None:
    sink = Lines()
    Log(sink)("info", "one\ntwo\x1b[31m caf\udce9")
    assert sink.lines == ["one\\ntwo\\x1b[31m caf\\xe9"]


def test_length_is_bounded() -> None:
    sink = Lines()
    Log(sink)("info", "é" * MAX_LINE)
    assert len(sink.lines[0].encode()) <= MAX_LINE
    assert sink.lines[0].endswith("...")


def test_levels() -> None:
    sink = Lines()
    Log(sink).remark("not told")
    log = Log(sink, verbose=True)
    log.remark("told")
    log.complain("disk full")
    log.info(1, "mda", "delivery", user="u")
    assert sink.lines == [
        "debug: told",
        "warn: disk full",
        "0000000000000001 mda delivery user=u",
    ]


def test_our_own_mistakes_say_where() -> None:
    sink = Lines()
    try:
        int("oh\nno")
    except ValueError as error:
        Log(sink).confess(error)
    assert sink.lines[0].startswith("internal error: ValueError: invalid literal")
    assert "test_log.py" in sink.lines[1]


def test_standard_error() -> None:
    read_end, write_end = os.pipe()
    DescriptorSink(write_end).write(6, "line")
    assert os.read(read_end, 100) == b"line\n"
    os.close(read_end)
    os.close(write_end)
    DescriptorSink(write_end).write(6, "nobody hears it")


def test_syslog(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(path)
    sink = SyslogSink((path,))
    assert sink.connected
    sink.write(6, "line")
    got = server.recv(1000).decode()
    assert got.startswith("<22>")
    assert got.endswith(f" smtpd[{os.getpid()}]: line")
    server.close()
    os.unlink(path)
    sink.write(6, "lost, and no error")
    assert not sink.connected
