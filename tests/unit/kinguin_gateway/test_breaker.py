import asyncio
import random
from collections.abc import Callable

import pytest
from kinguin_gateway.breaker import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, WINDOW_CALLS, Breaker
from kinguin_gateway.errors import SupplierUnavailable

from tests.unit.simulated import SimulatedClock, simulate


def a_breaker() -> Breaker:
    return Breaker(SimulatedClock(), lambda: 0.5)


def fail(breaker: Breaker, times: int = WINDOW_CALLS) -> None:
    for _ in range(times):
        breaker.note(answered=False)


def lets_in(breaker: Breaker, *, read: bool) -> bool:
    try:
        breaker.enter(read=read)
    except SupplierUnavailable:
        return False
    return True


def in_time(act: Callable[[Breaker], None]) -> None:
    async def run() -> None:
        act(a_breaker())

    simulate(run())


def test_it_is_closed_at_first_and_a_few_failures_do_not_open_it() -> None:
    def act(breaker: Breaker) -> None:
        fail(breaker, WINDOW_CALLS - 3)
        assert not breaker.is_open
        assert lets_in(breaker, read=False)

    in_time(act)


def test_when_nearly_all_failed_nothing_is_let_in() -> None:
    def act(breaker: Breaker) -> None:
        breaker.note(answered=True)
        breaker.note(answered=True)
        fail(breaker)
        assert breaker.is_open
        assert not lets_in(breaker, read=False)
        assert not lets_in(breaker, read=True)

    in_time(act)


@pytest.mark.parametrize("seed", range(20))
def test_a_bad_day_of_the_supplier_does_not_open_it(seed: int) -> None:
    luck = random.Random(seed)  # noqa: S311 # luck

    def act(breaker: Breaker) -> None:
        for _ in range(2000):
            breaker.note(answered=luck.random() > 0.4)
            assert not breaker.is_open

    in_time(act)


def test_failures_of_long_ago_do_not_count() -> None:
    async def run() -> bool:
        breaker = a_breaker()
        for _ in range(100):
            breaker.note(answered=False)
            await asyncio.sleep(4)
        return breaker.is_open

    assert not simulate(run())


def test_after_the_pause_one_read_finds_out_and_never_an_order() -> None:
    async def run() -> None:
        breaker = a_breaker()
        fail(breaker)
        await asyncio.sleep(FIRST_PAUSE_SECONDS)
        assert not lets_in(breaker, read=False)
        assert lets_in(breaker, read=True)
        assert not lets_in(breaker, read=True)
        breaker.note(answered=True)
        assert not breaker.is_open
        assert lets_in(breaker, read=False)

    simulate(run())


def test_pauses_grow_to_a_bound_while_probes_fail() -> None:
    async def run() -> list[float]:
        breaker, clock = a_breaker(), SimulatedClock()
        fail(breaker)
        gaps: list[float] = []
        opened = clock.elapsed()
        for _ in range(8):
            while not lets_in(breaker, read=True):  # noqa: ASYNC110 # simulated time
                await asyncio.sleep(0.1)
            gaps.append(round(clock.elapsed() - opened))
            breaker.note(answered=False, probe=True)
            breaker.leave()
            opened = clock.elapsed()
        return gaps

    assert simulate(run()) == [1, 2, 4, 8, 16, 30, 30, LONGEST_PAUSE_SECONDS]


def test_what_was_on_its_way_before_it_opened_does_not_lengthen_the_pause() -> None:
    async def run() -> None:
        breaker = a_breaker()
        fail(breaker, WINDOW_CALLS + 50)
        await asyncio.sleep(FIRST_PAUSE_SECONDS)
        assert lets_in(breaker, read=True)

    simulate(run())


def test_a_probe_that_was_never_sent_is_followed_by_another_at_once() -> None:
    async def run() -> None:
        breaker = a_breaker()
        fail(breaker)
        await asyncio.sleep(FIRST_PAUSE_SECONDS)
        assert lets_in(breaker, read=True)
        assert not lets_in(breaker, read=True)
        breaker.leave()
        assert lets_in(breaker, read=True)

    simulate(run())


def test_calls_that_fail_late_neither_end_a_probe_nor_lengthen_the_pause() -> None:
    async def run() -> None:
        breaker = a_breaker()
        fail(breaker)
        await asyncio.sleep(FIRST_PAUSE_SECONDS)
        assert lets_in(breaker, read=True)
        for _ in range(20):
            fail(breaker, 1)
            await asyncio.sleep(1)
            assert not lets_in(breaker, read=True)
        breaker.note(answered=False, probe=True)
        breaker.leave()
        await asyncio.sleep(2 * FIRST_PAUSE_SECONDS)
        assert lets_in(breaker, read=True)

    simulate(run())


def test_an_answer_to_whatever_call_closes_it() -> None:
    def act(breaker: Breaker) -> None:
        fail(breaker)
        breaker.note(answered=True)
        assert lets_in(breaker, read=False)

    in_time(act)


def test_after_it_closed_it_counts_anew() -> None:
    async def run() -> None:
        breaker = a_breaker()
        fail(breaker)
        await asyncio.sleep(FIRST_PAUSE_SECONDS)
        assert lets_in(breaker, read=True)
        breaker.note(answered=True)
        fail(breaker, WINDOW_CALLS - 3)
        assert not breaker.is_open

    simulate(run())
