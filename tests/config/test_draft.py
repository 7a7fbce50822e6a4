"""What the machine is asked, and what a finished configuration is."""

from __future__ import annotations

from typing import Callable

import pytest

from smtpd_core.config.draft import LISTS, MAPPINGS, may_be_used, well_known_port
from smtpd_core.config.model import BUILTIN_TABLES, Config, Service, Table, TableKind
from smtpd_core.config.problems import Place

HERE = Place("c", 1)


@pytest.mark.parametrize(
    ("service", "port"),
    [("smtp", 25), ("smtps", 465), ("submission", 587), ("submissions", 465), ("pop3", None)],
)
def test_well_known_ports(service: str, port: int) -> None:
    assert well_known_port(service) == port


def test_use_of_tables() -> None:
    listed = Table("t", HERE, kind=TableKind.LIST)
    assert may_be_used(listed, LISTS, Service.DOMAIN)
    assert not may_be_used(listed, MAPPINGS, Service.ALIAS)
    assert not may_be_used(Table("t", HERE), LISTS, Service.DOMAIN)
    users = BUILTIN_TABLES["<getpwnam>"]
    assert may_be_used(users, MAPPINGS, Service.USERINFO)
    assert not may_be_used(users, MAPPINGS, Service.ALIAS)


def test_a_configuration_cannot_be_changed(parse: Callable[..., Config]) -> None:
    config = parse("table t { a }")
    with pytest.raises(TypeError):
        config.tables["u"] = config.tables["t"]  # type: ignore[index] # what must not work
    with pytest.raises(AttributeError):
        config.admd = "x"  # type: ignore[misc] # what must not work
