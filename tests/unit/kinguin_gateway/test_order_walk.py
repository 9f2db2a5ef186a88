"""However many orders there are, and whatever comes meanwhile: each is shown once, and no page is far behind."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from kinguin_gateway.adapters.order_walk import PAGE, Walk
from kinguin_gateway.domain.purchase import SupplierOrder, SupplierOrderState
from kinguin_gateway.ports.supplier import OrderFilter

from tests.unit.kinguin_gateway.fakes import an_order
from tests.unit.simulated import EPOCH

MANY = 100_000 if os.environ.get("KEYFERRY_PROOF") == "full" else 10_000

SECOND = timedelta(seconds=1)


class Account:
    """A supplier's account: one more order may come before each page is read."""

    def __init__(self, seconds: Sequence[float], coming: int = 0, size: int = PAGE) -> None:
        self.orders = [an_order(number=n, create_time=EPOCH + second * SECOND) for n, second in enumerate(seconds)]
        self.coming, self.size = coming, size
        self.deepest = self.most_known = self.asked = 0

    def walk(self, wanted: OrderFilter = OrderFilter()) -> list[SupplierOrder]:  # noqa: B008 # it cannot change
        walk, shown = Walk(wanted), list[SupplierOrder]()
        while not walk.ended:
            self.asked, self.deepest = self.asked + 1, max(self.deepest, walk.page)
            found = self._found(walk)
            first = (walk.page - 1) * self.size
            shown += walk.take(found[first : first + self.size], len(found))
            self.most_known = max(self.most_known, len(walk._known))
            if self.coming:
                self.coming -= 1
                number = len(self.orders)
                self.orders.append(an_order(number=number, create_time=EPOCH + (10_000 + number) * SECOND))
        assert walk.is_whole
        return shown

    def _found(self, walk: Walk) -> list[SupplierOrder]:
        start, end = (walk.query.get(name) for name in ("createdAtFrom", "createdAtTo"))
        found = [
            order
            for order in self.orders
            if order.create_time is not None
            and (start is None or order.create_time >= datetime.fromisoformat(start))
            and (end is None or order.create_time <= datetime.fromisoformat(end))
        ]
        return sorted(found, key=lambda order: (order.create_time or EPOCH, order.supplier_order_id), reverse=True)


def ids(orders: Sequence[SupplierOrder]) -> list[str]:
    return [order.supplier_order_id for order in orders]


@given(
    seconds=st.lists(st.floats(0, 20), max_size=60),
    coming=st.integers(0, 20),
    size=st.integers(1, 7),
)
def test_every_order_is_shown_once_the_newest_first(seconds: list[float], coming: int, size: int) -> None:
    account = Account(seconds, coming, size)
    known = ids(account.orders)
    shown = account.walk()
    assert len(set(ids(shown))) == len(shown)
    assert set(known) <= set(ids(shown))
    old = [order for order in shown if order.supplier_order_id in known]
    times = [order.create_time.replace(microsecond=0) for order in old if order.create_time]
    assert times == sorted(times, reverse=True)


@given(start=st.floats(0, 20), length=st.floats(0, 20), seconds=st.lists(st.floats(0, 40), max_size=60))
def test_a_range_shows_what_is_in_it(start: float, length: float, seconds: list[float]) -> None:
    account = Account(seconds, size=3)
    wanted = OrderFilter(start_time=EPOCH + start * SECOND, end_time=EPOCH + (start + length) * SECOND)
    shown = set(ids(account.walk(wanted)))
    assert wanted.start_time is not None
    # The supplier's own filter has no fractions of seconds.
    first = wanted.start_time.replace(microsecond=0)
    expected = [
        order.supplier_order_id
        for order in account.orders
        if order.create_time and wanted.end_time and first <= order.create_time < wanted.end_time
    ]
    assert shown == set(expected)


def test_of_many_orders_no_page_is_far_behind_and_few_ids_are_kept() -> None:
    account = Account([n / 3 for n in range(MANY)], coming=MANY // 20)
    assert len(account.walk()) == MANY + MANY // 20 - account.coming - (MANY // 20 - account.coming)
    assert account.deepest == 1
    assert account.most_known < 2 * PAGE
    assert account.asked < MANY / PAGE * 1.2


def test_orders_of_one_second_and_orders_in_no_order_are_paged_through() -> None:
    account = Account([5.0] * 950)
    assert len(account.walk()) == 950
    walk = Walk(OrderFilter())
    mixed = [an_order(number=n, create_time=EPOCH + (n % 7) * SECOND) for n in range(PAGE)]
    walk.take(mixed, 150)
    assert (walk.page, walk.query, walk.ended) == (2, {}, False)
    undated = [an_order(number=PAGE + n, create_time=None) for n in range(50)]
    assert len(walk.take(undated, 150)) == 50
    assert (walk.ended, walk.is_whole) == (True, True)


def test_an_order_that_changes_its_state_while_it_is_listed_hides_no_other() -> None:
    """It leaves the listing, and all behind it move up by one: nothing that stays may be skipped."""
    account = Account(list(range(30)), size=5)
    processing, walk, shown = OrderFilter(state=SupplierOrderState.PROCESSING), None, list[str]()
    walk = Walk(processing)
    while not walk.ended:
        found = [order for order in account._found(walk) if order.state is SupplierOrderState.PROCESSING]
        first = (walk.page - 1) * account.size
        shown += ids(walk.take(found[first : first + account.size], len(found)))
        done = shown[0] if walk.page == 1 else ""
        account.orders = [
            replace(order, state=SupplierOrderState.COMPLETED) if order.supplier_order_id == done else order
            for order in account.orders
        ]
    assert len(shown) == 30
