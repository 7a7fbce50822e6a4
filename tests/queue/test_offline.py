from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.queue.offline import (
    RECIPIENTS_MAX,
    OfflineError,
    Submission,
    parse_submission,
)

# (first line, sender, recipients)
LINES = [
    (b"a@b", "", ["a@b"]),
    (b"a@b|c", "", ["a@b", "c"]),
    (b"-f|x@y|a@b", "x@y", ["a@b"]),
    (b"-fx@y|a@b", "x@y", ["a@b"]),
    (b"-r|x@y|a@b", "x@y", ["a@b"]),
    (b"-f||a@b", "", ["a@b"]),
    (b"-F|Some One|-i|a@b", "", ["a@b"]),
    (b"-N|never|-R|full|-V|id|root", "", ["root"]),
    (b"-i|a b@c", "", ["a b@c"]),
    (b"-im|a@b", "", ["a@b"]),
    (b"-oi|-oem|a@b", "", ["a@b"]),
    (b"-if|x@y|a@b", "x@y", ["a@b"]),
    (b"-E|a@b", "", ["a@b"]),
    (b"-Exyz|a@b", "", ["a@b"]),
    (b"-L|label|-A|c|a@b", "", ["a@b"]),
    (b"--|-f", "", ["-f"]),
    (b"-i|--|-f|x", "", ["-f", "x"]),
    (b"-|a", "", ["-", "a"]),
    (b"-f", "", []),
    (b"", "", [""]),
    (b"\xe9@b", "", ["\udce9@b"]),
]


@pytest.mark.parametrize(("line", "sender", "recipients"), LINES)
def test_arguments(line: bytes, sender: str, recipients: list[str]) -> None:
    submission = parse_submission(line + b"\nSubject: x\n\ntext\n")
    assert (submission.sender, submission.recipients) == (sender, recipients)
    assert not submission.cut


# A header, and the recipients in it.
HEADERS = [
    (b"To: a@b\n", ["a@b"]),
    (b"TO : a@b\ncc:c@d\nBcc: <e@f>\n", ["a@b", "c@d", "e@f"]),
    (b"Subject: x\nTo: a@b,\n\tc@d,\n  e@f\nCc: g@h\n", ["a@b", "c@d", "e@f", "g@h"]),
    (b'To: "A, B" <a@b>, c@d (C, D), Group: e@f, g@h;\n', ["a@b", "c@d", "e@f", "g@h"]),
    (b'To: "x\\"y, z" <a@b>\n', ["a@b"]),
    (b"To: A <a@b> (nested (comment), here), c@d\n", ["a@b", "c@d"]),
    (b"To: undisclosed-recipients:;\n", []),
    (b"To: ,, a@b,\n", ["a@b"]),
    (b"To: a@b\n\nTo: body@b\n", ["a@b"]),
    (b"To: a@b\nno header\nTo: c@d\n", ["a@b"]),
    (b"X-To: a@b\n", []),
    (b" To: a@b\n", []),
    (b"To: root\n", ["root"]),
]


@pytest.mark.parametrize(("header", "recipients"), HEADERS)
def test_recipients_from_the_header(header: bytes, recipients: list[str]) -> None:
    assert parse_submission(b"-t\n" + header + b"\ntext\n").recipients == recipients
    assert parse_submission(b"-t|z\n" + header).recipients == ["z", *recipients]
    assert parse_submission(b"-i|z\n" + header).recipients == ["z"]


@pytest.mark.parametrize(
    ("head", "reason"), [(b"", "the file is empty"), (b"a@b", "its first line is not ended")]
)
def test_what_a_sendmail_that_failed_leaves(head: bytes, reason: str) -> None:
    with pytest.raises(OfflineError, match=reason):
        parse_submission(head)


@pytest.mark.parametrize("count", [RECIPIENTS_MAX, RECIPIENTS_MAX + 1])
def test_recipients_are_bounded(count: int) -> None:
    submission = parse_submission(b"|".join([b"a@b"] * count) + b"\n")
    assert len(submission.recipients) == RECIPIENTS_MAX
    assert submission.cut == (count > RECIPIENTS_MAX)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda tail: b"-t\n" + tail)))
def test_any_octets_give_a_submission_or_a_refusal(head: bytes) -> None:
    try:
        assert isinstance(parse_submission(head), Submission)
    except OfflineError:
        pass


def test_a_hostile_header_is_read_in_time() -> None:
    for header in (b"(" * 65000, b'"' * 65000, b"," * 65000, b"<" * 65000, b"x" * 65000):
        parse_submission(b"-t\nTo: " + header + b"\n")
        parse_submission(b"-t\nTo: x" + b"\n " * 32000)


def test_options_behind_recipients_are_options() -> None:
    submission = parse_submission(b"bob@x.org|-f|a@b.c|-i\nSubject: x\n\n")
    assert (submission.sender, submission.recipients) == ("a@b.c", ["bob@x.org"])


def test_nothing_is_an_option_behind_the_end_of_options() -> None:
    submission = parse_submission(b"-f|a@b.c|--|-f|bob@x.org\n\n")
    assert (submission.sender, submission.recipients) == ("a@b.c", ["-f", "bob@x.org"])
