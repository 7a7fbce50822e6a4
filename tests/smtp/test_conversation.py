"""What is known of a conversation; order and texts of commands are tested by dialogs."""

from __future__ import annotations

import pytest

from smtpd_core.smtp import answers
from smtpd_core.smtp.command import CommandError, Hello, Verb
from smtpd_core.smtp.conversation import CHECKS, NEXT_STATE, Conversation, Counters, Options, State

OPTIONS = Options("mx.example", max_errors=1, max_failed_recipients=2, max_idle_commands=3)


def test_server_name() -> None:
    assert OPTIONS.name == "mx.example"
    assert Options("mx.example", server="other.example").name == "other.example"


@pytest.mark.parametrize(
    ("counters", "exhausted"),
    [
        (Counters(errors=1, failed_recipients=2, commands=3), False),
        (Counters(errors=2), True),
        (Counters(failed_recipients=3), True),
        (Counters(commands=4), True),
        (Counters(failed_logins=4), False),
        (Counters(failed_logins=5), True),
    ],
)
def test_patience(counters: Counters, exhausted: bool) -> None:
    assert counters.exhausted(OPTIONS) is exhausted


def test_a_message_forgives_all_but_failed_logins() -> None:
    counters = Counters(errors=2, failed_recipients=3, commands=4, failed_logins=1)
    counters.message_accepted()
    assert counters == Counters(messages=1, failed_logins=1)


def test_auth_is_never_offered_in_clear() -> None:
    talk = Conversation(Options("mx.example", auth_available=True, tls_available=True))
    hello = Hello("c", extended=True)
    assert "AUTH PLAIN LOGIN" not in talk.greeting(hello).lines
    talk.secured = True
    assert talk.greeting(hello).lines[-2:] == ("AUTH PLAIN LOGIN", "HELP")
    talk.authenticated = True
    assert talk.greeting(hello).lines[-2] == "SMTPUTF8"


def test_data_starts_only_behind_a_recipient() -> None:
    starts = [state for (state, verb), then in NEXT_STATE.items() if then is State.DATA]
    assert starts == [State.RCPT]


@pytest.mark.parametrize("state", [State.CONNECT, State.GREETED, State.DATA, State.CLOSED])
@pytest.mark.parametrize("verb", [Verb.STARTTLS, Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.RSET])
def test_out_of_order(state: State, verb: Verb) -> None:
    talk = Conversation(OPTIONS)
    talk.state = state
    with pytest.raises(CommandError) as caught:
        CHECKS[verb](talk, None)
    assert caught.value.reply is answers.NOT_ALLOWED
