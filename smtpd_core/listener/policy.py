"""The configuration as routing needs it, and the answers to what an expansion asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, FrozenSet, Optional, Protocol, Union

from smtpd_core import ask
from smtpd_core.config import model
from smtpd_core.errors import LocalError
from smtpd_core.mail import srs
from smtpd_core.routing.expand import Expansion, expand
from smtpd_core.routing.policy import (
    Action,
    Answer,
    FindAlias,
    FindUser,
    Forwarding,
    Policy,
    Question,
    ReadForward,
    ReadInclude,
    User,
)
from smtpd_core.routing.rules import Criterion, Envelope, Failure, For, From, Match, Rule
from smtpd_core.tables.lines import LineError, parse_userinfo

if TYPE_CHECKING:
    from smtpd_core.config.settings import SrsSettings

_DAY_SECONDS = 86_400
_FROM = {
    model.Origin.ANY: From.ANY,
    model.Origin.LOCAL: From.LOCAL,
    model.Origin.SOCKET: From.SOCKET,
    model.Origin.SRC: From.SOURCE,
    model.Origin.RDNS: From.NAME,
}
_FOR = {
    model.Target.ANY: For.ANY,
    model.Target.LOCAL: For.LOCAL,
    model.Target.DOMAIN: For.DOMAIN,
}
_FORWARDING = {
    model.Method.FORWARD_ONLY: Forwarding.FORWARD_ONLY,
    model.Method.EXPAND_ONLY: Forwarding.EXPAND_ONLY,
}


class Lookups(Protocol):
    """All tables of the configuration, open."""

    def match(self, table: str, service: str, key: str) -> Union[bool, Failure]:
        """Tell whether a key matches an entry."""

    def fetch(self, table: str, service: str, key: str) -> Union[str, Failure, None]:
        """Give the value of a key; None when it has none."""


class Supervisor(Protocol):
    """Who may see what we may not."""

    async def read_forward(self, user: User) -> Union[str, Failure, None]:
        """Give the text of a user's .forward; None when there is none."""

    async def read_include(self, path: str) -> Union[str, Failure, None]:
        """Give the text of a file that an alias table includes; None when there is none."""

    async def find_user(self, name: str) -> Union[User, Failure, None]:
        """Give a user of the system; None when there is none of that name."""

    async def check_password(self, user: str, password: str) -> Optional[bool]:
        """Tell whether a password is a system user's; None when it cannot be known now."""


def routing_policy(config: model.Config, daemon_user: str, clock: Callable[[], int]) -> Policy:
    """Take from a configuration what decides where mail goes."""
    return Policy(
        rules=tuple(_rule(rule) for rule in config.rules),
        actions={name: _action(action) for name, action in config.actions.items()},
        delimiter=config.smtp.sub_addr_delim,
        daemon_user=daemon_user,
        decode_srs=_srs_decoder(config.srs, clock),
    )


def _rule(rule: model.Rule) -> Rule:
    return Rule(
        action=rule.action,
        origin=_FROM[rule.origin],
        from_test=_criterion(rule.from_),
        destination=_FOR[rule.target],
        for_test=_criterion(rule.for_),
        tag=_test(rule.tag),
        helo=_test(rule.helo),
        auth=_test(rule.auth),
        tls=_test(rule.tls),
        mail_from=_test(rule.mail_from),
        rcpt_to=_test(rule.rcpt_to),
    )


def _criterion(criterion: model.Criterion) -> Criterion:
    return Criterion(criterion.table or "", criterion.negated, criterion.regex)


def _test(criterion: Optional[model.Criterion]) -> Optional[Criterion]:
    return None if criterion is None else _criterion(criterion)


def _action(action: model.Action) -> Action:
    if isinstance(action, model.RelayAction):
        return Action(action.name, relay=True)
    return Action(
        action.name,
        alias=action.alias or "",
        virtual=action.virtual or "",
        userbase=action.userbase or model.SYSTEM_USERS,
        user=action.user or "",
        forwarding=_FORWARDING.get(action.method, Forwarding.NORMAL),
    )


def _srs_decoder(
    settings: SrsSettings, clock: Callable[[], int]
) -> Optional[Callable[[str], Optional[str]]]:
    if settings.key is None:
        return None
    keys = srs.Keys(settings.key, settings.backup_key or "")
    days = settings.ttl_seconds // _DAY_SECONDS

    def decode(recipient: str) -> Optional[str]:
        try:
            return srs.restore(recipient, keys, clock(), days)
        except srs.SrsError:
            return None

    return decode


class Router:
    """Where the recipients of one configuration go."""

    def __init__(self, config: model.Config, policy: Policy, lookups: Lookups) -> None:
        """Route by a policy that was made of the configuration."""
        self._policy = policy
        self._lookups = lookups
        self._system_bases: FrozenSet[str] = frozenset(
            name for name, table in config.tables.items() if table.backend == "getpwnam"
        ) | {model.SYSTEM_USERS}

    async def expand(self, envelope: Envelope, supervisor: Supervisor) -> Expansion:
        """Find the deliveries of a recipient that a client gave."""

        async def answer(question: Question) -> Answer:
            return await self._answer(question, supervisor)

        asker = expand(envelope.recipient, envelope, self._policy)
        return await ask.answer_later(asker, answer)

    async def _answer(self, question: Question, supervisor: Supervisor) -> Answer:
        if isinstance(question, Match):
            return self._lookups.match(*question)
        if isinstance(question, FindAlias):
            return self._lookups.fetch(question.table, "alias", question.key)
        if isinstance(question, FindUser):
            if question.userbase in self._system_bases:
                return await supervisor.find_user(question.name)
            return self._find_user(question)
        if isinstance(question, ReadForward):
            return await supervisor.read_forward(question.user)
        if isinstance(question, ReadInclude):
            return await supervisor.read_include(question.path)
        raise LocalError(f"nobody answers {type(question).__name__}")

    def _find_user(self, question: FindUser) -> Union[User, Failure, None]:
        value = self._lookups.fetch(question.userbase, "userinfo", question.name)
        if not isinstance(value, str):
            return value
        try:
            return User(*parse_userinfo(question.name, value))
        except LineError as error:
            return Failure(f"table {question.userbase}: {error}")
