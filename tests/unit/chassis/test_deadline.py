import asyncio

import pytest
from chassis.deadline import bounded, remaining


async def test_without_a_deadline_the_limit_holds() -> None:
    assert remaining(7.5) == 7.5


async def test_what_is_left_shrinks_and_is_never_more_than_asked() -> None:
    async with bounded(5):
        assert 4.5 < remaining(10) <= 5
        assert remaining(1) == 1
        async with bounded(60):
            assert remaining(60) <= 5
        async with bounded(0.5):
            assert remaining(60) <= 0.5
        assert remaining(60) > 4
    assert remaining(60) == 60


async def test_a_block_that_takes_longer_ends() -> None:
    with pytest.raises(TimeoutError):
        async with bounded(0):
            await asyncio.Event().wait()
    assert remaining(3) == 3


async def test_tasks_begun_inside_inherit_the_deadline() -> None:
    async def ask() -> float:
        return remaining(100)

    async with bounded(5):
        assert await asyncio.create_task(ask()) <= 5
