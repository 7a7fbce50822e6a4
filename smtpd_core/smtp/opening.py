"""How a client's conversation opens: banner, names, TLS, authentication.

`Opening` is told each reply, and answers with the next step: a command line to send, TlsWanted,
Ready, or Failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional, Union

from smtpd_core.errors import LocalError
from smtpd_core.mail.address import is_domain
from smtpd_core.mail.status import one_line
from smtpd_core.smtp.client_events import ClientOptions, Failed, Ready, TlsPolicy, TlsWanted
from smtpd_core.smtp.reply import Reply, errorline
from smtpd_core.smtp.sasl import ClientExchange, Credentials, Mechanism, SaslError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_EXTENSIONS = 100  # keywords kept of one EHLO reply

Step = Union[bytes, TlsWanted, Ready, Failed]


def _is_positive(reply: Reply) -> bool:
    return reply.code // 100 == 2


def _rejected(what: str, reply: Reply) -> Failed:
    return Failed(one_line(f"{what} rejected: {errorline(reply)}"))


class Opening:
    """The way from a new connection to Ready."""

    def __init__(self, options: ClientOptions) -> None:
        """Prepare to meet a peer; LocalError when our own name cannot be said."""
        if not is_domain(options.name):
            raise LocalError(f"{options.name[:64]!r} is not a name to greet with")
        self.options = options
        self.banner = ""
        self.secured = options.secured
        self.extensions: Mapping[str, str] = {}  # keyword to parameters, in upper case
        self._exchange: Optional[ClientExchange] = None
        self._next: Callable[[Reply], Step] = self._on_banner

    def take(self, reply: Reply) -> Step:
        """Take the reply to the last step."""
        return self._next(reply)

    def tls_started(self) -> Step:
        """Go on inside TLS; what the peer said before is forgotten."""
        self.secured = True
        self.extensions = {}
        return self._say_hello()

    def _on_banner(self, reply: Reply) -> Step:
        if not _is_positive(reply):
            return _rejected("BANNER", reply)
        self.banner = one_line(reply.lines[0])
        return self._say_hello()

    def _say_hello(self) -> Step:
        self._next = self._on_hello
        return f"{'LHLO' if self.options.lmtp else 'EHLO'} {self.options.name}".encode()

    def _on_hello(self, reply: Reply) -> Step:
        options = self.options
        if _is_positive(reply):
            self._learn(reply)
            return self._after_hello()
        if options.lmtp:
            return _rejected("LHLO", reply)
        if options.user or (options.tls is TlsPolicy.REQUIRED and not self.secured):
            return _rejected("EHLO", reply)
        self._next = self._on_helo
        return f"HELO {options.name}".encode()

    def _on_helo(self, reply: Reply) -> Step:
        return Ready() if _is_positive(reply) else _rejected("HELO", reply)

    def _learn(self, reply: Reply) -> None:
        extensions: dict[str, str] = {}
        for line in reply.lines[1 : MAX_EXTENSIONS + 1]:
            keyword, _, parameters = line.strip().partition(" ")
            extensions.setdefault(keyword.upper(), parameters.strip().upper())
        self.extensions = extensions

    def _after_hello(self) -> Step:
        options = self.options
        if options.lmtp:
            return Ready()
        if self.secured or options.tls is TlsPolicy.NEVER:
            return self._authenticate()
        if "STARTTLS" in self.extensions:
            self._next = self._on_starttls
            return b"STARTTLS"
        if options.tls is TlsPolicy.REQUIRED:
            return Failed("TLS required but not supported by remote host")
        return self._authenticate()

    def _on_starttls(self, reply: Reply) -> Step:
        if _is_positive(reply):
            return TlsWanted()
        if self.options.tls is TlsPolicy.REQUIRED:
            return _rejected("STARTTLS", reply)
        return self._authenticate()

    def _authenticate(self) -> Step:
        options = self.options
        if not options.user:
            return Ready()
        if not self.secured:
            return Failed("Refuse to AUTH over insecure channel")
        offered = self.extensions.get("AUTH", "").split()
        mechanism = next((each for each in Mechanism if each.value in offered), None)
        if mechanism is None:
            return Failed("No supported AUTH method" if offered else "AUTH not advertised")
        try:
            credentials = Credentials(options.user, options.password, mechanism)
            self._exchange = ClientExchange(credentials)
        except SaslError:
            return Failed("Credentials too large")
        self._next = self._on_auth
        return self._exchange.command()

    def _on_auth(self, reply: Reply) -> Step:
        assert self._exchange is not None
        if reply.code == 334 and not self._exchange.is_done:
            return self._exchange.respond()
        return Ready() if _is_positive(reply) else _rejected("AUTH", reply)
