"""What the rows of orders promise: PostgreSQL, and the memory that unit tests and histories run on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from chassis.database import Database
from chassis.errors import RequestIdReused
from chassis.outbox import Outbox
from fulfillment.adapters.orders import PostgresOrders
from fulfillment.domain.model import (
    Amount,
    Customer,
    ExternalId,
    Fulfillment,
    Key,
    KeyId,
    OrderId,
    Purchase,
    Reason,
    State,
)
from fulfillment.domain.planner import plan
from fulfillment.ports.orders import Orders
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentReady
from keyferry.fulfillment.v1.fulfillment_service_pb2 import ConfirmPaymentResponse

from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, fetch
from tests.unit.fulfillment.examples import ALICE, DIGEST, NOON, a_payment, an_order
from tests.unit.fulfillment.memory_orders import MemoryOrders

ORDER_ID = OrderId("order-1")
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
REQUEST_ID = "6b0c1d9e-94a5-4a5e-a9d5-6c2a2a5f6d11"


@pytest.fixture
async def fulfillment_database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("fulfillment", REPOSITORY / "services" / "fulfillment" / "migrations")


@pytest.fixture
async def postgres_orders(fulfillment_database: OneDatabase) -> AsyncIterator[PostgresOrders]:
    async with Database.open(fulfillment_database.service_url, application="test") as database:
        yield PostgresOrders(database, Outbox({"fulfillment": "FULFILLMENT", "audit": "AUDIT"}))


@pytest.fixture(params=["memory", "postgres"])
async def orders(request: pytest.FixtureRequest, postgres_orders: PostgresOrders) -> Orders:
    return MemoryOrders() if request.param == "memory" else postgres_orders


async def add(orders: Orders, order_id: str = "order-1", *quantities: int, customer: Customer = ALICE) -> None:
    async with orders.transaction() as transaction:
        assert await transaction.add_order(an_order(order_id, *quantities, customer=customer), DIGEST, now=NOON)


async def buy(orders: Orders, order_id: str = "order-1", *quantities: int) -> None:
    await add(orders, order_id, *quantities)
    async with orders.transaction() as transaction:
        order = an_order(order_id, *quantities)
        await transaction.add_purchases(order.order_id, plan(order.order_id, order.items), now=NOON)


async def load(orders: Orders, order_id: str = "order-1") -> Fulfillment:
    async with orders.transaction() as transaction:
        found = await transaction.load(OrderId(order_id))
    assert found is not None
    return found


async def purchases(orders: Orders) -> list[Purchase]:
    return [purchase for line in (await load(orders)).lines for purchase in line.purchases]


async def due(orders: Orders, seconds: float, limit: int = 64) -> list[ExternalId]:
    async with orders.transaction() as transaction:
        found = await transaction.lock_due(limit, now=NOON + timedelta(seconds=seconds))
    return [buying.purchase.external_id for buying in found]


async def save(orders: Orders, purchase: Purchase, seconds: float | None, refusal: str = "") -> None:
    async with orders.transaction() as transaction:
        run_at = None if seconds is None else NOON + timedelta(seconds=seconds)
        await transaction.save_purchase(purchase, now=NOON, run_at=run_at, refusal=refusal)


def a_key(purchase: Purchase, number: int = 1, *, held: bool = False) -> Key:
    return Key(KeyId(f"key-{number}"), purchase.item_id, purchase.external_id, "text/plain", held, NOON)


async def test_an_order_is_added_once_and_read_as_it_was(orders: Orders) -> None:
    order = an_order("order-1", 2, 19)
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
    assert [(line.item, line.state, line.purchases, line.keys) for line in found.lines] == [
        (item, State.AWAITING_PAYMENT, [], []) for item in order.items
    ]


async def test_a_transaction_that_fails_leaves_nothing(orders: Orders) -> None:
    async def fail() -> None:
        async with orders.transaction() as transaction:
            await transaction.add_order(an_order(), DIGEST, now=NOON)
            await transaction.add_payment(a_payment())
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    async with orders.transaction() as transaction:
        assert await transaction.load(ORDER_ID) is None
        assert not await transaction.payments(ORDER_ID)


async def test_a_payment_is_added_once_and_may_come_before_its_order(orders: Orders) -> None:
    first, second = a_payment(400, payment_id="b"), a_payment(600, payment_id="a")
    async with orders.transaction() as transaction:
        assert await transaction.add_payment(first) is None
        assert await transaction.add_payment(second) is None
        assert await transaction.add_payment(a_payment(1, payment_id="b")) == first
        assert await transaction.add_payment(a_payment(1, payment_id="b", provider="paypal")) is None
    async with orders.transaction() as transaction:
        other = a_payment(400, payment_id="b", order_id=OrderId("order-2"))
        assert await transaction.add_payment(other) == first
        paid = await transaction.payments(ORDER_ID)
        assert [(payment.provider, payment.payment_id) for payment in paid] == [
            ("paypal", "b"),
            ("stripe", "a"),
            ("stripe", "b"),
        ]
        assert paid[2] == first
        assert not await transaction.payments(OrderId("order-2"))


async def test_purchases_are_added_once_and_due_at_once(orders: Orders) -> None:
    await buy(orders, "order-1", 10)
    planned = plan(ORDER_ID, an_order("order-1", 10).items)
    assert [purchase.quantity for purchase in await purchases(orders)] == [9, 1]
    async with orders.transaction() as transaction:
        (buying, _) = await transaction.lock_due(64, now=NOON)
        assert (buying.item, buying.customer_id) == (an_order("order-1", 10).items[0], "alice")
        await transaction.lease(replace(buying.purchase, state=State.PURCHASING), until=NOON + MINUTE)
    async with orders.transaction() as transaction:
        await transaction.add_purchases(ORDER_ID, planned, now=NOON + SECOND)
    assert sorted(purchase.state for purchase in await purchases(orders)) == [State.PENDING, State.PURCHASING]
    assert await due(orders, -1) == []
    assert len(await due(orders, 0)) == 1


async def test_what_is_due_longest_comes_first_and_not_more_than_asked(orders: Orders) -> None:
    await buy(orders, "order-1", 1, 1, 1)
    first, second, third = await purchases(orders)
    await save(orders, first, 3)
    await save(orders, second, 1)
    await save(orders, third, None)
    assert await due(orders, 0) == []
    assert await due(orders, 3) == [second.external_id, first.external_id]
    assert await due(orders, 3, limit=1) == [second.external_id]


async def test_a_lease_keeps_a_purchase_from_being_due_until_it_ends(orders: Orders) -> None:
    await buy(orders)
    (purchase,) = await purchases(orders)
    async with orders.transaction() as transaction:
        await transaction.lease(purchase, until=NOON + MINUTE)
    assert await due(orders, 59) == []
    assert await due(orders, 60) == [purchase.external_id]


async def test_a_lease_is_extended_while_it_lasts_only(orders: Orders) -> None:
    await buy(orders)
    (purchase,) = await purchases(orders)
    async with orders.transaction() as transaction:
        await transaction.lease(purchase, until=NOON + MINUTE)
        await transaction.extend_leases([purchase.external_id], now=NOON, until=NOON + 2 * MINUTE)
    assert await due(orders, 119) == []
    async with orders.transaction() as transaction:
        await transaction.extend_leases([purchase.external_id], now=NOON + 2 * MINUTE, until=NOON + 3 * MINUTE)
    assert await due(orders, 120) == [purchase.external_id]


async def test_a_purchase_without_a_lease_gets_none(orders: Orders) -> None:
    await buy(orders)
    (purchase,) = await purchases(orders)
    async with orders.transaction() as transaction:
        await transaction.extend_leases([purchase.external_id], now=NOON, until=NOON + MINUTE)
    assert await due(orders, 0) == [purchase.external_id]


async def test_a_purchase_is_written_as_it_is(orders: Orders) -> None:
    await buy(orders)
    (purchase,) = await purchases(orders)
    changed = replace(
        purchase,
        state=State.NEEDS_ATTENTION,
        reason=Reason.KEYS_MISSING,
        state_time=NOON + SECOND,
        supplier_order_id="PHS1",
        place_time=NOON,
        tries=7,
        park_time=NOON - MINUTE,
    )
    await save(orders, changed, None, refusal="ProductUnavailable")
    assert await purchases(orders) == [changed]
    (line,) = (await load(orders)).lines
    assert (line.state, line.reason) == (State.NEEDS_ATTENTION, Reason.KEYS_MISSING)


async def test_a_hint_makes_what_waits_due(orders: Orders) -> None:
    await buy(orders)
    (purchase,) = await purchases(orders)
    await save(orders, purchase, 600)
    async with orders.transaction() as transaction:
        await transaction.hasten(purchase.external_id, now=NOON + SECOND)
        await transaction.hasten(ExternalId("kf1-of-nobody"), now=NOON)
    assert await due(orders, 1) == [purchase.external_id]


async def test_a_hint_about_what_is_leased_counts_when_it_is_put_back(orders: Orders) -> None:
    await buy(orders)
    (purchase,) = await purchases(orders)
    async with orders.transaction() as transaction:
        await transaction.lease(purchase, until=NOON + MINUTE)
        await transaction.hasten(purchase.external_id, now=NOON + SECOND)
    assert await due(orders, 59) == []
    await save(orders, purchase, 600)
    assert await due(orders, 0) == [purchase.external_id]
    await save(orders, purchase, 600)
    assert await due(orders, 599) == []


async def test_a_hint_about_what_is_done_wakes_nobody(orders: Orders) -> None:
    await buy(orders)
    (purchase,) = await purchases(orders)
    async with orders.transaction() as transaction:
        await transaction.lease(purchase, until=NOON + MINUTE)
        await transaction.hasten(purchase.external_id, now=NOON)
        await transaction.save_purchase(purchase, now=NOON, run_at=None)
        await transaction.hasten(purchase.external_id, now=NOON)
    assert await due(orders, 10**6) == []


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
            paid=Amount("USD", 7),
            pay_time=NOON,
        )
    found = await load(orders)
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.PAYMENT_MISMATCH)
    assert (found.paid, found.pay_time, found.update_time) == (Amount("USD", 7), NOON, NOON + SECOND)
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
    assert again.tries == 2
    async with orders.transaction() as transaction:
        await transaction.mail_done(ORDER_ID, now=NOON + SECOND)
        await transaction.want_mail(ORDER_ID, now=NOON)
    assert not await orders.due_mails(9, lease=MINUTE, now=NOON + 99 * MINUTE)
    found = await load(orders)
    assert (found.mail_time, found.version) == (NOON + SECOND, 2)


async def test_a_mail_may_wait_or_never_be_sent(orders: Orders) -> None:
    for number in (1, 2):
        await add(orders, f"order-{number}")
        async with orders.transaction() as transaction:
            await transaction.want_mail(OrderId(f"order-{number}"), now=NOON)
    await orders.mail_waits(OrderId("order-1"), run_at=NOON + MINUTE, failure="451")
    await orders.mail_waits(OrderId("order-2"), run_at=None, failure="550")
    assert not await orders.due_mails(9, lease=MINUTE, now=NOON)
    (mail,) = await orders.due_mails(9, lease=MINUTE, now=NOON + 99 * MINUTE)
    assert mail.order_id == "order-1"


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
        await transaction.save_summary(OrderId("c"), State.READY, Reason.NONE, now=NOON, paid=None, pay_time=None)

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


async def test_two_workers_never_claim_the_same(postgres_orders: PostgresOrders) -> None:
    for number in range(4):
        await buy(postgres_orders, f"order-{number}")
    async with postgres_orders.transaction() as one, postgres_orders.transaction() as two:
        first = await one.lock_due(2, now=NOON)
        second = await two.lock_due(9, now=NOON)
    claimed = [buying.purchase.external_id for buying in [*first, *second]]
    assert (len(first), len(second)) == (2, 2)
    assert len(set(claimed)) == 4


async def test_an_order_that_is_being_changed_is_passed_over(postgres_orders: PostgresOrders) -> None:
    await buy(postgres_orders)
    async with postgres_orders.transaction() as one, postgres_orders.transaction() as two:
        await one.load(ORDER_ID, lock=True)
        assert not await two.lock_due(9, now=NOON)


async def test_leases_are_extended_past_what_is_just_being_answered(postgres_orders: PostgresOrders) -> None:
    await buy(postgres_orders, "order-1", 1, 1)
    one, other = await purchases(postgres_orders)
    async with postgres_orders.transaction() as transaction:
        for purchase in (one, other):
            await transaction.lease(purchase, until=NOON + MINUTE)
    async with postgres_orders.transaction() as answering, postgres_orders.transaction() as extending:
        await answering.save_purchase(one, now=NOON, run_at=NOON + SECOND)
        external_ids = [one.external_id, other.external_id]
        await extending.extend_leases(external_ids, now=NOON, until=NOON + 2 * MINUTE)
    assert await due(postgres_orders, 1) == [one.external_id]
    assert await due(postgres_orders, 119) == [one.external_id]


async def test_an_order_and_its_payment_at_one_moment_find_each_other(postgres_orders: PostgresOrders) -> None:
    """Each would otherwise look before the other is committed, and nobody would begin."""
    seen: list[bool] = []

    async def order() -> None:
        async with postgres_orders.transaction() as transaction:
            await transaction.add_order(an_order(), DIGEST, now=NOON)
            seen.append(bool(await transaction.payments(ORDER_ID)))
            await asyncio.sleep(0.1)

    async def pay() -> None:
        async with postgres_orders.transaction() as transaction:
            await transaction.add_payment(a_payment())
            seen.append(await transaction.load(ORDER_ID, lock=True) is not None)
            await asyncio.sleep(0.1)

    await asyncio.gather(order(), pay())
    assert sorted(seen) == [False, True]


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
