from datetime import timedelta

import pytest
from fulfillment.domain.machine import Command
from fulfillment.domain.model import ExternalId, Reason, State
from fulfillment.domain.policy import LAST_ASKING, MOST_AGE
from fulfillment.ports.supplier import InDoubt, NoAnswer, Refused
from fulfillment.progress import ACT_SECONDS, EXTEND_SECONDS
from fulfillment.working import LEASE
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentKeyReady,
    FulfillmentNeedsAttention,
    FulfillmentPurchased,
    FulfillmentReady,
)

from tests.unit.fulfillment.examples import NOON, a_payment, an_order
from tests.unit.fulfillment.fakes import collected, key_ids, supplier_order_id
from tests.unit.fulfillment.shop import ORDER_ID, Shop

TOO_OLD = {
    State.PENDING: Reason.PURCHASE_TOO_OLD,
    State.PURCHASING: Reason.PURCHASE_TOO_OLD,
    State.AWAITING_KEYS: Reason.KEYS_TOO_LATE,
    State.WITHDRAWING: Reason.GIVE_UP_TOO_OLD,
    State.REVOKING: Reason.GIVE_UP_TOO_OLD,
    State.RETURNING: Reason.RETURN_TOO_LATE,
    State.SHREDDING: Reason.GIVE_UP_TOO_OLD,
}
# What comes of a last question that is answered, of a purchase that was made.
LAST_ANSWERS = {
    State.PENDING: State.AWAITING_KEYS,
    State.PURCHASING: State.AWAITING_KEYS,
    State.AWAITING_KEYS: State.READY,
    State.WITHDRAWING: State.REVOKING,
    State.REVOKING: State.SHREDDING,
    State.SHREDDING: State.CANCELED,
}


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
    (claimed,) = await shop.claim(64)
    assert claimed.commands == (Command.PLAN_PURCHASE,)
    assert not shop.supplier.asked
    assert (shop.purchase().state, shop.purchase().claim) == (State.PENDING, 1)
    assert (await shop.found()).state is State.PENDING


async def test_nothing_is_bought_before_what_is_bought_is_committed(shop: Shop) -> None:
    placed = list[State]()

    async def note(step: str) -> None:
        if step == "before commit":
            placed.extend([shop.purchase().state] * shop.supplier.asked["place"])

    (claimed,) = await shop.claim(64)
    shop.orders.step = note
    await shop.progress.act(claimed)
    # The answer is written when the plan is committed, and not before.
    assert placed == [State.PURCHASING]


async def test_what_is_claimed_is_nobody_elses_until_its_lease_ends(shop: Shop) -> None:
    await shop.claim(64)
    assert not await shop.claim(64)
    shop.clock.time += LEASE
    (again,) = await shop.claim(64)
    assert (again.commands, again.buying.purchase.claim) == ((Command.PLAN_PURCHASE,), 2)


async def test_what_may_have_been_sent_is_settled(shop: Shop) -> None:
    shop.supplier.placing = [NoAnswer()]
    await shop.work()
    shop.clock.time += LEASE
    (again,) = await shop.claim(64)
    assert again.commands == (Command.SETTLE_ORDER,)


async def test_what_is_under_way_keeps_its_lease(shop: Shop) -> None:
    claimed = await shop.claim(64)
    for _ in range(5):
        shop.clock.time += LEASE - timedelta(seconds=1)
        await shop.progress.extend(claimed)
    assert not await shop.claim(64)


async def test_a_lease_that_has_ended_is_not_taken_back(shop: Shop) -> None:
    claimed = await shop.claim(64)
    shop.clock.time += LEASE
    await shop.progress.extend(claimed)
    assert len(await shop.claim(64)) == 1


def test_a_lease_outlives_missed_extensions_and_an_act_ends() -> None:
    assert timedelta(seconds=3 * EXTEND_SECONDS) < LEASE
    assert ACT_SECONDS > 60


async def test_a_refusal_ends_it_with_its_reason(shop: Shop) -> None:
    shop.supplier.placing = [Refused("ConstraintViolation")]
    assert await shop.work() == 1
    found = await shop.found()
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.PURCHASE_REFUSED)
    assert shop.purchase().refusal == "ConstraintViolation"
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
    shop.supplier.placing = [NoAnswer(), NoAnswer(), InDoubt(None)]
    await shop.work()
    before = await shop.found()
    shop.clock.time += LEASE
    await shop.work()
    shop.clock.pass_seconds(60)
    await shop.work()
    after = await shop.found()
    assert shop.supplier.asked["place"] == 3
    assert (after.version, after.update_time) == (before.version, before.update_time)


@pytest.mark.parametrize(("state", "reason"), TOO_OLD.items())
async def test_whatever_waits_too_long_is_for_a_human(shop: Shop, state: State, reason: Reason) -> None:
    if state in {State.REVOKING, State.SHREDDING}:
        # Without a key of it vault need not be asked.
        await shop.work_until_ready()
    await shop.place(state=state)
    async with shop.orders.transaction() as transaction:
        await transaction.save_purchase(shop.purchase(), now=NOON, run_at=NOON)
    await shop.wait_in_vain(MOST_AGE[state] + timedelta(seconds=1))
    found = await shop.found()
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, reason)
    assert shop.purchase().overdue_time is None
    assert shop.orders.told(FulfillmentNeedsAttention)
    assert await shop.work() == 0


@pytest.mark.parametrize(("state", "after"), LAST_ANSWERS.items())
async def test_what_is_too_old_is_asked_for_once_more_and_an_answer_counts(
    shop: Shop, state: State, after: State
) -> None:
    await shop.place(state=state, unit_limit=999)
    shop.supplier.sell(shop.purchase())
    async with shop.orders.transaction() as transaction:
        await transaction.save_purchase(shop.purchase(), now=NOON, run_at=NOON)
    shop.clock.time += 2 * MOST_AGE[state]
    assert await shop.work() == 1
    assert (shop.purchase().state, shop.purchase().overdue_time) == (after, None)


async def test_last_questions_that_nobody_lives_to_hear_the_answer_of_end_too(shop: Shop) -> None:
    shop.supplier.placing = [NoAnswer()]
    await shop.work()
    shop.clock.time += 2 * MOST_AGE[State.PURCHASING]
    questions = 0
    while (await shop.claim(64))[0].commands:
        questions += 1
        assert shop.purchase().overdue_time is not None
        shop.clock.time += LEASE
    assert (await shop.found()).reason is Reason.PURCHASE_TOO_OLD
    assert questions == LAST_ASKING / LEASE + 1


async def test_more_keys_that_are_ready_are_no_answer_to_wait_for(shop: Shop) -> None:
    await shop.work()
    shop.clock.time += 2 * MOST_AGE[State.AWAITING_KEYS]
    shop.supplier.collecting = [collected(shop.purchase(), 1, more=True)]
    await shop.work_until_ready()
    assert shop.purchase().state is State.READY


async def test_what_was_given_up_and_bought_after_all_shows_the_suppliers_order(shop: Shop) -> None:
    shop.supplier.placing = [NoAnswer()]
    await shop.work()
    shop.clock.pass_seconds(60)
    (late,) = await shop.claim(64)
    await shop.wait_in_vain(MOST_AGE[State.PURCHASING])
    await shop.progress.act(late)
    assert shop.purchase().state is State.NEEDS_ATTENTION
    assert shop.purchase().supplier_order_id == supplier_order_id(shop.purchase().external_id)
    assert shop.seconds_to_next_look() is None


async def test_two_workers_that_ask_the_same_are_told_the_same_once(shop: Shop) -> None:
    shop.supplier.placing = [NoAnswer()]
    await shop.work()
    shop.clock.time += LEASE
    (first,) = await shop.claim(64)
    shop.clock.time += LEASE
    (second,) = await shop.claim(64)
    await shop.progress.act(first)
    await shop.work_until_ready()
    ready = shop.orders.rows
    await shop.progress.act(second)
    assert shop.orders.rows == ready
    assert len(shop.supplier.sold) == 1


async def test_every_line_that_needs_attention_is_told(shop: Shop) -> None:
    shop = Shop()
    await shop.sell(1, 1)
    shop.supplier.placing = [Refused("ConstraintViolation"), Refused("Preorder")]
    await shop.work()
    told = shop.orders.told(FulfillmentNeedsAttention)
    assert [(each.item_id, each.reason) for each in told] == [
        ("item-1", "PURCHASE_REFUSED"),
        ("item-2", "PURCHASE_REFUSED"),
    ]


async def test_a_trouble_of_the_whole_order_is_told_apart_from_that_of_a_line(shop: Shop) -> None:
    shop.supplier.placing = [Refused("ConstraintViolation")]
    async with shop.orders.transaction() as transaction:
        await shop.intake.take_payment(transaction, a_payment(1, payment_id="payment-2"), telling="event-2")
    await shop.work()
    told = shop.orders.told(FulfillmentNeedsAttention)
    assert [(each.item_id, each.reason) for each in told] == [("", "PAYMENT_MISMATCH"), ("item-1", "PURCHASE_REFUSED")]


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
    (claimed,) = await shop.claim(64)
    async with shop.orders.transaction() as transaction:
        await transaction.hasten(shop.purchase().external_id, now=shop.clock.now())
    await shop.progress.act(claimed)
    assert shop.seconds_to_next_look() == 0


async def test_a_purchase_that_vanished_is_an_error_and_not_a_silence(shop: Shop) -> None:
    (claimed,) = await shop.claim(64)
    shop.orders.rows.purchases.clear()
    with pytest.raises(LookupError):
        await shop.progress.act(claimed)
