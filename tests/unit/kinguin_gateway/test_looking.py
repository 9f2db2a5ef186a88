from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kinguin_gateway.domain.guard import Bounds, absence_time
from kinguin_gateway.domain.looking import (
    JITTER,
    Pace,
    delivered_count,
    doubt_gap,
    gap,
    is_change,
    is_finished,
    is_news,
)
from kinguin_gateway.domain.purchase import Purchase, PurchaseState, SupplierOrder, SupplierOrderState
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.looking import Watcher
from kinguin_gateway.settling import Settler

from tests.unit.kinguin_gateway.fakes import (
    INTENT,
    REQUEST_ID,
    FakePurchases,
    FakeSupplier,
    Row,
    an_order,
    deliver,
)
from tests.unit.simulated import EPOCH

S = SupplierOrderState
PACE = Pace(first=timedelta(seconds=2), longest=timedelta(seconds=60))
BOUNDS = Bounds(commit=timedelta(seconds=120), search_lag=timedelta(seconds=60))
PLACED = Purchase(
    INTENT,
    PurchaseState.PLACED,
    1,
    EPOCH,
    create_time=EPOCH,
    supplier_order_id="PHS00001",
    supplier_order_state=S.PROCESSING,
)
UNLISTED = replace(an_order(), lines=[replace(an_order().lines[0], delivered=None)])


@given(looks=st.integers(0, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_gaps_grow_to_a_bound_and_are_spread(looks: int, chance: float) -> None:
    wait = gap(PACE, looks, chance)
    assert PACE.first * (1 - JITTER) <= wait <= PACE.longest * (1 + JITTER)
    assert gap(PACE, looks + 1, chance) >= wait


def test_a_doubt_is_looked_at_no_later_than_it_can_be_settled() -> None:
    proof = absence_time(EPOCH, BOUNDS)
    soon = doubt_gap(timedelta(hours=1), now=EPOCH, send_deadline=EPOCH, bounds=BOUNDS)
    assert proof < EPOCH + soon < proof + timedelta(seconds=1)
    wait = timedelta(seconds=7)
    assert doubt_gap(wait, now=EPOCH, send_deadline=EPOCH, bounds=BOUNDS) == wait
    late = proof + timedelta(days=1)
    assert doubt_gap(wait, now=late, send_deadline=EPOCH, bounds=BOUNDS) == wait


@pytest.mark.parametrize(
    ("order", "count"),
    [
        (deliver(an_order(), 1), 1),
        (UNLISTED, 0),
        (replace(UNLISTED, state=S.COMPLETED), 2),
        (replace(UNLISTED, state=S.CANCELED), 0),
        (an_order(lines=[]), 0),
    ],
)
def test_k50_keys_are_counted_without_fetching_them(order: SupplierOrder, count: int) -> None:
    assert delivered_count(PLACED, order) == count


def test_news_is_a_move_or_keys_that_wait() -> None:
    assert not is_change(PLACED, an_order())
    assert not is_news(PLACED, an_order())
    assert is_change(PLACED, deliver(an_order(), 1))
    seen = replace(PLACED, delivered_count=1)
    assert is_news(seen, deliver(an_order(), 1)), "a key waits to be collected"
    assert not is_news(replace(seen, sealed_count=1), deliver(an_order(), 1))


@pytest.mark.parametrize(
    ("state", "delivered", "sealed", "finished"),
    [
        (S.PROCESSING, 2, 2, False),
        (S.COMPLETED, 2, 2, True),
        (S.COMPLETED, 1, 1, False),
        (S.CANCELED, 1, 1, True),
        (S.CANCELED, 1, 0, False),
        (S.REFUNDED, 0, 0, True),
    ],
)
def test_a_purchase_ends_only_when_nothing_more_can_come(
    state: SupplierOrderState, delivered: int, sealed: int, *, finished: bool
) -> None:
    assert is_finished(PLACED, deliver(an_order(), delivered, state), sealed) is finished


class World:
    """One purchase that is due for a look."""

    def __init__(self, purchase: Purchase = PLACED) -> None:
        self.purchases = FakePurchases(lambda: EPOCH)
        self.supplier = FakeSupplier()
        self.row = Row(purchase, REQUEST_ID, next_look_time=EPOCH)
        self.purchases.rows[INTENT.external_id] = self.row
        settler = Settler(self.purchases, self.supplier, bounds=BOUNDS, pace=PACE, chance=lambda: 0.5)
        self.watcher = Watcher(
            self.purchases, self.supplier, settler, pace=PACE, call_limit=timedelta(seconds=20), chance=lambda: 0.5
        )

    async def look(self) -> None:
        (due,) = await self.watcher.claim(10)
        assert await self.watcher.claim(10) == [], "a second replica looks elsewhere"
        await self.watcher.look(due)

    @property
    def wait(self) -> timedelta | None:
        return None if self.row.next_look_time is None else self.row.next_look_time - EPOCH


async def test_no_news_is_asked_for_again_later_each_time() -> None:
    world = World()
    world.supplier.taken.append(an_order())
    waits = []
    for _ in range(3):
        await world.look()
        assert world.wait is not None
        waits.append(world.wait)
        world.row.next_look_time = EPOCH
    assert waits[0] < waits[1] < waits[2]
    assert world.purchases.events == []


async def test_news_is_told_and_soon_asked_for_again() -> None:
    world = World(replace(PLACED, looks=20))
    world.supplier.taken.append(deliver(an_order(), 1))
    await world.look()
    assert world.purchases.events == [(INTENT.external_id, "processing", 1)]
    assert world.wait == PACE.first


async def test_an_ended_purchase_is_not_looked_at_any_more() -> None:
    world = World(replace(PLACED, sealed_count=2, delivered_count=2))
    world.supplier.taken.append(deliver(an_order(), 2, S.COMPLETED))
    await world.look()
    assert world.wait is None


@pytest.mark.parametrize("fault", ["missing", "down"])
async def test_an_order_that_cannot_be_read_is_asked_for_again(fault: str) -> None:
    world = World()
    if fault == "down":

        async def down(_step: str) -> None:
            raise SupplierUnavailable("the supplier failed: 503")

        world.supplier.step = down
    await world.look()
    assert world.row.purchase.state is PurchaseState.PLACED
    assert world.row.purchase.looks == 1
    assert world.wait == PACE.first


async def test_a_doubt_that_is_due_is_settled_by_a_search() -> None:
    world = World(replace(PLACED, state=PurchaseState.IN_DOUBT, supplier_order_id="", supplier_order_state=None))
    world.supplier.taken.append(an_order())
    world.supplier.visible_at["PHS00001"] = 0.0
    await world.look()
    assert world.row.purchase.state is PurchaseState.PLACED
    assert world.row.purchase.supplier_order_id == "PHS00001"
