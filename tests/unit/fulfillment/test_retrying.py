"""After an outage nobody asks for each order by hand: pages of them go on, one after the other, and each once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from chassis.errors import InvalidRequest
from chassis.paging import write_page_token
from fulfillment.domain.model import OrderId, Reason, State
from fulfillment.domain.policy import Trouble
from fulfillment.ports.supplier import Refused
from fulfillment.retrying import LONGEST_DELAY, PACE, RetriedPage, Retrying

from tests.unit.fulfillment.desk import deliver
from tests.unit.fulfillment.examples import NOON, a_payment, an_order
from tests.unit.fulfillment.office import CAROL, Office

EVERY = Trouble()


class Crowd(Office):
    """Orders that were refused, each a second after the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.retrying = Retrying(self.operating, self.clock)

    async def refuse(self, count: int) -> None:
        for number in range(count):
            await self.order(an_order(f"order-{number}"))
            await self.pay(a_payment(payment_id=f"payment-{number}", order_id=OrderId(f"order-{number}")))
            self.supplier.placing = [Refused("ConstraintViolation")]
            await self.work()
            self.clock.pass_seconds(1)

    async def retry_some(self, trouble: Trouble = EVERY, *, size: int = 0, token: str = "") -> RetriedPage:
        async with self.orders.transaction() as transaction:
            return await self.retrying.retry(transaction, trouble, CAROL, size=size, token=token)

    def due(self) -> Sequence[datetime]:
        return sorted(row.run_at for row in self.orders.rows.purchases.values() if row.run_at is not None)


async def crowd_of(count: int) -> Crowd:
    crowd = Crowd()
    await crowd.refuse(count)
    return crowd


@pytest.mark.parametrize("size", [1, 3, 7, 0])
async def test_pages_let_every_order_go_on_once_and_one_after_the_other(size: int) -> None:
    crowd = await crowd_of(7)
    now, token, retried, pages = crowd.clock.now(), "", 0, 0
    while pages == 0 or token:
        page = await crowd.retry_some(size=size, token=token)
        token, retried, pages = page.next_token, retried + page.retried, pages + 1
        assert not page.refused
    assert (retried, pages) == (7, -(-7 // (size or 7)))
    due = crowd.due()
    assert len(due) == 7
    assert due[0] >= now
    # Each waits for its attempt as after every retry; between them lies the pace.
    assert [later - earlier for earlier, later in pairwise(due)] == [PACE] * 6
    assert Counter(fact.order_id for fact in crowd.audited("order.retry_asked")) == {f"order-{n}": 1 for n in range(7)}
    await crowd.settle()
    assert {(await crowd.found(OrderId(f"order-{n}"))).state for n in range(7)} == {State.READY}


async def test_only_what_the_filters_name_goes_on() -> None:
    crowd = await crowd_of(4)
    assert (await crowd.retry_some(Trouble(Reason.KEYS_TOO_LATE))).retried == 0
    window = Trouble(Reason.PURCHASE_REFUSED, NOON + timedelta(seconds=1), NOON + timedelta(seconds=3))
    assert (await crowd.retry_some(window)).retried == 2
    assert sorted(fact.order_id for fact in crowd.audited("order.retry_asked")) == ["order-1", "order-2"]
    assert (await crowd.retry_some(window)).retried == 0
    assert (await crowd.retry_some()).retried == 2


async def test_what_cannot_go_on_is_named_and_stops_no_other() -> None:
    crowd = Crowd()
    await crowd.buy(2)
    crowd.supplier.placing = [Refused("ConstraintViolation")]
    await crowd.work()
    # Half delivered by hand: all of it bought again would be too much.
    await deliver(crowd, "r-1")
    await crowd.order(an_order("order-2"))
    await crowd.pay(a_payment(payment_id="payment-2", order_id=OrderId("order-2")))
    crowd.supplier.placing = [Refused("ConstraintViolation")]
    await crowd.work()
    page = await crowd.retry_some()
    assert page.retried == 1
    assert [(each.order_id, each.reason) for each in page.refused] == [("order-1", "NOTHING_TO_RETRY")]
    assert not page.next_token


async def test_what_was_set_aside_and_can_be_read_again_is_among_them() -> None:
    crowd = await crowd_of(2)
    external_id = crowd.purchase().external_id
    row = crowd.orders.rows.purchases[external_id]
    mended = replace(row.purchase, state=State.PURCHASING, reason=Reason.NONE)
    crowd.orders.rows.purchases[external_id] = replace(row, purchase=mended, run_at=None)
    assert (await crowd.retry_some(Trouble(Reason.ROW_UNREADABLE))).retried == 1


@pytest.mark.parametrize(
    "place",
    [
        ["no time", "order-1", NOON.isoformat()],
        [NOON.isoformat(), "or\0der", NOON.isoformat()],
        [NOON.isoformat(), "order-1", "soon"],
        [NOON.isoformat(), "order-1"],
    ],
    ids=["time", "order", "due", "short"],
)
async def test_a_token_that_is_not_ours_is_a_fault_and_nothing_worse(place: list[str]) -> None:
    crowd = await crowd_of(1)
    with pytest.raises(InvalidRequest) as raised:
        await crowd.retry_some(token=write_page_token(("", "", ""), place))
    assert raised.value.field_violations[0].field == "page_token"


async def test_a_token_delays_nothing_for_longer_than_pages_take() -> None:
    crowd = await crowd_of(1)
    far = (NOON + timedelta(days=400)).isoformat()
    token = write_page_token(("", "", ""), [(NOON - timedelta(days=1)).isoformat(), "order-0", far])
    assert (await crowd.retry_some(token=token)).retried == 1
    assert crowd.due()[0] <= crowd.clock.now() + LONGEST_DELAY + timedelta(minutes=1)
