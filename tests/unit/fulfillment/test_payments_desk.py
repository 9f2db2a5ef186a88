"""Payments as staff looks at them, and an eye on those that wait for their other half."""

from datetime import timedelta

import pytest
from chassis.errors import InvalidRequest
from chassis.paging import write_page_token
from fulfillment.domain.model import OrderId
from fulfillment.errors import PaymentNotFound
from fulfillment.metrics import UNMATCHED, UNMATCHED_AGE
from fulfillment.payments import PaymentDesk, UnmatchedWatch
from fulfillment.ports.payments import PaymentRecord

from tests.unit.fulfillment.examples import a_payment
from tests.unit.fulfillment.memory_payments import MemoryPayments
from tests.unit.fulfillment.office import Office, a_refund


@pytest.fixture
async def office() -> Office:
    office = Office()
    for number in range(1, 6):
        await office.pay(a_payment(200, payment_id=f"payment-{number}"))
        office.clock.pass_seconds(number % 2)
    await office.pay(a_payment(7, payment_id="payment-9", order_id=OrderId("order-9")))
    return office


def desk_of(office: Office) -> PaymentDesk:
    return PaymentDesk(MemoryPayments(office.orders))


async def browse(office: Office, *, size: int = 0, order_id: str = "", unmatched: bool = False) -> list[str]:
    desk, seen, token = desk_of(office), list[PaymentRecord](), ""
    for _ in range(20):
        page = await desk.page(order_id=OrderId(order_id) or None, unmatched=unmatched, size=size, token=token)
        seen += page.records
        token = page.next_token
        if not token:
            return [record.payment.payment_id for record in seen]
    raise AssertionError("pages never end")


@pytest.mark.parametrize("size", [1, 2, 3, 6, 0])
async def test_pages_follow_one_another_and_name_each_payment_once(office: Office, size: int) -> None:
    assert await browse(office, size=size) == [
        *("payment-9", "payment-5", "payment-4"),
        *("payment-3", "payment-2", "payment-1"),
    ]


async def test_filters_choose(office: Office) -> None:
    assert await browse(office, order_id="order-9") == ["payment-9"]
    await office.order()
    assert await browse(office, unmatched=True) == ["payment-9"]
    assert await browse(office, unmatched=True, order_id="order-1") == []


async def test_one_payment_is_shown_with_its_refunds(office: Office) -> None:
    await office.refund(a_refund(5))
    record = await desk_of(office).get("stripe", "payment-1")
    assert [refund.refund_id for refund in record.refunds] == ["refund-1"]
    assert not record.is_matched
    with pytest.raises(PaymentNotFound):
        await desk_of(office).get("paypal", "payment-1")


@pytest.mark.parametrize(
    "token",
    [
        "!",
        write_page_token(("", "False"), []),
        write_page_token(("", "False"), ["no time", "stripe", "payment-1"]),
        write_page_token(("", "False"), ["2026-01-02T12:00:00+00:00", "str\0ipe", "payment-1"]),
        write_page_token(("", "True"), ["2026-01-02T12:00:00+00:00", "stripe", "payment-1"]),
    ],
)
async def test_a_token_that_is_not_ours_is_a_fault_and_nothing_worse(office: Office, token: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await desk_of(office).page(order_id=None, unmatched=False, size=1, token=token)
    assert raised.value.field_violations[0].field == "page_token"


async def test_what_waits_for_its_other_half_is_counted_with_its_age(office: Office) -> None:
    await office.refund(a_refund(5, payment_id="payment-of-nobody"))
    watch = UnmatchedWatch(MemoryPayments(office.orders), office.clock)
    office.clock.time += timedelta(minutes=10)
    await watch.look()
    figures = (UNMATCHED.labels("payment"), UNMATCHED.labels("refund"), UNMATCHED_AGE)
    assert [figure._value.get() for figure in figures] == [6, 1, 603]
    await office.order()
    await watch.look()
    assert [figure._value.get() for figure in figures][:2] == [1, 1]
