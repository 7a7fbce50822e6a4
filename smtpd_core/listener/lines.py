"""The lines a session writes into the log.

They are those of OpenSMTPD 7.8, read by people and programs for years. Failures have one thing
more: the client's address, at the end, so that a program can act on one line without having seen
the others of the session. Texts of clients cannot look like the rest of a line: controls are
escaped, and in a command quotes too.
"""

from __future__ import annotations

from typing import Optional

from smtpd_core.ids import format_evpid, format_msgid
from smtpd_core.text import escape

MAX_COMMAND = 512  # characters of a command; who sent more did not mean it


def _session(session: int, event: str) -> str:
    return f"{session:016x} smtp {event}"


def _quoted(words: str) -> str:
    marked = words[:MAX_COMMAND].replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escape(marked)}"'


def _word(text: str) -> str:
    """Make one word of a text, as the original does with vis(3) for white space."""
    return escape(text).replace(" ", "\\s")


def connected(session: int, address: str, host: str, uid: Optional[int] = None) -> str:
    """Greet a client; uid is that of the process behind a local session, where it is known."""
    line = _session(session, f"connected address={address} host={escape(host)}")
    return line if uid is None else f"{line} uid={uid}"


def proxied(session: int, address: str) -> str:
    """Tell of a connection that comes from a proxy."""
    return _session(session, f"event=proxy address={address}")


def proxy_failed(session: int, address: str, reason: str) -> str:
    """Tell why a proxy's connection was closed."""
    return f'proxy {session:016x} event=closed address={address} reason="{escape(reason)}"'


def refused(session: int, address: str, reply: str) -> str:
    """Tell of a client that was sent away at once."""
    return _session(session, f'refused result="{escape(reply)}" address={address}')


def tls(session: int, description: str) -> str:
    """Tell what TLS came to: `version:cipher:bits`."""
    return _session(session, f"tls ciphers={description}")


def certificate(session: int, fingerprint: str, *, verified: bool) -> str:
    """Tell of a client's certificate."""
    result = "verified" if verified else "unchecked"
    return _session(session, f'cert-check result="{result}" fingerprint="{fingerprint}"')


def authentication(session: int, user: str, result: str, address: str) -> str:
    """Tell how a login ended: ok, permfail or tempfail."""
    line = _session(session, f"authentication user={_word(user)} result={result}")
    return line if result == "ok" else f"{line} address={address}"


def failed_command(session: int, command: str, reply: str, address: str) -> str:
    """Tell of a command that was refused; secrets are not in it."""
    result = f'command={_quoted(command)} result="{escape(reply)}"'
    return _session(session, f"failed-command {result} address={address}")


def bad_input(session: int, reply: str, address: str) -> str:
    """Tell of octets that ended a session."""
    return _session(session, f'bad-input result="{escape(reply)}" address={address}')


def message(session: int, msgid: int, size: int, recipients: int, *, extended: bool) -> str:
    """Tell of a message that was accepted; size counts what was stored."""
    protocol = "ESMTP" if extended else "SMTP"
    return _session(
        session,
        f"message msgid={format_msgid(msgid)} size={size} nrcpt={recipients} proto={protocol}",
    )


def envelope(session: int, evpid: Optional[int], sender: str, recipient: str) -> str:
    """Tell of one recipient of it."""
    known = f"evpid={format_evpid(evpid)} " if evpid is not None else ""
    return _session(session, f"envelope {known}from=<{escape(sender)}> to=<{escape(recipient)}>")


def unheard(session: int, msgid: int, address: str) -> str:
    """Tell of a message whose acceptance its client did not hear: it may come again."""
    return _session(
        session, f"unheard msgid={format_msgid(msgid)} result=accepted address={address}"
    )


def disconnected(session: int, reason: str, address: str = "") -> str:
    """Tell of the end; address is given when the end is a failure."""
    reason = f'"{escape(reason)}"' if " " in reason else reason
    line = _session(session, f"disconnected reason={reason}")
    return f"{line} address={address}" if address else line
