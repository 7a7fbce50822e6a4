"""Who imports whom, and what pure modules can reach, from the syntax trees."""

from __future__ import annotations

import ast
import pathlib
from typing import NamedTuple

import pytest

_ROOT = pathlib.Path(__file__).parent.parent
_PACKAGE = "smtpd_core"

# A package imports from the columns to its left, never from another one of its own column.
_COLUMNS = (
    ("errors",),
    ("version",),
    ("ids", "text", "units", "ask", "cursor"),
    ("mail",),
    ("smtp", "dns"),
    ("queue",),
    ("config",),
    ("tables", "routing"),
    ("ipc", "filters", "net"),
    ("listener", "mta", "mda"),
    ("daemon", "cli"),
)
_COLUMN = {name: number for number, column in enumerate(_COLUMNS) for name in column}

# Nothing of these reaches a file, a socket, the clock, chance, a log or another process. A name
# ending in a dot is a whole package, but for the exceptions.
_PURE = (
    "errors",
    "ids",
    "text",
    "units",
    "ask",
    "cursor",
    "mail.",
    "smtp.",
    "dns.",
    "queue.",
    "config.",
    "routing.",
    "tables.lines",
    "tables.matching",
    "tables.posix",
    "ipc.fields",
    "ipc.frames",
    "ipc.messages",
    "filters.protocol",
    "filters.chain",
    "mta.limits",
    "mda.variables",
)
# What the noun `sources` was split into acts: it opens and reads, or runs a program that unpacks.
# Of the writer, disk acts, and what spool was split into acts through it.
_ACTING = {
    *(f"queue.{part}" for part in ("disk", "setup", "storing", "transaction", "replacement")),
    *("queue.removal", "queue.recovery"),
    "queue.access",
    "queue.archive",
    "queue.directory",
    "queue.file",
    "queue.opening",
    "queue.spool",
    "queue.unpack",
    "queue.unpack_program",
    "queue.walk",
}
_EFFECTS = frozenset(
    """
    os posix io socket ssl select selectors asyncio time datetime random secrets uuid logging
    syslog subprocess multiprocessing threading signal fcntl tempfile shutil pathlib glob pwd grp
    termios pty mmap http urllib smtplib
    """.split()  # noqa: SIM905 - a list to read
)
# Of the modules that have sockets, or the clock, what only computes.
_CALENDAR_NAMES = {"gmtime"}
_ADDRESS_NAMES = {"inet_pton", "inet_ntop", "AF_INET", "AF_INET6"}
_EFFECT_CALLS = frozenset(("open", "input", "print", "exec", "eval", "__import__", "breakpoint"))

# The rescue path: what it may import before anything is asked of it.
_RESCUE = ("errors", "ids", "text", "units", "version", "queue.", "cli.")
_CHEAP = {"__future__", "sys", "os", "struct", "time", "stat", "errno", "zlib", "_socket"}
_CHEAP.add("_operator")  # built in: what hmac.compare_digest is made of
_CHEAP.update(("bisect", "heapq"))  # a tenth of a millisecond; on python3-minimal too
# What lies in these packages for the daemon alone, and no command of the rescue path loads.
_FOR_THE_DAEMON = {"queue.scheduler", "queue.bounce"}


class Import(NamedTuple):
    """One import: the module named, the line, and whether it runs with the module."""

    module: str
    line: int
    at_top: bool


class Module(NamedTuple):
    """One source file: its name below the package, and its tree."""

    name: str
    tree: ast.Module


def _modules() -> list[Module]:
    base = _ROOT / _PACKAGE
    return [
        Module(
            ".".join(path.relative_to(base).with_suffix("").parts),
            ast.parse(path.read_text(), str(path)),
        )
        for path in sorted(base.rglob("*.py"))
        if path.name != "__init__.py"
    ]


_MODULES = _modules()
_NAMES = {module.name for module in _MODULES}


def _is_typing_only(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def _walk(body: list[ast.stmt], at_top: bool = True) -> list[Import]:
    """Collect the imports that can run: those for the type checker alone are left out."""
    found: list[Import] = []
    for node in body:
        if _is_typing_only(node):
            assert isinstance(node, ast.If)
            found += _walk(node.orelse, at_top)
        elif isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, at_top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            found += [
                Import(_target(node.module or "", alias.name), node.lineno, at_top)
                for alias in node.names
            ]
        else:
            inside = at_top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for field in ("body", "orelse", "finalbody"):
                found += _walk(getattr(node, field, []), inside)
            for handler in getattr(node, "handlers", []):
                found += _walk(handler.body, inside)
    return found


def _target(module: str, name: str) -> str:
    """Name the module that `from module import name` loads: a submodule, or the module."""
    below = f"{module}.{name}".partition(f"{_PACKAGE}.")[2]
    return f"{module}.{name}" if below in _NAMES else module


def _imports(module: Module) -> list[Import]:
    return _walk(module.tree.body)


def _own(module: str) -> str:
    """Give the name below our package, empty for other people's modules."""
    return module.partition(f"{_PACKAGE}.")[2] if module.startswith(f"{_PACKAGE}.") else ""


def _belongs(name: str, to: tuple[str, ...]) -> bool:
    return any(name.startswith(one) if one.endswith(".") else name == one for one in to)


def _ids(modules: list[Module]) -> list[str]:
    return [module.name for module in modules]


@pytest.mark.parametrize("module", _MODULES, ids=_ids(_MODULES))
def test_imports_go_to_the_left(module: Module) -> None:
    package = module.name.partition(".")[0]
    assert package in _COLUMN, f"{package} has no column"
    for found in _imports(module):
        other = _own(found.module).partition(".")[0]
        if other and other != package:
            assert _COLUMN[other] < _COLUMN[package], f"line {found.line}: {found.module}"


@pytest.mark.parametrize("module", _MODULES, ids=_ids(_MODULES))
def test_depth_is_two(module: Module) -> None:
    assert module.name.count(".") <= 1


def test_package_files_are_empty() -> None:
    for path in (_ROOT / _PACKAGE).rglob("__init__.py"):
        assert path.read_text() == "", path


_PURE_MODULES = [m for m in _MODULES if _belongs(m.name, _PURE) and m.name not in _ACTING]


@pytest.mark.parametrize("module", _PURE_MODULES, ids=_ids(_PURE_MODULES))
def test_pure_modules_reach_nothing(module: Module) -> None:
    for found in _imports(module):
        computes = found.module == "time"  # below: only its calendar
        effect = found.module.partition(".")[0] in _EFFECTS and not computes
        assert not effect, f"line {found.line}: {found.module}"
        assert found.module != "_socket" or not found.at_top, f"line {found.line}: import it late"
        own = _own(found.module)
        assert own not in _ACTING, f"line {found.line}: {found.module}"
        assert not own or _belongs(own, _PURE), f"line {found.line}: {found.module}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in _EFFECT_CALLS, f"line {node.lineno}: {node.func.id}()"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = {"_socket": _ADDRESS_NAMES, "time": _CALENDAR_NAMES}.get(node.value.id)
            harmless = names is None or node.attr in names
            assert harmless, f"line {node.lineno}: {node.value.id}.{node.attr}"


_RESCUE_MODULES = [
    m for m in _MODULES if _belongs(m.name, _RESCUE) and m.name not in _FOR_THE_DAEMON
]


@pytest.mark.parametrize("module", _RESCUE_MODULES, ids=_ids(_RESCUE_MODULES))
def test_the_rescue_path_begins_with_cheap_imports(module: Module) -> None:
    for found in _imports(module):
        ours = found.module == _PACKAGE or _own(found.module)
        assert not found.at_top or ours or found.module in _CHEAP, (
            f"line {found.line}: {found.module}"
        )


@pytest.mark.parametrize("module", _RESCUE_MODULES, ids=_ids(_RESCUE_MODULES))
def test_annotations_are_never_evaluated(module: Module) -> None:
    first = [n for n in module.tree.body if isinstance(n, ast.ImportFrom)][:1]
    assert [node.module for node in first] == ["__future__"]


def test_only_the_output_module_prints() -> None:
    for module in _MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{module.name}, line {node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                standard = node.value.id == "sys" and node.attr in ("stdout", "stderr")
                assert not standard or module.name == "cli.output", module.name


def test_nothing_is_imported_by_a_computed_name_but_by_the_table() -> None:
    for module in _MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name) and node.id == "__import__":
                assert module.name == "cli.commands", module.name
        roots = {found.module.partition(".")[0] for found in _imports(module)}
        assert "importlib" not in roots, module.name


def _imports_of(source: str) -> list[Import]:
    return _walk(ast.parse(source).body)


def test_the_reading_of_imports() -> None:
    source = """
from smtpd_core import ids
from smtpd_core.cli.options import OPTIONS
TYPE_CHECKING = False
if TYPE_CHECKING:
    import typing
else:
    import array
try:
    import zlib
except ImportError:
    import bz2
def late():
    import json
    for _ in ():
        with x:
            import ssl
"""
    assert [(found.module, found.at_top) for found in _imports_of(source)] == [
        ("smtpd_core.ids", True),
        ("smtpd_core.cli.options", True),
        ("array", True),
        ("zlib", True),
        ("bz2", True),
        ("json", False),
        ("ssl", False),
    ]
    with pytest.raises(AssertionError, match="relative"):
        _imports_of("from . import ids")
