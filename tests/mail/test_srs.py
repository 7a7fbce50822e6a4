"""Sender rewriting there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.mail import srs
from smtpd_core.mail.srs import DAY_SECONDS, Keys, SrsError, restore, rewrite

KEYS = Keys("secret")
NOW = 1_700_000_000  # day 19675, 219 of its round: G3


# The hashes were computed with `printf %s KEY+TEXT | openssl sha1 -binary | base64`.
@pytest.mark.parametrize(
    ("sender", "domain", "rewritten"),
    [
        ("alice@a.example", "b.example", "SRS0=rila=G3=a.example=alice@b.example"),
        ("a=b@a.example", "b.example", "SRS0=ih9b=G3=a.example=a=b@b.example"),
        (
            "SRS0=abcd=G3=a.example=alice@b.example",
            "c.example",
            "SRS1=mXk9=b.example==abcd=G3=a.example=alice@c.example",
        ),
        (
            "srs1=wxyz=b.example==abcd=G3=a.example=alice@c.example",
            "d.example",
            "SRS1=oV7k=b.example==abcd=G3=a.example=alice@d.example",
        ),
        ("", "b.example", ""),
        ("alice", "b.example", "alice"),
        ("@a.example", "b.example", "@a.example"),
        ("SRS1=abcd@b.example", "c.example", "SRS1=abcd@b.example"),
        ("a" * 64 + "@" + "b" * 240, "c.example", "a" * 64 + "@" + "b" * 240),
    ],
)
def test_rewriting(sender: str, domain: str, rewritten: str) -> None:
    assert rewrite(sender, domain, KEYS, NOW) == rewritten


def test_there_and_back() -> None:
    first = rewrite("alice@a.example", "b.example", KEYS, NOW)
    other = Keys("of c")
    second = rewrite(first, "c.example", other, NOW)
    third = rewrite(second, "d.example", Keys("of d"), NOW)
    assert restore(third, Keys("of d"), NOW) == first
    assert restore(second, other, NOW) == first
    assert restore(first, KEYS, NOW) == "alice@a.example"
    assert restore(first.replace("SRS0", "srs0"), KEYS, NOW) == "alice@a.example"


def test_the_key_used_before_still_opens() -> None:
    rewritten = rewrite("alice@a.example", "b.example", KEYS, NOW)
    assert restore(rewritten, Keys("new", "secret"), NOW) == "alice@a.example"
    with pytest.raises(SrsError, match="not ours"):
        restore(rewritten, Keys("new"), NOW)


@pytest.mark.parametrize(
    ("days", "good"), [(-2, False), (-1, True), (0, True), (4, True), (5, False)]
)
def test_age(days: int, good: bool) -> None:
    inner = rewrite("alice@a.example", "b.example", KEYS, NOW)
    for rewritten in (inner, rewrite(inner, "c.example", KEYS, NOW)):
        now = NOW + days * DAY_SECONDS
        if good:
            restore(rewritten, KEYS, now)
        else:
            with pytest.raises(SrsError, match="days ago"):
                restore(rewritten, KEYS, now)


def signed(tag: str, body: str) -> str:
    return f"{tag}={srs._hash(KEYS.key, body)}={body}"


@pytest.mark.parametrize(
    "address",
    [
        "alice@a.example",
        "SRS0=",
        "SRS0=abcd=G3=a.example=alice@b.example",
        "SRS1=abcd=b.example==abcd=G3=a.example=alice@c.example",
        signed("SRS0", "G3=a.example=alice"),
        signed("SRS0", "G3=a.example@b.example"),
        signed("SRS0", "G3==alice@b.example"),
        signed("SRS0", "G3=a.example=@b.example"),
        signed("SRS0", "1!=a.example=alice@b.example"),
        signed("SRS0", "@b.example"),
        signed("SRS1", "b.example@c.example"),
        signed("SRS1", "b.example==abcd=@c.example"),
        signed("SRS0", "G3=a=b@c").replace("=", "!", 2),
        "SRS0=" + "x" * 1000,
    ],
)
def test_refusals(address: str) -> None:
    with pytest.raises(SrsError):
        restore(address, KEYS, NOW)


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(Keys("secret", "secret")).replace("<secret>", "")


parts = st.text(alphabet="abcXYZ019=+-._", min_size=1, max_size=30)


@given(
    parts,
    parts.map(lambda text: text.replace("=", "")).filter(bool),
    parts,
    st.integers(0, 1 << 33),
)
def test_what_is_rewritten_comes_back(user: str, old: str, new: str, now: int) -> None:
    if not srs.is_srs(user):
        sender = f"{user}@{old}"
        assert restore(rewrite(sender, new, KEYS, now), KEYS, now) == sender


@given(st.text() | st.text(alphabet="SRS01=abG3@.", max_size=40).map(lambda text: "SRS0=" + text))
def test_any_text_is_restored_or_refused(text: str) -> None:
    for address in (text, signed("SRS0", text), signed("SRS1", text)):
        try:
            restore(address, KEYS, NOW)
        except SrsError:
            pass
    rewrite(text, "b.example", KEYS, NOW)
