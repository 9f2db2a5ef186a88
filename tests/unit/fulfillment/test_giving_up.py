"""Cancellations and refunds in every state of a purchase: what becomes of it, and what the shop is told and asked."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from fulfillment.domain.model import Amount, Order, Reason, State
from fulfillment.domain.policy import Policy, Remedy
from fulfillment.errors import NothingToCancel
from fulfillment.ports.supplier import InDoubt, Paused, Refused
from hypothesis import given
from hypothesis import strategies as st
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentRefundRequested

from tests.unit.fulfillment.examples import a_payment, an_item, an_order
from tests.unit.fulfillment.fakes import a_product, an_offer, collected
from tests.unit.fulfillment.office import Office, a_refund

NONE_LEFT = a_product("product-1", an_offer(available=0))


async def pending(office: Office) -> None:
    await office.buy(2)


async def waiting_for_stock(office: Office) -> None:
    office.supplier.products["product-1"] = NONE_LEFT
    await office.buy(2)
    await office.work()


async def in_doubt(office: Office) -> None:
    await office.buy(2)
    office.supplier.placing = [InDoubt(None)]
    await office.work()


async def in_doubt_and_sold(office: Office) -> None:
    await in_doubt(office)
    office.supplier.sell(office.purchase())


async def parked(office: Office) -> None:
    await office.buy(2)
    office.supplier.placing = [Paused(None)]
    await office.work()


async def awaiting(office: Office) -> None:
    await office.buy(2)
    await office.work()
    assert office.states() == [State.AWAITING_KEYS]


async def half_there(office: Office) -> None:
    await awaiting(office)
    office.supplier.collecting = [collected(office.purchase(), 1)]
    await office.work()


async def ready(office: Office) -> None:
    await office.buy(2)
    await office.settle()


async def half_opened(office: Office) -> None:
    await ready(office)
    await office.open(office.sealed()[0].key_id)


async def delivered(office: Office) -> None:
    await ready(office)
    for key in office.sealed():
        await office.open(key.key_id)


async def partly_canceled(office: Office) -> None:
    await awaiting(office)
    office.supplier.collecting = [collected(office.purchase(), 1, ended=True)]
    await office.work()
    assert office.states() == [State.PARTLY_CANCELED]


async def refused(office: Office) -> None:
    await office.buy(2)
    office.supplier.placing = [Refused("ConstraintViolation")]
    await office.work()


async def too_old(office: Office) -> None:
    await in_doubt(office)
    office.clock.pass_seconds(timedelta(days=1).total_seconds())
    await office.work()


Reach = Callable[[Office], Awaitable[None]]
# fmt: off
CANCELED = [
    # what was reached      the purchase          canceled  asked back
    (pending,               State.CANCELED,        2,       1000),
    (waiting_for_stock,     State.CANCELED,        2,       1000),
    (in_doubt,              State.CANCELED,        2,       1000),
    (in_doubt_and_sold,     State.CANCELED,        2,       1000),
    (parked,                State.CANCELED,        2,       1000),
    (awaiting,              State.CANCELED,        2,       1000),
    (refused,               State.CANCELED,        2,       1000),
    (too_old,               State.CANCELED,        2,       1000),
    # Of these nothing can be called off any more.
    (half_there,            None,                  0,       0),
    (ready,                 None,                  0,       0),
    (half_opened,           None,                  0,       0),
    (delivered,             None,                  0,       0),
    (partly_canceled,       None,                  1,       500),
]
REFUNDED = [
    # what was reached      the purchase           canceled  asked back before
    (pending,               State.REFUNDED,        2,        0),
    (waiting_for_stock,     State.REFUNDED,        2,        0),
    (in_doubt,              State.REFUNDED,        2,        0),
    (in_doubt_and_sold,     State.REFUNDED,        2,        0),
    (parked,                State.REFUNDED,        2,        0),
    (awaiting,              State.REFUNDED,        2,        0),
    (half_there,            State.REFUNDED,        2,        0),
    (ready,                 State.REFUNDED,        2,        0),
    # What was opened cannot be taken back, and the supplier takes all or nothing.
    (half_opened,           State.NEEDS_ATTENTION, 1,        0),
    (delivered,             State.DELIVERED,       0,        0),
    (partly_canceled,       State.REFUNDED,        2,        500),
    (refused,               State.REFUNDED,        2,        0),
    (too_old,               State.REFUNDED,        2,        0),
]
# fmt: on


@pytest.mark.parametrize(("reach", "state", "quantity", "cents"), CANCELED)
async def test_a_cancellation_takes_back_what_can_be_and_asks_for_its_money_once(
    reach: Reach, state: State | None, quantity: int, cents: int
) -> None:
    office = Office()
    await reach(office)
    before = office.orders.rows
    if state is None:
        with pytest.raises(NothingToCancel):
            await office.cancel()
        assert office.orders.rows is before
    else:
        await office.cancel()
        with pytest.raises(NothingToCancel):
            await office.cancel()
        await office.settle()
        assert office.states() == [state]
        assert (await office.found()).state is state
        assert office.purchase().reason is Reason.CANCEL_ASKED
    assert office.asked_back() == cents
    assert sum(count for _, count, _ in office.canceled()) == quantity == office.purchase().canceled_quantity


@pytest.mark.parametrize(("reach", "state", "quantity", "cents"), REFUNDED)
async def test_a_refund_takes_back_what_can_be_and_asks_for_no_money(
    reach: Reach, state: State, quantity: int, cents: int
) -> None:
    office = Office()
    await reach(office)
    for _ in range(2):
        await office.refund()
    await office.settle()
    assert office.states() == [state]
    assert sum(count for _, count, _ in office.canceled()) == quantity == office.purchase().canceled_quantity
    assert office.asked_back() == cents
    unopened = {key.key_id for key in office.sealed() if key.open_time is None}
    assert office.vault.revoked == unopened
    if state is State.REFUNDED:
        assert office.vault.shredded == unopened
        assert set(office.supplier.given_back) == set(office.supplier.sold)
    else:
        assert not office.supplier.given_back


@pytest.mark.parametrize(
    "reach", [reach for reach, state, *_ in CANCELED if state is not None], ids=lambda reach: reach.__name__
)
async def test_a_refund_while_it_is_given_up_asks_for_no_money_either(reach: Reach) -> None:
    office = Office()
    await reach(office)
    await office.cancel()
    await office.refund()
    await office.settle()
    assert office.states() == [State.REFUNDED]
    assert office.asked_back() == 0


async def test_a_cancellation_after_a_refund_never_asks_for_the_money_again() -> None:
    office = Office()
    await awaiting(office)
    await office.refund()
    # Nobody could be asked for so long that a person is.
    await office.place(state=State.NEEDS_ATTENTION, reason=Reason.GIVE_UP_TOO_OLD)
    await office.cancel()
    await office.settle()
    assert office.states() == [State.REFUNDED]
    assert office.asked_back() == 0


async def test_a_refund_that_answers_a_request_finishes_what_was_canceled() -> None:
    office = Office()
    await awaiting(office)
    await office.cancel()
    await office.settle()
    (request,) = office.requests()
    (told,) = office.orders.told(FulfillmentRefundRequested)
    assert (told.refund_request_id, told.reason) == (request.request_id, "CANCEL_ASKED")
    assert [(line.item_id, line.quantity, line.amount.minor_units) for line in told.lines] == [("item-1", 2, 1000)]
    found = await office.refund(a_refund(request_ids=(request.request_id,)))
    assert found is not None
    assert found.state is State.REFUNDED
    assert office.requests()[0].is_answered


async def test_a_refund_that_answers_a_request_takes_back_nothing_else() -> None:
    office = Office()
    await office.buy(1, 1)
    office.supplier.placing = [Refused("ConstraintViolation")]
    await office.settle()
    await office.cancel()
    await office.settle()
    (request,) = office.requests()
    await office.refund(a_refund(request.amount.minor_units, request_ids=(request.request_id,)))
    await office.settle()
    assert sorted(office.states()) == [State.READY, State.REFUNDED]
    assert not office.vault.revoked


async def test_only_the_lines_that_are_named_are_canceled() -> None:
    office = Office()
    await office.buy(1, 1)
    await office.cancel(["item-2"])
    await office.settle()
    found = await office.found()
    assert [line.state for line in found.lines] == [State.READY, State.CANCELED]
    assert found.state is State.PARTLY_CANCELED
    (fact,) = office.audited("order.cancel_asked")
    assert (fact.actor.id, fact.details["items"]) == ("carol", "item-2")


async def test_what_the_shop_wants_refunded_when_refused_is_given_back_at_once() -> None:
    office = Office(Policy(when_refused=Remedy.REFUND))
    await office.buy(2)
    office.supplier.placing = [Refused("ConstraintViolation")]
    await office.settle()
    found = await office.found()
    assert (found.state, found.reason) == (State.CANCELED, Reason.PURCHASE_REFUSED)
    assert office.asked_back() == 1000


async def waiting_lines(office: Office, order: Order) -> None:
    """Pay for an order of which nothing is to be had now."""
    for item in order.items:
        office.supplier.products[item.product_id] = a_product(item.product_id, an_offer(available=0))
    await office.order(order)
    await office.pay(a_payment(order.total.minor_units))
    await office.work()


@given(
    total=st.integers(1, 10**6),
    lines=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=4),
    is_priced=st.booleans(),
    order=st.randoms(use_true_random=False),
)
async def test_requests_never_exceed_the_total_and_reach_it_when_everything_is_canceled(
    total: int, lines: list[tuple[int, int, int]], *, is_priced: bool, order: Random
) -> None:
    office = Office()
    items = [
        replace(an_item(number, quantity), max_unit_price=most, unit_price=price if is_priced else None)
        for number, (quantity, most, price) in enumerate(lines, 1)
    ]
    await waiting_lines(office, replace(an_order("order-1"), items=items, total=Amount("EUR", total)))
    names = [item.item_id for item in items]
    order.shuffle(names)
    for name in names:
        await office.cancel([name])
        await office.work()
        assert office.asked_back() <= total
    assert office.asked_back() == total
    assert set(office.states()) == {State.CANCELED}


async def test_a_share_of_less_than_a_cent_is_asked_for_with_the_next() -> None:
    office = Office()
    await waiting_lines(office, replace(an_order("order-1", 1, 1, 1), total=Amount("EUR", 1)))
    for number in (1, 2, 3):
        await office.cancel([f"item-{number}"])
        await office.work()
    assert [told.amount.minor_units for told in office.orders.told(FulfillmentRefundRequested)] == [1]
    assert len(office.canceled()) == 3
    assert [request.is_answered for request in office.requests()] == [True, True, False]


async def test_what_was_claimed_and_is_canceled_meanwhile_is_not_bought() -> None:
    office = Office()
    await office.buy(2)
    (claimed,) = await office.claim()
    await office.cancel()
    await office.progress.act(claimed)
    await office.settle()
    assert office.states() == [State.CANCELED]
    assert not office.supplier.sold


async def test_what_is_bought_while_it_is_canceled_goes_back() -> None:
    office = Office()
    await in_doubt(office)
    office.clock.pass_seconds(60)
    (claimed,) = await office.claim()
    await office.cancel()
    await office.progress.act(claimed)
    assert office.states() == [State.REVOKING]
    await office.settle()
    assert office.states() == [State.CANCELED]
    assert len(office.supplier.given_back) == 1
    assert office.asked_back() == 1000
