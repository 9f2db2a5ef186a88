"""One purchase that cannot be worked on as it is stops nothing but itself, and a person hears of it."""

from collections.abc import MutableMapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from chassis.errors import ServiceUnavailable
from fulfillment import moving, progress
from fulfillment.domain.model import OrderId, Purchase, Reason, State
from fulfillment.errors import NothingToRetry
from fulfillment.metrics import UNREADABLE
from fulfillment.progress import PUT_OFF
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentNeedsAttention

from tests.unit.fulfillment.examples import NOON, a_payment, an_order
from tests.unit.fulfillment.office import ORDER_ID, Office

OTHER = OrderId("order-2")
UNREAD = {"state": State.NEEDS_ATTENTION, "reason": Reason.ROW_UNREADABLE}


@pytest.fixture
async def office() -> Office:
    """Two orders whose purchases are due."""
    office = Office()
    await office.buy(1)
    await office.order(an_order(OTHER))
    await office.pay(a_payment(payment_id="payment-2", order_id=OTHER))
    return office


def change(office: Office, **changes: object) -> Purchase:
    """Change the first order's purchase as no use case does; say with `run_at` when it is due."""
    external_id = office.purchase().external_id
    row = office.orders.rows.purchases[external_id]
    run_at = changes.pop("run_at", row.run_at)
    purchase = replace(row.purchase, **changes)  # type: ignore[arg-type] # fields by name
    office.orders.rows.purchases[external_id] = replace(row, purchase=purchase, run_at=run_at)  # type: ignore[arg-type] # as above
    return purchase


def counted(of: str) -> float:
    (family,) = UNREADABLE.collect()
    return sum(each.value for each in family.samples if each.labels == {"of": of} and each.name.endswith("_total"))


async def test_what_cannot_be_read_is_set_aside_and_the_others_go_on(
    office: Office, logs: list[MutableMapping[str, Any]]
) -> None:
    unread, before = change(office, **UNREAD), counted("purchase")
    assert await office.work() == 2
    await office.settle()
    assert [(await office.found(each)).state for each in (ORDER_ID, OTHER)] == [State.NEEDS_ATTENTION, State.READY]
    assert (await office.found()).reason is Reason.ROW_UNREADABLE
    assert office.purchase() == replace(unread, next_time=None)
    assert counted("purchase") == before + 1
    (told,) = office.orders.told(FulfillmentNeedsAttention)
    assert (told.order_id, told.reason, list(told.actions)) == ("order-1", "ROW_UNREADABLE", [])
    assert [log["external_id"] for log in logs if log["log_level"] == "error"] == [unread.external_id]
    with pytest.raises(NothingToRetry):
        await office.retry()


async def test_once_it_can_be_read_a_person_lets_it_go_on(office: Office) -> None:
    change(office, **UNREAD)
    await office.settle()
    office.clock.time += timedelta(days=30)
    change(office, state=State.PENDING, reason=Reason.NONE)
    await office.settle()
    assert (await office.found()).reason is Reason.ROW_UNREADABLE
    found = await office.retry()
    assert (found.state, office.purchase().state_time) == (State.PENDING, office.clock.now())
    await office.settle()
    assert (await office.found()).state is State.READY
    assert office.audited("order.retry_asked")


@pytest.mark.parametrize("state", [State.PENDING, State.PURCHASING, State.WITHDRAWING])
async def test_what_was_given_up_meanwhile_is_not_bought_when_it_can_be_read(office: Office, state: State) -> None:
    change(office, **UNREAD)
    await office.settle()
    await office.refund()
    change(office, state=state, reason=Reason.NONE)
    await office.retry()
    await office.settle()
    assert office.purchase().external_id not in office.supplier.sold
    assert (await office.found()).state is State.REFUNDED


async def test_whatever_fails_with_one_order_the_others_are_claimed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, before = moving.summarize, counted("order")

    async def broken(transaction: Any, order_id: OrderId, **more: Any) -> Any:
        if order_id == ORDER_ID:
            raise ZeroDivisionError
        return await real(transaction, order_id, **more)

    # Planned already, so that its claim moves it and its order is summarized.
    was = change(office, unit_limit=999)
    monkeypatch.setattr(progress, "summarize", broken)
    (claimed,) = await office.claim()
    assert claimed.buying.purchase.order_id == OTHER
    assert office.purchase() == replace(was, next_time=NOON + PUT_OFF)
    assert counted("order") == before + 1
    monkeypatch.undo()
    office.clock.time += PUT_OFF
    await office.settle()
    assert (await office.found()).state is State.READY


async def test_a_database_that_is_away_sets_nothing_aside(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise ServiceUnavailable("the database does not answer")

    change(office, unit_limit=999)
    monkeypatch.setattr(progress, "summarize", away)
    before = office.orders.rows
    with pytest.raises(ServiceUnavailable):
        await office.claim()
    assert office.orders.rows is before
