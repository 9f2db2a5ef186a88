import asyncio
from datetime import timedelta

import pytest
from chassis.errors import ServiceUnavailable
from kinguin_gateway.breaker import FIRST_PAUSE_SECONDS, WINDOW_CALLS, Breaker
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.pacing import LONGEST_HOLD, PATIENCE_SECONDS, Turnstile
from kinguin_gateway.ports.pace import Slots

from tests.unit.kinguin_gateway.fakes import FakeSchedule, a_turnstile
from tests.unit.simulated import SimulatedClock, simulate


async def passing(turnstile: Turnstile, times: list[float]) -> None:
    async with turnstile.turn(read=True):
        times.append(SimulatedClock().elapsed())


def most_in_one_second(times: list[float]) -> int:
    return max(sum(begin <= time < begin + 1 for time in times) for begin in times)


def test_k7_calls_begin_at_the_rate_and_no_idle_time_is_made_up_for() -> None:
    async def rush() -> list[float]:
        turnstile = a_turnstile(SimulatedClock(), concurrency=100, per_second=10)
        await asyncio.sleep(60)
        times: list[float] = []
        await asyncio.gather(*(passing(turnstile, times) for _ in range(30)))
        return times

    times = simulate(rush())
    assert most_in_one_second(times) <= 11
    assert times[-1] - times[0] == pytest.approx(2.9)


def test_k7_replicas_share_one_rate() -> None:
    async def rush() -> list[float]:
        clock = SimulatedClock()
        schedule = FakeSchedule(clock, per_second=20)
        replicas = [Turnstile(clock, schedule, Breaker(clock, lambda: 0.5), concurrency=100) for _ in range(4)]
        times: list[float] = []
        await asyncio.gather(*(passing(replicas[number % 4], times) for number in range(60)))
        return times

    times = simulate(rush())
    assert len(times) == 60
    assert most_in_one_second(times) <= 21


def test_who_waits_together_reserves_together() -> None:
    async def rush() -> int:
        clock = SimulatedClock()
        schedule = FakeSchedule(clock, per_second=1000)
        turnstile = Turnstile(clock, schedule, Breaker(clock, lambda: 0.5), concurrency=100)
        await asyncio.gather(*(passing(turnstile, []) for _ in range(50)))
        return schedule.reservations

    assert simulate(rush()) == 1


def test_who_would_wait_too_long_for_the_rate_is_told_that_nothing_was_sent_and_takes_no_place() -> None:
    async def flood() -> tuple[list[BaseException], list[float]]:
        turnstile = a_turnstile(SimulatedClock(), concurrency=1000, per_second=10)
        times: list[float] = []
        results = await asyncio.gather(*(passing(turnstile, times) for _ in range(100)), return_exceptions=True)
        await passing(turnstile, times)
        return [result for result in results if result is not None], times

    refused, times = simulate(flood())
    assert len(refused) == 49
    assert all(isinstance(error, SupplierUnavailable) for error in refused)
    assert times[-2] <= PATIENCE_SECONDS
    assert times[-1] == pytest.approx(times[-2] + 0.1)


def test_k7_all_replicas_leave_the_supplier_alone_as_long_as_it_asks() -> None:
    async def told() -> list[float]:
        clock = SimulatedClock()
        schedule = FakeSchedule(clock, per_second=10)
        one, other = (Turnstile(clock, schedule, Breaker(clock, lambda: 0.5), concurrency=1) for _ in range(2))
        await one.hold(timedelta(seconds=30))
        times: list[float] = []
        with pytest.raises(SupplierUnavailable, match="nothing was sent"):
            await passing(other, times)
        await asyncio.sleep(26)
        await passing(other, times)
        return times

    assert simulate(told()) == [30.0]


def test_no_supplier_can_ask_to_be_left_alone_for_ever() -> None:
    async def told() -> list[float]:
        clock = SimulatedClock()
        turnstile = a_turnstile(clock)
        await turnstile.hold(timedelta(days=11))
        await asyncio.sleep(LONGEST_HOLD.total_seconds())
        times: list[float] = []
        await passing(turnstile, times)
        return times

    assert len(simulate(told())) == 1


class NoSchedule:
    async def reserve(self, wanted: int) -> Slots:
        raise ServiceUnavailable(f"no database for {wanted}")

    async def hold(self, wait: timedelta) -> None:
        raise ServiceUnavailable(f"no database for {wait}")


def test_without_the_schedule_nothing_is_sent() -> None:
    async def ask() -> None:
        clock = SimulatedClock()
        turnstile = Turnstile(clock, NoSchedule(), Breaker(clock, lambda: 0.5), concurrency=1)
        for _ in range(2):
            with pytest.raises(SupplierUnavailable, match="nothing was sent"):
                await passing(turnstile, [])
        await turnstile.hold(timedelta(seconds=1))

    simulate(ask())


def test_places_are_bounded_and_given_back() -> None:
    async def crowd() -> int:
        turnstile = a_turnstile(SimulatedClock(), concurrency=3)
        inside = most = 0

        async def stay() -> None:
            nonlocal inside, most
            async with turnstile.turn(read=False):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(1)
                inside -= 1

        await asyncio.gather(*(stay() for _ in range(9)))
        return most

    assert simulate(crowd()) == 3


def test_who_waits_too_long_for_a_place_is_told_that_nothing_was_sent() -> None:
    async def blocked() -> None:
        turnstile = a_turnstile(SimulatedClock(), concurrency=1)
        async with turnstile.turn(read=False):
            with pytest.raises(SupplierUnavailable, match="nothing was sent"):
                await passing(turnstile, [])

    simulate(blocked())


def test_who_gives_up_waiting_keeps_no_place() -> None:
    async def impatient() -> list[float]:
        turnstile = a_turnstile(SimulatedClock(), concurrency=1, per_second=1)
        times: list[float] = []
        await passing(turnstile, times)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await passing(turnstile, times)
        await passing(turnstile, times)
        return times

    assert simulate(impatient()) == [0.0, 2.0]


def test_a_probe_that_finds_no_place_leaves_the_way_to_another() -> None:
    async def crowded() -> float:
        clock = SimulatedClock()
        breaker = Breaker(clock, lambda: 0.5)
        turnstile = Turnstile(clock, FakeSchedule(clock, per_second=1000), breaker, concurrency=1)
        async with turnstile.turn(read=False):
            for _ in range(WINDOW_CALLS):
                turnstile.note(answered=False)
            await asyncio.sleep(FIRST_PAUSE_SECONDS)
            with pytest.raises(SupplierUnavailable, match="too many"):
                await passing(turnstile, [])
        freed = clock.elapsed()
        async with turnstile.turn(read=True) as probe:
            assert probe
            return clock.elapsed() - freed

    assert simulate(crowded()) < 1


def test_only_the_call_that_finds_out_is_told_that_it_is_the_probe() -> None:
    async def run() -> None:
        turnstile = a_turnstile(SimulatedClock())
        async with turnstile.turn(read=True) as probe:
            assert not probe

    simulate(run())
