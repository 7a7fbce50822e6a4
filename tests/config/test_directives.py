"""The statements that set something for the whole server."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Callable, List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpd_core.config.model import Ca, Config, Dhe, Pki
from smtpd_core.config.problems import Place
from smtpd_core.config.settings import (
    MdaLimits,
    MtaLimits,
    QueueSettings,
    SchedulerLimits,
    SmtpLimits,
    SmtpSettings,
    SrsSettings,
)

WHERE = Place("smtpd.conf", 1)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("admd a.b", "admd", "a.b"),
        ("bounce warn-interval 1h", "bounce_warn_seconds", (3600,)),
        ("bounce warn-interval 1h,2h , 1d", "bounce_warn_seconds", (3600, 7200, 86400)),
        ("bounce warn-interval 1h\nbounce warn-interval 2h", "bounce_warn_seconds", (7200,)),
        ("mta max-deferred 7", "mta_max_deferred", 7),
        ("mta limit", "mta", MtaLimits()),
        ("mta limit inet4 inet6", "mta", MtaLimits(family=6)),
        ("mda limit", "mda", MdaLimits()),
        ("scheduler limit", "scheduler", SchedulerLimits()),
        ("smtp limit", "smtp", SmtpSettings()),
        ("queue compression", "queue", QueueSettings(compression=True)),
        ("queue encryption", "queue", QueueSettings(encryption=True)),
        ("queue encryption k", "queue", QueueSettings(encryption=True, key="k")),
        ("queue encryption STDIN", "queue", QueueSettings(encryption=True, key="stdin")),
        ('queue encryption "-"', "queue", QueueSettings(encryption=True, key="stdin")),
        ("queue ttl 5d", "queue", QueueSettings(ttl_seconds=5 * 86400)),
        ("smtp ciphers c", "smtp", SmtpSettings(ciphers="c")),
        ("smtp max-message-size 5", "smtp", SmtpSettings(max_message_size=5)),
        ("smtp max-message-size 1.5k", "smtp", SmtpSettings(max_message_size=1536)),
        ('smtp sub-addr-delim "-"', "smtp", SmtpSettings(sub_addr_delim="-")),
        ("srs key k", "srs", SrsSettings(key="k")),
        ("srs key backup k", "srs", SrsSettings(backup_key="k")),
        ("srs ttl 36h", "srs", SrsSettings(ttl_seconds=86400)),
        ("mda wrapper w c", "wrappers", {"w": "c"}),
        ("pki A cert c", "pkis", {"a": Pki("a", WHERE, cert="c")}),
        ("pki a", "pkis", {"a": Pki("a", WHERE)}),
        ('pki "*" key k dhe Auto', "pkis", {"*": Pki("*", WHERE, key="k", dhe=Dhe.AUTO)}),
        ("pki a cert c\npki a key k", "pkis", {"a": Pki("a", WHERE, cert="c", key="k")}),
        ("pki a cert c cert d", "pkis", {"a": Pki("a", WHERE, cert="d")}),
        ("ca A cert c", "cas", {"a": Ca("a", WHERE, "c")}),
        ("ca a cert c\nca a cert d", "cas", {"a": Ca("a", Place("smtpd.conf", 2), "d")}),
    ],
)
def test_settings(text: str, name: str, value: Any, parse: Callable[..., Config]) -> None:
    config = parse(text)
    assert getattr(config, name) == value
    assert not config.warnings


def test_defaults(parse: Callable[..., Config]) -> None:
    config = parse("")
    assert config.smtp == SmtpSettings(SmtpLimits(1000, 100), 36700160, "+", None)
    assert config.queue.ttl_seconds == config.srs.ttl_seconds == 4 * 86400
    assert config.bounce_warn_seconds == (4 * 3600,)
    assert config.mta_max_deferred == 100


@pytest.mark.parametrize(
    ("statement", "settings_class", "name"),
    [
        ("mda", MdaLimits, "mda"),
        ("scheduler", SchedulerLimits, "scheduler"),
        ("mta", MtaLimits, "mta"),
    ],
)
def test_every_limit_has_its_keyword(
    statement: str, settings_class: Any, name: str, parse: Callable[..., Config]
) -> None:
    for field in fields(settings_class):
        if field.name != "family":
            config = parse(f"{statement} limit {field.name.replace('_', '-')} 12345")
            assert getattr(config, name) == replace(settings_class(), **{field.name: 12345})


def test_session_limits(parse: Callable[..., Config]) -> None:
    config = parse("smtp limit max-rcpt 5\nsmtp limit max-mails 6 max-rcpt 7")
    assert config.smtp.limits == SmtpLimits(max_rcpt=7, max_mails=6)


def test_limits_of_a_domain_begin_as_the_others_are(parse: Callable[..., Config]) -> None:
    config = parse(
        "mta limit task-hiwat 1\nmta limit for domain d inet4\nmta limit task-hiwat 2\n"
        "mta limit for domain d task-lowat 3\nmta limit for domain D"
    )
    assert config.mta == MtaLimits(task_hiwat=2)
    assert config.mta_limits("d") == MtaLimits(task_hiwat=1, task_lowat=3, family=4)
    assert config.mta_limits("D") == config.mta_limits("e") == config.mta


def test_a_fifth_warning_is_told_to_be_left_out(parse: Callable[..., Config]) -> None:
    config = parse("bounce warn-interval 1h,2h,3h,4h,5h")
    assert config.bounce_warn_seconds == (3600, 7200, 10800, 14400)
    assert [str(warning) for warning in config.warnings] == [
        "smtpd.conf:1: only the first 4 delays are used"
    ]


def test_secrets_are_not_shown(parse: Callable[..., Config]) -> None:
    shown = repr(parse("queue encryption s3cret\nsrs key s3cret\nsrs key backup s3cret"))
    assert "s3cret" not in shown


def test_a_long_host_name(parse: Callable[..., Config]) -> None:
    name = ".".join(["a" * 63] * 3) + ".example"
    assert name in parse(f"pki {name} cert c").pkis


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("admd 5", "syntax error"),
        ('admd "\x01"', "not a valid admd"),
        ('admd "é"', "not a valid admd"),
        ("bounce warn-interval", "syntax error"),
        ("bounce warn-interval 1h 2h", "syntax error"),
        ("bounce warn-interval 1h,", "syntax error"),
        ("bounce warn-interval 1w", "invalid bounce delay: 1w"),
        ("ca a", "syntax error"),
        ("ca a cert c cert d", "syntax error"),
        ('ca "a b" cert c', "not a valid domain name: a b"),
        ('pki "-a" cert c', "not a valid domain name: -a"),
        ("pki a..b cert c", "not a valid domain name: a..b"),
        ('pki "*.a" cert c', "not a valid domain name: *.a"),
        (f"pki {'a' * 64} cert c", f"not a valid domain name: {'a' * 64}"),
        ("pki mx cert c", "syntax error"),
        ("pki a dhe foo", "invalid DHE keyword: foo"),
        ("pki a foo c", "syntax error"),
        ("mda", "syntax error"),
        ("mda limit max-session", "syntax error"),
        ("mda limit max-session x", "syntax error"),
        ("mda limit foo 5", "invalid scheduler limit keyword: foo"),
        ("mda limit max-session -5", "invalid number: -5"),
        ("mda wrapper w", "syntax error"),
        ("mta", "syntax error"),
        ("mta max-deferred x", "syntax error"),
        ("mta limit for d", "syntax error"),
        ("mta limit foo 5", "invalid mta limit keyword: foo"),
        ("mta limit for domain d max-mails 5", "invalid mta limit keyword: max-mails"),
        ("queue", "syntax error"),
        ("queue encryption 5", "syntax error"),
        ("queue ttl 5", "syntax error"),
        ("queue ttl 0d", "invalid ttl delay: 0d"),
        ("scheduler", "syntax error"),
        ("scheduler limit foo 5", "invalid scheduler limit keyword: foo"),
        ("smtp", "syntax error"),
        ("smtp limit foo 5", "invalid session limit keyword: foo"),
        ("smtp max-message-size 5X", "invalid size: 5X"),
        ("smtp max-message-size -5", "invalid size: -5"),
        ("smtp sub-addr-delim ab", "subaddressing-delimiter must be one character"),
        ('smtp sub-addr-delim ""', "subaddressing-delimiter must be one character"),
        ('smtp sub-addr-delim "@"', "sub-addr-delim uses invalid character"),
        ('smtp sub-addr-delim " "', "sub-addr-delim uses invalid character"),
        ('smtp sub-addr-delim "é"', "sub-addr-delim uses invalid character"),
        ("srs", "syntax error"),
        ("srs ttl 12h", 'ttl delay "12h" is too short'),
        ("srs ttl 4w", 'ttl delay "4w" is invalid'),
        ("include", "syntax error"),
        ('include "a\0b"', "syntax error"),
        ("x = 5", "syntax error"),
        ("x =", "syntax error"),
        ('"a b" = c', "macro name cannot contain whitespace"),
        ("foo", "syntax error"),
    ],
)
def test_refused(text: str, expected: str, refused: Callable[..., List[str]]) -> None:
    assert refused(text)[0] == f"1: {expected}"


def test_wrappers_are_declared_once(refused: Callable[..., List[str]]) -> None:
    assert refused("mda wrapper w a\nmda wrapper w b") == [
        "2: mda wrapper already declared with that name: w"
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, (1 << 63) - 1))
def test_numbers_round_trip(parse: Callable[..., Config], number: int) -> None:
    config = parse(f"smtp max-message-size {number}\nmda limit task-hiwat {number}")
    assert config.smtp.max_message_size == config.mda.task_hiwat == number
