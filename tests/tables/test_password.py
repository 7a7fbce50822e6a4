"""Hashing and verifying: published vectors, the host's own crypt, hostile hashes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from smtpd_core.errors import FormatError, LocalError
from smtpd_core.tables import password
from smtpd_core.tables.password import (
    MAX_PASSWORD,
    SCHEMES,
    PasswordError,
    available,
    default_scheme,
    find_scheme,
    hash_password,
    sha_crypt,
    verify_password,
)

ROOT = Path(__file__).resolve().parents[2]
LETTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

LONG_TEXT = b"a very much longer text to encrypt.  This one even stretches over morethan one line."
SHORT_SALT_TEXT = b"we have a short salt string but not a short password"
LEAST_TEXT = b"the minimum number is still observed"

# U. Drepper, "Unix crypt using SHA-256 and SHA-512": setting, password, result.
PUBLISHED = [
    (
        "$5$saltstring",
        b"Hello world!",
        "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
    ),
    (
        "$5$rounds=10000$saltstringsaltstring",
        b"Hello world!",
        "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
    ),
    (
        "$5$rounds=5000$toolongsaltstring",
        b"This is just a test",
        "$5$rounds=5000$toolongsaltstrin$Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5",
    ),
    (
        "$5$rounds=1400$anotherlongsaltstring",
        LONG_TEXT,
        "$5$rounds=1400$anotherlongsalts$Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyxf12oP84Bnq1",
    ),
    (
        "$5$rounds=77777$short",
        SHORT_SALT_TEXT,
        "$5$rounds=77777$short$JiO1O3ZpDAxGJeaDIuqCoEFysAe1mZNJRs3pw0KQRd/",
    ),
    (
        "$5$rounds=123456$asaltof16chars..",
        b"a short string",
        "$5$rounds=123456$asaltof16chars..$gP3VQ/6X7UUEW3HkBn2w1/Ptq2jxPyzV/cZKmF/wJvD",
    ),
    (
        "$5$rounds=10$roundstoolow",
        LEAST_TEXT,
        "$5$rounds=1000$roundstoolow$yfvwcWrQ8l/K0DAWyuPMDNHpIVlTQebY9l/gL972bIC",
    ),
    (
        "$6$saltstring",
        b"Hello world!",
        (
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFC"
            "oEOfaS35inz1"
        ),
    ),
    (
        "$6$rounds=10000$saltstringsaltstring",
        b"Hello world!",
        (
            "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8v"
            "OuZeHBy/YTBmSK6H9qs/y3RnOaw5v."
        ),
    ),
    (
        "$6$rounds=5000$toolongsaltstring",
        b"This is just a test",
        (
            "$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1y"
            "xdYcz/e1JSbq3y6JMxxl8audkUEm0"
        ),
    ),
    (
        "$6$rounds=1400$anotherlongsaltstring",
        LONG_TEXT,
        (
            "$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x"
            "9t0oSwbtEW7o7UmJEiDwGqd8p4ur1"
        ),
    ),
    (
        "$6$rounds=77777$short",
        SHORT_SALT_TEXT,
        (
            "$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFm"
            "tlcGZelFl5CxtgfiAc0"
        ),
    ),
    (
        "$6$rounds=123456$asaltof16chars..",
        b"a short string",
        (
            "$6$rounds=123456$asaltof16chars..$BtCwjqMJGx5hrJhZywWvt0RLE8uZ4oPwcelCjmw2kSYu.Ec6ycULevo"
            "BK25fs2xXgMNrCzIMVcgEJAstJeonj1"
        ),
    ),
    (
        "$6$rounds=10$roundstoolow",
        LEAST_TEXT,
        (
            "$6$rounds=1000$roundstoolow$kUMsbe306n21p9R.FRkW3IGn.S9NPN0x50YhH1xhLsPuWGsUSklZt58jaTfF4"
            "ZEQpyUNGc0dqbpBYYBaHHrsX."
        ),
    ),
]

# What `smtpctl encrypt` of real releases printed, by release: password, hash.
PRINTED = [
    (
        "5.7.3",
        b"secret",
        (
            "$6$I41NoFWiRf5tO5iU$V9pnoHqHUg4CYQbVij0Xq1wO0LCqcGu9IaLUQKp5C/gWysU5DPsELbnA0myomDvaGkkN0"
            ".7egumoChNqSxfWt."
        ),
    ),
    (
        "6.8",
        b"secret",
        (
            "$6$SBrrgoaCadEp1VC5$HXBMyVMROADxjmqBNtIQgiPTAzsEjsjJxqtPGj4MH5Ucw.MU8BpNyUsf.trKMxJ/UAnAT"
            "HDkdXFdoXHaxbuU6."
        ),
    ),
    (
        "6.8, a user",
        b"x",
        (
            "$6$PheXAxldEDlpj3LW$JROROyvG5y6go93H4KkwSPcgb3tofeDogd9oD1VDrH4C/7yMweNWhQwRtYKT9U/GCnGth"
            "JumvWKfZnsfbFbYP."
        ),
    ),
    (
        "6.8, first line",
        b"a",
        (
            "$6$6AJEiZ/DWd/ijlaB$HOWkPMdcCqqviQmFdRtYJh3GGYvH/mnDwl091WB/Wpk.bBJEeyv5Y1xJiahvIoTZM3ffS"
            "od0LqO1v9wBHs9.U."
        ),
    ),
    (
        "6.8, empty line",
        b"",
        (
            "$6$p2g8jpMkIHavt7.O$Mox/OHw7Zu1JRA2qG0FdwcncUyK2MXUiQFrTzeAVhmRX/K9Q6bH8JqTZOUa0N49PNX.tK"
            "mY86k/FwlAQTWw3m0"
        ),
    ),
    (
        "6.8, last line without end",
        b"b",
        (
            "$6$pRnAlk8K04vcyeL9$wg6QbDJ/YTCz8ebbb0N2i1u0OEoEyxlMiRMGUzW41rI0SuN2gMra37HucLaNgZvO8Ty/F"
            "rDqJ1XJdcxRi7NNH."
        ),
    ),
    (
        "7.8",
        b"secret",
        "$y$jCT$2.YoFCey7jd2kcxXM62oK0$37lI5/6jHlSNZzsCtqKTT4TtBPyxHje85y41i5pHzA2",
    ),
    (
        "7.8, a user",
        b"x",
        "$y$jCT$.1fv1ApvqR9qraoCJ9cb40$RJn9j2mOKEWym0bZdsr4KJFJ0vIZeYerOQOgH.brXQ9",
    ),
]

# Hashes of other programs: password, hash.
OTHERS = [
    (b"x", "$y$j9T$abcd$5ZeaavQmS6tWE3reXsfHtJf07p2B4x9UMmwVgSTdix."),
    (b"rasmuslerdorf", "$2a$07$rasmuslerd............nIdrcHdxcUxWomQX9j6kvERCFjTg7Ra"),
    (b"rasmuslerdorf", "$1$rasmusle$rISCgZzpwk3UhDidwXvin0"),
    (b"Hello world!", "$1$saltstri$YMyguxXMBpd2TEZ.vS/3q1"),
    (b"rasmuslerdorf", "rl.3StKT.4T8M"),
]

DIGEST = "37lI5/6jHlSNZzsCtqKTT4TtBPyxHje85y41i5pHzA2"
BCRYPT_REST = "rasmuslerd............nIdrcHdxcUxWomQX9j6kvERCFjTg7Ra"
TOO_DEAR = [
    "$6$rounds=999999999$salt$" + "a" * 86,
    "$5$rounds=1000001$salt$" + "a" * 43,
    "$6$rounds=99999999999999999999999999$salt$" + "a" * 86,
    f"$y$jGT$abcd${DIGEST}",
    f"$y$jhT$abcd${DIGEST}",
    f"$gy$jFj$abcd${DIGEST}",
    f"$7$IU..../....abcd${DIGEST}",
    f"$7$DU..../..z.abcd${DIGEST}",
    f"$7$zzzzzzzzzzzabcd${DIGEST}",
    f"$2b$17${BCRYPT_REST}",
    f"$2b$31${BCRYPT_REST}",
]
DAMAGED = [
    "",
    "x",
    "secret",
    "$",
    "$6",
    "$6$",
    "$6$salt",
    "$6$salt$",
    "$6$salt$abc",
    "$6$rounds=$salt$" + "a" * 86,
    "$6$rounds=5000",
    "$6$rounds=-1$salt$" + "a" * 86,
    "$6$rounds=1e3$salt$" + "a" * 86,
    "$6$sa:lt$" + "a" * 86,
    "$6$salt$" + "a" * 85 + "\n",
    "$6$salt$" + "a" * 85 + "\udcff",
    "$6$s\u00e4lt$" + "a" * 86,
    "$6$salt$" + "a" * 86 + "\0",
    "$6$" + "s" * 300 + "$" + "a" * 86,
    "$y$",
    "$y$jCT$",
    "$y$jCT$2.YoFCey7jd2kcxXM62oK0",
    f"$y$jCT$abcd${DIGEST[:-1]}",
    f"$y$jCTT$abcd${DIGEST}",
    f"$y$jC$abcd${DIGEST}",
    f"$y$jjT$abcd${DIGEST}",
    f"$y$.CT$abcd${DIGEST}",
    f"$y$j9k$abcd${DIGEST}",
    f"$y$j,T$abcd${DIGEST}",
    "$7$DU....",
    f"$7$D,..../....abcd${DIGEST}",
    "$2b$",
    f"$2b$1${BCRYPT_REST}",
    f"$2b$03${BCRYPT_REST}",
    f"$2b$0x${BCRYPT_REST}",
    f"$2b$10${BCRYPT_REST[:-1]}",
    "$1$saltstri$YMyguxXMBpd2TEZ.vS/3q",
    "rl.3StKT.4T8M.",
    "rl.3StKT,4T8M",
]


def draw(octets: int) -> bytes:
    """Stand in for os.urandom with octets that are always the same."""
    return bytes((7 * index + 200) % 256 for index in range(octets))


@pytest.mark.parametrize(("setting", "secret", "expected"), PUBLISHED)
def test_published_vectors(setting: str, secret: bytes, expected: str) -> None:
    assert sha_crypt(secret, setting) == expected
    assert verify_password(secret, expected)


@pytest.mark.parametrize(("release", "secret", "hashed"), PRINTED, ids=lambda value: str(value)[:9])
def test_hashes_that_real_releases_printed(release: str, secret: bytes, hashed: str) -> None:
    assert verify_password(secret, hashed)
    assert not verify_password(secret + b"x", hashed)


@pytest.mark.parametrize(("secret", "hashed"), OTHERS)
def test_hashes_of_other_programs(secret: bytes, hashed: str) -> None:
    assert verify_password(secret, hashed)
    assert not verify_password(b"R" + secret[1:], hashed)


@pytest.mark.parametrize("scheme", [each for each in SCHEMES if each.make], ids=lambda s: s.name)
def test_every_scheme_that_makes_hashes_checks_them(scheme: password.Scheme) -> None:
    if not available(scheme):
        pytest.skip(f"no {scheme.name} on this host")
    hashed = hash_password(b"s\xc3\xa9same \xff", scheme.name, entropy=draw)
    assert hashed.startswith(scheme.prefix)
    assert verify_password(b"s\xc3\xa9same \xff", hashed)
    assert not verify_password(b"s\xc3\xa9same \xfe", hashed)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("sha512", "sha512"),
        ("SHA512", "sha512"),
        ("6", "sha512"),
        ("$6$", "sha512"),
        ("$5", "sha256"),
        ("y", "yescrypt"),
        ("$gy$", "gost-yescrypt"),
        ("7", "scrypt"),
        ("bcrypt", "bcrypt"),
        ("2b", "bcrypt"),
        ("2a", "bcrypt-2a"),
        ("2y", "bcrypt-2y"),
        ("des", "des"),
        ("", None),
        ("$", None),
        ("$$", None),
        ("argon2id", None),
        ("sha", None),
    ],
)
def test_names_of_schemes(typed: str, name: Optional[str]) -> None:
    found = find_scheme(typed)
    assert (found.name if found else None) == name


def test_the_default_form_is_the_one_of_the_original() -> None:
    hashed = hash_password(b"secret", "sha512", entropy=os.urandom)
    assert len(hashed) == 106
    _, identifier, salt, _ = hashed.split("$")
    assert identifier == "6"
    assert len(salt) == 16
    assert set(salt) <= set(LETTERS)
    assert hashed != hash_password(b"secret", "sha512", entropy=os.urandom)


def test_no_letter_of_a_salt_is_favoured() -> None:
    counts: Counter[str] = Counter()
    for first in range(0, 256, 16):
        octets = bytes(range(first, first + 16))
        hashed = hash_password(b"", "sha256", entropy={16: octets}.__getitem__)
        counts.update(hashed.split("$")[2])
    assert counts == dict.fromkeys(LETTERS, 4)


def test_short_entropy_is_our_own_mistake() -> None:
    for name in ("sha512", "yescrypt", "bcrypt"):
        with pytest.raises(LocalError):
            hash_password(b"secret", name, entropy=lambda n: b"x" * (n - 1))


@pytest.mark.parametrize(
    ("name", "prefix", "cost"),
    [
        ("yescrypt", b"$y$", 8),
        ("gost-yescrypt", b"$gy$", 8),
        ("scrypt", b"$7$", 8),
        ("bcrypt", b"$2b$", 10),
        ("bcrypt-2a", b"$2a$", 10),
        ("bcrypt-2y", b"$2y$", 10),
    ],
)
@given(octets=st.binary(min_size=16, max_size=16))
@settings(max_examples=25)
def test_settings_are_those_of_the_host(name: str, prefix: bytes, cost: int, octets: bytes) -> None:
    try:
        gensalt = ctypes.CDLL("libcrypt.so.1").crypt_gensalt_rn
    except (OSError, AttributeError):
        pytest.skip("no crypt_gensalt_rn on this host")
    gensalt.restype = ctypes.c_char_p
    buffer = ctypes.create_string_buffer(192)
    expected = gensalt(prefix, ctypes.c_ulong(cost), octets, 16, buffer, 192)
    scheme = find_scheme(name)
    assert scheme is not None
    assert scheme.make is not None
    assert scheme.make(lambda _: octets) == expected.decode()


@given(
    secret=st.binary(max_size=140).filter(lambda octets: b"\0" not in octets),
    salt=st.text(LETTERS, max_size=20),
    rounds=st.one_of(st.none(), st.integers(1000, 1300)),
    prefix=st.sampled_from(["$5$", "$6$"]),
)
@settings(max_examples=60)
def test_sha_crypt_agrees_with_the_host(
    secret: bytes, salt: str, rounds: Optional[int], prefix: str
) -> None:
    crypt = password._find_crypt_r()
    if crypt is None:
        pytest.skip("no crypt_r on this host")
    setting = prefix + (f"rounds={rounds}$" if rounds else "") + salt
    expected = crypt(secret, setting)
    assume(expected is not None)  # a C library may refuse what the specification allows
    assert sha_crypt(secret, setting) == expected


def test_a_password_as_long_as_can_be_agrees_with_the_host() -> None:
    crypt = password._find_crypt_r()
    if crypt is None:
        pytest.skip("no crypt_r on this host")
    secret = bytes(range(1, 256)) * 3
    assert sha_crypt(secret[:MAX_PASSWORD], "$6$salt") == crypt(secret[:MAX_PASSWORD], "$6$salt")


@pytest.mark.parametrize("hashed", TOO_DEAR)
def test_a_hash_that_would_cost_too_much_is_refused(hashed: str) -> None:
    with pytest.raises(PasswordError, match=r"more than|usable number|cost"):
        verify_password(b"secret", hashed)


@pytest.mark.parametrize("hashed", DAMAGED)
def test_a_damaged_hash_is_refused(hashed: str) -> None:
    with pytest.raises(PasswordError):
        verify_password(b"secret", hashed)


@pytest.mark.parametrize("hashed", ["!", "*", "!!", "*LK*", "!" + PRINTED[0][2]])
def test_a_locked_account_has_no_password(hashed: str) -> None:
    assert not verify_password(b"secret", hashed)
    assert not verify_password(b"", hashed)


def test_rounds_that_no_library_writes_match_nothing() -> None:
    _, secret, hashed = PUBLISHED[6]
    assert verify_password(secret, hashed)
    assert not verify_password(secret, hashed.replace("rounds=1000", "rounds=999"))
    assert not verify_password(secret, hashed.replace("rounds=1000", "rounds=01000"))


def test_an_unsupported_scheme_is_named_but_a_password_in_clear_is_not() -> None:
    with pytest.raises(PasswordError, match=r"\$argon2id\$"):
        verify_password(b"secret", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$abc")
    for clear in ("$ecret$and$more", "hunter2", "$ecret"):
        with pytest.raises(PasswordError) as caught:
            verify_password(b"x", clear)
        assert "ecret" not in str(caught.value)
        assert "hunter" not in str(caught.value)
    assert issubclass(PasswordError, FormatError)


@pytest.mark.parametrize("name", ["sha512", "sha256", "bcrypt", "yescrypt"])
def test_passwords_that_cannot_be_hashed(name: str) -> None:
    longest = 72 if name == "bcrypt" else MAX_PASSWORD
    for secret in (b"tell\0nobody", b"\0", b"nobody" * 100, b"n" * (longest + 1)):
        with pytest.raises(PasswordError) as caught:
            hash_password(secret, name, entropy=draw)
        assert "nobody" not in str(caught.value)


@pytest.mark.parametrize("name", ["des", "md5", "1", "nothing", ""])
def test_schemes_that_make_no_hashes(name: str) -> None:
    with pytest.raises(PasswordError):
        hash_password(b"secret", name, entropy=draw)


def test_a_password_that_is_never_hashed_is_never_right() -> None:
    hashed = sha_crypt(b"s" * MAX_PASSWORD, "$6$salt")
    assert verify_password(b"s" * MAX_PASSWORD, hashed)
    assert not verify_password(b"s" * (MAX_PASSWORD + 1), sha_crypt(b"s" * 512, "$6$salt"))
    assert not verify_password(b"secret\0", PRINTED[0][2])
    assert not verify_password(b"secret\0", PRINTED[6][2])


CHEAP = [
    "$6$rounds=1000$salt$" + "a" * 86,
    "$5$rounds=1000$salt$" + "a" * 43,
    f"$y$j75$abcd${DIGEST}",
    f"$7$6U..../....abcd${DIGEST}",
    f"$2b$04${BCRYPT_REST}",
    "$1$saltstri$YMyguxXMBpd2TEZ.vS/3q1",
    "rl.3StKT.4T8M",
]


@given(st.text(max_size=60), st.binary(max_size=40))
def test_any_text_as_hash_gives_an_answer_or_the_error(hashed: str, secret: bytes) -> None:
    try:
        assert not verify_password(secret, hashed)
    except PasswordError:
        pass


@given(st.binary(max_size=200))
def test_any_octets_as_hash_give_an_answer_or_the_error(octets: bytes) -> None:
    try:
        assert not verify_password(b"secret", octets.decode("utf-8", "surrogateescape"))
    except PasswordError:
        pass


@given(
    st.sampled_from(CHEAP),
    st.lists(st.tuples(st.integers(0, 110), st.sampled_from(LETTERS + "$=,!")), max_size=3),
)
@settings(max_examples=60)
def test_a_hash_changed_anywhere_gives_an_answer_or_the_error(
    hashed: str, changes: list[tuple[int, str]]
) -> None:
    for place, letter in changes:
        hashed = hashed[:place] + letter + hashed[place + 1 :]
    try:
        assert verify_password(b"secret", hashed) is False
    except PasswordError:
        pass


def test_perl_gives_what_the_library_gives() -> None:
    crypt = password._find_crypt_r()
    if crypt is None or password._perl_crypt(b"", "..") is None:
        pytest.skip("no crypt_r, or no perl, on this host")
    for secret in (b"", b"secret", b" \n\r\t", b"\xff\xfe\x80", b"'\"$x@{[die]}\\0", b"x" * 511):
        for setting in ("$y$j75$abcd", "$2b$04$" + "a" * 22, "$6$salt", "$1$salt", "ab"):
            assert password._perl_crypt(secret, setting) == crypt(secret, setting)
    assert password._perl_crypt(b"secret", "$nothing$") is None
    assert crypt(b"secret", "$nothing$") is None


# Runs without what Debian's python3-minimal lacks.
_MINIMAL = """
import sys
sys.path.insert(0, sys.argv[1])
for name in ("ctypes", "_ctypes", "hmac", "secrets", "crypt", "_crypt", "tempfile", "shutil"):
    sys.modules[name] = None
from smtpd_core.tables import password
for line in sys.argv[2:]:
    print(password.verify_password(b"secret", line), password.verify_password(b"Secret", line))
yescrypt = password.find_scheme("yescrypt")
print(password.available(yescrypt))
"""


def test_without_ctypes() -> None:
    hashes = [PRINTED[0][2], PRINTED[6][2]]
    perl = password._perl_crypt(b"", "$y$j75$0000") is not None
    done = subprocess.run(
        [sys.executable, "-ISBc", _MINIMAL, str(ROOT), *hashes[: 1 + perl]],
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    assert done.stdout.decode().split() == ["True", "False"] * (1 + perl) + [str(perl)]


def test_importing_the_module_is_cheap() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules);"
        "import smtpd_core.tables.password; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-ISBc", script, str(ROOT)], stdout=subprocess.PIPE, check=True, timeout=30
    )
    loaded = [
        name for name in done.stdout.decode().split() if name.partition(".")[0] != "smtpd_core"
    ]
    assert set(loaded) <= {"__future__", "_operator"}


PROGRAMS = {
    "/usr/libexec/opensmtpd/encrypt": b"\x7fELF...\0crypt\0libcrypt.so.1\0",
    "/usr/local/libexec/opensmtpd/encrypt": b"\x7fELF...\0crypt_gensalt\0crypt\0libcrypt.so.1\0",
}


@pytest.mark.parametrize(
    ("installed", "platform", "expected"),
    [
        ([], "linux", "sha512"),
        (["/usr/libexec/opensmtpd/encrypt"], "linux", "sha512"),
        (["/usr/local/libexec/opensmtpd/encrypt"], "linux", "yescrypt"),
        (list(PROGRAMS), "linux", "sha512"),
        (["/usr/local/libexec/opensmtpd/encrypt"], "freebsd14", "yescrypt"),
        ([], "openbsd7", "bcrypt"),
    ],
)
def test_the_default_scheme_follows_the_program_of_the_host(
    installed: list[str], platform: str, expected: str
) -> None:
    found = {path: PROGRAMS[path] for path in installed}
    assert default_scheme(found.get, platform=platform) == expected


def test_the_program_of_debian_is_found_under_its_architecture() -> None:
    asked: list[str] = []
    default_scheme(asked.append, platform="linux")
    architecture = getattr(sys.implementation, "_multiarch", "")
    assert f"/usr/lib/{architecture}/opensmtpd/encrypt" in asked
    assert all(path.startswith("/usr/") and path.endswith("/encrypt") for path in asked)


@pytest.mark.system
def test_the_smtpctl_of_the_host() -> None:
    smtpctl = Path("/usr/sbin/smtpctl")
    if not smtpctl.exists() or smtpctl.read_bytes()[:4] != b"\x7fELF":
        pytest.skip("no OpenSMTPD on this host")

    def probe(path: str) -> Optional[bytes]:
        return Path(path).read_bytes() if Path(path).is_file() else None

    done = subprocess.run(
        [str(smtpctl), "encrypt", "secret"], stdout=subprocess.PIPE, check=False, timeout=30
    )
    if done.returncode != 0:
        pytest.skip("its smtpctl hashes nothing for us")
    hashed = done.stdout.decode().strip()
    scheme = find_scheme(default_scheme(probe))
    assert scheme is not None
    assert hashed.startswith(scheme.prefix)
    assert verify_password(b"secret", hashed)
    assert not verify_password(b"Secret", hashed)
