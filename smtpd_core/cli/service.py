"""Commands that speak to a running daemon."""

from __future__ import annotations

from smtpd_core.cli import commands
from smtpd_core.cli.context import EXIT_FAILURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from smtpd_core.cli.context import Context


def require_daemon(context: Context, arguments: list[str]) -> int:  # noqa: ARG001 - a handler
    """Say that no daemon answers: the words are good, but there is nobody to obey them."""
    context.warn("smtpd doesn't seem to be running")
    return EXIT_FAILURE


def trace(context: Context, arguments: list[str]) -> int:
    """Switch tracing of a part of the daemon; the keyword is checked before anything is asked."""
    return _with_keyword(context, arguments, "trace")


def profile(context: Context, arguments: list[str]) -> int:
    """Switch profiling of a part of the daemon; see trace."""
    return _with_keyword(context, arguments, "profile")


def spf_walk(context: Context, arguments: list[str]) -> int:  # noqa: ARG001 - a handler
    """Refuse to resolve SPF records: that needs a resolver, which this release does not have."""
    context.warn("spf walk is not available in this release")
    return EXIT_FAILURE


def _with_keyword(context: Context, arguments: list[str], kind: str) -> int:
    keyword = arguments[0]
    if keyword not in commands.KEYWORDS[kind]:
        context.warn(f"invalid {kind} keyword: {keyword}")
        return EXIT_FAILURE
    return require_daemon(context, [])
