"""The money on our account is watched, and somebody is told before it runs out."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from chassis.errors import InvalidRequest, ServiceUnavailable
from keyferry.type.v1.actor_pb2 import Actor
from kinguin_gateway.accounting import Accountant
from kinguin_gateway.domain.account import Balance, Reading, TopUp
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.ports.account import TopUpFilter, TopUpOrder
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
        self.kept: list[TopUp] = []
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
        self.kept.append(replace(order.top_up, top_up_id=order.request_id))
        return order.request_id

    async def top_ups(self, wanted: TopUpFilter, *, size: int, after: tuple[datetime, str] | None) -> Sequence[TopUp]:
        start, end = wanted.start_time or EPOCH, wanted.end_time or EPOCH + timedelta(days=999)
        found = sorted(self.kept, key=lambda each: (each.top_up_time, each.top_up_id))
        return [
            each
            for each in found
            if start <= each.top_up_time < end and (after is None or (each.top_up_time, each.top_up_id) > after)
        ][:size]


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


def test_pages_of_top_ups_follow_one_another_and_a_token_is_of_its_listing() -> None:
    async def ask() -> None:
        accountant = World().accountant()
        names = [str(uuid.UUID(int=number)) for number in range(5)]
        for name in names:
            top_up = TopUp(100, EPOCH, "transfer")
            await accountant.record_top_up(TopUpOrder(name, b"", Actor(), top_up))
        seen, token = list[str](), ""
        while True:
            page = await accountant.top_ups(TopUpFilter(), size=2, token=token)
            seen += [each.top_up_id for each in page.top_ups]
            if not page.next_page_token:
                break
            token = page.next_page_token
        assert seen == names
        for wanted, wrong in ((TopUpFilter(end_time=EPOCH), token), (TopUpFilter(), "x")):
            with pytest.raises(InvalidRequest):
                await accountant.top_ups(wanted, size=2, token=wrong)

    simulate(ask())
