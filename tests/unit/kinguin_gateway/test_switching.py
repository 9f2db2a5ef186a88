"""Buying is paused, purchases wait in line, and go again in their order."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from kinguin_gateway.buying import Buyer
from kinguin_gateway.checking import Checker
from kinguin_gateway.domain.guard import Bounds, Rejected
from kinguin_gateway.domain.looking import Pace
from kinguin_gateway.domain.purchase import Intent, Problem, PurchaseState
from kinguin_gateway.domain.switching import PauseCause
from kinguin_gateway.errors import BuyingPaused, PurchaseInDoubt, PurchaseRefused, SupplierUnauthorized
from kinguin_gateway.ports.supplier import SupplierHealth
from kinguin_gateway.settling import Settler
from kinguin_gateway.switching import Releaser

from tests.unit.kinguin_gateway.fakes import INTENT, REQUEST_ID, FakePurchases, FakeSupplier, Mood, a_product
from tests.unit.simulated import simulate

WINDOW = timedelta(seconds=20)
BOUNDS = Bounds(commit=timedelta(seconds=120), search_lag=timedelta(seconds=60))
PACE = Pace(first=timedelta(seconds=2), longest=timedelta(seconds=60))
NO_MONEY = Rejected(422, Problem("InsufficientBalance", "There are not enough funds.", "trace-7"))
NOT_LET_IN = Rejected(401, Problem("Authorization", "Bad authorization credentials.", "trace-8"))


class World:
    def __init__(self) -> None:
        self.purchases, self.supplier = FakePurchases(), FakeSupplier()
        clock = self.supplier.clock
        settler = Settler(self.purchases, self.supplier, bounds=BOUNDS, pace=PACE, chance=lambda: 0.5)
        checker = Checker(self.supplier, clock)
        self.buyer = Buyer(self.purchases, self.supplier, settler, checker, clock=clock, window=WINDOW)
        self.releaser = Releaser(self.purchases, self.supplier, clock=clock, chance=lambda: 0.5)

    def refuse(self, reply: Rejected | None) -> None:
        self.supplier.next_mood = lambda: Mood() if reply is None else Mood(take=False, reply=reply)

    def balance(self, cents: int) -> None:
        self.supplier.health = SupplierHealth(reachable=True, authorized=True, balance_cents=cents)

    async def place(self, number: int) -> str:
        """Ask for one of several purchases, and tell what came of it."""
        try:
            await self.buyer.place(an_intent(number), f"{REQUEST_ID[:-2]}{number:02}")
        except BuyingPaused:
            return "parked"
        except PurchaseRefused:
            return "refused"
        return "placed"

    async def place_all(self, numbers: Sequence[int]) -> list[str]:
        return [await self.place(number) for number in numbers]

    def bought(self) -> list[str]:
        return [order.external_id for order in self.supplier.taken]


def an_intent(number: int) -> Intent:
    return replace(INTENT, external_id=f"kf-{number}")


def run(act: Any) -> World:
    world = World()
    simulate(act(world))
    return world


def test_k64_no_money_parks_the_purchase_and_everything_that_is_asked_for_after_it() -> None:
    async def act(world: World) -> None:
        world.refuse(NO_MONEY)
        assert await world.place_all([1, 2, 3, 1]) == ["parked"] * 4
        assert len(world.supplier.sent_cents) == 1
        assert (await world.purchases.status()).cause is PauseCause.INSUFFICIENT_BALANCE
        assert (await world.purchases.status()).parked_count == 3

    run(act)


def test_parked_purchases_go_in_the_order_of_asking_as_far_as_the_money_reaches() -> None:
    async def act(world: World) -> None:
        world.refuse(NO_MONEY)
        await world.place_all([1, 2, 3])
        world.refuse(None)
        each = INTENT.quantity * INTENT.max_unit_cents
        world.balance(2 * each + 1)
        assert await world.releaser.look() == (True, 2)
        assert world.purchases.released == ["kf-1", "kf-2"]
        # The last still waits, and a new one waits behind it.
        assert await world.place_all([4, 3, 2, 1]) == ["parked", "parked", "placed", "placed"]
        world.balance(each)
        assert await world.releaser.look() == (True, 1)
        assert await world.place_all([4, 3]) == ["parked", "placed"]
        world.balance(each)
        assert await world.releaser.look() == (True, 1)
        assert await world.place_all([4, 5]) == ["placed", "placed"]

    world = run(act)
    assert world.purchases.released == ["kf-1", "kf-2", "kf-3", "kf-4"]
    assert len(set(world.bought())) == len(world.bought()) == 5


def test_a_released_purchase_that_meets_no_money_again_is_parked_again() -> None:
    async def act(world: World) -> None:
        world.refuse(NO_MONEY)
        await world.place_all([1, 2])
        assert await world.releaser.look() == (True, 2)
        assert await world.place_all([1, 2]) == ["parked", "parked"]
        world.refuse(None)
        assert await world.releaser.look() == (True, 2)
        assert await world.place_all([1, 2]) == ["placed", "placed"]

    run(act)


def test_k64_who_is_not_let_in_stops_buying_until_he_is() -> None:
    async def act(world: World) -> None:
        world.refuse(NOT_LET_IN)
        assert await world.place_all([1, 2]) == ["parked", "parked"]
        assert (await world.purchases.status()).cause is PauseCause.UNAUTHORIZED
        world.supplier.away = True
        assert await world.releaser.look() == (True, 0)
        world.supplier.away = False
        world.refuse(None)
        assert await world.releaser.look() == (True, 2)
        assert await world.place_all([1, 2]) == ["placed", "placed"]
        assert await world.releaser.look() == (False, 0)

    run(act)


def test_k6_a_product_that_we_are_not_let_in_to_read_parks_as_well() -> None:
    async def act(world: World) -> None:
        async def not_let_in(_product_id: str) -> None:
            raise SupplierUnauthorized("the supplier does not let us in", metadata={"detail": "address not allowed"})

        world.supplier.read_product = not_let_in  # type: ignore[assignment] # a supplier that refuses
        assert await world.place(1) == "parked"
        assert world.supplier.sent_cents == []

    run(act)


@pytest.mark.parametrize("reply", [NO_MONEY, NOT_LET_IN], ids=["no money", "not let in"])
def test_a_supplier_that_says_one_thing_and_does_another_is_asked_ever_less_often(reply: Rejected) -> None:
    """It shows enough money, and lets us read it, and refuses every order all the same."""

    async def act(world: World) -> None:
        world.refuse(reply)
        world.balance(1_000_000_00)
        numbers = range(1, 11)

        async def ask() -> None:
            while True:
                await world.place_all(numbers)
                await world.supplier.clock.sleep(2)

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(ask()), tasks.create_task(world.releaser.run())]
            await world.supplier.clock.sleep(3600)
            for task in running:
                task.cancel()

    world = run(act)
    # Each of the ten is let go once in a round, and there are no more rounds in an hour than these.
    assert len(world.purchases.released) <= 45 * 10
    assert len(world.supplier.sent_cents) <= 45 * 10


def test_what_an_operator_paused_no_program_resumes() -> None:
    async def act(world: World) -> None:
        world.purchases.cause = PauseCause.OPERATOR
        assert await world.place_all([1, 2]) == ["parked", "parked"]
        assert await world.releaser.look() == (False, 0)
        assert world.supplier.sent_cents == []
        world.purchases.cause = PauseCause.NONE
        assert await world.releaser.look() == (True, 2)
        assert await world.place_all([1, 2]) == ["placed", "placed"]

    run(act)


def test_a_pause_stops_nothing_that_was_sent() -> None:
    async def act(world: World) -> None:
        world.supplier.next_mood = lambda: Mood(answer=None, lag=30)
        with pytest.raises(PurchaseInDoubt):
            await world.buyer.place(an_intent(1), REQUEST_ID)
        world.purchases.cause = PauseCause.OPERATOR
        await world.supplier.clock.sleep(30)
        assert await world.place_all([1, 2]) == ["placed", "parked"]

    world = run(act)
    assert len(world.supplier.sent_cents) == 1


def test_a_refusal_before_asking_stays_and_was_never_sent() -> None:
    async def act(world: World) -> None:
        world.supplier.products[INTENT.product_id] = a_product(excluded_countries=("DE",))
        for _ in range(2):
            with pytest.raises(PurchaseRefused) as refused:
                await world.buyer.place(an_intent(1), REQUEST_ID, "DE")
            assert refused.value.metadata["kind"] == "country_excluded"
        # Whoever asks later, and says another country, is answered the same: it may be told to others already.
        with pytest.raises(PurchaseRefused):
            await world.buyer.place(an_intent(1), REQUEST_ID, "AT")

    world = run(act)
    assert world.supplier.sent_cents == []


class TestWhenTheDatabaseForgot:
    """An older backup was restored, or a replica promoted that had not seen the last attempts."""

    @staticmethod
    def forget(world: World) -> None:
        now = world.purchases.now()
        world.purchases.rows.clear()
        world.purchases.forgotten_deadline = now + WINDOW
        world.purchases.caution_end = now + timedelta(days=7)

    def test_what_was_bought_before_is_found_and_adopted(self) -> None:
        async def act(world: World) -> None:
            assert await world.place(1) == "placed"
            self.forget(world)
            assert await world.place(1) == "placed"

        world = run(act)
        assert world.bought() == ["kf-1"]

    def test_what_is_new_waits_for_the_proof_that_it_was_not_sent(self) -> None:
        async def act(world: World) -> None:
            self.forget(world)
            began = world.supplier.clock.elapsed()
            for _ in range(100):
                try:
                    await world.buyer.place(an_intent(1), REQUEST_ID)
                except PurchaseInDoubt as error:
                    await world.supplier.clock.sleep((error.retry_after or timedelta(seconds=1)).total_seconds())
                else:
                    break
            waited = world.supplier.clock.elapsed() - began
            assert waited >= (WINDOW + BOUNDS.total).total_seconds()
            # From then on it costs one search.
            began = world.supplier.clock.elapsed()
            assert await world.place(2) == "placed"
            assert world.supplier.clock.elapsed() == began

        world = run(act)
        assert sorted(world.bought()) == ["kf-1", "kf-2"]

    def test_what_is_proved_absent_while_money_is_short_stands_in_line(self) -> None:
        async def act(world: World) -> None:
            self.forget(world)
            await world.supplier.clock.sleep((WINDOW + BOUNDS.total).total_seconds() + 1)
            world.purchases.cause = PauseCause.INSUFFICIENT_BALANCE
            assert await world.place_all([1, 2]) == ["parked", "parked"]
            assert world.supplier.sent_cents == []
            assert await world.releaser.look() == (True, 2)
            assert await world.place_all([1, 2]) == ["placed", "placed"]

        run(act)

    def test_an_order_that_shows_late_is_not_bought_again(self) -> None:
        async def act(world: World) -> None:
            world.supplier.next_mood = lambda: Mood(lag=59)
            assert await world.place(1) == "placed"
            self.forget(world)
            with pytest.raises(PurchaseInDoubt):
                await world.buyer.place(an_intent(1), REQUEST_ID)
            await world.supplier.clock.sleep(60)
            assert await world.place(1) == "placed"

        world = run(act)
        assert world.bought() == ["kf-1"]

    def test_nothing_is_refused_by_ourselves_before_it_was_searched_for(self) -> None:
        async def act(world: World) -> None:
            assert await world.place(1) == "placed"
            self.forget(world)
            world.supplier.products.clear()
            assert await world.place(1) == "placed"
            assert world.purchases.rows["kf-1"].purchase.state is PurchaseState.PLACED

        run(act)

    def test_who_is_not_let_in_meanwhile_still_searches_before_it_buys(self) -> None:
        async def act(world: World) -> None:
            assert await world.place(1) == "placed"
            self.forget(world)
            read = world.supplier.read_product
            await world.supplier.clock.sleep(60)

            async def not_let_in(_product_id: str) -> None:
                raise SupplierUnauthorized("the supplier does not let us in")

            world.supplier.read_product = not_let_in  # type: ignore[assignment] # a supplier that refuses
            with pytest.raises(PurchaseInDoubt):
                await world.buyer.place(an_intent(1), REQUEST_ID)
            world.supplier.read_product = read  # type: ignore[method-assign] # and lets us in again
            await world.releaser.look()
            assert await world.place(1) == "placed"

        world = run(act)
        assert world.bought() == ["kf-1"]
