from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from fulfillment.domain.model import Amount, OrderId, Reason, State
from fulfillment.domain.planner import external_id
from fulfillment.errors import OrderConflict, PaymentReused
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentAccepted, FulfillmentNeedsAttention

from tests.unit.fulfillment.examples import ALICE, DIGEST, NOON, a_payment, an_order
from tests.unit.fulfillment.office import Office


class Desk(Office):
    def accepted(self) -> list[tuple[str, str]]:
        return [(told.order_id, told.payment_id) for told in self.orders.told(FulfillmentAccepted)]

    def attention(self) -> list[tuple[str, str]]:
        return [(told.item_id, told.reason) for told in self.orders.told(FulfillmentNeedsAttention)]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def order_then_payment(desk: Desk) -> None:
    await desk.order()
    await desk.pay()


async def payment_then_order(desk: Desk) -> None:
    await desk.pay()
    await desk.order()


Arrive = Callable[[Desk], Awaitable[None]]


@pytest.mark.parametrize("arrive", [order_then_payment, payment_then_order])
async def test_whichever_comes_first_it_is_bought_once_both_are_there(desk: Desk, arrive: Arrive) -> None:
    await arrive(desk)
    found = await desk.found()
    assert (found.state, found.paid, found.pay_time) == (State.PENDING, Amount("EUR", 1000), NOON)
    (item,) = found.order.items
    assert [purchase.external_id for purchase in desk.orders.purchases()] == [
        external_id(found.order.order_id, item.item_id, 0, 1)
    ]
    assert desk.accepted() == [("order-1", "payment-1")]
    assert len(desk.audited("order.accepted")) == len(desk.audited("payment.confirmed")) == 1


@pytest.mark.parametrize("arrive", [order_then_payment, payment_then_order])
async def test_what_comes_again_changes_nothing(desk: Desk, arrive: Arrive) -> None:
    await arrive(desk)
    before = await desk.found()
    facts = len(desk.orders.told(AuditRecorded))
    desk.clock.pass_seconds(60)
    await desk.order()
    await desk.pay()
    assert await desk.found() == before
    assert len(desk.orders.told(AuditRecorded)) == facts
    assert len(desk.orders.purchases()) == 1


async def test_an_order_without_payment_waits(desk: Desk) -> None:
    found = await desk.order()
    assert (found.state, found.paid, found.pay_time) == (State.AWAITING_PAYMENT, None, None)
    assert not desk.orders.purchases()
    assert not desk.accepted()


async def test_a_payment_is_not_accepted_before_its_order_is_there(desk: Desk) -> None:
    """The shop stops repeating what was accepted, and would never tell the order then."""
    assert await desk.pay() is None
    assert not desk.accepted()
    assert desk.audited("payment.confirmed")


async def test_a_payment_repeated_under_a_new_event_is_accepted_again(desk: Desk) -> None:
    await desk.order()
    await desk.pay(telling="event-1")
    await desk.pay(telling="event-1")
    await desk.pay(telling="event-2")
    assert desk.accepted() == [("order-1", "payment-1")] * 2


async def test_payments_below_the_total_add_up(desk: Desk) -> None:
    await desk.order()
    short = await desk.pay(a_payment(400))
    assert short is not None
    assert (short.state, short.paid, short.pay_time) == (State.AWAITING_PAYMENT, Amount("EUR", 400), None)
    desk.clock.pass_seconds(5)
    paid = await desk.pay(a_payment(600, payment_id="payment-2"))
    assert paid is not None
    assert (paid.state, paid.paid, paid.pay_time) == (
        State.PENDING,
        Amount("EUR", 1000),
        NOON + timedelta(seconds=5),
    )


@pytest.mark.parametrize("amount", [Amount("EUR", 1001), Amount("USD", 1000)])
async def test_a_payment_that_does_not_match_buys_nothing_and_says_why(desk: Desk, amount: Amount) -> None:
    await desk.order()
    found = await desk.pay(a_payment(amount=amount))
    assert found is not None
    assert (found.state, found.reason, found.paid) == (State.NEEDS_ATTENTION, Reason.PAYMENT_MISMATCH, amount)
    assert not desk.orders.purchases()
    assert desk.attention() == [("", "PAYMENT_MISMATCH")]
    (fact,) = desk.audited("payment.mismatch")
    assert dict(fact.details) == {
        "expected": "EUR 1000",
        "received": f"{amount.currency_code} {amount.minor_units}",
    }


async def test_money_in_another_currency_does_not_reach_the_total(desk: Desk) -> None:
    await desk.order()
    await desk.pay(a_payment(amount=Amount("USD", 99999)))
    assert (await desk.found()).pay_time is None


async def test_a_payment_too_much_after_the_buying_began_stops_nothing(desk: Desk) -> None:
    await desk.order()
    await desk.pay()
    found = await desk.pay(a_payment(1, payment_id="payment-2"))
    assert found is not None
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.PAYMENT_MISMATCH)
    assert found.pay_time == NOON
    assert [purchase.state for purchase in desk.orders.purchases()] == [State.PENDING]


@pytest.mark.parametrize("change", [{"order_id": OrderId("order-2")}, {"amount": Amount("EUR", 999)}])
async def test_a_payment_known_otherwise_is_refused_and_leaves_nothing(desk: Desk, change: dict[str, object]) -> None:
    await desk.order()
    await desk.order(an_order("order-2"))
    await desk.pay()
    before = desk.orders.rows
    with pytest.raises(PaymentReused) as raised:
        await desk.pay(a_payment(**change))  # type: ignore[arg-type] # fields by name
    assert raised.value.reason == "PAYMENT_REUSED"
    assert raised.value.metadata == {"provider": "stripe", "payment_id": "payment-1"}
    assert desk.orders.rows is before


async def test_the_same_number_of_another_provider_is_another_payment(desk: Desk) -> None:
    await desk.order()
    await desk.pay(a_payment(500, provider="a", payment_id="b/c"))
    found = await desk.pay(a_payment(500, provider="a/b", payment_id="c"))
    assert found is not None
    assert found.state is State.PENDING
    assert len(desk.audited("payment.confirmed")) == 2


@pytest.mark.parametrize("arrive", [order_then_payment, payment_then_order])
async def test_a_changed_order_is_refused_and_leaves_nothing(desk: Desk, arrive: Arrive) -> None:
    await arrive(desk)
    before = desk.orders.rows
    with pytest.raises(OrderConflict) as raised:
        await desk.order(an_order("order-1", 2), b"another digest")
    assert raised.value.reason == "ORDER_CONFLICT"
    assert desk.orders.rows is before


async def test_a_refused_payment_takes_its_order_with_it(desk: Desk) -> None:
    await desk.order(an_order("order-2"))
    await desk.pay(a_payment(order_id=OrderId("order-2")))

    async def both() -> None:
        async with desk.orders.transaction() as transaction:
            await desk.intake.take_order(transaction, an_order(), DIGEST)
            await desk.intake.take_payment(transaction, a_payment(), telling="event-1")

    with pytest.raises(PaymentReused):
        await both()
    assert set(desk.orders.rows.orders) == {"order-2"}


async def test_every_line_is_bought(desk: Desk) -> None:
    await desk.pay()
    found = await desk.order(an_order("order-1", 2, 19))
    assert [[purchase.quantity for purchase in line.purchases] for line in found.lines] == [[2], [19]]
    assert found.order.customer == ALICE
    again = replace(found, version=found.version)
    assert await desk.found() == again
