"""What a command handler may use: options, output, clock, environment and the queue."""

from __future__ import annotations

from smtpd_core.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

    from smtpd_core.cli.options import Options
    from smtpd_core.cli.output import Output
    from smtpd_core.queue.codec import Key
    from smtpd_core.queue.sources import Source

EXIT_OK = 0
EXIT_FAILURE = 1  # something was not done, or not read; it was said on standard error
EXIT_USAGE = 2  # an option that does not exist, or a value it cannot have
EXIT_UNAVAILABLE = 69  # a program this release does not provide; EX_UNAVAILABLE of sysexits.h
EXIT_SOFTWARE = 70  # a mistake of our own; EX_SOFTWARE
EXIT_INTERRUPTED = 130  # as a shell reports SIGINT
EXIT_PIPE = 141  # as a shell reports SIGPIPE
EXIT_GRAMMAR = 255  # words that are no command; the original's status


class Context:
    """The surroundings of one command; made once by cli.main."""

    __slots__ = (
        "_key",
        "_key_loaded",
        "archive",
        "environ",
        "now",
        "options",
        "output",
        "stdin_fd",
    )

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
        self._key: Optional[Key] = None
        self._key_loaded = False

    def warn(self, line: str) -> None:
        """Tell the operator something, in one line on standard error."""
        self.output.warn(line)

    def open_queue(self) -> Source:
        """Open the spool that the options name; raises AccessError or UsageError."""
        from smtpd_core.queue.layout import DEFAULT_SPOOL
        from smtpd_core.queue.opening import open_source

        path = self.options.text("spool") or DEFAULT_SPOOL
        if path == "-" and self.options.text("key-file") == "-":
            raise UsageError("--spool - and --key-file - cannot both read standard input")
        return open_source(path, self.options.text("root"), self.stdin_fd)

    def queue_key(self) -> Optional[Key]:
        """Get the key of an encrypted queue, once; None when nobody can say it."""
        if not self._key_loaded:
            from smtpd_core.cli.queuekey import load_key

            self._key = load_key(self)
            self._key_loaded = True
        return self._key

    def key_is_shareable(self) -> bool:
        """Tell whether another process of ours could get the key too."""
        if self._key_loaded:
            return True
        from smtpd_core.cli.queuekey import is_repeatable

        return is_repeatable(self)
