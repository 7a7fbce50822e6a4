"""Who a client is: its password against a table's hash, or against the system's.

A check may take a seventh of a second and 128 megabytes, so hashes are compared by a few threads,
and those who wait for one are bounded. A refusal comes at a time that does not depend on whether
the user exists, and later with every further one to the same client.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Optional

from smtpd_core import text
from smtpd_core.listener.limits import Guesses
from smtpd_core.routing.rules import Failure
from smtpd_core.tables.lines import LineError, parse_credentials
from smtpd_core.tables.password import PasswordError, verify_password

if TYPE_CHECKING:
    from smtpd_core.listener.policy import Lookups, Supervisor
    from smtpd_core.listener.surroundings import Surroundings
    from smtpd_core.smtp.sasl import Credentials

MAX_CHECKS = 2  # hashes computed at once: the memory of one is 128 megabytes
MAX_WAITING = 64  # logins under way; further ones are put off


class Authenticator:
    """Checks passwords for all listeners of a process."""

    def __init__(
        self,
        surroundings: Surroundings,
        supervisor: Supervisor,
        guesses: Optional[Guesses] = None,
    ) -> None:
        """Begin with nobody remembered; threads start when the first hash is to be computed."""
        self._surroundings = surroundings
        self._supervisor = supervisor
        self._threads = ThreadPoolExecutor(MAX_CHECKS, thread_name_prefix="password")
        self._guesses = guesses or Guesses()
        self._under_way = 0

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False)

    async def check(
        self, credentials: Credentials, lookups: Lookups, table: Optional[str], client: str
    ) -> Optional[bool]:
        """Tell whether credentials are good; None when it cannot be known now.

        Without a table the system's users are asked for. client is what its failures are
        counted under. A refusal takes its time.
        """
        if self._under_way >= MAX_WAITING:
            return None
        self._under_way += 1
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            if table is None:
                good = await self._supervisor.check_password(credentials.user, credentials.password)
            else:
                good = await self._check_table(credentials, lookups, table)
        finally:
            self._under_way -= 1
        if good:
            self._guesses.succeeded(client)
        elif good is False:
            delay = self._guesses.failed(client, self._surroundings.clock())
            delay *= 1 + self._surroundings.entropy(1)[0] / 256  # up to twice as long
            await asyncio.sleep(max(start + delay - loop.time(), 0))
        return good

    async def _check_table(
        self, credentials: Credentials, lookups: Lookups, table: str
    ) -> Optional[bool]:
        value = lookups.fetch(table, "credentials", credentials.user)
        if isinstance(value, Failure):
            return None
        if value is None:
            return False
        try:
            found = parse_credentials(credentials.user, value)
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, verify_password, text.encode(credentials.password), found.secret
            )
        except (LineError, PasswordError) as error:
            self._surroundings.log("warn", f"warn: table {table}: {error}")
            return None
