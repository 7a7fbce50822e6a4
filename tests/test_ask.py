"""Driving askers, plain and asynchronous."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from smtpd_core.ask import answer, answer_later

if TYPE_CHECKING:
    from collections.abc import Generator


def ask_twice(first: int) -> Generator[int, int, int]:
    second = yield first
    third = yield second
    return first + second + third


def ask_nested(log: list[str]) -> Generator[int, int, str]:
    try:
        inner = yield from ask_twice(1)
        last = yield 100
    finally:
        log.append("closed")
    return f"{inner} {last}"


def nothing() -> Generator[int, int, str]:
    yield from ()
    return "at once"


def test_answers_reach_the_question_they_belong_to() -> None:
    asked: list[int] = []

    def double(question: int) -> int:
        asked.append(question)
        return question * 2

    log: list[str] = []
    assert answer(ask_nested(log), double) == "7 200"
    assert asked == [1, 2, 100]
    assert log == ["closed"]


def test_an_asker_may_have_no_question() -> None:
    assert answer(nothing(), lambda question: question) == "at once"


def test_an_error_of_the_answerer_closes_the_asker() -> None:
    log: list[str] = []

    def refuse(question: int) -> int:
        raise KeyError(question)

    with pytest.raises(KeyError):
        answer(ask_nested(log), refuse)
    assert log == ["closed"]


def test_the_asynchronous_driver_gives_the_same() -> None:
    async def double(question: int) -> int:
        await asyncio.sleep(0)
        return question * 2

    assert asyncio.run(answer_later(ask_nested([]), double)) == "7 200"


def test_cancelling_closes_the_asker() -> None:
    log: list[str] = []

    async def scenario() -> None:
        never: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def wait(_question: int) -> int:
            return await never

        task = asyncio.ensure_future(answer_later(ask_nested(log), wait))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert log == ["closed"]
