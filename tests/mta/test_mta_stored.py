"""From the URL in an old envelope to a relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from smtpd_core.config.model import RelayAction
from smtpd_core.config.problems import Place
from smtpd_core.mail.status import Outcome
from smtpd_core.mta.stored import stored_relay
from smtpd_core.mta.targets import Relay
from smtpd_core.queue import fields
from smtpd_core.queue.envelope import Envelope
from smtpd_core.routing.stored import action_of
from tests.fakes.loop import run
from tests.fakes.relaying import World
from tests.fakes.smtp_peer import Peer, serving

if TYPE_CHECKING:
    from typing import Union

KEPT = ("domain", "is_host", "port", "scheme", "verify", "label", "backup")


def found(url: str, flags: int = 0, **values: Any) -> Union[Relay, Outcome]:
    envelope = Envelope(
        version=2,
        type="mta",
        dest="bob@There.example",
        mta_relay=url,
        mta_relay_flags=flags,
        **values,
    )
    action = action_of(envelope, {})
    assert isinstance(action, RelayAction)
    return stored_relay(envelope, action)


@pytest.mark.parametrize(
    ("url", "flags", "expected"),
    [
        ("", 0, ("there.example", False, 25, "smtp", False, "", "")),
        (
            "",
            fields.RELAY_TLS | fields.RELAY_VERIFY,
            ("there.example", False, 25, "smtp+tls", True, "", ""),
        ),
        ("smtp://192.0.2.200:2525", 0, ("192.0.2.200", True, 2525, "smtp+notls", False, "", "")),
        ("mx.example", 0, ("mx.example", True, 25, "smtp", False, "", "")),
        ("secure://MX.example", 0, ("mx.example", True, 465, "smtps", False, "", "")),
        ("secure://mx.example:587", 0, ("mx.example", True, 587, "smtp+tls", False, "", "")),
        ("lmtp://[::1]:24", 0, ("[::1]", True, 24, "lmtp", False, "", "")),
        ("[IPv6:::1]", 0, ("[ipv6:::1]", True, 25, "smtp", False, "", "")),
        ("tls+auth://me@a.example:587", 0, ("a.example", True, 587, "smtp+tls", False, "me", "")),
        ("smtps+auth://me@a.example", 1, ("a.example", True, 465, "smtps", True, "me", "")),
        ("backup://mx1.example", 0, ("there.example", False, 25, "smtp", False, "", "mx1.example")),
    ],
)
def test_urls(url: str, flags: int, expected: tuple[object, ...]) -> None:
    relay = found(url, flags, mta_relay_auth="creds")
    assert isinstance(relay, Relay)
    assert tuple(getattr(relay, name) for name in KEPT) == expected


def test_release_5_2_1_has_parts_instead() -> None:
    auth_tls = fields.RELAY_TLS | fields.RELAY_FLAGS_521[2][1]
    relay = found(
        "", auth_tls, mta_relay_host="a.example", mta_relay_port=26, mta_relay_authmap="m"
    )
    assert isinstance(relay, Relay)
    assert (relay.scheme, relay.domain, relay.port) == ("smtp+tls", "a.example", 26)
    assert (relay.label, relay.action.auth) == ("a.example", "m")


def test_refusals() -> None:
    for url in ("ftp://x", "tls+auth://me@a.example"):
        relay = found(url)
        assert isinstance(relay, Outcome)
        assert relay.text in ("Cannot parse smarthost", "No auth table for relaying")


def test_an_old_envelope_is_relayed_without_an_action() -> None:
    peer = Peer()

    async def act() -> None:
        async with serving(peer):
            world = World(RelayAction("", Place("", 0)))  # contexts by that name
            url = f"smtp://{peer.host}:{peer.port}"
            world.resolver.hosts[peer.host] = (peer.host,)
            said = await world.one(version=2, dispatcher="", mta_relay=url)
            assert said == "delivered 2.0.0 250 2.0.0 Accepted"
            await world.close()

    run(act())
    assert [mail.recipients for mail in peer.mails] == [["d@there.example"]]
