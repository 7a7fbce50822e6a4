"""Questions for root that are answered by a process of their own, and how it writes its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping, Optional, Type

from smtpd_core.daemon.errands import Kind
from smtpd_core.ipc import messages

if TYPE_CHECKING:
    from smtpd_core.ipc.messages import Message


# What is answered by a process of its own, and how many of them there are at once.
KINDS: Mapping[Type[Message], Kind] = {
    messages.ReadForward: Kind("forward", 32, 30),
    messages.ReadInclude: Kind("include", 8, 30),
    messages.FindUser: Kind("user", 16, 30),
    messages.CheckPassword: Kind("password", 4, 20),  # some hashes take 128 megabytes
}


def encode_answer(message: Message) -> bytes:
    """Spell the answer of an errand."""
    number, payload = messages.encode_message(message)
    return bytes((number,)) + payload


def decode_answer(octets: Optional[bytes], asked: Type[Message]) -> Message:
    """Read what the process of an errand wrote."""
    if not octets:
        return messages.Failed("it cannot be known now")
    try:
        message = messages.decode_message(octets[0], octets[1:])
    except messages.MessageError:
        return messages.Failed("it was not answered properly")
    if type(message) not in messages.ANSWERS[asked]:
        return messages.Failed("it was not answered properly")
    return message
