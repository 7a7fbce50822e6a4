from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from smtpd_core.cli import commands
from smtpd_core.cli.main import run
from smtpd_core.cli.options import OPTIONS

_SHELLS = ("bash", "zsh", "fish")
_QUERY = {
    "bash": """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_smtpctl
printf '%s\\n' "${COMPREPLY[@]}"
""",
    # What the completion system of zsh would do, as far as the script asks it to.
    "zsh": """
compdef() { }
source $1; shift
words=("$@") CURRENT=$# PREFIX=${@[-1]} IPREFIX=
compset() { [[ $PREFIX == --*=* ]] || return 1; IPREFIX=${PREFIX%%=*}=; PREFIX=${PREFIX#*=} }
offer() { local word; for word; do [[ $word == $PREFIX* ]] && print -r -- $word; done; true }
compadd() { shift; offer "$@" }
_files() { print FILES }
_message() { }
_describe() { local name=$@[-1] item; for item in ${(P)name}; do offer ${item%%:*}; done }
_smtpctl
""",
    "fish": """
source $argv[1]
for word in (complete -C (string join ' ' -- $argv[2..-1]))
    string replace -r '\\t.*' '' -- $word
end
true
""",
}


def _installed(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not here")
    return path


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Write the three scripts into files."""
    directory = tmp_path_factory.mktemp("completion")
    paths = {}
    for shell in _SHELLS:
        paths[shell] = directory / shell
        with paths[shell].open("wb") as file:
            subprocess.run(
                ["python3", "-SB", "smtpctl.py", "completion", shell],
                cwd=pathlib.Path(__file__).parents[2],
                stdout=file,
                check=True,
                timeout=20,
            )
    return paths


def _complete(shell: str, script: pathlib.Path, line: str) -> list[str]:
    command = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}[shell]
    name = ["query"] if shell != "fish" else []
    done = subprocess.run(
        [_installed(shell), *command, _QUERY[shell], *name, str(script), *line.split(" ")],
        capture_output=True,
        check=True,
        timeout=20,
        env={"PATH": "/usr/bin:/bin", "HOME": str(script.parent), "TERM": "dumb"},
    )
    assert done.stderr == b""
    return [word for word in done.stdout.decode().splitlines() if word]


@pytest.mark.parametrize("shell", _SHELLS)
def test_the_shell_can_read_it(shell: str, scripts: dict[str, pathlib.Path]) -> None:
    done = subprocess.run(
        [_installed(shell), "-n", str(scripts[shell])], capture_output=True, check=False, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("shell", _SHELLS)
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("smtpctl sho", ["show"]),
        ("smtpctl show q", ["queue"]),
        ("smtpctl.pyz show h", ["hosts", "hoststats"]),
        ("smtpctl help sh", ["show"]),
        ("smtpctl help show q", ["queue"]),
        ("smtpctl --spool /x show q", ["queue"]),
        ("smtpctl --all show --bucket purge q", ["queue"]),
        ("smtpctl pause ", ["envelope", "mda", "mta", "smtp"]),
        ("smtpctl pause mta from 192.0.2.1 ", ["for"]),
        ("smtpctl pause envelope ", ["all"]),
        ("smtpctl trace s", ["scheduler", "smtp", "stat"]),
        ("smtpctl profile ", ["imsg", "queue"]),
        ("smtpctl completion ", ["bash", "fish", "zsh"]),
        ("smtpctl show queue --format js", ["json", "json-pretty"]),
        ("smtpctl show queue --type ", ["bounce", "mda", "mta"]),
        ("smtpctl show queue --so", ["--sort"]),
        ("smtpctl show stats --so", []),
        ("smtpctl show stats --v", ["--version"]),
        ("smtpctl encrypt --s", ["--scheme"]),
        ("mailq --k", ["--key-file"]),
        ("mailq --format t", ["table"]),
        ("smtpctl show queue --sender ", []),
        ("smtpctl show stats ", []),
        ("smtpctl nothing ", []),
    ],
)
def test_words_options_and_values(
    shell: str, line: str, expected: list[str], scripts: dict[str, pathlib.Path]
) -> None:
    assert sorted(_complete(shell, scripts[shell], line)) == expected


@pytest.mark.parametrize("shell", _SHELLS)
def test_the_first_word(shell: str, scripts: dict[str, pathlib.Path]) -> None:
    first = sorted({pattern.split()[0] for pattern, _ in commands.COMMANDS})
    assert sorted(_complete(shell, scripts[shell], "smtpctl ")) == first


@pytest.mark.parametrize(
    ("shell", "line", "expected"),
    [  # bash makes a word of its own of `=`; the others complete the whole
        ("bash", "smtpctl show queue --format = js", ["json", "json-pretty"]),
        ("bash", "smtpctl show queue --type =", ["bounce", "mda", "mta"]),
        ("bash", "smtpctl --format = json show q", ["queue"]),
        ("zsh", "smtpctl show queue --format=js", ["json", "json-pretty"]),
        ("fish", "smtpctl show queue --format=js", ["--format=json", "--format=json-pretty"]),
        ("zsh", "smtpctl show queue --spool ", ["FILES"]),
        ("bash", "smtpctl show queue --spool /bi", ["/bin"]),
        ("bash", "smtpctl show queue --key-file = /bi", ["/bin"]),
        ("bash", "smtpctl encrypt -- --s", []),
        ("zsh", "smtpctl encrypt -- --s", []),
    ],
)
def test_spellings_of_one_shell(
    shell: str, line: str, expected: list[str], scripts: dict[str, pathlib.Path]
) -> None:
    assert sorted(_complete(shell, scripts[shell], line)) == expected


@pytest.mark.parametrize("shell", _SHELLS)
def test_every_word_and_option_is_there(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("smtpctl", ["completion", shell]) == 0
    script = capfd.readouterr().out
    for pattern, _ in commands.COMMANDS:
        for word in pattern.split():
            assert word[0] in "<." or word in script
    for option in OPTIONS.values():
        assert (f"-l {option.name} " if shell == "fish" else f"--{option.name}") in script
        assert all(choice in script for choice in option.choices)
    for program in ("smtpctl", "smtpctl.pyz", "mailq"):
        assert program in script
    assert "@" not in script.replace("$@", "")
