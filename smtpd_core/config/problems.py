"""What is wrong with a configuration, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Tuple

from smtpd_core.errors import FormatError


class Place(NamedTuple):
    """A line of a configuration file; line 0 stands for the file as a whole."""

    file: str
    line: int


@dataclass(frozen=True)
class Problem:
    """One remark about the configuration, in the words of the original where it has any.

    detail is what the original prints on a line of its own before it: why a file was not read.
    """

    where: Place
    text: str
    detail: str = ""
    fatal: bool = False  # the original stops reading here

    def __str__(self) -> str:
        file, line = self.where
        return f"{file}:{line}: {self.text}" if line else f"{file}: {self.text}"


class ConfigError(FormatError):
    """A configuration that is refused; problems holds every reason, in reading order."""

    def __init__(self, problems: Tuple[Problem, ...], warnings: Tuple[Problem, ...] = ()) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.warnings = warnings
