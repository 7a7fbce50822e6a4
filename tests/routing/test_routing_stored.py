"""The actions of envelopes of all formats."""

from __future__ import annotations

from typing import Any

import pytest

from smtpd_core.config.model import LocalAction, Method, RelayAction
from smtpd_core.config.problems import Place
from smtpd_core.queue.envelope import Envelope
from smtpd_core.routing.stored import action_of, literal, without_missing

NAMED = RelayAction("out", Place("conf", 1))


def spelled(**values: Any) -> Any:
    return action_of(Envelope(version=2, **values), {"": NAMED, "out": NAMED})


def test_format_3_names_its_action() -> None:
    assert action_of(Envelope(version=3, dispatcher="out"), {"out": NAMED}) is NAMED
    assert action_of(Envelope(version=3, dispatcher="gone"), {"out": NAMED}) is None


@pytest.mark.parametrize(
    ("method", "buffer", "expected", "argument"),
    [
        ("maildir", "/home/50%{sender}", Method.MAILDIR, "/home/50%%{sender}"),
        ("mda", "/bin/cat %", Method.MDA, "/bin/cat %%"),
        ("lmtp", "127.0.0.1:24", Method.LMTP, "127.0.0.1:24"),
        ("mbox", "/var/mail/%u", Method.MBOX, ""),
    ],
)
def test_a_local_delivery_is_done_as_it_was_expanded(
    method: str, buffer: str, expected: Method, argument: str
) -> None:
    found = spelled(type="mda", mda_method=method, mda_buffer=buffer, mda_usertable="users")
    assert isinstance(found, LocalAction)
    assert (found.method, found.argument, found.userbase) == (expected, argument, "users")
    assert found.user is None


def test_a_delivery_without_a_method_is_none() -> None:
    assert spelled(type="mda", mda_buffer="x") is None


def test_a_relay_keeps_its_tables_and_loses_those_that_are_gone() -> None:
    found = spelled(
        type="mta", mta_relay_source="srcs", mta_relay_helotable="names", mta_relay_auth="creds"
    )
    assert (found.src, found.helo_src, found.auth) == ("srcs", "names", "creds")
    kept = without_missing(found, {"srcs": 1, "names": 1})
    assert kept == found
    left = without_missing(found, {"names": 1})
    assert (left.src, left.helo_src, left.auth) == (None, None, "creds")


def test_literal_is_what_expanding_gives_back() -> None:
    assert literal("100% %{sender} %%") == "100%% %%{sender} %%%%"
