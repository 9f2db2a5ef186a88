"""From the plan to the supplier's answer: what is bought where, again, later, or never."""

from dataclasses import replace
from datetime import timedelta

import pytest
from fulfillment.domain.machine import Command
from fulfillment.domain.model import Reason, State
from fulfillment.domain.planner import Known, external_id
from fulfillment.domain.policy import Policy, Remedy
from fulfillment.ports.supplier import InDoubt, NoAnswer, NoProduct, Refused
from fulfillment.products import FRESH_SECONDS
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentNeedsAttention

from tests.unit.fulfillment.examples import a_payment, an_item, an_order
from tests.unit.fulfillment.fakes import a_product, an_offer
from tests.unit.fulfillment.office import ORDER_ID, Office

NONE_LEFT = a_product("product-1", an_offer(available=0))
TOO_DEAR = a_product("product-1", an_offer(price=1000))


@pytest.fixture
def office() -> Office:
    return Office()


async def test_what_is_bought_is_written_down_before_it_is_bought(office: Office) -> None:
    office.supplier.products["product-1"] = a_product("product-1", an_offer("dear", 800), an_offer("cheap", 700))
    await office.buy(2)
    (claimed,) = await office.claim()
    assert claimed.commands == (Command.PLAN_PURCHASE,)
    office.supplier.placing = [InDoubt(None)]
    await office.progress.act(claimed)
    purchase = office.purchase()
    assert (purchase.state, purchase.offer_id, purchase.unit_limit) == (State.PURCHASING, "cheap", 999)
    (buying,) = office.supplier.buyings
    assert replace(buying.purchase, next_time=None, tries=1) == replace(purchase, next_time=None)


async def test_a_line_is_bought_in_chunks_from_the_cheapest_first(office: Office) -> None:
    office.supplier.products["product-1"] = a_product(
        "product-1", an_offer("a", 700, available=4), an_offer("b", 710, available=30)
    )
    await office.buy(14)
    await office.settle()
    bought = [(each.offer_id, each.quantity) for each in office.orders.purchases()]
    assert bought == [("a", 4), ("b", 9), ("b", 1)]
    assert office.states() == [State.READY] * 3
    assert len(office.sealed()) == 14


@pytest.mark.parametrize("product", [NONE_LEFT, TOO_DEAR, NoProduct()])
async def test_stock_and_price_are_waited_for(office: Office, product: object) -> None:
    office.supplier.products["product-1"] = product  # type: ignore[assignment] # a Product
    await office.buy(2)
    await office.work()
    found = await office.found()
    assert (found.state, found.reason) == (State.PENDING, Reason.WAITING_FOR_STOCK)
    assert not office.orders.told(FulfillmentNeedsAttention)
    del office.supplier.products["product-1"]
    office.clock.pass_seconds(30)
    await office.settle()
    assert (await office.found()).state is State.READY


@pytest.mark.parametrize(
    ("remedy", "state"), [(Remedy.ATTENTION, State.NEEDS_ATTENTION), (Remedy.REFUND, State.CANCELED)]
)
async def test_patience_ends_as_the_shop_has_decided(remedy: Remedy, state: State) -> None:
    office = Office(Policy(stock_patience=timedelta(minutes=10), when_refused=remedy))
    office.supplier.products["product-1"] = NONE_LEFT
    await office.buy(2)
    begun = office.clock.now()
    await office.settle()
    purchase = office.purchase()
    assert (purchase.state, purchase.reason, purchase.refusal) == (state, Reason.PURCHASE_REFUSED, "out_of_stock")
    assert timedelta(minutes=10) <= office.clock.now() - begun < timedelta(minutes=11)
    assert office.asked_back() == (1000 if remedy is Remedy.REFUND else 0)


async def test_a_no_is_believed_only_when_it_is_fresh(office: Office) -> None:
    office.supplier.products["product-1"] = NONE_LEFT
    await office.products.read("product-1")
    del office.supplier.products["product-1"]
    await office.buy(2)
    await office.settle()
    assert office.states() == [State.READY]


async def test_one_reading_serves_purchases_of_the_same_moments(office: Office) -> None:
    await office.buy(1)
    await office.products.read("product-1")
    office.clock.pass_seconds(FRESH_SECONDS)
    await office.settle()
    assert office.supplier.asked["read_product"] == 1
    office.clock.pass_seconds(FRESH_SECONDS + 1)
    await office.products.read("product-1")
    assert office.supplier.asked["read_product"] == 2


@pytest.mark.parametrize("what", ["product", "known"])
async def test_without_an_answer_nothing_is_planned(office: Office, what: str) -> None:
    if what == "product":
        office.supplier.reading = [NoAnswer()]
    else:
        office.supplier.telling = [None]
    await office.buy(2)
    await office.work()
    assert office.states() == [State.PENDING]
    assert office.supplier.asked["place"] == 0
    await office.settle()
    assert office.states() == [State.READY]


async def test_a_product_that_the_customer_could_not_activate_is_for_a_human_at_once(office: Office) -> None:
    office.supplier.products["product-1"] = replace(a_product(), excluded_countries=frozenset({"DE"}))
    await office.buy(2)
    await office.work()
    purchase = office.purchase()
    assert (purchase.reason, purchase.refusal) == (Reason.PURCHASE_REFUSED, "country_excluded")


async def test_after_a_no_the_next_attempt_buys_of_another_offer(office: Office) -> None:
    office.supplier.products["product-1"] = a_product("product-1", an_offer("a", 700), an_offer("b", 710))
    office.supplier.placing = [Refused("ProductUnavailable")]
    await office.buy(2)
    await office.settle()
    first, second = office.orders.purchases()
    assert (first.state, first.offer_id, first.refusal) == (State.SUPERSEDED, "a", "ProductUnavailable")
    assert (second.state, second.offer_id, second.attempt) == (State.READY, "b", 2)
    assert second.external_id == external_id(ORDER_ID, second.item_id, 0, 2)
    found = await office.found()
    assert (found.state, found.reason) == (State.READY, Reason.NONE)


async def test_so_many_attempts_are_made_and_no_more() -> None:
    office = Office(Policy(most_attempts=3))
    office.supplier.placing = [Refused("ProductUnavailable")] * 9
    await office.buy(2)
    await office.settle()
    assert office.states() == [State.SUPERSEDED, State.SUPERSEDED, State.NEEDS_ATTENTION]
    assert len({each.external_id for each in office.orders.purchases()}) == 3
    assert not office.supplier.sold


async def test_what_cannot_pass_is_not_tried_again(office: Office) -> None:
    office.supplier.placing = [Refused("ConstraintViolation")]
    await office.buy(2)
    await office.settle()
    assert office.states() == [State.NEEDS_ATTENTION]


async def test_the_tolerance_widens_the_limit() -> None:
    office = Office(Policy(price_tolerance_percent=1))
    office.supplier.products["product-1"] = TOO_DEAR
    await office.buy(1)
    await office.settle()
    assert (office.purchase().state, office.purchase().unit_limit) == (State.READY, 1008)


async def test_a_restored_database_buys_nothing_twice(office: Office) -> None:
    """What the supplier's side knows of the order is adopted with its references, and only the rest is bought."""
    await office.buy(14)
    await office.settle()
    sold = dict(office.supplier.sold)
    restored = Office()
    restored.supplier.sold = dict(sold)
    await restored.buy(14)
    await restored.settle()
    assert restored.supplier.sold.keys() == sold.keys()
    assert restored.states() == [State.READY] * 2
    assert {key.key_id for key in restored.sealed()} == {key.key_id for key in office.sealed()}


async def test_what_others_hold_already_is_bought_by_nobody(office: Office) -> None:
    """Our own reference was refused before our database forgot it; its next attempts were not."""
    await office.order(an_order("order-1", 2))
    item_id = an_item().item_id
    second = external_id(ORDER_ID, item_id, 0, 2)
    office.supplier.telling = [[(item_id, Known(second, 2, "offer-1", 999, refused=False))]]
    await office.pay()
    await office.work()
    own, adopted = office.orders.purchases()
    assert (own.state, adopted.external_id, adopted.attempt) == (State.SUPERSEDED, second, 2)
    await office.settle()
    assert office.states() == [State.SUPERSEDED, State.READY]
    assert set(office.supplier.sold) == {second}
    assert (await office.found()).state is State.READY


async def test_a_plan_of_an_overtaken_worker_is_not_written(office: Office) -> None:
    await office.buy(2)
    (first,) = await office.claim()
    office.clock.pass_seconds(60)
    (second,) = await office.claim()
    await office.progress.act(first)
    assert office.states() == [State.PENDING]
    assert office.supplier.asked["place"] == 0
    await office.progress.act(second)
    assert office.states() == [State.AWAITING_KEYS]


async def test_an_overtaken_workers_doubt_does_not_put_off_the_one_after_it(office: Office) -> None:
    office.supplier.placing = [InDoubt(None)]
    await office.buy(2)
    await office.work()
    office.clock.pass_seconds(60)
    (first,) = await office.claim()
    office.clock.pass_seconds(60)
    (second,) = await office.claim()
    before = office.purchase()
    office.supplier.placing = [InDoubt(timedelta(hours=5))]
    await office.progress.act(first)
    assert office.purchase() == before
    await office.progress.act(second)
    assert office.states() == [State.AWAITING_KEYS]


async def test_an_overtaken_worker_that_was_told_of_a_sale_is_heard(office: Office) -> None:
    office.supplier.placing = [InDoubt(None)]
    await office.buy(2)
    await office.work()
    office.clock.pass_seconds(60)
    (first,) = await office.claim()
    office.clock.pass_seconds(60)
    (second,) = await office.claim()
    await office.progress.act(first)
    assert office.states() == [State.AWAITING_KEYS]
    office.supplier.placing = [InDoubt(None)]
    await office.progress.act(second)
    assert office.states() == [State.AWAITING_KEYS]


async def test_what_much_is_ordered_of_waits_in_later_lanes(office: Office) -> None:
    await office.order(an_order("order-1", 1000))
    await office.pay(a_payment())
    await office.work()
    lanes = [each.lane for each in office.orders.purchases()]
    assert sum(each.quantity for each in office.orders.purchases()) == 1000
    assert lanes.count(0) <= 5
    assert max(lanes) >= 2
