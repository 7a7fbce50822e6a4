"""%{...}, as the reference of the original has it, less its defects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mda.variables import (
    MAX_RESULT,
    MAX_TOKEN,
    Reference,
    Values,
    VariableError,
    expand_path,
    split,
    value_of,
)

VALUES = Values(
    sender="Alice+x@Example.COM",
    rcpt="bob+lists@example.org",
    dest="robert@mail.example.org",
    username="bob",
    directory="/home/bob",
)


def expand(pattern: str, values: Values = VALUES) -> str:
    return "".join(
        piece if isinstance(piece, str) else value_of(piece, values) for piece in split(pattern)
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("%{sender}", "Alice+x@Example.COM"),
        ("%{sender.user} %{sender.domain}", "Alice+x Example.COM"),
        ("%{rcpt} %{rcpt.user} %{rcpt.domain}", "bob+lists@example.org bob+lists example.org"),
        ("%{dest} %{DEST.User}", "robert@mail.example.org robert"),
        ("%{user.username}:%{user.directory}", "bob:/home/bob"),
        ("%{mbox.from}", "Alice+x@Example.COM"),
        ("100%% of %", "100% of %"),
        ("%%{sender}", "%{sender}"),
        ("~/Mail", "/home/bob/Mail"),
        ("a~/Mail ~", "a~/Mail ~"),
        ("%{rcpt.user[0]}", "b"),
        ("%{rcpt.user[0:1]}", "bo"),
        ("%{rcpt.user[:1]}", "bo"),
        ("%{rcpt.user[4:]}", "lists"),
        ("%{rcpt.user[-5:]}", "lists"),
        ("%{rcpt.user[-5:-2]}", "list"),
        ("%{rcpt.user[-1]}", "s"),
        ("%{rcpt.user[2:500]}", "b+lists"),
        ("%{rcpt.user[:]}", "bob+lists"),
        ("%{sender:lowercase}", "alice+x@example.com"),
        ("%{sender:uppercase}", "ALICE+X@EXAMPLE.COM"),
        ("%{sender:strip}", "Alice@Example.COM"),
        ("%{sender:strip|lowercase}", "alice@example.com"),
        ("%{sender.user:STRIP}", "Alice"),
        ("%{sender[0:1]:lowercase}", "al"),  # never works in the original
        ("%{rcpt.user[-1]:strip|uppercase}", "B"),
        ("%{sender", "%{sender"),
        ("a %{sender", "a %{sender"),
        ("", ""),
    ],
)
def test_what_a_pattern_becomes(pattern: str, expected: str) -> None:
    assert expand(pattern) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "%{}",
        "%{nothing}",
        "%{sender[]}",
        "%{sender[a]}",
        "%{sender[1}",
        "%{sender[1]x}",
        "%{sender:}",
        "%{sender:loud}",
        "%{sender:lowercase|}",
        "%{rcpt.user[9]}",
        "%{rcpt.user[9:20]}",
        "%{rcpt.user[3:2]}",
        "%{rcpt.user[-10]}",
        "%{rcpt.user[12345]}",
        "%{mda}",
        "%{" + "sender".ljust(MAX_TOKEN + 1) + "}",
    ],
)
def test_what_cannot_be_expanded(pattern: str) -> None:
    with pytest.raises(VariableError):
        expand(pattern)


@pytest.mark.parametrize("pattern", ["%{sender}", "%{sender[3]}", "%{sender.user[-9:2]}"])
def test_an_empty_value_stays_empty_whatever_its_range(pattern: str) -> None:
    assert expand(pattern, VALUES._replace(sender="")) == ""


def test_a_null_sender_has_a_name_in_a_mailbox() -> None:
    assert expand("%{mbox.from}", VALUES._replace(sender="")) == "MAILER-DAEMON"


def test_what_a_shell_could_read_is_replaced_but_for_raw_and_the_home() -> None:
    values = VALUES._replace(sender="a!#$%&'*?`{|}~b@c", directory="/home/$x")
    assert expand("%{sender}", values) == "a:::::::::::::b@c"
    assert expand("%{sender:raw}", values) == "a!#$%&'*?`{|}~b@c"
    assert expand("%{user.directory}", values) == "/home/$x"


def test_a_value_that_is_too_long_or_holds_a_nul_is_an_error() -> None:
    assert expand("%{sender}", VALUES._replace(sender="x" * MAX_RESULT)) == "x" * MAX_RESULT
    for sender in ("x" * (MAX_RESULT + 1), "a\0b", "\u00e9" * (MAX_RESULT // 2 + 1)):
        with pytest.raises(VariableError):
            expand("%{sender}", VALUES._replace(sender=sender))


def test_a_path_cannot_be_led_elsewhere_by_an_address() -> None:
    evil = VALUES._replace(dest="../../etc/x@..", username="..")
    assert expand_path("/var/vmail/%{dest.user}", evil) == "/var/vmail/..:..:etc:x"
    assert expand_path("/var/vmail/%{dest.user:raw}", evil) == "/var/vmail/..:..:etc:x"
    for pattern in ("/m/%{dest.domain}/x", "/m/%{user.username}", "/m/.%{dest.domain[0]}"):
        with pytest.raises(VariableError):
            expand_path(pattern, evil)
    assert expand_path("~/Mail/../x", VALUES) == "/home/bob/Mail/../x"
    assert expand_path("%{user.directory}/m", VALUES) == "/home/bob/m"


def test_a_path_that_is_too_long_is_an_error() -> None:
    with pytest.raises(VariableError):
        expand_path("/" + "x" * MAX_RESULT, VALUES)


@given(st.text())
def test_any_pattern_is_split_or_refused(pattern: str) -> None:
    try:
        pieces = split(pattern)
    except VariableError:
        return
    assert all(isinstance(piece, Reference) or piece for piece in pieces)
    assert "%{" not in pattern or "}" not in pattern or pieces


@given(st.text(), st.text(), st.text())
def test_no_component_of_a_path_comes_out_of_a_value(sender: str, user: str, domain: str) -> None:
    values = VALUES._replace(sender=sender, dest=f"{user}@{domain}")
    try:
        path = expand_path("/mail/%{dest.domain}/%{dest.user:raw}/%{sender:raw}", values)
    except VariableError:
        return
    assert path.startswith("/mail/")
    assert path.count("/") == 4
    assert ".." not in path.split("/")
