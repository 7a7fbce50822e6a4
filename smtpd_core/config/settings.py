"""What is set for the whole server, with the values that hold when nothing is set.

Source: smtpd.conf(5) of OpenSMTPD 7.8.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

DAY_SECONDS = 86400


@dataclass(frozen=True)
class SmtpLimits:
    """`smtp limit` lines, for one session."""

    max_rcpt: int = 1000
    max_mails: int = 100


@dataclass(frozen=True)
class SmtpSettings:
    """`smtp` lines; max_message_size in octets."""

    limits: SmtpLimits = SmtpLimits()
    max_message_size: int = 35 << 20
    sub_addr_delim: str = "+"
    ciphers: Optional[str] = None


@dataclass(frozen=True)
class MdaLimits:
    """`mda limit` lines."""

    max_session: int = 50
    max_session_per_user: int = 7
    task_hiwat: int = 50
    task_lowat: int = 30
    task_release: int = 10


@dataclass(frozen=True)
class SchedulerLimits:
    """`scheduler limit` lines."""

    max_inflight: int = 5000
    max_schedule: int = 10
    max_evp_batch_size: int = 256
    max_msg_batch_size: int = 1024


@dataclass(frozen=True)
class MtaLimits:
    """`mta limit` lines, for one domain or for all others; delays are seconds."""

    max_conn_per_host: int = 10
    max_conn_per_route: int = 5
    max_conn_per_source: int = 100
    max_conn_per_connector: int = 20
    max_conn_per_relay: int = 100
    max_conn_per_domain: int = 100
    conn_delay_host: int = 0
    conn_delay_route: int = 5
    conn_delay_source: int = 0
    conn_delay_connector: int = 0
    conn_delay_relay: int = 2
    conn_delay_domain: int = 0
    reconn_delay_route: int = 3
    session_mail_max: int = 100
    session_transaction_delay: int = 0
    session_keepalive: int = 10
    max_failures_per_session: int = 25
    task_hiwat: int = 50
    task_lowat: int = 30
    task_release: int = 10
    family: int = 0  # 4 or 6; 0 is both


@dataclass(frozen=True)
class QueueSettings:
    """`queue` lines; key is secret, `stdin`, or None to ask at the start."""

    compression: bool = False
    encryption: bool = False
    key: Optional[str] = field(default=None, repr=False)
    ttl_seconds: int = 4 * DAY_SECONDS


@dataclass(frozen=True)
class SrsSettings:
    """`srs` lines; the keys are secret, the lifetime is whole days."""

    key: Optional[str] = field(default=None, repr=False)
    backup_key: Optional[str] = field(default=None, repr=False)
    ttl_seconds: int = 4 * DAY_SECONDS
