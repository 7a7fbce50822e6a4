"""Carry what a source holds to standard output: read, select, format, in order and as a stream.

The walk of a unit is turned into steps, each an octet that says what it is and its text (see
workers.py): rows of output and how many objects were read for them, or a warning.
What sorts, counts or sums up needs all entries in one process; what streams may be shared by two.
What sorts keeps finished rows, not entries, which take ten times as much memory.
"""

from __future__ import annotations

import os
import time

from smtpd_core import text
from smtpd_core.cli.context import EXIT_FAILURE, EXIT_OK
from smtpd_core.queue.sources import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Optional, Union

    from smtpd_core.cli.classic import Format
    from smtpd_core.cli.context import Context
    from smtpd_core.cli.selection import Selection
    from smtpd_core.queue.entries import Entry
    from smtpd_core.queue.shape import Shapes
    from smtpd_core.queue.sources import Item, Source, Unit

ROWS = b"r"  # how many objects were read, and the rows made of them, which may be none
WARNING = b"w"
_ROWS_MAX = 64  # objects in one step; the first steps of a unit are smaller, to be seen soon
_SHAPES_FROM = 32  # objects after which making the patterns of shape.py pays
_SHARE_FROM = 1000  # objects after which a second process pays
_SHARE_UNITS = 8  # units that must be left for it
_HEAP_MAX = 1000  # entries that are worth keeping in order as they come, instead of all rows
_FLUSH_SECONDS = 0.05  # how long a row may wait for others
_PROGRESS_AFTER = 1.0
_PROGRESS_EVERY = 0.25


class Listing:
    """One run through a source, with all that the steps on the way need."""

    def __init__(
        self, context: Context, source: Source, form: Format, selection: Optional[Selection]
    ) -> None:
        """Prepare a run of all entries or of selected ones; nothing is read yet."""
        self._context = context
        self._source = source
        self._form = form
        self._selection = selection
        self._details = form.details or (selection is not None and selection.details)
        self._escape = context.output.terminal
        self._shapes: Optional[Shapes] = None
        self._fast = form.fast and selection is None and not self._escape
        self._separator = text.encode(form.separator)
        self._seen = 0
        self._shown = False  # whether any row was written
        self._status = EXIT_OK
        self._started = self._flushed = self._progressed = time.monotonic()
        self._members = 0  # of an archive: none of them is shown before the last was read
        source.on_read = self._count_member

    @property
    def status(self) -> int:
        """Give the exit status: a failure when anything was unreadable or damaged."""
        return self._status

    @property
    def details(self) -> bool:
        """Tell whether times and sizes of files are needed."""
        return self._details

    # --- reading

    def walk(self, buckets: list[str]) -> Iterator[Union[Item, Unreadable]]:
        """Give all that the buckets hold, one by one."""
        for unit in self._source.units(buckets):
            yield from self.counted(self._source.walk(unit, self._details))

    def counted(
        self, items: Iterable[Union[Item, Unreadable]]
    ) -> Iterator[Union[Item, Unreadable]]:
        """Give what it is given, and show the progress, whoever chooses among it later."""
        for item in items:
            self._count(1)
            self._flush_in_time()
            yield item

    def entries(self, items: Iterable[Union[Item, Unreadable]]) -> Iterator[Entry]:
        """Give the selected entries among items, and warn about all that is wrong."""
        for entry in self._found(items):
            for line in _problems(entry):
                self._warn(line)
            yield entry

    def _found(self, items: Iterable[Union[Item, Unreadable]]) -> Iterator[Entry]:
        """Give the selected entries among items, and warn about what cannot be read."""
        for item in items:
            for found in self._read(item):
                if isinstance(found, str):
                    self._warn(found)
                else:
                    yield found

    def _read(self, item: Union[Item, Unreadable]) -> Iterator[Union[Entry, str]]:
        """Give the selected entries of one item, and what cannot be read as it is printed."""
        if isinstance(item, Unreadable):
            yield f"{item.path}: {item.reason}"
            return
        from smtpd_core.queue.entries import read_entries  # an empty queue needs no parser

        for entry in read_entries(item, self._context.queue_key):
            if isinstance(entry, Unreadable):
                yield f"{entry.path}: {entry.reason}"
            elif self._selection is None or self._selection.accepts(entry):
                yield entry

    def _warn(self, line: str) -> None:
        self._context.warn(line)
        self._status = EXIT_FAILURE

    # --- streaming

    def stream(self, buckets: list[str]) -> None:
        """Print everything in the buckets in the order of the walk."""
        units = self._source.units(buckets)
        self._context.output.write(text.encode(self._form.head()))
        for index, unit in enumerate(units):
            if self._shareable(len(units) - index):
                from smtpd_core.cli.workers import run_shared

                run_shared(units[index:], self._steps, self._consume)
                break
            for kind, step in self._steps(unit):
                self._consume(kind, step)
        self._finish()

    def _shareable(self, units_left: int) -> bool:
        return (
            self._source.parallel
            and self._seen >= _SHARE_FROM
            and units_left >= _SHARE_UNITS
            and _available_processors() > 1
            and self._context.key_is_shareable()
        )

    def _steps(self, unit: Unit) -> Iterator[tuple[bytes, bytes]]:
        return self._steps_of(self._source.walk(unit, self._details))

    def _steps_of(self, items: Iterable[Union[Item, Unreadable]]) -> Iterator[tuple[bytes, bytes]]:
        """Turn items into steps; the same steps, whenever and by whomever it is done."""
        rows: list[bytes] = []
        read = 0
        wanted = 1
        for item in items:
            read += 1
            line = self._fast_row(item) if self._shapes is not None else None
            if line is not None:
                rows.append(line)
            else:
                for found in self._read(item):
                    warnings = [found] if isinstance(found, str) else _problems(found)
                    if warnings and rows:  # which are to stand before the warnings
                        yield ROWS, b"%d %b" % (read - 1, self._separator.join(rows))
                        rows.clear()
                        read = 1
                    for warning in warnings:
                        yield WARNING, text.encode(warning)
                    if not isinstance(found, str):
                        rows.append(self._row(found))
            if read >= wanted:
                yield ROWS, b"%d %b" % (read, self._separator.join(rows))
                rows.clear()
                read = 0
                wanted = min(2 * wanted, _ROWS_MAX)
        if read:
            yield ROWS, b"%d %b" % (read, self._separator.join(rows))

    def _fast_row(self, item: Union[Item, Unreadable]) -> Optional[bytes]:
        """Make the classic line of an ordinary envelope without parsing it."""
        if isinstance(item, Unreadable) or item.kind != "envelope" or item.notes:
            return None
        if item.bucket != "queue":
            return None
        assert self._shapes is not None
        return self._format_fast(self._shapes, item.evpid, item.octets)

    def _row(self, entry: Entry) -> bytes:
        row = self._form.row(entry)
        if self._escape and not self._form.safe:
            return text.encode(text.escape(row[:-1])) + b"\n"
        return text.encode(row)

    def _consume(self, kind: bytes, step: bytes) -> None:
        if kind == WARNING:
            self._warn(text.decode(step))
            return
        count, _, rows = step.partition(b" ")
        if rows:
            self._show(rows)
        self._count(int(count))
        self._flush_in_time()

    def _count(self, objects: int) -> None:
        """Take note of objects; make the patterns once they pay, show progress once it is slow."""
        self._seen += objects
        if self._fast and self._shapes is None and self._seen >= _SHAPES_FROM:
            from smtpd_core.cli.classic import format_fast
            from smtpd_core.queue.shape import Shapes

            self._format_fast = format_fast
            self._shapes = Shapes()
        output = self._context.output
        if output.error_terminal and not (output.terminal and self._shown):
            self._show_progress()

    def _count_member(self) -> None:
        self._members += 1
        if self._context.output.error_terminal:
            self._show_progress()

    def _show_progress(self) -> None:
        now = time.monotonic()
        late = now - self._started >= _PROGRESS_AFTER
        if late and now - self._progressed >= _PROGRESS_EVERY:
            self._progressed = now
            noun = "envelope" if self._seen == 1 else "envelopes"
            line = f"{self._seen:,} {noun} read"
            if self._members and not self._seen:
                line = f"{self._members:,} files of the archive read"
            self._context.output.progress(line)

    # --- writing

    def _show(self, rows: bytes) -> None:
        """Write rows, with what stands between them and those before, or above the first."""
        output = self._context.output
        output.write(self._separator if self._shown else text.encode(self._form.heading()))
        output.write(rows)
        self._shown = True

    def _flush_in_time(self) -> None:
        now = time.monotonic()
        if now - self._flushed >= _FLUSH_SECONDS:
            self._flushed = now
            self._context.output.flush()

    def _finish(self) -> None:
        self._context.output.write(text.encode(self._form.tail(self._shown)))

    def print_entries(self, entries: Iterable[Entry]) -> None:
        """Print entries in their order."""
        self._context.output.write(text.encode(self._form.head()))
        for entry in entries:
            self._show(self._row(entry))
        self._finish()

    def print_sorted(
        self,
        items: Iterable[Union[Item, Unreadable]],
        by: Callable[[Entry], Any],
        reverse: bool,
        limit: int,
    ) -> None:
        """Print the selected entries among items sorted by a key, then by id; 0 is no limit.

        What is wrong with an entry is said when it is printed.
        """
        self._context.output.write(text.encode(self._form.head()))
        for row, problems in self._sorted(self._found(items), by, reverse, limit):
            for problem in problems:
                self._warn(problem)
            self._show(row)
        self._finish()

    def _sorted(
        self, entries: Iterator[Entry], by: Callable[[Entry], Any], reverse: bool, limit: int
    ) -> Iterator[tuple[bytes, list[str]]]:
        if 0 < limit <= _HEAP_MAX:
            import heapq

            choose = heapq.nlargest if reverse else heapq.nsmallest
            for entry in choose(
                limit, map(_lighten, entries), key=lambda entry: (by(entry), entry.evpid)
            ):
                yield self._row(entry), _problems(entry)
            return
        no_problems: list[str] = []  # one for all: there are many
        rows = [
            (by(entry), entry.evpid, self._row(entry), _problems(entry) or no_problems)
            for entry in entries
        ]
        rows.sort(key=lambda row: row[1], reverse=reverse)  # both are stable
        rows.sort(key=lambda row: row[0], reverse=reverse)
        for _, _, row, problems in rows[:limit] if limit else rows:
            yield row, problems


def _problems(entry: Entry) -> list[str]:
    """Say what is wrong with an entry as it is printed."""
    return [f"{entry.item.path}: listed, but {problem}" for problem in entry.problems]


def _lighten(entry: Entry) -> Entry:
    """Let go of the stored octets of an entry that has to wait for all others."""
    entry.item.octets = b""
    return entry


def _available_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on every system
        return os.cpu_count() or 1
