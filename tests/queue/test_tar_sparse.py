"""Files with holes: their maps, and putting them together again."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_core.errors import FormatError
from smtpd_core.queue.tar_sparse import (
    MAX_RUNS,
    MAX_SPARSE,
    SPARSE_MAP,
    SPARSE_REALSIZE,
    SPARSE_SIZE,
    SparseFile,
    header_map,
    record_map,
)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6),
    st.integers(0, 9),
    st.integers(1, 40),
)
def test_runs_and_holes(gaps: list[tuple[int, int]], tail: int, count: int) -> None:
    numbers = []
    whole = b""
    stored = b""
    for gap, length in gaps:
        run = bytes(range(65, 65 + length))
        numbers += [len(whole) + gap, length]
        whole += bytes(gap) + run
        stored += run
    whole += bytes(tail)
    file = SparseFile(numbers, len(whole), len(stored))
    assert file.size == len(whole)
    read_stored = io.BytesIO(stored).read
    pieces = list(iter(lambda: file.read(count, read_stored), b""))
    assert b"".join(pieces) == whole
    assert all(len(piece) == count for piece in pieces[:-1])
    assert file.read(count, read_stored) == b""


@pytest.mark.parametrize(
    ("numbers", "size", "stored"),
    [
        ([0, 5], 4, 5),  # past the size
        ([0, 5], 9, 4),  # more than is stored
        ([0, 5], 9, 6),  # less than is stored
        ([0, 5, 4, 1], 9, 6),  # overlap
        ([5, 1, 0, 1], 9, 2),  # out of order
        ([0, 6, 7, -1], 9, 5),
        ([-1, 5], 9, 5),
        ([0, 5, 9], 9, 5),  # half a pair
        ([], -1, 0),
        ([], MAX_SPARSE + 1, 0),
    ],
)
def test_maps_that_cannot_be(numbers: list[int], size: int, stored: int) -> None:
    with pytest.raises(ValueError, match="runs of data"):
        SparseFile(numbers, size, stored)


class CutError(FormatError):
    pass


def test_a_cut_comes_after_what_is_there() -> None:
    octets = [b"abc"]

    def read_stored(count: int) -> bytes:
        if not octets:
            raise CutError
        return octets.pop()

    file = SparseFile([2, 5], 9, 5)
    assert file.read(9, read_stored) == b"\0\0abc"
    with pytest.raises(CutError):
        file.read(9, read_stored)


def no_block() -> bytes:
    raise CutError


def field(number: int) -> bytes:
    return b"%011o\0" % number


def test_map_in_a_header() -> None:
    block = bytes(386) + field(5) + field(3) + bytes(72) + b"\0" + field(600)
    assert header_map(block, no_block) == ([5, 3, 0, 0, 0, 0, 0, 0], 600)


def test_map_goes_on_in_blocks_of_its_own() -> None:
    block = bytes(386) + field(1) * 8 + b"\1" + field(600)
    more = [field(2) * 42 + b"\1" + bytes(7), field(3) * 42 + b"\0" + bytes(7)]
    numbers, size = header_map(block, lambda: more.pop(0))
    assert numbers == [1] * 8 + [2] * 42 + [3] * 42
    assert size == 600
    with pytest.raises(CutError):
        header_map(block, no_block)


def test_a_map_in_a_header_that_is_too_long_is_taken_but_not_kept() -> None:
    block = bytes(386) + field(1) * 8 + b"\1" + field(600)
    left = MAX_RUNS // 21 + 500

    def next_block() -> bytes:
        nonlocal left
        left -= 1
        return field(2) * 42 + (b"\1" if left else b"\0") + bytes(7)

    numbers, _ = header_map(block, next_block)
    assert left == 0
    assert len(numbers) <= 2 * MAX_RUNS + 100


def test_map_in_records() -> None:
    records = {SPARSE_MAP: b"5,3,9,1", SPARSE_SIZE: b"20"}
    assert record_map(records, io.BytesIO().read) == ([5, 3, 9, 1], 20)
    for wrong in ({SPARSE_MAP: b"5,x", SPARSE_SIZE: b"20"}, {SPARSE_MAP: b"5,3"}):
        with pytest.raises(ValueError, match="not a number"):
            record_map(wrong, io.BytesIO().read)


def test_map_before_the_data() -> None:
    text = b"100\n" + b"".join(b"%d\n%d\n" % (place * 10, 5) for place in range(100))
    assert len(text) > 512
    stored = io.BytesIO(text.ljust(1024, b"\0") + b"data")
    numbers, size = record_map({SPARSE_REALSIZE: b"2000"}, stored.read)
    assert numbers[:4] == [0, 5, 10, 5]
    assert (len(numbers), size) == (200, 2000)
    assert stored.read() == b"data"


@pytest.mark.parametrize("text", [b"", b"x", b"2\n1\n1\n", b"1\n1\nx\n", b"99999999\n"])
def test_maps_before_the_data_that_are_none(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        record_map({SPARSE_REALSIZE: b"2000"}, io.BytesIO(text.ljust(512, b"\0")).read)
