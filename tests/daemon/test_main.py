"""What smtpd prints, compared with what OpenSMTPD 7.8 printed; starts that are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from smtpd_core.daemon.main import PROGRAM, run

GOLDEN = Path(__file__).parent.parent / "spools" / "7.8" / "errors-1.golden.json"
CASES = json.loads(GOLDEN.read_text())["smtpd"]
THREE_LINES = """\
listen on 127.0.0.1 port 2525
action "local" maildir
match from any for local action "local"
"""


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case["argv"][1:]))
def test_what_the_original_prints(
    case: dict[str, object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "smtpd.conf"
    config.write_text(THREE_LINES)
    argv = case["argv"]
    assert isinstance(argv, list)
    arguments = argv[1:]
    if "-n" in "".join(arguments) and "-f" not in arguments:  # the case has the usual file
        arguments = [*arguments, "-f", str(config)]
    assert run(arguments) == case["rc"]
    said = capfd.readouterr()
    assert said.out == case["stdout"]
    expected = str(case["stderr"]).replace("OpenSMTPD 7.8.0-portable", PROGRAM)
    if arguments == ["-h"]:  # we have more options
        assert said.err.startswith(expected)
    else:
        assert said.err == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("match from any", ":1: syntax error"),
        ("", ": no rules, nothing to do"),
        ('pki x cert "/nowhere"\n' + THREE_LINES, "smtpd: load_pki_tree: missing key file"),
    ],
)
def test_a_configuration_that_is_refused(
    text: str, line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "smtpd.conf"
    config.write_text(text)
    assert run(["-n", "-f", str(config)]) == 1
    assert line in capfd.readouterr().err


def test_what_does_not_work_yet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "smtpd.conf"
    config.write_text('filter "x" phase connect match rdns "a" disconnect "550 no"\n' + THREE_LINES)
    assert run(["-n", "-f", str(config)]) == 0
    said = capfd.readouterr().err.splitlines()
    assert said[-1] == "configuration OK"
    assert "filters are not supported yet" in said[0]
    assert run(["-d", "-f", str(config), "--spool", str(tmp_path / "spool")]) == 1
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert "filters are not supported yet" in said[0]
    assert not (tmp_path / "spool").exists()


def test_an_address_that_is_not_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "smtpd.conf"
    config.write_text(THREE_LINES.replace("127.0.0.1", "192.0.2.77"))
    users = ["--users", "daemon"] if os.geteuid() == 0 else []
    assert run(["-d", "-f", str(config), "--spool", str(tmp_path / "spool"), *users]) == 1
    assert "smtpd: cannot listen on 192.0.2.77:2525: " in capfd.readouterr().err


def test_the_unit(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["systemd-unit", "-f", "/etc/a b.conf"]) == 0
    unit = capfd.readouterr().out
    assert "Type=notify" in unit
    assert ' smtpd -F -f "/etc/a b.conf"\n' in unit
