"""What every schedule of calls promises: the one in PostgreSQL, and the one of unit tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from chassis.clock import SystemClock
from chassis.database import Database
from kinguin_gateway.adapters.postgres_pace import HEADROOM, PostgresSchedule
from kinguin_gateway.breaker import Breaker
from kinguin_gateway.pacing import Turnstile
from kinguin_gateway.ports.pace import Schedule

from tests.integration.real_servers import REPOSITORY, Postgres
from tests.unit.kinguin_gateway.fakes import FakeSchedule

RATE = 45.0
PATIENCE = timedelta(seconds=2)
INTERVAL = timedelta(seconds=1 / RATE)
# What passes between two questions of a test.
SOON = timedelta(seconds=0.5)


@pytest.fixture(params=["postgres", "fake"])
async def schedule(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[Schedule]:
    if request.param == "fake":
        yield FakeSchedule(SystemClock(), per_second=RATE, patience=PATIENCE.total_seconds())
        return
    database = await postgres.make_database("kinguin", REPOSITORY / "services" / "kinguin-gateway" / "migrations")
    async with Database.open(database.service_url, application="test") as opened:
        yield PostgresSchedule(opened, per_second=RATE / HEADROOM, patience=PATIENCE)


async def test_after_idle_time_a_call_begins_at_once_and_the_next_one_interval_later(schedule: Schedule) -> None:
    first = await schedule.reserve(1)
    assert (first.count, first.first, first.interval) == (1, timedelta(0), INTERVAL)
    second = await schedule.reserve(10)
    assert (second.count, second.first <= INTERVAL) == (10, True)


async def test_k7_nobody_gets_a_moment_that_another_has(schedule: Schedule) -> None:
    slots = await asyncio.gather(*(schedule.reserve(4) for _ in range(20)))
    assert sum(each.count for each in slots) == 80
    # Eighty moments one interval apart reach so far, however the replicas meet.
    last = max(each.first + 3 * each.interval for each in slots)
    assert 79 * INTERVAL - SOON <= last <= 79 * INTERVAL


async def test_what_is_too_far_away_is_not_reserved(schedule: Schedule) -> None:
    assert (await schedule.reserve(1000)).count == RATE * PATIENCE.total_seconds() + 1
    for _ in range(5):
        assert (await schedule.reserve(1000)).count <= RATE * SOON.total_seconds()


async def test_k7_a_supplier_that_wants_to_be_left_alone_is(schedule: Schedule) -> None:
    await schedule.hold(timedelta(seconds=1))
    held = await schedule.reserve(1)
    assert timedelta(seconds=1) - SOON < held.first <= timedelta(seconds=1)
    await schedule.hold(timedelta(seconds=0.1))
    assert (await schedule.reserve(1)).first >= held.first - SOON
    await schedule.hold(timedelta(hours=1))
    assert (await schedule.reserve(1)).count == 0


REPLICAS, CALLS = 4, 80
# What the clocks of a database and of its callers differ by while both count.
DRIFT = 0.02


async def test_k7_replicas_together_call_no_oftener_than_the_rate(postgres: Postgres) -> None:
    own = await postgres.make_database("kinguin", REPOSITORY / "services" / "kinguin-gateway" / "migrations")
    clock, times = SystemClock(), list[float]()

    async def call(turnstile: Turnstile) -> None:
        async with turnstile.turn(read=True):
            times.append(clock.elapsed())

    async with AsyncExitStack() as stack:
        replicas = []
        for number in range(REPLICAS):
            database = await stack.enter_async_context(Database.open(own.service_url, application=f"replica {number}"))
            schedule = PostgresSchedule(database, per_second=RATE / HEADROOM, patience=PATIENCE)
            replicas.append(Turnstile(clock, schedule, Breaker(clock, lambda: 0.5), concurrency=CALLS))
        begin = clock.elapsed()
        await asyncio.gather(*(call(replicas[number % REPLICAS]) for number in range(CALLS)))
    # However late a busy machine lets a call begin, none may begin before its moment: so many by then, and no more.
    late = [time - begin - number / RATE for number, time in enumerate(sorted(times))]
    assert len(times) == CALLS
    assert min(late) >= -DRIFT
