"""The pace towards the supplier, without a database."""

from datetime import UTC, datetime, timedelta

from chassis.clock import SystemClock
from kinguin_gateway.breaker import Breaker
from kinguin_gateway.pacing import Turnstile
from kinguin_gateway.ports.pace import Slots

from tests.unit.simulated import SimulatedClock


class FakeSchedule:
    """One schedule for any number of replicas, without a wait between asking and knowing."""

    def __init__(self, clock: SimulatedClock | SystemClock, *, per_second: float, patience: float = 5.0) -> None:
        self._clock = clock
        self._interval = timedelta(seconds=1 / per_second)
        self._patience = timedelta(seconds=patience)
        self._next = datetime.min.replace(tzinfo=UTC)
        self.reservations = 0

    async def reserve(self, wanted: int) -> Slots:
        self.reservations += 1
        now = self._clock.now()
        first = max(self._next, now)
        count = min(wanted, max(0, 1 + (now + self._patience - first) // self._interval))
        self._next = first + count * self._interval
        return Slots(count, first - now, self._interval)

    async def hold(self, wait: timedelta) -> None:
        self._next = max(self._next, self._clock.now() + wait)


def a_turnstile(clock: SimulatedClock | SystemClock, *, concurrency: int = 8, per_second: float = 1000.0) -> Turnstile:
    schedule = FakeSchedule(clock, per_second=per_second)
    return Turnstile(clock, schedule, Breaker(clock, lambda: 0.5), concurrency=concurrency)
