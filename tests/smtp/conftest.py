"""Ways to cut octets, for every test of a feeder."""

from __future__ import annotations

from typing import Callable

import pytest

Cuts = Callable[[bytes], list[list[bytes]]]


@pytest.fixture(scope="session")
def cuts() -> Cuts:
    """Cut octets whole, singly, and in two at (nearly) every place."""

    def cut(octets: bytes) -> list[list[bytes]]:
        whole = [octets] if octets else []
        step = 1 + len(octets) // 100
        twos = [[octets[:at], octets[at:]] for at in range(1, len(octets), step)]
        if len(octets) > 4000:  # singly, but only where it matters
            singly = [octets[:100], octets[100:-100]]
            singly += [octets[at : at + 1] for at in range(len(octets) - 100, len(octets))]
        else:
            singly = [octets[at : at + 1] for at in range(len(octets))]
        return [whole, singly, *twos]

    return cut
