"""Run one coroutine of a test in a fresh event loop, bounded in time."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from collections.abc import Coroutine

LIMIT_SECONDS = 20  # a test that hangs fails instead


class LeapingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward, so that time-outs need not be waited for."""

    ahead = 0.0

    def time(self) -> float:
        """Give the time of the clock."""
        return super().time() + self.ahead


def leap(seconds: float) -> None:
    """Put the clock of the running loop forward."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, LeapingLoop)
    loop.ahead += seconds


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine; nothing it started may outlive it with an exception nobody looked at."""
    complaints: list[str] = []
    loop = LeapingLoop()
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    try:
        watchdog = threading.Timer(LIMIT_SECONDS, loop.call_soon_threadsafe, (loop.stop,))
        watchdog.daemon = True
        watchdog.start()
        try:
            result = loop.run_until_complete(coroutine)
        finally:
            watchdog.cancel()
            loop.run_until_complete(_end(asyncio.all_tasks(loop)))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    assert not complaints
    return result


async def _end(left: set[asyncio.Task[Any]]) -> None:
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until a condition holds; the limit of run() ends a vain wait."""
    while not condition():
        await asyncio.sleep(0.001)
