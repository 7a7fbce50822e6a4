"""The command line of smtpd."""

from __future__ import annotations

import pytest

from smtpd_core.daemon.options import OptionError, Options, parse_options


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        ("-d", {"foreground": True, "to_stderr": True}),
        ("-F", {"foreground": True}),
        ("-nv", {"check_only": True, "verbose": True}),
        ("-f x.conf", {"config": "x.conf"}),
        ("-fx.conf -h", {"config": "x.conf", "help": True}),
        ("-D a=b -D c=d=e", {"macros": {"a": "b", "c=d": "e"}}),
        ("-D bad", {"warnings": ["warn: could not parse macro definition bad"]}),
        ("-P smtp -P bogus", {"paused": ["smtp"]}),
        ("-T mta", {"traces": ["mta"], "verbose": True}),
        ("-T bogus", {"warnings": ['warn: unknown trace flag "bogus"']}),
        ("-B queue=fs", {}),
        ("-B queue=ram", {"warnings": ['warn: invalid backend specifier "queue=ram"']}),
        ("--spool /s --socket=/x", {"spool": "/s", "socket": "/x"}),
        ("--workers 3 --users a:b", {"workers": 3, "users": "a:b"}),
        ("systemd-unit -f x", {"print_unit": True, "config": "x"}),
        ("-d --", {"foreground": True, "to_stderr": True}),
    ],
)
def test_understood(arguments: str, expected: dict[str, object]) -> None:
    assert parse_options(arguments.split()) == Options(**expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("extra", ""),
        ("-d -- extra", ""),
        ("-", ""),
        ("-x", "smtpd: option requires an argument -- 'x'"),
        ("-q", "smtpd: invalid option -- 'q'"),
        ("-dq", "smtpd: invalid option -- 'q'"),
        ("-x queue", "smtpd: -x is not used here: roles are forked, not executed"),
        ("--bogus", "smtpd: unrecognized option '--bogus'"),
        ("--spool", "smtpd: option '--spool' requires an argument"),
        ("--workers x", "smtpd: --workers x: not a number"),
        ("--workers 0", "smtpd: --workers 0: not between 1 and 64"),
    ],
)
def test_refused(arguments: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_options(arguments.split())
    assert str(caught.value) == said
