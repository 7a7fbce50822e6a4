from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from smtpd_core.cli.context import Context
from smtpd_core.cli.options import Options
from smtpd_core.cli.output import Output
from smtpd_core.cli.queuekey import ENVIRONMENT, is_repeatable, load_key
from smtpd_core.errors import AccessError
from smtpd_core.queue.codec import decode_envelope, encode, parse_key

if TYPE_CHECKING:
    import pathlib

KEY = b"0123456789abcdef0123456789abcdef"
SEALED = encode(b"text\n", False, parse_key(KEY), b"i" * 12)


def context(key_file: object = None, said: str = "", given: bytes = b"") -> Context:
    options = Options({} if key_file is None else {"key-file": str(key_file)})
    made = Context(Output("smtpctl", {}), options, {ENVIRONMENT: said} if said else {}, 0)
    with tempfile.TemporaryFile() as stdin:
        stdin.write(given)
        stdin.seek(0)
        made.stdin_fd = os.dup(stdin.fileno())
    return made


def opens(made: Context) -> bool:
    key = load_key(made)
    return key is not None and decode_envelope(SEALED, key, 99)[0] == b"text\n"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_from_a_file(end: bytes, tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").write_bytes(KEY + end)
    made = context(tmp_path / "key")
    assert opens(made)
    assert is_repeatable(made)


def test_from_standard_input() -> None:
    made = context("-", given=KEY + b"\n")
    assert opens(made)
    assert not is_repeatable(made)


def test_from_the_environment() -> None:
    made = context(said=KEY.decode())
    assert opens(made)
    assert is_repeatable(made)


def test_file_comes_before_the_environment(tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").write_bytes(b"x" * 32)
    assert load_key(context(tmp_path / "key", said=KEY.decode())) is not None
    with pytest.raises(AccessError, match="No such file"):
        load_key(context(tmp_path / "nowhere", said=KEY.decode()))


def test_nobody_to_ask() -> None:
    assert load_key(context()) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "must be 32 octets, this one has 0"),
        (b"secret", "must be 32 octets, this one has 6"),
        (KEY + b"\n\n", "must be 32 octets, this one has 33"),
        (b"s" * 10_000, "must be 32 octets, this one has"),
    ],
)
def test_keys_that_are_none_are_not_shown(
    content: bytes, reason: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(AccessError, match=reason) as refused:
        load_key(context(tmp_path / "key"))
    assert str(tmp_path / "key") in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "sss" not in str(refused.value)
    if content:
        with pytest.raises(AccessError, match=f"{ENVIRONMENT}: .*must be 32 octets"):
            load_key(context(said=content.decode()))


def test_files_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    with pytest.raises(AccessError, match=f"key file {tmp_path}: Is a directory"):
        load_key(context(tmp_path))
    with pytest.raises(AccessError, match=r"key file .*/nowhere: No such file or directory"):
        load_key(context(tmp_path / "nowhere"))
    closed = context("-")
    os.close(closed.stdin_fd)
    with pytest.raises(AccessError, match="key file standard input: Bad file descriptor"):
        load_key(closed)


def test_a_pipe_is_read_by_one_process_only(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not is_repeatable(context(tmp_path / "pipe"))
    assert not is_repeatable(context(tmp_path / "nowhere"))
