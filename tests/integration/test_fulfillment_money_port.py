"""What the rows of payments, refunds and refund requests promise: PostgreSQL, and the memory of unit tests."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from fulfillment.adapters.orders import PostgresOrders
from fulfillment.domain.model import Amount, ItemId, Money, OrderId, Payment, Reason, Refund, RefundRequest
from fulfillment.ports.orders import Orders
from fulfillment.ports.payments import Closure, PaymentRecord, Unmatched

from tests.integration.fulfillment_rows import MINUTE, ORDER_ID, Ports, add, after, bought
from tests.integration.real_servers import OneDatabase, fetch
from tests.unit.fulfillment.examples import DIGEST, NOON, a_payment, an_order


def a_refund(number: int = 1, cents: int = 400, *, payment_id: str = "payment-1", **changes: object) -> Refund:
    refund = Refund("stripe", f"refund-{number}", payment_id, Amount("EUR", cents), NOON)
    return replace(refund, **changes)  # type: ignore[arg-type] # fields by name


async def pay(orders: Orders, *payments: Payment, seconds: float = 0) -> None:
    async with orders.transaction() as transaction:
        for payment in payments:
            assert await transaction.add_payment(payment, now=after(seconds)) is None


async def give_back(orders: Orders, *refunds: Refund, seconds: float = 0) -> None:
    async with orders.transaction() as transaction:
        for refund in refunds:
            assert await transaction.add_refund(refund, now=after(seconds)) is None


async def money(orders: Orders, order_id: str = "order-1") -> Money:
    async with orders.transaction() as transaction:
        return await transaction.money(OrderId(order_id))


async def take_pending(orders: Orders) -> Sequence[Refund]:
    async with orders.transaction() as transaction:
        return await transaction.take_pending_refunds(ORDER_ID)


async def test_a_payment_is_added_once_and_may_come_before_its_order(orders: Orders) -> None:
    first, second = a_payment(400, payment_id="b"), a_payment(600, payment_id="a")
    async with orders.transaction() as transaction:
        assert await transaction.order_of_payment("stripe", "b") is None
        assert await transaction.add_payment(first, now=NOON) is None
        assert await transaction.add_payment(second, now=NOON) is None
        assert await transaction.add_payment(a_payment(1, payment_id="b"), now=NOON) == first
        assert await transaction.add_payment(a_payment(1, payment_id="b", provider="paypal"), now=NOON) is None
    async with orders.transaction() as transaction:
        other = a_payment(400, payment_id="b", order_id=OrderId("order-2"))
        assert await transaction.add_payment(other, now=NOON) == first
        assert await transaction.order_of_payment("stripe", "b") == ORDER_ID
        paid = (await transaction.money(ORDER_ID)).payments
        assert [(payment.provider, payment.payment_id) for payment in paid] == [
            ("paypal", "b"),
            ("stripe", "a"),
            ("stripe", "b"),
        ]
        assert paid[2] == first
        assert not (await transaction.money(OrderId("order-2"))).payments


async def test_a_refund_is_added_once_and_counts_for_its_payment(orders: Orders) -> None:
    full = a_refund(
        2,
        item_ids=[ItemId("item-1"), ItemId("item-2")],
        request_ids=["request-1"],
        is_chargeback=True,
        refund_time=NOON + MINUTE,
    )
    await pay(orders, a_payment(), a_payment(7, payment_id="payment-2"))
    await give_back(orders, full, a_refund(1, item_ids=[], request_ids=[]), a_refund(3, payment_id="of another order"))
    async with orders.transaction() as transaction:
        assert await transaction.add_refund(a_refund(2, 1), now=NOON) == full
        assert await transaction.add_refund(a_refund(2, 1, provider="paypal"), now=NOON) is None
    found = await money(orders)
    assert found.payments == [a_payment(), a_payment(7, payment_id="payment-2")]
    assert found.refunds == [a_refund(1, item_ids=[], request_ids=[]), full]
    assert await money(orders, "order-2") == Money([], [])


async def test_a_refund_that_comes_before_its_payment_is_applied_once(orders: Orders) -> None:
    await give_back(orders, a_refund(2), a_refund(1))
    assert not await take_pending(orders)
    await pay(orders, a_payment())
    assert [refund.refund_id for refund in await take_pending(orders)] == ["refund-1", "refund-2"]
    assert not await take_pending(orders)
    await give_back(orders, a_refund(3))
    assert [refund.refund_id for refund in await take_pending(orders)] == ["refund-3"]
    assert len((await money(orders)).refunds) == 3


async def test_a_transaction_that_fails_applies_nothing(orders: Orders) -> None:
    await pay(orders, a_payment())
    await give_back(orders, a_refund())

    async def fail() -> None:
        async with orders.transaction() as transaction:
            assert await transaction.take_pending_refunds(ORDER_ID)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    assert len(await take_pending(orders)) == 1


async def test_what_the_shop_is_asked_to_pay_back_is_asked_once_and_answered_once(orders: Orders) -> None:
    purchase = await bought(orders)
    await add(orders, "order-2")
    euros = Amount("EUR", 500)
    second = RefundRequest("b", ORDER_ID, None, None, 0, euros, Reason.PAYMENT_MISMATCH)
    first = RefundRequest("c", ORDER_ID, purchase.item_id, purchase.external_id, 1, euros, Reason.KEYS_MISSING)
    third = RefundRequest("a", ORDER_ID, purchase.item_id, None, 2, Amount("EUR", 0), Reason.CANCEL_ASKED)
    other = replace(second, request_id="d", order_id=OrderId("order-2"))
    async with orders.transaction() as transaction:
        for request in (first, second, third, other):
            assert await transaction.add_refund_request(request, now=NOON)
        assert not await transaction.add_refund_request(replace(first, quantity=9), now=NOON)
    async with orders.transaction() as transaction:
        assert await transaction.refund_requests(ORDER_ID) == [first, second, third]
        assert not await transaction.answer_refund_requests(ORDER_ID, [])
        answered = await transaction.answer_refund_requests(ORDER_ID, ["a", "c", "d", "of nobody"])
        assert answered == [replace(first, is_answered=True), replace(third, is_answered=True)]
        assert not await transaction.answer_refund_requests(ORDER_ID, ["a", "c"])
        assert await transaction.refund_requests(ORDER_ID) == [answered[0], second, answered[1]]
        assert await transaction.refund_requests(OrderId("order-2")) == [other]


# Payments, as staff looks at them.


async def test_a_payment_is_found_with_what_was_given_back(ports: Ports) -> None:
    assert await ports.payments.find("stripe", "payment-1") is None
    refunds = [a_refund(1, item_ids=[], request_ids=[]), a_refund(2, item_ids=[], request_ids=[])]
    await pay(ports.orders, a_payment(), a_payment(payment_id="payment-2"), seconds=3)
    await give_back(ports.orders, *reversed(refunds), a_refund(3, provider="paypal"))
    assert await ports.payments.find("stripe", "payment-1") == PaymentRecord(
        a_payment(), after(3), is_matched=False, refunds=refunds
    )
    await add(ports.orders)
    found = await ports.payments.find("stripe", "payment-2")
    assert found == PaymentRecord(a_payment(payment_id="payment-2"), after(3), is_matched=True, refunds=[])


async def test_pages_of_payments_are_newest_first_and_filtered(ports: Ports) -> None:
    await add(ports.orders, "order-1")
    for payment_id, provider, order_id, age in [
        ("a", "stripe", "order-1", 0),
        ("b", "stripe", "order-2", 1),
        ("c", "paypal", "order-1", 1),
        ("d", "stripe", "order-1", 1),
        ("e", "stripe", "order-3", 2),
    ]:
        payment = a_payment(payment_id=payment_id, provider=provider, order_id=OrderId(order_id))
        await pay(ports.orders, payment, seconds=-age)

    async def page(order_id: str = "", *, unmatched: bool = False, size: int = 9, last: str = "") -> str:
        record = await ports.payments.find("paypal" if last == "c" else "stripe", last)
        place = (record.create_time, record.payment.provider, record.payment.payment_id) if record else None
        found = await ports.payments.page(
            order_id=OrderId(order_id) if order_id else None, unmatched=unmatched, size=size, after=place
        )
        return "".join(each.payment.payment_id for each in found)

    assert await page() == "adbce"
    assert await page(size=3) == "adb"
    assert await page(last="b") == "ce"
    assert await page(last="c") == "e"
    assert await page("order-1") == "adc"
    assert await page("order-1", last="a", size=1) == "d"
    assert await page(unmatched=True) == "be"
    assert await page(unmatched=True, last="b") == "e"
    assert await page("order-3", unmatched=True) == "e"
    assert await page("order-1", unmatched=True) == ""


async def test_what_waits_for_its_other_half_is_counted(ports: Ports) -> None:
    assert await ports.payments.unmatched() == Unmatched(0, 0, None)
    await pay(ports.orders, a_payment(), seconds=2)
    await pay(ports.orders, a_payment(payment_id="payment-2", order_id=OrderId("order-2")), seconds=5)
    await give_back(ports.orders, a_refund(1), seconds=0)
    await give_back(ports.orders, a_refund(2, payment_id="unknown"), seconds=3)
    assert await ports.payments.unmatched() == Unmatched(payments=2, refunds=1, oldest=after(2))
    await add(ports.orders)
    assert await ports.payments.unmatched() == Unmatched(payments=1, refunds=1, oldest=after(3))
    await pay(ports.orders, a_payment(payment_id="unknown"))
    assert await ports.payments.unmatched() == Unmatched(payments=1, refunds=0, oldest=after(5))


async def test_a_payment_is_given_to_another_order_and_remembers_the_one_it_came_for(ports: Ports) -> None:
    await add(ports.orders)
    for payment_id in ("payment-1", "payment-2"):
        await pay(ports.orders, a_payment(payment_id=payment_id, order_id=OrderId("order-9")), seconds=3)
    refund = a_refund(item_ids=[], request_ids=[])
    await give_back(ports.orders, refund, a_refund(2, payment_id="payment-2"))
    async with ports.orders.transaction() as transaction:
        assert await transaction.lock_payment("paypal", "payment-1") is None
        before = await transaction.lock_payment("stripe", "payment-1")
        assert before is not None
        assert (before.is_matched, before.is_closed, before.payment.first_told) == (False, False, "order-9")
        for order_id in ("order-8", "order-1"):
            await transaction.assign_payment("stripe", "payment-1", OrderId(order_id))
    expected = a_payment(told_order_id=OrderId("order-9"))
    assert await money(ports.orders) == Money([expected], [refund])
    assert [refund.refund_id for refund in await take_pending(ports.orders)] == ["refund-1"]
    async with ports.orders.transaction() as transaction:
        assert await transaction.order_of_payment("stripe", "payment-1") == ORDER_ID
        assert await transaction.add_payment(a_payment(order_id=OrderId("order-9")), now=NOON) == expected
    record = await ports.payments.find("stripe", "payment-1")
    assert record is not None
    assert (record.payment, record.is_matched, record.create_time) == (expected, True, after(3))
    assert await ports.payments.unmatched() == Unmatched(payments=1, refunds=0, oldest=after(3))


async def test_a_payment_that_is_closed_counts_for_nothing(ports: Ports) -> None:
    await pay(ports.orders, a_payment(), a_payment(7, payment_id="payment-2"))
    await give_back(ports.orders, a_refund())
    async with ports.orders.transaction() as transaction:
        await transaction.close_payment("stripe", "payment-1", Closure.REFUNDED_OUTSIDE, "by hand", now=after(9))
    record = await ports.payments.find("stripe", "payment-1")
    assert record is not None
    assert (record.close_time, record.closure, record.close_note) == (after(9), Closure.REFUNDED_OUTSIDE, "by hand")
    assert record.payment.is_closed
    assert [refund.refund_id for refund in record.refunds] == ["refund-1"]
    found = await ports.payments.page(order_id=None, unmatched=True, size=9, after=None)
    assert [each.payment.payment_id for each in found] == ["payment-2"]
    assert await ports.payments.unmatched() == Unmatched(payments=1, refunds=0, oldest=after(0))
    await add(ports.orders)
    assert await money(ports.orders) == Money([a_payment(7, payment_id="payment-2")], [])
    assert not await take_pending(ports.orders)
    async with ports.orders.transaction() as transaction:
        assert await transaction.order_of_payment("stripe", "payment-1") is None


# What only PostgreSQL can show.


async def test_an_order_that_comes_while_its_payment_is_given_to_another_waits_and_does_without(
    postgres_orders: PostgresOrders,
) -> None:
    await add(postgres_orders, "order-2")
    await pay(postgres_orders, a_payment())
    begun, seen = asyncio.Event(), list[Money]()

    async def assign() -> None:
        async with postgres_orders.transaction() as transaction:
            await transaction.lock_payment("stripe", "payment-1")
            begun.set()
            await asyncio.sleep(0.1)
            await transaction.assign_payment("stripe", "payment-1", OrderId("order-2"))

    async def order() -> None:
        await begun.wait()
        async with postgres_orders.transaction() as transaction:
            await transaction.add_order(an_order(), DIGEST, now=NOON)
            seen.append(await transaction.money(ORDER_ID))

    await asyncio.gather(assign(), order())
    assert seen == [Money([], [])]
    assert len((await money(postgres_orders, "order-2")).payments) == 1


async def test_payments_of_the_version_before_are_judged_by_their_orders(
    ports: Ports, postgres_orders: PostgresOrders, fulfillment_database: OneDatabase
) -> None:
    """It knows nothing of the mark, and leaves it off."""
    await add(postgres_orders)
    await pay(postgres_orders, a_payment())
    await fetch(fulfillment_database.superuser_url, "UPDATE payment SET is_matched = false")
    assert await ports.payments.unmatched() == Unmatched(0, 0, None)
    assert not await ports.payments.page(order_id=None, unmatched=True, size=9, after=None)


async def test_an_order_and_its_payment_at_one_moment_find_each_other(postgres_orders: PostgresOrders) -> None:
    """Each would otherwise look before the other is committed, and nobody would begin."""
    seen: list[bool] = []

    async def order() -> None:
        async with postgres_orders.transaction() as transaction:
            await transaction.add_order(an_order(), DIGEST, now=NOON)
            seen.append(bool((await transaction.money(ORDER_ID)).payments))
            await asyncio.sleep(0.1)

    async def payment() -> None:
        async with postgres_orders.transaction() as transaction:
            await transaction.add_payment(a_payment(), now=NOON)
            seen.append(await transaction.load(ORDER_ID, lock=True) is not None)
            await asyncio.sleep(0.1)

    await asyncio.gather(order(), payment())
    assert sorted(seen) == [False, True]


@pytest.mark.parametrize("is_paid_before", [False, True])
async def test_a_refund_and_what_it_waits_for_at_one_moment_find_each_other(
    postgres_orders: PostgresOrders, *, is_paid_before: bool
) -> None:
    """Else the refund would wait for ever, and what was paid back be delivered."""
    if is_paid_before:
        await pay(postgres_orders, a_payment())
    else:
        await add(postgres_orders)
    seen: list[bool] = []

    async def other_half() -> None:
        async with postgres_orders.transaction() as transaction:
            if is_paid_before:
                await transaction.add_order(an_order(), DIGEST, now=NOON)
            else:
                await transaction.add_payment(a_payment(), now=NOON)
            seen.append(bool(await transaction.take_pending_refunds(ORDER_ID)))
            await asyncio.sleep(0.1)

    async def refund() -> None:
        async with postgres_orders.transaction() as transaction:
            await transaction.add_refund(a_refund(), now=NOON)
            order_id = await transaction.order_of_payment("stripe", "payment-1")
            found = order_id and await transaction.load(order_id, lock=True)
            seen.append(bool(found))
            await asyncio.sleep(0.1)

    await asyncio.gather(other_half(), refund())
    assert sorted(seen) == [False, True]
