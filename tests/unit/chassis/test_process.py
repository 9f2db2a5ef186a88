"""How a process ends its background tasks, on simulated time."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from chassis.process import Process
from chassis.settings import ServiceSettings
from structlog.testing import capture_logs

from tests.unit.simulated import simulate

DRAIN_SECONDS = 10.0


def seconds_to_close(run: Callable[[], Awaitable[None]]) -> float:
    async def live() -> float:
        settings = ServiceSettings(keyferry_tls_dir=Path("tls"), keyferry_drain_seconds=DRAIN_SECONDS)
        process = Process("test", settings)
        process.spawn("loop", run)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await process.close()
        return asyncio.get_running_loop().time() - began

    return simulate(live())


async def endless() -> None:
    await asyncio.Event().wait()


def test_a_task_is_canceled_at_once() -> None:
    assert seconds_to_close(endless) == 0


def test_a_task_that_loses_its_cancellation_is_canceled_again() -> None:
    async def deaf() -> None:
        try:
            await endless()
        except asyncio.CancelledError:
            await endless()

    assert seconds_to_close(deaf) == DRAIN_SECONDS / 2


def test_what_was_begun_is_finished() -> None:
    finished: list[bool] = []

    async def careful() -> None:
        try:
            await endless()
        finally:
            await asyncio.sleep(DRAIN_SECONDS / 4)
            finished.append(True)

    assert seconds_to_close(careful) == DRAIN_SECONDS / 4
    assert finished


def test_a_task_that_never_ends_is_named_and_left() -> None:
    async def stubborn() -> None:
        for _ in range(3):
            try:
                await endless()
            except asyncio.CancelledError:
                continue

    with capture_logs() as logs:
        assert seconds_to_close(stubborn) == DRAIN_SECONDS
    assert [log["tasks"] for log in logs] == [["loop"]]
