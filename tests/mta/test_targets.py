"""From actions to relays, and from relays to hosts, over dicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Union

import pytest

from smtpd_core.ask import answer
from smtpd_core.config.model import RelayAction, RelayTls
from smtpd_core.config.problems import Place
from smtpd_core.dns.exchangers import Exchanger, Exchangers, Verdict
from smtpd_core.mail.status import Outcome
from smtpd_core.mta.targets import (
    MAX_HOPS,
    Ask,
    Find,
    Hop,
    Relay,
    choose_relay,
    find_credentials,
    find_helo,
    find_hops,
    find_sources,
)
from smtpd_core.tables.lines import Credentials, Tls
from tests.fakes.relaying import FakeLookups, smarthost

SERVER = "here.example"


def tables(**content: Any) -> Any:
    lookups = FakeLookups(content)

    def reply(ask: Ask) -> Any:
        if ask.key is None:
            return lookups.pick(ask.table, ask.service)
        return lookups.fetch(ask.table, ask.service, ask.key)

    return reply


def relay_to(url: str, **options: Any) -> Union[Relay, Outcome]:
    return answer(
        choose_relay(smarthost("x", **options), "There.Example", SERVER), tables(hosts=[url])
    )


@pytest.mark.parametrize(
    ("url", "spelled", "tls", "verify", "port"),
    [
        ("mx.example", "[relay:mx.example,smtp,mx]", Tls.OPPORTUNISTIC, False, 25),
        ("smtp://MX.example.", "[relay:mx.example,smtp,mx]", Tls.OPPORTUNISTIC, False, 25),
        ("smtp://h:2525", "[relay:h,port=2525,smtp,mx]", Tls.OPPORTUNISTIC, False, 2525),
        ("smtp+tls://h", "[relay:h,smtp+tls,mx]", Tls.STARTTLS, True, 25),
        ("smtp+notls://h", "[relay:h,smtp+notls,mx]", Tls.NONE, False, 25),
        ("smtps://h", "[relay:h,smtps,mx]", Tls.SMTPS, True, 465),
        ("smtps://h:25", "[relay:h,port=25,smtps,mx]", Tls.SMTPS, True, 25),
        ("lmtp://h:24", "[relay:h,port=24,lmtp,mx]", Tls.NONE, False, 24),
        ("smtp://[192.0.2.1]", "[relay:[192.0.2.1],smtp,mx]", Tls.OPPORTUNISTIC, False, 25),
        ("smtp://[2001:db8::1]:26", "[relay:[2001:db8::1],port=26,smtp,mx]", None, False, 26),
    ],
)
def test_urls(url: str, spelled: str, tls: Tls, verify: bool, port: int) -> None:
    relay = relay_to(url)
    assert isinstance(relay, Relay)
    assert str(relay) == spelled
    assert tls is None or relay.tls is tls
    assert (relay.verify, relay.port, relay.is_host) == (verify, port, True)


@pytest.mark.parametrize("url", ["", "ftp://h", "lmtp://h", "smtp://l@h", "smtp://h:0", "://"])
def test_urls_that_mean_nothing(url: str) -> None:
    found = relay_to(url)
    assert isinstance(found, Outcome)
    assert found.text == "Cannot parse smarthost"


@pytest.mark.parametrize(
    ("url", "tls", "expected"),
    [
        ("smtp://h", RelayTls.VERIFY, ("smtp+tls", True)),
        ("smtp://h", RelayTls.NO_VERIFY, ("smtp+tls", False)),
        ("smtps://h", RelayTls.VERIFY, ("smtps", True)),
        ("smtps://h", RelayTls.NO_VERIFY, ("smtps", False)),
        ("smtp+notls://h", RelayTls.VERIFY, None),
        ("lmtp://h:24", RelayTls.NO_VERIFY, None),
    ],
)
def test_what_an_action_says_about_tls(url: str, tls: RelayTls, expected: Any) -> None:
    found = relay_to(url, tls=tls)
    if isinstance(found, Relay):
        assert (found.scheme, found.verify) == expected
    else:
        assert expected is None
        assert found.text == "TLS required for relaying"


def test_a_domain_table_is_asked_by_domain() -> None:
    action = replace(smarthost(), domain="map")
    reply = tables(map={"there.example": "smtp://h"})
    relay = answer(choose_relay(action, "There.EXAMPLE", SERVER), reply)
    assert isinstance(relay, Relay)
    assert relay.domain == "h"
    missing = answer(choose_relay(action, "other.example", SERVER), reply)
    assert isinstance(missing, Outcome)
    assert missing.text == "Cannot retrieve smarthost"


def test_the_key_of_a_relay() -> None:
    """Not where the action stands or how long mail lives; but everything else."""
    action = smarthost()

    def mx(changed: RelayAction) -> Any:
        return answer(choose_relay(changed, "There.Example", SERVER), tables())

    base = mx(action)
    assert mx(replace(action, where=Place("other.conf", 9), ttl_seconds=5)) == base
    changes: tuple[dict[str, Any], ...] = (
        {"name": "other"},
        {"filter": "f"},
        {"ciphers": "HIGH"},
        {"protocols": "tlsv1.3"},
        {"mail_from": "a@b"},
        {"tls": RelayTls.NO_VERIFY},
        {"pki": "p"},
    )
    for change in changes:
        assert mx(replace(action, **change)) != base


def test_spelling_of_everything() -> None:
    action = replace(
        smarthost(),
        auth="secrets",
        pki="p",
        src="sources",
        helo_src="names",
        helo="n",
    )
    relay = Relay(action, "d", label="me", backup="b")
    assert str(relay) == (
        "[relay:d,smtp,auth=secrets:me,pki_name=p,backup=b,sourcetable=sources,"
        "helotable=names,heloname=n]"
    )


def test_credentials() -> None:
    relay = Relay(replace(smarthost(), auth="secrets"), "h", label="me")
    good = tables(secrets={"me": "user:pass:word"})
    assert answer(find_credentials(relay), good) == Credentials("user", "pass:word")
    assert answer(find_credentials(replace(relay, label="")), tables()) is None
    empty: list[dict[str, Any]] = [{"secrets": {}}, {"secrets": {"me": ":"}}, {}]
    for bad in empty:
        found = answer(find_credentials(relay), tables(**bad))
        assert isinstance(found, Outcome)
        assert found.text == "Could not retrieve credentials"


def test_sources() -> None:
    action = replace(smarthost(), src="sources")
    assert answer(find_sources(smarthost()), tables()) == ("",)
    listed = tables(sources=["192.0.2.1", "[2001:db8::1]", "192.0.2.1"])
    assert answer(find_sources(action), listed) == ("192.0.2.1", "2001:db8::1")
    lists: list[list[str]] = [[], ["not an address"]]
    for entries in lists:
        assert isinstance(answer(find_sources(action), tables(sources=entries)), Outcome)


def test_helo() -> None:
    action = replace(smarthost(), helo_src="names")
    names = tables(names={"192.0.2.1": "one.example"})
    assert answer(find_helo(smarthost(), "192.0.2.1", SERVER), names) == SERVER
    assert answer(find_helo(action, "", SERVER), names) == SERVER
    assert answer(find_helo(action, "192.0.2.1", SERVER), names) == "one.example"
    assert answer(find_helo(action, "192.0.2.2", SERVER), names) is None
    assert answer(find_helo(replace(action, helo="n"), "192.0.2.1", SERVER), names) == "n"


def hosts(*levels: tuple[int, str, str]) -> Exchangers:
    return Exchangers(
        Verdict.FOUND,
        tuple(Exchanger(level, name, tuple(address.split())) for level, name, address in levels),
    )


def hops_of(
    relay: Relay, found: Exchangers, own: tuple[str, ...] = ()
) -> tuple[Any, list[str], list[Find]]:
    warned: list[str] = []
    asked: list[Find] = []

    def find(question: Find) -> Exchangers:
        asked.append(question)
        return found

    asker = find_hops(relay, lambda address, port: address in own and port == 25, warned.append)
    return answer(asker, find), warned, asked


MX = Relay(smarthost(), "there.example")
THREE = hosts(
    (10, "a.example", "192.0.2.1 2001:db8::1"),
    (20, "b.example", "192.0.2.2"),
    (20, "c.example", "192.0.2.3"),
)


def addresses(hops: Any) -> list[str]:
    assert isinstance(hops, tuple), hops
    return [hop.address for hop in hops]


def test_hops() -> None:
    hops, _, asked = hops_of(MX, THREE)
    assert hops[0] == Hop(10, "a.example", "192.0.2.1", 25)
    assert addresses(hops) == ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"]
    assert asked == [Find("there.example", is_host=False)]
    _, _, asked = hops_of(replace(MX, is_host=True, domain="h"), THREE)
    assert asked == [Find("h", is_host=True)]


def test_a_backup_goes_only_to_better_hosts() -> None:
    hops, warned, _ = hops_of(replace(MX, backup="C.example"), THREE)
    assert addresses(hops) == ["192.0.2.1", "2001:db8::1"]
    assert warned == []
    hops, warned, _ = hops_of(replace(MX, backup="elsewhere.example"), THREE)
    assert len(hops) == 4
    assert warned == ["warn: no MX of there.example is elsewhere.example: all are tried"]
    outcome, _, _ = hops_of(replace(MX, backup="a.example"), THREE)
    assert outcome.text == "No MX found for domain"


@pytest.mark.parametrize("own", ["192.0.2.2", "192.0.2.3"])
def test_records_that_lead_home_end_the_list(own: str) -> None:
    hops, _, _ = hops_of(MX, THREE, (own,))
    assert addresses(hops) == ["192.0.2.1", "2001:db8::1"]


def test_loops() -> None:
    assert hops_of(MX, THREE, ("192.0.2.1",))[0].text == "Loop detected"
    nowhere = hosts((10, "zero.example", "0.0.0.0"))
    assert hops_of(MX, nowhere)[0].text == "Loop detected"
    # Who names a host means it, as for a filter that hands mail back on another port.
    assert addresses(hops_of(replace(MX, is_host=True), THREE, ("192.0.2.1",))[0])


def test_hops_are_bounded() -> None:
    many = hosts(*((1, f"h{n}", f"192.0.2.{n}") for n in range(MAX_HOPS + 5)))
    assert len(hops_of(MX, many)[0]) == MAX_HOPS


@pytest.mark.parametrize(
    ("verdict", "text", "spelled"),
    [
        (Verdict.PERMANENT, "Invalid domain name", "permanent 5.1.2"),
        (Verdict.PERMANENT, "Domain does not exist", "permanent 5.1.2"),
        (Verdict.PERMANENT, "Domain does not accept mail", "permanent 5.1.10"),
        (Verdict.TEMPORARY, "Temporary failure in MX lookup", "temporary 4.4.3"),
        (Verdict.TEMPORARY, "Host not found", "temporary 4.4.3"),
    ],
)
def test_nowhere(verdict: Verdict, text: str, spelled: str) -> None:
    outcome, _, _ = hops_of(MX, Exchangers(verdict, text=text))
    assert f"{outcome.result.value} {outcome.status}" == spelled
    assert outcome.text == text
