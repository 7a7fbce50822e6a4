"""Envelope files of format 3, drawn: all that the loader of 6.8 accepts, and what is near it.

Source: OpenSMTPD 6.8 envelope.c, to.c, dict.c.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

FILE_OCTETS_MAX = 7559  # of 7.8, the strictest of format 3
SPACE = b" \t\v\f\r"
_DRAWN = 120  # sets of values; a file takes each of its own from any of them
_TIME_MAX = (1 << 62) - 1  # two of them still add up to a time


class Sample(NamedTuple):
    """A file and how it was drawn."""

    octets: bytes
    valid: bool  # whether 6.8 loads it and its daemon would deliver it


def _cut(octets: bytes, limit: int) -> bytes:
    """Make a value of what was drawn: no white space in front, not too long."""
    return octets.translate(None, b"\n\0").lstrip(SPACE)[:limit]


def _octets(limit: int, least: int = 0) -> SearchStrategy[bytes]:
    """Draw values of any octets: short ones, and ones as long as the limit."""
    drawn = st.one_of(
        st.binary(max_size=min(limit, 24)),
        st.text(st.sampled_from("abz09.-_@|\\%<>\u00e9\u4e2d\u202e \t\r"), max_size=12).map(
            lambda text: text.encode()
        ),
        st.builds(bytes.__mul__, st.binary(min_size=1, max_size=3), st.just(limit)),
    ).map(lambda octets: _cut(octets, limit))
    if not least:
        return drawn
    return drawn.map(lambda octets: octets or b"x")


def _words(text: str) -> SearchStrategy[bytes]:
    return st.sampled_from([word.encode() for word in text.split()])


def _number(most: int) -> SearchStrategy[bytes]:
    """Draw numbers with leading zeros and signs."""
    numbers = st.one_of(
        st.integers(0, most), st.integers(0, min(most, 9)), st.sampled_from((0, most))
    )
    return st.builds(
        lambda sign, zeros, number: sign + b"0" * zeros + b"%d" % number,
        st.sampled_from((b"", b"", b"", b"+")),
        st.sampled_from((0, 0, 0, 1, 7, 90)),
        numbers,
    ) | st.just(b"-0")


def _joined(user: bytes, domain: bytes, bare: bool) -> bytes:
    domain = domain.replace(b"@", b"")
    return user.replace(b"@", b"")[:255] if bare else user + b"@" + domain


_ADDRESS = st.one_of(
    st.builds(_joined, _octets(255), _octets(255), st.sampled_from((False, False, False, True))),
    _words("@ a@ @b a@b@c a|b@c.example user@example.org || |@|"),
    st.just(b""),
)


def _recased(word: bytes, mask: int) -> bytes:
    letters = [bytes([octet]) for octet in word]
    return b"".join(
        letter.upper() if mask >> at & 1 else letter for at, letter in enumerate(letters)
    )


def _any_case(words: str) -> SearchStrategy[bytes]:
    return st.builds(_recased, _words(words), st.sampled_from((0, 0, 1, 0xFFFFFF, 0x555555)))


_FLAGS = st.lists(
    st.tuples(
        _any_case("authenticated bounce internal enqueued"), st.sampled_from((b" ", b",", b"|"))
    ),
    min_size=1,
    max_size=6,
).map(lambda pairs: b"".join(word + separator for word, separator in pairs)[:-1])

_IPV6 = st.one_of(
    st.ip_addresses(v=6).map(lambda address: str(address).encode()),
    st.ip_addresses(v=6).map(lambda address: address.exploded.upper().encode()),
    _words(":: ::1 ::ffff:192.0.2.1 2001:DB8::A fe80::1 ff02::2 64:ff9b::198.51.100.7"),
)
_SOCKADDR = st.one_of(
    st.just(b"local"),
    st.ip_addresses(v=4).map(lambda address: str(address).encode()),
    st.builds(lambda prefix, address: prefix + address, _any_case("IPv6:"), _IPV6),
    _IPV6.map(lambda address: b"[" + address + b"]"),
)

_REQUIRED: dict[str, SearchStrategy[bytes]] = {
    "version": st.sampled_from((b"3", b"3", b"3", b"+3", b"0003")),
    "dispatcher": _octets(64, 1),
    "type": _words("mta mda bounce"),
    "helo": _octets(64, 1),
    "hostname": _octets(64, 1),
    "sender": _ADDRESS,
    "rcpt": _ADDRESS,
    "dest": _ADDRESS,
    "ctime": _number(_TIME_MAX),
}
_OPTIONAL: dict[str, SearchStrategy[bytes]] = {
    "tag": _octets(32),
    "smtpname": _octets(64),
    "username": _octets(255),
    "errorline": _octets(2047),
    "sockaddr": _SOCKADDR,
    "last-try": _number(_TIME_MAX),
    "last-bounce": _number(_TIME_MAX),
    "ttl": _number(_TIME_MAX),
    "retry": _number(0xFFFF),
    "flags": _FLAGS,
    "dsn-notify": _number(0xFF),
    "dsn-ret": _words("FULL HDRS"),
    "dsn-envid": _octets(100),
    "dsn-orcpt": _ADDRESS.map(lambda address: address[:500]),
    "esc-class": _number(0xFF),
    "esc-code": _number(0xFF),
    "mda-exec": _octets(2047),
    "mda-subaddress": _octets(255),
    "mda-user": _octets(255),
    "bounce-ttl": _number(_TIME_MAX),
    "bounce-delay": _number(_TIME_MAX),
    "bounce-type": _words("failed delayed delivered error warn dsn"),
}
_SPACES = (b"", b"", b" ", b"\t", b"  ", b"\r", b"\v\f \t")
_MASKS = (0, 0, 0, 1, 0xFFFF)

Pool = dict[str, list[bytes]]  # values by the name of their field


def values() -> SearchStrategy[dict[str, bytes]]:
    """Draw a value for each field."""
    return st.fixed_dictionaries({**_REQUIRED, **_OPTIONAL})


def _lines(pool: Pool, random: Random) -> list[bytes]:
    """Put values together, in any order, case and spacing, some names twice: 6.8 loads it."""
    optional = random.sample(sorted(_OPTIONAL), random.choice((0, 2, 5, 12, len(_OPTIONAL))))
    names = [*_REQUIRED, *optional]
    plain = random.random() < 0.4
    if not plain:
        names += random.choices(names, k=random.randrange(4))
        random.shuffle(names)
    lines = []
    for name in names:
        value = random.choice(pool[name])
        if plain:
            lines.append(name.encode() + b": " + value + b"\n")
            continue
        spelled = _recased(name.encode(), 0 if name == "version" else random.choice(_MASKS))
        lines.append(
            spelled + random.choice(_SPACES) + b":" + random.choice(_SPACES) + value + b"\n"
        )
    if sum(map(len, lines)) > FILE_OCTETS_MAX:  # long values make room, what is required stays
        wanted = [name in _REQUIRED or len(line) < 300 for name, line in zip(names, lines)]
        lines = [line for line, kept in zip(lines, wanted) if kept]
    return lines


_NEAR = (
    b"version: 2\n",
    b"Version: 3\n",
    b"VERSION: 9\n",
    b"version: 65\n",
    b"msgid: 1\n",
    b"expire: 3600\n",
    b"unheard-of: x\n",
    b"tag: " + b"t" * 33 + b"\n",
    b"helo: " + b"h" * 65 + b"\n",
    b"helo:\n",
    b"hostname:\n",
    b"dispatcher:\n",
    b"dispatcher: " + b"d" * 256 + b"\n",
    b"username: " + b"u" * 256 + b"\n",
    b"errorline: " + b"e" * 2048 + b"\n",
    b"dsn-envid: " + b"e" * 101 + b"\n",
    b"dsn-orcpt: " + b"o" * 256 + b"@x\n",
    b"sender: " + b"s" * 256 + b"@x\n",
    b"dest: x@" + b"d" * 256 + b"\n",
    b"ctime: 9223372036854775808\n",
    b"ctime: -1\n",
    b"ctime: 1 \n",
    b"ctime:\n",
    b"ctime: 0x10\n",
    b"ctime: 1e3\n",
    b"ctime: +-1\n",
    b"retry: 65536\n",
    b"retry: 1\r\n",
    b"dsn-notify: 256\n",
    b"dsn-ret: full\n",
    b"dsn-ret:\n",
    b"type: MTA\n",
    b"type:\n",
    b"flags:\n",
    b"flags: bounce,\n",
    b"flags: bounce, internal\n",
    b"flags: held\n",
    b"bounce-type: nothing\n",
    b"sockaddr:\n",
    b"sockaddr: Local\n",
    b"sockaddr: 192.0.2\n",
    b"sockaddr: 192.0.2.01\n",
    b"sockaddr: 192.0.2.1:25\n",
    b"sockaddr: 2001:db8::1\n",
    b"sockaddr: [192.0.2.1]\n",
    b"sockaddr: [::1\n",
    b"sockaddr: [fe80::1%lo]\n",
    b"sockaddr: IPv6:fe80::1%lo\n",
    b"sockaddr: IPv6:[::1]\n",
    b"mta-relay: smtp://x\n",
    b"mda-method: mbox\n",
    b"no colon\n",
    b" folded: x\n",
    b": x\n",
    b"-: x\n",
    b"na_me: x\n",
    b"\n",
    b"\r\n",
    b"nul: a\0b\n",
    b"\x1f\x8b\n",
    b"tag: no end",
)
_DAMAGES = ("line", "line", "line", "edit", "lost", "cut", "long", "crlf")


def _damage(lines: list[bytes], random: Random) -> bytes:
    """Make a file near a valid one: with a line added, lost or cut, octets changed, too long."""
    octets = b"".join(lines)
    kind = random.choice(_DAMAGES)
    at = random.randrange(len(lines) + 1)
    if kind == "line":
        return b"".join([*lines[:at], random.choice(_NEAR), *lines[at:]])
    if kind == "lost":
        return b"".join(lines[:at] + lines[at + 1 :])
    if kind == "cut":
        return octets[: random.randrange(len(octets))]
    if kind == "crlf":
        return octets.replace(b"\n", b"\r\n")
    if kind == "long":
        wanted = random.choice((7558, 7559, 7560, 7566, 7567, 7568, 8400, 65536, 70000))
        missing = max(0, wanted - len(octets))
        return octets + b"tag:\n" * (missing // 5) + b"tag:aaaaa\n"[: missing % 5 and 5]
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(octets))
        replacement = random.randbytes(random.randrange(3))
        octets = octets[:at] + replacement + octets[at + random.randrange(4) :]
    return octets


def mix(pool: Pool, random: Random) -> Sample:
    """Make one file of drawn values; two of three are valid."""
    lines = _lines(pool, random)
    if random.randrange(3):
        return Sample(b"".join(lines), True)
    return Sample(_damage(lines, random), False)


def samples() -> SearchStrategy[Sample]:
    """Draw single files."""
    return st.builds(
        lambda one, random: mix({name: [value] for name, value in one.items()}, random),
        values(),
        st.randoms(use_true_random=False),
    )


def many(count: int) -> list[Sample]:
    """Draw values, and mix very many different files of them."""
    pool: Pool = {name: [] for name in {**_REQUIRED, **_OPTIONAL}}
    seeds = []

    @settings(
        max_examples=_DRAWN,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(values(), st.integers())
    def draw(one: dict[str, bytes], seed: int) -> None:
        seeds.append(seed)
        for name, value in one.items():
            pool[name].append(value)

    draw()
    random = Random(sum(seeds))
    found: dict[bytes, Sample] = {}
    while len(found) < count:
        sample = mix(pool, random)
        found[sample.octets] = sample
    return list(found.values())
