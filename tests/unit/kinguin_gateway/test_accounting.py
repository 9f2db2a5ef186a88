"""The money on our account is watched, and somebody is told before it runs out."""

import asyncio
from datetime import timedelta

import pytest
from chassis.errors import ServiceUnavailable
from kinguin_gateway.accounting import Accountant
from kinguin_gateway.domain.account import Balance, Reading
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.ports.account import TopUpOrder
from kinguin_gateway.ports.supplier import SupplierHealth
from structlog.testing import capture_logs

from tests.unit.kinguin_gateway.fakes import FakeSupplier
from tests.unit.simulated import EPOCH, SimulatedClock, simulate

FIVE_MINUTES = timedelta(minutes=5)


class FakeAccount:
    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock
        self.readings: list[Reading] = []
        self.daily: int | None = 1000_00
        self.away = False

    async def record_reading(self, balance_cents: int) -> Reading:
        self.readings.append(Reading(balance_cents, self.clock.now()))
        return self.readings[-1]

    async def last_reading(self) -> Reading | None:
        if self.away:
            raise ServiceUnavailable("no database")
        return self.readings[-1] if self.readings else None

    async def daily_cents(self) -> int | None:
        return self.daily

    async def record_top_up(self, order: TopUpOrder) -> str:
        return order.request_id


class World:
    def __init__(self, cents: int = 10_000_00) -> None:
        self.supplier = FakeSupplier()
        self.account = FakeAccount(self.supplier.clock)
        self.hold(cents)

    def hold(self, cents: int) -> None:
        self.supplier.health = SupplierHealth(reachable=True, authorized=True, balance_cents=cents)

    def accountant(self) -> Accountant:
        return Accountant(
            self.account,
            self.supplier,
            clock=self.supplier.clock,
            chance=lambda: 0.5,
            every=FIVE_MINUTES,
            alert_days=3,
        )


@pytest.mark.parametrize(
    ("cents", "daily", "days", "low"),
    [
        (3000, 1000, 3.0, False),
        (2999, 1000, 2.999, True),
        (5, None, None, False),
        (0, None, None, True),
        (-1, 5, 0, True),
    ],
)
def test_k65_days_left_are_told_at_the_present_pace(
    cents: int,
    daily: int | None,
    days: float | None,
    low: bool,  # noqa: FBT001 # from the table
) -> None:
    balance = Balance(Reading(cents, EPOCH), daily, alert_days=3)
    assert (balance.days_left, balance.low) == (days, low)


def test_the_alarm_is_raised_once_when_it_becomes_low_and_again_after_it_was_not() -> None:
    async def watch() -> int:
        world = World(2999_00)
        accountant = world.accountant()
        with capture_logs() as logs:
            for cents in (2999_00, 2000_00, 50_000_00, 1000_00):
                world.hold(cents)
                await accountant.watch()
                await world.supplier.clock.sleep(300)
        return sum(entry["event"] == "balance is low" for entry in logs)

    assert simulate(watch()) == 2


def test_a_reading_by_one_replica_serves_all() -> None:
    async def watch() -> int:
        world = World()
        for replica in [world.accountant() for _ in range(4)]:
            await replica.watch()
            await world.supplier.clock.sleep(10)
        return len(world.account.readings)

    assert simulate(watch()) == 1


def test_it_goes_on_whatever_is_away() -> None:
    async def run() -> int:
        world = World()
        running = asyncio.ensure_future(world.accountant().run())
        world.account.away = True
        await asyncio.sleep(600)
        world.account.away = False
        world.supplier.away = True
        await asyncio.sleep(600)
        world.supplier.away = False
        await asyncio.sleep(600)
        running.cancel()
        return len(world.account.readings)

    assert simulate(run()) >= 1


def test_while_the_supplier_is_away_the_last_reading_is_told_with_its_time() -> None:
    async def ask() -> None:
        world = World(1234)
        accountant = world.accountant()
        first = await accountant.balance()
        await world.supplier.clock.sleep(1000)
        world.supplier.away = True
        assert await accountant.balance() == first
        assert first.reading.read_time == EPOCH
        world.account.readings.clear()
        with pytest.raises(SupplierUnavailable):
            await accountant.balance()

    simulate(ask())
