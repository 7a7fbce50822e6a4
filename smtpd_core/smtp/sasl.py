"""The SASL mechanisms PLAIN and LOGIN, as a server and as a client. Source: RFC 4616, RFC 4954."""

from __future__ import annotations

import base64
import enum
import re
from dataclasses import dataclass, field
from typing import Optional, Union

from smtpd_core import text
from smtpd_core.errors import FormatError, LocalError

MAX_USER = 255  # octets; the envelope's field holds no more
MAX_PLAIN = 1023  # octets, decoded
MAX_PASSWORD = 2047  # octets, decoded

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_CONTROLS = re.compile("[\x00-\x1f\x7f]")


class SaslError(FormatError):
    """A response that is not what the mechanism asks for; it never quotes the response."""


class Mechanism(enum.Enum):
    """What we speak."""

    PLAIN = "PLAIN"
    LOGIN = "LOGIN"


class Challenge(enum.Enum):
    """What the server asks for next, as it stands behind 334."""

    RESPONSE = ""
    USERNAME = "VXNlcm5hbWU6"
    PASSWORD = "UGFzc3dvcmQ6"  # noqa: S105 - the word "Password:", encoded


@dataclass(frozen=True)
class Credentials:
    """What a client says it is; the password never shows in a repr."""

    user: str
    password: str = field(repr=False)
    mechanism: Mechanism = Mechanism.PLAIN


def decode_base64(response: bytes, limit: int) -> bytes:
    """Decode base64 of at most limit octets: canonical, padded, and without anything else.

    Raises SaslError.
    """
    if len(response) > (limit + 2) // 3 * 4 or _BASE64.fullmatch(response) is None:
        raise SaslError("a response is not base64, or too long")
    octets = base64.b64decode(response)
    if len(octets) > limit:
        raise SaslError("a response is too long")
    if base64.b64encode(octets) != response:
        raise SaslError("a response has stray bits behind its end")
    return octets


def _credentials(user: bytes, password: bytes, mechanism: Mechanism) -> Credentials:
    name, secret = text.decode(user), text.decode(password)
    if not user or len(user) > MAX_USER or _CONTROLS.search(name):
        raise SaslError("a user name is empty, too long, or holds controls")
    if not password or any(octet in password for octet in (b"\r", b"\n", b"\0")):
        raise SaslError("a password is empty, or holds a line end")
    return Credentials(name, secret, mechanism)


def decode_plain(response: bytes) -> Credentials:
    """Read the response of PLAIN, `[authzid] NUL user NUL password`; the authzid is ignored.

    Raises SaslError.
    """
    parts = decode_base64(response, MAX_PLAIN).split(b"\0")
    if len(parts) != 3:
        raise SaslError("a PLAIN response has not three parts")
    return _credentials(parts[1], parts[2], Mechanism.PLAIN)


class ServerExchange:
    """One AUTH command: challenges out, responses in, credentials at the end."""

    def __init__(self, mechanism: Mechanism) -> None:
        self.mechanism = mechanism
        self._user: Optional[bytes] = None
        self.challenge = Challenge.RESPONSE if mechanism is Mechanism.PLAIN else Challenge.USERNAME

    def receive(self, response: bytes) -> Union[Challenge, Credentials]:
        """Take a response, or the initial one of the command line; say what comes next.

        Raises SaslError; `*`, the client's way to cancel, is no base64 either.
        """
        if self.mechanism is Mechanism.PLAIN:
            return decode_plain(response)
        if self._user is None:
            user = decode_base64(response, MAX_USER)
            _credentials(user, b"-", self.mechanism)
            self._user = user
            self.challenge = Challenge.PASSWORD
            return self.challenge
        return _credentials(self._user, decode_base64(response, MAX_PASSWORD), self.mechanism)


def _encode(octets: bytes) -> bytes:
    return base64.b64encode(octets)


class ClientExchange:
    """Authenticate to a server: the command line first, then an answer to each challenge."""

    def __init__(self, credentials: Credentials) -> None:
        """Prepare; raises SaslError for credentials that no server could take."""
        self._user = text.encode(credentials.user)
        self._password = text.encode(credentials.password)
        _credentials(self._user, self._password, credentials.mechanism)
        plain = b"\0" + self._user + b"\0" + self._password
        if credentials.mechanism is Mechanism.PLAIN:
            if len(plain) > MAX_PLAIN:
                raise SaslError("Credentials too large")
            self._command = b"AUTH PLAIN " + _encode(plain)
            self._answers: list[bytes] = []
        else:
            if len(self._password) > MAX_PASSWORD:
                raise SaslError("Credentials too large")
            self._command = b"AUTH LOGIN"
            self._answers = [_encode(self._password), _encode(self._user)]

    def command(self) -> bytes:
        """Give the command line."""
        return self._command

    @property
    def is_done(self) -> bool:
        """Tell whether everything was said; a further challenge then is the server's mistake."""
        return not self._answers

    def respond(self) -> bytes:
        """Answer the next challenge; raises LocalError when is_done."""
        if not self._answers:
            raise LocalError("nothing is left to answer")
        return self._answers.pop()
