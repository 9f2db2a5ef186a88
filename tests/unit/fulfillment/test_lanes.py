"""Who is claimed when much waits: what orders little is never behind what orders much, and no place stays free."""

from collections import Counter

import pytest
from fulfillment.domain.model import Customer, OrderId
from fulfillment.domain.planner import LANES
from fulfillment.ports.supplier import Claimed

from tests.unit.fulfillment.examples import a_payment, an_order
from tests.unit.fulfillment.office import Office


async def wholesale(office: Office) -> None:
    """Let an order of 1,000 keys be planned, of which nothing else is done yet."""
    await office.order(an_order("order-1", 1000))
    await office.pay()
    await office.work()


async def single(office: Office, number: int = 2) -> OrderId:
    order_id = OrderId(f"order-{number}")
    await office.order(an_order(order_id, customer=Customer(f"bob-{number}", "bob@example.com", "en", "DE")))
    await office.pay(a_payment(order_id=order_id, payment_id=f"payment-{number}"))
    return order_id


def orders(claimed: list[Claimed]) -> set[OrderId]:
    return {each.buying.purchase.order_id for each in claimed}


def lanes(claimed: list[Claimed]) -> Counter[int]:
    return Counter(each.buying.purchase.lane for each in claimed)


@pytest.mark.parametrize("limit", [8, 64])
async def test_a_single_key_is_claimed_next_whatever_waits_of_a_wholesale_order(limit: int) -> None:
    office = Office()
    await wholesale(office)
    assert len(office.orders.purchases()) > 100
    order_id = await single(office)
    assert order_id in orders(list(await office.progress.claim_first(limit)))


async def test_many_single_keys_do_not_wait_for_one_another_behind_it() -> None:
    office = Office()
    await wholesale(office)
    for number in range(2, 12):
        await single(office, number)
    claimed = list(await office.progress.claim_first(16))
    assert len(orders(claimed) - {OrderId("order-1")}) == 10


async def test_later_lanes_share_what_is_free_in_turn() -> None:
    office = Office()
    await wholesale(office)
    waiting = Counter(each.lane for each in office.orders.purchases() if each.next_time)
    filled = [lane for lane in range(1, LANES) if waiting[lane]]
    assert len(filled) >= 3
    one_each = [list(await office.progress.claim_later(1)) for _ in range(2 * (LANES - 1))]
    seen = [next(iter(lanes(each))) for each in one_each]
    assert set(seen) >= set(filled)
    shared = lanes(list(await office.progress.claim_later(4 * len(filled))))
    assert all(shared[lane] >= min(waiting[lane] - seen.count(lane), 3) for lane in filled)


@pytest.mark.parametrize("limit", [1, 3, 8, 50])
async def test_no_place_stays_free_while_anything_waits(limit: int) -> None:
    office = Office()
    await wholesale(office)
    left = sum(each.lane > 0 and each.next_time is not None for each in office.orders.purchases())
    while left:
        claimed = await office.progress.claim_later(limit)
        assert len(claimed) == min(limit, left)
        assert len({each.buying.purchase.external_id for each in claimed}) == len(claimed)
        left -= len(claimed)
    assert not await office.progress.claim_later(limit)


async def test_nothing_is_claimed_of_a_lane_by_the_loop_of_the_others() -> None:
    office = Office()
    await wholesale(office)
    assert set(lanes(list(await office.progress.claim_first(64)))) == {0}
    assert 0 not in lanes(list(await office.progress.claim_later(200)))


async def test_a_customer_with_much_waiting_joins_behind_it() -> None:
    office = Office()
    await wholesale(office)
    await office.order(an_order("order-3"))
    await office.pay(a_payment(order_id=OrderId("order-3"), payment_id="payment-3"))
    (own,) = [each for each in office.orders.purchases() if each.order_id == "order-3"]
    assert own.lane > 1


async def test_what_is_claimed_is_claimed_by_one_worker_only() -> None:
    office = Office()
    await wholesale(office)
    other = office.worker()
    first = {each.buying.purchase.external_id for each in await office.progress.claim_later(30)}
    second = {each.buying.purchase.external_id for each in await other.claim_later(30)}
    assert len(first) == len(second) == 30
    assert not first & second
