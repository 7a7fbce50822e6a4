"""From an envelope, its action and its user to the job that delivers it.

Source: OpenSMTPD 7.8; smtpd.conf(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Mapping, NamedTuple, Optional, Tuple, Union

from smtpd_core.config import model
from smtpd_core.mail.address import NULL_ADDRESS, Address
from smtpd_core.mail.received import delivered_to, return_path
from smtpd_core.mda.host import SEARCH_PATH
from smtpd_core.mda.job import (
    EX_CONFIG,
    EX_DATAERR,
    EX_NOUSER,
    TIMEOUT_SECONDS,
    Job,
    JobResult,
    Method,
    refuse,
    refused,
)
from smtpd_core.mda.script import Script, shell_script
from smtpd_core.mda.variables import Values, VariableError, expand_path
from smtpd_core.routing.stored import FILE_METHOD, literal
from smtpd_core.text import decode

if TYPE_CHECKING:
    from smtpd_core.queue.envelope import Envelope
    from smtpd_core.routing.policy import User

MAILDIR = "Maildir"  # in the home directory, when an action names none
LIBEXEC = "/usr/libexec/opensmtpd"  # as stored commands spell it; nothing need be there
CANNOT_EXPAND = "mda command line could not be expanded"

_FILE_PROGRAM = "mail.mboxfile"
_FILE_COMMAND = re.compile(r"(?:/\S*/)?mail\.mboxfile -f %\{mbox\.from\} (/.+)")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_NOT_EXPANDED = 1  # exit status
# What a wrapper's %{mda} is where no program delivers: the message goes back to who started it.
_GIVE_BACK = "cat >&3"


@dataclass(frozen=True)
class Site:
    """What is configured for all deliveries."""

    delimiter: str = "+"
    wrappers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: int = TIMEOUT_SECONDS


class Users(NamedTuple):
    """Whose mail it is, and, where the action names somebody, who delivers it.

    named is None when the action names a user that does not exist.
    """

    recipient: User
    named: Optional[User] = None


def file_command(path: str, libexec: str = LIBEXEC) -> str:
    """Spell the command by which an envelope says that a file is appended to."""
    return f"{libexec}/{_FILE_PROGRAM} -f %{{mbox.from}} {path}"


def parse_file_command(command: str) -> Optional[str]:
    """Give the file that a stored command appends to; None when it is any other command."""
    match = _FILE_COMMAND.fullmatch(command)
    return match[1] if match else None


def plan(
    envelope: Envelope, action: model.LocalAction, users: Users, site: Site
) -> Union[Job, JobResult]:
    """Make the job of an envelope, or the result of one that cannot be run."""
    recipient = users.recipient
    runner = users.named if action.user is not None and not envelope.mda_exec else recipient
    if runner is None:
        return refused(EX_NOUSER, f"delivery user '{action.user}' does not exist")
    texts = (envelope.sender, envelope.rcpt, envelope.dest, envelope.mda_subaddress)
    if any(_CONTROL.search(each) for each in (*texts, recipient.name, runner.home)):
        return refused(EX_DATAERR, "the envelope holds a control character")
    sender = "" if envelope.sender == "@" else envelope.sender
    values = Values(
        sender, envelope.rcpt, envelope.dest, recipient.name, runner.home, site.delimiter
    )
    try:
        found = _how(envelope, action, values, site)
    except VariableError:
        return refused(_NOT_EXPANDED, CANNOT_EXPAND)
    if found is None:
        return refused(EX_CONFIG, f"action {action.name} delivers nothing by itself")
    environment = _environment(values, runner.home, envelope.mda_subaddress)
    job = Job(
        method=found.method,
        user=recipient.name,
        uid=runner.uid,
        gid=runner.gid,
        home=runner.home,
        argument=found.argument,
        script=found.script.text,
        environment=(*environment, *found.script.variables) if found.script.text else (),
        sender=sender,
        rcpt=envelope.rcpt,
        dest=envelope.dest,
        sub_address=envelope.mda_subaddress,
        junk=action.junk,
        rcpt_to=action.rcpt_to,
        timeout_seconds=site.timeout_seconds,
        prefix=decode(_prefix(envelope)),
    )
    return refuse(job) or job


class _How(NamedTuple):
    method: Method
    argument: str = ""
    script: Script = Script("")


def _how(
    envelope: Envelope, action: model.LocalAction, values: Values, site: Site
) -> Optional[_How]:
    """Choose the method, and expand what it needs; None for an action that only expands."""
    wrapper = None
    if action.wrapper is not None:
        wrapper = site.wrappers.get(action.wrapper)
    if envelope.mda_method == FILE_METHOD:
        return _How(Method.FILE, expand_path(literal(envelope.mda_buffer), values))
    if envelope.mda_exec:
        path = parse_file_command(envelope.mda_exec)
        if path is not None:
            return _How(Method.FILE, expand_path(path, values))
        return _How(Method.COMMAND, "", shell_script(envelope.mda_exec, values, wrapper))
    if action.method is model.Method.MDA:
        return _How(Method.COMMAND, "", shell_script(action.argument, values, wrapper))
    around = Script("") if wrapper is None else shell_script(_GIVE_BACK, values, wrapper)
    if action.method is model.Method.MAILDIR:
        pattern = action.argument or f"~/{MAILDIR}"
        return _How(Method.MAILDIR, expand_path(pattern, values), around)
    if action.method is model.Method.LMTP:
        return _How(Method.LMTP, expand_path(action.argument, values), around)
    return _How(Method.MBOX) if action.method is model.Method.MBOX else None


def _environment(values: Values, home: str, sub_address: str) -> Tuple[Tuple[str, str], ...]:
    """Give the environment of a command: all of it."""
    local_part, _, domain = values.rcpt.rpartition("@")
    environment = (
        ("PATH", SEARCH_PATH),
        ("DOMAIN", domain),
        ("HOME", home),
        ("ORIGINAL_RECIPIENT", values.rcpt),
        ("RECIPIENT", values.dest),
        ("SHELL", "/bin/sh"),
        ("LOCAL", local_part),
        ("LOGNAME", values.username),
        ("USER", values.username),
        ("SENDER", values.sender),
    )
    return (*environment, ("EXTENSION", sub_address)) if sub_address else environment


def address_of(text: str) -> Address:
    """Read an address as an envelope stores it; `@` and nothing are the null address."""
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain) if local_part or domain else NULL_ADDRESS


def _prefix(envelope: Envelope) -> bytes:
    return return_path(address_of(envelope.sender)) + delivered_to(address_of(envelope.rcpt))
