from datetime import timedelta

import pytest
from fulfillment.domain.machine import Command
from fulfillment.domain.model import ExternalId, KeyId, Reason, State
from fulfillment.domain.policy import MOST_AGE
from fulfillment.intake import Intake
from fulfillment.ports.supplier import CollectAnswer, InDoubt, NoAnswer, Refused, Unknown, Unreadable
from fulfillment.progress import ACT_SECONDS, EXTEND_SECONDS, LEASE
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentDelivered,
    FulfillmentKeyReady,
    FulfillmentNeedsAttention,
    FulfillmentPurchased,
    FulfillmentReady,
)

from tests.unit.fulfillment.examples import NOON, a_payment, an_order
from tests.unit.fulfillment.fakes import collected, key_ids, supplier_order_id
from tests.unit.fulfillment.shop import ORDER_ID, Shop


@pytest.fixture
async def shop() -> Shop:
    shop = Shop()
    await shop.sell(2)
    return shop


async def test_a_paid_order_becomes_ready_and_tells_each_step(shop: Shop) -> None:
    await shop.work_until_ready()
    found = await shop.found()
    purchase = shop.purchase()
    assert (found.state, purchase.state) == (State.READY, State.READY)
    assert found.lines[0].product_name == "Lantern Hollow"
    assert [key.key_id for key in found.lines[0].keys] == key_ids(purchase)
    (purchased,) = shop.orders.told(FulfillmentPurchased)
    assert (purchased.supplier_order_id, purchased.quantity) == (supplier_order_id(purchase.external_id), 2)
    assert (purchased.charged_amount.currency_code, purchased.charged_amount.minor_units) == ("EUR", 1498)
    assert [told.key_id for told in shop.orders.told(FulfillmentKeyReady)] == key_ids(purchase)
    assert [told.order_id for told in shop.orders.told(FulfillmentReady)] == ["order-1"]
    assert shop.orders.rows.mails[ORDER_ID].run_at == NOON
    assert not shop.orders.told(FulfillmentNeedsAttention)


async def test_the_supplier_is_told_what_was_ordered_and_for_whom(shop: Shop) -> None:
    await shop.work()
    (buying,) = shop.supplier.buyings
    assert buying.item == an_order("order-1", 2).items[0]
    assert (buying.customer_id, buying.country_code) == ("alice", "DE")
    assert (buying.purchase.external_id, buying.purchase.quantity) == (shop.purchase().external_id, 2)


async def test_nothing_is_asked_before_the_claim_is_committed(shop: Shop) -> None:
    (claimed,) = await shop.progress.claim(64)
    assert claimed.commands == (Command.PLACE_ORDER,)
    assert shop.supplier.asked["place"] == 0
    assert shop.purchase().state is State.PURCHASING
    assert (await shop.found()).state is State.PURCHASING


async def test_what_is_claimed_is_nobody_elses_until_its_lease_ends(shop: Shop) -> None:
    await shop.progress.claim(64)
    assert not await shop.progress.claim(64)
    shop.clock.time += LEASE
    (again,) = await shop.progress.claim(64)
    assert again.commands == (Command.SETTLE_ORDER,)


async def test_what_is_under_way_keeps_its_lease(shop: Shop) -> None:
    claimed = await shop.progress.claim(64)
    for _ in range(5):
        shop.clock.time += LEASE - timedelta(seconds=1)
        await shop.progress.extend(claimed)
    assert not await shop.progress.claim(64)


async def test_a_lease_that_has_ended_is_not_taken_back(shop: Shop) -> None:
    claimed = await shop.progress.claim(64)
    shop.clock.time += LEASE
    await shop.progress.extend(claimed)
    assert len(await shop.progress.claim(64)) == 1


def test_a_lease_outlives_missed_extensions_and_an_act_ends() -> None:
    assert timedelta(seconds=3 * EXTEND_SECONDS) < LEASE
    assert ACT_SECONDS > 60


async def test_a_refusal_ends_it_with_its_reason(shop: Shop) -> None:
    shop.supplier.placing = [Refused("ProductUnavailable")]
    assert await shop.work() == 1
    found = await shop.found()
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.PURCHASE_REFUSED)
    assert shop.orders.rows.purchases[shop.purchase().external_id].refusal == "ProductUnavailable"
    (told,) = shop.orders.told(FulfillmentNeedsAttention)
    assert (told.order_id, told.item_id, told.reason) == ("order-1", "item-1", "PURCHASE_REFUSED")
    assert shop.seconds_to_next_look() is None
    assert not shop.supplier.sold


async def test_a_doubt_is_asked_about_again_when_it_may_be_settled(shop: Shop) -> None:
    shop.supplier.placing = [InDoubt(timedelta(seconds=42))]
    await shop.work()
    assert shop.purchase().state is State.PURCHASING
    assert shop.seconds_to_next_look() == 42
    assert await shop.work() == 0
    shop.clock.pass_seconds(42)
    await shop.work_until_ready()
    assert shop.purchase().state is State.READY


async def test_a_doubt_without_a_known_wait_is_not_asked_about_at_once(shop: Shop) -> None:
    shop.supplier.placing = [InDoubt(None)]
    await shop.work()
    seconds = shop.seconds_to_next_look()
    assert seconds is not None
    assert seconds > 0.1


async def test_without_an_answer_it_asks_again_ever_later(shop: Shop) -> None:
    shop.supplier.placing = [NoAnswer()] * 4
    waits: list[float] = []
    for _ in range(4):
        assert await shop.work() == 1
        seconds = shop.seconds_to_next_look()
        assert seconds is not None
        waits.append(seconds)
        shop.clock.pass_seconds(seconds)
    assert waits == sorted(set(waits))
    assert shop.purchase().tries == 4
    await shop.work_until_ready()
    assert (shop.purchase().state, shop.purchase().tries) == (State.READY, 0)


async def test_an_answer_that_tells_nothing_changes_nothing_for_who_watches(shop: Shop) -> None:
    shop.supplier.placing = [NoAnswer(), InDoubt(None)]
    await shop.progress.claim(64)
    before = await shop.found()
    shop.clock.time += LEASE
    await shop.work()
    shop.clock.pass_seconds(60)
    await shop.work()
    after = await shop.found()
    assert shop.supplier.asked["place"] == 2
    assert (after.version, after.update_time) == (before.version, before.update_time)


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
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.KEYS_MISSING)
    assert len(found.lines[0].keys) == 1
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


@pytest.mark.parametrize("state", MOST_AGE)
async def test_whatever_waits_too_long_is_for_a_human(shop: Shop, state: State) -> None:
    shop.supplier.placing = [NoAnswer()] if state is State.PURCHASING else []
    shop.supplier.collecting = [NoAnswer()]
    for _ in range(list(MOST_AGE).index(state)):
        await shop.work()
    assert shop.purchase().state is state
    shop.clock.time += MOST_AGE[state] + timedelta(seconds=1)
    asked = shop.supplier.asked.total()
    assert await shop.work() == 1
    found = await shop.found()
    reason = Reason.KEYS_TOO_LATE if state is State.AWAITING_KEYS else Reason.PURCHASE_TOO_OLD
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, reason)
    assert shop.supplier.asked.total() == asked
    assert shop.orders.told(FulfillmentNeedsAttention)
    assert await shop.work() == 0


async def test_what_was_given_up_and_bought_after_all_shows_the_suppliers_order(shop: Shop) -> None:
    shop.supplier.placing = [NoAnswer()]
    await shop.work()
    shop.clock.pass_seconds(60)
    (late,) = await shop.progress.claim(64)
    shop.clock.time += MOST_AGE[State.PURCHASING]
    await shop.work()
    await shop.progress.act(late)
    assert shop.purchase().state is State.NEEDS_ATTENTION
    assert shop.purchase().supplier_order_id == supplier_order_id(shop.purchase().external_id)
    assert shop.seconds_to_next_look() is None


async def test_two_workers_that_ask_the_same_are_told_the_same_once(shop: Shop) -> None:
    (first,) = await shop.progress.claim(64)
    shop.clock.time += LEASE
    (second,) = await shop.progress.claim(64)
    await shop.progress.act(first)
    await shop.work_until_ready()
    ready = shop.orders.rows
    await shop.progress.act(second)
    assert shop.orders.rows == ready
    assert len(shop.supplier.sold) == 1


async def test_an_order_is_ready_when_its_last_line_is(shop: Shop) -> None:
    shop = Shop()
    await shop.sell(1, 10)
    await shop.work()
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


async def test_every_line_that_needs_attention_is_told(shop: Shop) -> None:
    shop = Shop()
    await shop.sell(1, 1)
    shop.supplier.placing = [Refused("ProductUnavailable"), Refused("InsufficientBalance")]
    await shop.work()
    told = shop.orders.told(FulfillmentNeedsAttention)
    assert [(each.item_id, each.reason) for each in told] == [
        ("item-1", "PURCHASE_REFUSED"),
        ("item-2", "PURCHASE_REFUSED"),
    ]


async def test_a_trouble_of_the_whole_order_is_told_apart_from_that_of_a_line(shop: Shop) -> None:
    shop.supplier.placing = [Refused("ProductUnavailable")]
    async with shop.orders.transaction() as transaction:
        await Intake(shop.clock).take_payment(transaction, a_payment(1, payment_id="payment-2"), telling="event-2")
    await shop.work()
    told = shop.orders.told(FulfillmentNeedsAttention)
    assert [(each.item_id, each.reason) for each in told] == [("", "PAYMENT_MISMATCH"), ("item-1", "PURCHASE_REFUSED")]


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


async def test_a_hint_makes_it_look_now(shop: Shop) -> None:
    shop.supplier.placing = [NoAnswer()]
    await shop.work()
    async with shop.orders.transaction() as transaction:
        await transaction.hasten(shop.purchase().external_id, now=shop.clock.now())
        await transaction.hasten(ExternalId("kf1-of-somebody"), now=shop.clock.now())
    assert await shop.work() == 1
    assert shop.purchase().state is State.AWAITING_KEYS


async def test_a_hint_while_a_worker_is_at_it_is_not_lost(shop: Shop) -> None:
    shop.supplier.placing = [InDoubt(timedelta(hours=1))]
    (claimed,) = await shop.progress.claim(64)
    async with shop.orders.transaction() as transaction:
        await transaction.hasten(shop.purchase().external_id, now=shop.clock.now())
    await shop.progress.act(claimed)
    assert shop.seconds_to_next_look() == 0


async def test_a_purchase_that_vanished_is_an_error_and_not_a_silence(shop: Shop) -> None:
    (claimed,) = await shop.progress.claim(64)
    shop.orders.rows.purchases.clear()
    with pytest.raises(LookupError):
        await shop.progress.act(claimed)
