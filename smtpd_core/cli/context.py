"""What a command handler may use: options, output, clock, environment and the queue."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

    from smtpd_core.cli.output import Output
    from smtpd_core.cli.options import Options

EXIT_OK = 0
EXIT_FAILURE = 1  # something was not done, or not read; it was said on standard error
EXIT_USAGE = 2  # an option that does not exist, or a value it cannot have
EXIT_INTERRUPTED = 130  # as a shell reports SIGINT
EXIT_PIPE = 141  # as a shell reports SIGPIPE
EXIT_GRAMMAR = 255  # words that are no command; the original's status


class Context:
    """The surroundings of one command; made once by cli.main."""

    __slots__ = ("archive", "environ", "now", "options", "output", "stdin_fd")

    def __init__(
        self,
        output: Output,
        options: Options,
        environ: Mapping[str, str],
        now: int,
        archive: Optional[str] = None,
    ) -> None:
        """Take `now` in seconds since the epoch; `archive` is None when run from sources."""
        self.output = output
        self.options = options
        self.environ = environ
        self.now = now
        self.archive = archive
        self.stdin_fd = 0

    def warn(self, line: str) -> None:
        """Tell the operator something, in one line on standard error."""
        self.output.warn(line)
