"""Make spools of ordinary envelopes, as many as a test needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

BODY = b"Received: by mx.example.org\nSubject: a test\n\nHello.\n"


def envelope(number: int) -> bytes:
    """Give the text of an envelope, as 6.8 writes it."""
    return (
        f"version: 3\ndispatcher: relay\ntype: mta\nsmtpname: mx.example.org\n"
        f"helo: client.example.net\nhostname: client.example.net\n"
        f"errorline: 451 4.3.0 number {number}\nsockaddr: 192.0.2.{number % 256}\n"
        f"sender: alice{number}@example.net\nrcpt: bob@example.org\ndest: bob@example.org\n"
        f"ctime: {1700000000 + number}\nlast-try: 0\nlast-bounce: 0\nttl: 0\nretry: 1\n"
        f"dsn-notify: 0\nesc-class: 4\nesc-code: 30\n"
    ).encode()


def ids(messages: int, each: int) -> Iterator[tuple[int, list[int]]]:
    """Give message ids, in order and spread over all buckets, with their envelope ids."""
    for number in range(messages):
        msgid = 0x01000000 + number * (0xFE000000 // messages)
        yield msgid, [msgid << 32 | 0x1000 + place for place in range(each)]


def make(path: pathlib.Path, messages: int, each: int) -> list[int]:
    """Make a spool with so many messages of so many envelopes each; give the envelope ids."""
    for name in ("queue", "incoming", "temporary", "purge", "corrupt", "offline"):
        (path / name).mkdir(parents=True, mode=0o700)
    found: list[int] = []
    for msgid, evpids in ids(messages, each):
        directory = path / "queue" / f"{msgid:08x}"[:2] / f"{msgid:08x}"
        directory.mkdir(parents=True)
        (directory / "message").write_bytes(BODY)
        for evpid in evpids:
            (directory / f"{evpid:016x}").write_bytes(envelope(len(found)))
            found.append(evpid)
    return found
