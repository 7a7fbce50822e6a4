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
    from smtpd_core.cli.listing import Listing
    from smtpd_core.cli.selection import Selection
    from smtpd_core.queue.entries import Entry
    from smtpd_core.queue.sources import Item, Source

_LIMIT_MAX = 10**12


def show_queue(context: Context, arguments: list[str]) -> int:
    """Print one line per envelope, of everything or of one message or envelope.

    What cannot be read is said on standard error and passed over; the exit status then is 1.
    """
    from smtpd_core.cli.listing import Listing

    _refuse_contradictions(context)
    options = context.options
    limit = _limit(context)
    source = context.open_queue()
    listing = Listing(context, source, _format(context), _selection(context))
    buckets = _buckets(context)
    try:
        if options.flag("count") or options.flag("summary"):
            items = _items(context, listing, source, arguments)
            _print_totals(context, listing.entries(items), limit)
        elif _is_walked_in_order(context, arguments):
            if arguments or limit:
                entries = listing.entries(_items(context, listing, source, arguments))
                listing.print_entries(_limited(entries, limit))
            else:
                listing.stream(buckets)
        else:
            from smtpd_core.cli.selection import SORT_KEYS

            by = SORT_KEYS[options.text("sort") or "id"]
            items = _items(context, listing, source, arguments)
            listing.print_sorted(items, by, options.flag("reverse"), limit)
    finally:
        context.output.clear_progress()
    return listing.status


_EXCLUDE = {  # what an option would leave without effect
    "count": ("summary", "format", "sort", "reverse", "limit"),
    "summary": ("format", "sort", "reverse"),
}


def _refuse_contradictions(context: Context) -> None:
    for name, others in _EXCLUDE.items():
        for other in others:
            if context.options.flag(name) and context.options.get(other) is not None:
                raise UsageError(f"--{name} and --{other} exclude each other")


def _is_walked_in_order(context: Context, arguments: list[str]) -> bool:
    """Tell whether the order of the walk is the one asked for: ids rise in each bucket."""
    key = context.options.text("sort")
    in_one = not arguments and len(_buckets(context)) == 1
    return not context.options.flag("reverse") and (key is None or (key == "id" and in_one))


def _items(
    context: Context, listing: Listing, source: Source, arguments: list[str]
) -> Iterator[Union[Item, Unreadable]]:
    """Give all that may be listed: everything in the buckets, or what one selector names."""
    buckets = _buckets(context)
    if not arguments:
        return listing.walk(buckets)
    return _selected(source, ids.Selector.parse(arguments[0]), buckets, listing)


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
    source: Source, selector: ids.Selector, buckets: list[str], listing: Optional[Listing] = None
) -> Iterator[Union[Item, Unreadable]]:
    """Give what belongs to one message or envelope: where it ought to be, or else anywhere."""
    assert selector.msgid is not None
    details = listing is not None and listing.details
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
        items = source.walk(unit, details)
        if listing is not None:
            items = listing.counted(items)
        for item in _matching(items, selector, source.path):
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


def _limited(entries: Iterable[Entry], limit: int) -> Iterable[Entry]:
    if not limit:
        return entries
    # In this order: what is not shown is not read either, and nothing is said about it.
    return (entry for _, entry in zip(range(limit), entries))


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
    for item in _selected(source, selector, _buckets(context)):
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
