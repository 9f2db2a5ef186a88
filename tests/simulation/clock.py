"""Time that costs nothing, luck that a seed repeats, and waiting that ends early when there is news."""

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from heapq import heappop
from typing import TypeVar

from tests.unit.simulated import EPOCH, SimulatedLoop

T = TypeVar("T")


class WorldLoop(SimulatedLoop):
    """A simulated loop that does nothing but run what is due: there are no sockets, no threads and no real time."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined] # of asyncio's own loops
        while not ready:
            if not scheduled:
                raise AssertionError("everybody waits for something that will never happen")
            timer = heappop(scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                self._now = max(self._now, timer._when)
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()


class WorldClock:
    """The one clock of a world, in the words of `chassis.clock.Clock`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.time())

    def elapsed(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Luck(random.Random):
    """What a seed decides."""

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def pick(self, of: Sequence[T]) -> T:
        """Choose faster than `choice` does."""
        return of[int(self.random() * len(of))]

    def upto(self, most: float) -> float:
        return self.random() * most


class News:
    """Wakes who waits for something to change, as a notification of the database does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[asyncio.Future[None]] = []

    def tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, seconds: float | None) -> None:
        """Wait for news, or at most so long."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        timer = None if seconds is None else self._loop.call_later(seconds, _wake, future)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
