"""AES-256-GCM: published vectors, both backends against each other, and how one is chosen."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import random
import resource
import subprocess
import sys
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import LocalError
from smtpd_core.queue import aesgcm
from smtpd_core.queue.aesgcm import OPENSSL, PURE, AesGcm

ROOT = pathlib.Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests/vectors/aesgcm/gcm.json").read_text())
KEY = bytes(range(32))
IV = bytes(range(12))

NEEDS_OPENSSL = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("ctypes", "_hashlib"))),
    reason="this Python has no way to libcrypto",
)
BACKENDS = [PURE, pytest.param(OPENSSL, marks=NEEDS_OPENSSL)]


def run(script: str) -> list[str]:
    """Run a script in a fresh Python, where nothing was loaded yet."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_published_vectors(vector: dict[str, str], backend: str) -> None:
    key, iv, text, ciphertext, tag = (
        bytes.fromhex(vector[name]) for name in ("key", "iv", "text", "ciphertext", "tag")
    )
    cipher = AesGcm(key, backend)
    assert cipher.encrypt(iv, text) == (ciphertext, tag)
    assert cipher.decrypt(iv, ciphertext, tag) == text


def test_one_block_of_the_pure_cipher() -> None:
    # FIPS 197 appendix C.3, whose block is taken for an IV and a counter.
    block = bytes.fromhex("00112233445566778899aabbccddeeff")
    stream = aesgcm._PureKey(KEY).keystream(block[:12], int.from_bytes(block[12:], "big"), 3)
    assert stream[:16].hex() == "8ea2b7ca516745bfeafc49904b496089"
    assert len(stream) == 48


@given(st.integers(0, 0xFFFFFFFF), st.integers(1, 700), st.sampled_from([0, 8, 16, 24]))
def test_counters_carry_and_wrap(counter: int, blocks: int, shift: int) -> None:
    numbers = range(counter, counter + blocks)
    expected = bytes(number >> shift & 0xFF for number in numbers)
    assert aesgcm._count(counter, blocks, shift) == expected


def sizes() -> list[int]:
    chance = random.Random(1)
    edges = [1007, 1008, 1009, 4095, 4096, 65535, 65536, 65537, 131072, 199_999, 200_000]
    return [*range(130), *edges, *(chance.randrange(200_000) for _ in range(8))]


@NEEDS_OPENSSL
def test_backends_agree_on_every_size() -> None:
    chance = random.Random(2)
    pure, openssl = AesGcm(KEY, PURE), AesGcm(KEY, OPENSSL)
    for size in sizes():
        iv = chance.getrandbits(96).to_bytes(12, "big")
        text = chance.getrandbits(8 * size + 1).to_bytes(size + 1, "big")[1:]
        ciphertext, tag = openssl.encrypt(iv, text)
        assert pure.encrypt(iv, text) == (ciphertext, tag), size
        assert pure.decrypt(iv, ciphertext, tag) == text, size
        assert openssl.decrypt(iv, ciphertext, tag) == text, size


@pytest.mark.parametrize("backend", BACKENDS)
@given(data=st.data())
def test_same_result_however_the_text_is_cut(backend: str, data: st.DataObject) -> None:
    text = data.draw(st.binary(max_size=3000))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    ends = list(zip([0, *cuts], [*cuts, len(text)]))
    cipher = AesGcm(KEY, backend)
    ciphertext, tag = cipher.encrypt(IV, text)
    encryptor, verifier, decryptor = cipher.encryptor(IV), cipher.verifier(IV), cipher.decryptor(IV)
    assert b"".join(encryptor.feed(text[start:end]) for start, end in ends) == ciphertext
    assert encryptor.tag() == tag
    assert not any(verifier.feed(ciphertext[start:end]) for start, end in ends)
    assert verifier.matches(tag)
    assert b"".join(decryptor.feed(ciphertext[start:end]) for start, end in ends) == text


@pytest.mark.parametrize("backend", BACKENDS)
@given(text=st.binary(max_size=100), where=st.integers(0), bit=st.integers(0, 7))
def test_one_wrong_bit_is_found(backend: str, text: bytes, where: int, bit: int) -> None:
    cipher = AesGcm(KEY, backend)
    ciphertext, tag = cipher.encrypt(IV, text)
    whole = bytearray(IV + ciphertext + tag)
    whole[where % len(whole)] ^= 1 << bit
    damaged = bytes(whole)
    assert cipher.decrypt(damaged[:12], damaged[12:-16], damaged[-16:]) is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_octet_of_the_tag_counts(backend: str) -> None:
    cipher = AesGcm(KEY, backend)
    ciphertext, tag = cipher.encrypt(IV, b"text")
    for place in range(16):
        wrong = tag[:place] + bytes([tag[place] ^ 1]) + tag[place + 1 :]
        assert cipher.decrypt(IV, ciphertext, wrong) is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_key_opens_nothing(backend: str) -> None:
    ciphertext, tag = AesGcm(KEY, backend).encrypt(IV, b"text")
    assert AesGcm(KEY[::-1], backend).decrypt(IV, ciphertext, tag) is None


@pytest.mark.parametrize(
    ("key", "iv", "backend"),
    [(b"S3cret" * 5, IV, PURE), (KEY, b"S3cret", PURE), (KEY, IV, "S3kret")],
    ids=["key", "iv", "backend"],
)
def test_our_own_mistakes(key: bytes, iv: bytes, backend: Optional[str]) -> None:
    with pytest.raises(LocalError) as caught:
        AesGcm(key, backend).encryptor(iv)
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_key_is_not_shown(backend: str) -> None:
    assert repr(AesGcm(KEY, backend)) == str(AesGcm(KEY, backend)) == "<secret>"


def test_a_few_envelopes_load_no_library() -> None:
    script = """
from smtpd_core.queue.aesgcm import AesGcm
cipher = AesGcm(bytes(32))
for _ in range(5):
    ciphertext, tag = cipher.encrypt(bytes(12), b"x" * 500)
    cipher.decrypt(bytes(12), ciphertext, tag)
print(*(name for name in ("ctypes", "_hashlib", "typing", "hmac", "re") if name in sys.modules))
"""
    assert run(script) == []


@NEEDS_OPENSSL
@pytest.mark.parametrize(("times", "size"), [(200, 500), (1, 65_536)], ids=["many", "large"])
def test_much_work_loads_openssl(times: int, size: int) -> None:
    script = f"""
from smtpd_core.queue.aesgcm import AesGcm
cipher = AesGcm(bytes(32))
for _ in range({times}):
    cipher.encrypt(bytes(12), bytes({size}))
print("ctypes" in sys.modules, cipher.encrypt(bytes(12), b"")[1].hex())
"""
    assert run(script) == ["True", "530f8afbc74536b9a963b4f1c4cb738b"]


def test_a_host_without_ctypes() -> None:
    script = """
sys.modules["ctypes"] = None  # import then fails as on Debian's python3-minimal
from smtpd_core.queue.aesgcm import OPENSSL, AesGcm, BackendError
print(AesGcm(bytes(32)).encrypt(bytes(12), bytes(100_000))[1].hex())
try:
    AesGcm(bytes(32), OPENSSL)
except BackendError:
    print("refused")
"""
    tag, refused = run(script)
    assert refused == "refused"
    assert AesGcm(bytes(32), PURE).encrypt(bytes(12), bytes(100_000))[1].hex() == tag


@NEEDS_OPENSSL
@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="cannot ask for memory")
def test_abandoned_streams_free_what_libcrypto_gave_them() -> None:
    script = """
from smtpd_core.queue.aesgcm import OPENSSL, AesGcm
cipher = AesGcm(bytes(32), OPENSSL)
for times in (1000, 20_000):
    for _ in range(times):
        cipher.decryptor(bytes(12)).feed(b"half a text")
    with open("/proc/self/statm") as memory:
        print(memory.read().split()[1])
"""
    before, after = map(int, run(script))
    assert (after - before) * resource.getpagesize() < 4 << 20  # a context takes over 700 octets
