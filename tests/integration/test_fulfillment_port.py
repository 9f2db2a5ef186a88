"""What the rows of orders promise: PostgreSQL, and the memory that unit tests and histories run on."""

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest
from chassis.errors import RequestIdReused
from fulfillment.adapters.orders import PostgresOrders
from fulfillment.domain.model import Amount, Customer, KeyId, OrderId, Reason, State
from fulfillment.domain.payments import Paid, PaymentVerdict
from fulfillment.ports.orders import Orders
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentReady
from keyferry.fulfillment.v1.fulfillment_service_pb2 import ConfirmPaymentResponse

from tests.integration.fulfillment_rows import MINUTE, ORDER_ID, SECOND, a_key, add, buy, load, purchases
from tests.integration.real_servers import OneDatabase, fetch
from tests.unit.fulfillment.examples import ALICE, DIGEST, NOON, a_payment, an_order

REQUEST_ID = "6b0c1d9e-94a5-4a5e-a9d5-6c2a2a5f6d11"


async def test_an_order_is_added_once_and_read_as_it_was(orders: Orders) -> None:
    order = an_order("order-1", 2, 19)
    order = replace(order, items=[replace(order.items[0], unit_price=450, offer_id="offer-7"), order.items[1]])
    async with orders.transaction() as transaction:
        assert await transaction.load(ORDER_ID) is None
        assert await transaction.digest(ORDER_ID) is None
        assert await transaction.add_order(order, DIGEST, now=NOON)
        assert not await transaction.add_order(an_order("order-1", 3), b"other", now=NOON + MINUTE)
    async with orders.transaction() as transaction:
        assert not await transaction.add_order(an_order("order-1", 3), b"other", now=NOON + MINUTE)
        assert await transaction.digest(ORDER_ID) == DIGEST
    found = await load(orders)
    assert found.order == order
    assert (found.state, found.reason, found.version) == (State.AWAITING_PAYMENT, Reason.NONE, 1)
    assert (found.create_time, found.update_time) == (NOON, NOON)
    assert (found.paid, found.pay_time, found.mail_time) == (None, None, None)
    assert (found.refunded, found.cancel_time) == (None, None)
    assert [(line.item, line.state, line.purchases, line.keys) for line in found.lines] == [
        (item, State.AWAITING_PAYMENT, [], []) for item in order.items
    ]


async def test_a_transaction_that_fails_leaves_nothing(orders: Orders) -> None:
    async def fail() -> None:
        async with orders.transaction() as transaction:
            await transaction.add_order(an_order(), DIGEST, now=NOON)
            await transaction.add_payment(a_payment(), now=NOON)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    async with orders.transaction() as transaction:
        assert await transaction.load(ORDER_ID) is None
        assert not (await transaction.money(ORDER_ID)).payments


async def test_keys_are_added_once_and_belong_to_their_order(orders: Orders) -> None:
    await buy(orders, "order-1", 3)
    (purchase,) = await purchases(orders)
    first, second, third = a_key(purchase, 1), a_key(purchase, 2, held=True), a_key(purchase, 3)
    async with orders.transaction() as transaction:
        assert not await transaction.add_keys(ORDER_ID, [])
        assert await transaction.add_keys(ORDER_ID, [first, second]) == [first, second]
        assert await transaction.add_keys(ORDER_ID, [first, second, third]) == [third]
    async with orders.transaction() as transaction:
        assert await transaction.order_of_key(KeyId("key-2")) == ORDER_ID
        assert await transaction.order_of_key(KeyId("key-9")) is None
    assert (await load(orders)).lines[0].keys == [first, second, third]


async def test_the_first_opening_of_a_key_is_kept(orders: Orders) -> None:
    await buy(orders)
    (purchase,) = await purchases(orders)
    async with orders.transaction() as transaction:
        await transaction.add_keys(ORDER_ID, [a_key(purchase)])
        assert await transaction.open_key(KeyId("key-1"), now=NOON + SECOND)
        assert not await transaction.open_key(KeyId("key-1"), now=NOON + MINUTE)
    assert (await load(orders)).lines[0].keys[0].open_time == NOON + SECOND


async def test_keys_are_revoked_and_replaced_once(orders: Orders) -> None:
    await buy(orders, "order-1", 3)
    (purchase,) = await purchases(orders)
    late = replace(a_key(purchase, 3), revoke_time=NOON)
    async with orders.transaction() as transaction:
        await transaction.add_keys(ORDER_ID, [a_key(purchase, 1), a_key(purchase, 2), late])
        await transaction.revoke_keys([], now=NOON)
        await transaction.revoke_keys([KeyId("key-1")], now=NOON + SECOND)
        await transaction.revoke_keys([KeyId("key-1"), KeyId("key-2"), KeyId("key-3")], now=NOON + MINUTE)
        assert await transaction.replace_key(KeyId("key-2"), now=NOON + SECOND)
        assert not await transaction.replace_key(KeyId("key-2"), now=NOON + MINUTE)
    assert [(key.revoke_time, key.replace_time) for key in (await load(orders)).lines[0].keys] == [
        (NOON + SECOND, None),
        (NOON + MINUTE, NOON + SECOND),
        (NOON, None),
    ]


async def test_an_order_is_first_canceled_once(orders: Orders) -> None:
    await add(orders)
    for now in (NOON + SECOND, NOON + MINUTE):
        async with orders.transaction() as transaction:
            await transaction.cancel_order(ORDER_ID, now=now)
    assert (await load(orders)).cancel_time == NOON + SECOND


async def test_a_product_has_the_last_name_that_is_one(orders: Orders) -> None:
    await add(orders, "order-1", 1, 1)
    item_id = an_order().items[0].item_id
    async with orders.transaction() as transaction:
        for name in ("Lantern", "Lantern Hollow", ""):
            await transaction.name_product(ORDER_ID, item_id, name)
    assert [line.product_name for line in (await load(orders)).lines] == ["Lantern Hollow", ""]


async def test_a_summary_is_written_and_counted(orders: Orders) -> None:
    await add(orders)
    async with orders.transaction() as transaction:
        await transaction.save_summary(
            ORDER_ID,
            State.NEEDS_ATTENTION,
            Reason.PAYMENT_MISMATCH,
            now=NOON + SECOND,
            paid=Paid(PaymentVerdict.MISMATCH, Amount("USD", 7), Amount("USD", 3)),
            pay_time=NOON,
        )
    found = await load(orders)
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.PAYMENT_MISMATCH)
    assert (found.paid, found.pay_time, found.update_time) == (Amount("USD", 7), NOON, NOON + SECOND)
    assert found.refunded == Amount("USD", 3)
    assert found.version == 2


async def test_a_mail_is_wanted_once_claimed_with_a_lease_and_done(orders: Orders) -> None:
    await add(orders, "order-1", 1, 1)
    async with orders.transaction() as transaction:
        await transaction.want_mail(ORDER_ID, now=NOON)
        await transaction.want_mail(ORDER_ID, now=NOON - MINUTE)
        await transaction.name_product(ORDER_ID, an_order().items[0].item_id, "Lantern")
    assert not await orders.due_mails(9, lease=MINUTE, now=NOON - SECOND)
    (mail,) = await orders.due_mails(9, lease=MINUTE, now=NOON)
    assert (mail.order_id, mail.email, mail.locale) == (ORDER_ID, ALICE.email, ALICE.locale)
    assert (list(mail.product_names), mail.tries) == (["Lantern", "product-2"], 1)
    assert not await orders.due_mails(9, lease=MINUTE, now=NOON + 59 * SECOND)
    (again,) = await orders.due_mails(9, lease=MINUTE, now=NOON + MINUTE)
    assert (again.tries, again.claim) == (2, mail.claim + 1)
    async with orders.transaction() as transaction:
        await transaction.mail_done(ORDER_ID, again.claim, now=NOON + SECOND)
        await transaction.want_mail(ORDER_ID, now=NOON)
    assert not await orders.due_mails(9, lease=MINUTE, now=NOON + 99 * MINUTE)
    found = await load(orders)
    assert (found.mail_time, found.version) == (NOON + SECOND, 2)


async def test_a_mail_may_wait_or_never_be_sent(orders: Orders) -> None:
    for number in (1, 2):
        await add(orders, f"order-{number}")
        async with orders.transaction() as transaction:
            await transaction.want_mail(OrderId(f"order-{number}"), now=NOON)
    claims = {mail.order_id: mail.claim for mail in await orders.due_mails(9, lease=SECOND, now=NOON)}
    await orders.mail_waits(ORDER_ID, claims[ORDER_ID], run_at=NOON + MINUTE, failure="451")
    await orders.mail_waits(OrderId("order-2"), claims[OrderId("order-2")], run_at=None, failure="550")
    assert not await orders.due_mails(9, lease=MINUTE, now=NOON)
    (mail,) = await orders.due_mails(9, lease=MINUTE, now=NOON + 99 * MINUTE)
    assert mail.order_id == "order-1"


async def test_a_mails_lease_is_extended_while_it_lasts_and_by_its_holder_only(orders: Orders) -> None:
    await add(orders)
    async with orders.transaction() as transaction:
        await transaction.want_mail(ORDER_ID, now=NOON)
    await orders.extend_mails({ORDER_ID: 0}, now=NOON, until=NOON + MINUTE)
    (early,) = await orders.due_mails(9, lease=MINUTE, now=NOON)
    await orders.extend_mails({}, now=NOON, until=NOON + 2 * MINUTE)
    await orders.extend_mails({ORDER_ID: early.claim}, now=NOON, until=NOON + 2 * MINUTE)
    assert not await orders.due_mails(9, lease=MINUTE, now=NOON + 119 * SECOND)
    await orders.extend_mails({ORDER_ID: early.claim}, now=NOON + 2 * MINUTE, until=NOON + 9 * MINUTE)
    (late,) = await orders.due_mails(9, lease=MINUTE, now=NOON + 2 * MINUTE)
    await orders.extend_mails({ORDER_ID: early.claim}, now=NOON + 2 * MINUTE, until=NOON + 9 * MINUTE)
    await orders.mail_waits(ORDER_ID, early.claim, run_at=None, failure="550")
    async with orders.transaction() as transaction:
        await transaction.mail_done(ORDER_ID, early.claim, now=NOON + 2 * MINUTE)
    assert (await load(orders)).mail_time == NOON + 2 * MINUTE
    await orders.mail_waits(ORDER_ID, late.claim, run_at=NOON + 5 * MINUTE, failure="451")
    await orders.extend_mails({ORDER_ID: late.claim}, now=NOON + 2 * MINUTE, until=NOON + 9 * MINUTE)
    assert await orders.due_mails(9, lease=MINUTE, now=NOON + 5 * MINUTE)


async def test_a_mail_that_is_wanted_again_is_nobodys(orders: Orders) -> None:
    await add(orders)
    async with orders.transaction() as transaction:
        await transaction.want_mail(ORDER_ID, now=NOON)
    (mail,) = await orders.due_mails(9, lease=MINUTE, now=NOON)
    async with orders.transaction() as transaction:
        await transaction.want_mail_again(ORDER_ID, now=NOON, most=2, within=MINUTE)
    await orders.extend_mails({ORDER_ID: mail.claim}, now=NOON, until=NOON + 9 * MINUTE)
    async with orders.transaction() as transaction:
        await transaction.mail_done(ORDER_ID, mail.claim, now=NOON)
    assert len(await orders.due_mails(9, lease=MINUTE, now=NOON)) == 1


async def test_a_mail_may_be_wanted_again_but_not_all_the_time(orders: Orders) -> None:
    async def again(minutes: float) -> datetime | None:
        async with orders.transaction() as transaction:
            now = NOON + minutes * MINUTE
            return await transaction.want_mail_again(ORDER_ID, now=now, most=2, within=60 * MINUTE)

    await add(orders)
    with pytest.raises(LookupError):
        await again(0)
    async with orders.transaction() as transaction:
        await transaction.want_mail(ORDER_ID, now=NOON)
    (first,) = await orders.due_mails(9, lease=MINUTE, now=NOON)
    await orders.mail_waits(ORDER_ID, first.claim, run_at=None, failure="550")
    assert await again(1) is None
    (mail,) = await orders.due_mails(9, lease=MINUTE, now=NOON + MINUTE)
    assert (mail.order_id, mail.tries) == (ORDER_ID, 1)
    async with orders.transaction() as transaction:
        await transaction.mail_done(ORDER_ID, mail.claim, now=NOON + MINUTE)
    assert await again(21) is None
    assert await again(60) == await again(22) == NOON + 61 * MINUTE
    assert await again(61) is None
    assert await again(62) == NOON + 81 * MINUTE


async def test_no_more_mails_are_claimed_than_asked(orders: Orders) -> None:
    for number in range(3):
        await add(orders, f"order-{number}")
        async with orders.transaction() as transaction:
            await transaction.want_mail(OrderId(f"order-{number}"), now=NOON + number * SECOND)
    claimed = await orders.due_mails(2, lease=MINUTE, now=NOON + MINUTE)
    assert sorted(mail.order_id for mail in claimed) == ["order-0", "order-1"]


async def test_pages_are_newest_first_and_filtered(orders: Orders) -> None:
    bob = Customer("bob", "bob@example.com")
    for order_id, customer, age in [("a", ALICE, 0), ("b", bob, 1), ("c", ALICE, 1), ("d", ALICE, 2)]:
        async with orders.transaction() as transaction:
            await transaction.add_order(an_order(order_id, customer=customer), DIGEST, now=NOON - age * MINUTE)
    async with orders.transaction() as transaction:
        nothing = Paid(PaymentVerdict.SHORT, None, None)
        await transaction.save_summary(OrderId("c"), State.READY, Reason.NONE, now=NOON, paid=nothing, pay_time=None)

    async def page(customer_id: str = "", state: State | None = None, size: int = 9, after: str = "") -> str:
        last = await load(orders, after) if after else None
        place = (last.create_time, last.order.order_id) if last else None
        found = await orders.page(customer_id=customer_id, state=state, size=size, after=place)
        return "".join(each.order.order_id for each in found)

    assert await page() == "acbd"
    assert await page(size=2) == "ac"
    assert await page(after="c") == "bd"
    assert await page("alice") == "acd"
    assert await page("alice", after="a", size=1) == "c"
    assert await page(state=State.READY) == "c"
    assert await page("bob", State.READY) == ""


async def test_an_answer_is_kept_for_its_request_alone(orders: Orders) -> None:
    async with orders.transaction() as transaction:
        assert await transaction.earlier_answer(REQUEST_ID, b"a", ConfirmPaymentResponse) is None
        await transaction.keep_answer(REQUEST_ID, b"a", ConfirmPaymentResponse())
    async with orders.transaction() as transaction:
        assert await transaction.earlier_answer(REQUEST_ID, b"a", ConfirmPaymentResponse) == ConfirmPaymentResponse()
        with pytest.raises(RequestIdReused):
            await transaction.earlier_answer(REQUEST_ID, b"b", ConfirmPaymentResponse)


# What only PostgreSQL can show: several transactions at one moment.


async def test_the_same_fact_is_in_the_outbox_once(
    postgres_orders: PostgresOrders, fulfillment_database: OneDatabase
) -> None:
    for identity in (["a"], ["a"], ["b"]):
        async with postgres_orders.transaction() as transaction:
            message = FulfillmentReady(order_id="order-1")
            await transaction.tell("fulfillment.ready", message, about="order-1", now=NOON, identity=identity)
    rows = await fetch(fulfillment_database.superuser_url, "SELECT subject, stream FROM outbox")
    assert [(row["subject"], row["stream"]) for row in rows] == [("fulfillment.ready", "FULFILLMENT")] * 2


async def test_two_openings_at_one_moment_are_both_seen_by_the_later(postgres_orders: PostgresOrders) -> None:
    await buy(postgres_orders, "order-1", 2)
    (purchase,) = await purchases(postgres_orders)
    async with postgres_orders.transaction() as transaction:
        await transaction.add_keys(ORDER_ID, [a_key(purchase, 1), a_key(purchase, 2)])

    async def opened(key_id: str) -> int:
        async with postgres_orders.transaction() as transaction:
            await transaction.load(ORDER_ID, lock=True)
            await transaction.open_key(KeyId(key_id), now=NOON)
            await asyncio.sleep(0.05)
            found = await transaction.load(ORDER_ID)
        assert found is not None
        return sum(key.open_time is not None for key in found.lines[0].keys)

    assert sorted(await asyncio.gather(opened("key-1"), opened("key-2"))) == [1, 2]
