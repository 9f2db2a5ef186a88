"""Turns to call the supplier: a breaker, a bulkhead, and one pace for all replicas (K7, ADR 8)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from chassis.clock import Clock
from chassis.errors import ServiceUnavailable

from kinguin_gateway.breaker import Breaker
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.ports.pace import Schedule

# Longer than this, and the caller is better told to come again than kept waiting.
PATIENCE_SECONDS = 5.0
# An answer that asks for more than this is not believed; we ask again and are told again.
LONGEST_HOLD = timedelta(minutes=5)
_TOO_MANY = "too many calls of the supplier are waiting; nothing was sent"


class Turnstile:
    """Lets a bounded number in at one time, at the moments that the schedule gives."""

    def __init__(self, clock: Clock, schedule: Schedule, breaker: Breaker, *, concurrency: int) -> None:
        self._clock = clock
        self._schedule = schedule
        self._breaker = breaker
        self._places = asyncio.Semaphore(concurrency)
        self._waiting: list[asyncio.Future[float]] = []
        self._reserving: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def turn(self, *, read: bool) -> AsyncIterator[bool]:
        """Wait for a turn and hold a place for the block, which is told whether its call is the breaker's probe.

        Raises SupplierUnavailable: nothing was sent then.
        """
        probe = self._breaker.enter(read=read)
        try:
            async with self._place():
                begin = await self._moment()
                if (wait := begin - self._clock.elapsed()) > 0:
                    await self._clock.sleep(wait)
                yield probe
        finally:
            if probe:
                self._breaker.leave()

    async def hold(self, wait: timedelta) -> None:
        """Leave the supplier alone for so long, in all replicas."""
        try:
            await self._schedule.hold(min(wait, LONGEST_HOLD))
        except ServiceUnavailable:
            # Without the database there are no more turns anyway.
            return

    def note(self, *, answered: bool) -> None:
        """Tell the breaker what became of a call."""
        self._breaker.note(answered=answered)

    def note_probe(self, *, answered: bool) -> None:
        """Tell the breaker what became of its probe."""
        self._breaker.note(answered=answered, probe=True)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise SupplierUnavailable("too many calls of the supplier are open; nothing was sent") from None
        try:
            yield
        finally:
            self._places.release()

    async def _moment(self) -> float:
        """Return the moment of this call on our clock. All who wait while one reservation runs share the next."""
        mine: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if self._reserving is None or self._reserving.done():
            self._reserving = asyncio.create_task(self._reserve_all())
        return await mine

    async def _reserve_all(self) -> None:
        while self._waiting:
            callers, self._waiting = self._waiting, []
            callers = [caller for caller in callers if not caller.done()]
            try:
                slots = await self._schedule.reserve(len(callers))
            except ServiceUnavailable:
                self._refuse(callers, "the pace cannot be read; nothing was sent")
                continue
            except BaseException:
                self._refuse(callers, "the pace cannot be kept; nothing was sent")
                raise
            # Counted from the answer, which is later than the database's own moment: never too early.
            first = self._clock.elapsed() + slots.first.total_seconds()
            for number, caller in enumerate(callers[: slots.count]):
                if not caller.done():
                    caller.set_result(first + number * slots.interval.total_seconds())
            self._refuse(callers[slots.count :], _TOO_MANY)

    @staticmethod
    def _refuse(callers: list[asyncio.Future[float]], why: str) -> None:
        for caller in callers:
            if not caller.done():
                caller.set_exception(SupplierUnavailable(why))
