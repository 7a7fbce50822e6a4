"""The option table, and the parsing of a command line into words and options."""

from __future__ import annotations

from smtpd_core.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional, Union

    Value = Union[str, bool, list[str]]

# Which commands a group of options belongs to, by command key; EVERYWHERE is for all.
WHERE = "where to look"
SELECT = "which envelopes; repeatable, all must hold"
ORDER = "order and amount"
OUTPUT = "form of the listing"
ENCRYPT = "hash"
HELP = "manual page"
EVERYWHERE = "any command"

_LISTS = ("show queue", "mailq")
GROUPS = {
    WHERE: (*_LISTS, "show envelope", "show message"),
    SELECT: _LISTS,
    ORDER: _LISTS,
    OUTPUT: _LISTS,
    ENCRYPT: ("encrypt",),
    HELP: ("help",),
}

_BUCKETS = ("queue", "incoming", "offline", "corrupt", "purge", "temporary")
_TYPES = ("mta", "mda", "bounce")
_SORT_KEYS = ("id", "age", "size", "sender", "recipient", "domain", "tries", "error")
_FORMATS = ("classic", "table", "json", "json-pretty", "csv")

# (name, what its value is called or "" for none, group, may be repeated, choices, help)
_TABLE = (
    ("spool", "PATH", WHERE, False, (), "look here instead of /var/spool/smtpd"),
    ("root", "DIR", WHERE, False, (), "the disk to rescue is mounted at DIR"),
    ("bucket", "NAME", WHERE, True, _BUCKETS, "look into this part of the spool; repeatable"),
    ("all", "", WHERE, False, (), "look into every part of the spool"),
    ("key-file", "PATH", WHERE, False, (), "read the key of an encrypted queue from PATH"),
    ("sender", "GLOB", SELECT, True, (), "sender address matches GLOB"),
    ("recipient", "GLOB", SELECT, True, (), "recipient address matches GLOB"),
    ("domain", "GLOB", SELECT, True, (), "domain of the recipient matches GLOB"),
    ("error", "GLOB", SELECT, True, (), "text of the last error matches, or contains, GLOB"),
    ("type", "TYPE", SELECT, True, _TYPES, "relayed, delivered here, or a bounce"),
    ("flag", "NAME", SELECT, True, (), "carries this flag: auth, bounce, internal"),
    ("older", "DURATION", SELECT, True, (), "created longer ago than this"),
    ("newer", "DURATION", SELECT, True, (), "created more recently than this"),
    ("tries", "N", SELECT, True, (), "attempts so far: 3, +3 (more), -3 (fewer), >=3"),
    ("size", "SIZE", SELECT, True, (), "size of the message: +20k, -4m, >=1m"),
    ("sort", "KEY", ORDER, False, _SORT_KEYS, "sort by this"),
    ("reverse", "", ORDER, False, (), "turn the order around"),
    ("limit", "N", ORDER, False, (), "stop after N envelopes"),
    ("count", "", ORDER, False, (), "print only how many"),
    ("summary", "", ORDER, False, (), "print totals instead of envelopes"),
    ("format", "NAME", OUTPUT, False, _FORMATS, "print in this format"),
    ("scheme", "NAME", ENCRYPT, False, (), "hash with this scheme: sha512, yescrypt, bcrypt, ..."),
    ("man", "", HELP, False, (), "show the whole manual page"),
    ("help", "", EVERYWHERE, False, (), "show help for the command, and do nothing"),
    ("version", "", EVERYWHERE, False, (), "print the version, and do nothing"),
)
SHORT = {"-h": "--help", "-V": "--version"}


class Option:
    """One option: its spelling, and what it accepts."""

    __slots__ = ("choices", "group", "help", "metavar", "name", "repeatable")

    def __init__(self, row: tuple[str, str, str, bool, tuple[str, ...], str]) -> None:
        """Take a row of the table; `metavar` is empty for an option without value."""
        self.name, self.metavar, self.group, self.repeatable, self.choices, self.help = row

    def belongs_to(self, command: str) -> bool:
        """Tell whether a command, given by its key, accepts the option."""
        return self.group == EVERYWHERE or command in GROUPS[self.group]


OPTIONS = {f"--{row[0]}": Option(row) for row in _TABLE}


class UnknownOptionError(UsageError):
    """An option that does not exist."""

    def __init__(self, option: str) -> None:
        """Take the option as typed, without its value."""
        super().__init__(f"unknown option {option}")
        self.option = option


class Options:
    """The options of one command line, by name without dashes."""

    __slots__ = ("_values",)

    def __init__(self, values: Optional[dict[str, Value]] = None) -> None:
        """Start from values as get() gives them."""
        self._values: dict[str, Value] = {} if values is None else values

    def get(self, name: str, default: Optional[Value] = None) -> Optional[Value]:
        """Give a value as typed, True for an option without value, a list for a repeatable one."""
        return self._values.get(name, default)

    def text(self, name: str) -> Optional[str]:
        """Give the value of an option that is not repeatable; None when it was not given."""
        value = self._values.get(name)
        return value if isinstance(value, str) else None

    def flag(self, name: str) -> bool:
        """Tell whether an option without value was given."""
        return self._values.get(name) is True

    def texts(self, name: str) -> list[str]:
        """Give the values of a repeatable option."""
        value = self._values.get(name)
        return value if isinstance(value, list) else []

    def put(self, option: Option, value: Value) -> None:
        """Note one occurrence; of an option that is not repeatable the last one counts.

        Raises UsageError when the value is none of the option's choices.
        """
        if option.choices and value not in option.choices:
            raise UsageError(f"--{option.name} {value}: must be one of {', '.join(option.choices)}")
        if not option.repeatable:
            self._values[option.name] = value
            return
        assert isinstance(value, str)
        values = self._values.setdefault(option.name, [])
        assert isinstance(values, list)
        values.append(value)

    def check(self, command: str) -> None:
        """Refuse, with UsageError, an option that a command does not have."""
        for name in self._values:
            if not OPTIONS[f"--{name}"].belongs_to(command):
                raise UsageError(f"--{name} means nothing to {command}")


def parse(arguments: list[str]) -> tuple[list[str], Options]:
    """Part the words of a command line from its options, which may stand anywhere before `--`.

    A word such as `-1` is no option: no option begins with a digit. Raises UsageError.
    """
    words: list[str] = []
    options = Options()
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            words.extend(rest)
        elif argument[:1] != "-" or argument == "-" or argument[1].isdigit():
            words.append(argument)
        else:
            _parse_option(argument, rest, options)
    return words, options


def parse_mailq(arguments: list[str]) -> tuple[list[str], Options]:
    """Keep our options of a command line of mailq; all else is ignored, as ever.

    Raises UsageError: a long option misspelt must not show another queue than the one meant.
    """
    options = Options()
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            break
        if argument[:2] == "--" or argument in SHORT:
            _parse_option(argument, rest, options)
    return [], options


def _parse_option(argument: str, rest: Iterator[str], options: Options) -> None:
    name, equals, value = argument.partition("=")
    option = OPTIONS.get(SHORT.get(name, name))
    if option is None:
        raise UnknownOptionError(name)
    if not option.metavar:
        if equals:
            raise UsageError(f"{name} takes no value")
        options.put(option, True)
        return
    if not equals:
        value = next(rest, "--")
        if value[:2] == "--":  # a value that was forgotten, or one that needs the other spelling
            raise UsageError(f"{name} needs a value, as in {name}={option.metavar}")
    if not value and option.group == WHERE:  # a variable that was not set; not the host's own
        raise UsageError(f"{name} needs a value, as in {name}={option.metavar}")
    options.put(option, value)
