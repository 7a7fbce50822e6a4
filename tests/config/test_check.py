"""What is checked in a configuration that was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, List

import pytest

from smtpd_core.config.check import certificate_problems, start_problems, unsupported

if TYPE_CHECKING:
    from smtpd_core.config.model import Config

CERT = b"x\n-----BEGIN CERTIFICATE-----\n"
KEY = b"-----BEGIN EC PRIVATE KEY-----\n"

DECLARED = 'pki a cert "/cert" key "/key"\nca b cert "/ca"\n'


@pytest.mark.parametrize(
    ("text", "files", "expected"),
    [
        (DECLARED, {"/cert": CERT, "/key": KEY, "/ca": CERT}, []),
        (
            DECLARED,
            {"/cert": KEY, "/key": CERT, "/ca": b""},
            [
                "1: load_pki_tree: failed to load certificate file (/cert: not in PEM form)",
                "2: load_pki_tree: failed to load CA file (/ca: not in PEM form)",
                "1: load_pki_keys: failed to load key file (/key: not in PEM form)",
            ],
        ),
        (
            DECLARED,
            {"/cert": CERT, "/ca": CERT},
            ["1: load_pki_keys: failed to load key file (/key: No such file)"],
        ),
        ("\npki a", {}, ["2: load_pki_tree: missing certificate file ()"]),
        ("pki a cert c", {}, ["1: load_pki_tree: missing key file ()"]),
    ],
)
def test_certificates(
    text: str, files: Dict[str, bytes], expected: List[str], parse: Callable[..., Config]
) -> None:
    def read(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(2, "No such file")
        return files[path]

    problems = certificate_problems(parse(text), read)
    assert [f"{p.where.line}: {p.text} ({p.detail})" for p in problems] == expected
    assert all(problem.fatal for problem in problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (f"{DECLARED}action x relay pki A ca B protocols tlsv1.3", []),
        ("action x relay pki a", ['smtpd.conf:1: client pki "a" not found']),
        ("action x relay ca a", ['smtpd.conf:1: client ca "a" not found']),
        (
            "action x relay protocols ssl3",
            ['smtpd.conf:1: failed to parse protocols "ssl3"'],
        ),
        (
            "listen on 192.0.2.1 protocols foo",
            ['smtpd.conf:1: failed to parse protocols "foo"'],
        ),
        ("table t passwd", ["smtpd.conf:1: table t: passwd needs a file"]),
        ("table t passwd:/x", []),
    ],
)
def test_start(text: str, expected: List[str], parse: Callable[..., Config]) -> None:
    assert [str(problem) for problem in start_problems(parse(text))] == expected


def test_what_does_not_work_yet_is_told_line_by_line(parse: Callable[..., Config]) -> None:
    config = parse(
        'table a db:/a\nproc p "x"\nfilter f proc p\nfilter g proc-exec "y"\n'
        "listen on socket filter { f, g }\ntable b proc:/b\ntable c ldap:/c\n"
        "table d passwd:/d\ntable e getpwnam\ntable f { a }",
        files={"/a": b""},
    )
    assert [str(problem) for problem in unsupported(config)] == [
        "smtpd.conf:1: table a: db tables are not supported yet",
        "smtpd.conf:2: proc p: filters are not supported yet",
        "smtpd.conf:3: filter f: filters are not supported yet",
        "smtpd.conf:4: filter g: filters are not supported yet",
        "smtpd.conf:5: filter <dynchain:00000001>: filters are not supported yet",
        "smtpd.conf:6: table b: proc tables are not supported yet",
        "smtpd.conf:7: table c: ldap tables are not supported yet",
    ]
    assert unsupported(parse("action x relay")) == ()
