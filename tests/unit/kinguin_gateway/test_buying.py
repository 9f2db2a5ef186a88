"""Single steps of buying; whole histories are in test_histories.py."""

import asyncio
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

import pytest
from chassis.errors import ServiceUnavailable
from kinguin_gateway.buying import MOST_SECONDS, Buyer
from kinguin_gateway.checking import Checker
from kinguin_gateway.domain.guard import Bounds, Rejected, Unreadable
from kinguin_gateway.domain.looking import Pace
from kinguin_gateway.domain.purchase import Problem, Purchase, PurchaseState
from kinguin_gateway.errors import PurchaseInDoubt, PurchaseRefused, SupplierUnavailable
from kinguin_gateway.settling import Settler

from tests.unit.kinguin_gateway.fakes import INTENT, REQUEST_ID, FakePurchases, FakeSupplier, Mood
from tests.unit.simulated import simulate

WINDOW = timedelta(seconds=20)
BOUNDS = Bounds(commit=timedelta(seconds=120), search_lag=timedelta(seconds=60))
PACE = Pace(first=timedelta(seconds=2), longest=timedelta(seconds=60))


class World:
    """A buyer with its supplier and its database."""

    def __init__(self, **mood: Any) -> None:
        self.purchases, self.supplier = FakePurchases(), FakeSupplier()
        self.supplier.next_mood = lambda: Mood(**mood)
        settler = Settler(self.purchases, self.supplier, bounds=BOUNDS, pace=PACE, chance=lambda: 0.5)
        self.buyer = Buyer(
            self.purchases,
            self.supplier,
            settler,
            Checker(self.supplier, self.supplier.clock),
            clock=self.supplier.clock,
            window=WINDOW,
        )

    async def place(self) -> Purchase:
        return await self.buyer.place(INTENT, REQUEST_ID)

    def state(self) -> PurchaseState:
        return self.purchases.rows[INTENT.external_id].purchase.state


def test_asking_again_for_what_was_placed_answers_with_it() -> None:
    async def twice(world: World) -> None:
        first, again = await world.place(), await world.place()
        assert first == again

    world = World()
    simulate(twice(world))
    assert len(world.supplier.taken) == 1


def test_a_clear_no_is_told_in_the_suppliers_words_and_stays() -> None:
    async def twice(world: World) -> None:
        for _ in range(2):
            with pytest.raises(PurchaseRefused) as refused:
                await world.place()
            assert refused.value.metadata == {"kind": "ProductUnavailable", "detail": "sold out", "trace": "trace-1"}

    world = World(take=False)
    simulate(twice(world))
    assert world.state() is PurchaseState.REFUSED


def test_what_could_not_be_sent_is_unavailable_and_may_be_tried_again() -> None:
    async def blocked(world: World) -> None:
        with pytest.raises(SupplierUnavailable, match="nothing was sent"):
            await world.place()
        assert world.state() is PurchaseState.INTENDED
        world.supplier.next_mood = Mood
        assert (await world.place()).state is PurchaseState.PLACED

    world = World(connect=WINDOW.total_seconds() + 5)
    simulate(blocked(world))
    assert len(world.supplier.taken) == 1


@pytest.mark.parametrize(
    "reply", [Unreadable("not JSON"), Rejected(500, Problem("Error", "bad day", "trace-9"))], ids=["unreadable", "500"]
)
def test_an_unclear_answer_is_a_doubt_and_its_reason_is_kept(reply: Unreadable | Rejected) -> None:
    async def doubtful(world: World) -> None:
        with pytest.raises(PurchaseInDoubt) as doubt:
            await world.place()
        assert doubt.value.retry_after is not None

    world = World(take=False, reply=reply)
    simulate(doubtful(world))
    assert world.state() is PurchaseState.IN_DOUBT
    row = world.purchases.rows[INTENT.external_id]
    assert ("not JSON" if isinstance(reply, Unreadable) else "500 Error bad day (trace trace-9)") in row.purchase.doubt


def test_an_unclear_answer_to_an_order_that_was_taken_finds_it_at_once() -> None:
    async def found(world: World) -> None:
        assert (await world.place()).supplier_order_id == "PHS00001"

    world = World(reply=Unreadable("cut off"))
    simulate(found(world))
    assert len(world.supplier.taken) == 1


def test_a_database_that_fails_after_the_answer_leaves_a_doubt_and_no_second_order() -> None:
    async def failing(world: World) -> None:
        async def step(name: str) -> None:
            if name == "before record":
                raise ServiceUnavailable("the database does not answer")

        world.purchases.step = step
        with pytest.raises(PurchaseInDoubt):
            await world.place()

    world = World()
    simulate(failing(world))
    assert world.state() is PurchaseState.IN_DOUBT
    assert len(world.supplier.taken) == 1


def test_a_caller_that_waits_too_long_is_told_of_a_doubt_while_the_attempt_goes_on() -> None:
    async def slow(world: World) -> None:
        async def step(name: str) -> None:
            if name == "before record":
                await asyncio.sleep(MOST_SECONDS * 2)

        world.purchases.step = step
        async with world.buyer.finishing(MOST_SECONDS * 4):
            with pytest.raises(PurchaseInDoubt):
                await world.place()
            assert world.state() is PurchaseState.IN_DOUBT
        assert world.state() is PurchaseState.PLACED

    simulate(slow(World()))


def test_an_attempt_that_fails_for_no_known_reason_is_logged_without_its_text(
    logs: list[MutableMapping[str, Any]],
) -> None:
    async def broken(world: World) -> None:
        async def step(name: str) -> None:
            if name == "before record":
                raise RuntimeError("GAME-KEY-0001")

        world.purchases.step = step
        with pytest.raises(RuntimeError):
            await world.place()

    simulate(broken(World()))
    (entry,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert "GAME-KEY" not in entry["event"]
