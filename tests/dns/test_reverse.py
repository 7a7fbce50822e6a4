"""The names of clients."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smtpd_core.ask import answer
from smtpd_core.dns import wire
from smtpd_core.dns.cache import Cache
from smtpd_core.dns.resolve import Reply, Resolver, Send
from smtpd_core.dns.reverse import ClientName, Confirmation, find_client_name, reverse_name
from smtpd_core.dns.system import Settings, parse_hosts
from smtpd_core.dns.wire import Record

ZONE = {
    ("1.2.0.192.in-addr.arpa", wire.PTR): "good.example",
    ("good.example", wire.A): "192.0.2.1",
    ("2.2.0.192.in-addr.arpa", wire.PTR): "good.example",
    ("3.2.0.192.in-addr.arpa", wire.PTR): r"evil\010header.example",
    ("5.2.0.192.in-addr.arpa", wire.PTR): "fail.example",
    (reverse_name("2001:db8::1"), wire.PTR): "six.example",
    ("six.example", wire.AAAA): "2001:db8::1",
}


def serve(send: Send) -> Reply:
    question = send.query.question
    assert question is not None
    name = question.name.lower()
    if name in ("4.2.0.192.in-addr.arpa", "fail.example"):
        return Reply(None, 0)
    data = ZONE.get((name, question.rtype))
    answers = (Record(name, question.rtype, 9, data),) if data else ()
    rcode = wire.NOERROR if data else wire.NXDOMAIN
    return Reply(wire.encode(replace(send.query, response=True, answers=answers, rcode=rcode)), 0)


@pytest.mark.parametrize(
    ("address", "name", "confirmed"),
    [
        ("192.0.2.1", "good.example", Confirmation.PASS),
        ("192.0.2.2", "good.example", Confirmation.FAIL),
        ("192.0.2.3", "<unknown>", Confirmation.FAIL),
        ("192.0.2.4", "<unknown>", Confirmation.ERROR),
        ("192.0.2.5", "fail.example", Confirmation.ERROR),
        ("192.0.2.9", "<unknown>", Confirmation.FAIL),
        ("127.0.0.1", "localhost", Confirmation.PASS),
        ("2001:db8::1", "six.example", Confirmation.PASS),
        ("2001:DB8:0::1%eth0", "six.example", Confirmation.PASS),
    ],
)
def test_names_of_clients(address: str, name: str, confirmed: Confirmation) -> None:
    resolver = Resolver(lambda _: 0, Settings(), parse_hosts("127.0.0.1 localhost"), Cache())
    assert answer(find_client_name(resolver, address, 0), serve) == ClientName(name, confirmed)
