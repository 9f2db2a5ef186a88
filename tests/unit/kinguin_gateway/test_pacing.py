import asyncio

import pytest
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.pacing import BURST_SECONDS, PATIENCE_SECONDS, Turnstile

from tests.unit.simulated import SimulatedClock, simulate


async def passing(turnstile: Turnstile, times: list[float]) -> None:
    async with turnstile.turn():
        times.append(SimulatedClock().elapsed())


def test_calls_begin_at_the_rate_after_a_short_burst() -> None:
    async def rush() -> list[float]:
        turnstile = Turnstile(SimulatedClock(), concurrency=100, per_second=10)
        await asyncio.sleep(60)
        times: list[float] = []
        await asyncio.gather(*(passing(turnstile, times) for _ in range(30)))
        return times

    times = simulate(rush())
    at_once = sum(time == times[0] for time in times)
    assert at_once == pytest.approx(BURST_SECONDS * 10, abs=1)
    assert times[-1] - times[0] == pytest.approx((30 - at_once) / 10, abs=0.2)


def test_who_would_wait_too_long_for_the_rate_is_told_that_nothing_was_sent() -> None:
    async def flood() -> list[BaseException]:
        turnstile = Turnstile(SimulatedClock(), concurrency=1000, per_second=10)
        times: list[float] = []
        results = await asyncio.gather(*(passing(turnstile, times) for _ in range(100)), return_exceptions=True)
        assert max(times) <= PATIENCE_SECONDS + 1
        return [result for result in results if result is not None]

    refused = simulate(flood())
    assert 30 < len(refused) < 60
    assert all(isinstance(error, SupplierUnavailable) for error in refused)


def test_places_are_bounded_and_given_back() -> None:
    async def crowd() -> int:
        turnstile = Turnstile(SimulatedClock(), concurrency=3, per_second=1000)
        inside = most = 0

        async def stay() -> None:
            nonlocal inside, most
            async with turnstile.turn():
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(1)
                inside -= 1

        await asyncio.gather(*(stay() for _ in range(9)))
        return most

    assert simulate(crowd()) == 3


def test_who_waits_too_long_for_a_place_is_told_that_nothing_was_sent() -> None:
    async def blocked() -> None:
        turnstile = Turnstile(SimulatedClock(), concurrency=1, per_second=1000)
        async with turnstile.turn():
            with pytest.raises(SupplierUnavailable, match="nothing was sent"):
                await passing(turnstile, [])

    simulate(blocked())
