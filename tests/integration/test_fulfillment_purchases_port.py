"""What the rows of purchases promise: PostgreSQL, and the memory that unit tests and histories run on."""

from dataclasses import replace
from datetime import datetime

import pytest
from fulfillment.adapters.orders import PostgresOrders
from fulfillment.domain.model import Customer, ExternalId, ItemId, KeyId, OrderId, Purchase, Reason, State
from fulfillment.domain.payments import Paid, PaymentVerdict
from fulfillment.domain.policy import Trouble
from fulfillment.moving import summarize
from fulfillment.ports.orders import Orders, OrderTransaction
from sqlalchemy.exc import IntegrityError

from tests.integration.fulfillment_rows import (
    MINUTE,
    ORDER_ID,
    SECOND,
    add,
    add_purchases,
    after,
    bought,
    buy,
    due,
    hasten,
    lease,
    load,
    planned,
    purchases,
    save,
)
from tests.integration.real_servers import OneDatabase, fetch
from tests.unit.fulfillment.examples import DIGEST, NOON, an_order

BOB = Customer("bob", "bob@example.com")


async def test_purchases_are_added_once_and_due_at_the_given_time(orders: Orders) -> None:
    await buy(orders, "order-1", 9, 1)
    assert await purchases(orders) == planned("order-1", 9, 1)
    async with orders.transaction() as transaction:
        (buying, _) = await transaction.lock_due({0: 64}, now=NOON)
        assert (buying.item, buying.customer_id) == (an_order("order-1", 9).items[0], "alice")
        assert buying.country_code == "DE"
        await transaction.lease(replace(buying.purchase, state=State.PURCHASING, unit_limit=999), until=NOON + MINUTE)
    await add_purchases(orders, planned("order-1", 9, 1, lane=3), run_at=NOON + SECOND)
    assert sorted(purchase.state for purchase in await purchases(orders)) == [State.PENDING, State.PURCHASING]
    assert await due(orders, -1) == []
    assert len(await due(orders, 0)) == 1


async def test_nothing_is_added_of_nothing(orders: Orders) -> None:
    await add(orders)
    await add_purchases(orders, [])
    assert await purchases(orders) == []


def everything_changed(purchase: Purchase) -> Purchase:
    return replace(
        purchase,
        quantity=3,
        state=State.NEEDS_ATTENTION,
        reason=Reason.KEYS_MISSING,
        state_time=NOON + SECOND,
        offer_id="offer-7",
        unit_limit=1234,
        replaced_key_id=KeyId("key-0"),
        is_preorder=True,
        release_time=NOON + MINUTE,
        refusal="ProductUnavailable",
        supplier_order_id="PHS1",
        charged=2247,
        place_time=NOON,
        tries=7,
        park_time=NOON - MINUTE,
        overdue_time=NOON + MINUTE,
        give_up=Reason.CANCEL_ASKED,
        canceled_quantity=2,
        lane=4,
        next_time=None,
    )


async def test_a_purchase_is_written_as_it_is(orders: Orders) -> None:
    changed = everything_changed(await bought(orders))
    await save(orders, changed, None)
    assert await purchases(orders) == [changed]
    (line,) = (await load(orders)).lines
    assert (line.state, line.reason) == (State.NEEDS_ATTENTION, Reason.KEYS_MISSING)


async def test_a_purchase_is_added_leased_and_renewed_as_it_is(orders: Orders) -> None:
    await add(orders)
    (purchase,) = planned(state=State.WITHDRAWING)
    (added,) = [replace(everything_changed(purchase), state=State.PENDING, next_time=NOON)]
    await add_purchases(orders, [added])
    assert await purchases(orders) == [added]
    leased = await lease(orders, replace(added, state=State.PURCHASING, tries=8), 60)
    assert leased == replace(added, state=State.PURCHASING, tries=8, claim=1, next_time=after(60))
    assert await purchases(orders) == [leased]
    renewed = replace(leased, state=State.WITHDRAWING, offer_id="offer-8", next_time=after(90))
    async with orders.transaction() as transaction:
        await transaction.renew(renewed, until=after(90))
    assert await purchases(orders) == [renewed]


async def test_chunks_and_attempts_have_their_order(orders: Orders) -> None:
    await add(orders)
    (first,) = planned()
    places = [(1, 1), (0, 2), (0, 1), (1, 2)]
    await add_purchases(
        orders,
        [replace(first, external_id=ExternalId(f"kf1-{c}-{a}"), chunk=c, attempt=a) for c, a in places],
    )
    assert [(each.chunk, each.attempt) for each in await purchases(orders)] == sorted(places)


# Lanes.


async def test_each_lane_gives_its_share_the_longest_due_first(orders: Orders) -> None:
    await add(orders, "order-1", *[1] * 6)
    listed = planned("order-1", *[1] * 6)
    for number, (lane, seconds) in enumerate([(0, 3), (0, 1), (0, 2), (1, 1), (1, 0), (2, 9)]):
        await add_purchases(orders, [replace(listed[number], lane=lane)], run_at=after(seconds))
    a, b, c, d, e, f = [each.external_id for each in listed]
    assert await due(orders, 9, {0: 2, 1: 1, 2: 1}) == [b, c, e, f]
    assert await due(orders, 9, {1: 9, 0: 9}) == [b, c, a, e, d]
    assert await due(orders, 2, {0: 9, 1: 0, 2: 3}) == [b, c]
    assert await due(orders, 9, {3: 5}) == await due(orders, 9, {}) == []


async def test_what_waits_is_counted_for_its_customer_up_to_a_number(orders: Orders) -> None:
    await buy(orders, "order-1", 1, 1, 1, 1)
    await buy(orders, "order-2", 1, 1)
    await buy(orders, "order-3", 1, customer=BOB)
    one, two, three, _ = await purchases(orders)
    await save(orders, replace(one, state=State.PURCHASING), 0)
    await save(orders, replace(two, state=State.AWAITING_KEYS), 0)
    await save(orders, replace(three, state=State.NEEDS_ATTENTION), None)
    async with orders.transaction() as transaction:
        assert await transaction.waiting("alice", most=99) == 4
        assert await transaction.waiting("alice", most=3) == 3
        assert await transaction.waiting("bob", most=99) == 1
        assert await transaction.waiting("nobody", most=99) == 0


# Leases and claims.


async def test_a_lease_keeps_a_purchase_from_being_due_until_it_ends(orders: Orders) -> None:
    purchase = await bought(orders)
    await lease(orders, purchase, 60)
    assert await due(orders, 59) == []
    assert await due(orders, 60) == [purchase.external_id]


async def test_a_lease_is_extended_while_it_lasts_and_by_its_holder_only(orders: Orders) -> None:
    purchase = await bought(orders)
    early = await lease(orders, purchase, 60)
    async with orders.transaction() as transaction:
        await transaction.extend_leases({}, now=NOON, until=after(120))
        await transaction.extend_leases({purchase.external_id: early.claim}, now=NOON, until=after(120))
    assert await due(orders, 119) == []
    async with orders.transaction() as transaction:
        await transaction.extend_leases({purchase.external_id: early.claim}, now=after(120), until=after(180))
    assert await due(orders, 120) == [purchase.external_id]
    late = await lease(orders, early, 180)
    assert (early.claim, late.claim) == (1, 2)
    async with orders.transaction() as transaction:
        await transaction.extend_leases({purchase.external_id: early.claim}, now=after(120), until=after(999))
    assert await due(orders, 180) == [purchase.external_id]


async def test_a_purchase_without_a_lease_gets_none(orders: Orders) -> None:
    purchase = await bought(orders)
    async with orders.transaction() as transaction:
        await transaction.extend_leases({purchase.external_id: purchase.claim}, now=NOON, until=after(60))
    assert await due(orders, 0) == [purchase.external_id]


async def test_who_was_overtaken_writes_what_it_learned_and_leaves_the_lease_to_its_holder(orders: Orders) -> None:
    early = await lease(orders, await bought(orders), 15)
    late = await lease(orders, early, 60)
    await hasten(orders, late, 20)
    learned = replace(early, state=State.AWAITING_KEYS, supplier_order_id="PHS1", unit_limit=999)
    await save(orders, learned, 30, now=after(20))
    assert await purchases(orders) == [replace(learned, claim=late.claim, next_time=after(60))]
    assert await due(orders, 59) == []
    async with orders.transaction() as transaction:
        await transaction.extend_leases({late.external_id: late.claim}, now=after(59), until=after(90))
    assert await due(orders, 89) == []
    await save(orders, replace(learned, claim=late.claim), 600, now=after(70))
    assert await due(orders, 70) == [late.external_id]


async def test_what_nobody_is_to_look_at_again_is_nobodys(orders: Orders) -> None:
    early = await lease(orders, await bought(orders), 15)
    late = await lease(orders, early, 60)
    refused = replace(early, state=State.NEEDS_ATTENTION, reason=Reason.PURCHASE_REFUSED)
    await save(orders, refused, None, now=after(20))
    assert await purchases(orders) == [replace(refused, claim=late.claim, next_time=None)]
    async with orders.transaction() as transaction:
        await transaction.extend_leases({late.external_id: late.claim}, now=after(30), until=after(90))
    assert await due(orders, 10**6) == []


@pytest.mark.parametrize("seconds", [None, 600])
async def test_what_nobody_holds_is_due_as_even_an_earlier_claim_says(orders: Orders, seconds: float | None) -> None:
    """What waits and is never due would be stuck for ever."""
    early = await lease(orders, await bought(orders), 15)
    late = await lease(orders, early, 60)
    await save(orders, late, seconds, now=after(20))
    await save(orders, replace(early, state=State.AWAITING_KEYS, unit_limit=999), 30, now=after(25))
    assert await due(orders, 30) == [early.external_id]


async def test_a_lease_that_has_ended_is_nobodys(orders: Orders) -> None:
    early = await lease(orders, await bought(orders), 15)
    await lease(orders, early, 60)
    await save(orders, early, 100, now=after(60))
    assert await due(orders, 99) == []
    assert await due(orders, 100) == [early.external_id]


async def test_who_was_overtaken_does_not_go_on(orders: Orders) -> None:
    early = await lease(orders, await bought(orders), 15)
    late = await lease(orders, early, 60)
    with pytest.raises(LookupError, match="somebody else"):
        async with orders.transaction() as transaction:
            await transaction.renew(replace(early, offer_id="offer-7"), until=after(999))
    assert await purchases(orders) == [late]


async def test_a_hint_survives_a_renewal(orders: Orders) -> None:
    leased = await lease(orders, await bought(orders), 60)
    await hasten(orders, leased, 1)
    async with orders.transaction() as transaction:
        await transaction.renew(leased, until=after(90))
    assert await due(orders, 89) == []
    await save(orders, leased, 600, now=after(70))
    assert await due(orders, 70) == [leased.external_id]


# Hints.


async def test_a_hint_makes_what_waits_due(orders: Orders) -> None:
    purchase = await bought(orders)
    await save(orders, purchase, 600)
    await hasten(orders, purchase, 1)
    async with orders.transaction() as transaction:
        await transaction.hasten(ExternalId("kf1-of-nobody"), now=NOON)
    assert await due(orders, 1) == [purchase.external_id]


async def test_a_hint_about_what_is_leased_counts_when_it_is_put_back(orders: Orders) -> None:
    leased = await lease(orders, await bought(orders), 60)
    await hasten(orders, leased, 1)
    assert await due(orders, 59) == []
    await save(orders, leased, 600)
    assert await due(orders, 0) == [leased.external_id]
    await save(orders, leased, 600)
    assert await due(orders, 599) == []


async def test_a_hint_about_what_is_done_wakes_nobody(orders: Orders) -> None:
    leased = await lease(orders, await bought(orders), 60)
    await hasten(orders, leased, 0)
    await save(orders, leased, None)
    await hasten(orders, leased, 0)
    assert await due(orders, 10**6) == []


async def test_orders_in_trouble_are_found_by_reason_and_time_the_oldest_first(orders: Orders) -> None:
    stuck = [
        ("order-3", Reason.KEYS_TOO_LATE, 0),
        ("order-1", Reason.PURCHASE_REFUSED, 60),
        ("order-2", Reason.NONE, 0),
    ]
    for number, (order_id, reason, seconds) in enumerate(stuck):
        async with orders.transaction() as transaction:
            await transaction.add_order(an_order(order_id), DIGEST, now=after(number // 2))
            (purchase,) = planned(order_id, state_time=after(seconds), reason=reason)
            await transaction.add_purchases([purchase], run_at=NOON)
            state = State.NEEDS_ATTENTION if reason else State.PENDING
            # The last one was set aside and can be read again: it waits, and is never due.
            await transaction.save_purchase(replace(purchase, state=state), now=NOON, run_at=None)
            paid = Paid(PaymentVerdict.PAID, None, None)
            found = OrderId(order_id)
            await transaction.save_summary(found, State.NEEDS_ATTENTION, reason, now=NOON, paid=paid, pay_time=NOON)
    await buy(orders, "order-4")

    async def troubled(trouble: Trouble, size: int = 9, last: tuple[datetime, str] | None = None) -> list[str]:
        async with orders.transaction() as transaction:
            return [order_id for _, order_id in await transaction.troubled(trouble, size=size, after=last)]

    assert await troubled(Trouble()) == ["order-1", "order-3", "order-2"]
    assert await troubled(Trouble(), size=2) == ["order-1", "order-3"]
    assert await troubled(Trouble(), last=(after(0), "order-1")) == ["order-3", "order-2"]
    assert await troubled(Trouble(Reason.PURCHASE_REFUSED)) == ["order-1"]
    assert await troubled(Trouble(Reason.ROW_UNREADABLE)) == ["order-2"]
    assert await troubled(Trouble(since=after(60))) == ["order-1"]
    assert await troubled(Trouble(until=after(60))) == ["order-3", "order-2"]
    assert await troubled(Trouble(Reason.KEYS_TOO_LATE, since=after(1))) == []


# What cannot be worked on as it is.


async def test_of_an_isolated_block_that_fails_nothing_is_left_but_what_was_there_before(orders: Orders) -> None:
    await buy(orders, "order-1", 1, 1)
    one, other = await purchases(orders)

    async def fail(transaction: OrderTransaction) -> None:
        async with transaction.isolated():
            await transaction.lease(other, until=after(60))
            raise RuntimeError("on purpose")

    async with orders.transaction() as transaction:
        await transaction.lease(one, until=after(60))
        with pytest.raises(RuntimeError, match="on purpose"):
            await fail(transaction)
        async with transaction.isolated():
            await transaction.put_off(other.external_id, run_at=after(30))
    first, second = await purchases(orders)
    assert (first.claim, first.next_time) == (1, after(60))
    assert second == replace(other, next_time=after(30))


@pytest.mark.parametrize("column", ["reason", "give_up", "state"])
async def test_what_this_version_cannot_read_is_for_a_human_and_is_never_written_over(
    postgres_orders: PostgresOrders, fulfillment_database: OneDatabase, column: str
) -> None:
    await buy(postgres_orders)
    await buy(postgres_orders, "order-2")
    url = fulfillment_database.superuser_url
    await fetch(url, "ALTER TABLE purchase DROP CONSTRAINT only_what_waits_is_due")
    await fetch(url, f"UPDATE purchase SET {column} = 'OF_TOMORROW' WHERE order_id = 'order-1'")  # noqa: S608 # one of three names
    async with postgres_orders.transaction() as transaction:
        due_now = {each.purchase.order_id: each.purchase for each in await transaction.lock_due({0: 9}, now=NOON)}
        assert due_now[OrderId("order-2")].state is State.PENDING
        unread = due_now[ORDER_ID]
        assert (unread.state, unread.reason) == (State.NEEDS_ATTENTION, Reason.ROW_UNREADABLE)
        await transaction.save_purchase(replace(unread, supplier_order_id="PHS1"), now=NOON, run_at=None)
    line = (await load(postgres_orders)).lines[0]
    assert (line.state, line.reason) == (State.NEEDS_ATTENTION, Reason.ROW_UNREADABLE)
    (row,) = await fetch(url, "SELECT * FROM purchase WHERE order_id = 'order-1'")
    assert row[column] == "OF_TOMORROW"
    assert (row["run_at"], row["supplier_order_id"]) == (None, "PHS1")
    others = {"state": "PENDING", "reason": "", "give_up": ""}
    assert all(row[name] == word for name, word in others.items() if name != column)


async def test_an_order_whose_own_words_cannot_be_read_is_read_and_folded_anew(
    postgres_orders: PostgresOrders, fulfillment_database: OneDatabase
) -> None:
    await buy(postgres_orders)
    words = "UPDATE customer_order SET state = 'OF_TOMORROW', reason = 'OF_TOMORROW'"
    await fetch(fulfillment_database.superuser_url, words)
    found = await load(postgres_orders)
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.ROW_UNREADABLE)
    async with postgres_orders.transaction() as transaction:
        await summarize(transaction, ORDER_ID, now=NOON)
    assert (await load(postgres_orders)).state is State.PENDING


# What only PostgreSQL can show: several transactions at one moment, and rows of the version before.


async def test_two_workers_never_claim_the_same(postgres_orders: PostgresOrders) -> None:
    for number in range(4):
        await buy(postgres_orders, f"order-{number}")
    async with postgres_orders.transaction() as one, postgres_orders.transaction() as two:
        first = await one.lock_due({0: 2}, now=NOON)
        second = await two.lock_due({0: 9, 1: 9}, now=NOON)
    claimed = [buying.purchase.external_id for buying in [*first, *second]]
    assert (len(first), len(second)) == (2, 2)
    assert len(set(claimed)) == 4


async def test_an_order_that_is_being_changed_is_passed_over_and_takes_nobodys_share(
    postgres_orders: PostgresOrders,
) -> None:
    await buy(postgres_orders, "order-1", 1, 1, 1)
    await add(postgres_orders, "order-2")
    (other,) = planned("order-2")
    await add_purchases(postgres_orders, [other], run_at=NOON + SECOND)
    async with postgres_orders.transaction() as one, postgres_orders.transaction() as two:
        await one.load(ORDER_ID, lock=True)
        (found,) = await two.lock_due({0: 1}, now=after(1))
        assert found.purchase.external_id == other.external_id


async def test_leases_are_extended_past_what_is_just_being_answered(postgres_orders: PostgresOrders) -> None:
    await buy(postgres_orders, "order-1", 1, 1)
    one, other = [await lease(postgres_orders, each, 60) for each in await purchases(postgres_orders)]
    async with postgres_orders.transaction() as answering, postgres_orders.transaction() as extending:
        await answering.save_purchase(one, now=NOON, run_at=NOON + SECOND)
        claims = {one.external_id: one.claim, other.external_id: other.claim}
        await extending.extend_leases(claims, now=NOON, until=NOON + 2 * MINUTE)
    assert await due(postgres_orders, 1) == [one.external_id]
    assert await due(postgres_orders, 119) == [one.external_id]


async def test_a_place_in_a_line_is_not_taken_twice(postgres_orders: PostgresOrders) -> None:
    await buy(postgres_orders)
    (again,) = planned(external_id=ExternalId("kf1-another"))
    with pytest.raises(IntegrityError):
        await add_purchases(postgres_orders, [again])


async def test_what_ended_is_never_due(postgres_orders: PostgresOrders) -> None:
    purchase = await bought(postgres_orders)
    with pytest.raises(IntegrityError, match="only_what_waits_is_due"):
        await save(postgres_orders, replace(purchase, state=State.CANCELED), 1)


async def test_what_the_version_before_began_goes_on_as_it_was_sent(
    postgres_orders: PostgresOrders, fulfillment_database: OneDatabase
) -> None:
    """Both versions run while one replaces the other, and the older one knows no plans."""
    await buy(postgres_orders)
    await fetch(fulfillment_database.superuser_url, "UPDATE order_item SET offer_id = 'offer-7'")
    async with postgres_orders.transaction() as transaction:
        (buying,) = await transaction.lock_due({0: 1}, now=NOON)
    assert (buying.purchase.is_planned, buying.purchase.offer_id) == (False, "")
    await fetch(fulfillment_database.superuser_url, "UPDATE purchase SET state = 'PURCHASING'")
    async with postgres_orders.transaction() as transaction:
        (buying,) = await transaction.lock_due({0: 1}, now=NOON)
        await transaction.lease(buying.purchase, until=NOON + MINUTE)
    assert (buying.purchase.unit_limit, buying.purchase.offer_id) == (999, "offer-7")
    (row,) = await fetch(fulfillment_database.superuser_url, "SELECT unit_limit, offer_id FROM purchase")
    assert (row["unit_limit"], row["offer_id"]) == (999, "offer-7")
    assert buying.item.item_id == ItemId("item-1")
