"""Carry what a source holds to standard output: read, select, format, in order and as a stream.

The walk of a unit is turned into steps, each an octet that says what it is and its text (see
workers.py): rows of output, a warning about something unreadable, how many envelopes were seen.
What sorts, counts or sums up needs all entries in one process; what streams may be shared by two.
"""

from __future__ import annotations

import os
import time

from smtpd_core import text
from smtpd_core.cli.context import EXIT_FAILURE, EXIT_OK
from smtpd_core.queue.sources import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Optional, Union

    from smtpd_core.cli.classic import Format
    from smtpd_core.cli.context import Context
    from smtpd_core.cli.selection import Selection
    from smtpd_core.queue.entries import Entry
    from smtpd_core.queue.shape import Shapes
    from smtpd_core.queue.sources import Item, Source, Unit

ROWS = b"r"  # text of that many entries, whose number stands before it
WARNING = b"w"
_ROWS_MAX = 64  # entries in one step; the first steps of a unit are smaller, to be seen soon
_SHAPES_FROM = 32  # entries after which making the patterns of shape.py pays
_SHARE_FROM = 1000  # entries after which a second process pays
_SHARE_UNITS = 8  # units that must be left for it
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
        self._seen = 0
        self._status = EXIT_OK
        self._started = self._flushed = self._progressed = time.monotonic()

    @property
    def status(self) -> int:
        """Give the exit status: a failure when anything was unreadable or damaged."""
        return self._status

    # --- reading

    def entries(self, items: Iterable[Union[Item, Unreadable]]) -> Iterator[Entry]:
        """Give the selected entries among items, and warn about what cannot be read."""
        for item in items:
            for found in self._read(item):
                if isinstance(found, str):
                    self._warn(found)
                else:
                    yield found

    def _read(self, item: Union[Item, Unreadable]) -> Iterator[Union[Entry, str]]:
        """Give the selected entries of one item, and warnings as they are printed."""
        if isinstance(item, Unreadable):
            yield f"{item.path}: {item.reason}"
            return
        from smtpd_core.queue.entries import read_entries  # an empty queue needs no parser

        for entry in read_entries(item, self._context.queue_key):
            if isinstance(entry, Unreadable):
                yield f"{entry.path}: {entry.reason}"
            elif self._selection is None or self._selection.accepts(entry):
                for problem in entry.problems:
                    yield f"{item.path}: listed, but {problem}"
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
        self._context.output.write(text.encode(self._form.tail()))

    def _shareable(self, units_left: int) -> bool:
        return (
            self._source.parallel
            and self._form.stateless
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
        wanted = 1
        for item in items:
            line = self._fast_row(item) if self._shapes is not None else None
            if line is not None:
                rows.append(line)
            else:
                for found in self._read(item):
                    if isinstance(found, str):
                        if rows:
                            yield ROWS, b"%d %b" % (len(rows), b"".join(rows))
                            rows.clear()
                        yield WARNING, text.encode(found)
                    else:
                        rows.append(self._row(found))
            if len(rows) >= wanted:
                yield ROWS, b"%d %b" % (len(rows), b"".join(rows))
                rows.clear()
                wanted = min(2 * wanted, _ROWS_MAX)
        if rows:
            yield ROWS, b"%d %b" % (len(rows), b"".join(rows))

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
        self._count(int(count))
        output = self._context.output
        output.write(rows)
        now = time.monotonic()
        if now - self._flushed >= _FLUSH_SECONDS:
            self._flushed = now
            output.flush()

    def _count(self, entries: int) -> None:
        """Take note of entries; make the patterns once they pay, show progress once it is slow."""
        self._seen += entries
        if self._fast and self._shapes is None and self._seen >= _SHAPES_FROM:
            from smtpd_core.cli.classic import format_fast
            from smtpd_core.queue.shape import Shapes

            self._format_fast = format_fast
            self._shapes = Shapes()
        output = self._context.output
        if output.error_terminal and not output.terminal:
            self._show_progress()

    def _show_progress(self) -> None:
        now = time.monotonic()
        late = now - self._started >= _PROGRESS_AFTER
        if late and now - self._progressed >= _PROGRESS_EVERY:
            self._progressed = now
            self._context.output.progress(f"{self._seen:,} envelopes read")

    # --- all at once

    def collect(self, buckets: list[str]) -> Iterator[Entry]:
        """Give all selected entries of the buckets, one by one, for who must see them all."""
        for unit in self._source.units(buckets):
            for entry in self.entries(self._source.walk(unit, self._details)):
                self._seen += 1
                if self._context.output.error_terminal:
                    self._show_progress()
                yield entry

    def print_entries(self, entries: Iterable[Entry]) -> None:
        """Print entries in their order."""
        output = self._context.output
        output.write(text.encode(self._form.head()))
        for entry in entries:
            output.write(self._row(entry))
        output.write(text.encode(self._form.tail()))


def _available_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on every system
        return os.cpu_count() or 1
