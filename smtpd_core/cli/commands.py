"""The command table: each pattern of words with its handler, in the original's order."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpd_core.cli.context import Context

_DAEMON = "smtpd_core.cli.service:require_daemon"
_TRACE = "smtpd_core.cli.service:trace"
_PROFILE = "smtpd_core.cli.service:profile"
_SHOW_QUEUE = "smtpd_core.cli.queue:show_queue"
_SHOW_MESSAGE = "smtpd_core.cli.queue:show_message"
_ENCRYPT = "smtpd_core.cli.encrypt:encrypt"
_HELP = "smtpd_core.cli.help:show_help"

# (pattern, module:function). A word in angle brackets is a parameter, `...` any words at all.
# The order is that in which OpenSMTPD 6.8 installs its commands, because the lists of
# possibilities show it; then what only older releases have; then what only this program has.
# Source: OpenSMTPD 6.8 smtpctl.c main; 5.7.3 for stop, uncorrupt and show sizes.
COMMANDS = (
    ("discover <evpid>", _DAEMON),
    ("discover <msgid>", _DAEMON),
    ("pause mta from <addr> for <str>", _DAEMON),
    ("resume mta from <addr> for <str>", _DAEMON),
    ("show mta paused", _DAEMON),
    ("log brief", _DAEMON),
    ("log verbose", _DAEMON),
    ("monitor", _DAEMON),
    ("pause envelope <evpid>", _DAEMON),
    ("pause envelope <msgid>", _DAEMON),
    ("pause envelope all", _DAEMON),
    ("pause mda", _DAEMON),
    ("pause mta", _DAEMON),
    ("pause smtp", _DAEMON),
    ("profile <str>", _PROFILE),
    ("remove <evpid>", _DAEMON),
    ("remove <msgid>", _DAEMON),
    ("remove all", _DAEMON),
    ("resume envelope <evpid>", _DAEMON),
    ("resume envelope <msgid>", _DAEMON),
    ("resume envelope all", _DAEMON),
    ("resume mda", _DAEMON),
    ("resume mta", _DAEMON),
    ("resume route <routeid>", _DAEMON),
    ("resume smtp", _DAEMON),
    ("schedule <msgid>", _DAEMON),
    ("schedule <evpid>", _DAEMON),
    ("schedule all", _DAEMON),
    ("show envelope <evpid>", "smtpd_core.cli.queue:show_envelope"),
    ("show hoststats", _DAEMON),
    ("show message <msgid>", _SHOW_MESSAGE),
    ("show message <evpid>", _SHOW_MESSAGE),
    ("show queue", _SHOW_QUEUE),
    ("show queue <msgid>", _SHOW_QUEUE),
    ("show queue <evpid>", _SHOW_QUEUE),  # ours
    ("show hosts", _DAEMON),
    ("show relays", _DAEMON),
    ("show routes", _DAEMON),
    ("show stats", _DAEMON),
    ("show status", _DAEMON),
    ("trace <str>", _TRACE),
    ("unprofile <str>", _PROFILE),
    ("untrace <str>", _TRACE),
    ("update table <str>", _DAEMON),
    ("encrypt", _ENCRYPT),
    ("encrypt <str>", _ENCRYPT),
    ("spf walk", "smtpd_core.cli.service:spf_walk"),
    ("show sizes", _DAEMON),  # 5.7.x
    ("stop", _DAEMON),  # up to 6.0.2
    ("uncorrupt <msgid>", _DAEMON),  # 5.7.1 to 6.0.3
    ("mailq", _SHOW_QUEUE),
    ("help ...", _HELP),
    ("completion bash", "smtpd_core.cli.completion:bash"),
    ("completion zsh", "smtpd_core.cli.completion:zsh"),
    ("completion fish", "smtpd_core.cli.completion:fish"),
    ("selftest", "smtpd_core.cli.selftest:selftest"),
)

# First words that no release has. They are in no list of possibilities, and a prefix means one
# of them only when it means no word of the manual: no abbreviation in use may change.
OURS = frozenset(("mailq", "help", "completion", "selftest"))

# (path, prefix) -> word, where the manual promises more than prefixes can tell: its own example
# `sh s` is `show stats`. What the original calls ambiguous elsewhere stays ambiguous.
TIE_BREAKS: dict[tuple[tuple[str, ...], str], str] = {(("show",), "s"): "stats"}

# Values of a <str> parameter that has only a few, by the first word of the command. `mta` and
# `transfer` are one thing: manual and program have not always used the same word for it.
_TRACED: tuple[str, ...] = (
    "imsg",
    "io",
    "smtp",
    "filters",
    "mta",
    "transfer",
    "bounce",
    "scheduler",
)
_TRACED += ("lookup", "stat", "rules", "mproc", "expand", "all")
_PROFILED = ("imsg", "queue")
KEYWORDS = {
    "trace": _TRACED,
    "untrace": _TRACED,
    "profile": _PROFILED,
    "unprofile": _PROFILED,
}


def load_program(handler: str) -> Callable[[list[str]], int]:
    """Import a program that takes its arguments itself, by its `module:function` name."""
    module, _, function = handler.partition(":")
    __import__(module)
    loaded: Callable[[list[str]], int] = getattr(sys.modules[module], function)
    return loaded


def load(handler: str) -> Callable[[Context, list[str]], int]:
    """Import a handler by its `module:function` name: the one late import made by table."""
    module, _, function = handler.partition(":")
    __import__(module)
    loaded: Callable[[Context, list[str]], int] = getattr(sys.modules[module], function)
    return loaded
