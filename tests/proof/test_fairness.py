"""An order of very many keys, and twenty of one key each that come while it is served: nobody waits behind it.

In the short form the supplier takes its time for each purchase, and its ledger says who was served before whom. With
KEYFERRY_PROOF=full the large order has 1,000 keys, and the small ones are timed: on an idle system, then beside it.
"""

import asyncio
import math
import os
from collections.abc import Iterator, Sequence

import httpx
import pytest
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentReady
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.shop import Purchase

from tests.e2e.system import System
from tests.proof.shop import PRODUCT, Shop

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
# More than a lane of first, of later and of last purchases, so that there is somebody to pass.
KEYS = 1000 if FULL else 300
WHOLESALE_KEYS = 1000 if FULL else 100
PER_PURCHASE = 9
SMALL_ORDERS = 20
PLACING_SECONDS = 2.0
# What is bought of the large order at once: by those who serve the first lane, and by those who serve the others.
FIRST_LANE, LATER_AT_ONCE = 4, 8
READY_SECONDS = 600.0 if FULL else 120.0
MOST_EXTRA_SECONDS = 1.0
WHOLESALE = next(product.product_id for product in PRODUCTS if all(offer.tiers for offer in product.offers))
UNIT_PRICE_CENTS = 1499
LARGE = [pytest.param(Purchase(WHOLESALE, WHOLESALE_KEYS, UNIT_PRICE_CENTS), 1, id="wholesale")]
if FULL:
    chunks = math.ceil(KEYS / PER_PURCHASE)
    LARGE.append(pytest.param(Purchase(PRODUCT, KEYS, UNIT_PRICE_CENTS), chunks, id="by nines"))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    running = System(tmp_path_factory.mktemp("fairness"))
    running.start()
    yield running
    assert running.stop() == 0


async def small_orders(shop: Shop) -> Sequence[str]:
    """Let each of twenty customers pay one key."""
    return await asyncio.gather(*(shop.pay(f"customer-{number}") for number in range(SMALL_ORDERS)))


async def references(system: System, order_id: str) -> set[str]:
    fulfillment = await system.fulfillment(order_id)
    return {purchase.external_id for line in fulfillment.lines for purchase in line.purchases}


async def until_sold(system: System, http: httpx.AsyncClient, product_id: str, least: int) -> None:
    async def is_sold() -> bool:
        sold = [order for order in await system.sold(http) if order["lines"][0]["product_id"] == product_id]
        return len(sold) >= least

    await system.until_true(is_sold, seconds=60, every=0.05)


async def timed(shop: Shop, small: Sequence[str]) -> float:
    """Return how long the slowest of some orders took from its payment until it was ready."""
    await shop.until_ready(READY_SECONDS, small)
    return max(shop.seconds(FulfillmentReady, order_id) for order_id in small)


async def test_small_orders_are_bought_before_the_bulk_of_a_large_one(system: System, http: httpx.AsyncClient) -> None:
    delay = {"action": "delay", "operation": "placeOrder", "seconds": PLACING_SECONDS, "when": "before"}
    control = system.endpoints["kinguin_control"]
    async with Shop.opened(system.endpoints["nats"]) as shop:
        assert (await http.post(f"{control}/faults", json=delay)).is_success
        large = await shop.pay("alice", Purchase(PRODUCT, KEYS, UNIT_PRICE_CENTS))
        small = await small_orders(shop)
        await until_sold(system, http, PRODUCT, SMALL_ORDERS + FIRST_LANE)
        await shop.until_ready(READY_SECONDS)
        await http.delete(f"{control}/faults")
    own = await references(system, large)
    others = {name for order_id in small for name in await references(system, order_id)}
    ledger = [order["external_id"] for order in await system.sold(http)]
    assert len(own) == math.ceil(KEYS / PER_PURCHASE)
    assert sorted(ledger) == sorted(own | others)
    last_small = max(ledger.index(name) for name in others)
    passed = sum(name in own for name in ledger[last_small:])
    # Two rounds of the large order may be under way while the small ones come in, and are sold with them.
    assert len(own) - passed <= FIRST_LANE + 3 * LATER_AT_ONCE, ledger
    print(  # noqa: T201 # the figures of a proof
        f"fairness: of {len(own)} purchases of a large order {passed} were made after the last of {SMALL_ORDERS} small"
    )


@pytest.mark.parametrize(("large", "purchases"), LARGE)
async def test_small_orders_are_ready_as_soon_beside_a_large_one_as_without_it(
    system: System, http: httpx.AsyncClient, large: Purchase, purchases: int
) -> None:
    async with Shop.opened(system.endpoints["nats"]) as shop, asyncio.timeout(READY_SECONDS):
        idle = await timed(shop, await small_orders(shop))
        before = len(await system.sold(http))
        order_id = await shop.pay("alice", large)

        async def has_begun() -> bool:
            return len(await system.sold(http)) > before

        await system.until_true(has_begun, every=0.02)
        busy = await timed(shop, await small_orders(shop))
        was_ready = order_id in shop.heard[FulfillmentReady]
        await shop.until_ready(READY_SECONDS)
        whole = shop.seconds(FulfillmentReady, order_id)
    assert len(await references(system, order_id)) == purchases
    fulfillment = await system.fulfillment(order_id)
    assert len({key.key_id for line in fulfillment.lines for key in line.keys}) == large.quantity
    print(  # noqa: T201 # the figures of a proof
        f"fairness: {SMALL_ORDERS} small orders took at most {idle:.2f} s idle, {busy:.2f} s beside one of "
        f"{large.quantity} keys in {purchases} purchases, which took {whole:.2f} s"
        f"{' and was ready first' if was_ready else ''}"
    )
    if FULL:
        assert busy <= idle + MOST_EXTRA_SECONDS
