"""The modules that cheap commands load, each in a fresh process, and what they must not."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parent.parent
_CODE = f"""
import sys
sys.path.insert(0, {str(_ROOT)!r})
from smtpctl import main
status = main()
import os
os.write(2, "\\n".join(sorted(sys.modules)).encode())
sys.exit(status)
"""

# Each costs milliseconds that an operator on a slow machine waits for at every start, or is not
# there at all on a minimal Python. Source: measurements over 3.9 to 3.14.
_COSTLY = frozenset(
    """
    argparse asyncio ast base64 bz2 calendar collections concurrent configparser contextlib
    contextvars copy csv ctypes dataclasses datetime decimal email encodings.idna enum fnmatch
    functools getopt getpass glob gzip hashlib heapq hmac http importlib inspect ipaddress json
    linecache locale logging lzma mmap multiprocessing operator pathlib pickle platform pprint
    queue random re secrets select selectors shlex shutil signal socket ssl statistics string
    stringprep subprocess tarfile tempfile textwrap threading tokenize traceback typing
    unicodedata urllib uuid warnings weakref zipfile
    """.split()  # noqa: SIM905 - a list to read
)


def _bare() -> frozenset[str]:
    """Ask what this Python has loaded before it runs anything, ours or not."""
    code = "import sys, os; os.write(2, '\\n'.join(sys.modules).encode())"
    done = subprocess.run(
        [sys.executable, "-ISBc", code], check=True, capture_output=True, timeout=20
    )
    return frozenset(done.stderr.decode().split())


def _loaded(name: str, arguments: list[str], status: int) -> frozenset[str]:
    """Run a command in a fresh process; give the modules loaded in the end."""
    code = _CODE.replace("status = main()", f"sys.argv[0] = {name!r}; status = main()")
    done = subprocess.run(
        [sys.executable, "-ISBc", code, *arguments], check=False, capture_output=True, timeout=20
    )
    assert done.returncode == status, done.stderr
    return frozenset(done.stderr.decode().split("\n")) - _bare()


def _spool(directory: pathlib.Path) -> str:
    for name in ("queue", "incoming", "offline", "corrupt", "purge", "temporary"):
        (directory / name).mkdir(mode=0o700)
    return str(directory)


@pytest.mark.parametrize(
    ("name", "line", "status"),
    [
        ("smtpctl", "show queue --spool SPOOL", 0),
        ("mailq", "--spool SPOOL --all", 0),
        ("smtpctl", "show queue --format table --spool SPOOL", 0),
        ("smtpctl", "show queue --older 1h --tries +3 --sort age --spool SPOOL", 0),
        ("smtpctl", "--version", 0),
        ("smtpctl", "--help", 0),
        ("smtpctl", "show stats", 1),
        ("smtpctl", "trace imsg", 1),
        ("smtpctl", "pause mta from ::1 for x", 1),
        ("smtpctl", "completion bash", 0),
        ("smtpctl", "bogus", 255),
        ("smtpctl", "--bogus", 2),
        ("sendmail", "-t", 69),
    ],
)
def test_cheap_commands_load_no_costly_module(
    name: str, line: str, status: int, tmp_path: pathlib.Path
) -> None:
    spool = _spool(tmp_path)
    loaded = _loaded(name, line.replace("SPOOL", spool).split(), status)
    roots = loaded | {module.partition(".")[0] for module in loaded}
    assert "smtpd_core.cli.main" in loaded
    assert sorted(_COSTLY & roots) == []


def test_a_command_of_the_daemon_loads_little_of_ours() -> None:
    ours = {m for m in _loaded("smtpctl", ["show", "stats"], 1) if m.startswith("smtpd_core.")}
    assert ours == {
        "smtpd_core.cli",
        "smtpd_core.cli.commands",
        "smtpd_core.cli.context",
        "smtpd_core.cli.grammar",
        "smtpd_core.cli.main",
        "smtpd_core.cli.options",
        "smtpd_core.cli.output",
        "smtpd_core.cli.service",
        "smtpd_core.errors",
        "smtpd_core.ids",
        "smtpd_core.text",
    }


def test_an_empty_listing_loads_neither_help_nor_ciphers(tmp_path: pathlib.Path) -> None:
    loaded = _loaded("smtpctl", ["show", "queue", "--spool", _spool(tmp_path)], 0)
    for module in ("cli.help", "cli.completion", "cli.suggest", "cli.encrypt", "cli.service"):
        assert f"smtpd_core.{module}" not in loaded
    assert "smtpd_core.queue.aesgcm" not in loaded
    assert not any(module.startswith("smtpd_core.tables") for module in loaded)


def test_the_list_would_notice() -> None:
    code = "import json, sys, os; os.write(2, '\\n'.join(sys.modules).encode())"
    done = subprocess.run(
        [sys.executable, "-ISBc", code], check=True, capture_output=True, timeout=20
    )
    assert {"json", "re"} <= set(done.stderr.decode().split()) & _COSTLY
