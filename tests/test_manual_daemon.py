"""The manual pages of the daemon, and what its code says, are the same."""

from __future__ import annotations

import pathlib
import re
import string
from dataclasses import fields
from typing import Dict, Iterator, List, Set, Tuple

import pytest

from smtpd_core.config import actions, check, directives, grammar, lexer, listeners, settings
from smtpd_core.config.model import Dhe, Service
from smtpd_core.daemon import loading, main, options, supervisor
from smtpd_core.daemon import queue as queue_role
from smtpd_core.dns import exchangers, system
from smtpd_core.ipc import messages
from smtpd_core.listener import limits, site, transaction
from smtpd_core.mail import header
from smtpd_core.mda import job, plan, script, variables
from smtpd_core.mta import limits as mta_limits
from smtpd_core.mta import targets, task
from smtpd_core.queue import layout, retry
from smtpd_core.routing import aliases, expand
from smtpd_core.smtp import conversation, data, lines
from smtpd_core.tables import lines as table_lines
from smtpd_core.tables import matching, posix

_MAN = pathlib.Path(__file__).parent.parent / "man"
_PAGES = {
    name: (_MAN / name).read_text()
    for name in ("smtpd.8", "smtpd.conf.5", "aliases.5", "forward.5", "table.5")
}
_MACROS = frozenset(
    ("Ar", "Op", "Oo", "Oc", "No", "Ns", "Pq", "Fl", "Ql", "Li", "Pa", "Xo", "Xc", "Ta", "It")
)
_PUNCTUATION = frozenset((",", ".", "|", ";", ":", ")", "...", "{", "}"))
_CONF = _PAGES["smtpd.conf.5"]


def _section(page: str, name: str) -> str:
    return _PAGES[page].partition(f"\n.Sh {name}\n")[2].partition("\n.Sh ")[0]


def _marked(source: str) -> Set[str]:
    """Give the words that stand behind .Ic and .Cm, wherever in a line these are."""
    found = set()
    for line in source.splitlines():
        words = line[1:].split() if line.startswith(".") and line[1:2] != "\\" else []
        marked = False
        for word in words:
            if word in ("Ic", "Cm"):
                marked = True
            elif word in _MACROS:
                marked = False
            elif marked and word not in _PUNCTUATION:
                found.add(word)
    return found


def _defaults() -> Iterator[Tuple[str, int]]:
    for values in (
        settings.SmtpLimits(),
        settings.MdaLimits(),
        settings.SchedulerLimits(),
        settings.MtaLimits(),
    ):
        for each in fields(values):
            if each.name != "family":
                yield each.name.replace("_", "-"), getattr(values, each.name)


def test_every_keyword_is_in_the_manual_and_the_reverse() -> None:
    known = lexer.KEYWORDS | {name for name, _ in _defaults()} | {word.value for word in Dhe}
    assert _marked(_CONF) == known


def test_every_statement_has_an_entry_and_the_reverse() -> None:
    body = re.sub(r"\.Xo\n\.Ic", "Ic", _section("smtpd.conf.5", "DESCRIPTION"))
    body += re.sub(r"\.It Xo\n\.Ic", ".It Ic", _section("smtpd.conf.5", "STATEMENTS"))
    found = re.findall(r"^\.It Ic (\S+)", body, flags=re.MULTILINE)
    assert set(found) == set(grammar._STATEMENTS)


def test_every_limit_stands_there_with_its_default() -> None:
    found = re.findall(r"^\.It Cm (\S+) Ta (\d+) Ta", _CONF, flags=re.MULTILINE)
    assert sorted((name, int(value)) for name, value in found) == sorted(_defaults())


def test_the_keywords_of_limits_are_those_of_the_reader() -> None:
    read = directives._SMTP_LIMITS | directives._MDA_LIMITS
    read |= directives._SCHEDULER_LIMITS | directives._MTA_LIMITS
    assert read == {name for name, _ in _defaults()}


_METHODS = {"mbox", "maildir", "lmtp", "mda", "expand-only", "forward-only"}


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        ("listen Cm on Ar interface", set(listeners._INTERFACE_OPTIONS)),
        (
            "action Ar name method",
            {*_METHODS, *actions._LOCAL_OPTIONS, *actions._RELAY_OPTIONS, "ttl"},
        ),
    ],
    ids=["listen", "action"],
)
def test_the_options_of_a_statement(head: str, wanted: Set[str]) -> None:
    entry = _CONF.partition(f"\n.It Ic {head}")[2].partition("\n.It Ic ")[0]
    assert set(re.findall(r"^\.It Cm (\S+)", entry, flags=re.MULTILINE)) == wanted


def _blocks(page: str) -> List[str]:
    section = _section(page, "EXAMPLES")
    blocks = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", section, flags=re.MULTILINE | re.DOTALL)
    return [block.replace("\\e", "\\") for block in blocks]


def _read(path: str) -> bytes:
    return b"example.org\n" if path.endswith("domains") else b"root: alice\n"


@pytest.mark.parametrize("example", _blocks("smtpd.conf.5"))
def test_an_example_is_a_configuration_that_starts(example: str) -> None:
    config = grammar.parse_config(example, "example", _read)
    assert config.warnings == ()
    assert check.start_problems(config) == ()
    assert check.unsupported(config) == ()


def test_the_examples_are_all_there_and_the_first_has_three_lines() -> None:
    examples = _blocks("smtpd.conf.5")
    assert len(examples) >= 4
    assert len(examples[0].splitlines()) == 3


def test_the_example_of_tables_is_read() -> None:
    text = _blocks("table.5")[0] + "action x relay\nmatch action x\n"
    config = grammar.parse_config(text, "example", _read)
    assert check.unsupported(config) == ()


@pytest.mark.parametrize("page", ["aliases.5", "forward.5"])
def test_an_example_of_aliases_is_understood(page: str) -> None:
    for block in _blocks(page):
        for line in block.splitlines():
            if page == "aliases.5":
                aliases.parse_value(line.split(None, 1)[1])
            elif not line.startswith("$"):
                assert aliases.parse_forward(line)


@pytest.mark.parametrize("word", ["filter f chain { g }", 'proc p "/bin/p"', "table t db:/etc/t"])
def test_what_the_manual_says_is_refused_is_refused(word: str) -> None:
    text = 'filter g proc-exec "/bin/g"\n' if word.startswith("filter") else ""
    text += f"{word}\naction x relay\nmatch action x\n"
    assert check.unsupported(grammar.parse_config(text, "example", _read))


# ---- smtpd.8 -----------------------------------------------------------------------------------


def _is_letter_known(letter: str) -> bool:
    try:
        options.parse_options([f"-{letter}", "value"])
    except options.OptionError as error:
        return "invalid option" not in str(error)
    return True


def _page_options() -> Dict[str, str]:
    section = _section("smtpd.8", "OPTIONS")
    return dict(re.findall(r"^\.It Fl (\S+)(.*)$", section, flags=re.MULTILINE))


def test_every_option_has_an_entry_and_the_reverse() -> None:
    short = {letter for letter in string.ascii_letters if _is_letter_known(letter)}
    long = {name[1:] for name in options._LONG}
    assert set(_page_options()) == short | long


def test_options_with_a_value_have_one_in_the_manual() -> None:
    for name, rest in _page_options().items():
        takes = name.startswith("-") or name in options._WITH_VALUE
        assert (" Ar " in rest) == takes, name


def test_the_synopsis_has_every_option_that_is_taken() -> None:
    synopsis = _section("smtpd.8", "SYNOPSIS")
    found = set(re.findall(r"^\.Op Fl (\S+)", synopsis, flags=re.MULTILINE))
    flags = next(word for word in found if len(word) > 1 and not word.startswith("-"))
    assert sorted(flags) == sorted(options._FLAGS)
    assert found - {flags} == set(_page_options()) - set(options._FLAGS) - {"x"}
    assert options.parse_options(["systemd-unit"]).print_unit
    assert ".Cm systemd-unit\n" in synopsis


def test_what_can_be_paused() -> None:
    entry = _section("smtpd.8", "OPTIONS").partition("\n.It Fl P ")[2].partition("\n.It ")[0]
    assert _marked(entry) == set(options.SUBSYSTEMS)


def test_exit_statuses_files_and_variables() -> None:
    found = re.findall(r"^\.It (\d)$", _section("smtpd.8", "EXIT STATUS"), flags=re.MULTILINE)
    assert [int(each) for each in found] == [main.EXIT_OK, main.EXIT_FAILURE]
    files = _section("smtpd.8", "FILES")
    for path in (*loading.DEFAULT_PATHS, layout.DEFAULT_SPOOL, *_pid_files()):
        assert path in files, path
    explained = set(re.findall(r"[A-Z_]{4,}", _section("smtpd.8", "ENVIRONMENT")))
    read = set()
    for name in ("main", "notify"):
        source = pathlib.Path(main.__file__).with_name(f"{name}.py").read_text()
        read |= set(re.findall(r"(?:get|pop)\(\"([A-Z_]+)\"", source))
    assert explained == read - {"LISTEN_FDNAMES"}


def _pid_files() -> List[str]:
    return [f"{directory}/smtpd.pid" for directory in main.RUNTIME_DIRECTORIES]


_SESSION = conversation.Options("x")

_NUMBERS = [
    ("smtpd.8", ".It {} Ta sessions of one client", limits.MAX_PER_CLIENT),
    ("smtpd.8", ".It {} Ta octets of a command line", lines.MAX_COMMAND),
    ("smtpd.8", ".It {} Ta octets of a line of a message", data.MAX_LINE),
    ("smtpd.8", ".It {} Ta seconds of silence", site.Timeouts.idle),
    ("smtpd.8", ".It {} Ta seconds for one message", site.Timeouts.message),
    ("smtpd.8", ".It {} Ta seconds for the TLS", site.Timeouts.handshake),
    ("smtpd.8", ".It {} Ta refused commands", _SESSION.max_errors),
    ("smtpd.8", ".It {} Ta refused recipients", _SESSION.max_failed_recipients),
    ("smtpd.8", ".It {} Ta commands other", _SESSION.max_idle_commands),
    ("smtpd.8", ".It {} Ta failed logins", _SESSION.max_failed_logins),
    ("smtpd.8", ".It {} Ta Received fields", header.MAX_RECEIVED),
    ("smtpd.8", ".It {} Ta envelopes of one", transaction.MAX_ENVELOPES),
    ("smtpd.8", ".It {} Ta octets of a message that", transaction.MAX_BODY),
    ("smtpd.8", "answered after {} second,", limits.DELAY_SECONDS),
    ("smtpd.8", "up to {} seconds;", limits.MAX_DELAY_SECONDS),
    ("smtpd.8", ".It {} Ta generations", expand.MAX_DEPTH),
    ("smtpd.8", ".It {} Ta names that one", expand.MAX_NODES),
    ("smtpd.8", ".It {} Ta names when", expand.MAX_FORWARD_NODES),
    ("smtpd.8", ".It {} Ta octets that a .forward", expand.MAX_FORWARD),
    ("smtpd.8", ".It {} Ta octets of a file that", messages.MAX_INCLUDE),
    ("smtpd.8", ".It {} Ta octets of a value of an alias", aliases.MAX_VALUE),
    ("smtpd.8", ".It {} Ta recipients in one", task.MAX_RECIPIENTS),
    ("smtpd.8", ".It {} Ta mail exchangers", exchangers.MAX_EXCHANGERS),
    ("smtpd.8", ".It {} Ta addresses of one relay", targets.MAX_HOPS),
    ("smtpd.8", ".It {} Ta failures in a row", mta_limits.MAX_ERRORS),
    ("smtpd.8", ".It {} Ta seconds that a route", mta_limits.MAX_PENALTY_SECONDS),
    ("smtpd.8", "disabled for {} seconds times", mta_limits.PENALTY_SECONDS),
    ("smtpd.8", ".It {} Ta seconds for a delivery", job.TIMEOUT_SECONDS),
    ("smtpd.8", ".It {} Ta octets of a command with", script.MAX_SCRIPT),
    ("smtpd.8", ".It {} Ta format specifiers", script.MAX_REFERENCES),
    ("smtpd.8", ".It {} Ta octets of a path", variables.MAX_RESULT),
    ("smtpd.8", "relay comes {} seconds", retry.BASE_SECONDS[retry.RELAY]),
    ("smtpd.8", "deliver here {} seconds", retry.BASE_SECONDS[retry.LOCAL]),
    ("smtpd.8", "flushed within {} seconds", queue_role.SYNC_SECONDS),
    ("smtpd.8", "are ready, within {} seconds;", supervisor.READY_SECONDS),
    ("smtpd.8", "begun, within {}.", supervisor.DRAIN_SECONDS),
    ("smtpd.8", "deliveries within {} seconds,", supervisor.STOP_SECONDS),
    ("smtpd.8", "up to {} seconds when it", supervisor.RESTART_SECONDS),
    ("smtpd.8", "from 1 to {}.", options.MAX_WORKERS),
    ("smtpd.8", "processor, up to {}.", main.MAX_DISPATCHERS),
    ("smtpd.8", "up to {} name servers", system.MAX_SERVERS),
    ("smtpd.conf.5", "include files {} deep", directives.MAX_FILES_OPEN),
    ("smtpd.conf.5", "deep, {} in all", directives.MAX_FILES),
    ("smtpd.conf.5", "each of up to {} delays", directives.MAX_WARN_INTERVALS),
    ("smtpd.conf.5", "up to {} of them", listeners.MAX_PKIS),
    ("smtpd.conf.5", "up to {} octets", listeners.MAX_TAG),
    ("smtpd.conf.5", "The default is {}M.", settings.SmtpSettings().max_message_size >> 20),
    ("smtpd.conf.5", "again.\nThe default is {}.", 100),
    ("smtpd.conf.5", "The default is {}d.", settings.QueueSettings().ttl_seconds // 86400),
    ("aliases.5", "at most {} octets;", aliases.MAX_VALUE),
    ("aliases.5", "at most\n{} octets", messages.MAX_INCLUDE),
    ("aliases.5", "at most {} names,", expand.MAX_NODES),
    ("aliases.5", "at most {} generations", expand.MAX_DEPTH),
    ("forward.5", "limit of {}\nseconds", job.TIMEOUT_SECONDS),
    ("forward.5", "has {} octets or more", expand.MAX_FORWARD),
    ("forward.5", "more than {} names", expand.MAX_FORWARD_NODES),
    ("table.5", "most {} octets", matching.MAX_KEY),
    ("table.5", "has {} to", table_lines.MIN_CREDENTIALS),
    ("table.5", "to {} octets", table_lines.MAX_CREDENTIALS),
    ("table.5", "at most {}: the", table_lines.MAX_SENDERS),
    ("table.5", "at most {} characters", posix.MAX_PATTERN),
    ("table.5", "at most {} octets is the key", table_lines.MAX_LABEL),
]


@pytest.mark.parametrize(("page", "words", "number"), _NUMBERS)
def test_a_number_is_that_of_the_code(page: str, words: str, number: float) -> None:
    source = " ".join(_PAGES[page].split())
    assert " ".join(words.format(int(number)).split()) in source


def test_the_environment_of_a_command() -> None:
    values = variables.Values("a@b", "c@d", "e@f", "user", "/home/user")
    given = {name for name, _ in plan._environment(values, "/home/user", "tag")}
    listed = " ".join(re.findall(r"^\.Ev (.+)$", _PAGES["forward.5"], flags=re.MULTILINE))
    assert set(re.findall(r"\w+", listed)) == given


def test_every_format_specifier_is_explained_and_the_reverse() -> None:
    section = _section("smtpd.conf.5", "FORMAT SPECIFIERS")
    assert set(re.findall(r"%\{([a-z.]+)\}", section)) == set(variables._NAMES)
    assert set(re.findall(r" :([a-z]+)", section)) == set(variables._MODIFIERS)


def test_every_service_and_backend_is_explained_and_the_reverse() -> None:
    services = re.findall(r"^\.It Cm (\S+)$", _section("table.5", "SERVICES"), flags=re.MULTILINE)
    assert set(services) == {service.value for service in Service}
    backends = set(
        re.findall(
            r"\w+", " ".join(re.findall(r"^\.It Cm (.+)$", _before("SERVICES"), re.MULTILINE))
        )
    )
    assert backends == {"static", "file", *check._READY_BACKENDS, *check._LATER_BACKENDS}


def _before(section: str) -> str:
    return _PAGES["table.5"].partition(f"\n.Sh {section}\n")[0]


@pytest.mark.parametrize("name", sorted(set(_PAGES) - {"smtpd.conf.5"}))
def test_a_page_and_that_of_the_configuration_refer_to_each_other(name: str) -> None:
    title, _, number = name.rpartition(".")
    assert f".Xr {title} {number}" in _section("smtpd.conf.5", "SEE ALSO")
    assert ".Xr smtpd.conf 5" in _section(name, "SEE ALSO")


def test_the_differences_are_linked_and_name_options_that_exist() -> None:
    root = _MAN.parent
    source = (root / "DIFFERENCES.md").read_text()
    assert "(DIFFERENCES.md)" in (root / "README.md").read_text()
    assert "DIFFERENCES.md" in _section("smtpd.8", "CAVEATS")
    assert set(re.findall(r"`(--[a-z]+)`", source)) == set(options._LONG)
    entries = re.findall(r"^- (?:.+\n)(?:  .+\n)*", source, flags=re.MULTILINE)
    assert len(entries) > 40
    for entry in entries:
        assert ": " in entry, f"without a reason: {entry}"
