"""Run one command line: parse it, call its handler, turn what went wrong into one sentence."""

from __future__ import annotations

import os
import time

import smtpd_core
from smtpd_core.cli import commands, context, grammar, options, output
from smtpd_core.errors import AccessError, LocalError, SmtpdError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional

    Handler = Callable[[context.Context, list[str]], int]
    Loader = Callable[[str], Handler]

_SUFFIXES = (".pyz", ".py")
# Names under which OpenSMTPD's control program is something else. A sendmail that only looked
# like one would lose mail, so these refuse.
_OTHER_PROGRAMS = frozenset(("sendmail", "send-mail", "newaliases", "makemap"))
_DAEMON = "smtpd"  # a name of this file, or the first word: its arguments are its own
_DAEMON_WORDS: dict[str, list[str]] = {"smtpd": [], "systemd-unit": ["systemd-unit"]}


def run(name: str, arguments: list[str], load: Loader = commands.load) -> int:
    """Run the program of a name with its arguments; return the exit status.

    `load` turns the `module:function` of the table into a handler. Nothing but the status comes
    out: no exception, and no traceback unless SMTPCTL_DEBUG is set.
    """
    program = _program(name)
    out = output.Output(program, os.environ)
    try:
        status = _guard(out, program, arguments, load)
        out.flush()
    except output.OutputClosedError:
        return context.EXIT_PIPE
    except AccessError as error:  # output that did not arrive is a failure, whatever came before
        out.warn(str(error))
        return context.EXIT_FAILURE
    except KeyboardInterrupt:
        out.clear_progress()
        return context.EXIT_INTERRUPTED
    return status


def _program(name: str) -> str:
    """Choose the program by the name it was called by; a name of no program is smtpctl's."""
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    known = name in ("mailq", _DAEMON) or name in _OTHER_PROGRAMS
    return name if known else "smtpctl"


def _guard(out: output.Output, program: str, arguments: list[str], load: Loader) -> int:
    """Run the command line; answer every error with one line on standard error."""
    try:
        try:
            return _dispatch(out, program, arguments, load)
        except grammar.GrammarError as error:
            return _refuse_words(out, program, error)
        except UsageError as error:
            return _refuse_options(out, error)
        except LocalError:
            raise
        except SmtpdError as error:
            out.warn(str(error))
            return context.EXIT_FAILURE
    except (output.OutputClosedError, AccessError):
        raise
    except Exception as error:  # noqa: BLE001 - the command boundary: a user sees no traceback
        return _confess(out, error)


def _dispatch(out: output.Output, program: str, arguments: list[str], load: Loader) -> int:
    if program in _OTHER_PROGRAMS:
        out.warn("this release does not provide this program")
        return context.EXIT_UNAVAILABLE
    if program == _DAEMON:
        return commands.load_program("smtpd_core.daemon.main:run")(arguments)
    if program == "smtpctl" and arguments[:1] and arguments[0] in _DAEMON_WORDS:
        daemon = [*_DAEMON_WORDS[arguments[0]], *arguments[1:]]
        return commands.load_program("smtpd_core.daemon.main:run")(daemon)
    if program == "mailq":
        words, given = options.parse_mailq(arguments)
        words = ["mailq"]
    else:
        words, given = options.parse(arguments)
    surroundings = context.Context(
        out,
        given,
        os.environ,
        int(time.time()),  # noqa: TID251 - the clock of every command
        _archive(),
    )
    if given.get("version"):
        return _show_version(out)
    if given.get("help"):
        return load("smtpd_core.cli.help:show_help")(surroundings, words)
    handler, key, parameters = grammar.match(words)
    given.check(key)
    return load(handler)(surroundings, parameters)


def _show_version(out: output.Output) -> int:
    from smtpd_core import version

    commit = version.commit()
    out.line(f"smtpctl {version.VERSION}" + (f" ({commit})" if commit else ""))
    return context.EXIT_OK


def _archive() -> Optional[str]:
    """Give the path of the archive that this code runs from, None for a plain directory."""
    archive = getattr(smtpd_core.__loader__, "archive", None)
    return archive if isinstance(archive, str) else None


def _refuse_words(out: output.Output, program: str, error: grammar.GrammarError) -> int:
    for line in error.lines():
        out.error_line(line)
    if out.error_terminal:
        from smtpd_core.cli import suggest

        hint = suggest.command(error, program)
        if hint:
            out.error_line(hint)
    return context.EXIT_GRAMMAR


def _refuse_options(out: output.Output, error: UsageError) -> int:
    out.warn(str(error))
    if out.error_terminal and isinstance(error, options.UnknownOptionError):
        from smtpd_core.cli import suggest

        hint = suggest.option(error.option)
        if hint:
            out.error_line(hint)
    return context.EXIT_USAGE


def _confess(out: output.Output, error: Exception) -> int:
    """Report a mistake of our own in one line, or where it happened for who asks to see it."""
    kind, text = type(error).__name__, str(error)
    said = f"{kind}: {text}" if text else kind
    out.warn(f"internal error: {said} (please report; SMTPCTL_DEBUG=1 shows where)")
    if os.environ.get("SMTPCTL_DEBUG"):
        import traceback

        for line in traceback.format_exc().splitlines():
            out.error_line(line)
    return context.EXIT_SOFTWARE
