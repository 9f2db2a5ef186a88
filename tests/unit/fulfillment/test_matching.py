"""Payments that came without their order: each ends, by a person's hand, and is never worth its money twice."""

from dataclasses import replace
from datetime import timedelta

import pytest
from fulfillment.domain.model import Amount, Customer, Fulfillment, ItemId, OrderId, Reason, State
from fulfillment.domain.payments import Misfit
from fulfillment.errors import (
    OrderNotFound,
    PaymentClosed,
    PaymentMatched,
    PaymentNotAssignable,
    PaymentNotFound,
    PaymentReused,
)
from fulfillment.matching import Matching, PaymentName, Target
from fulfillment.metrics import UNMATCHED
from fulfillment.payments import PaymentDesk, UnmatchedWatch
from fulfillment.ports.payments import Closure, PaymentRecord
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentAccepted, FulfillmentRefunded

from tests.unit.fulfillment.examples import a_payment, an_order
from tests.unit.fulfillment.memory_payments import MemoryPayments
from tests.unit.fulfillment.office import CAROL, Office, a_refund

OTHER = OrderId("order-2")
LOST = OrderId("order-9")
NAME = PaymentName("stripe", "payment-1")
BOB = Customer("bob", "bob@example.com")


class Counter(Office):
    """An order that waits for its money, and a payment of it that names another."""

    def __init__(self) -> None:
        super().__init__()
        self.matching = Matching(self.intake, self.clock)
        self.payments = MemoryPayments(self.orders)

    async def assign(self, order_id: str = "order-1", customer_id: str = "alice") -> Fulfillment:
        async with self.orders.transaction() as transaction:
            target = Target(OrderId(order_id), customer_id)
            return (await self.matching.assign(transaction, NAME, target, CAROL))[1]

    async def close(self, closure: Closure = Closure.REFUNDED_OUTSIDE) -> PaymentRecord:
        async with self.orders.transaction() as transaction:
            return await self.matching.close(transaction, NAME, closure, CAROL)

    async def unmatched(self) -> list[str]:
        page = await PaymentDesk(self.payments).page(order_id=None, unmatched=True, size=0, token="")
        watch = UnmatchedWatch(self.payments, self.clock)
        await watch.look()
        assert UNMATCHED.labels("payment")._value.get() == len(page.records)
        return [record.payment.payment_id for record in page.records]


@pytest.fixture
async def counter() -> Counter:
    counter = Counter()
    await counter.order()
    await counter.pay(a_payment(order_id=LOST))
    return counter


async def test_a_payment_that_is_given_to_its_order_is_as_if_it_had_come_for_it(counter: Counter) -> None:
    assert await counter.unmatched() == ["payment-1"]
    found = await counter.assign()
    assert (found.state, found.paid) == (State.PENDING, Amount("EUR", 1000))
    await counter.settle()
    assert (await counter.found()).state is State.READY
    assert await counter.unmatched() == []
    (fact,) = counter.audited("payment.assigned")
    assert (fact.order_id, fact.actor.id, fact.details["told_order_id"]) == ("order-1", "carol", "order-9")
    assert fact.details["reason"] == CAROL.reason
    assert {told.order_id for told in counter.orders.told(FulfillmentAccepted)} == {"order-1", "order-9"}


async def test_what_the_shop_repeats_of_it_is_accepted_and_pays_nothing_again(counter: Counter) -> None:
    await counter.assign()
    before = counter.orders.rows
    repeated = await counter.pay(a_payment(order_id=LOST), telling="event-2")
    assert repeated is not None
    assert repeated.order.order_id == "order-1"
    assert counter.orders.rows.purchases == before.purchases
    accepted = [told for told in counter.orders.told(FulfillmentAccepted) if told.order_id == LOST]
    assert len(accepted) == 2
    with pytest.raises(PaymentReused):
        await counter.pay(a_payment(order_id=OTHER))
    # The order that it named may come after all; it has no money of it.
    late = await counter.order(an_order(LOST, customer=BOB))
    assert (late.state, late.paid) == (State.AWAITING_PAYMENT, None)


async def test_its_refund_takes_back_the_order_that_it_was_given_to(counter: Counter) -> None:
    await counter.assign()
    await counter.settle()
    await counter.refund()
    await counter.settle()
    assert (await counter.found()).state is State.REFUNDED
    assert [told.order_id for told in counter.orders.told(FulfillmentRefunded)] == ["order-1"]


async def test_a_refund_that_came_before_counts_when_it_is_given(counter: Counter) -> None:
    await counter.refund(a_refund(1000))
    found = await counter.assign()
    assert found.state is State.REFUNDED
    assert not counter.orders.purchases()


async def test_a_part_of_the_total_leaves_the_rest_owed() -> None:
    counter = Counter()
    await counter.order()
    await counter.pay(a_payment(400, order_id=LOST))
    assert (await counter.assign()).state is State.AWAITING_PAYMENT
    await counter.pay(a_payment(600, payment_id="payment-2"))
    assert (await counter.found()).state is State.PENDING


async def test_given_twice_it_is_the_orders_once(counter: Counter) -> None:
    await counter.assign()
    before = counter.orders.rows
    assert await counter.assign() == await counter.found()
    assert counter.orders.rows == before


async def test_an_order_that_it_leaves_is_judged_anew() -> None:
    counter = Counter()
    await counter.order()
    await counter.pay(a_payment(1000, order_id=LOST))
    await counter.pay(a_payment(1000, payment_id="payment-2", order_id=LOST))
    left = await counter.order(an_order(LOST, customer=BOB))
    assert left.reason is Reason.PAYMENT_MISMATCH
    await counter.assign()
    assert {each.order_id for each in counter.orders.purchases()} == {"order-1", LOST}
    assert (await counter.found(LOST)).state is State.PENDING


@pytest.mark.parametrize(
    ("why", "customer_id", "amount"),
    [
        (Misfit.OTHER_CUSTOMER, "bob", Amount("EUR", 1000)),
        (Misfit.OTHER_CURRENCY, "alice", Amount("USD", 1000)),
        (Misfit.TOO_MUCH, "alice", Amount("EUR", 1001)),
    ],
    ids=str,
)
async def test_what_does_not_fit_is_not_assigned(why: Misfit, customer_id: str, amount: Amount) -> None:
    counter = Counter()
    await counter.order()
    await counter.pay(replace(a_payment(order_id=LOST), amount=amount))
    before = counter.orders.rows
    with pytest.raises(PaymentNotAssignable) as raised:
        await counter.assign(customer_id=customer_id)
    assert raised.value.metadata == {"why": why.value}
    assert counter.orders.rows is before


@pytest.mark.parametrize("why", [Misfit.ORDER_OVER, Misfit.NOTHING_OWED, Misfit.USED])
async def test_an_order_that_wants_no_money_gets_none(counter: Counter, why: Misfit) -> None:
    if why is Misfit.ORDER_OVER:
        await counter.cancel()
    elif why is Misfit.NOTHING_OWED:
        await counter.pay(a_payment(payment_id="payment-2"))
    else:
        await counter.order(an_order(LOST, customer=BOB))
    with pytest.raises(PaymentNotAssignable) as raised:
        await counter.assign()
    assert raised.value.metadata == {"why": why.value}


async def test_money_that_is_asked_back_already_is_not_given_to_another_order() -> None:
    counter = Counter()
    await counter.order()
    await counter.order(an_order(LOST, customer=BOB))
    await counter.pay(a_payment(400, order_id=LOST))
    await counter.cancel(order_id=LOST)
    assert counter.asked_back() == 400
    with pytest.raises(PaymentNotAssignable):
        await counter.assign()


async def test_what_is_not_there_is_told(counter: Counter) -> None:
    with pytest.raises(OrderNotFound):
        await counter.assign("order-7")
    counter.orders.rows.payments.clear()
    with pytest.raises(PaymentNotFound):
        await counter.assign()
    with pytest.raises(PaymentNotFound):
        await counter.close()


@pytest.mark.parametrize("closure", Closure)
async def test_a_payment_that_is_closed_has_ended(counter: Counter, closure: Closure) -> None:
    counter.clock.time += timedelta(hours=1)
    record = await counter.close(closure)
    assert (record.close_time, record.closure, record.close_note) == (counter.clock.now(), closure, CAROL.reason)
    assert await counter.unmatched() == []
    (fact,) = counter.audited("payment.closed")
    assert (fact.order_id, fact.details["closure"]) == ("order-9", closure.value)
    for again in (counter.close, counter.assign):
        with pytest.raises(PaymentClosed):
            await again()


async def test_whatever_comes_after_it_was_closed_it_is_worth_nothing(counter: Counter) -> None:
    await counter.close()
    assert await counter.pay(a_payment(order_id=LOST), telling="event-2") is None
    found = await counter.order(an_order(LOST, customer=BOB))
    assert (found.state, found.paid) == (State.AWAITING_PAYMENT, None)
    assert await counter.pay(a_payment(order_id=LOST), telling="event-3") is None
    assert await counter.refund() is None
    assert not counter.orders.purchases()
    assert not counter.orders.told(FulfillmentAccepted)


async def test_a_payment_with_an_order_is_not_closed(counter: Counter) -> None:
    await counter.assign()
    with pytest.raises(PaymentMatched):
        await counter.close()


async def test_lines_of_a_refund_are_those_of_the_order_that_it_was_given_to(counter: Counter) -> None:
    await counter.assign()
    await counter.settle()
    await counter.refund(replace(a_refund(), item_ids=[ItemId("item-1")]))
    await counter.settle()
    assert counter.states() == [State.REFUNDED]
