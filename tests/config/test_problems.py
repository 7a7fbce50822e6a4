"""How problems read."""

from __future__ import annotations

from smtpd_core.config.problems import ConfigError, Place, Problem
from smtpd_core.errors import FormatError


def test_a_problem_tells_file_and_line() -> None:
    assert str(Problem(Place("a", 3), "no")) == "a:3: no"
    assert str(Problem(Place("a", 0), "no", detail="why")) == "a: no"


def test_an_error_tells_all_problems() -> None:
    problems = (Problem(Place("a", 1), "b"), Problem(Place("a", 2), "c"))
    error = ConfigError(problems, warnings=problems[:1])
    assert str(error) == "a:1: b\na:2: c"
    assert (error.problems, error.warnings) == (problems, problems[:1])
    assert isinstance(error, FormatError)
