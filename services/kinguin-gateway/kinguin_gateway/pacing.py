"""Turns to call the supplier: a bulkhead and a rate, so that no rush of ours gets the store blocked (K7)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.clock import Clock

from kinguin_gateway.errors import SupplierUnavailable

# Longer than this, and the caller is better told to come again than kept waiting.
PATIENCE_SECONDS = 5.0
# Calls that may begin at once after a pause, as seconds of the rate.
BURST_SECONDS = 0.5


class Turnstile:
    """Lets a bounded number in at one time, and a bounded number begin per second."""

    def __init__(self, clock: Clock, *, concurrency: int, per_second: float) -> None:
        self._clock = clock
        self._places = asyncio.Semaphore(concurrency)
        self._interval = 1 / per_second
        self._next = float("-inf")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and hold a place for the block. Raises SupplierUnavailable when the queue is too long."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise SupplierUnavailable("too many calls of the supplier are open; nothing was sent") from None
        try:
            await self._keep_pace()
            yield
        finally:
            self._places.release()

    async def _keep_pace(self) -> None:
        now = self._clock.elapsed()
        begin = max(self._next, now - BURST_SECONDS)
        if begin - now > PATIENCE_SECONDS:
            raise SupplierUnavailable("too many calls of the supplier are waiting; nothing was sent")
        self._next = begin + self._interval
        if begin > now:
            await self._clock.sleep(begin - now)
