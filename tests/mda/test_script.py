"""Scripts with %{...}, given to the real shell."""

from __future__ import annotations

import subprocess
from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_core.mda.script import MAX_REFERENCES, MAX_SCRIPT, Script, shell_script
from smtpd_core.mda.variables import Values, VariableError
from smtpd_core.text import decode, encode

EVIL = "x\"; touch /tmp/pwned; \\ $(id) `id` '\n* <a> ; #"
VALUES = Values("alice@example.com", "bob@example.org", "bob@example.org", "bob", "/home/bob")


def output(command: str, values: Values = VALUES, wrapper: Optional[str] = None) -> str:
    script = shell_script(command, values, wrapper)
    done = subprocess.run(
        ["/bin/sh", "-c", encode(script.text)],
        env={"PATH": "/usr/bin:/bin", **dict(script.variables)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=20,
    )
    return decode(done.stdout)


def test_the_shell_never_gets_a_value_as_text() -> None:
    script = shell_script("procmail -f %{sender} '%{rcpt}' \"<%{dest}>\"", VALUES)
    assert script == Script(
        'procmail -f "${MDA_1}" \'\'"${MDA_2}"\'\' "<${MDA_3}>"',
        (
            ("MDA_1", "alice@example.com"),
            ("MDA_2", "bob@example.org"),
            ("MDA_3", "bob@example.org"),
        ),
    )


@pytest.mark.parametrize(
    "command",
    [
        "printf %%s %{sender:raw}",
        "printf %%s '%{sender:raw}'",
        'printf %%s "%{sender:raw}"',
        "printf %%s \\%{sender:raw}",
        "# a quote in a comment's end\nprintf %%s %{sender:raw}",
        "true # it's\nprintf %%s %{sender:raw}",
        "echo a#it>/dev/null;printf %%s %{sender:raw}",
        "x=\\' ; printf %%s %{sender:raw}",
        'x="\\"\'" ; printf %%s %{sender:raw}',
        "set -- a b; printf %%s %{sender:raw}",
        "f() { printf %%s %{sender:raw}; }; f other",
    ],
)
def test_a_value_is_one_word_wherever_it_stands(command: str) -> None:
    assert output(command, VALUES._replace(sender=EVIL)) == EVIL


def test_an_empty_value_is_an_empty_word() -> None:
    assert output("printf '<%%s>' %{sender} x", VALUES._replace(sender="")) == "<><x>"


def test_the_home_is_quoted_too() -> None:
    assert output("~/bin/x y", VALUES._replace(directory="/no such")).count("/no such/bin/x") == 1


@pytest.mark.parametrize(
    ("wrapper", "expected"),
    [
        ("%{mda}", "it's|alice@example.com"),
        ("(echo -n W; %{mda})", "Wit's|alice@example.com"),
        ("sh -c '%{mda}'", "it's|alice@example.com"),
        ('sh -c "%{mda}"', "it's|alice@example.com"),
        ("echo -n %{rcpt}-; %{mda}", "bob@example.org-it's|alice@example.com"),
        ("true # %{mda}", ""),
        ("# %{mda}", ""),
    ],
)
def test_a_wrapper_holds_the_command_as_code_or_as_text(wrapper: str, expected: str) -> None:
    command = "printf '%%s|%%s' \"it's\" %{sender}"
    assert output(command, wrapper=wrapper) == expected


def test_in_quotes_inside_quotes_a_value_is_still_no_code() -> None:
    sender = "a $(echo no) b"
    printed = output('echo "$(echo "%{sender:raw}")"', VALUES._replace(sender=sender))
    assert printed == "a $(echo no) b\n"


@pytest.mark.parametrize(
    "command",
    [
        "%{sender} " * (MAX_REFERENCES + 1),
        "x" * (MAX_SCRIPT + 1),
        "a\0b",
        "%{mda}",
        "%{what}",
    ],
)
def test_what_makes_no_script(command: str) -> None:
    with pytest.raises(VariableError):
        shell_script(command, VALUES)


@settings(max_examples=25)
@given(
    st.text(alphabet="ab'\"$`\\ ;*~#\n(){}<>&|\u00e9", max_size=12),
    st.sampled_from(["printf %%s %{sender:raw}", "printf %%s '%{sender:raw}'"]),
    st.sampled_from([None, "sh -c '%{mda}'", 'sh -c "%{mda}"']),
)
def test_any_value_comes_out_as_it_went_in(
    sender: str, command: str, wrapper: Optional[str]
) -> None:
    assert output(command, VALUES._replace(sender=sender), wrapper) == sender
