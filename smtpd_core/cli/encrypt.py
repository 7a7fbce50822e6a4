"""`encrypt`: turn passwords into hashes for a credentials table."""

from __future__ import annotations

import os
import stat

from smtpd_core.cli.context import EXIT_FAILURE, EXIT_OK
from smtpd_core.errors import AccessError, UsageError
from smtpd_core.tables import password
from smtpd_core.tables.password import PasswordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional

    from smtpd_core.cli.context import Context

_READ_OCTETS = 65536
_MAX_PROGRAM = 4 << 20  # octets of the host's hashing program; real ones have 15 to 40 thousand


def encrypt(context: Context, arguments: list[str]) -> int:
    """Print the hash of the argument, or of each line of standard input.

    On a terminal one password is asked for, twice, without echo. Each hash is handed on before
    the next line is waited for, so that another program may drive this one. A line that cannot
    be hashed ends the run: what came out still matches what went in, line by line.

    The scheme is the one asked for, else the one the host's own smtpctl uses (see
    tables.password.default_scheme). Raises UsageError for a scheme that is not to be had here,
    PasswordError for a password that cannot be hashed, AccessError when input cannot be read.
    """
    scheme = _scheme(context)
    if len(arguments) > 1:
        raise UsageError("encrypt takes one password")
    if arguments:
        _print_hash(context, os.fsencode(arguments[0]), scheme)
        return EXIT_OK
    if os.isatty(context.stdin_fd):
        return _from_terminal(context, scheme)
    for number, line in enumerate(_lines(context.stdin_fd), 1):
        try:
            _print_hash(context, line, scheme)
        except PasswordError as error:
            raise PasswordError(f"standard input, line {number}: {error}") from None
    return EXIT_OK


def _print_hash(context: Context, secret: bytes, scheme: str) -> None:
    context.output.line(password.hash_password(secret, scheme, entropy=os.urandom))
    context.output.flush()


def _scheme(context: Context) -> str:
    """Choose the scheme; one named by --scheme is had or refused, the default may be replaced."""
    wanted = context.options.get("scheme")
    if isinstance(wanted, str):
        scheme = password.find_scheme(wanted)
        if scheme is None or scheme.make is None or not password.available(scheme):
            here = ", ".join(
                [each.name for each in password.SCHEMES if each.make and password.available(each)]
            )
            raise UsageError(f"--scheme {wanted}: must be one of {here}")
        return scheme.name
    name = password.default_scheme(_program)
    scheme = password.find_scheme(name)
    if scheme is None or not password.available(scheme):
        context.warn(f"{name} hashes cannot be made here: these are sha512")
        return "sha512"
    return name


def _program(path: str) -> Optional[bytes]:
    """Read the beginning of a program; None when there is none that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.read(descriptor, _MAX_PROGRAM)
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return None


def _lines(descriptor: int) -> Iterator[bytes]:
    """Read lines as they come; the last may lack its end, and one too long ends the reading."""
    rest = b""
    while len(rest) <= password.MAX_PASSWORD:
        octets = _read(descriptor, _READ_OCTETS)
        if not octets:
            break
        *lines, rest = (rest + octets).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _read(descriptor: int, octets: int) -> bytes:
    try:
        return os.read(descriptor, octets)
    except OSError as error:
        raise AccessError(f"standard input: {error.strerror}") from None


def _from_terminal(context: Context, scheme: str) -> int:
    from smtpd_core.cli.terminal import ask_secrets

    answers = ask_secrets([b"Password: ", b"Same password again: "], context.stdin_fd)
    if not answers:
        context.warn("no password was given")
        return EXIT_FAILURE
    if len(answers) == 1 or answers[0] != answers[1]:
        context.warn("the two passwords differ")
        return EXIT_FAILURE
    _print_hash(context, answers[0], scheme)
    return EXIT_OK
