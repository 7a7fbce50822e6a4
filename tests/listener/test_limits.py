"""How many clients, and how slow wrong passwords are."""

from __future__ import annotations

import pytest

from smtpd_core.listener.limits import (
    FORGET_SECONDS,
    MAX_DELAY_SECONDS,
    Clients,
    Guesses,
    client_key,
    sessions_for,
)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", ""),
        ("127.1.2.3", ""),
        ("::1", ""),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002/64"),
        ("[2001:db8:1:2::9]", "20010db800010002/64"),
        ("not an address", ""),
    ],
)
def test_what_counts_as_one_client(address: str, key: str) -> None:
    found = client_key(address)
    assert found.lstrip("0") == key.lstrip("0")


def test_a_client_has_so_many_sessions_and_no_more() -> None:
    clients = Clients(2)
    assert clients.enter("a")
    assert clients.enter("a")
    assert not clients.enter("a")
    assert clients.first_refusal("a")
    assert not clients.enter("a")
    assert not clients.first_refusal("a")
    assert clients.enter("b")
    clients.leave("a")
    assert clients.enter("a")
    assert not clients.enter("a")


def test_who_left_is_forgotten() -> None:
    clients = Clients(1)
    clients.enter("a")
    assert not clients.enter("a")
    clients.leave("a")
    clients.enter("a")
    assert not clients.enter("a")
    assert clients.first_refusal("a")


def test_this_machine_is_not_counted() -> None:
    clients = Clients(1)
    assert clients.enter("")
    assert clients.enter("")
    clients.leave("")


def test_sessions_leave_room_for_files() -> None:
    assert sessions_for(1024, 14) == 500
    assert sessions_for(10, 9) == 1


def test_guessing_gets_slower() -> None:
    guesses = Guesses()
    delays = [guesses.failed("a", 0) for _ in range(7)]
    assert delays == [1, 2, 4, 8, 16, 16, 16]
    assert delays[-1] == MAX_DELAY_SECONDS
    assert guesses.failed("b", 0) == 1


def test_a_right_password_and_time_make_good() -> None:
    guesses = Guesses()
    guesses.failed("a", 0)
    guesses.succeeded("a")
    assert guesses.failed("a", 0) == 1
    assert guesses.failed("a", FORGET_SECONDS + 1) == 1
    assert guesses.failed("a", FORGET_SECONDS + 2) == 2


def test_the_memory_for_guessers_is_bounded() -> None:
    guesses = Guesses(2)
    for client in ("a", "b", "c"):
        guesses.failed(client, 0)
    assert guesses.failed("c", 0) == 2
    assert guesses.failed("a", 0) == 1  # forgotten
