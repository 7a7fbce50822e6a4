"""What the tests of the configuration share: reading a text with files out of a dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional

import pytest

from smtpd_core.config.grammar import parse_config
from smtpd_core.config.problems import ConfigError

if TYPE_CHECKING:
    from smtpd_core.config.draft import Machine
    from smtpd_core.config.model import Config

NAME = "smtpd.conf"

# Enough that a statement under test is the only thing that can be wrong.
ENDING = "\nmatch for any reject\n"


def reader(files: Mapping[str, bytes]) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return files[path]

    return read


@pytest.fixture
def parse() -> Callable[..., Config]:
    """Read a text, with a rule added after it."""

    def run(
        text: str,
        files: Optional[Mapping[str, bytes]] = None,
        macros: Optional[Dict[str, str]] = None,
        machine: Optional[Machine] = None,
    ) -> Config:
        return parse_config(text + ENDING, NAME, reader(files or {}), macros, machine)

    return run


@pytest.fixture
def refused(parse: Callable[..., Config]) -> Callable[..., List[str]]:
    """Read a text that is refused, with a rule added after it; give `line: text` for each."""

    def run(text: str, **context: object) -> List[str]:
        with pytest.raises(ConfigError) as caught:
            parse(text, **context)
        assert str(caught.value) == "\n".join(map(str, caught.value.problems))
        return [f"{problem.where.line}: {problem.text}" for problem in caught.value.problems]

    return run
