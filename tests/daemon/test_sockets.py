"""Listening sockets across configurations."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from smtpd_core.config.model import Config, Listener, SocketListener
from smtpd_core.config.problems import Place
from smtpd_core.daemon.sockets import Endpoint, ListenError, Sockets, endpoints_of

WHERE = Place("smtpd.conf", 1)
CONFIG = Config("smtpd.conf", SocketListener(WHERE))


def listener(port: int, *addresses: str, family: int = 0) -> Listener:
    return Listener(WHERE, "x", port, addresses, family)


def config(*listeners: Listener) -> Config:
    return replace(CONFIG, listeners=listeners)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as end:
        port: int = end.getsockname()[1]
        return port


def test_places() -> None:
    given = config(
        listener(25, "127.0.0.1", "::1", family=4),
        listener(25, "127.0.0.1"),
        listener(587, "::1", "127.0.0.1", family=6),
    )
    assert [endpoint for _, endpoint in endpoints_of(given)] == [
        Endpoint("127.0.0.1", 25),
        Endpoint("::1", 587),
    ]


def test_a_socket_outlives_its_configuration_when_the_next_has_it_too() -> None:
    first, second, third = free_port(), free_port(), free_port()
    sockets = Sockets()
    before = sockets.bind(config(listener(first, "127.0.0.1"), listener(second, "127.0.0.1")))
    after = sockets.bind(config(listener(second, "127.0.0.1"), listener(third, "127.0.0.1")))
    assert after[0].socket is before[1].socket
    sockets.retain(after)
    assert before[0].socket.fileno() == -1
    assert before[1].socket.fileno() >= 0
    sockets.close()
    assert after[0].socket.fileno() == -1


def test_a_configuration_that_cannot_be_had_opens_nothing() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sockets = Sockets()
        with pytest.raises(ListenError, match=r"cannot listen on 127\.0\.0\.1"):
            sockets.bind(
                config(listener(port, "127.0.0.1"), listener(taken.getsockname()[1], "127.0.0.1"))
            )
    with socket.create_server(("127.0.0.1", port)):
        pass  # it was closed again


def test_a_socket_of_the_service_manager_is_used() -> None:
    passed = socket.create_server(("127.0.0.1", 0))
    port = passed.getsockname()[1]
    sockets = Sockets([passed])
    (listening,) = sockets.bind(config(listener(port, "127.0.0.1")))
    assert listening.socket is passed
    sockets.close()
