"""A purchase that waits for buying to go on: what is told of it, and how old it may become."""

from datetime import timedelta

import pytest
from fulfillment.domain.model import Reason, State
from fulfillment.domain.policy import MOST_AGE, MOST_PARKED
from fulfillment.ports.supplier import InDoubt, NoAnswer, Paused, PlaceAnswer, Refused
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentNeedsAttention

from tests.unit.fulfillment.shop import Shop


@pytest.fixture
async def shop() -> Shop:
    shop = Shop()
    await shop.sell(2)
    return shop


async def test_while_buying_is_paused_an_order_waits_and_says_so(shop: Shop) -> None:
    before = await shop.found()
    shop.supplier.placing = [Paused(timedelta(seconds=42))]
    await shop.work()
    found = await shop.found()
    assert (found.state, found.reason) == (State.PURCHASING, Reason.BUYING_PAUSED)
    assert (found.lines[0].state, found.lines[0].reason) == (State.PURCHASING, Reason.BUYING_PAUSED)
    # Once for the claim, once for the pause: whoever watches is told of both.
    assert found.version == before.version + 2
    assert shop.seconds_to_next_look() == 42
    assert not shop.orders.told(FulfillmentNeedsAttention)


async def test_a_pause_that_goes_on_is_told_once(shop: Shop) -> None:
    shop.supplier.placing = [Paused(None), NoAnswer(), Paused(None)]
    await shop.work()
    before = await shop.found()
    for _ in range(2):
        shop.clock.pass_seconds(60)
        await shop.work()
    assert shop.supplier.asked["place"] == 3
    after = await shop.found()
    assert (after.version, after.reason) == (before.version, Reason.BUYING_PAUSED)


async def test_after_a_pause_it_is_bought_and_no_reason_is_left(shop: Shop) -> None:
    shop.supplier.placing = [Paused(None)]
    await shop.work()
    shop.clock.pass_seconds(60)
    await shop.work_until_ready()
    found = await shop.found()
    assert (found.state, found.reason, shop.purchase().reason) == (State.READY, Reason.NONE, Reason.NONE)
    assert len(shop.supplier.sold) == 1


async def wait(shop: Shop, duration: timedelta, answer: PlaceAnswer) -> None:
    """Let time pass by the hour, with one answer to whatever is asked meanwhile."""
    end = shop.clock.now() + duration
    while shop.clock.now() < end:
        shop.clock.time = min(shop.clock.now() + timedelta(hours=1), end)
        shop.supplier.placing = [answer]
        await shop.work()


async def test_a_parked_purchase_waits_longer_than_one_in_doubt_but_not_for_ever(shop: Shop) -> None:
    shop.supplier.placing = [Paused(None)]
    await shop.work()
    await wait(shop, MOST_PARKED, Paused(None))
    assert (await shop.found()).state is State.PURCHASING
    await wait(shop, timedelta(hours=1), Paused(None))
    found = await shop.found()
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.PURCHASE_TOO_OLD)
    assert not shop.supplier.sold


async def test_what_comes_into_doubt_after_a_pause_has_the_time_of_a_doubt_from_then_on(shop: Shop) -> None:
    shop.supplier.placing = [Paused(None)]
    await shop.work()
    await wait(shop, timedelta(hours=40), Paused(None))
    await wait(shop, MOST_AGE[State.PURCHASING], InDoubt(None))
    assert ((await shop.found()).state, (await shop.found()).reason) == (State.PURCHASING, Reason.NONE)
    await wait(shop, timedelta(hours=2), InDoubt(None))
    assert (await shop.found()).reason is Reason.PURCHASE_TOO_OLD


async def test_to_and_fro_between_pause_and_doubt_the_time_in_doubt_adds_up(shop: Shop) -> None:
    shop.supplier.placing = [Paused(None)]
    await shop.work()
    bounces = 0
    while (await shop.found()).state is State.PURCHASING:
        bounces += 1
        await wait(shop, timedelta(hours=2), InDoubt(None))
        await wait(shop, timedelta(hours=40), Paused(None))
    assert bounces == 4
    assert (await shop.found()).reason is Reason.PURCHASE_TOO_OLD


async def test_a_new_pause_is_as_old_as_itself_and_not_as_the_first_one(shop: Shop) -> None:
    shop.supplier.placing = [Paused(None)]
    await shop.work()
    await wait(shop, timedelta(hours=40), Paused(None))
    await wait(shop, timedelta(hours=1), InDoubt(None))
    assert shop.purchase().park_time is None
    await wait(shop, MOST_PARKED, Paused(None))
    assert ((await shop.found()).state, (await shop.found()).reason) == (State.PURCHASING, Reason.BUYING_PAUSED)
    await wait(shop, timedelta(hours=2), Paused(None))
    assert (await shop.found()).reason is Reason.PURCHASE_TOO_OLD


async def test_after_the_longest_pause_it_is_asked_once_more_and_bought(shop: Shop) -> None:
    shop.supplier.placing = [Paused(None)]
    await shop.work()
    shop.clock.time += 2 * MOST_PARKED
    await shop.work_until_ready()
    assert (await shop.found()).state is State.READY


async def test_a_line_that_is_parked_is_no_alarm_beside_one_that_needs_attention(shop: Shop) -> None:
    shop = Shop()
    await shop.sell(1, 1)
    shop.supplier.placing = [Refused("ConstraintViolation"), Paused(None)]
    await shop.work()
    told = shop.orders.told(FulfillmentNeedsAttention)
    assert [(each.item_id, each.reason) for each in told] == [("item-1", "PURCHASE_REFUSED")]
    assert [line.reason for line in (await shop.found()).lines] == [Reason.PURCHASE_REFUSED, Reason.BUYING_PAUSED]
