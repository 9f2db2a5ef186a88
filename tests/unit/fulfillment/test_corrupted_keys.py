"""A key that vault cannot open any more goes to a person, wherever its order is, and comes back from there."""

import pytest
from fulfillment.domain.model import KeyId, Purchase, Reason, State
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentDelivered,
    FulfillmentNeedsAttention,
    FulfillmentRefundRequested,
)

from tests.unit.fulfillment.desk import replace_key
from tests.unit.fulfillment.fakes import collected, key_ids
from tests.unit.fulfillment.office import Office


@pytest.fixture
async def office() -> Office:
    office = Office()
    await office.buy(2)
    await office.settle()
    return office


def purchase_of(office: Office, key_id: KeyId) -> Purchase:
    (found,) = [each for each in office.orders.purchases() if key_id in key_ids(each)]
    return found


async def test_the_order_needs_attention_and_the_shop_is_told(office: Office) -> None:
    first, _ = key_ids(office.purchase())
    await office.corrupt(first)
    found = await office.found()
    assert (found.state, found.reason) == (State.NEEDS_ATTENTION, Reason.KEY_CORRUPTED)
    (told,) = office.orders.told(FulfillmentNeedsAttention)
    assert told.reason == "KEY_CORRUPTED"


async def test_told_twice_it_is_told_once(office: Office) -> None:
    first, _ = key_ids(office.purchase())
    await office.corrupt(first)
    version = (await office.found()).version
    await office.corrupt(first)
    assert len(office.orders.told(FulfillmentNeedsAttention)) == 1
    assert (await office.found()).version == version


async def test_the_other_keys_can_be_opened_and_are_noted(office: Office) -> None:
    first, second = key_ids(office.purchase())
    await office.corrupt(first)
    await office.open(second)
    (opened,) = [key for key in office.sealed() if key.open_time is not None]
    assert opened.key_id == second


async def test_a_restored_key_is_opened_and_delivers_the_order(office: Office) -> None:
    first, second = key_ids(office.purchase())
    await office.open(second)
    await office.corrupt(first)
    await office.retry()
    assert office.purchase().state is State.READY
    await office.open(first)
    assert (await office.found()).state is State.DELIVERED
    assert len(office.orders.told(FulfillmentDelivered)) == 1


async def test_of_a_delivered_order_a_restored_key_leaves_it_delivered(office: Office) -> None:
    for key_id in key_ids(office.purchase()):
        await office.open(key_id)
    await office.corrupt(key_ids(office.purchase())[0])
    assert (await office.found()).state is State.NEEDS_ATTENTION
    await office.retry()
    assert (await office.found()).state is State.DELIVERED


async def test_a_key_that_stays_lost_is_told_again_after_a_retry(office: Office) -> None:
    first, _ = key_ids(office.purchase())
    for _ in range(2):
        await office.corrupt(first)
        assert (await office.found()).state is State.NEEDS_ATTENTION
        await office.retry()
    assert (await office.found()).state is State.READY


async def test_a_replacement_is_bought_once_and_the_rest_goes_on(office: Office) -> None:
    first, second = key_ids(office.purchase())
    lost = purchase_of(office, first)
    await office.corrupt(first)
    await replace_key(office, first)
    await office.settle()
    bought = [each for each in office.orders.purchases() if each.replaced_key_id == first]
    assert [each.state for each in bought] == [State.READY]
    await office.open(second)
    await office.open(key_ids(bought[0])[0])
    assert (await office.found()).state is State.DELIVERED
    # Told late, of the key that is nobody's any more, it changes nothing.
    await office.corrupt(first)
    assert purchase_of(office, second).state is State.DELIVERED
    assert lost.external_id == purchase_of(office, second).external_id


async def test_what_was_canceled_in_part_goes_back_there_and_no_money_is_asked_for_twice() -> None:
    office = Office()
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [collected(office.purchase(), 1, ended=True)]
    await office.work()
    await office.corrupt(key_ids(office.purchase())[0])
    await office.retry()
    await office.settle()
    assert (office.purchase().state, office.purchase().reason) == (State.PARTLY_CANCELED, Reason.KEYS_MISSING)
    assert len(office.orders.told(FulfillmentRefundRequested)) == 1


async def test_what_is_being_taken_back_is_not_held_up(office: Office) -> None:
    await office.refund()
    await office.corrupt(key_ids(office.purchase())[0])
    await office.settle()
    assert (await office.found()).state is State.REFUNDED


async def test_a_refund_of_a_lost_key_takes_it_back(office: Office) -> None:
    await office.corrupt(key_ids(office.purchase())[0])
    await office.refund()
    await office.settle()
    assert (await office.found()).state is State.REFUNDED


async def test_a_key_of_nobody_changes_nothing(office: Office) -> None:
    before = office.orders.rows
    await office.corrupt(KeyId("f" * 32))
    assert office.orders.rows == before
