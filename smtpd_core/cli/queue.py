"""Commands that look at the queue: show queue, show envelope, show message."""

from __future__ import annotations

from smtpd_core import ids, text
from smtpd_core.cli.context import EXIT_FAILURE, EXIT_OK
from smtpd_core.errors import AccessError, UsageError
from smtpd_core.queue.layout import BUCKETS
from smtpd_core.queue.sources import Unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Optional, Union

    from smtpd_core.cli.classic import Format
    from smtpd_core.cli.context import Context
    from smtpd_core.cli.selection import Selection
    from smtpd_core.queue.entries import Entry
    from smtpd_core.queue.sources import Item, Source

_LIMIT_MAX = 10**12


def show_queue(context: Context, arguments: list[str]) -> int:
    """Print one line per envelope, of everything or of one message or envelope.

    What cannot be read is said on standard error and passed over; the exit status then is 1.
    """
    from smtpd_core.cli.listing import Listing

    options = context.options
    form = _format(context)
    limit = _limit(context)
    listing_wanted = not (options.flag("count") or options.flag("summary"))
    sorted_wanted = options.text("sort") is not None or options.flag("reverse")
    if options.flag("count") and options.flag("summary"):
        raise UsageError("--count and --summary exclude each other")
    source = context.open_queue()
    listing = Listing(context, source, form, _selection(context))
    buckets = _buckets(context)
    if arguments:
        selector = ids.Selector.parse(arguments[0])
        items = _selected(source, selector, buckets, form.details)
        entries = listing.entries(items)
    elif listing_wanted and not sorted_wanted and not limit:
        listing.stream(buckets)
        return listing.status
    else:
        entries = listing.collect(buckets)
    if listing_wanted:
        listing.print_entries(_ordered(context, entries, limit))
    else:
        _print_totals(context, entries, limit)
    return listing.status


def _selection(context: Context) -> Optional[Selection]:
    """Read the options of selection; None when there are none."""
    from smtpd_core.cli.options import OPTIONS, SELECT

    wanted = [option.name for option in OPTIONS.values() if option.group == SELECT]
    if not any(map(context.options.texts, wanted)):
        return None
    from smtpd_core.cli.selection import Selection

    return Selection(context.options, context.now)


def _format(context: Context) -> Format:
    name = context.options.text("format") or "classic"
    if name == "classic":
        from smtpd_core.cli.classic import Classic

        return Classic()
    from smtpd_core.cli import formats

    if name == "table":
        output = context.output
        return formats.Table(output.columns(), context.now, output.colour)
    made: dict[str, Format] = {
        "json": formats.Json(),
        "json-pretty": formats.JsonPretty(),
        "csv": formats.Csv(),
    }
    return made[name]


def _limit(context: Context) -> int:
    given = context.options.text("limit")
    if given is None:
        return 0
    if not given.isascii() or not given.isdigit() or not 0 < int(given[:20]) <= _LIMIT_MAX:
        raise UsageError(f"--limit: {given!r} is not a number above 0")
    return int(given)


def _buckets(context: Context) -> list[str]:
    if context.options.flag("all"):
        return list(BUCKETS)
    wanted = context.options.texts("bucket") or ["queue"]
    return [bucket for bucket in BUCKETS if bucket in wanted]


def _selected(
    source: Source, selector: ids.Selector, buckets: list[str], details: bool
) -> Iterator[Union[Item, Unreadable]]:
    """Give what belongs to one message or envelope: where it ought to be, or else anywhere."""
    assert selector.msgid is not None
    rest = list(buckets)
    told: set[str] = set()
    if "queue" in rest:
        found = False
        for item in _matching(source.walk_message(selector.msgid, details), selector, source.path):
            told.add(item.path)
            found = found or not isinstance(item, Unreadable)
            yield item
        if found:
            rest.remove("queue")
    for unit in source.units(rest):
        for item in _matching(source.walk(unit, details), selector, source.path):
            if item.path not in told:
                yield item


def _matching(
    items: Iterable[Union[Item, Unreadable]], selector: ids.Selector, path: str
) -> Iterator[Union[Item, Unreadable]]:
    """Choose what was asked for, and what cannot be read and may be it."""
    assert selector.msgid is not None
    name = ids.format_msgid(selector.msgid)
    for item in items:
        if isinstance(item, Unreadable):
            if name in item.path[len(path) :] or item.path == path:  # all of an archive
                yield item
        elif selector.matches(item.evpid):
            yield item


def _ordered(context: Context, entries: Iterator[Entry], limit: int) -> Iterable[Entry]:
    key = context.options.text("sort")
    ordered: Iterable[Entry] = entries
    if key is not None or context.options.flag("reverse"):
        from smtpd_core.cli.selection import SORT_KEYS

        by = SORT_KEYS[key or "id"]
        ordered = sorted(
            map(_lighten, entries),
            key=lambda entry: (by(entry), entry.evpid),
            reverse=context.options.flag("reverse"),
        )
    if not limit:
        return ordered
    # In this order: what is not shown is not read either, and nothing is said about it.
    return (entry for _, entry in zip(range(limit), ordered))


def _lighten(entry: Entry) -> Entry:
    """Let go of the stored octets of an entry that has to wait for all others."""
    entry.item.octets = b""
    return entry


def _print_totals(context: Context, entries: Iterable[Entry], limit: int) -> None:
    output = context.output
    if context.options.flag("count"):
        output.line(str(sum(1 for _ in entries)))
        return
    from smtpd_core.cli.summary import Summary

    summary = Summary(context.now)
    for entry in entries:
        summary.add(entry)
    output.write(text.encode(summary.format(output.columns(), limit)))


def show_envelope(context: Context, arguments: list[str]) -> int:
    """Print the text of one envelope, unwrapped but otherwise as it is stored.

    What can be read of a damaged one is printed; the exit status then is 1.
    """
    from smtpd_core.queue.codec import CodecError
    from smtpd_core.queue.entries import unwrap

    selector = ids.Selector(evpid=ids.parse_evpid(arguments[0]))
    source = context.open_queue()
    status = EXIT_FAILURE
    shown = False
    for item in _selected(source, selector, _buckets(context), details=False):
        if isinstance(item, Unreadable):
            context.warn(f"{item.path}: {item.reason}")
            shown = shown or item.path.endswith(ids.format_evpid(selector.evpid or 0))
            continue
        try:
            octets, _, wrong = unwrap(item.octets, context.queue_key)
        except CodecError as error:
            raise AccessError(f"{item.path}: {error}") from None
        _write(context, octets)
        shown = True
        status = EXIT_FAILURE if wrong else EXIT_OK
        for note in [*item.notes, wrong]:
            if note:
                context.warn(f"{item.path}: {note}")
        break
    if not shown:
        raise AccessError(f"{arguments[0]}: no such envelope in {source.path}")
    return status


def show_message(context: Context, arguments: list[str]) -> int:
    """Print a message, octet for octet as it was received.

    What can be read of a damaged one is printed; the exit status then is 1.
    """
    from smtpd_core.queue import codec

    selector = ids.Selector.parse(arguments[0])
    assert selector.msgid is not None
    source = context.open_queue()
    body = source.open_message(selector.msgid, _buckets(context))
    if body is None:
        raise AccessError(f"{arguments[0]}: no such message in {source.path}")
    try:
        key = context.queue_key() if codec.detect(body.peek()) == codec.ENCRYPTED else None
        try:
            pieces, _ = codec.decode_message(body, key)
            for piece in pieces:
                _write(context, piece)
        except codec.CodecError as error:
            context.warn(f"{body.path}: {error}")
            return EXIT_FAILURE
    finally:
        body.close()
    return EXIT_OK


def _write(context: Context, octets: bytes) -> None:
    output = context.output
    if output.terminal:
        octets = text.encode(text.escape_lines(text.decode(octets)))
    output.write(octets)
