"""The exception family: every error this project raises on purpose descends from SmtpdError."""

from __future__ import annotations


class SmtpdError(Exception):
    """Base of all errors raised on purpose; its text is one sentence fit for an operator."""


class FormatError(SmtpdError, ValueError):
    """Input that breaks the rules of its format; each format derives its own error from this."""


class LocalError(SmtpdError):
    """A mistake of our own code: a call that the caller must never make."""


class RemoteError(SmtpdError):
    """A peer broke the protocol, or could not be reached."""


class UsageError(SmtpdError):
    """Arguments that cannot be understood; the program ends with exit status 2."""


class AccessError(SmtpdError):
    """Something that was asked for by name does not exist or may not be read."""
