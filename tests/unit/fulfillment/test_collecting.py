"""Keys as they arrive, and as their owner opens them."""

import pytest
from fulfillment.domain.model import KeyId, Reason, State
from fulfillment.domain.policy import MOST_AGE
from fulfillment.ports.supplier import CollectAnswer, NoAnswer, Unknown, Unreadable
from fulfillment.working import LEASE
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentDelivered,
    FulfillmentKeyReady,
    FulfillmentReady,
)

from tests.unit.fulfillment.desk import deliver
from tests.unit.fulfillment.examples import NOON
from tests.unit.fulfillment.fakes import collected, key_ids
from tests.unit.fulfillment.shop import Shop


@pytest.fixture
async def shop() -> Shop:
    shop = Shop()
    await shop.sell(2)
    return shop


async def test_keys_can_be_opened_as_they_arrive(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [collected(shop.purchase(), 1)]
    await shop.work()
    found = await shop.found()
    assert found.state is State.AWAITING_KEYS
    assert len(found.lines[0].keys) == 1
    assert len(shop.orders.rows.mails) == 1
    assert not shop.orders.told(FulfillmentReady)
    shop.clock.pass_seconds(60)
    await shop.work()
    assert (await shop.found()).state is State.READY
    assert len(shop.orders.told(FulfillmentKeyReady)) == 2


async def test_more_keys_that_are_ready_are_fetched_at_once(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [collected(shop.purchase(), 1, more=True, ended=True)]
    await shop.work()
    assert shop.seconds_to_next_look() == 0


async def test_a_key_that_was_sold_before_is_kept_and_the_others_can_be_opened(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [collected(shop.purchase(), 2, held=1)]
    await shop.work()
    found = await shop.found()
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.DUPLICATE_KEY)
    assert [key.held for key in found.lines[0].keys] == [False, True]
    assert [told.key_id for told in shop.orders.told(FulfillmentKeyReady)] == key_ids(shop.purchase())[:1]


async def test_without_any_key_to_open_there_is_no_mail(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [collected(shop.purchase(), 2, held=2)]
    await shop.work()
    assert not shop.orders.rows.mails


async def test_an_order_that_ended_short_says_so_and_gives_what_came(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [collected(shop.purchase(), 1, ended=True)]
    await shop.work()
    found = await shop.found()
    assert (found.state, found.reason) == (State.PARTLY_CANCELED, Reason.KEYS_MISSING)
    assert len(found.lines[0].keys) == 1
    assert (shop.canceled(), shop.asked_back()) == ([("item-1", 1, "KEYS_MISSING")], 500)


async def test_an_order_that_ended_without_a_key_is_canceled(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [collected(shop.purchase(), 0, ended=True)]
    await shop.work()
    found = await shop.found()
    assert (found.state, found.reason) == (State.CANCELED, Reason.KEYS_MISSING)
    assert (shop.canceled(), shop.asked_back()) == ([("item-1", 2, "KEYS_MISSING")], 1000)
    assert not shop.orders.rows.mails


async def test_what_is_unreadable_is_for_a_human_and_the_other_keys_can_be_opened(shop: Shop) -> None:
    """Also where the answer that first told of them was lost."""
    await shop.work()
    shop.supplier.collecting = [NoAnswer(), collected(shop.purchase(), 1, unreadable=1)]
    await shop.work()
    shop.clock.pass_seconds(60)
    await shop.work()
    found = await shop.found()
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.KEY_UNREADABLE)
    assert [told.key_id for told in shop.orders.told(FulfillmentKeyReady)] == key_ids(shop.purchase())[:1]
    assert len(shop.orders.rows.mails) == 1
    await deliver(shop)
    assert shop.states() == [State.READY]


async def test_everything_that_can_be_opened_is_fetched_before_a_human_is_asked(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [collected(shop.purchase(), 0, more=True, unreadable=1)]
    await shop.work()
    assert (shop.states(), shop.seconds_to_next_look()) == ([State.AWAITING_KEYS], 0)


async def test_what_a_person_delivered_stands_for_what_is_unreadable(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [Unreadable()]
    await shop.work()
    await deliver(shop)
    await shop.retry()
    shop.supplier.collecting = [collected(shop.purchase(), 1, unreadable=1)]
    await shop.work()
    assert shop.states() == [State.READY]
    assert sum(key.is_openable for key in shop.sealed()) == 2


async def test_what_a_person_delivered_counts_when_the_supplier_ends_the_order(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [Unreadable()]
    await shop.work()
    await deliver(shop)
    await shop.retry()
    shop.supplier.collecting = [collected(shop.purchase(), 0, ended=True)]
    await shop.work()
    assert (shop.purchase().state, shop.purchase().canceled_quantity) == (State.PARTLY_CANCELED, 1)


@pytest.mark.parametrize("ended", [False, True])
async def test_what_a_person_delivered_and_what_came_make_it_ready(shop: Shop, *, ended: bool) -> None:
    await shop.work()
    shop.supplier.collecting = [Unreadable()]
    await shop.work()
    await deliver(shop)
    await shop.retry()
    shop.supplier.collecting = [collected(shop.purchase(), 1, ended=ended)]
    await shop.work()
    assert shop.states() == [State.READY]
    assert not shop.canceled()


async def test_a_key_too_many_is_for_nobody(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [Unreadable()]
    await shop.work()
    await deliver(shop)
    await shop.retry()
    await shop.work()
    assert shop.states() == [State.READY]
    assert sum(key.is_openable for key in shop.sealed()) == 2


async def test_keys_that_were_opened_while_a_person_was_asked_are_delivered(shop: Shop) -> None:
    await shop.work()
    (late,) = await shop.claim(64)
    await shop.wait_in_vain(MOST_AGE[State.AWAITING_KEYS] + LEASE)
    await shop.progress.act(late)
    assert (shop.purchase().reason, len(shop.sealed())) == (Reason.KEYS_TOO_LATE, 2)
    for key in shop.sealed():
        await shop.open(key.key_id)
    await shop.retry()
    await shop.work()
    assert shop.states() == [State.DELIVERED]
    assert len(shop.orders.rows.mails) == 1


@pytest.mark.parametrize(
    ("answer", "reason"), [(Unreadable(), Reason.KEY_UNREADABLE), (Unknown(), Reason.PURCHASE_UNKNOWN)]
)
async def test_what_asking_again_cannot_mend_is_for_a_human(shop: Shop, answer: CollectAnswer, reason: Reason) -> None:
    await shop.work()
    shop.supplier.collecting = [answer]
    await shop.work()
    found = await shop.found()
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, reason)
    assert shop.seconds_to_next_look() is None


async def test_an_order_is_ready_when_its_last_line_is(shop: Shop) -> None:
    shop = Shop()
    await shop.sell(1, 10)
    await shop.work()
    shop.supplier.collecting = [NoAnswer(), NoAnswer()]
    await shop.work()
    shop.clock.pass_seconds(60)
    assert {purchase.state for purchase in shop.orders.purchases()} == {State.AWAITING_KEYS}
    shop.supplier.collecting = [collected(shop.purchase(0), 1), collected(shop.purchase(1), 9), NoAnswer()]
    await shop.work()
    found = await shop.found()
    assert [line.state for line in found.lines] == [State.READY, State.AWAITING_KEYS]
    assert found.state is State.AWAITING_KEYS
    shop.clock.pass_seconds(60)
    await shop.work()
    assert (await shop.found()).state is State.READY
    assert sum(purchase.quantity for purchase in shop.supplier.sold.values()) == 11


async def test_an_order_is_delivered_when_its_owner_has_opened_every_key(shop: Shop) -> None:
    await shop.work_until_ready()
    first, second = key_ids(shop.purchase())
    await shop.open_key(first)
    assert (await shop.found()).state is State.READY
    await shop.open_key(second)
    found = await shop.found()
    assert found.state is State.DELIVERED
    assert all(key.open_time == NOON for key in found.lines[0].keys)
    assert [told.order_id for told in shop.orders.told(FulfillmentDelivered)] == ["order-1"]


async def test_a_key_opened_before_the_others_came_counts(shop: Shop) -> None:
    await shop.work()
    shop.supplier.collecting = [collected(shop.purchase(), 1)]
    await shop.work()
    first, second = key_ids(shop.purchase())
    await shop.open_key(first)
    assert (await shop.found()).state is State.AWAITING_KEYS
    shop.clock.pass_seconds(60)
    await shop.work_until_ready()
    await shop.open_key(second)
    assert (await shop.found()).state is State.DELIVERED


async def test_a_key_opened_again_keeps_its_first_time_and_tells_nobody(shop: Shop) -> None:
    await shop.work_until_ready()
    first, _ = key_ids(shop.purchase())
    await shop.open_key(first)
    before = await shop.found()
    shop.clock.pass_seconds(60)
    await shop.open_key(first)
    assert await shop.found() == before


async def test_a_key_of_nobody_we_know_is_passed_over(shop: Shop) -> None:
    before = shop.orders.rows
    await shop.open_key(KeyId("key-of-somebody"))
    assert shop.orders.rows == before
