"""How many envelopes wait for which domain, and for how long: the shape of Postfix's qshape."""

from __future__ import annotations

from smtpd_core import text
from smtpd_core.cli.selection import domain_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from smtpd_core.queue.entries import Entry

_MINUTES = (5, 10, 20, 40, 80, 160, 320, 640, 1280)
_OLDER = f"{_MINUTES[-1]}+"
# What is left of the age columns where there is no room for all: each holds those left out
# before it.
_CHOICES = (_MINUTES, _MINUTES[::2], _MINUTES[::4], _MINUTES[::8], _MINUTES[-1:])
_DOMAIN_LEAST = 16
_DOMAIN_NARROW = 12  # where there is no room for all columns
_DOMAINS_MAX = 100_000  # counted apart; a spool made to hurt has more, they are counted as one
_OTHERS = "(others)"
_BAR_LEAST = 10
_BAR_MOST = 40


class Summary:
    """Counts per destination domain and age; feed it entries, then format it."""

    __slots__ = ("_counts", "_now")

    def __init__(self, now: int) -> None:
        """Count ages at `now`."""
        self._now = now
        self._counts: dict[str, list[int]] = {}

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        domain = domain_of(entry.envelope.dest or entry.envelope.rcpt) or "(no domain)"
        if domain not in self._counts and len(self._counts) >= _DOMAINS_MAX:
            domain = _OTHERS
        counts = self._counts.setdefault(domain, [0] * (len(_MINUTES) + 2))
        minutes = (self._now - entry.envelope.ctime) // 60
        counts[0] += 1
        counts[1 + sum(1 for limit in _MINUTES if minutes >= limit)] += 1

    def format(self, columns: int, limit: int) -> str:
        """Draw the counts as aligned columns, most envelopes first, with a bar at the end.

        `limit` is how many domains are shown, 0 for all.
        """
        if not self._counts:
            return ""
        rows = sorted(self._counts.items(), key=lambda row: (-row[1][0], row[0]))
        total = [sum(column) for column in zip(*self._counts.values())]
        shown = rows[:limit] if limit else rows
        left_out = len(rows) - len(shown)
        names = [text.escape(name) for name, _ in shown]
        limits, headings, bar = _choose(columns, len(str(max(total))))
        cells = [max(len(str(max(total))), len(heading)) for heading in headings]
        numbers = sum(cells) + len(cells)
        room = columns - numbers - bar
        least = min(_DOMAIN_LEAST, max(room, _DOMAIN_NARROW))
        name_width = max(least, min(room, max(map(len, [*names, "TOTAL"]))))
        bar_width = max(_BAR_LEAST, min(_BAR_MOST, columns - numbers - name_width - 2))
        total = _merge(total, limits)
        lines = [_line("", headings, name_width, cells), _line("TOTAL", total, name_width, cells)]
        for name, (_, counts) in zip(names, shown):
            line = _line(name, _merge(counts, limits), name_width, cells)
            drawn = "#" * max(1, round(bar_width * counts[0] / total[0]))
            lines.append(f"{line}  {drawn}" if bar else line)
        if left_out:
            lines.append(f"({left_out} more domains)")
        return "\n".join(lines) + "\n"


def _choose(columns: int, width: int) -> tuple[tuple[int, ...], tuple[str, ...], int]:
    """Choose what fits: the limits of the age columns, all headings, the room for the bar.

    The bar goes first, then every second age column, at last all of them.
    """
    for limits in _CHOICES:
        headings = ("T", *map(str, limits), _OLDER)
        least = _DOMAIN_LEAST if limits == _MINUTES else _DOMAIN_NARROW
        numbers = sum(1 + max(width, len(heading)) for heading in headings)
        for bar in (_BAR_LEAST + 2, 0):
            if numbers + least + bar <= columns:
                return limits, headings, bar
    return (), ("T",), 0


def _merge(counts: list[int], limits: tuple[int, ...]) -> list[int]:
    """Add the counts of age columns that are left out to the next one that is not."""
    merged = [counts[0]]
    waiting = 0
    for minutes, count in zip(_MINUTES, counts[1:]):
        waiting += count
        if minutes in limits:
            merged.append(waiting)
            waiting = 0
    return [*merged, counts[-1]] if limits else merged


def _line(name: str, values: list[int] | tuple[str, ...], name_width: int, cells: list[int]) -> str:
    if len(name) > name_width:  # the end of a domain says most
        name = "+" + name[1 - name_width :]
    return f"{name:>{name_width}}" + "".join(
        [f" {value:>{cell}}" for value, cell in zip(values, cells)]
    )
