"""Payments and refunds in every order of arrival, each of them twice."""

import itertools
from collections.abc import Sequence
from datetime import timedelta

import pytest
from fulfillment.domain.model import Amount, Fulfillment, ItemId, Reason, State
from fulfillment.errors import NothingToCancel, RefundReused
from fulfillment.ports.supplier import NoAnswer
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentRefunded, FulfillmentRefundRequested

from tests.unit.fulfillment.examples import a_payment, an_order
from tests.unit.fulfillment.office import Office, a_refund


@pytest.fixture
def office() -> Office:
    return Office()


async def arrive(office: Office, what: str, times: int) -> None:
    for _ in range(times):
        match what:
            case "order":
                await office.order()
            case "payment":
                await office.pay()
            case "refund":
                await office.refund()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("way", list(itertools.permutations(["order", "payment", "refund"])))
async def test_in_whichever_order_they_come_the_order_is_refunded(way: Sequence[str], times: int) -> None:
    office = Office()
    for what in way:
        await arrive(office, what, times)
    await office.settle()
    found = await office.found()
    assert (found.state, found.paid, found.refunded) == (State.REFUNDED, Amount("EUR", 1000), Amount("EUR", 1000))
    assert not office.supplier.sold
    assert not office.requests()
    assert len(office.audited("payment.refunded")) == len(office.audited("payment.confirmed")) == 1
    (told,) = {(told.refund_id, told.opened_count) for told in office.orders.told(FulfillmentRefunded)}
    assert told == ("refund-1", 0)


@pytest.mark.parametrize("way", list(itertools.permutations(["order", "payment"])))
async def test_a_refund_waits_for_the_other_two_and_is_answered_then(office: Office, way: Sequence[str]) -> None:
    assert await office.refund() is None
    await arrive(office, way[0], 1)
    assert not office.orders.told(FulfillmentRefunded)
    await arrive(office, way[1], 1)
    assert len(office.orders.told(FulfillmentRefunded)) == 1
    assert not office.orders.purchases()


async def test_a_refund_repeated_under_a_new_event_is_answered_again(office: Office) -> None:
    await office.buy(1)
    for telling in ("event-1", "event-1", "event-2"):
        await office.refund(telling=telling)
    assert len(office.orders.told(FulfillmentRefunded)) == 2
    assert len(office.audited("payment.refunded")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"amount": Amount("EUR", 999)},
        {"payment_id": "payment-2"},
        {"item_ids": (ItemId("item-1"),)},
        {"request_ids": ("r-1",)},
        {"is_chargeback": True},
    ],
)
async def test_a_refund_known_otherwise_is_refused_and_leaves_nothing(
    office: Office, change: dict[str, object]
) -> None:
    await office.buy(1)
    await office.refund()
    before = office.orders.rows
    with pytest.raises(RefundReused) as raised:
        await office.refund(a_refund(**change))  # type: ignore[arg-type] # fields by name
    assert raised.value.metadata == {"provider": "stripe", "refund_id": "refund-1"}
    assert office.orders.rows is before


async def test_a_refund_of_a_part_without_lines_takes_nothing_back(office: Office) -> None:
    await office.buy(1, 1)
    await office.settle()
    found = await office.refund(a_refund(300))
    assert found is not None
    assert (found.state, found.refunded) == (State.READY, Amount("EUR", 300))
    assert not office.vault.revoked


async def test_the_last_part_takes_every_line_back(office: Office) -> None:
    await office.buy(1, 1)
    await office.settle()
    await office.refund(a_refund(300))
    await office.refund(a_refund(700, refund_id="refund-2"))
    await office.settle()
    assert (await office.found()).state is State.REFUNDED
    assert len(office.vault.shredded) == 2
    assert not office.requests()


async def test_a_refund_of_a_line_takes_back_that_line_only(office: Office) -> None:
    await office.buy(1, 1)
    await office.settle()
    await office.refund(a_refund(500, item_ids=(ItemId("item-2"),)))
    await office.settle()
    found = await office.found()
    assert [line.state for line in found.lines] == [State.READY, State.REFUNDED]
    assert found.state is State.PARTLY_CANCELED
    assert office.canceled() == [("item-2", 1, "REFUND_TAKEN")]


async def test_a_chargeback_tells_how_much_was_opened_and_takes_back_the_rest(office: Office) -> None:
    await office.buy(1, 1)
    await office.settle()
    first, second = [key.key_id for key in office.sealed()]
    await office.open(first)
    await office.refund(a_refund(is_chargeback=True))
    await office.settle()
    (told,) = office.orders.told(FulfillmentRefunded)
    assert told.opened_count == 1
    (fact,) = office.audited("payment.refunded")
    assert (fact.details["chargeback"], fact.details["opened"]) == ("true", "1")
    assert office.vault.shredded == {second}
    assert sorted(office.states()) == [State.DELIVERED, State.REFUNDED]


async def test_more_given_back_than_was_paid_is_for_a_human(office: Office) -> None:
    await office.buy(1)
    found = await office.refund(a_refund(1001))
    assert found is not None
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.PAYMENT_MISMATCH)
    assert len(office.audited("payment.mismatch")) == 1


async def test_a_refund_of_what_was_too_much_ends_the_mismatch_and_lets_the_buying_begin(office: Office) -> None:
    await office.order()
    await office.pay(a_payment(1200))
    assert not office.orders.purchases()
    found = await office.refund(a_refund(200))
    assert found is not None
    assert (found.state, found.reason) == (State.PENDING, Reason.NONE)


async def test_a_payment_in_another_currency_given_back_is_as_if_it_had_never_been(office: Office) -> None:
    await office.order()
    await office.pay(a_payment(amount=Amount("USD", 1000), payment_id="payment-2"))
    await office.refund(a_refund(payment_id="payment-2", amount=Amount("USD", 1000)))
    found = await office.pay()
    assert found is not None
    assert (found.state, found.paid) == (State.PENDING, Amount("EUR", 1000))


def requested(office: Office) -> list[tuple[str, int]]:
    return [
        (told.amount.currency_code, told.amount.minor_units) for told in office.orders.told(FulfillmentRefundRequested)
    ]


async def canceled(office: Office, *payments: int) -> Fulfillment:
    await office.order()
    for number, cents in enumerate(payments, 1):
        await office.pay(a_payment(cents, payment_id=f"payment-{number}"))
    return await office.cancel()


async def test_what_was_paid_before_a_cancellation_is_asked_back(office: Office) -> None:
    found = await canceled(office, 400)
    assert (found.state, found.reason) == (State.CANCELED, Reason.CANCEL_ASKED)
    assert office.canceled() == [("item-1", 1, "CANCEL_ASKED")]
    assert requested(office) == [("EUR", 400)]


async def test_an_order_without_money_is_canceled_without_a_request(office: Office) -> None:
    found = await canceled(office)
    assert found.state is State.CANCELED
    assert not requested(office)


async def test_a_payment_after_a_cancellation_buys_nothing_and_is_asked_back_once_per_amount(office: Office) -> None:
    await canceled(office, 400)
    for _ in range(2):
        await office.pay(a_payment(600, payment_id="payment-2"))
    await office.pay(a_payment(600, payment_id="payment-3"))
    assert not office.orders.purchases()
    assert requested(office) == [("EUR", 400), ("EUR", 600), ("EUR", 600)]
    assert (await office.found()).state is State.CANCELED


async def test_a_canceled_order_whose_money_went_back_is_refunded(office: Office) -> None:
    await canceled(office, 400)
    (request,) = office.requests()
    found = await office.refund(a_refund(400, request_ids=(request.request_id,)))
    assert found is not None
    assert found.state is State.REFUNDED
    assert office.requests()[0].is_answered
    await office.pay(a_payment(250, payment_id="payment-2"))
    assert requested(office) == [("EUR", 400), ("EUR", 250)]


async def test_every_currency_is_asked_back_in_itself(office: Office) -> None:
    await office.order()
    await office.pay(a_payment(amount=Amount("USD", 77), payment_id="payment-2"))
    await office.pay(a_payment(100))
    await office.cancel()
    assert requested(office) == [("EUR", 100), ("USD", 77)]


async def test_a_canceled_order_is_no_mismatch_whatever_is_paid_later(office: Office) -> None:
    await canceled(office)
    await office.pay(a_payment(5000))
    assert (await office.found()).state is State.CANCELED
    assert not office.audited("payment.mismatch")
    assert requested(office) == [("EUR", 5000)]


async def test_an_unpaid_order_is_canceled_whole_and_once(office: Office) -> None:
    await office.order(an_order("order-1", 1, 1))
    with pytest.raises(NothingToCancel):
        await office.cancel(["item-1"])
    await office.cancel()
    with pytest.raises(NothingToCancel):
        await office.cancel()


async def test_a_refund_of_a_line_answers_what_was_asked_for_it_although_it_does_not_say_so(office: Office) -> None:
    await office.buy(1, 1)
    await office.cancel(["item-1"])
    office.supplier.collecting = [NoAnswer()] * 200
    await office.settle(within=timedelta(minutes=1))
    (first,) = office.requests()
    await office.refund(a_refund(first.amount.minor_units, item_ids=(ItemId("item-1"),)))
    await office.cancel(["item-2"])
    await office.settle()
    assert [(request.is_answered, request.amount.minor_units) for request in office.requests()] == [
        (True, 500),
        (False, 500),
    ]
    assert office.states() == [State.REFUNDED, State.CANCELED]


async def test_what_goes_back_altogether_answers_everything_that_was_asked_for(office: Office) -> None:
    await canceled(office, 400)
    found = await office.refund(a_refund(400))
    assert found is not None
    assert found.state is State.REFUNDED
    assert [request.is_answered for request in office.requests()] == [True]
