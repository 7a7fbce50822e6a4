"""The key of an encrypted queue: from a file, the environment or a terminal, never an argument."""

from __future__ import annotations

import os
import stat

from smtpd_core.errors import AccessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from smtpd_core.cli.context import Context
    from smtpd_core.queue.codec import Key

ENVIRONMENT = "SMTPCTL_QUEUE_KEY"
_PROMPTS = 3  # as the original asks
_KEY_FILE_OCTETS_MAX = 4096


def load_key(context: Context) -> Optional[Key]:
    """Get the key from --key-file, the environment, or whoever sits at the terminal.

    None when there is nobody to ask. Raises AccessError for a file that cannot be read and for a
    key that is not 32 octets, which is no fault of the object that is to be opened with it.
    """
    path = context.options.text("key-file")
    if path is not None:
        name = "standard input" if path == "-" else path
        return _parse(_read_file(path, context.stdin_fd), f"key file {name}: ")
    said = context.environ.get(ENVIRONMENT)
    if said:
        return _parse(os.fsencode(said), f"{ENVIRONMENT}: ")
    return _ask(context)


def _parse(octets: bytes, source: str) -> Key:
    from smtpd_core.queue.codec import CodecError, parse_key

    try:
        return parse_key(octets)
    except CodecError as error:
        raise AccessError(f"{source}{error}") from None


def is_repeatable(context: Context) -> bool:
    """Tell whether two processes can each load the key: not from a terminal or a pipe."""
    path = context.options.text("key-file")
    if path is not None:
        try:
            return path != "-" and stat.S_ISREG(os.stat(path).st_mode)
        except OSError:
            return False
    return bool(context.environ.get(ENVIRONMENT)) or not _can_ask(context)


def _read_file(path: str, stdin_fd: int) -> bytes:
    try:
        descriptor = stdin_fd if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            octets = b""
            while len(octets) <= _KEY_FILE_OCTETS_MAX:
                piece = os.read(descriptor, _KEY_FILE_OCTETS_MAX)
                if not piece:
                    break
                octets += piece
        finally:
            if path != "-":
                os.close(descriptor)
    except OSError as error:
        name = "standard input" if path == "-" else path
        raise AccessError(f"key file {name}: {error.strerror}") from None
    return octets


def _can_ask(context: Context) -> bool:
    """Tell whether somebody sits at a terminal who could say the key."""
    return os.isatty(context.stdin_fd) or context.output.error_terminal


def _ask(context: Context) -> Optional[Key]:
    """Ask at the terminal, without echo; None when there is none."""
    if not _can_ask(context):
        return None
    from smtpd_core.cli.terminal import ask_secrets

    context.output.flush()
    context.output.clear_progress()
    for attempt in range(1, _PROMPTS + 1):
        answers = ask_secrets([b"queue key: "], context.stdin_fd)
        if not answers:
            return None
        try:
            return _parse(answers[0], "")
        except AccessError as error:
            if attempt == _PROMPTS:
                raise
            context.warn(str(error))
    return None
