"""The `action` statement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, List

import pytest

from smtpd_core.config.model import Config, LocalAction, Method, RelayAction, RelayTls
from smtpd_core.config.problems import Place

DECLARED = """table list { a }
table map { a = b }
table system getpwnam
mda wrapper w "x"
srs key k
filter f phase connect match fcrdns junk
"""
LINE = DECLARED.count("\n") + 1
WHERE = Place("smtpd.conf", LINE)
RELAY = RelayAction("x", WHERE)


@pytest.mark.parametrize(
    ("text", "method", "changes"),
    [
        ("mbox", Method.MBOX, {}),
        ("mbox alias <map>", Method.MBOX, {"alias": "map"}),
        ("mbox virtual <map> userbase <map>", Method.MBOX, {"virtual": "map", "userbase": "map"}),
        ("maildir", Method.MAILDIR, {}),
        ("maildir junk", Method.MAILDIR, {"junk": True}),
        ('maildir "~/x"', Method.MAILDIR, {"argument": "~/x"}),
        ("maildir x junk user u", Method.MAILDIR, {"argument": "x", "junk": True, "user": "u"}),
        ('lmtp "/s"', Method.LMTP, {"argument": "/s"}),
        ('lmtp "/s" rcpt-to', Method.LMTP, {"argument": "/s", "rcpt_to": True}),
        ("mda c wrapper w", Method.MDA, {"argument": "c", "wrapper": "w"}),
        ("forward-only", Method.FORWARD_ONLY, {}),
        ("expand-only userbase <system>", Method.EXPAND_ONLY, {"userbase": "system"}),
        ("mbox ttl 2d", Method.MBOX, {"ttl_seconds": 172800}),
    ],
)
def test_local(
    text: str, method: Method, changes: Dict[str, Any], parse: Callable[..., Config]
) -> None:
    config = parse(f"{DECLARED}action x {text}")
    assert config.actions["x"] == replace(LocalAction("x", WHERE, method), **changes)


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ("", {}),
        ("helo h", {"helo": "h"}),
        ("helo-src <map>", {"helo_src": "map"}),
        ("pki Mx", {"pki": "mx"}),
        ("ca Us", {"ca": "us"}),
        ("ciphers c", {"ciphers": "c"}),
        ("protocols p", {"protocols": "p"}),
        ("src <list>", {"src": "list"}),
        ("src <map>", {"src": "map"}),
        ("mail-from m", {"mail_from": "m"}),
        ("backup", {"backup": True}),
        ("backup mx m", {"backup": True, "backup_mx": "m"}),
        ("host <list>", {"host": "list"}),
        ("host smtp://h auth <map>", {"host": "<dynamic:0>", "auth": "map"}),
        ("domain <map> auth <map>", {"domain": "map", "auth": "map"}),
        ("tls", {"tls": RelayTls.VERIFY}),
        ("tls no-verify", {"tls": RelayTls.NO_VERIFY}),
        ("filter f", {"filter": "f"}),
        ("srs", {"srs": True}),
        ("ttl 1h", {"ttl_seconds": 3600}),
    ],
)
def test_relay(options: str, changes: Dict[str, Any], parse: Callable[..., Config]) -> None:
    config = parse(f"{DECLARED}action x relay {options}")
    assert config.actions["x"] == replace(RELAY, **changes)


SPECIFIED = "already specified for this dispatcher"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mbox user u", "user may not be specified for this dispatcher"),
        ("forward-only user u", "user may not be specified for forward-only"),
        ("expand-only user u", "user may not be specified for expand-only"),
        ("maildir user u user v", f"user {SPECIFIED}"),
        ("mbox alias <map> alias <map>", f"alias mapping {SPECIFIED}"),
        ("mbox virtual <map> alias <map>", f"virtual mapping {SPECIFIED}"),
        ("mbox alias <map> virtual <map>", f"alias mapping {SPECIFIED}"),
        ("mbox virtual <map> virtual <list>", f"virtual mapping {SPECIFIED}"),
        ("mbox userbase <map> userbase <map>", f"userbase mapping {SPECIFIED}"),
        ("mbox alias <list>", 'table "list" may not be used for alias lookups'),
        ("mbox alias <system>", 'table "system" may not be used for alias lookups'),
        ("mbox virtual a", 'table "<dynamic:0>" may not be used for virtual lookups'),
        ("mbox userbase <list>", 'table "list" may not be used for userbase lookups'),
        ("mbox wrapper z", "no mda wrapper with that name: z"),
        ("mbox ttl 1d user u", "syntax error"),
        ("mbox junk", "syntax error"),
        ("mbox ttl 1d ttl 2d", f"ttl {SPECIFIED}"),
        ("mbox ttl 4w", 'ttl delay "4w" is invalid'),
        ("mbox ttl 4", "syntax error"),
        ("maildir auth", "syntax error"),
        ("lmtp", "syntax error"),
        ("mda", "syntax error"),
        ("backup", "syntax error"),
        ("", "syntax error"),
        ("relay helo a helo b", f"helo {SPECIFIED}"),
        ("relay helo-src <map> helo-src <list>", f"helo-source mapping {SPECIFIED}"),
        ("relay helo-src <list>", 'table "list" may not be used for helo-source lookups'),
        ("relay pki a pki b", f"pki {SPECIFIED}"),
        ("relay ca a ca b", f"ca {SPECIFIED}"),
        ("relay ciphers a ciphers b", f"ciphers {SPECIFIED}"),
        ("relay protocols a protocols b", f"protocols {SPECIFIED}"),
        ("relay src a src b", f"source mapping {SPECIFIED}"),
        ("relay src <system>", 'table "system" may not be used for source lookups'),
        ("relay mail-from a mail-from b", f"mail-from {SPECIFIED}"),
        ("relay backup backup mx m", f"backup {SPECIFIED}"),
        ("relay host h backup", "backup and host are mutually exclusive"),
        ("relay domain <map> backup", "backup and host are mutually exclusive"),
        ("relay backup host h", "backup and host are mutually exclusive"),
        ("relay backup domain <map>", "backup and domain are mutually exclusive"),
        ("relay host h domain <map>", f"host mapping {SPECIFIED}"),
        ("relay host <map>", 'table "map" may not be used for host lookups'),
        ("relay domain <list>", 'table "list" may not be used for host lookups'),
        ("relay tls tls no-verify", f"tls {SPECIFIED}"),
        ("relay auth <map>", "auth may not be specified without host on a dispatcher"),
        ("relay auth <map> host h", "auth may not be specified without host on a dispatcher"),
        ("relay host h auth <map> auth <map>", f"auth mapping {SPECIFIED}"),
        ("relay host h auth <list>", 'table "list" may not be used for auth lookups'),
        ("relay filter f filter f", f"filter {SPECIFIED}"),
        ("relay filter z", "no filter exist with that name: z"),
        ("relay srs srs", f"srs {SPECIFIED}"),
        ("relay backup mx", "syntax error"),
    ],
)
def test_refused(text: str, expected: str, refused: Callable[..., List[str]]) -> None:
    assert refused(f"{DECLARED}action x {text}") == [f"{LINE}: {expected}"]


def test_names_are_taken_once(refused: Callable[..., List[str]]) -> None:
    assert refused("action x mbox\naction x relay") == [
        "2: dispatcher already declared with that name: x"
    ]


def test_srs_needs_its_key_before(refused: Callable[..., List[str]]) -> None:
    assert refused("action x relay srs\nsrs key k") == [
        "1: an srs key is required for srs to be specified in an action"
    ]


def test_what_has_no_effect_is_told(parse: Callable[..., Config]) -> None:
    config = parse(
        f'{DECLARED}mda wrapper v "y"\naction x mbox wrapper w\naction y mda c wrapper w wrapper v'
    )
    assert [str(warning) for warning in config.warnings] == [
        f'smtpd.conf:{LINE + 1}: action "x": a wrapper has no effect on mbox',
        f'smtpd.conf:{LINE + 2}: action "y": only the last wrapper is used',
    ]
    action = config.actions["y"]
    assert isinstance(action, LocalAction)
    assert action.wrapper == "v"
