"""Help: what to type, examples first; and the manual page."""

from __future__ import annotations

import os

import smtpd_core
from smtpd_core.cli import commands, grammar
from smtpd_core.cli.context import EXIT_OK
from smtpd_core.cli.options import GROUPS, OPTIONS, SHORT
from smtpd_core.errors import AccessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from smtpd_core.cli.context import Context
    from smtpd_core.cli.options import Option

_COMMAND_COLUMN = 36  # where the summaries begin
_OPTION_COLUMN = 24

_TITLE = "smtpctl: control OpenSMTPD; read its mail queue, daemon running or not"

# (heading, command keys between bars): every command once, those for an emergency first.
SECTIONS = (
    (
        "Look into the queue: no daemon needed, no root, and nothing is changed",
        "show queue|mailq|show envelope|show message",
    ),
    (
        "Act on waiting mail (by way of the daemon)",
        "schedule|remove|pause envelope|resume envelope|discover|uncorrupt",
    ),
    (
        "Stop and start parts of the daemon",
        (
            "pause mda|resume mda|pause mta|resume mta|pause smtp|resume smtp|pause mta from"
            "|resume mta from|resume route|stop"
        ),
    ),
    (
        "Watch the daemon",
        (
            "show status|show stats|monitor|show hosts|show hoststats|show relays|show routes"
            "|show mta paused|show sizes|log brief|log verbose|trace|untrace|profile|unprofile"
        ),
    ),
    ("Tables and secrets", "encrypt|update table|spf walk"),
    ("This program", "help|completion bash|completion zsh|completion fish|selftest"),
)

SUMMARIES = {
    "discover": "take up mail put into the queue by hand",
    "pause mta from": "stop relaying from <addr> to domain <str>",
    "resume mta from": "relay from <addr> to that domain again",
    "show mta paused": "what `pause mta from` stopped",
    "log brief": "log less",
    "log verbose": "log more",
    "monitor": "counters, once a second",
    "pause envelope": "hold mail back",
    "pause mda": "stop delivering to local users",
    "pause mta": "stop relaying to other hosts",
    "pause smtp": "stop accepting mail",
    "profile": "time what one part does",
    "remove": "drop mail, telling nobody",
    "resume envelope": "release mail held back",
    "resume mda": "deliver to local users again",
    "resume mta": "relay to other hosts again",
    "resume route": "use a disabled route again",
    "resume smtp": "accept mail again",
    "schedule": "try to deliver now",
    "show envelope": "one envelope, field by field",
    "show hoststats": "last delivery status by domain",
    "show message": "one message, headers and body",
    "show queue": "what is waiting, and why",
    "show hosts": "remote hosts known",
    "show relays": "relays in use",
    "show routes": "routes, with penalties",
    "show stats": "all counters",
    "show status": "what is running, what is paused",
    "trace": "log what one part does",
    "unprofile": "stop that",
    "untrace": "stop that",
    "update table": "read a file table anew",
    "encrypt": "hash a password for a table",
    "spf walk": "addresses that SPF records allow",
    "show sizes": "sizes of the daemon's structures",
    "stop": "end the daemon",
    "uncorrupt": "take mail back out of corrupt/",
    "mailq": "the same as show queue",
    "help": "help for a command",
    "completion bash": "completions for bash",
    "completion zsh": "completions for zsh",
    "completion fish": "completions for fish",
    "selftest": "check that this program works",
}

_FIRST_EXAMPLES = (
    ("smtpctl show queue --format table", "what is waiting, for reading"),
    ("smtpctl show queue --summary", "how many, by domain and by age"),
    ("smtpctl show queue --domain example.com --older 4h", "what has waited too long"),
    ("smtpctl show queue --root /mnt --all", "every mail on a disk mounted at /mnt"),
)

# Command key -> (command line, what it is for).
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        *_FIRST_EXAMPLES,
        ("smtpctl show message 1a2b3c4d | less", "read a message; ids begin the lines of the list"),
    ),
    "show queue": (
        *_FIRST_EXAMPLES,
        ("smtpctl show queue 1a2b3c4d", "all envelopes of one message"),
        ("smtpctl show queue --error '*refused*' --tries +3 --count", "refused again and again"),
        ("smtpctl show queue --format json", "one JSON object a line, for programs"),
        ("smtpctl show queue --key-file /root/queue.key", "an encrypted queue"),
        (
            "ssh mx tar -C /var/spool -cf - smtpd | smtpctl show queue --spool -",
            "the queue of a host where nothing can be installed",
        ),
    ),
    "mailq": (("mailq --format table", "what is waiting, for reading"),),
    "show envelope": (
        ("smtpctl show envelope 1a2b3c4d5e6f7081", "the id begins its line in show queue"),
    ),
    "show message": (
        ("smtpctl show message 1a2b3c4d", "the first 8 digits of an envelope's id"),
        ("smtpctl show message 1a2b3c4d > mail.eml", "save it, octet for octet"),
        ("smtpctl show message 1a2b3c4d --spool /backup/spool.tar.gz", "from a backup"),
    ),
    "schedule": (("smtpctl schedule all", "try everything now"),),
    "remove": (("smtpctl remove 1a2b3c4d", "one message, for all its recipients"),),
    "encrypt": (
        ("smtpctl encrypt", "type a password, twice; neither the screen nor ps shows it"),
        ("smtpctl encrypt -- -secret", "a password that begins with a dash"),
    ),
    "help": (
        ("smtpctl help show queue", "help for one command"),
        ("smtpctl help --man", "the manual page"),
    ),
    "completion bash": (('eval "$(smtpctl completion bash)"', "a line for ~/.bashrc"),),
    "completion zsh": (
        ("smtpctl completion zsh > ~/.zfunc/_smtpctl", "into a directory of $fpath"),
    ),
    "completion fish": (
        ("smtpctl completion fish > ~/.config/fish/completions/smtpctl.fish", "once"),
    ),
}


def show_help(context: Context, words: list[str]) -> int:
    """Print help for the command, or the beginning of commands, that words name.

    Raises GrammarError when they name none.
    """
    if context.options.get("man"):
        return _show_manual(context)
    if words[:1] == ["help"]:  # `help --help` is about help; `help X --help` about X
        words = words[1:] or words
    position = grammar.walk(words)
    name = grammar.key(position.path)
    if not name:
        lines = _overview()
    elif name in SUMMARIES:
        lines = _about(name)
        nested = [other for other in _keys(position) if other != name]
        lines += _section("See also", map(_command, nested))
    else:
        lines = _section(f"smtpctl {name}", map(_command, _keys(position)))
    for line in lines:
        context.output.line(line)
    return EXIT_OK


def usage(key: str) -> str:
    """Spell a command with its parameters, as in `show queue [<msgid>|<evpid>]`."""
    tails = [
        pattern[len(key) :].strip()
        for pattern, _ in commands.COMMANDS
        if grammar.key(tuple(pattern.split())) == key
    ]
    if tails == ["..."]:
        return f"{key} [<command>]"
    given = "|".join(tail for tail in tails if tail)
    if "" in tails:
        return f"{key} [{given}]" if given else key
    return f"{key} {given}"


def command_keys() -> list[str]:
    """Give every command's key, each once, in the table's order."""
    return _keys(grammar.start())


def _keys(position: grammar.Position) -> list[str]:
    return list(dict.fromkeys(grammar.key(tuple(words)) for words, _ in position.rows))


def _overview() -> list[str]:
    lines = [_TITLE, "", *_section("Examples", map(_example, EXAMPLES[""]))]
    for heading, names in SECTIONS:
        lines += _section(heading, map(_command, names.split("|")))
    for group, takers in GROUPS.items():
        heading = f"Options for {', '.join(takers)} ({group})"
        lines += _section(heading, (_option(o) for o in OPTIONS.values() if o.group == group))
    lines += _options("Options of every command", "")
    lines.append("This release does not speak to the daemon: commands that need it answer as if it")
    lines.append("were not running.")
    lines.append("Words may be shortened (smtpctl sh q); options may stand anywhere.")
    lines.append("More: smtpctl COMMAND --help, smtpctl help --man")
    return lines


def _about(name: str) -> list[str]:
    program = "" if name == "mailq" else "smtpctl "
    lines = [f"{program}{usage(name)} [option ...]", f"    {SUMMARIES[name]}", ""]
    lines += _section("Examples", map(_example, EXAMPLES.get(name, ())))
    if name in commands.KEYWORDS:
        lines += _section("Keywords", ([f"  {word}"] for word in commands.KEYWORDS[name]))
    return lines + _options("Options", name)


def _options(heading: str, command: str) -> list[str]:
    return _section(heading, (_option(o) for o in OPTIONS.values() if o.belongs_to(command)))


def _section(heading: str, entries: Iterable[list[str]]) -> list[str]:
    lines = [line for entry in entries for line in entry]
    return [f"{heading}:", *lines, ""] if lines else []


def _example(example: tuple[str, str]) -> list[str]:
    line, purpose = example
    return [f"  # {purpose}", f"  {line}"]


def _command(name: str) -> list[str]:
    return _columns(usage(name), SUMMARIES[name], _COMMAND_COLUMN)


def _option(option: Option) -> list[str]:
    short = [letter for letter, name in SHORT.items() if name == f"--{option.name}"]
    spelled = ", ".join((*short, f"--{option.name} {option.metavar}".rstrip()))
    lines = _columns(spelled, option.help, _OPTION_COLUMN)
    if option.choices:
        lines.append(" " * _OPTION_COLUMN + " ".join(option.choices))
    return lines


def _columns(left: str, right: str, column: int) -> list[str]:
    if len(left) + 4 > column:
        return [f"  {left}", " " * column + right]
    return [f"  {left:{column - 2}}{right}"]


def manual(page: str) -> bytes:
    """Read the source of a manual page, from the archive or from the tree beside the package.

    Raises AccessError when this copy of the program came without it.
    """
    package = os.path.dirname(smtpd_core.__file__)
    for path in (
        os.path.join(package, "man", page),
        os.path.join(os.path.dirname(package), "man", page),
    ):
        try:
            octets: bytes = smtpd_core.__loader__.get_data(path)  # type: ignore[union-attr]
        except OSError:
            continue
        return octets
    raise AccessError(f"{page}: the manual page is not part of this copy")


def _show_manual(context: Context) -> int:
    source = manual("smtpctl.8")
    if not context.output.terminal or not _paged(context, source):
        context.output.write(source)
    return EXIT_OK


def _paged(context: Context, source: bytes) -> bool:
    """Let a program of the host format and page the manual; tell whether one did."""
    import signal
    import subprocess

    viewers = [["mandoc", "-a"], ["man", "-l", "-"], context.environ.get("PAGER", "").split()]
    context.output.flush()
    before = signal.signal(signal.SIGINT, lambda *_: None)  # an interrupt is for the pager
    try:
        for viewer in filter(None, viewers):
            try:
                shown = subprocess.run(viewer, input=source, check=False)  # noqa: S603 - no shell
            except OSError:
                continue
            if shown.returncode == 0:
                return True
    finally:
        signal.signal(signal.SIGINT, before)
    return False
