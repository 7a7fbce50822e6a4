"""Tables and filters where a statement names them or writes them down; and the `table` statement.

Source: smtpd.conf(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, FrozenSet, List, Optional, Tuple

from smtpd_core.config.draft import Draft, may_be_used
from smtpd_core.config.lexer import ARROW, STRING
from smtpd_core.config.model import ChainFilter, ProgramFilter, Service, Table, TableKind
from smtpd_core.config.tablefile import TableFileError, parse_table_file

if TYPE_CHECKING:
    from smtpd_core.config.tokens import TokenStream

_OPENERS = (STRING, "{", "<")


def table(tokens: TokenStream, draft: Draft) -> None:
    """Read a `table` statement: a file, another backend, or the entries themselves."""
    name = tokens.string()
    source = tokens.optional_string()
    if source is None:
        created = draft.create_table(tokens, name, "static", "")
        tokens.expect("{")
        _fill(tokens, draft, created)
        return
    backend, colon, config = ("static", ":", source)
    if not source.startswith("/"):
        backend, colon, config = source.partition(":")
    if colon and not config.startswith("/"):
        raise tokens.refuse(f"invalid backend parameter for table: {name}")
    backend = "static" if backend == "file" else backend
    created = draft.create_table(tokens, name, backend, config)
    if config or backend == "db":
        _configure(tokens, draft, created)


def table_operand(tokens: TokenStream, draft: Draft) -> Table:
    """Read `<name>`, `{ entries }`, or a word that is a list of one."""
    if tokens.peek() == STRING:
        word = tokens.string()
        return draft.fill_table(tokens, draft.create_anonymous(tokens), [(word, None)])
    if tokens.accept("<"):
        name = tokens.string()
        tokens.expect(">")
        if name not in draft.tables:
            raise tokens.refuse(f"no such table: {name}")
        return draft.tables[name]
    tokens.expect("{")
    tokens.skip_newlines()
    return _fill(tokens, draft, draft.create_anonymous(tokens))


def optional_table(tokens: TokenStream, draft: Draft) -> Optional[Table]:
    """Read a table if one begins here."""
    return table_operand(tokens, draft) if tokens.peek() in _OPENERS else None


def check_use(
    tokens: TokenStream, used: Table, kinds: FrozenSet[TableKind], service: Service, purpose: str
) -> str:
    """Give the table's name if it suits the lookup, refuse the statement if not."""
    if not may_be_used(used, kinds, service):
        raise tokens.refuse(f'table "{used.name}" may not be used for {purpose} lookups')
    return used.name


def filter_operand(tokens: TokenStream, draft: Draft, twice: Optional[str]) -> str:
    """Read a filter's name or a chain in braces, after `filter`; twice refuses a second one."""
    name = tokens.optional_string()
    if twice is not None:
        raise tokens.refuse(twice)
    if name is None:
        return filter_chain(tokens, draft, draft.chain_name())
    if name not in draft.filters:
        raise tokens.refuse(f"no filter exist with that name: {name}")
    return name


def filter_chain(tokens: TokenStream, draft: Draft, name: str) -> str:
    """Read the members of a chain in braces, and add the chain under that name."""
    tokens.expect("{")
    members: List[str] = []
    programs: List[str] = []

    def member() -> None:
        word = tokens.string()
        found = draft.filters.get(word)
        if found is None:
            raise tokens.refuse(f"no filter exist with that name: {word}")
        if isinstance(found, ChainFilter):
            raise tokens.refuse(f"no filter chain allowed within a filter chain: {word}")
        if word in members:
            raise tokens.refuse(f"no filter allowed twice within a filter chain: {word}")
        if isinstance(found, ProgramFilter):
            if found.processor in programs:
                raise tokens.refuse(
                    f"no proc allowed twice within a filter chain: {found.processor}"
                )
            programs.append(found.processor)
        members.append(word)

    tokens.items(member)
    draft.filters[name] = ChainFilter(name, tokens.statement, tuple(members))
    return name


def _fill(tokens: TokenStream, draft: Draft, created: Table) -> Table:
    """Read the entries of a table up to its closing brace: all pairs, or all single.

    What was read before an error stays in the table, so that its uses are not blamed too.
    """
    entries: List[Tuple[str, Optional[str]]] = []

    def entry() -> None:
        key = tokens.string()
        if not entries or entries[0][1] is not None:
            paired = tokens.peek() in ("=", ARROW)
            if paired or entries:
                if not paired:
                    raise tokens.syntax_error()
                tokens.take()
                entries.append((key, tokens.string()))
                return
        entries.append((key, None))

    try:
        tokens.items(entry)
    finally:
        filled = draft.fill_table(tokens, created, entries)
    return filled


def _configure(tokens: TokenStream, draft: Draft, created: Table) -> None:
    """Look at the file of a table, as far as its backend is ours."""
    reason = ""
    try:
        if created.backend == "getpwnam":
            reason = "getpwnam takes no file"
        elif created.backend == "static":
            found = parse_table_file(draft.read(created.config))
            draft.tables[created.name] = Table(
                created.name, created.where, config=created.config, kind=found.kind
            )
        elif created.backend == "db":
            draft.read(created.config)
    except (OSError, ValueError) as error:
        reason = f"{created.config}: {_describe(error)}"
    if reason:
        raise tokens.refuse(
            f"invalid configuration file {created.config} for table {created.name}", reason
        )


def _describe(error: Exception) -> str:
    if isinstance(error, TableFileError):
        return f"line {error}"
    return (isinstance(error, OSError) and error.strerror) or str(error)
