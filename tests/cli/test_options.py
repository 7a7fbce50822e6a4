from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.cli import commands, grammar, options
from smtpd_core.errors import UsageError


def _values(parsed: options.Options) -> dict[str, options.Value]:
    names = [name.lstrip("-") for name in options.OPTIONS]
    return {name: value for name in names if (value := parsed.get(name)) is not None}


@pytest.mark.parametrize(
    ("line", "words", "values"),
    [
        ("show queue", "show queue", {}),
        ("--limit 3 show --reverse queue", "show queue", {"limit": "3", "reverse": True}),
        ("show queue --limit=3", "show queue", {"limit": "3"}),
        ("show queue --limit=", "show queue", {"limit": ""}),
        ("show queue --key-file=a=b", "show queue", {"key-file": "a=b"}),
        ("show queue --sender a --sender=b", "show queue", {"sender": ["a", "b"]}),
        ("show queue --tries -3 --size <4k", "show queue", {"tries": ["-3"], "size": ["<4k"]}),
        ("show queue --spool - --key-file -x", "show queue", {"spool": "-", "key-file": "-x"}),
        ("show queue --format json --format csv", "show queue", {"format": "csv"}),
        ("resume route -1", "resume route -1", {}),
        ("encrypt -", "encrypt -", {}),
        ("encrypt -- --spool", "encrypt --spool", {}),
        ("encrypt -- -- --all", "encrypt -- --all", {}),
        ("-h show", "show", {"help": True}),
        ("show -V", "show", {"version": True}),
        ("show queue --spool=--odd", "show queue", {"spool": "--odd"}),
    ],
)
def test_parse(line: str, words: str, values: dict[str, options.Value]) -> None:
    parsed_words, parsed = options.parse(line.split())
    assert parsed_words == words.split()
    assert _values(parsed) == values


def test_empty_words_are_words() -> None:
    assert options.parse(["", "show", ""])[0] == ["", "show", ""]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("show --spol x", "unknown option --spol"),
        ("show --spol=x", "unknown option --spol"),
        ("show --form json", "unknown option --form"),  # no abbreviations: scripts outlive us
        ("show -x", "unknown option -x"),
        ("show -hV", "unknown option -hV"),
        ("show ---", "unknown option ---"),
        ("show queue --all=yes", "--all takes no value"),
        ("show queue --spool", "--spool needs a value, as in --spool=PATH"),
        ("show queue --spool --all", "--spool needs a value, as in --spool=PATH"),
        ("show queue --spool --", "--spool needs a value, as in --spool=PATH"),
        ("show queue --type smtp", "--type smtp: must be one of mta, mda, bounce"),
        ("show queue --sort=", "--sort : must be one of"),
    ],
)
def test_refusals_are_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.parse(line.split())
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_mailq_ignores_all_but_long_options() -> None:
    words, parsed = options.parse_mailq(["-v", "-Ac", "x", "--limit", "-3", "-?", "--", "--all"])
    assert words == []
    assert _values(parsed) == {"limit": "-3"}


def test_mailq_refuses_a_long_option_misspelt() -> None:
    with pytest.raises(options.UnknownOptionError):
        options.parse_mailq(["--spol", "/backup"])


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("show queue --spool x --sender y --sort id --count --format csv", None),
        ("mailq --spool x --sender y --sort id --count --format csv", None),
        ("show message 1a2b3c4d --key-file k --all", None),
        ("show message 1a2b3c4d --sender y", "--sender means nothing to show message"),
        ("show stats --spool x", "--spool means nothing to show stats"),
        ("encrypt --scheme sha512", None),
        ("show queue --scheme sha512", "--scheme means nothing to show queue"),
        ("help --man", None),
        ("monitor --man", "--man means nothing to monitor"),
    ],
)
def test_options_belong_to_commands(line: str, refusal: str | None) -> None:
    words, parsed = options.parse(line.split())
    key = grammar.match(words)[1]
    if refusal is None:
        parsed.check(key)
    else:
        with pytest.raises(UsageError, match=refusal):
            parsed.check(key)


def test_groups_name_commands_that_exist() -> None:
    keys = {grammar.key(tuple(pattern.split())) for pattern, _ in commands.COMMANDS}
    for takers in options.GROUPS.values():
        assert keys.issuperset(takers)
    used = {option.group for option in options.OPTIONS.values()}
    assert used == {*options.GROUPS, options.EVERYWHERE}


def test_a_default_is_given_back() -> None:
    assert options.Options().get("limit", "7") == "7"
    assert options.Options({"limit": "3"}).get("limit", "7") == "3"


@given(st.lists(st.text(alphabet="-=ahpsV1 x", max_size=8), max_size=6))
def test_any_arguments_are_parsed_or_refused(arguments: list[str]) -> None:
    try:
        words, _ = options.parse(arguments)
    except UsageError:
        return
    assert set(words) <= set(arguments)
    assert options.parse(["--", *arguments])[0] == arguments


@pytest.mark.parametrize("name", ["--spool", "--root", "--key-file"])
def test_a_place_is_never_empty(name: str) -> None:
    for arguments in ([f"{name}="], [name, ""]):
        with pytest.raises(UsageError, match="needs a value"):
            options.parse(["show", "queue", *arguments])


def test_mailq_has_the_short_options_that_its_help_names() -> None:
    assert options.parse_mailq(["-h", "-v", "word"])[1].flag("help")
    assert options.parse_mailq(["-V"])[1].flag("version")
