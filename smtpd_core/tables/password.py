"""Password hashes: make one, and check a password against one.

SHA-crypt is computed here on hashlib, so `$5$` and `$6$` work on every host. All else is left to
the C library's crypt_r or, where Python cannot call C, to perl's crypt, which asks the same
library. Settings (prefix, cost, salt) are composed here for every scheme, octet for octet as
crypt_gensalt composes them, so a salt comes from the caller's entropy alone and perl needs no
gensalt.

A hash to check may come from a hostile table: its shape and its cost are judged before anything
is computed from it. No error tells a password, nor more of a hash than the scheme it names.

A check of a `$y$jCT$` hash, as OpenSMTPD 7 makes them, takes 128 MB and 140 ms: call from a worker
thread, few at once. A process that will not be able to import later calls available() before.

Longer than most modules: no caller wants one scheme without the judgement of the others.
"""

from __future__ import annotations

import sys
from _operator import _compare_digest  # hmac has it too, but is not everywhere

from smtpd_core.errors import FormatError, LocalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional

    Crypt = Callable[[bytes, str], Optional[str]]
    Entropy = Callable[[int], bytes]

MAX_PASSWORD = 511  # libxcrypt refuses more; also keeps the work of sha-crypt small
MAX_BCRYPT_PASSWORD = 72  # bcrypt never looks at what follows
MAX_HASH = 383  # the longest result crypt(3) may give, less its terminator

SHA_ROUNDS = 5000  # when the setting names none
SHA_ROUNDS_LEAST = 1000
SHA_ROUNDS_MOST = 999_999_999
SHA_SALT = 16
_SALT_OCTETS = 16  # drawn for every scheme: one a letter, or 128 bits spelt in 22 letters

# What a hash to check may cost. Each is past what tools make, and ends within a few seconds.
MAX_SHA_ROUNDS = 1_000_000
MAX_BCRYPT_COST = 16
MAX_MEMORY = 1 << 30  # octets, for yescrypt and scrypt: the dearest that crypt_gensalt makes
_PERL_SECONDS = 60

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LETTERS = frozenset(_ALPHABET)
_VALUE = {letter: value for value, letter in enumerate(_ALPHABET)}
_DIGITS = frozenset("0123456789")
_PLAIN = frozenset(map(chr, range(0x21, 0x7F))) - frozenset("!*:;\\")  # crypt(5)
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT64 = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_CRYPT_DATA = 131_232  # struct crypt_data of glibc; every other C library's is smaller
_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", "libcrypt.so.5", None)  # None: libc itself
_PERLS = ("/usr/bin/perl", "/usr/local/bin/perl")
_PERL_PROGRAM = (
    "binmode STDIN; binmode STDOUT; local $/; my ($s, $p) = split /\\0/, <STDIN>, 2;"
    ' my $h = crypt($p, $s); print defined $h ? $h : "*0"'
)

# Where releases and distributions put the program that makes hashes for smtpctl; {} is the
# directory of the host's own architecture (x86_64-linux-gnu).
_HELPERS = (
    "/usr/libexec/opensmtpd/encrypt",
    "/usr/lib/{}/opensmtpd/encrypt",
    "/usr/lib/opensmtpd/encrypt",
    "/usr/lib64/opensmtpd/encrypt",
    "/usr/lib/smtpd/opensmtpd/encrypt",
    "/usr/libexec/smtpd/encrypt",
    "/usr/local/libexec/opensmtpd/encrypt",
)


class PasswordError(FormatError):
    """A password that cannot be hashed, or a hash that cannot be checked here."""


class Scheme:
    """One way to hash: its prefix, what computes it, and how settings are made and judged.

    `make` composes a setting from entropy; it is None for what is too weak to be made anew.
    `judge` gets what follows the prefix; it raises PasswordError for what it does not know or
    what would cost too much. `sample` is a cheap setting that a library either knows or not.
    """

    __slots__ = ("judge", "make", "name", "prefix", "provider", "sample")

    def __init__(
        self,
        name: str,
        prefix: str,
        judge: Callable[[str], None],
        make: Optional[Callable[[Entropy], str]] = None,
        sample: str = "",
    ) -> None:
        """Describe a scheme; without a sample it is computed here, else by the host."""
        self.name = name
        self.prefix = prefix
        self.provider = "host" if sample else "python"
        self.judge = judge
        self.make = make
        self.sample = sample


def hash_password(password: bytes, scheme: str, *, entropy: Entropy) -> str:
    """Hash a password with a new salt; `scheme` is a name or a prefix (`sha512`, `6`, `$6$`).

    `entropy(n)` gives n random octets. Raises PasswordError for a password that the scheme
    cannot take in whole, and for a scheme that is unknown, only checked, or missing here.
    """
    found = find_scheme(scheme)
    if found is None:
        raise PasswordError("no password scheme of that name is known here")
    if found.make is None:
        raise PasswordError(f"{found.name} hashes are checked but no longer made: too weak")
    if b"\0" in password:
        raise PasswordError("a password cannot hold a NUL octet")
    longest = MAX_BCRYPT_PASSWORD if found.prefix.startswith("$2") else MAX_PASSWORD
    if len(password) > longest:
        raise PasswordError(f"a password for {found.name} has at most {longest} octets")
    setting = found.make(entropy)
    hashed = _compute(found, password, setting)
    if not hashed.startswith(setting):
        raise PasswordError(f"{found.name} hashes cannot be made on this host")
    return hashed


def verify_password(password: bytes, hashed: str) -> bool:
    """Tell whether a password is the one that was hashed, in time that does not tell how nearly.

    False for a locked account (`!` or `*` first), and for a password that hash_password would
    never have taken: longer than MAX_PASSWORD, or with a NUL in it.
    Raises PasswordError for a hash that is damaged, dearer than the limits, of an unknown scheme,
    or of a scheme this host lacks.
    """
    if hashed[:1] in ("!", "*"):
        return False
    if len(hashed) > MAX_HASH or not _PLAIN.issuperset(hashed):
        raise PasswordError("a password hash holds what no hash holds")
    scheme = _scheme_of(hashed)
    scheme.judge(hashed[len(scheme.prefix) :])
    if len(password) > MAX_PASSWORD or b"\0" in password:
        return False
    return _compare_digest(_compute(scheme, password, hashed), hashed)


def find_scheme(text: str) -> Optional[Scheme]:
    """Find a scheme by name or by prefix, with or without its dollar signs; None if unknown."""
    wanted = text.lower()
    identifier = wanted.strip("$")
    for scheme in SCHEMES:
        if wanted == scheme.name or (identifier and identifier == scheme.prefix.strip("$")):
            return scheme
    return None


def available(scheme: Scheme) -> bool:
    """Tell whether a scheme works on this host; loads all that using it needs."""
    if scheme.provider == "python":
        import hashlib  # noqa: F401  what available() promises to have loaded

        return True
    hashed = _host_crypt()(b"", scheme.sample)
    return hashed is not None and hashed.startswith(scheme.sample)


def default_scheme(probe: Callable[[str], Optional[bytes]], *, platform: str = sys.platform) -> str:
    """Name the scheme that this host's own `smtpctl encrypt` would use.

    OpenSMTPD leaves hashing to a small program of its own. In 7.6 and later that program asks the
    C library for its best scheme (crypt_gensalt), which gives yescrypt; in 6.8 and older, and
    where the C library has no crypt_gensalt, it makes SHA-512 hashes. So the program is looked
    for where distributions put it, and its octets for the name of that function; it is never
    run. On OpenBSD the program is the system's and makes bcrypt hashes. Without OpenSMTPD the
    answer is SHA-512, which everything can check.

    `probe(path)` gives the octets of a file, or None when there is none.
    Source: OpenSMTPD 5.7, 6.8 and 7.8, contrib/libexec/encrypt.
    """
    if platform.startswith("openbsd"):
        return "bcrypt"
    architecture = getattr(sys.implementation, "_multiarch", "")
    for pattern in _HELPERS:
        program = probe(pattern.format(architecture))
        if program is not None:
            return "yescrypt" if b"crypt_gensalt" in program else "sha512"
    return "sha512"


def _scheme_of(hashed: str) -> Scheme:
    for scheme in SCHEMES:
        if scheme.prefix and hashed.startswith(scheme.prefix):
            return scheme
    if len(hashed) == 13 and _LETTERS.issuperset(hashed):
        return _DES
    identifier = hashed[1:].partition("$")[0] if hashed[:1] == "$" else ""
    if identifier in _UNSUPPORTED:  # anything else might be a password in clear: not told
        raise PasswordError(f"password hashes of scheme ${identifier}$ cannot be checked here")
    raise PasswordError("a password hash has no scheme that is known here")


def _compute(scheme: Scheme, password: bytes, setting: str) -> str:
    if scheme.provider == "python":
        return sha_crypt(password, setting)
    hashed = _host_crypt()(password, setting)
    if hashed is None:
        raise PasswordError(f"this host cannot compute {scheme.name} hashes")
    return hashed


# SHA-crypt. Source: U. Drepper, "Unix crypt using SHA-256 and SHA-512".


def sha_crypt(password: bytes, setting: str) -> str:
    """Compute a `$5$` or `$6$` hash; a complete hash serves as a setting too.

    Rounds outside 1000 to 999999999 are moved to the nearer limit, and the salt is cut to 16
    octets, as the specification says. Raises PasswordError past MAX_SHA_ROUNDS.
    """
    import hashlib

    prefix = setting[:3]
    wide = prefix == "$6$"
    rounds, named, salt = _sha_setting(setting[3:])
    digest = _sha_digest(
        hashlib.sha512 if wide else hashlib.sha256, password, salt.encode(), rounds
    )
    order = _SHA512_ORDER if wide else _SHA256_ORDER
    rounds_text = f"rounds={rounds}$" if named else ""
    return f"{prefix}{rounds_text}{salt}${_spell(bytes([digest[index] for index in order]))}"


def _sha_setting(body: str) -> tuple[int, bool, str]:
    """Take a setting apart, less its prefix: rounds, whether they were named, salt."""
    rounds, named = SHA_ROUNDS, False
    if body.startswith("rounds="):
        digits, dollar, body = body[7:].partition("$")
        if not dollar or not digits or not _DIGITS.issuperset(digits) or len(digits) > 18:
            raise PasswordError("a password hash has no usable number in rounds=")
        rounds, named = max(SHA_ROUNDS_LEAST, min(int(digits), SHA_ROUNDS_MOST)), True
        if rounds > MAX_SHA_ROUNDS:
            raise PasswordError(f"a password hash asks for more than {MAX_SHA_ROUNDS} rounds")
    return rounds, named, body.partition("$")[0][:SHA_SALT]


def _sha_digest(sha: Callable[[bytes], Any], password: bytes, salt: bytes, rounds: int) -> bytes:
    size = len(password)
    inner: bytes = sha(password + salt + password).digest()
    start = password + salt + _repeat(inner, size)
    bits = size
    while bits:
        start += inner if bits & 1 else password
        bits >>= 1
    state: bytes = sha(start).digest()
    word = _repeat(sha(password * size).digest(), size)
    grain = _repeat(sha(salt * (16 + state[0])).digest(), len(salt))
    # What surrounds the state in round i depends on whether 2, 3 and 7 divide i: 42 cases.
    pairs = []
    for index in range(42):
        middle = (grain if index % 3 else b"") + (word if index % 7 else b"")
        pairs.append((word + middle, b"") if index & 1 else (b"", middle + word))
    cycles, rest = divmod(rounds, 42)
    for _ in range(cycles):
        for before, after in pairs:
            state = sha(before + state + after).digest()
    for before, after in pairs[:rest]:
        state = sha(before + state + after).digest()
    return state


def _repeat(octets: bytes, size: int) -> bytes:
    return (octets * (size // len(octets) + 1))[:size]


def _sha_order(first: tuple[int, int, int], groups: int, turn: int, tail: list[int]) -> list[int]:
    """List the octets of a digest in the order they are spelt: each group is the last one, turned.

    The specification gives each group highest octet first; here they stand lowest first.
    """
    order: list[int] = []
    group = first
    for _ in range(groups):
        order += reversed(group)
        turned = group[turn:] + group[:turn]
        group = (turned[0] + 1, turned[1] + 1, turned[2] + 1)
    return order + tail


_SHA256_ORDER = _sha_order((0, 10, 20), 10, 2, [30, 31])
_SHA512_ORDER = _sha_order((0, 21, 42), 21, 1, [63])


# Settings: from entropy, and from what others wrote.


def _spell(octets: bytes) -> str:
    """Spell octets six bits a letter, lowest bits first, as all schemes but bcrypt do."""
    number = int.from_bytes(octets, "little")
    return "".join([_ALPHABET[number >> shift & 63] for shift in range(0, len(octets) * 8, 6)])


def _draw(entropy: Entropy) -> bytes:
    octets = entropy(_SALT_OCTETS)
    if len(octets) != _SALT_OCTETS:
        raise LocalError("a source of entropy gave less than it was asked for")
    return octets


def _make_sha(prefix: str) -> Callable[[Entropy], str]:
    # 64 letters divide 256 evenly: the low six bits of an octet favour none of them
    return lambda entropy: prefix + "".join([_ALPHABET[x & 63] for x in _draw(entropy)]) + "$"


def _make_wide(prefix: str) -> Callable[[Entropy], str]:
    return lambda entropy: prefix + _spell(_draw(entropy))


def _make_bcrypt(prefix: str) -> Callable[[Entropy], str]:
    def make(entropy: Entropy) -> str:
        import binascii

        spelt = binascii.b2a_base64(_draw(entropy), newline=False)[:22]
        return prefix + "10$" + spelt.translate(bytes.maketrans(_BASE64, _BCRYPT64)).decode()

    return make


def _judge_sha(body: str) -> None:
    _sha_setting(body)
    _judge_digest(body.rpartition("$")[2], 43, 86)


def _judge_yescrypt(body: str) -> None:
    """Judge `jNr$salt$hash`: flavour j, memory of 128 * 2**(N + 1) * (r + 1) octets."""
    parameters, _, rest = body.partition("$")
    values = [_VALUE.get(letter, 64) for letter in parameters]
    if len(values) != 3 or parameters[0] != "j" or max(values[1:]) > 47:  # 48: a longer number
        raise PasswordError("a yescrypt hash has parameters that are not known here")
    _judge_memory(values[1] + 1, values[2] + 1)
    _judge_digest(rest.partition("$")[2], 43)


def _judge_scrypt(body: str) -> None:
    """Judge `Nrrrrrpppppsalt$hash`: memory of 128 * 2**N * r octets, used p times."""
    values = [_VALUE.get(letter, 64) for letter in body[:11]]
    if len(values) != 11 or max(values) > 63:
        raise PasswordError("a scrypt hash has no parameters")
    blocks, lanes = [
        sum(value << 6 * place for place, value in enumerate(five))
        for five in (values[1:6], values[6:])
    ]
    _judge_memory(values[0], blocks * lanes)
    _judge_digest(body.partition("$")[2], 43)


def _judge_memory(power: int, blocks: int) -> None:
    if blocks << power > MAX_MEMORY // 128:
        raise PasswordError(f"a password hash asks for more than {MAX_MEMORY >> 20} MiB")


def _judge_bcrypt(body: str) -> None:
    cost, _, rest = body.partition("$")
    _judge_digest(rest, 53)
    if len(cost) != 2 or not _DIGITS.issuperset(cost) or not 4 <= int(cost) <= MAX_BCRYPT_COST:
        raise PasswordError(f"a bcrypt hash has no cost from 4 to {MAX_BCRYPT_COST}")


def _judge_md5(body: str) -> None:
    _judge_digest(body.partition("$")[2], 22)


def _judge_digest(digest: str, *sizes: int) -> None:
    if len(digest) not in sizes or not _LETTERS.issuperset(digest):
        raise PasswordError("a password hash is damaged or cut short")


# Costs of the settings made here: those of OpenSMTPD 7.8 (yescrypt and scrypt 8, bcrypt 10).
_DES = Scheme("des", "", lambda _: None, None, "..")
SCHEMES = (
    Scheme("sha512", "$6$", _judge_sha, _make_sha("$6$")),
    Scheme("sha256", "$5$", _judge_sha, _make_sha("$5$")),
    Scheme("yescrypt", "$y$", _judge_yescrypt, _make_wide("$y$jCT$"), "$y$j75$0000"),
    Scheme("gost-yescrypt", "$gy$", _judge_yescrypt, _make_wide("$gy$jCT$"), "$gy$j75$0000"),
    Scheme("scrypt", "$7$", _judge_scrypt, _make_wide("$7$DU..../...."), "$7$6U..../....0000"),
    Scheme("bcrypt", "$2b$", _judge_bcrypt, _make_bcrypt("$2b$"), "$2b$04$" + "." * 22),
    Scheme("bcrypt-2a", "$2a$", _judge_bcrypt, _make_bcrypt("$2a$"), "$2a$04$" + "." * 22),
    Scheme("bcrypt-2y", "$2y$", _judge_bcrypt, _make_bcrypt("$2y$"), "$2y$04$" + "." * 22),
    Scheme("md5", "$1$", _judge_md5, None, "$1$0000$"),
    _DES,
)
# Known elsewhere, and safe to name in an error.
_UNSUPPORTED = frozenset(
    ("2", "2x", "3", "md5", "sha1", "sm3", "sm3y", "argon2i", "argon2d", "argon2id", "P", "H")
)


# The host's crypt(3).

_host: list[Crypt] = []  # what was found, once looked for


def _host_crypt() -> Crypt:
    if not _host:
        _host.append(_find_crypt_r() or _perl_crypt)
    return _host[0]


def _find_crypt_r() -> Optional[Crypt]:
    """Find the C library's crypt_r; None when Python cannot call C, or C has none."""
    try:
        import ctypes
    except ImportError:  # python3-minimal
        return None
    for name in _LIBRARIES:
        try:
            crypt_r = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        crypt_r.restype = ctypes.c_char_p

        def call(password: bytes, setting: str, crypt_r: Any = crypt_r) -> Optional[str]:
            data = ctypes.create_string_buffer(_CRYPT_DATA)
            result = _answer(crypt_r(password, setting.encode(), data))
            ctypes.memset(data, 0, _CRYPT_DATA)  # some libraries leave the password in it
            return result

        return call
    return None


def _perl_crypt(password: bytes, setting: str) -> Optional[str]:
    """Ask perl, over its standard input: arguments are public. None when there is no perl."""
    import subprocess

    for perl in _PERLS:
        try:
            done = subprocess.run(  # noqa: S603  a fixed program with fixed arguments
                [perl, "-e", _PERL_PROGRAM],
                input=setting.encode() + b"\0" + password,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"LC_ALL": "C"},  # PERL5OPT and the like would run code of others
                timeout=_PERL_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            continue
        except (OSError, subprocess.TimeoutExpired):
            return None
        return _answer(done.stdout) if done.returncode == 0 else None
    return None


def _answer(result: Optional[bytes]) -> Optional[str]:
    """Take what crypt gave; None for its ways of failing: NULL, nothing, `*0` or `*1`."""
    if not result or result.startswith(b"*") or not result.isascii():
        return None
    return result.decode()
